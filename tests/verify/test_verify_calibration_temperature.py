"""Temperature scaling: what it keeps, what it finds; isotonic and Platt curves against scipy's."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reason.core.calibration_fit import fit_curve
from reason.core.errors import UserError
from reason.verify.calibration import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    apply_temperature,
    fit_temperature,
    with_confidence,
)
from reason.verify.metrics import nll
from reason.verify.types import Support, support
from support.evidence_items import A, close, supports
from support.scipy_calibration import isotonic, on_log_odds

temperatures = st.floats(0.01, 1000)


@given(supports, temperatures)
@settings(max_examples=150)
def test_3_the_likeliest_stays_and_all_sums_to_one(draw, temperature):
    found = apply_temperature(draw, temperature)
    assert math.fsum(found) == pytest.approx(1, abs=1e-9)
    assert found.label == draw.label
    assert all((f == 0) == (p == 0) or temperature < 1 for f, p in zip(found, draw, strict=True))
    order = sorted(range(3), key=lambda y: draw[y])
    assert [found[y] for y in order] == sorted(found)


@given(supports)
def test_3_a_temperature_of_1_is_the_identity(draw):
    assert apply_temperature(draw, 1.0) is draw


@pytest.mark.parametrize("temperature", [0.05, 3.0, 20.0, 1e6, 1e300])
def test_3_equals_stay_equal_and_nearly_equals_apart(temperature):
    assert apply_temperature(Support(0.4, 0.4, 0.2), temperature).label == "refutes"
    nearly = Support(math.nextafter(0.4, 1), 0.4, 0.2)
    assert apply_temperature(nearly, temperature).label == "supports"
    assert (
        apply_temperature(Support(0.25, 0.25, 0.5), temperature).supports
        == apply_temperature(Support(0.25, 0.25, 0.5), temperature).refutes
    )


def test_the_numbers():
    assert apply_temperature(A, 2.0) == close((0.679623, 0.160189, 0.160189))
    assert apply_temperature(Support(0.8, 0.2, 0.0), 0.5) == close((16 / 17, 1 / 17, 0.0))
    assert apply_temperature(Support(0, 0, 1), 7.0) == (0, 0, 1)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_no_temperature_is_refused(temperature):
    with pytest.raises(UserError, match="temperature"):
        apply_temperature(A, temperature)


@pytest.mark.parametrize("true", [0.1, 0.5, 1.0, 2.5, 12.0])
def test_the_temperature_that_was_used_is_found(true):
    """Labels in the proportions that the tempered probabilities say: the least loss is there, exactly."""
    given_probs, golds = [], []
    for stated in (Support(0.5, 0.3, 0.2), Support(0.4, 0.35, 0.25), Support(0.2, 0.2, 0.6)):
        shares = apply_temperature(stated, true)
        counts = [round(20_000 * p) for p in shares]
        for label, count in zip(("supports", "refutes", "neutral"), counts, strict=True):
            golds += [label] * (count // 20)
            given_probs += [stated] * (count // 20)
    assert fit_temperature(given_probs, golds) == pytest.approx(true, rel=0.02)


def test_the_valley_is_found_to_the_last_digits():
    """No point of a fine grid is better."""
    rng = random.Random(2)
    given_probs = [support([rng.random() ** 3 for _ in range(3)]) for _ in range(300)]
    golds = [rng.choices(["supports", "refutes", "neutral"], [p**0.4 for p in s])[0] for s in given_probs]
    found = fit_temperature(given_probs, golds)
    loss = nll([apply_temperature(s, found) for s in given_probs], golds)
    grid = np.geomspace(MIN_TEMPERATURE, MAX_TEMPERATURE, 400)
    assert loss <= min(nll([apply_temperature(s, float(t)) for s in given_probs], golds) for t in grid) + 1e-12


def test_the_ends_of_the_range():
    assert fit_temperature([Support(0.5, 0.3, 0.2)] * 5, ["supports"] * 5) == pytest.approx(MIN_TEMPERATURE)
    assert fit_temperature([Support(0.9, 0.06, 0.04)] * 3, ["supports", "refutes", "neutral"]) == pytest.approx(
        MAX_TEMPERATURE
    )
    assert fit_temperature([Support(1 / 3, 1 / 3, 1 / 3)] * 3, ["supports"] * 3) == 1.0


@given(st.lists(st.tuples(supports, st.sampled_from(["supports", "refutes", "neutral"])), min_size=1, max_size=20))
@settings(max_examples=30, deadline=None)
def test_it_is_never_worse_than_none(pairs):
    given_probs, golds = [s for s, _ in pairs], [g for _, g in pairs]
    floored = [support(max(p, 1e-12) for p in s) for s in given_probs]
    found = fit_temperature(given_probs, golds)
    assert MIN_TEMPERATURE * (1 - 1e-9) <= found <= MAX_TEMPERATURE * (1 + 1e-9)
    assert nll([apply_temperature(s, found) for s in floored], golds) <= nll(floored, golds) + 1e-9


def test_labels_that_are_none_are_refused():
    with pytest.raises(UserError, match="unknown label 'disputed'"):
        fit_temperature([A], ["disputed"])  # type: ignore[list-item]
    with pytest.raises(UserError, match="2 predictions and 1 gold labels"):
        fit_temperature([A, A], ["supports"])
    with pytest.raises(UserError, match="at least one"):
        fit_temperature([], [])


hits = st.lists(
    st.tuples(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 1.0])), st.booleans()),
    min_size=1,
    max_size=40,
)


@given(hits)
@settings(max_examples=100, deadline=None)
def test_isotonic_is_what_scipy_finds(pairs):
    c, right = [c for c, _ in pairs], [r for _, r in pairs]
    ours = fit_curve("isotonic", c, right)
    theirs = isotonic(np.array(c), np.array(right, dtype=np.float64))
    assert all(ours.apply(x) == pytest.approx(theirs.apply(x), abs=1e-9) for x in [*c, 0.0, 0.3, 0.7, 1.0])


def test_isotonic_by_hand():
    curve = fit_curve("isotonic", [0.3, 0.4, 0.5, 0.6, 0.6], [False, True, False, True, True])
    assert curve.knots == ((0.3, 0.0), (0.4, 0.5), (0.5, 0.5), (0.6, 1.0))
    assert fit_curve("isotonic", [0.2, 0.9], [True, False]).knots == ((0.2, 0.5), (0.9, 0.5))


@given(st.integers(0, 10_000), st.sampled_from([25, 60]))
@settings(max_examples=25, deadline=None)
def test_platt_is_what_a_general_minimiser_finds(seed, n):
    rng = random.Random(seed)
    c = [round(rng.uniform(0.34, 1), 3) for _ in range(n)]
    right = [rng.random() < 0.2 + 0.6 * x for x in c]
    ours = fit_curve("platt", c, right)
    theirs = on_log_odds("platt", np.array(c), np.array(right, dtype=np.float64))
    assert ours.clip == theirs.clip
    assert all(ours.apply(x) == pytest.approx(theirs.apply(x), abs=1e-4) for x in (0.4, 0.6, 0.9, 1.0))


def test_platt_never_falls():
    falling = fit_curve("platt", [0.4] * 10 + [0.9] * 10, [True] * 9 + [False] + [True] * 2 + [False] * 8)
    assert falling.slope == 0
    assert falling.apply(0.9) == falling.apply(0.4) == pytest.approx(11 / 20, abs=1e-3)
    parted = fit_curve("platt", [0.4] * 20 + [0.9] * 20, [False] * 20 + [True] * 20)
    assert math.isfinite(parted.slope)
    assert parted.apply(0.4) < 0.1 < 0.9 < parted.apply(0.9)


@given(supports, st.floats(0, 1))
def test_another_confidence_keeps_the_label_and_the_proportions(draw, confidence):
    found = with_confidence(draw, confidence)
    assert found.label == draw.label
    assert math.fsum(found) == pytest.approx(1, abs=1e-9)
    assert found.confidence >= confidence - 1e-12
    rest = [y for y in draw._fields if y != draw.label]
    products = [getattr(found, a) * getattr(draw, b) for a, b in (rest, rest[::-1])]
    assert products == close(products[::-1], 1e-9)


def test_another_confidence_by_hand():
    assert with_confidence(Support(0.8, 0.15, 0.05), 0.6) == close((0.6, 0.3, 0.1))
    assert with_confidence(Support(1, 0, 0), 0.6) == close((0.6, 0.2, 0.2))
    # 0.2 would put the second, with three quarters of the rest, above: they meet at 3/7
    assert with_confidence(Support(0.6, 0.3, 0.1), 0.2) == close((3 / 7, 3 / 7, 1 / 7))
