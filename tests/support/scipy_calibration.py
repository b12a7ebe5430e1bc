"""Calibration curves fitted by scipy, as oracles of `reason.core.calibration_fit`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from reason.core.calibration import CalibrationCurve, CalibrationMethod
from scipy.optimize import isotonic_regression, minimize
from scipy.special import logsumexp

Array = NDArray[np.float64]
RIDGE = 1e-3
LEAST_CLIP, MOST_CLIP = 1e-6, 0.25


def on_log_odds(method: CalibrationMethod, confidence: Array, correct: Array) -> CalibrationCurve:
    """Minimum log-loss by L-BFGS-B."""
    distance = np.minimum(confidence, 1 - confidence)
    inside = distance[distance > 0]
    clip = float(np.clip(inside.min() / 2, LEAST_CLIP, MOST_CLIP)) if len(inside) else MOST_CLIP
    c = np.clip(confidence, clip, 1 - clip)
    logit = np.log(c) - np.log1p(-c)
    free = method == "platt"

    def loss(w: Array) -> tuple[float, Array]:
        """The loss per answer, and its gradient by intercept and slope."""
        odds = w[0] + w[1] * logit
        wrong = np.exp(-np.logaddexp(0, -odds)) - correct
        value = np.sum(np.logaddexp(0, odds) - correct * odds) + RIDGE / 2 * (w[0] ** 2 + (w[1] - 1) ** 2)
        slopes = np.array([wrong.sum() + RIDGE * w[0], np.sum(wrong * logit) + RIDGE * (w[1] - 1)])
        return float(value / len(c)), slopes / len(c)

    result = minimize(
        loss,
        np.array([0.0, 1.0]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(None, None) if free else (0, 0), (0, None)],
        options={"ftol": 1e-14, "gtol": 1e-8, "maxiter": 1000},
    )
    return CalibrationCurve(method=method, intercept=float(result.x[0]), slope=max(float(result.x[1]), 0.0), clip=clip)


def isotonic(confidence: Array, correct: Array) -> CalibrationCurve:
    """Minimum squared error by scipy."""
    at, group = np.unique(confidence, return_inverse=True)
    counts = np.bincount(group)
    fitted = isotonic_regression(np.bincount(group, weights=correct) / counts, weights=counts).x.clip(0, 1)
    knots = [
        (float(x), float(y))
        for i, (x, y) in enumerate(zip(at, fitted, strict=True))
        if not 0 < i < len(at) - 1 or not fitted[i - 1] == y == fitted[i + 1]
    ]
    return CalibrationCurve(method="isotonic", knots=tuple(knots))


def minimize_multinomial(features: Array, golds: Array, signs: Array, *, penalty: float) -> Array:
    """Weights `[2, 1 + features]` of a multinomial regression with classes of equal weight, by a general minimiser.

    Args:
        features: `[examples, features]`; those that never vary are not scaled.
        golds: Class of each example: 0 and 1 have weights, 2 is the reference.
        signs: Sign of each weight, `[2, features]`.
        penalty: L2 penalty on the weights of standardised features.
    """
    weights = np.zeros(len(golds))
    for label in range(3):
        weights[golds == label] = 1 / (golds == label).sum() / 3
    mean = weights @ features
    scale = np.sqrt(weights @ (features - mean) ** 2)
    scale[scale < 1e-9] = 1.0
    design = np.column_stack([np.ones(len(features)), (features - mean) / scale])
    size = design.shape[1]

    def loss(theta: Array) -> float:
        logits = np.column_stack([design @ theta[:size], design @ theta[size:], np.zeros(len(design))])
        logs = logits - logsumexp(logits, axis=1, keepdims=True)
        slopes = np.concatenate([theta[1:size], theta[size + 1 :]])
        return float(-weights @ logs[np.arange(len(golds)), golds] + penalty / 2 * slopes @ slopes)

    bounds = []
    for row in signs:
        bounds += [(None, None), *((0, None) if sign > 0 else (None, 0) for sign in row)]
    options = {"maxiter": 5000, "maxfun": 10**6, "ftol": 1e-15, "gtol": 1e-10}
    found = minimize(loss, np.zeros(2 * size), method="L-BFGS-B", bounds=bounds, options=options).x.reshape(2, size)
    slopes = found[:, 1:] / scale
    return np.column_stack([found[:, 0] - slopes @ mean, slopes])
