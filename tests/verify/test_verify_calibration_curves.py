"""Isotonic and Platt curves against scipy's."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reason.core.calibration_fit import fit_curve
from support.scipy_calibration import isotonic, on_log_odds

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
