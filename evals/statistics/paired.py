"""Two methods on the same items: the difference with its interval, an exact test, and the detectable difference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from ...core.errors import UserError
from .intervals import LEVEL, RESAMPLES, Interval, bootstrap, standard_error, t_interval
from .outcomes import Outcomes, number_groups

POWER = 0.8


@dataclass(frozen=True)
class PairedComparison:
    """The comparison of a with b; differences are a minus b.

    Attributes:
        items: Items that both have.
        difference: Mean of d_i = p_i(a) - p_i(b).
        se: Its standard error, clustered; None with fewer than two clusters.
        t: Interval by Student's t; None if every item (or group) has the same difference, which is no evidence of how
            much another would differ.
        bootstrap: Percentile interval over resampled clusters; None in the same case.
        wins: Items where a has the higher success rate.
        losses: Items where b has.
        both: Items that both get right under every seed.
        neither: Items that both get wrong under every seed.
        other: The other ties.
        p: Two-sided exact p-value of as many wins and losses, if either were as likely. With one seed each this is
            McNemar's exact test; with several it is the sign test on success rates. It takes items as independent: with
            clusters, trust the interval.
        detectable: Smallest true difference that a test at this level detects with a power of 80 %; None in the same
            case.
        items_needed: Number of such items with which the observed difference would be detectable; None in the same
            case, or without a difference.
    """

    items: int
    difference: float
    se: float | None
    t: Interval | None
    bootstrap: Interval | None
    wins: int
    losses: int
    both: int
    neither: int
    other: int
    p: float
    detectable: float | None
    items_needed: int | None


def compare_paired(
    a: Outcomes, b: Outcomes, level: float = LEVEL, *, resamples: int = RESAMPLES, seed: int = 0
) -> PairedComparison:
    """Compare two runs on the items that both have; the clusters are those of `a`.

    Raises:
        UserError: They have no item in common.
    """
    shared = [name for name in a.ids if name in set(b.ids)]
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
    spread = se is not None and se > 1e-12  # the mean of equal numbers may miss them by a last bit
    return PairedComparison(
        items=len(shared),
        difference=difference,
        se=se,
        t=t_interval(d, clusters, level) if spread else None,
        bootstrap=bootstrap(d, clusters, level, resamples=resamples, seed=seed) if spread else None,
        wins=wins,
        losses=losses,
        both=both,
        neither=neither,
        other=len(shared) - wins - losses - both - neither,
        p=exact_sign_test(wins, losses),
        detectable=detectable_difference(se, level) if se is not None and spread else None,
        items_needed=items_needed(se, len(shared), difference, level)
        if se is not None and spread and difference
        else None,
    )


def exact_sign_test(wins: int, losses: int) -> float:
    """Two-sided exact p-value of the split of the items that differ; 1 if none does.

    Source: McNemar 1947, in its exact binomial form.
    """
    if wins + losses == 0:
        return 1.0
    return float(stats.binomtest(wins, wins + losses, 0.5).pvalue)


def detectable_difference(se: float, level: float = LEVEL, power: float = POWER) -> float:
    """Smallest true difference that a two-sided test would find with that power: (z_{(1+level)/2} + z_power) · SE.

    Normal approximation; the standard error is taken as the one that was observed.
    """
    return float(stats.norm.ppf((1 + level) / 2) + stats.norm.ppf(power)) * se


def items_needed(se: float, items: int, difference: float, level: float = LEVEL, power: float = POWER) -> int:
    """Number of such items that make a difference detectable, if the spread stays the same."""
    if difference == 0:
        raise UserError("no number of items makes a difference of 0 detectable")
    return int(np.ceil(items * (detectable_difference(se, level, power) / difference) ** 2))
