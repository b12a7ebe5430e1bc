"""Escalations: two actions, the second taken where what is seen of the first answer promises a gain.

    gain(question, first answer) = E[score of the second - score of the first | features]

The features are the question's named ones, and the first answer's confidence and length (`routers.features.observed`).
The gain is a linear regression, as complex as cross-validation justifies (`fitting`); where that is a constant, there
is nothing to decide. Each threshold on it is a way to answer with known outcomes under every seed: that of the first
action, or that of the second after both were paid for. So escalations become further columns of a table of runs, and
need no runs of their own. Thresholds are quantiles of gains that were predicted without the question's fold. Those
escalations are kept whose mean score exceeds that of the best random mix of two actions at their cost by more than a
standard error; and of these, those on the upper hull of mean score over mean cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ....routers.features import FARTHEST, OBSERVED, FeatureSpace, LinearModel, QuestionFeatures
from ...calibration import assign_folds
from ...statistics.intervals import standard_error
from ...statistics.outcomes import Array, number_groups
from .arm_table import ArmSpec, ArmTable, over_seeds
from .fitting import FOLDS, feature_matrix, fit_least_squares, make_space, varying
from .policies import best_random_mix, single_policies

SHARES: Final = (0.2, 0.4, 0.6, 0.8)
"""Shares of the first answers that are followed by the second action."""
MIN_GROUPS: Final = 10
"""Groups of questions that both actions need in common."""


@dataclass(frozen=True)
class Outcome:
    """Outcomes of one way to answer, `[questions]`; NaN where they are not known."""

    right: Array
    tokens: Array
    cost: Array


@dataclass(frozen=True)
class FittedEscalation:
    """An escalation between two columns of a table.

    Attributes:
        first: Column of the first action.
        then: Column of the second.
        share: Share of the first answers that it was to follow.
        space: The features that the gain is over.
        gain: The expected gain.
        threshold: The gain above which the second action is taken.
        outcome: On the questions that it was fitted to, each decided by a gain that was predicted without it.
    """

    first: int
    then: int
    share: float
    space: FeatureSpace
    gain: LinearModel
    threshold: float
    outcome: Outcome

    @property
    def name(self) -> tuple[int, int, float]:
        """The same for fits to other questions."""
        return self.first, self.then, self.share

    def apply(self, table: ArmTable, signals: Sequence[QuestionFeatures]) -> Outcome:
        """Its outcomes on other questions."""
        x = _rows(self.space, feature_matrix(self.space, signals), _observations(table, self.first))
        gains = _values(self.gain, x)
        return _decided(table, self.first, self.then, gains, self.threshold)


def fit_escalations(table: ArmTable, signals: Sequence[QuestionFeatures]) -> list[FittedEscalation]:
    """The escalations of a table that are worth having.

    Args:
        signals: The features of its questions.
    """
    base_space = make_space(signals)
    base = feature_matrix(base_space, signals)
    fold = assign_folds(table.groups, min(FOLDS, len(set(table.groups))))
    found: list[FittedEscalation] = []
    for first, then in _pairs(table):
        found += _fit_pair(table, first, then, base_space, base, fold)
    return _on_hull(table, found)


def is_nested(first: ArmSpec, then: ArmSpec) -> bool:
    """Whether the second action's samples begin with those of the first, which are then not paid for again."""
    a, b = ({k: v for k, v in arm.parameters.items() if k != "n"} for arm in (first, then))
    n, m = first.parameters.get("n"), then.parameters.get("n")
    same = (first.strategy, first.role, first.effort, a) == (then.strategy, then.role, then.effort, b)
    return same and isinstance(n, int) and isinstance(m, int) and n <= m


def _pairs(table: ArmTable) -> Iterator[tuple[int, int]]:
    """Columns of which the second is dearer and more often right, on enough questions that both have."""
    for first in range(len(table.arms)):
        for then in range(len(table.arms)):
            both = ~np.isnan(table.right[:, first] + table.right[:, then])
            if first == then or len(set(table.clusters[both].tolist())) < MIN_GROUPS:
                continue
            cheaper = table.cost[both, first].mean() < table.cost[both, then].mean()
            if cheaper and table.right[both, first].mean() < table.right[both, then].mean():
                yield first, then


def _fit_pair(
    table: ArmTable, first: int, then: int, base_space: FeatureSpace, base: Array, fold: NDArray[np.int64]
) -> list[FittedEscalation]:
    seen, scores = _observations(table, first), table.field("score")
    d = scores[:, then] - scores[:, first]
    known = ~np.isnan(d)
    space = _with_observed(base_space, seen[known])
    if space.names == base_space.names:  # nothing is seen of the first answer that could not be known before it
        return []
    x = _rows(space, base, seen)
    owner = np.broadcast_to(np.arange(len(d))[:, None], d.shape)
    groups = np.array(table.groups)

    def fit(kept: NDArray[np.bool_]) -> LinearModel:
        return fit_least_squares(space, x[kept], d[kept], groups[owner[kept]].tolist())

    gain = fit(known)
    if gain.constant:
        return []
    crossed = np.full(d.shape, np.nan)
    for number in range(int(fold.max()) + 1):
        held = fold == number
        crossed[held] = _values(fit(known & ~held[:, None]), x[held])
    found = []
    for share in SHARES:
        threshold = float(np.quantile(crossed[known], 1 - share))
        outcome = _decided(table, first, then, crossed, threshold)
        if _is_worth_having(table, outcome):
            found.append(FittedEscalation(first, then, share, space, gain, threshold, outcome))
    return found


def _decided(table: ArmTable, first: int, then: int, gains: Array, threshold: float) -> Outcome:
    """Outcomes of an escalation, over the seeds that both actions have.

    Args:
        gains: Expected gains, `[questions, seeds]`.
    """
    taken = (gains > threshold) | (table.field("answered")[:, first] == 0)
    nested = is_nested(table.arms[first], table.arms[then])

    def joined(name: str, *, adds: bool) -> Array:
        values = table.field(name)
        a, b = values[:, first], values[:, then]
        both = b if nested or not adds else a + b
        result = np.where(taken, both, a)
        return over_seeds(np.where(np.isnan(a + b), np.nan, result))

    return Outcome(joined("score", adds=False), joined("tokens", adds=True), joined("cost", adds=True))


def _is_worth_having(table: ArmTable, outcome: Outcome) -> bool:
    """Whether it is above every mix of two actions by more than a standard error, on the questions that all have."""
    known = ~np.isnan(table.right).any(axis=1) & ~np.isnan(outcome.right)
    if not known.any():
        return True
    actions = single_policies(table.right[known], table.cost[known])
    gain = outcome.right[known] - best_random_mix(actions, float(outcome.cost[known].mean()))
    error = standard_error(gain, number_groups([table.groups[i] for i in np.flatnonzero(known)]))
    return error is not None and float(gain.mean()) > error


def _on_hull(table: ArmTable, found: list[FittedEscalation]) -> list[FittedEscalation]:
    """Those that are above every mix of two other ways to answer."""
    points = [
        (float(np.nanmean(table.cost[:, a])), float(np.nanmean(table.right[:, a]))) for a in range(len(table.arms))
    ]
    points += [(float(np.nanmean(e.outcome.cost)), float(np.nanmean(e.outcome.right))) for e in found]
    hull: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if hull and points[i][1] <= points[hull[-1]][1] + 1e-12:
            continue
        while len(hull) > 1 and _slope(points[hull[-2]], points[hull[-1]]) <= _slope(points[hull[-2]], points[i]):
            hull.pop()
        hull.append(i)
    return [found[i - len(table.arms)] for i in hull if i >= len(table.arms)]


def _slope(a: tuple[float, float], b: tuple[float, float]) -> float:
    return (b[1] - a[1]) / max(b[0] - a[0], 1e-12)


# -- features of a first answer, as arrays


def _observations(table: ArmTable, first: int) -> Array:
    """What is seen of the answers of a column, in the order of `OBSERVED`, `[questions, seeds, 3]`."""
    result: Array = np.stack(
        [
            table.field("confidence")[:, first],
            np.log1p(table.field("length")[:, first]),
            1 - table.field("answered")[:, first],
        ],
        axis=-1,
    )
    return result


def _with_observed(base: FeatureSpace, rows: Array) -> FeatureSpace:
    """A space of named features with those of a first answer that vary over its rows, `[rows, 3]`."""
    names, means, scales = varying({n: c[~np.isnan(c)] for n, c in zip(OBSERVED, rows.T, strict=True)})
    return FeatureSpace(
        names=(*base.names, *names), means=(*base.means, *means), scales=(*base.scales, *scales), support=base.support
    )


def _rows(space: FeatureSpace, base: Array, seen: Array) -> Array:
    """Rows of a space, `[questions, seeds, size]`; the same as `space.row`, without a loop over questions.

    Args:
        base: The questions' rows of the space, or of its named features, which are its first.
        seen: What is seen of the first answers, `[questions, seeds, 3]`.
    """
    named = sum(name not in OBSERVED for name in space.names)
    columns = [np.broadcast_to(base[:, None, :named], (*seen.shape[:2], named))]
    for name, mean, scale in zip(space.names[named:], space.means[named:], space.scales[named:], strict=True):
        column = (seen[..., OBSERVED.index(name)] - mean) / scale
        columns.append(np.nan_to_num(np.clip(column, -FARTHEST, FARTHEST), nan=0.0)[..., None])
    result: Array = np.concatenate(columns, axis=-1)
    return result


def _values(line: LinearModel, x: Array) -> Array:
    result: Array = line.intercept + (x @ np.array(line.named) if line.named else np.zeros(x.shape[:-1]))
    return result
