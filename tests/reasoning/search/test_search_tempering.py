"""Swapping between chains, and temperatures that follow the weights."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.reasoning.search.resampling import (
    annealed_temperature,
    effective_size,
    entropic_temperature,
    softmax,
    swap_probability,
)

taus = st.floats(0.1, 5)
levels = st.floats(-20, 20)


@given(taus, taus, levels, levels)
def test_a_swap_is_symmetric_in_the_chains(hot, cold, log_hot, log_cold):
    a = swap_probability(hot, cold, log_hot, log_cold)
    assert 0 <= a <= 1
    assert a == pytest.approx(swap_probability(cold, hot, log_cold, log_hot), abs=1e-12)
    assert swap_probability(hot, hot, log_hot, log_cold) == 1
    if hot > cold and log_hot >= log_cold:
        assert a == 1


@given(taus, taus, levels, levels)
def test_a_swap_is_the_ratio_of_the_targets(hot, cold, log_hot, log_cold):
    pi = {(tau, level): level / tau for tau in (hot, cold) for level in (log_hot, log_cold)}
    ratio = pi[hot, log_cold] + pi[cold, log_hot] - pi[hot, log_hot] - pi[cold, log_cold]
    assert swap_probability(hot, cold, log_hot, log_cold) == pytest.approx(math.exp(min(0, ratio)), abs=1e-9)


def test_swaps_leave_the_joint_target_unchanged():
    prior, logs, hot, cold = (0.5, 0.3, 0.2), (0.0, 1.2, -0.7), 2.0, 0.7

    def target(tau):
        raw = [p * math.exp(log / tau) for p, log in zip(prior, logs, strict=True)]
        return [value / sum(raw) for value in raw]

    pi_hot, pi_cold = target(hot), target(cold)
    joint = {(x, y): pi_hot[x] * pi_cold[y] for x in range(3) for y in range(3)}
    flow = {(x, y): joint[x, y] * swap_probability(hot, cold, logs[x], logs[y]) for x, y in joint}
    for x, y in joint:
        assert flow[x, y] == pytest.approx(flow[y, x], abs=1e-15)  # detailed balance
    after = {(x, y): joint[x, y] - flow[x, y] + flow[y, x] for x, y in joint}
    assert after == pytest.approx(joint, abs=1e-15)
    assert any(flow[pair] < joint[pair] - 1e-6 for pair in joint)


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


def test_annealing():
    taus = [annealed_temperature(t, 1.5, 0.7, 10) for t in range(12)]
    assert taus[0] == 1.5
    assert taus[9:] == [0.7] * 3
    assert taus[3] == pytest.approx(1.5 - 0.8 * 3 / 9)
    assert annealed_temperature(0, 1.5, 0.7, 1) == 0.7
