"""The two regressions beside other programs' minima."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reason.evals.training.routers.logistic import base_log_odds, fit_linear, fit_logistic, log_losses, sigmoid
from scipy.optimize import minimize


def case(seed: int, rows: int = 60, columns: int = 3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, columns))
    y = (rng.random(rows) < sigmoid(0.3 + x @ rng.normal(size=columns))).astype(float)
    return x, y


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.01, 1.0, 100.0]))
def test_the_logistic_minimum_is_scipys(seed, penalty):
    x, y = case(seed)
    y[: len(y) // 3] = np.random.default_rng(seed + 1).random(len(y) // 3)  # shares count too

    def loss(w):
        eta = w[0] + x @ w[1:]
        p = sigmoid(eta) - y
        value = np.sum(np.logaddexp(0, eta) - y * eta) + penalty / 2 * w[1:] @ w[1:]
        return value, np.concatenate([[p.sum()], x.T @ p + penalty * w[1:]])

    b, w = fit_logistic(x, y, penalty)
    result = minimize(loss, np.zeros(4), jac=True, method="BFGS", options={"gtol": 1e-9})
    assert np.allclose([b, *w], result.x, atol=1e-6)
    assert loss(np.array([b, *w]))[0] <= result.fun + 1e-9
    assert np.abs(loss(np.array([b, *w]))[1]).max() < 1e-6


def test_the_linear_minimum_is_that_of_augmented_least_squares():
    x, _ = case(5)
    y = x @ [1.0, -2.0, 0.5] + np.random.default_rng(1).normal(size=len(x))
    b, w = fit_linear(x, y, 7.0)
    design = np.column_stack([np.ones(len(x)), x])
    ridge = np.sqrt(7.0) * np.eye(4)[1:]
    expected = np.linalg.lstsq(np.vstack([design, ridge]), np.concatenate([y, np.zeros(3)]), rcond=None)[0]
    assert np.allclose([b, *w], expected)


def test_separated_targets_stay_finite_and_shrink_with_the_penalty():
    x = np.array([[-1.0], [-0.5], [0.5], [1.0]])
    y = np.array([0.0, 0, 1, 1])
    weights = [fit_logistic(x, y, penalty)[1][0] for penalty in (0.001, 0.1, 10.0, 1000.0)]
    assert all(a > b > 0 for a, b in itertools.pairwise(weights))
    assert weights[-1] < 0.01


@pytest.mark.parametrize("kind", [0.0, 1.0])
def test_targets_of_one_kind_give_jeffreys_share(kind):
    x, _ = case(1, rows=9)
    b, w = fit_logistic(x, np.full(9, kind), 1.0)
    assert not w.any()
    assert sigmoid(np.array([b]))[0] == pytest.approx(0.95 if kind else 0.05)
    assert base_log_odds(np.array([1.0, 0, 0, 1])) == 0


def test_no_columns_give_the_base_rate():
    y = np.array([1.0, 0, 0, 0])
    b, w = fit_logistic(np.zeros((4, 0)), y, 1.0)
    assert w.shape == (0,)
    assert b == pytest.approx(np.log(1 / 3))
    assert fit_linear(np.zeros((4, 0)), y, 1.0)[0] == 0.25


def test_the_loss_of_a_row_is_its_surprise():
    assert log_losses(np.array([np.log(3), np.log(3)]), np.array([1.0, 0.0])) == pytest.approx(
        [-np.log(0.75), -np.log(0.25)]
    )
    assert np.isfinite(log_losses(np.array([1e4, -1e4]), np.array([0.0, 1.0]))).all()
