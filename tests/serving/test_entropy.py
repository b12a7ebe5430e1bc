"""Entropies of first tokens: exact values, bounds, the correction for few samples."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.serving.entropy import covered_mass, min_entropy, plug_in_entropy, top_k_entropy

LOGS = st.lists(st.floats(-30, 0), min_size=1, max_size=20)


def test_uniform_distribution_has_entropy_log_k():
    for k in range(1, 21):
        assert top_k_entropy([math.log(1 / k)] * k) == math.log(k)
    assert top_k_entropy([0.0, -math.inf, -800.0]) == 0.0


@given(LOGS)
def test_it_is_the_entropy_of_the_normalised_probabilities(logprobs):
    shares = [math.exp(v) / sum(map(math.exp, logprobs)) for v in logprobs]
    assert top_k_entropy(logprobs) == pytest.approx(-sum(q * math.log(q) for q in shares if q), abs=1e-9)


def test_empty_input_is_rejected():
    for none in ([], [-math.inf]):
        with pytest.raises(ValueError, match="no token"):
            top_k_entropy(none)
    with pytest.raises(ValueError, match="at least one sample"):
        plug_in_entropy([0, 0])


@pytest.mark.parametrize("sample", range(60))
def test_top_k_entropy_is_below_that_of_the_vocabulary(sample):
    rng = random.Random(sample)
    vocabulary = rng.choice([20, 21, 50, 5000])
    sharp = rng.choice([0.1, 1.0, 3.0, 10.0])
    weights = sorted((math.exp(rng.gauss(0, sharp)) for _ in range(vocabulary)), reverse=True)
    probabilities = [w / sum(weights) for w in weights]
    exact = -math.fsum(p * math.log(p) for p in probabilities if p > 0)
    top = [math.log(p) for p in probabilities[:20]]
    h_top, mass = top_k_entropy(top), covered_mass(top)
    assert h_top <= h_top + math.log(1 / mass) <= exact + 1e-9
    assert min_entropy(top) <= exact + 1e-9


def test_miller_madow_correction():
    assert plug_in_entropy([8]) == 0
    assert plug_in_entropy([4, 4]) == pytest.approx(math.log(2) + 1 / 16)
    assert plug_in_entropy([1] * 8) == pytest.approx(math.log(8) + 7 / 16)
