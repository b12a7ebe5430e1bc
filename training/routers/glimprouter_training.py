"""Calibration of GlimpRouter: the entropy threshold that sends a given share of steps to the large model.

Any run of `glimprouter` by entropy can be used. At threshold 100 the small model writes every step: no entropy of a
vocabulary of less than e^100 tokens reaches it.

Source: Zeng et al. 2026, "GlimpRouter", arXiv:2601.05110; the quantile as threshold is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, cast, get_args

from pydantic import JsonValue
from reason.core.errors import UserError
from reason.core.files import write_file
from reason.core.version import __version__
from reason.evals.calibration import engine_identities
from reason.evals.plan import EvalPlan
from reason.evals.results import ResultRow
from reason.evals.run_directory import SolutionNotes
from reason.routers.router_files import GlimpRouterFile, quantiles_of
from reason.serving.entropy import EntropyKind

STRATEGY: Final = "glimprouter"
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

    def share(self, threshold: float) -> float:
        """The share of the steps that a threshold sends to the large model."""
        return sum(h >= threshold for h in self.entropies) / len(self.entropies)


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
        dataset=plan.dataset.full_name,
        fingerprint=plan.dataset.fingerprint,
        parameters=plan.parameters,
        version=__version__,
        made=datetime.now(UTC).date(),
    )
    threshold = draft.threshold_for(rate)
    share = pooled.share(threshold)
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
