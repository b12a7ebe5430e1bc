"""Several seeds: the spread of accuracy over seeds, instability, success rates, pass@k and fail@k.

Source: evaluation over several samples as in Joshi et al. 2026 ("Stochastic CHAOS", arXiv:2601.07239) and
Song et al. 2024 ("The Good, The Bad, and The Greedy", arXiv:2407.10457).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from ...core.errors import UserError
from .outcomes import Array, Outcomes

BINS = 10


@dataclass(frozen=True)
class SeedSpread:
    """How a run's accuracy varies from seed to seed. None is "not estimable", never 0.

    Attributes:
        seeds: Number of seeds.
        mean: Mean over items of their mean over seeds: A.
        by_seed: Accuracy of each seed, over the items that have it: A_j.
        sd: Standard deviation of `by_seed` (n - 1 in the denominator).
        low: Minimum of `by_seed`.
        high: Maximum of `by_seed`.
        seed_se: Standard error of one seed's accuracy that comes from the seeds only: the root of
            (1/I²) Σ p_i (1 - p_i) n_i/(n_i - 1).
        instability: Chance that two seeds disagree on a random item: (1/I) Σ 2 p_i (1 - p_i) n_i/(n_i - 1).
        histogram: Items by success rate, in ten bins of equal width, the last one closed.
        always: Share of items that every seed gets right.
        never: Share of items that no seed gets right.
    """

    seeds: int
    mean: float
    by_seed: tuple[float, ...]
    sd: float | None
    low: float
    high: float
    seed_se: float | None
    instability: float | None
    histogram: tuple[int, ...]
    always: float
    never: float


def seed_spread(outcomes: Outcomes) -> SeedSpread:
    """Describe the spread.

    `seed_se` and `instability` are defined for scores of 0 and 1, and need two seeds of every item.
    """
    p, n = outcomes.p, outcomes.seeds_per_item
    by_seed = np.nanmean(outcomes.scores, axis=0)
    seed_se = instability = None
    if outcomes.binary and n.min() >= 2:
        within = p * (1 - p) * n / (n - 1)
        seed_se = float(np.sqrt(within.sum()) / len(p))
        instability = float(2 * within.mean())
    counts, _ = np.histogram(p, bins=BINS, range=(0.0, 1.0))
    return SeedSpread(
        seeds=outcomes.scores.shape[1],
        mean=float(p.mean()),
        by_seed=tuple(float(a) for a in by_seed),
        sd=float(by_seed.std(ddof=1)) if len(by_seed) >= 2 else None,
        low=float(by_seed.min()),
        high=float(by_seed.max()),
        seed_se=seed_se,
        instability=instability,
        histogram=tuple(int(c) for c in counts),
        always=float(np.mean(p == 1.0)),
        never=float(np.mean(p == 0.0)),
    )


def sampling_gap(best_pass_at_k: float, greedy_accuracy: float) -> float:
    """What sampling could add to the greedy run: max over k of pass@k, less the greedy accuracy."""
    return best_pass_at_k - greedy_accuracy


def fragility(outcomes: Outcomes, greedy_accuracy: float) -> float:
    """What of the greedy accuracy is not certain: it less the share of items that every sample gets right."""
    return greedy_accuracy - float(np.mean(outcomes.p == 1.0))


def pass_at_k(outcomes: Outcomes, k: int) -> float | None:
    """Probability that at least one of k attempts succeeds, averaged over items.

    (1/I) Σ [1 - C(n - c_i, k) / C(n, k)] with c_i successes in n_i attempts: unbiased for k ≤ n.

    Source: Chen et al. 2021, "Evaluating Large Language Models Trained on Code", equation 1.

    Returns:
        None if an item has fewer than k attempts, or scores are not 0 or 1: then it is not estimable.
    """
    each = attempts_by_item(outcomes, k, failures=False)
    return None if each is None else float(each.mean())


def fail_at_k(outcomes: Outcomes, k: int) -> float | None:
    """Probability that at least one of k attempts fails, averaged over items (R_k). None as in `pass_at_k`."""
    each = attempts_by_item(outcomes, k, failures=True)
    return None if each is None else float(each.mean())


def attempts_by_item(outcomes: Outcomes, k: int, *, failures: bool) -> Array | None:
    """For each item the chance that k attempts hold at least one success (or failure), `[items]`.

    Raises:
        UserError: k is less than 1.
    """
    if k < 1:
        raise UserError(f"k must be at least 1, not {k}")
    n = outcomes.seeds_per_item
    if not outcomes.binary or n.min() < k:
        return None
    hits = np.nansum(1 - outcomes.scores if failures else outcomes.scores, axis=1)
    misses = n - hits
    none = np.where(misses >= k, np.exp(_log_ways(np.maximum(misses, k), k) - _log_ways(n.astype(float), k)), 0.0)
    each: Array = 1.0 - none
    return each


def _log_ways(n: Array, k: int) -> Array:
    """Logarithm of k! times C(n, k): in a ratio of two of them, k! cancels out."""
    value: Array = gammaln(n + 1) - gammaln(n - k + 1)
    return value
