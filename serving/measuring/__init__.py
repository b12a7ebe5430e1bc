"""Measuring a model: what it declares against what small requests show, and how fast it is."""

from .findings import Finding, Speed
from .measure import TRIAL_TOKENS, measure, worst_cost_usd
from .memory import resident_bytes
from .speed import measure_speed

__all__ = [
    "TRIAL_TOKENS",
    "Finding",
    "Speed",
    "measure",
    "measure_speed",
    "resident_bytes",
    "worst_cost_usd",
]
