"""Logistic and linear regression with a quadratic penalty: both minima are unique, and found to the last digits.

Targets of the logistic one may be shares, as the mean over several seeds is: the loss is then the mean log-loss over
those seeds, times their number, and the minimum the same.

Source: Hastie, Tibshirani, Friedman 2009, "The Elements of Statistical Learning", sections 3.4.1, 4.4.1 and 4.4.4.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

STEPS: Final = 100
SMALL_ENOUGH: Final = 1e-10
"""Largest part of the gradient, in the unit of the summed loss divided by the number of rows, at which it has ended."""


def fit_logistic(x: Array, y: Array, penalty: float) -> tuple[float, Array]:
    """The minimum of sum_i [ln(1 + e^eta_i) - y_i eta_i] + penalty / 2 |w|^2 with eta = b + x w; b is not penalised.

    Newton's method, a step halved until the loss falls. Targets that are all 0, or all 1, have no minimum: half a
    target of the other kind is added then, which bounds b; see `base_log_odds`.

    Args:
        x: `[rows, columns]`, standardised.
        y: `[rows]`, in [0, 1].
        penalty: Above 0.

    Returns:
        b, and w `[columns]`.
    """
    rows, columns = x.shape
    if not columns or y.min() == y.max():
        return base_log_odds(y), np.zeros(columns)
    design = np.column_stack([np.ones(rows), x])
    ridge = np.full(columns + 1, penalty)
    ridge[0] = 0.0
    w = np.zeros(columns + 1)
    w[0] = base_log_odds(y)
    value = _loss(design, y, ridge, w)
    for _ in range(STEPS):
        p = sigmoid(design @ w)
        gradient = design.T @ (p - y) + ridge * w
        if np.abs(gradient).max() <= SMALL_ENOUGH * rows:
            break
        hessian = (design * (p * (1 - p))[:, None]).T @ design + np.diag(ridge + 1e-12)
        step = np.linalg.solve(hessian, gradient)
        scale = 1.0
        while scale > 1e-10:
            trial = w - scale * step
            lower = _loss(design, y, ridge, trial)
            if lower <= value:
                w, value = trial, lower
                break
            scale /= 2
        else:
            break  # the loss falls no more: rounding is all that is left
    return float(w[0]), w[1:]


def fit_linear(x: Array, y: Array, penalty: float) -> tuple[float, Array]:
    """The minimum of sum_i (y_i - b - x_i w)^2 / 2 + penalty / 2 |w|^2; b is not penalised.

    Args:
        x: `[rows, columns]`.
        y: `[rows]`.
        penalty: Above 0.

    Returns:
        b, and w `[columns]`.
    """
    columns = x.shape[1]
    if not columns:
        return float(y.mean()), np.zeros(0)
    middle = x.mean(axis=0)
    centred = x - middle
    w = np.linalg.solve(centred.T @ centred + penalty * np.eye(columns), centred.T @ (y - y.mean()))
    return float(y.mean() - middle @ w), w


def base_log_odds(y: Array) -> float:
    """The log-odds of the mean target; with targets of one kind, of the mean with half a target of either kind added.

    The latter is Jeffreys' estimate of a share, (k + 1/2) / (n + 1).
    """
    k, n = float(y.sum()), len(y)
    if not 0 < k < n:
        k, n = k + 0.5, n + 1
    return float(np.log(k) - np.log(n - k))


def sigmoid(eta: Array) -> Array:
    """1 / (1 + e^-eta), without overflow."""
    found: Array = np.exp(-np.logaddexp(0, -eta))
    return found


def log_losses(eta: Array, y: Array) -> Array:
    """The log-loss of each row in nats, `[rows]`.

    Args:
        eta: Log-odds, `[rows]`.
        y: Targets in [0, 1], `[rows]`.
    """
    losses: Array = np.logaddexp(0, eta) - y * eta
    return losses


def _loss(design: Array, y: Array, ridge: Array, w: Array) -> float:
    return float(log_losses(design @ w, y).sum() + 0.5 * (ridge * w**2).sum())
