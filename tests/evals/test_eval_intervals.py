"""Intervals and standard errors against scipy, statsmodels and the definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import UserError
from reason.evals.statistics.intervals import (
    bootstrap,
    bootstrap_means,
    standard_error,
    t_interval,
    wilson,
)
from reason.evals.statistics.outcomes import Outcomes, number_groups
from scipy import stats

EXACT = {"rel": 0, "abs": 1e-9}
scores = st.lists(st.floats(0, 1), min_size=3, max_size=30)


def own(n: int) -> np.ndarray:
    return np.arange(n)


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 10), (10, 10), (7, 10), (33, 60), (512, 1319)])
def test_wilson_is_statsmodels(k, n):
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    low, high = proportion.proportion_confint(k, n, method="wilson")
    result = wilson(k, n)
    assert (result.low, result.high) == pytest.approx((low, high), **EXACT)


def test_wilson_needs_a_trial():
    with pytest.raises(UserError):
        wilson(0, 0)


def test_clustered_error_is_statsmodels():
    sm = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(3)
    values = rng.random(40)
    clusters = number_groups(list(rng.integers(0, 9, 40)))
    fit = sm.OLS(values, np.ones((40, 1))).fit(cov_type="cluster", cov_kwds={"groups": clusters}, use_t=True)
    # statsmodels multiplies by G/(G-1) · (N-1)/(N-1) for one regressor
    assert standard_error(values, clusters) == pytest.approx(float(fit.bse[0]), **EXACT)
    interval = t_interval(values, clusters)
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx(tuple(map(float, fit.conf_int()[0])), **EXACT)


@given(scores)
def test_without_groups_it_is_the_sample_error(values):
    array = np.array(values)
    assert standard_error(array, own(len(array))) == pytest.approx(float(stats.sem(array)), **EXACT)


def test_one_cluster_is_not_estimable():
    values, one = np.array([0.0, 1.0, 1.0]), np.zeros(3, dtype=np.intp)
    assert standard_error(values, one) is None
    assert t_interval(values, one) is None
    assert bootstrap(values, one) is None


def test_the_bootstrap_is_scipys():
    values = np.random.default_rng(5).random(17)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=3000, method="percentile", rng=np.random.default_rng(11), vectorized=True
    ).confidence_interval
    ours = bootstrap(values, own(17), resamples=3000, seed=11)
    assert ours is not None
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), **EXACT)


def test_the_bootstrap_samples_clusters():
    """Two clusters of three and one item: a resample's mean can only be one of three values."""
    values, clusters = np.array([1.0, 1.0, 1.0, 0.0]), np.array([0, 0, 0, 1])
    means = bootstrap_means(values, clusters, resamples=500)
    assert sorted({round(float(m), 12) for m in means}) == [0.0, 0.75, 1.0]


def test_resampling_in_chunks_gives_the_same_samples(monkeypatch):
    values = np.random.default_rng(1).random(13)
    whole = bootstrap_means(values, own(13), resamples=300, seed=4)
    monkeypatch.setattr("reason.evals.statistics.intervals._CHUNK", 13 * 7)
    assert np.array_equal(bootstrap_means(values, own(13), resamples=300, seed=4), whole)


def test_outcomes_refuse_invalid_scores():
    with pytest.raises(UserError, match="no scores"):
        Outcomes.of({})
    with pytest.raises(UserError, match="outside"):
        Outcomes.of({"a": {0: 1.5}})
    with pytest.raises(UserError, match="no score"):
        Outcomes.of({"a": {0: 1.0}, "b": {}})


def test_outcomes_select_items_and_renumber_groups():
    outcomes = Outcomes.of({"a": {0: 1, 1: 0}, "b": {0: 1}, "c": {1: 0}}, {"a": "x", "c": "x"})
    assert outcomes.clustered
    assert list(outcomes.p) == [0.5, 1.0, 0.0]
    assert list(outcomes.seeds_per_item) == [2, 1, 1]
    some = outcomes.only(["c", "b"])
    assert (some.ids, list(some.clusters), list(some.p)) == (("c", "b"), [0, 1], [0.0, 1.0])
    assert not some.clustered
