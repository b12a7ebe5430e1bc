"""Whether one method is at most a margin worse than another, on the same items."""

from __future__ import annotations

import math
from dataclasses import dataclass

from reason.core.errors import UserError
from reason.evals.statistics.outcomes import Outcomes
from reason.evals.statistics.paired import ALPHA, PairedComparison, Status, compare_paired
from scipy import stats


@dataclass(frozen=True)
class NonInferiority:
    """Whether a is at most `margin` worse than b.

    Attributes:
        comparison: a compared with b.
        margin: The difference that would still be acceptable, positive.
        p: One-sided p-value of the hypothesis that a is worse by the margin or more; 1 where every item (or group) of
            several seeds has the same difference, as its spread is then not estimable.
        test: "non-inferiority, margin …".
    """

    comparison: PairedComparison
    margin: float
    p: float
    test: str

    def status(self, p_adjusted: float | None = None) -> Status:
        """What may be said of "a is at most the margin worse than b"; refuted if the interval is below it."""
        ends = self.comparison.interval
        if (self.p if p_adjusted is None else p_adjusted) < ALPHA:
            return "shown"
        return "refuted" if ends is not None and ends.high < -self.margin else "not shown"


def non_inferiority(a: Outcomes, b: Outcomes, margin: float) -> NonInferiority:
    """Test whether a is less than `margin` worse than b on the items that both have.

    Right and wrong answers of one seed to independent items: Tango's score test. Otherwise the t-test of the mean
    difference plus the margin, with the clustered standard error.

    Source: Tango 1998, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design".

    Args:
        margin: As a share: 0.01 is one point.

    Raises:
        UserError: The margin is not positive, or the runs have no item in common.
    """
    if not 0 < margin < 1:
        raise UserError(f"a non-inferiority margin is a share between 0 and 1, not {margin}", hint="one point is 0.01")
    result = compare_paired(a, b)
    if result.test == "McNemar exact":
        p = float(stats.norm.sf(_tango(result.wins, result.losses, result.items, -margin)))
    elif result.interval is None or result.se is None:
        p = 1.0
    else:
        p = float(stats.t.sf((result.difference + margin) / result.se, result.clusters - 1))
    return NonInferiority(result, margin, p, f"non-inferiority, margin {margin:g}")


def _tango(wins: int, losses: int, n: int, difference: float) -> float:
    """Score statistic of the hypothesis that the true difference is `difference`, not 0; above 0 if it is greater."""
    b = -wins - losses + (2 * n - wins + losses) * difference
    c = -losses * difference * (1 - difference)
    loss_rate = (math.sqrt(b * b - 8 * n * c) - b) / (4 * n)  # most likely under the hypothesis
    variance = n * (2 * loss_rate + difference * (1 - difference))
    return (wins - losses - n * difference) / math.sqrt(variance)
