"""A greedy run beside the sampled runs of the same method: what sampling could add, and how sure the greedy answer is.

Source: Song et al. 2024 ("The Good, The Bad, and The Greedy", arXiv:2407.10457) and Joshi et al. 2026 ("Stochastic
CHAOS", arXiv:2601.07239): one deterministic run hides both what a model can do and how often it fails.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..core.messages import Frozen
from .comparison import StoredRun, settings_of
from .statistics.attempts import pass_at_k
from .statistics.spread import fragility, sampling_gap
from .summary import outcomes_of

TEMPERATURE = "parameters.temperature"


class Greedy(Frozen):
    """A greedy run and a sampled one of the same settings, on the items that both have.

    Attributes:
        greedy: What reports call the greedy run.
        sampled: What they call the sampled one.
        items: Items that both have.
        seeds: Seeds of the sampled run.
        greedy_accuracy: Accuracy of the greedy run.
        sampled_accuracy: Mean accuracy of the sampled one.
        best: pass@k for k = all seeds, which is the greatest; None if scores are shares or a seed is missing.
        sampling_gap: `best` less the greedy accuracy; None likewise.
        fragility: The greedy accuracy less the share of items that every sample gets right.
    """

    greedy: str
    sampled: str
    items: int
    seeds: int
    greedy_accuracy: float
    sampled_accuracy: float
    best: float | None
    sampling_gap: float | None
    fragility: float


def greedy_beside_sampled(runs: Sequence[StoredRun]) -> list[Greedy]:
    """Every greedy run with every sampled run that differs from it in temperature and seeds alone.

    A run is greedy if its temperature is 0. Sampled runs of one seed are left out: they say nothing of a spread.
    """
    settings = [settings_of(run) for run in runs]
    found = []
    for run, mine in zip(runs, settings, strict=True):
        if mine.get(TEMPERATURE) != 0:
            continue
        for other, theirs in zip(runs, settings, strict=True):
            differs = {n for n in {*mine, *theirs} if mine.get(n) != theirs.get(n)}
            if TEMPERATURE in differs and differs <= {TEMPERATURE, "seeds"} and len(other.manifest.plan.seeds) > 1:
                pair = _beside(run, other)
                found += [pair] if pair is not None else []
    return found


def _beside(run: StoredRun, other: StoredRun) -> Greedy | None:
    shared = {r.id for r in run.rows} & {r.id for r in other.rows}
    ids = [i for i in dict.fromkeys(r.id for r in run.rows) if i in shared]
    if not ids:
        return None
    accuracy = float(outcomes_of(run.rows).only(ids).p.mean())
    sampled = outcomes_of(other.rows).only(ids)
    best = pass_at_k(sampled, sampled.scores.shape[1])
    return Greedy(
        greedy=run.label,
        sampled=other.label,
        items=len(ids),
        seeds=sampled.scores.shape[1],
        greedy_accuracy=accuracy,
        sampled_accuracy=float(sampled.p.mean()),
        best=best,
        sampling_gap=None if best is None else sampling_gap(best, accuracy),
        fragility=fragility(sampled, accuracy),
    )
