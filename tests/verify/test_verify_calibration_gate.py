"""The gate and its threshold; what scores say, against the evaluations' own."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reason.core.calibration_fit import aurc, ece, reliability
from reason.core.errors import UserError
from reason.evals.scoring import label_report
from reason.evals.statistics import calibration as evals_calibration
from reason.verify.calibration import GRID, choose_threshold, gate, gate_metrics
from reason.verify.metrics import accuracy, brier, macro_f1, nll, top_label_hits
from reason.verify.types import Support
from support.evidence_items import A, B, Z, supports

LABELS = ["supports", "refutes", "neutral"]
labelled = st.lists(st.tuples(supports, st.sampled_from(LABELS)), min_size=1, max_size=30)


@given(supports)
def test_1_a_threshold_of_0_is_the_plain_verifier_and_above_1_all_is_neutral(draw):
    assert gate(draw, 0.0) == (draw.label, draw.label, draw.confidence, False)
    above = gate(draw, 1.0001)
    assert above.label == "neutral"
    assert above.downgraded == (draw.label != "neutral")


@given(st.lists(supports, max_size=20), st.floats(0, 1.1), st.floats(0, 1.1))
def test_2_neutral_never_gets_less_as_the_threshold_rises_and_sides_are_never_swapped(draws, one, other):
    low, high = sorted((one, other))
    at_low, at_high = [gate(d, low) for d in draws], [gate(d, high) for d in draws]
    for a, b, draw in zip(at_low, at_high, draws, strict=True):
        assert b.label in (a.label, "neutral")
        assert a.label in (draw.label, "neutral")
        assert a.raw_label == b.raw_label == draw.label
        assert a.confidence == b.confidence == draw.confidence


def test_the_threshold_itself_passes():
    assert gate(Support(0.6, 0.3, 0.1), 0.6) == ("supports", "supports", 0.6, False)
    assert gate(Support(0.6, 0.3, 0.1), math.nextafter(0.6, 1)) == ("neutral", "supports", 0.6, True)
    assert gate(Support(0.1, 0.3, 0.6), 0.9) == ("neutral", "neutral", 0.6, False)


def test_ties_go_to_the_more_careful_label():
    assert gate(Support(0.4, 0.4, 0.2), 0.0).label == "refutes"
    assert gate(Support(0.4, 0.2, 0.4), 0.0).label == "neutral"
    assert gate(Support(1 / 3, 1 / 3, 1 / 3), 0.0).label == "neutral"


def at(confidence, label="supports"):
    rest = (1 - confidence) / 2
    return Support(rest, rest, rest)._replace(**{label: confidence})


def test_the_grid():
    assert GRID == (0.0, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


def test_the_smallest_threshold_of_the_best_macro_f1():
    # wrong ones up to 0.55, right ones from 0.72: every threshold from 0.6 to 0.7 does best
    given_probs = [at(0.55), at(0.52, "refutes"), at(0.72), at(0.8, "refutes"), at(0.9, "neutral")]
    golds = ["neutral", "neutral", "supports", "refutes", "neutral"]
    found = choose_threshold(given_probs, golds)
    assert found == (0.6, 1.0, 2, 0.4, 0.0, 1.0, 1.0)


def test_by_risk():
    given_probs = [at(c) for c in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)]
    golds = ["refutes", "supports", "neutral", "supports", "supports", "supports"]
    # from 0.5 on: 2 of 6 are wrong; from 0.55: 1 of 5; from 0.75: none
    assert choose_threshold(given_probs, golds, max_risk=0.34).threshold == 0.0
    assert choose_threshold(given_probs, golds, max_risk=0.2).threshold == 0.55
    found = choose_threshold(given_probs, golds, max_risk=0.0)
    assert (found.threshold, found.risk, found.answered, found.coverage) == (0.75, 0.0, 3, 0.5)


def test_by_precision_of_each_side():
    given_probs = [at(0.5), at(0.7), at(0.6, "refutes"), at(0.8, "refutes"), at(0.9, "neutral")]
    golds = ["neutral", "supports", "supports", "refutes", "neutral"]
    # supports is precise from 0.55 on, refutes from 0.65 on
    assert choose_threshold(given_probs, golds, min_precision=1.0).threshold == 0.65
    assert choose_threshold(given_probs, golds, min_precision=0.5).threshold == 0.0


def test_what_cannot_be_reached_is_told():
    with pytest.raises(UserError, match=r"no threshold reaches a risk of 0\.1 or less; the nearest"):
        choose_threshold([at(0.97), at(0.97)], ["supports", "refutes"], max_risk=0.1)
    with pytest.raises(UserError, match="no threshold answers any example"):
        choose_threshold([Z, Z], ["supports", "neutral"], max_risk=0.5)
    with pytest.raises(UserError, match="exclude each other"):
        choose_threshold([A], ["supports"], max_risk=0.1, min_precision=0.9)
    with pytest.raises(UserError, match="target must be in"):
        choose_threshold([A], ["supports"], max_risk=-0.1)
    with pytest.raises(UserError, match="at least one"):
        choose_threshold([], [])


@given(labelled, st.floats(0, 1))
@settings(max_examples=80, deadline=None)
def test_a_chosen_threshold_keeps_its_promise(pairs, wish):
    given_probs, golds = [s for s, _ in pairs], [g for _, g in pairs]
    best = choose_threshold(given_probs, golds)
    assert best.macro_f1 == max(gate_metrics(given_probs, golds, t).macro_f1 for t in GRID)
    assert all(gate_metrics(given_probs, golds, t).macro_f1 < best.macro_f1 for t in GRID if t < best.threshold)
    try:
        found = choose_threshold(given_probs, golds, max_risk=wish)
    except UserError:
        assert all(s.risk is None or s.risk > wish for s in (gate_metrics(given_probs, golds, t) for t in GRID))
    else:
        assert found.risk is not None
        assert found.risk <= wish


def test_a_disputed_claim_that_is_answered_is_answered_wrongly():
    found = gate_metrics([A, Z], ["disputed", "disputed"], 0.6)
    assert (found.risk, found.coverage, found.macro_f1) == (1.0, 0.5, 0.0)


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
