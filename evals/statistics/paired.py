"""Two methods on the same items: the difference with its interval, an exact test, and the detectable difference.

A difference is called shown where an exact test and the interval agree. The percentile bootstrap is not used for it:
where few items differ, its interval excludes 0 far too often (4 wins and no loss among 40 items: p = 0.125).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from scipy import stats

from ...core.errors import UserError
from .intervals import LEVEL, Interval, standard_error, t_interval, wilson
from .outcomes import Array, Outcomes, number_groups

POWER: Final = 0.8
ALPHA: Final = 0.05
FLIPS: Final = 100_000
_EXACT: Final = 2**20
"""Maximum number of distinct sums that are enumerated."""

Status = Literal["shown", "not shown", "refuted"]


@dataclass(frozen=True)
class PairedComparison:
    """The comparison of a with b; differences are a minus b.

    Attributes:
        items: Items that both have.
        clusters: Groups of them; as many as items where every item is its own.
        seeds: Seeds of a or b, whichever has more.
        difference: Mean of d_i = p_i(a) - p_i(b).
        se: Its standard error, clustered; None with fewer than two clusters.
        interval: 95% interval of the difference: Newcombe's score interval where both have one seed of right and wrong
            answers to independent items, else Student's t over clusters. None where t is not estimable: every item (or
            group) has the same difference, which is no evidence of how much another would differ.
        wins: Items where a has the higher success rate.
        losses: Items where b has.
        both: Items that both get right under every seed.
        neither: Items that both get wrong under every seed.
        other: The other ties.
        p: Two-sided p-value of `test`.
        test: "McNemar exact" where the interval is Newcombe's; else the sign-flip permutation test of the mean
            difference by clusters, "sign-flip exact" or "sign-flip, 100,000 flips".
        detectable: Smallest true difference that a test at this level detects with a power of 80 %; None where every
            item has the same difference.
        items_needed: Number of such items with which the observed difference would be detectable; None in the same
            case, or without a difference.
    """

    items: int
    clusters: int
    seeds: int
    difference: float
    se: float | None
    interval: Interval | None
    wins: int
    losses: int
    both: int
    neither: int
    other: int
    p: float
    test: str
    detectable: float | None
    items_needed: int | None

    def status(self, p_adjusted: float | None = None) -> Status:
        """What may be said of "a is better than b".

        "shown" (or "refuted", if b is) needs both p < 0.05 and an interval that excludes 0.

        Args:
            p_adjusted: The p-value corrected for the other comparisons of its table; None where it is the only one.
        """
        return claim_status(self.difference, self.interval, self.p if p_adjusted is None else p_adjusted)


def claim_status(difference: float, ends: Interval | None, p: float) -> Status:
    """Status of a claimed positive difference from its interval and its (adjusted) two-sided p-value."""
    if p >= ALPHA or ends is None or ends.low <= 0 <= ends.high:
        return "not shown"
    return "shown" if difference > 0 else "refuted"


def compare_paired(a: Outcomes, b: Outcomes) -> PairedComparison:
    """Compare two runs on the items that both have; the clusters are those of `a`.

    Raises:
        UserError: They have no item in common.
    """
    theirs = set(b.ids)
    shared = [name for name in a.ids if name in theirs]
    if not shared:
        raise UserError("the runs have no item in common")
    left, right = a.only(shared), b.only(shared)
    clusters = number_groups([int(c) for c in left.clusters])
    pa, pb = left.p, right.p
    d = pa - pb
    wins, losses = int((d > 0).sum()), int((d < 0).sum())
    both = int(((pa == 1) & (pb == 1)).sum())
    neither = int(((pa == 0) & (pb == 0)).sum())
    se = standard_error(d, clusters)
    difference = float(d.mean())
    spread = se if se is not None and se > 1e-12 else None  # the mean of equal numbers may miss them by a last bit
    if _independent_pairs(left, right):
        ends: Interval | None = newcombe(both, wins, losses, neither)
        p, test = exact_sign_test(wins, losses), "McNemar exact"
    else:
        ends = t_interval(d, clusters) if spread is not None else None
        p, exact = sign_flip_test(np.bincount(clusters, weights=d).astype(np.float64))
        test = "sign-flip exact" if exact else f"sign-flip, {FLIPS:,} flips"
    return PairedComparison(
        items=len(shared),
        clusters=int(clusters.max()) + 1,
        seeds=max(left.scores.shape[1], right.scores.shape[1]),
        difference=difference,
        se=se,
        interval=ends,
        wins=wins,
        losses=losses,
        both=both,
        neither=neither,
        other=len(shared) - wins - losses - both - neither,
        p=p,
        test=test,
        detectable=None if spread is None else detectable_difference(spread),
        items_needed=items_needed(spread, len(shared), difference) if spread is not None and difference else None,
    )


def _independent_pairs(a: Outcomes, b: Outcomes) -> bool:
    """Whether both are right or wrong answers of one seed to independent items."""
    return a.scores.shape[1] == b.scores.shape[1] == 1 and a.binary and b.binary and not a.clustered


def newcombe(both: int, wins: int, losses: int, neither: int) -> Interval:
    """95% score interval of the difference of two paired proportions, (wins - losses) / n.

    Wilson's intervals of the two proportions, joined with the continuity-corrected correlation of the pairs. Unlike an
    interval by resampling, it has a width where nothing differs.

    Source: Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions based on
    paired data", method 10.

    Raises:
        UserError: There is no item.
    """
    n = both + wins + losses + neither
    first, second = both + wins, both + losses
    one, two = wilson(first, n), wilson(second, n)
    p1, p2 = first / n, second / n
    agreement: float = both * neither - wins * losses
    if agreement > 0:
        agreement = max(0.0, agreement - n / 2)
    scale = math.sqrt(first * (n - first) * second * (n - second))
    phi = agreement / scale if scale else 0.0

    def reach(x: float, y: float) -> float:
        return math.sqrt(max(0.0, x * x - 2 * phi * x * y + y * y))

    theta = (wins - losses) / n
    low, high = theta - reach(p1 - one.low, two.high - p2), theta + reach(one.high - p1, p2 - two.low)
    return Interval(low, high, "newcombe")


def exact_sign_test(wins: int, losses: int) -> float:
    """Two-sided exact p-value of the split of the items that differ; 1 if none does.

    Source: McNemar 1947, in its exact binomial form.
    """
    if wins + losses == 0:
        return 1.0
    return float(stats.binomtest(wins, wins + losses, 0.5).pvalue)


def sign_flip_test(sums: Array) -> tuple[float, bool]:
    """Two-sided p-value of a sum of differences, if each could as likely have had the other sign.

    Equal magnitudes are flipped together by their binomial distribution, so that all outcomes can be enumerated where
    at most 2^20 sums are distinct (up to 20 differences always). Otherwise 100,000 flips are sampled, and the observed
    one counts among them.

    Source: Fisher 1935, "The Design of Experiments", section 21; Phipson and Smyth 2010 for the sampled p-value.

    Args:
        sums: Sum of the differences of each cluster, `[clusters]`.

    Returns:
        The p-value, and whether it is exact.
    """
    rounded = np.round(sums, 12)
    magnitudes, counts = np.unique(np.abs(rounded[rounded != 0]), return_counts=True)
    observed = abs(float(rounded.sum())) - 1e-9
    if math.prod(int(m) + 1 for m in counts) <= _EXACT:
        totals, chances = np.zeros(1), np.ones(1)
        for size, m in zip(magnitudes, counts, strict=True):
            positive = np.arange(m + 1)
            totals = np.add.outer(totals, size * (2 * positive - m)).ravel()
            chances = np.multiply.outer(chances, stats.binom.pmf(positive, m, 0.5)).ravel()
        return min(1.0, float(chances[np.abs(totals) >= observed].sum())), True
    rng = np.random.default_rng(0)
    flipped = np.zeros(FLIPS)
    for size, m in zip(magnitudes, counts, strict=True):
        flipped += size * (2 * rng.binomial(m, 0.5, FLIPS) - m)
    return float(((np.abs(flipped) >= observed).sum() + 1) / (FLIPS + 1)), False


def detectable_difference(se: float) -> float:
    """Smallest true difference that a two-sided test would find with a power of 80 %: (z_{0.975} + z_{0.8}) · SE.

    Normal approximation; the standard error is taken as the one that was observed.
    """
    return float(stats.norm.ppf((1 + LEVEL) / 2) + stats.norm.ppf(POWER)) * se


def items_needed(se: float, items: int, difference: float) -> int:
    """Number of such items that make a difference detectable, if the spread stays the same."""
    if difference == 0:
        raise UserError("no number of items makes a difference of 0 detectable")
    return int(np.ceil(items * (detectable_difference(se) / difference) ** 2))


def holm(ps: Sequence[float]) -> list[float]:
    """P-values of a family of tests, adjusted so that the probability of any false rejection is bounded.

    Source: Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure".
    """
    adjusted = [0.0] * len(ps)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = largest
    return adjusted
