"""What scores of verdicts say, by hand and against the evaluations' own."""

from __future__ import annotations

import math

import pytest
from reason.core.calibration_fit import aurc, ece, reliability
from reason.core.errors import UserError


def test_4_ece_by_hand():
    assert ece([0.9, 0.8, 0.6, 0.6], [True, True, False, True]) == pytest.approx(0.125, abs=1e-12)


def test_bins_are_closed_on_the_right():
    found = reliability([i / 10 for i in range(11)], [True] * 11)
    assert [b.count for b in found] == [2, *[1] * 9]
    assert [b.high for b in found] == [i / 10 for i in range(1, 11)]
    assert [b.low for b in reliability([0.3, 0.30000001], [True, False])] == [0.2, 0.3]


def test_aurc_by_hand():
    assert aurc([0.9, 0.8, 0.7], [True, False, True]) == pytest.approx((0 + 1 / 2 + 1 / 3) / 3)
    assert aurc([0.5, 0.5], [True, False]) == aurc([0.5, 0.5], [False, True]) == pytest.approx(0.5)


def test_confidences_outside_are_refused():
    with pytest.raises(UserError, match="outside"):
        ece([1.5], [True])
    with pytest.raises(UserError, match="outside"):
        reliability([math.nan], [True])
