"""The Weibull mixture: likelihood, gradient, the fit from several starts, and pruning."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reason.core.blas_threads import one_blas_thread
from reason.core.errors import UserError
from reason.reasoning.voting.path_votes import (
    BOUNDS,
    START,
    density,
    fit_mixture,
    log_density,
    log_posterior,
    nll_and_gradient,
    prune,
    weibull_mean,
)
from scipy import stats
from scipy.optimize import minimize

GOLDEN = np.exp([-0.05, -0.06, -0.07, -0.20, -0.22, -0.50, -0.55, -0.60])

shapes = st.floats(0.05, 40)
scales = st.floats(0.02, 3)
parameters = st.tuples(st.floats(0.2, 0.8), shapes, scales, shapes, scales)
points = st.lists(st.floats(1e-6, 1), min_size=1, max_size=40).map(np.array)


def two_weibulls(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A pool of 128 of two separated components, and which points are of the lower one."""
    rng = np.random.default_rng(seed)
    high = int(128 * rng.uniform(0.35, 0.65))
    k, lam = rng.uniform(12, 20), rng.uniform(0.35, 0.45)
    p = np.concatenate([0.9 * rng.weibull(14, high), lam * rng.weibull(k, 128 - high)])
    return np.clip(p, 1e-6, 1), np.arange(128) >= high


def test_golden_vector():
    fit = fit_mixture(GOLDEN)
    assert fit.parameters == pytest.approx((0.62551, 18.1159, 0.918283, 27.8942, 0.588753), abs=1e-3)
    assert fit.means == pytest.approx((0.891660, 0.577294), abs=1e-3)
    assert fit.nll == pytest.approx(-8.582082, abs=1e-6)
    assert fit.converged
    options = {"args": (np.log(GOLDEN),), "jac": True, "method": "L-BFGS-B", "bounds": BOUNDS}
    assert fit.iterations == minimize(nll_and_gradient, START, **options).nit
    assert fit.start_nll == pytest.approx(nll_and_gradient(START, np.log(GOLDEN))[0], abs=1e-12)
    result = prune(GOLDEN.tolist())
    assert result.pruned == (5, 6, 7)
    assert result.posterior[5:] == pytest.approx((0.002549, 0.000742, 0.000789), abs=1e-5)
    assert result.mean == pytest.approx(0.7723662, abs=1e-7)


def test_the_authors_formula_reaches_the_golden_optimum_too():
    log, written = fit_mixture(GOLDEN), fit_mixture(GOLDEN, formula="reference")
    assert written.parameters == pytest.approx(log.parameters, abs=1e-3)
    assert written.nll == pytest.approx(log.nll, abs=1e-6)


@given(st.floats(1e-3, 1), st.floats(0.2, 20), scales)
def test_density_is_scipys(x, k, lam):
    expected = stats.weibull_min.logpdf(x, k, scale=lam)
    assert log_density(np.log([x]), k, lam)[0] == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert weibull_mean(k, lam) == pytest.approx(stats.weibull_min.mean(k, scale=lam), rel=1e-9)
    if expected > -600:
        assert math.log(density(np.array([x]), k, lam)[0]) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(parameters, points)
def test_gradient_is_that_of_the_likelihood(at, p):
    ln_x = np.log(p)
    value, gradient = nll_and_gradient(at, ln_x)
    if not value < 1e4:  # a component so far off that differences drown in rounding
        return

    def slope(i: int, step: float) -> float:
        up, down = list(at), list(at)
        up[i] += step
        down[i] -= step
        return (nll_and_gradient(up, ln_x)[0] - nll_and_gradient(down, ln_x)[0]) / (2 * step)

    for i in range(5):
        step = 1e-6 * max(1e-2, at[i])
        result, coarser = slope(i, step), slope(i, 2 * step)
        doubt = abs(result - coarser)  # where the curve bends or rounds within a step
        assert gradient[i] == pytest.approx(result, rel=1e-4, abs=1e-3 * (1 + abs(value)) + 2 * doubt)


@settings(max_examples=50)
@given(parameters, points)
def test_swapping_the_components_changes_nothing(at, p):
    w, k1, lam1, k2, lam2 = at
    other = (1 - w, k2, lam2, k1, lam1)
    assert nll_and_gradient(at, np.log(p))[0] == pytest.approx(nll_and_gradient(other, np.log(p))[0], rel=1e-9)
    one, two = log_posterior(np.log(p), at)
    assert np.exp(one) + np.exp(two) == pytest.approx(1)
    assert np.exp(log_posterior(np.log(p), other)[1]) == pytest.approx(np.exp(one), abs=1e-9)


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_a_fit_is_never_worse_than_its_start_and_within_bounds(p):
    fit = fit_mixture(p)
    assert fit.finite
    assert fit.nll <= fit.start_nll
    assert fit.means[0] >= fit.means[1]
    for value, (low, high) in zip(fit.parameters, BOUNDS, strict=True):
        assert low - 1e-12 <= value <= (math.inf if high is None else high + 1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_separated_pools(seed):
    p, low = two_weibulls(seed)
    fits = [fit_mixture(p, start) for start in (START, (0.3, 5.0, 0.5, 5.0, 0.9), (0.5, 2.0, 0.3, 8.0, 0.8))]
    assert max(f.nll for f in fits) - min(f.nll for f in fits) <= 1e-4
    assert all(f.converged and f.nll <= f.start_nll for f in fits)
    below = np.flatnonzero(low & (p < p.mean()))
    assert len(below) > 20
    assert np.isin(below, prune(p.tolist()).pruned).mean() > 0.9


def test_not_worse_than_differences_and_where_these_stop_early_better():
    """The same start and solver without gradient: a trial step with an infinite likelihood ends it on a slope."""

    def nll(q: np.ndarray, p: np.ndarray) -> float:
        w, k1, lam1, k2, lam2 = q
        one, two = (k / lam * (p / lam) ** (k - 1) * np.exp(-((p / lam) ** k)) for k, lam in ((k1, lam1), (k2, lam2)))
        return -float(np.sum(np.log(w * one + (1 - w) * two)))

    differences = []
    for seed in range(12):
        p, _ = two_weibulls(seed)
        with np.errstate(all="ignore"), one_blas_thread():
            naive = minimize(nll, START, args=(p,), bounds=BOUNDS)
        differences.append(fit_mixture(p).nll - naive.fun)
        assert fit_mixture(p, formula="reference").nll == pytest.approx(naive.fun, rel=1e-12)
    assert max(differences) <= 1e-4
    assert sum(abs(d) <= 1e-4 for d in differences) > 6


def test_a_fit_reports_whether_it_is_on_a_slope():
    """Slopes that lead out of the bounds do not count; swapped components have their own weight."""
    bounded = stuck = swapped = 0
    for seed in (*range(60), 1220, 1358):  # of the last two, the slope out of the bounds is gentle
        rng = np.random.default_rng(seed)
        size = int(rng.integers(4, 30))
        ln_x = np.log(np.maximum(rng.beta(*rng.uniform(0.3, 5, 2), size=size), 1e-12))
        fit = fit_mixture(np.exp(ln_x))
        value, slope = nll_and_gradient(fit.parameters, ln_x)
        assert value == pytest.approx(fit.nll, rel=1e-9)
        assert fit.iterations > 0
        for i, (at, (low, high)) in enumerate(zip(fit.parameters, BOUNDS, strict=True)):
            if (at <= low + 1e-12 and slope[i] > 0) or (high is not None and at >= high - 1e-12 and slope[i] < 0):
                slope[i] = 0.0
                bounded += fit.converged
        steepest = float(np.abs(slope).max()) / max(1.0, abs(fit.nll))
        steep = steepest > 1.01e-3
        assert not (steep and fit.converged)
        assert fit.converged or steepest > 0.99e-3
        stuck += steep
        swapped += fit.swapped
    assert bounded > 5
    assert stuck > 0
    assert swapped > 5


def test_a_fit_of_what_is_no_number_is_not_finite():
    fit = fit_mixture(GOLDEN)
    assert fit.finite
    assert not dataclasses.replace(fit, nll=math.nan).finite
    assert not dataclasses.replace(fit, lam2=math.inf).finite


def test_bad_input_is_refused():
    for allowed in ((0.2, 0.01, 0.01, 0.01, 0.01), (0.8, 1.0, 1.0, 1.5, 2.0)):  # the bounds are inside
        assert fit_mixture(GOLDEN, allowed).start_nll == nll_and_gradient(allowed, np.log(GOLDEN))[0]
    for p in ([], [[0.5]], 0.5, [1.5], [-0.1], [math.nan]):
        with pytest.raises(UserError, match="probabilities"):
            fit_mixture(p)


def test_diagnostics_are_json():
    diagnostics = fit_mixture(GOLDEN).diagnostics()
    assert diagnostics["mean1"] == pytest.approx(0.891660, abs=1e-3)
    assert (diagnostics["converged"], diagnostics["swapped"]) == (True, False)
    assert {"w", "k1", "lam1", "k2", "lam2", "nll", "start_nll", "iterations"} < set(diagnostics)


def test_blas_has_its_threads_back():
    from threadpoolctl import threadpool_info

    def threads() -> list[int]:
        return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

    before = threads()
    with one_blas_thread():
        assert set(threads()) <= {1}
    assert threads() == before
