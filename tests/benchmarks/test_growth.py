"""The growth benchmark: its exponents are slopes, its pieces add up over several calls, its table is made of them."""

from __future__ import annotations

import math
from pathlib import Path

import growth
import pytest
from growth import Piece, exponent


def test_the_interval_is_that_of_a_regression() -> None:
    # logarithms to base 4 of the values are 0, 2, 1, 3: slope 0.8, residual variance 1.8 / 2, and 5 the sum of squares
    found = exponent({1: 1.0, 4: 16.0, 16: 4.0, 64: 64.0})
    assert found is not None
    half = 4.302653 * math.sqrt(0.9 / 5)
    assert (found.value, found.low, found.high) == pytest.approx((0.8, 0.8 - half, 0.8 + half), abs=1e-5)
    assert exponent({1: 1.0, 4: 2.0}) is None


def test_a_piece_may_be_measured_in_several_calls_and_makes_a_table(tmp_path: Path) -> None:
    path = tmp_path / "pools.json"
    for size in (10, 40, 160):
        piece = Piece.read(path, "pools")
        piece.add(size, {"open": (size / 10, "s"), "failed": (0.0, "requests")}, 1.23)
        piece.stopped = f"after {size}"
        piece.write(path)
    before = Piece("pools", values={"open": {10: 1.0, 40: 16.0, 160: 256.0}}, units={"open": "s"})
    before.write(tmp_path / "pools-before.json")
    (section,) = growth.sections(tmp_path)
    lines = section.splitlines()
    assert lines[0] == "### Samples in a recorded pool"
    assert lines[2] == "| samples | 10 | 40 | 160 | exponent | exponent before |"
    assert lines[4] == "| open, s | 1.00 | 4.00 | 16.0 | 1.00 [1.00, 1.00] | 2.00 [2.00, 2.00] |"
    assert lines[5] == "| failed, requests | 0 | 0 | 0 |  |  |"
    assert "Load before each size 1.2 to 1.2." in section
    assert section.endswith("It ended there: after 160.")
