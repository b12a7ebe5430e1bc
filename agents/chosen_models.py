"""Which models a run opens: those that somebody asks, of all that the settings name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..core.errors import UserError
from ..core.model_roles import CHAIR, JURY, models_by_role
from ..core.settings import Settings
from ..reasoning.strategy import STRATEGIES
from ..verify.verifier import VERIFIERS, make_verifier

VerifyParameters = Mapping[str, Mapping[str, Any]]


def models_of(settings: Settings, verify_parameters: VerifyParameters | None = None) -> dict[str, str]:
    """Model strings by role.

    Args:
        settings: Say strategy, verifiers, and who plays which role.
        verify_parameters: The parameters of each verifier; None are the settings'.
    """
    chosen = settings.verifiers if verify_parameters is None else verify_parameters
    return models_by_role(settings, asked_roles(settings.strategy, settings.verify, chosen))


def asked_roles(strategy: str, verify: Sequence[str], verify_parameters: VerifyParameters) -> set[str]:
    """The roles that a strategy and some verifiers ask, "main" and "jury" among them.

    Args:
        strategy: The strategy's name.
        verify: The verifiers' names.
        verify_parameters: The parameters of each verifier, which may have roles of their own; defaults where none are.
    """
    used = set(STRATEGIES.load(strategy).roles)
    for name in verify:
        used.update(make_verifier(name, verify_parameters.get(name, {}))[0].roles)
    return used


def verifier_asks_jury(name: str) -> bool:
    """Whether a verifier asks a jury, and so has something to say without any evidence."""
    return JURY in make_verifier(name, {})[0].roles


def refuse_idle_models(
    settings: Settings,
    verify_parameters: VerifyParameters,
    *,
    small_model: str | None = None,
    judge_model: str | None = None,
    reward_model: str | None = None,
    jurors: Sequence[str] = (),
    chair_model: str | None = None,
) -> None:
    """Refuse models that the caller named and nobody would ask: he would believe that they had a part in the answer.

    Models that stand in settings are another thing: those are for all strategies, and wait for one that asks them.

    Args:
        settings: Say strategy and verifiers.
        verify_parameters: The parameters of each verifier.
        small_model: The model that the caller named for small steps; None is none, and likewise of the others.
        judge_model: The model that is to judge.
        reward_model: The model that is to score.
        jurors: The models that are to answer beside one another.
        chair_model: The model that is to make one answer of theirs.

    Raises:
        UserError: Neither the strategy nor a verifier asks one of them; says which would.
    """
    asked = asked_roles(settings.strategy, settings.verify, verify_parameters)
    for role, param, lacks, plays, name in (
        ("small", "small_model", "asks no small model", "small model", small_model),
        ("judge", "judge_model", "asks no judge", "judge", judge_model),
        ("reward", "reward_model", "asks no reward model", "reward model", reward_model),
        (JURY, "jurors", "asks no jury", "juror", next(iter(jurors), None)),
        (CHAIR, "chair_model", "has no chair", "chair model", chair_model),
    ):
        if name is not None and role not in asked:
            raise UserError(
                f"the strategy {settings.strategy} {lacks}, so it cannot use the {plays} {name}",
                hint=_who_asks(role),
                param=param,
            )


def _who_asks(role: str) -> str:
    """The strategies and verifiers that ask a role, for a hint."""
    strategies = sorted(name for name in STRATEGIES.names() if role in STRATEGIES.load(name).roles)
    verifiers = sorted(name for name in VERIFIERS.names() if role in make_verifier(name, {})[0].roles)
    several = f"{', '.join(strategies[:-1])} or " if strategies[1:] else ""
    if role == "judge":
        verifiers = ["davinci with entailment=judge"]
    others = f", or the verifier {' or '.join(verifiers)}" if verifiers else ""
    return f"take the strategy {several}{strategies[-1]}{others}"
