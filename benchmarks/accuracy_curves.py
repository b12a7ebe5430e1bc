"""Accuracy-cost curves of methods on the same problems, and their cost at equal accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from reason.evals.statistics.equal_tokens import InterpolatedAccuracy, TokenCurve, difference_at
from reason.evals.statistics.intervals import bootstrap_means, percentiles

RESAMPLES = 1000

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class AccuracyCurve:
    """One method at several sizes.

    Attributes:
        sizes: Its sizes.
        credit: What the answer is worth, `[problems, sizes]`, in [0, 1].
        tokens: Generated tokens, `[problems, sizes]`.
        passes: Passes of the reward model, `[problems, sizes]`.
    """

    sizes: tuple[int, ...]
    credit: Array
    tokens: Array
    passes: Array

    def at(self, size: int) -> int:
        """Column of a size."""
        return self.sizes.index(size)

    @cached_property
    def spread(self) -> tuple[Array, Array, Array]:
        """Mean credit, tokens and passes over all problems, and after them over resamples, `[1 + RESAMPLES, sizes]`."""
        columns = np.concatenate([self.credit, self.tokens, self.passes], axis=1)
        again = bootstrap_means(columns, np.arange(len(columns)), resamples=RESAMPLES)
        credit, tokens, passes = np.split(np.concatenate([columns.mean(axis=0, keepdims=True), again]), 3, axis=1)
        return credit, tokens, passes

    def share(self, size: int) -> tuple[float, float, float]:
        """Accuracy at a size with its 95 % interval."""
        means = self.spread[0][:, self.at(size)]
        low, high = percentiles(means[1:])
        return float(means[0]), float(low), float(high)


Curves = Mapping[str, AccuracyCurve]
"""Curves of one setting, by name."""


def token_saving(curves: Curves, name: str, other: str, tokens: float) -> InterpolatedAccuracy | None:
    """Accuracy of one curve less another's at equal tokens a problem, paired by problem; None where one ends."""
    ours, theirs = (TokenCurve(n, curves[n].credit, curves[n].tokens) for n in (name, other))
    return difference_at(ours, theirs, np.arange(len(ours.accuracy)), tokens, resamples=RESAMPLES)


def needed(cost: Array, accuracy: Array, target: Array) -> Array:
    """Cost at which a curve first reaches an accuracy, the accuracy linear in the logarithm of the cost between points.

    Returns:
        `[resamples]`; infinity where the curve does not reach it. A curve that has it from its first point on needs
        that point.
    """
    order = np.argsort(cost, axis=1, kind="stable")
    x = np.log(np.take_along_axis(cost, order, axis=1))
    y = np.maximum.accumulate(np.take_along_axis(accuracy, order, axis=1), axis=1)
    there = y >= target[:, None] - 1e-12
    rows, right = np.arange(len(x)), there.argmax(axis=1)
    left = np.maximum(right - 1, 0)
    rise = y[rows, right] - y[rows, left]
    part = np.where(rise > 0, (target - y[rows, left]) / np.where(rise > 0, rise, 1.0), 1.0)
    result = np.exp(x[rows, left] + np.clip(part, 0, 1) * (x[rows, right] - x[rows, left]))
    return np.where(there.any(axis=1), result, np.inf)


@dataclass(frozen=True)
class Ratio:
    """How much more the one needs than the other; infinite where only the other gets there, NaN where neither does."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if np.isnan(self.value):
            return "neither"
        if self.value == 0:
            return "not reached"
        if np.isinf(self.value):
            return "only it"
        high = "∞" if np.isinf(self.high) else f"{self.high:.1f}"
        return f"{self.value:.1f} [{self.low:.1f}, {high}]"


def saving(curves: Curves, name: str, other: str, goal: str, size: int, *, passes: bool = False) -> Ratio:
    """Cost of another curve divided by that of this one, both at the accuracy that a goal has at a size.

    Passes are not read off below size 2, where there is nothing to choose from and some searches ask for no scores;
    except for the goal, which may be sampling.

    0 where this curve does not reach that accuracy. The interval is of the resamples in which one of the two does.
    """
    target = curves[goal].spread[0][:, curves[goal].at(size)]
    costs = []
    for one in (other, name):
        credit, tokens, scored = curves[one].spread
        kept = [i for i, n in enumerate(curves[one].sizes) if not passes or n > 1 or one == goal]
        costs.append(needed((scored if passes else tokens)[:, kept], credit[:, kept], target))
    with np.errstate(invalid="ignore"):
        ratios = costs[0] / costs[1]
    known = ratios[1:][~np.isnan(ratios[1:])]
    if not len(known):
        return Ratio(float(ratios[0]), np.nan, np.nan)
    # ends among the resamples themselves, as some may be infinite
    low, high = np.quantile(known, [0.025, 0.975], method="nearest")
    return Ratio(float(ratios[0]), float(low), float(high))
