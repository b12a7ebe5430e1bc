"""Temperature scaling of three-way support: sharpen or flatten, and never change what is likeliest.

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2, on log-probabilities in place of
logits, which differ from them by a constant alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...core.errors import UserError
from ..support import Label, Support
from .scores import LEAST, places_of

Array = NDArray[np.float64]

COLDEST: Final = 0.05
HOTTEST: Final = 20.0
STEPS: Final = 80
"""Steps of the golden-section search: each leaves 0.618 of the range, so that these leave nothing to be seen."""
_GOLDEN: Final = (math.sqrt(5) - 1) / 2


def temper(support: Support, temperature: float) -> Support:
    """q_y = p_y^(1/T) / Σ p^(1/T). A 0 stays 0, equals stay equal, and T = 1 changes nothing.

    The likeliest label stays the likeliest, among equals as before: where rounding makes the two largest equal, the one
    that was larger stays so by the least step that a number can make.

    Args:
        support: The probabilities.
        temperature: T, above 0: below 1 sharpens, above 1 flattens.

    Raises:
        UserError: T is not above 0, or no number.
    """
    if not (temperature > 0 and math.isfinite(temperature)):
        raise UserError(f"a temperature of {temperature:g} cannot be divided by", hint="a number above 0")
    if temperature == 1:
        return support
    logs = [math.log(p) if p > 0 else -math.inf for p in support]
    top = max(logs)
    raised = [math.exp((log - top) / temperature) for log in logs]
    total = math.fsum(raised)
    return keeping(Support(*(r / total for r in raised)), support.label)


def keeping(support: Support, label: Label) -> Support:
    """The same with this label the likeliest, by the least step, where rounding has made it one of several equals."""
    if support.label == label:
        return support
    return support._replace(**{label: math.nextafter(support.confidence, 1.0)})


def fit_temperature(supports: Sequence[Support], golds: Sequence[Label]) -> float:
    """The temperature with the least negative log-likelihood, in [0.05, 20].

    As a function of 1/T that is convex, so that it has one valley in T and a golden-section search over log T finds it.
    Probabilities below 1e-12 count as 1e-12. Never worse than no scaling.

    Args:
        supports: Probabilities, one for each example.
        golds: The right label of each.

    Raises:
        UserError: There are no examples, or not as many labels as probabilities.
    """
    right = places_of(supports, golds)
    logs = np.log(np.maximum(np.array(supports, dtype=np.float64), LEAST))

    def loss(log_temperature: float) -> float:
        return float(-log_rows(logs, math.exp(log_temperature))[np.arange(len(right)), right].mean())

    found = math.exp(_valley(loss, math.log(COLDEST), math.log(HOTTEST)))
    return found if loss(math.log(found)) < loss(0.0) else 1.0


def log_rows(logs: Array, temperature: float) -> Array:
    """Logarithms of tempered probabilities, `[examples, 3]`, from logarithms of probabilities (-inf of a 0)."""
    scaled = logs / temperature
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    result: Array = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return result


def _valley(loss: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one valley is least, by golden section.

    Source: Kiefer 1953, "Sequential minimax search for a maximum".
    """
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = loss(left), loss(right)
    for _ in range(STEPS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = loss(right)
    # a valley at the edge: the edge itself, not a point just inside
    return min(((low + high) / 2, low, high), key=loss)
