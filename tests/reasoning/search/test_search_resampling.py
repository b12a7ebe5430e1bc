"""Weights and resampling schemes: exact values, moments, bounds without exception.

Swapping between chains, and temperatures that follow the weights.
"""

import math
from collections import Counter
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import UserError
from reason.reasoning.search.particles import (
    CLIP,
    effective_size,
    entropic_temperature,
    log_level,
    log_potential,
    log_sum,
    multinomial,
    softmax,
    systematic,
)
from scipy import stats

SCORES = (0.5, 0.8, 0.99)
log_weights = st.lists(st.floats(-40, 40), min_size=1, max_size=20)
thetas = (
    st.lists(st.floats(0, 1), min_size=1, max_size=20)
    .filter(lambda ws: sum(ws) > 0.01)
    .map(lambda ws: [w / math.fsum(ws) for w in ws])
)


class Uniform:
    def __init__(self, value):
        self.value = value

    def random(self):
        return self.value


def test_softmax_of_logits_is_odds_normalised():
    logits = [log_level(r, "logit") for r in SCORES]
    odds = [r / (1 - r) for r in SCORES]
    assert softmax(logits) == pytest.approx([o / sum(odds) for o in odds], abs=1e-12)
    assert softmax(logits) == pytest.approx([0.0096, 0.0385, 0.9519], abs=5e-5)
    assert softmax([w / 2 for w in logits]) == pytest.approx([0.0772, 0.1544, 0.7683], abs=5e-5)
    assert softmax(SCORES) == pytest.approx([0.2511, 0.3390, 0.4099], abs=5e-5)


@given(log_weights, st.floats(-1000, 1000))
def test_softmax_sums_to_one_and_does_not_see_a_shift(ws, shift):
    theta = softmax(ws)
    assert math.fsum(theta) == pytest.approx(1, abs=1e-12)
    assert softmax([w + shift for w in ws]) == pytest.approx(theta, abs=1e-9)
    assert log_sum([w + shift for w in ws]) == pytest.approx(log_sum(ws) + shift, abs=1e-9)
    assert 1 - 1e-9 <= effective_size(theta) <= len(ws) * (1 + 1e-9)


@pytest.mark.parametrize("mode", ["odds", "likelihood", "telescoped"])
def test_scores_of_0_and_1_are_finite(mode):
    ws = [log_potential(mode, r, before) for r in (0.0, 1.0) for before in (None, 0.0, 1.0)]
    assert all(map(math.isfinite, ws))
    assert all(map(math.isfinite, softmax(ws)))
    assert log_level(1.0, "logit") == pytest.approx(-log_level(0.0, "logit")) == math.log((1 - CLIP) / CLIP)
    assert log_level(1.0, "log") == 0


def test_softmax_of_nothing_usable_is_refused():
    for ws in ([], [-math.inf], [math.nan, 1.0], [math.inf]):
        with pytest.raises(UserError, match="log-weights"):
            softmax(ws)
    assert softmax([-math.inf, 3.0]) == [0.0, 1.0]


@given(st.lists(st.floats(0.001, 0.999), min_size=1, max_size=10))
def test_telescoped_potentials_multiply_to_the_last_level(scores):
    befores = [None, *scores[:-1]]
    total = math.fsum(log_potential("telescoped", r, b) for r, b in zip(scores, befores, strict=True))
    assert total == pytest.approx(log_level(scores[-1], "log"), abs=1e-9)


def test_prefix_products_count_early_steps_twice():
    steps = (0.9, 0.5, 0.8)
    prefixes = [0.9, 0.9 * 0.5, 0.9 * 0.5 * 0.8]
    assert math.exp(sum(log_potential("likelihood", r, None) for r in steps)) == pytest.approx(0.36, abs=1e-12)
    again = math.exp(sum(log_potential("likelihood", r, None) for r in prefixes))
    assert again == pytest.approx(0.9**3 * 0.5**2 * 0.8, abs=1e-12) == pytest.approx(0.1458, abs=1e-12)
    once = [log_potential("telescoped", r, b) for r, b in zip(prefixes, [None, *prefixes], strict=False)]
    assert math.exp(sum(once)) == pytest.approx(0.36, abs=1e-12)


def test_multinomial_counts_have_the_right_expectation():
    theta = [0.05, 0.15, 0.3, 0.5]
    rng = Random(12)
    counts = Counter(i for _ in range(1000) for i in multinomial(theta, 100, rng))
    expected = [1e5 * share for share in theta]
    assert stats.chisquare([counts[i] for i in range(4)], expected).pvalue > 0.01
    # and the chosen are those of `random.choices` on the same uniforms
    assert multinomial(theta, 9, Random(3)) == Random(3).choices(range(4), theta, k=9)


def test_systematic_counts_have_the_right_expectation():
    theta = [0.05, 0.15, 0.3, 0.5]
    draws = 1000  # evenly over all values of the one random number
    counts = Counter(i for draw in range(draws) for i in systematic(theta, 3, Uniform((draw + 0.5) / draws)))
    for i, share in enumerate(theta):
        assert counts[i] / draws == pytest.approx(3 * share, abs=0.002)


@given(thetas, st.integers(1, 40), st.floats(0, 1, exclude_max=True))
def test_systematic_counts_are_floor_or_ceil(theta, n, u):
    chosen = systematic(theta, n, Uniform(u))
    assert len(chosen) == n
    assert chosen == sorted(chosen)
    total = sum(map(Fraction, theta))
    for i, share in enumerate(theta):
        exact = n * Fraction(share) / total
        assert chosen.count(i) in (math.floor(exact), math.ceil(exact))


@given(
    st.lists(st.floats(-30, 30), min_size=2, max_size=16).map(softmax),
    st.floats(0, 1),
    st.sampled_from(["size", "entropy"]),
)
def test_the_entropic_temperature_never_sharpens(theta, progress, form):
    tau = entropic_temperature(theta, progress, form)
    assert 1 <= tau < math.inf
    if effective_size(theta) / len(theta) >= 0.5 or progress >= 0.5:
        assert tau == 1


def test_the_entropic_temperature_in_numbers():
    theta = [0.97, 0.01, 0.01, 0.01]
    ratio = 1 / (0.97**2 + 3 * 0.01**2) / 4
    assert entropic_temperature(theta, 0.25) == pytest.approx(0.75 / ratio)
    entropy = -(0.97 * math.log(0.97) + 0.03 * math.log(0.01)) / math.log(4)
    assert entropic_temperature(theta, 0.25, "entropy") == pytest.approx(1 / (entropy + (1 - entropy) * 0.25))
    assert entropic_temperature([1.0, 0.0, 0.0, 0.0], 0.0, "entropy") == 4
    assert entropic_temperature([1.0], 0.0) == 1
