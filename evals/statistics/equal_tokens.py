"""Accuracy at equal tokens: methods compared where they cost the same, by interpolation between measured budgets.

A curve is one method at several budgets on the same items. Between two neighbouring points accuracy is taken as linear
in the logarithm of the tokens (budgets are mostly doubled); beyond the ends nothing is claimed. The band comes from
resampling items, all points of all curves together: so it holds the uncertainty of both axes and keeps the pairing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...core.errors import UserError
from .intervals import LEVEL, RESAMPLES, bootstrap_means, percentiles
from .outcomes import Array, Index

MIN_VOTES = 3
"""Samples from which on a vote is a point of a curve: fewer cannot outvote the first sample."""


@dataclass(frozen=True)
class TokenCurve:
    """One method at several budgets.

    Attributes:
        name: The method.
        accuracy: Mean score of each item at each budget, `[items, points]`.
        tokens: Mean tokens of each item at each budget, `[items, points]`, positive in the mean over items.
    """

    name: str
    accuracy: Array
    tokens: Array


@dataclass(frozen=True)
class InterpolatedAccuracy:
    """An interpolated value with its band."""

    tokens: float
    value: float
    low: float
    high: float


def accuracy_at(
    curves: Sequence[TokenCurve],
    clusters: Index,
    tokens: Sequence[float],
    level: float = LEVEL,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[list[InterpolatedAccuracy | None]]:
    """Accuracy of each curve at each number of tokens per item.

    Args:
        clusters: Group of each item, `[items]`.
        tokens: Where to look, in tokens per item.
        level: Share of the resamples within the band.

    Returns:
        Per curve and number of tokens the value; None beyond the ends of the curve.

    Raises:
        UserError: The curves are not of the same items, or a point costs no tokens.
    """
    replicates = _replicates(curves, clusters, resamples, seed)
    results: list[list[InterpolatedAccuracy | None]] = []
    for curve, (means_y, means_x) in zip(curves, replicates, strict=True):
        x, y = curve.tokens.mean(axis=0), curve.accuracy.mean(axis=0)
        row: list[InterpolatedAccuracy | None] = []
        for t in tokens:
            if not x.min() <= t <= x.max():
                row.append(None)
                continue
            low, high = percentiles(_at_each(means_x, means_y, t), level)
            row.append(InterpolatedAccuracy(float(t), _at(x, y, t), float(low), float(high)))
        results.append(row)
    return results


def difference_at(
    a: TokenCurve,
    b: TokenCurve,
    clusters: Index,
    tokens: float,
    level: float = LEVEL,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> InterpolatedAccuracy | None:
    """Accuracy of a less that of b at equal tokens, paired by item; None where a curve does not reach.

    Raises:
        UserError: As `accuracy_at`.
    """
    (ya, xa), (yb, xb) = _replicates((a, b), clusters, resamples, seed)
    value = 0.0
    for sign, curve in ((1, a), (-1, b)):
        x, y = curve.tokens.mean(axis=0), curve.accuracy.mean(axis=0)
        if not x.min() <= tokens <= x.max():
            return None
        value += sign * _at(x, y, tokens)
    low, high = percentiles(_at_each(xa, ya, tokens) - _at_each(xb, yb, tokens), level)
    return InterpolatedAccuracy(float(tokens), value, float(low), float(high))


def shared_tokens(curves: Sequence[TokenCurve], points: int = 5) -> list[float]:
    """Where all curves can be compared: numbers of tokens, evenly spaced in their logarithm; empty if nowhere."""
    means = [c.tokens.mean(axis=0) for c in curves]
    if not means or any((m <= 0).any() for m in means):
        return []
    low, high = max(m.min() for m in means), min(m.max() for m in means)
    if low > high:
        return []
    if low == high:
        return [float(low)]
    spaced = [float(t) for t in np.geomspace(low, high, points)]
    return [float(low), *spaced[1:-1], float(high)]  # the ends as they are, not as rounding left them


def _replicates(curves: Sequence[TokenCurve], clusters: Index, resamples: int, seed: int) -> list[tuple[Array, Array]]:
    """Per curve the resampled means of accuracy and tokens, `[resamples, points]` each."""
    for curve in curves:
        if curve.accuracy.shape != curve.tokens.shape or len(curve.accuracy) != len(clusters):
            raise UserError(f"the curve {curve.name!r} is not of the same items as the others")
        if (curve.tokens.mean(axis=0) <= 0).any():
            raise UserError(f"the curve {curve.name!r} has a point without tokens", hint="it cannot be put on the axis")
    both = [(c.accuracy, c.tokens) for c in curves]
    return [
        (
            bootstrap_means(accuracy, clusters, resamples=resamples, seed=seed),
            bootstrap_means(tokens, clusters, resamples=resamples, seed=seed),
        )
        for accuracy, tokens in both
    ]


def _at(x: Array, y: Array, tokens: float) -> float:
    order = np.argsort(x, kind="stable")
    return float(np.interp(np.log(tokens), np.log(x[order]), y[order]))


def _at_each(x: Array, y: Array, tokens: float) -> Array:
    """The interpolation in every resample; where a resampled curve ends before, its end is."""
    order = np.argsort(x, axis=1, kind="stable")
    xs = np.log(np.maximum(np.take_along_axis(x, order, axis=1), 1e-9))
    ys = np.take_along_axis(y, order, axis=1)
    target = np.log(tokens)
    right = np.clip((xs < target).sum(axis=1), 0, xs.shape[1] - 1)
    left = np.maximum(right - 1, 0)
    rows = np.arange(len(xs))
    x0, x1, y0, y1 = xs[rows, left], xs[rows, right], ys[rows, left], ys[rows, right]
    width = x1 - x0
    part = np.where(width > 0, np.clip((target - x0) / np.where(width > 0, width, 1.0), 0.0, 1.0), 1.0)
    value: Array = y0 + part * (y1 - y0)
    return value
