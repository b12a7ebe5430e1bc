"""Curves from the confidence of the likeliest label to how often it is right: isotonic and Platt, fitted without scipy.

They are `CalibrationCurve`s, the same functions that calibrate the confidences of strategies. `with_confidence` carries
such a confidence back into a three-way `Support`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...core.calibration import CalibrationCurve
from ...core.errors import UserError
from ..support import Support
from .temperature import keeping, temper

Array = NDArray[np.float64]

RIDGE: Final = 1e-3
"""Weight of the squared distance from the identity in the summed log-loss of "platt"."""
LEAST_CLIP: Final = 1e-6
MOST_CLIP: Final = 0.25
STEPS: Final = 100


def isotonic_curve(confidences: Sequence[float], correct: Sequence[bool]) -> CalibrationCurve:
    """The never falling function of least squared error, by pooling adjacent violators.

    Examples of one confidence are one point with their number as its weight. Points within a level stretch are left out
    where their neighbours are on it too: the line through them is the same.

    Source: Zadrozny and Elkan 2002, "Transforming Classifier Scores into Accurate Multiclass Probability Estimates",
    section 3.

    Args:
        confidences: Probability of the likeliest label, in [0, 1].
        correct: Whether that label is right.

    Raises:
        UserError: There are no examples, or not as many of the one as of the other.
    """
    c, right = _arrays(confidences, correct)
    at, group = np.unique(c, return_inverse=True)
    counts = np.bincount(group)
    sums = np.bincount(group, weights=right)
    blocks: list[tuple[float, int, int]] = []  # right ones, examples, points
    for total, count in zip(sums.tolist(), counts.tolist(), strict=True):
        points = 1
        # shares of two blocks compared crosswise: whole numbers, so that equal shares are equal
        while blocks and blocks[-1][0] * count >= total * blocks[-1][1]:
            total, count, points = total + blocks[-1][0], count + blocks[-1][1], points + blocks[-1][2]
            blocks.pop()
        blocks.append((total, count, points))
    fitted = [total / count for total, count, points in blocks for _ in range(points)]
    knots = [
        (float(x), y)
        for i, (x, y) in enumerate(zip(at, fitted, strict=True))
        if not 0 < i < len(at) - 1 or not fitted[i - 1] == y == fitted[i + 1]
    ]
    return CalibrationCurve(method="isotonic", knots=tuple(knots))


def platt_curve(confidences: Sequence[float], correct: Sequence[bool]) -> CalibrationCurve:
    """sigmoid(intercept + slope · logit(c)) with the least log-loss; the slope is at least 0.

    RIDGE/2 · (intercept² + (slope - 1)²) is added to the summed loss, so that examples which a threshold separates do
    not drive the slope to infinity, and confidences are cut to [clip, 1 - clip], the clip being half the distance from
    0 or 1 of the closest one that is not itself 0 or 1, within [1e-6, 0.25]. The minimum is found by Newton's method.

    Source: Platt 1999, "Probabilistic Outputs for Support Vector Machines", equation 1, on the log-odds.

    Args:
        confidences: Probability of the likeliest label, in [0, 1].
        correct: Whether that label is right.

    Raises:
        UserError: There are no examples, or not as many of the one as of the other.
    """
    c, right = _arrays(confidences, correct)
    distance = np.minimum(c, 1 - c)
    inside = distance[distance > 0]
    clip = float(np.clip(inside.min() / 2, LEAST_CLIP, MOST_CLIP)) if len(inside) else MOST_CLIP
    c = np.clip(c, clip, 1 - clip)
    design = np.column_stack([np.ones(len(c)), np.log(c) - np.log1p(-c)])
    w = _least_loss(design, right, np.array([0.0, 1.0]))
    if w[1] < 0:  # the loss is convex: where its minimum is not allowed, the best allowed one is on the edge
        w = np.array([*_least_loss(design[:, :1], right, np.array([0.0])), 0.0])
    return CalibrationCurve(method="platt", intercept=float(w[0]), slope=float(w[1]), clip=clip)


def with_confidence(support: Support, confidence: float) -> Support:
    """The same support with another probability of its likeliest label; the others keep their proportion.

    The likeliest label stays the likeliest: a confidence that would put another above it is raised to where they meet.
    Of a support of 1 the rest is shared evenly.

    Args:
        support: The probabilities.
        confidence: What the likeliest label's is to be, in [0, 1].
    """
    label = support.label
    shares = support._replace(**{label: 0.0})
    others = math.fsum(shares)  # and not what is left of 1: very small ones would be lost
    shares = Support(*(p / others for p in shares)) if others > 0 else Support(0.5, 0.5, 0.5)._replace(**{label: 0.0})
    most = max(shares)
    taken = max(confidence, most / (1 + most))
    return keeping(Support(*(p * (1 - taken) for p in shares))._replace(**{label: taken}), label)


def mapped(support: Support, temperature: float, curve: CalibrationCurve | None) -> Support:
    """A support by a curve of its likeliest label's confidence, or, where there is none, by a temperature."""
    if curve is None:
        return temper(support, temperature)
    return with_confidence(support, curve.apply(min(support.confidence, 1.0)))


def _least_loss(design: Array, right: Array, towards: Array) -> Array:
    """Where Σ [ln(1 + e^η) - y η] + RIDGE/2 · |w - towards|² is least, η = design · w; halved steps until it falls."""

    def loss(w: Array) -> float:
        odds = design @ w
        return float(np.sum(np.logaddexp(0, odds) - right * odds) + RIDGE / 2 * np.sum((w - towards) ** 2))

    w = towards
    value = loss(w)
    for _ in range(STEPS):
        p = np.exp(-np.logaddexp(0, -(design @ w)))
        gradient = design.T @ (p - right) + RIDGE * (w - towards)
        if np.abs(gradient).max() <= 1e-12 * len(right):
            break
        hessian = (design * (p * (1 - p))[:, None]).T @ design + RIDGE * np.eye(len(w))
        step, scale = np.linalg.solve(hessian, gradient), 1.0
        while loss(w - scale * step) >= value and scale > 1e-10:
            scale /= 2
        if scale <= 1e-10:  # rounding is all that is left
            break
        w = w - scale * step
        value = loss(w)
    return w


def _arrays(confidences: Sequence[float], correct: Sequence[bool]) -> tuple[Array, Array]:
    if not confidences or len(confidences) != len(correct):
        raise UserError(f"{len(confidences)} confidences and {len(correct)} outcomes: as many, and at least one")
    return np.array(confidences, dtype=np.float64), np.array(correct, dtype=np.float64)
