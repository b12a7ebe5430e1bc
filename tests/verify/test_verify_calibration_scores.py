"""What scores of verdicts say, by hand and against the evaluations' own."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.calibration_fit import aurc, ece, reliability
from reason.core.errors import UserError
from reason.evals.scoring import label_report
from reason.evals.statistics import calibration as evals_calibration
from reason.verify.metrics import accuracy, brier, macro_f1, nll, top_label_hits
from reason.verify.types import Support
from support.evidence_items import A, B, Z

LABELS = ["supports", "refutes", "neutral"]


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


@given(st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from([*LABELS, "disputed"])), min_size=1, max_size=30))
def test_macro_f1_is_that_of_the_evaluations(pairs):
    said, right = [s for s, _ in pairs], [r for _, r in pairs]
    report = label_report([(r, s) for s, r in pairs])
    assert macro_f1(said, right) == pytest.approx(report.macro_f1, abs=1e-12)
    assert accuracy(said, right) == pytest.approx(report.accuracy, abs=1e-12)


def test_scores_by_hand():
    golds = ["supports", "supports", "neutral"]
    assert nll([A, B, Z], golds) == pytest.approx(-(math.log(0.9) + math.log(0.05) + math.log(0.96)) / 3)
    assert nll([Support(0, 0, 1)], ["supports"]) == pytest.approx(12 * math.log(10))
    assert brier([A, B], ["supports", "supports"]) == pytest.approx((0.01 + 0.005 + 0.95**2 + 0.81 + 0.0025) / 2)
    assert macro_f1(["supports", "refutes"], ["supports", "supports"]) == pytest.approx(1 / 3)
    assert macro_f1(["supports"], ["supports"], over=LABELS) == pytest.approx(1 / 3)
    assert top_label_hits([A, B], ["supports", "supports"]) == ([0.9, 0.9], [True, False])


def test_aurc_by_hand():
    assert aurc([0.9, 0.8, 0.7], [True, False, True]) == pytest.approx((0 + 1 / 2 + 1 / 3) / 3)
    assert aurc([0.5, 0.5], [True, False]) == aurc([0.5, 0.5], [False, True]) == pytest.approx(0.5)


def test_confidences_outside_are_refused():
    with pytest.raises(UserError, match="outside"):
        ece([1.5], [True])
    with pytest.raises(UserError, match="outside"):
        reliability([math.nan], [True])
