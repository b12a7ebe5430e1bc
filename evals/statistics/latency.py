"""Seconds per item: median and 95th percentile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Latency:
    """Quantiles of seconds, linearly interpolated between order statistics; `n` items were measured."""

    p50: float
    p95: float
    n: int


def latency(seconds: Sequence[float]) -> Latency | None:
    """Median and 95th percentile; None of nothing.

    Only items that were computed in one go belong here: one that the run store answered took no time worth telling.
    """
    if not seconds:
        return None
    p50, p95 = np.quantile(np.asarray(seconds, dtype=float), [0.5, 0.95])
    return Latency(float(p50), float(p95), len(seconds))
