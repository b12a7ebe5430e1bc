"""Pieces of evidence for the tests of fusion and calibration: the three of the method's examples, and random ones."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from reason.verify.fusion import EvidenceItem, FusionParameters
from reason.verify.types import Support, support

A = Support(0.9, 0.05, 0.05)
B = Support(0.05, 0.9, 0.05)
Z = Support(0.02, 0.02, 0.96)

PLAIN: dict[str, Any] = {"temperature": 1.0, "beta": 1.0, "a": 1.0, "merge": False}
MODES = ("witness", "product", "mean", "vote", "max")


def close(values: Any, tolerance: float = 1e-6) -> Any:
    return pytest.approx(tuple(values), abs=tolerance)


def of(*draws: Support, **more: Any) -> list[EvidenceItem]:
    """Items of one draw each."""
    return [EvidenceItem((draw,), **more) for draw in draws]


def plain(mode: str = "witness", **more: Any) -> FusionParameters:
    """The parameters that the method's examples are computed with."""
    return FusionParameters(mode=mode, **(PLAIN | more))  # type: ignore[arg-type]


def swapped(draw: Support) -> Support:
    return Support(draw.refutes, draw.supports, draw.neutral)


unit = st.floats(0, 1)
supports = st.tuples(unit, unit, unit).filter(lambda t: sum(t) > 1e-3).map(support)
items = st.builds(
    EvidenceItem,
    samples=st.lists(supports, min_size=1, max_size=3).map(tuple),
    credibility=unit,
    relevance=unit,
    text=st.sampled_from(["", "a b c d e f", "a b c d e g", "one two three four", "one two three five"]),
    document=st.sampled_from(["", "x", "y"]),
)
"""Any evidence: several draws, any weight, some copies, some from one document."""
