"""Fitting a `CalibrationCurve`, and how well confidences are calibrated: reliability bins, ECE, AURC.

All take `confidence`, the stated probability of being right in [0, 1], and `correct`, 0 or 1, both `[examples]`. None
depends on the order of the examples; examples of equal confidence are treated alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .calibration import CalibrationCurve, CalibrationMethod
from .errors import UserError

Array: TypeAlias = NDArray[np.float64]
Values: TypeAlias = Sequence[float] | Sequence[bool] | NDArray[Any]

BINS: Final = 10
RIDGE: Final = 1e-3
"""Weight of the squared distance from the identity in the summed log-loss of "temperature" and "platt"."""
MIN_CLIP, MAX_CLIP = 1e-6, 0.25
_NEWTON_STEPS: Final = 100


def fit_curve(method: CalibrationMethod, confidence: Values, correct: Values) -> CalibrationCurve:
    """The curve of a method with the minimum log-loss (isotonic: the minimum squared error, which is the same curve).

    "temperature" fits the slope of the log-odds, "platt" the intercept too. Two things keep the minimum finite.
    Confidences are clipped to [clip, 1 - clip], the clip being half the distance to 0 or 1 of the closest one that is
    not itself 0 or 1, within [1e-6, 0.25]: of shares of n votes that is 1/(2n), so that a unanimous vote counts as half
    a vote short of all. And RIDGE/2 * (intercept² + (slope - 1)²) is added to the summed loss, so that examples which a
    threshold separates do not drive the slope to infinity; otherwise it moves the minimum by less than the noise. A
    negative slope is not allowed: at 0 every confidence becomes the same.

    "isotonic" pools adjacent violators. Examples of one confidence are one point; knots within a level stretch are
    dropped.

    Source: Platt 1999, "Probabilistic Outputs for Support Vector Machines", equation 1, on the log-odds; Guo et al.
    2017, "On Calibration of Modern Neural Networks", section 4.2; Zadrozny and Elkan 2002, "Transforming Classifier
    Scores into Accurate Multiclass Probability Estimates", section 3.
    """
    c, target = _arrays(confidence, correct)
    return _isotonic(c, target) if method == "isotonic" else _on_log_odds(method, c, target)


class ReliabilityBin(NamedTuple):
    """A bar of a reliability diagram: examples with a confidence in (low, high], the first bar from low on."""

    low: float
    high: float
    count: int  # type: ignore[assignment]
    confidence: float
    accuracy: float


def reliability(confidence: Values, correct: Values, bins: int = BINS) -> tuple[ReliabilityBin, ...]:
    """Mean confidence and accuracy in bins (b/bins, (b+1)/bins] of equal width; empty bins are left out."""
    c, right = _checked(confidence, correct)
    edges = np.arange(bins + 1) / bins
    index = bin_index(c, bins)
    return tuple(
        ReliabilityBin(
            float(edges[b]),
            float(edges[b + 1]),
            int(inside.sum()),
            float(c[inside].mean()),
            float(right[inside].mean()),
        )
        for b in range(bins)
        if (inside := index == b).any()
    )


def bin_index(confidence: Array, bins: int = BINS) -> NDArray[np.intp]:
    """The bin of each confidence, `[examples]`; compared with the edges, since 0.7 * 10 is above 7."""
    index: NDArray[np.intp] = np.searchsorted(np.arange(bins + 1) / bins, confidence, side="left") - 1
    return np.clip(index, 0, bins - 1)


def ece(confidence: Values, correct: Values, bins: int = BINS) -> float:
    """Expected calibration error: Σ_b n_b/n · |accuracy_b - confidence_b| over bins of equal width.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3.
    """
    filled = reliability(confidence, correct, bins)
    return sum(b.count * abs(b.accuracy - b.confidence) for b in filled) / sum(b.count for b in filled)


def aurc(confidence: Values, correct: Values) -> float:
    """Area under the risk-coverage curve: mean over k of the share wrong among the k most confident; ties share.

    Source: Geifman, Uziel, El-Yaniv 2019, "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers", section 2.
    """
    c, right = _checked(confidence, correct)
    order = np.argsort(-c, kind="stable")
    wrong = 1 - mean_within_ties(c, right)[order]
    return float(np.mean(np.cumsum(wrong) / np.arange(1, len(order) + 1)))


def mean_within_ties(confidence: Array, correct: Array) -> Array:
    """The mean correctness of the examples of the same confidence, `[examples]`."""
    _, group = np.unique(confidence, return_inverse=True)
    means: Array = (np.bincount(group, weights=correct) / np.bincount(group))[group]
    return means


def _isotonic(confidence: Array, target: Array) -> CalibrationCurve:
    from scipy.optimize import isotonic_regression

    points, group = np.unique(confidence, return_inverse=True)
    counts = np.bincount(group)
    means = np.bincount(group, weights=target) / counts
    fitted = np.clip(isotonic_regression(means, weights=counts).x, 0.0, 1.0).tolist()
    knots = [
        (float(x), y)
        for i, (x, y) in enumerate(zip(points, fitted, strict=True))
        if not 0 < i < len(points) - 1 or not fitted[i - 1] == y == fitted[i + 1]
    ]
    return CalibrationCurve(method="isotonic", knots=tuple(knots))


def _on_log_odds(method: CalibrationMethod, confidence: Array, target: Array) -> CalibrationCurve:
    distance = np.minimum(confidence, 1 - confidence)
    inside = distance[distance > 0]
    clip = float(np.clip(inside.min() / 2, MIN_CLIP, MAX_CLIP)) if len(inside) else MAX_CLIP
    c = np.clip(confidence, clip, 1 - clip)
    log_odds = np.log(c) - np.log1p(-c)
    intercept, slope = 0.0, 0.0
    if method == "platt":
        intercept, slope = _minimize(np.column_stack([np.ones(len(c)), log_odds]), target, np.array([0.0, 1.0]))
        if slope < 0:  # the loss is convex: if its minimum is not allowed, the allowed minimum is on the edge
            slope = 0.0
            (intercept,) = _minimize(np.ones((len(c), 1)), target, np.array([0.0]))
    else:
        (slope,) = _minimize(log_odds[:, None], target, np.array([1.0]))
    return CalibrationCurve(method=method, intercept=float(intercept), slope=max(float(slope), 0.0), clip=clip)


def _minimize(design: Array, target: Array, prior: Array) -> Array:
    """The minimum of Σ [ln(1 + e^η) - y η] + RIDGE/2 · |w - prior|² with η = design · w, by Newton's method."""

    def loss(w: Array) -> float:
        odds = design @ w
        return float(np.sum(np.logaddexp(0, odds) - target * odds) + RIDGE / 2 * np.sum((w - prior) ** 2))

    w = prior
    value = loss(w)
    for _ in range(_NEWTON_STEPS):
        p = np.exp(-np.logaddexp(0, -(design @ w)))
        gradient = design.T @ (p - target) + RIDGE * (w - prior)
        if np.abs(gradient).max() <= 1e-12 * len(target):
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


def _arrays(confidence: Values, correct: Values) -> tuple[Array, Array]:
    if not len(confidence) or len(confidence) != len(correct):
        raise UserError(
            f"calibration needs one confidence and one correctness per answer, and at least one answer; got "
            f"{len(confidence)} and {len(correct)}"
        )
    return np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)


def _checked(confidence: Values, correct: Values) -> tuple[Array, Array]:
    c, right = _arrays(confidence, correct)
    if not ((c >= 0) & (c <= 1)).all():
        raise UserError("a confidence lies outside [0, 1]")
    if not np.isin(right, (0.0, 1.0)).all():
        raise UserError("correctness must be 0 or 1")
    return c, right
