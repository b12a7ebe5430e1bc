"""`Planner`: from a question and what differs for it to the run's whole configuration, without opening anything.

It is on the path of every request of a server: settings were read when it was made, and of files it looks at
calibration maps alone, each once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from ..core.budget import Budget
from ..core.calibration import CalibrationMap
from ..core.errors import UserError
from ..core.question import Question
from ..core.run import RunConfig, new_seed
from ..core.settings import Settings, explain
from ..reasoning.strategy import make_strategy, refuse_tools
from .calibrated import chosen_map
from .chosen_models import models_of, refuse_idle_models
from .knowledge import uses
from .verifying import compares_with, complete_parameters


class Planner:
    """Makes the configurations of runs.

    Args:
        settings: Models, strategy, verifiers and limits of a run for which nothing else is said.
        parameters: The strategy's parameters, complete.
        verify_parameters: The parameters of each verifier, complete.
        require_verified: Whether an answer that is not verified is an error.
        calibration: The calibration map of the settings' strategy; None is none.
    """

    def __init__(
        self,
        settings: Settings,
        parameters: Mapping[str, Any],
        verify_parameters: Mapping[str, Mapping[str, Any]],
        require_verified: bool,
        calibration: CalibrationMap | None,
    ) -> None:
        self._settings = settings
        self._parameters = parameters
        self._verify_parameters = verify_parameters
        self._require_verified = require_verified
        self._maps: dict[str, CalibrationMap | None] = {settings.strategy: calibration}

    def plan(
        self,
        asked: Question,
        *,
        strategy: str | None = None,
        model: str | None = None,
        small_model: str | None = None,
        judge_model: str | None = None,
        jurors: Sequence[str] | None = None,
        chair_model: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        verify: Sequence[str] | None = None,
        verify_parameters: Mapping[str, Mapping[str, Any]] | None = None,
        evidence: Sequence[str] | None = None,
        repairs: int | None = None,
        budget: Budget | Mapping[str, Any] | None = None,
        seed: int | None = None,
        require_verified: bool | None = None,
        tenant: str = "",
    ) -> RunConfig:
        """See `Reasoner.plan`; the question is checked already."""
        base = self._settings
        changed: dict[str, Any] = {
            "strategy": strategy,
            "model": model,
            "small_model": small_model,
            "judge_model": judge_model,
            "jurors": None if jurors is None else tuple(jurors),
            "chair_model": chair_model,
            "verify": None if verify is None else tuple(verify),
        }
        settings = base.model_copy(update={name: value for name, value in changed.items() if value is not None})
        own = self._parameters if settings.strategy == base.strategy else base.strategies.get(settings.strategy, {})
        _, complete = make_strategy(settings.strategy, {**own, **(parameters or {})})
        refuse_tools(settings.strategy, asked)
        verifying = complete_parameters(
            settings.verify, {**base.verifiers, **self._verify_parameters}, verify_parameters
        )
        refuse_idle_models(settings, verifying, changed)
        must = self._require_verified if require_verified is None else require_verified
        if must and not settings.verify:
            raise UserError(
                "a verified answer is required but no verifier is named", hint="name one with verify", param="verify"
            )
        looks_up = uses(settings.strategy, "brain")
        compares = (
            uses(settings.strategy, "embedding")
            or (looks_up and bool(settings.memory))
            or bool(compares_with(settings.strategy, complete, asked))
        )
        return RunConfig(
            question=asked,
            strategy=settings.strategy,
            parameters=complete,
            models=models_of(settings, verifying) | ({"embedding": settings.embedding_model} if compares else {}),
            verify=settings.verify,
            verify_parameters=verifying,
            evidence=(settings.evidence if evidence is None else tuple(evidence)) if settings.verify else (),
            repairs=(settings.repairs if repairs is None else repairs) if settings.verify else 0,
            require_verified=must,
            budget=settings.budget if budget is None else _checked(budget),
            local=settings.local,
            seed=_first(seed, settings.seed, new_seed()),
            reuse=settings.reuse,
            calibration=self._map(settings) if model in (None, base.model) else None,
            context=settings.context if looks_up else (),
            memory=settings.memory if looks_up else "",
            tenant=tenant,
        )

    def _map(self, settings: Settings) -> CalibrationMap | None:
        """The strategy's calibration map, whose file is read once."""
        name = settings.strategy
        if name not in self._maps:
            self._maps[name] = chosen_map(settings)
        return self._maps[name]


def _checked(budget: Budget | Mapping[str, Any]) -> Budget:
    if isinstance(budget, Budget):
        return budget
    try:
        return Budget.model_validate(dict(budget))
    except ValidationError as e:
        raise explain(e, "budget", Budget.model_fields) from e


def _first(*values: int | None) -> int:
    return next(v for v in values if v is not None)
