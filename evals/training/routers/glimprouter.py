"""Calibration of GlimpRouter: the entropy threshold that sends a given share of steps to the large model.

`calibration_plan` makes a run in which the small model writes everything, at one chain a question. Any run of
`glimprouter` by entropy can be used as well, for example one at threshold 0; its steps then follow other writers.

Source: Zeng et al. 2026, "GlimpRouter", arXiv:2601.05110; the quantile as threshold is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, cast, get_args

from pydantic import JsonValue

from ....core.errors import UserError
from ....core.files import write_file
from ....core.settings import Settings
from ....core.version import __version__
from ....routers.router_files import GlimpRouterFile, quantiles_of
from ....serving.entropy import EntropyKind
from ...calibration import engine_identities
from ...plan import EvalPlan
from ...results import ResultRow
from ...run_directory import SolutionNotes
from ...runner import make_plan
from ...task import Task

STRATEGY: Final = "glimprouter"
FIXED_PARAMETERS: Final[Mapping[str, JsonValue]] = {"policy": "entropy", "threshold": 100.0, "answer": "writer"}
"""Parameters of the run: no entropy of a vocabulary of less than e^100 tokens reaches the threshold."""
UNUSED_PARAMETERS: Final = ("router", "router_digest", "rate")
"""Parameters that it has no use for."""
MIN_RELIABLE_STEPS: Final = 100
"""Minimum number of steps for a reliable quantile; fewer give a warning."""


@dataclass(frozen=True)
class PooledEntropies:
    """The entropies of a run.

    Attributes:
        entropies: In nats, of all steps.
        entropy: What kind they are.
        k: Tokens or samples of that kind.
        questions: Questions that they are of.
        without: Rows without any, failed ones included.
        by_large: Steps that the large model wrote.
        in_thought: Whether the steps are those of thoughts.
    """

    entropies: tuple[float, ...]
    entropy: EntropyKind
    k: int
    questions: int
    without: int
    by_large: int
    in_thought: bool = False

    def share(self, threshold: float, *, strict: bool) -> float:
        """The share of the steps that a threshold sends to the large model."""
        sent = sum(h > threshold if strict else h >= threshold for h in self.entropies)
        return sent / len(self.entropies)


def calibration_plan(
    task: Task,
    settings: Settings,
    *,
    parameters: Mapping[str, Any],
    limit: int | None = None,
    seed: int = 0,
) -> EvalPlan:
    """The evaluation whose entropies are pooled: `glimprouter`, with everything written by the small model.

    Args:
        parameters: Parameters of the step loop that differ from the defaults.

    Raises:
        UserError: No small model is named, a parameter is decided here, or one is not allowed.
    """
    if settings.small_model is None:
        raise UserError(
            "a router is of two models, and no small model was named",
            hint="--small-model SMALL (small_model in Python) next to the large one, -m LARGE",
        )
    for name in parameters:
        if name in FIXED_PARAMETERS or name in UNUSED_PARAMETERS:
            raise UserError(f"{name} must not be set here: the calibration decides it", hint="leave it out")
    chosen = settings.model_copy(update={"strategy": STRATEGY, "calibration": {}})
    # what the settings say of glimprouter is for its use, above all a threshold or a router's file
    usual = {
        k: v
        for k, v in settings.strategies.get(STRATEGY, {}).items()
        if k not in FIXED_PARAMETERS and k not in UNUSED_PARAMETERS
    }
    chosen = chosen.model_copy(update={"strategies": {}})
    return make_plan(task, chosen, parameters={**usual, **parameters, **FIXED_PARAMETERS}, limit=limit, seeds=(seed,))


def pool_entropies(rows: Sequence[ResultRow], notes: Sequence[SolutionNotes | None]) -> PooledEntropies:
    """The entropies of a run's steps.

    Raises:
        UserError: There are none, or they are of several kinds, or of steps of thoughts and of others.
    """
    results: list[float] = []
    kinds: set[tuple[EntropyKind, int]] = set()
    questions: set[str] = set()
    in_thought: set[bool] = set()
    without = by_large = 0
    for row, noted in zip(rows, notes, strict=True):
        own = _entropies(noted)
        if noted is None or not own:
            without += 1
            continue
        results += own
        kinds.add((_kind(noted), _count(noted.get("k"))))
        in_thought.add(noted.get("in_thought") is True)
        questions.add(row.id)
        writers = noted.get("writers")
        by_large += writers.count("large") if isinstance(writers, list) else 0
    if not results:
        raise UserError(
            "no step of the run has an entropy, so there is nothing to calibrate",
            hint="calibrate on a run of glimprouter with the policy entropy",
        )
    if len(kinds) > 1:
        raise UserError(
            "the run's entropies are of several kinds: " + ", ".join(f"{kind} (k={k})" for kind, k in sorted(kinds)),
            hint="run it again with one: --set entropy=top_k",
        )
    if len(in_thought) > 1:
        raise UserError(
            "some of the run's steps are those of thoughts, and others are not",
            hint="run it again with models that both think, or with --effort none",
        )
    ((kind, k),) = kinds
    return PooledEntropies(tuple(results), kind, k, len(questions), without, by_large, in_thought.pop())


def fit_router(
    plan: EvalPlan, rows: Sequence[ResultRow], notes: Sequence[SolutionNotes | None], rate: float
) -> tuple[GlimpRouterFile, PooledEntropies]:
    """A router file from a run.

    Args:
        rate: The share of steps that is to go to the large model, in (0, 1].

    Raises:
        UserError: It is no run of `glimprouter` by entropy on two models, or has no entropies.
    """
    if plan.strategy != STRATEGY or plan.parameters.get("policy") != "entropy":
        policy = plan.parameters.get("policy")
        text = plan.strategy + (f" with the policy {policy}" if policy is not None else "")
        raise UserError(f"the run is one of {text}", hint="calibrate on a run of glimprouter with the policy entropy")
    if "small" not in plan.models:
        raise UserError(
            "the run has no small model of its own, so there is no pair to calibrate",
            hint="run it again with --small-model",
        )
    if not 0 < rate <= 1:
        raise UserError(f"a rate of {rate:g} is no share of steps to send", hint="above 0 and at most 1")
    engines = engine_identities([row for row in rows if row.engines])
    pooled = pool_entropies(rows, notes)
    strict = plan.parameters.get("strict") is True
    draft = GlimpRouterFile(
        small=plan.models["small"],
        large=plan.models["main"],
        engines={role: engines[role] for role in ("main", "small")},
        entropy=pooled.entropy,
        k=pooled.k,
        in_thought=pooled.in_thought,
        quantiles=quantiles_of(pooled.entropies),
        steps=len(pooled.entropies),
        questions=pooled.questions,
        rate=rate,
        threshold=0.0,
        measured_rate=0.0,
        strict=strict,
        dataset=plan.dataset.full_name,
        fingerprint=plan.dataset.fingerprint,
        parameters=plan.parameters,
        version=__version__,
        made=datetime.now(UTC).date(),
    )
    threshold = draft.threshold_for(rate)
    share = pooled.share(threshold, strict=strict)
    return draft.model_copy(update={"threshold": threshold, "measured_rate": share}), pooled


def save_router(router: GlimpRouterFile, path: Path) -> None:
    """Write a router file, completely or not at all; its name is the file's.

    Raises:
        StoreError: It cannot be written; an existing file stays.
    """
    write_file(path, (router.model_dump_json(indent=2, exclude={"name"}) + "\n").encode("utf-8", "surrogatepass"))


def _entropies(notes: SolutionNotes | None) -> list[float]:
    """The entropies in a solution's notes; steps without a probe have none."""
    listed = None if notes is None else notes.get("entropies")
    return [max(0.0, float(h)) for h in listed if isinstance(h, int | float)] if isinstance(listed, list) else []


def _kind(notes: SolutionNotes) -> EntropyKind:
    kind = notes.get("entropy_kind")
    if kind not in get_args(EntropyKind):
        raise UserError(
            f"the run notes entropies of a kind that is not known: {kind}", hint="run it again with this version"
        )
    return cast(Literal["full", "top_k", "sampled"], kind)


def _count(value: JsonValue) -> int:
    return value if isinstance(value, int) else 0
