"""Fits of calibration curves, and calibration errors: the only isotonic fit and the only ECE of the project.

All functions take stated confidences in [0, 1] and whether each was correct, as arrays or sequences, and do not depend
on the order of the examples; examples of equal confidence are treated alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .calibration import CalibrationCurve, CalibrationMethod
from .errors import UserError

Array = NDArray[np.float64]

NUM_BINS: Final = 10
RIDGE: Final = 1e-3
"""Weight of the squared distance from the identity in the summed log-loss of "temperature" and "platt"."""
MIN_CLIP: Final = 1e-6
MAX_CLIP: Final = 0.25
_MAX_NEWTON_STEPS: Final = 100


# -- curves


def fit_curve(method: CalibrationMethod, confidence: ArrayLike, correct: ArrayLike) -> CalibrationCurve:
    """The curve of a method that fits the examples best.

    Args:
        method: "temperature", "platt" or "isotonic".
        confidence: `[examples]`, in [0, 1].
        correct: `[examples]`, 0 or 1; for "temperature" and "platt" also probabilities.

    Raises:
        UserError: There are no examples, or the lengths differ.
    """
    c, y = _arrays(confidence, correct)
    return _isotonic(c, y) if method == "isotonic" else _logistic(method, c, y)


def _isotonic(confidence: Array, correct: Array) -> CalibrationCurve:
    """The non-decreasing function of least squared error, by pooling adjacent violators.

    Examples of one confidence are one point with their number as its weight. Points within a constant stretch are
    dropped if their neighbours are on it too: the line through them is the same.

    Source: Zadrozny and Elkan 2002, "Transforming Classifier Scores into Accurate Multiclass Probability Estimates",
    section 3.
    """
    points, group = np.unique(confidence, return_inverse=True)
    counts = np.bincount(group)
    sums = np.bincount(group, weights=correct)
    blocks: list[tuple[float, int, int]] = []  # sum of correct, examples, points
    for total, count in zip(sums.tolist(), counts.tolist(), strict=True):
        num_points = 1
        # shares of two blocks are compared crosswise: for integers, equal shares are equal
        while blocks and blocks[-1][0] * count >= total * blocks[-1][1]:
            previous = blocks.pop()
            total, count, num_points = total + previous[0], count + previous[1], num_points + previous[2]
        blocks.append((total, count, num_points))
    fitted = [total / count for total, count, num_points in blocks for _ in range(num_points)]
    knots = [
        (float(x), y)
        for i, (x, y) in enumerate(zip(points, fitted, strict=True))
        if not 0 < i < len(points) - 1 or not fitted[i - 1] == y == fitted[i + 1]
    ]
    return CalibrationCurve(method="isotonic", knots=tuple(knots))


def _logistic(method: CalibrationMethod, confidence: Array, correct: Array) -> CalibrationCurve:
    """sigmoid(intercept + slope · logit(c)) of least log-loss, with a slope of at least 0; "temperature" has no intercept.

    Two things keep the minimum finite. Confidences are clipped to [clip, 1 - clip], with a clip of half the distance to
    0 or 1 of the closest one that is not itself 0 or 1, within [1e-6, 0.25]: of shares of n votes that is up to 1/(2n),
    so that a unanimous vote counts as half a vote short of all. And RIDGE/2 · (intercept² + (slope - 1)²) is added to
    the summed loss, so that examples which a threshold separates do not drive the slope to infinity.

    Source: Platt 1999, "Probabilistic Outputs for Support Vector Machines", equation 1, on the log-odds. The minimum is
    found by Newton's method.
    """
    distance = np.minimum(confidence, 1 - confidence)
    inside = distance[distance > 0]
    clip = float(np.clip(inside.min() / 2, MIN_CLIP, MAX_CLIP)) if len(inside) else MAX_CLIP
    c = np.clip(confidence, clip, 1 - clip)
    logit = np.log(c) - np.log1p(-c)
    if method == "platt":
        w = _minimum(np.column_stack([np.ones(len(c)), logit]), correct, np.array([0.0, 1.0]))
        intercept, slope = float(w[0]), float(w[1])
        if slope < 0:  # the loss is convex: the best allowed point is on the edge
            intercept, slope = float(_minimum(np.ones((len(c), 1)), correct, np.array([0.0]))[0]), 0.0
    else:
        intercept, slope = 0.0, max(float(_minimum(logit[:, None], correct, np.array([1.0]))[0]), 0.0)
    return CalibrationCurve(method=method, intercept=intercept, slope=slope, clip=clip)


def _minimum(design: Array, correct: Array, prior: Array) -> Array:
    """Minimum of Σ [ln(1 + e^η) - y η] + RIDGE/2 · |w - prior|², η = design · w; Newton steps are halved to descend."""

    def loss(w: Array) -> float:
        odds = design @ w
        return float(np.sum(np.logaddexp(0, odds) - correct * odds) + RIDGE / 2 * np.sum((w - prior) ** 2))

    w = prior
    value = loss(w)
    for _ in range(_MAX_NEWTON_STEPS):
        p = np.exp(-np.logaddexp(0, -(design @ w)))
        gradient = design.T @ (p - correct) + RIDGE * (w - prior)
        if np.abs(gradient).max() <= 1e-12 * len(correct):
            break
        hessian = (design * (p * (1 - p))[:, None]).T @ design + RIDGE * np.eye(len(w))
        step, scale = np.linalg.solve(hessian, gradient), 1.0
        while loss(w - scale * step) >= value and scale > 1e-10:
            scale /= 2
        if scale <= 1e-10:  # only rounding is left
            break
        w = w - scale * step
        value = loss(w)
    return w


# -- errors


@dataclass(frozen=True)
class ReliabilityBin:
    """A bar of a reliability diagram: the examples with a confidence in (low, high]; the first bar includes 0.

    Attributes:
        low: Lower edge.
        high: Upper edge.
        count: Number of examples.
        confidence: Mean confidence.
        accuracy: Share of correct examples.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def reliability(confidence: ArrayLike, correct: ArrayLike, bins: int = NUM_BINS) -> tuple[ReliabilityBin, ...]:
    """Mean confidence and accuracy in bins (b/bins, (b+1)/bins] of equal width; empty ones are left out.

    Raises:
        UserError: There are no examples, the lengths differ, or a confidence is outside [0, 1].
    """
    c, y = _arrays(confidence, correct)
    edges = np.arange(bins + 1) / bins
    # compared with the edges rather than multiplied: 0.7 * 10 is above 7
    index = np.clip(np.searchsorted(edges, c, side="left") - 1, 0, bins - 1)
    made = []
    for b in np.unique(index).tolist():
        inside = index == b
        count = int(inside.sum())
        means = math.fsum(c[inside]) / count, math.fsum(y[inside]) / count
        made.append(ReliabilityBin(float(edges[b]), float(edges[b + 1]), count, *means))
    return tuple(made)


def ece(confidence: ArrayLike, correct: ArrayLike, bins: int = NUM_BINS) -> float:
    """Expected calibration error: Σ_b n_b/n · |accuracy_b - confidence_b|.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3.

    Raises:
        UserError: As `reliability`.
    """
    found = reliability(confidence, correct, bins)
    return math.fsum(b.count * abs(b.accuracy - b.confidence) for b in found) / sum(b.count for b in found)


def aurc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Area under the risk-coverage curve: mean over k of the error among the k most confident; tied examples share.

    Source: Geifman, Uziel, El-Yaniv 2019, "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers", section 2.

    Raises:
        UserError: As `reliability`.
    """
    c, y = _arrays(confidence, correct)
    _, group = np.unique(c, return_inverse=True)
    shared = (np.bincount(group, weights=y) / np.bincount(group))[group]
    wrong = 1 - shared[np.argsort(-c, kind="stable")]
    return float(np.mean(np.cumsum(wrong) / np.arange(1, len(c) + 1)))


def _arrays(confidence: ArrayLike, correct: ArrayLike) -> tuple[Array, Array]:
    c, y = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if not len(c) or c.shape != y.shape:
        raise UserError(f"{len(c)} confidences and {len(y)} outcomes: there must be as many, and at least one")
    if not ((c >= 0) & (c <= 1)).all():
        raise UserError("a confidence is outside [0, 1]")
    return c, y
