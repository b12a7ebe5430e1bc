"""Pieces of evidence for the tests of fusion and calibration: the three of the method's examples, and random ones."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from reason.verify.fusion import EvidenceItem
from reason.verify.types import Support, support

A = Support(0.9, 0.05, 0.05)
B = Support(0.05, 0.9, 0.05)
Z = Support(0.02, 0.02, 0.96)

MODES = ("witness", "product", "mean")


def close(values: Any, tolerance: float = 1e-6) -> Any:
    return pytest.approx(tuple(values), abs=tolerance)


def of(*draws: Support, **more: Any) -> list[EvidenceItem]:
    """An item of each verdict."""
    return [EvidenceItem(draw, **more) for draw in draws]


def swapped(draw: Support) -> Support:
    return Support(draw.refutes, draw.supports, draw.neutral)


unit = st.floats(0, 1)
supports = st.tuples(unit, unit, unit).filter(lambda t: sum(t) > 1e-3).map(support)
items = st.builds(
    EvidenceItem,
    probs=supports,
    credibility=unit,
    text=st.sampled_from(["", "a b c d e f", "a b c d e g", "one two three four", "one two three five"]),
    document=st.sampled_from(["", "x", "y"]),
)
"""Any evidence: any weight, some copies, some from one document."""
