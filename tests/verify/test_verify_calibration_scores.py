"""What scores of verdicts say, by hand and against the evaluations' own."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.calibration_fit import aurc, ece, reliability
from reason.core.errors import UserError
from reason.evals.statistics import calibration as evals_calibration


def test_4_ece_by_hand():
    assert ece([0.9, 0.8, 0.6, 0.6], [True, True, False, True]) == pytest.approx(0.125, abs=1e-12)


def test_bins_are_closed_on_the_right():
    found = reliability([i / 10 for i in range(11)], [True] * 11)
    assert [b.count for b in found] == [2, *[1] * 9]
    assert [b.high for b in found] == [i / 10 for i in range(1, 11)]
    assert [b.low for b in reliability([0.3, 0.30000001], [True, False])] == [0.2, 0.3]


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_scores_are_those_of_the_evaluations(pairs):
    c, right = [c for c, _ in pairs], [r for _, r in pairs]
    arrays = np.array(c), np.array(right, dtype=np.float64)
    assert ece(c, right) == pytest.approx(evals_calibration.ece(*arrays), abs=1e-12)
    assert aurc(c, right) == pytest.approx(evals_calibration.aurc(*arrays), abs=1e-12)
    ours, theirs = reliability(c, right), evals_calibration.reliability(*arrays)
    assert [b.count for b in ours] == [b.count for b in theirs]


def test_aurc_by_hand():
    assert aurc([0.9, 0.8, 0.7], [True, False, True]) == pytest.approx((0 + 1 / 2 + 1 / 3) / 3)
    assert aurc([0.5, 0.5], [True, False]) == aurc([0.5, 0.5], [False, True]) == pytest.approx(0.5)


def test_confidences_outside_are_refused():
    with pytest.raises(UserError, match="outside"):
        ece([1.5], [True])
    with pytest.raises(UserError, match="outside"):
        reliability([math.nan], [True])
