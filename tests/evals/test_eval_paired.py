"""Paired comparison, accuracy at equal tokens, latency."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reason.core.errors import UserError
from reason.evals.statistics.equal_tokens import TokenCurve, accuracy_at, difference_at, shared_tokens
from reason.evals.statistics.outcomes import Outcomes
from reason.evals.statistics.paired import compare_paired, detectable_difference, exact_sign_test, items_needed
from reason.evals.summary import latency
from scipy import stats

EXACT = {"rel": 0, "abs": 1e-9}


def of(values: list[float]) -> Outcomes:
    return Outcomes.of({f"i{i}": {0: v} for i, v in enumerate(values)})


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (3, 9), (12, 12), (0, 20), (40, 17)])
def test_mcnemar_is_statsmodels(b: int, c: int) -> None:
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    if b + c:
        theirs = tables.mcnemar([[5, b], [c, 7]], exact=True).pvalue
        assert exact_sign_test(b, c) == pytest.approx(min(1.0, float(theirs)), **EXACT)
    else:
        assert exact_sign_test(b, c) == 1.0


def test_compare_by_hand() -> None:
    result = compare_paired(of([1, 1, 1, 0, 0]), of([1, 0, 0, 0, 1]))
    d = np.array([0, 1, 1, 0, -1.0])
    assert (result.wins, result.losses, result.both, result.neither, result.other) == (2, 1, 1, 1, 0)
    assert result.difference == pytest.approx(0.2, **EXACT)
    assert result.se == pytest.approx(float(stats.sem(d)), **EXACT)
    theirs = stats.ttest_1samp(d, 0).confidence_interval(0.95)
    assert (result.t.low, result.t.high) == pytest.approx((theirs.low, theirs.high), **EXACT)
    assert result.p == 1.0
    assert result.detectable == detectable_difference(result.se)
    assert result == compare_paired(of([1, 1, 1, 0, 0]), of([1, 0, 0, 0, 1]), 0.95, resamples=10_000, seed=0)


def test_every_kind_of_item_is_counted() -> None:
    """Under two seeds each: 5 won, 4 lost, 3 right and 2 wrong throughout, 1 as often right as wrong in both."""
    kinds = [(1, 0)] * 3 + [(1, 0.5)] * 2 + [(0.5, 1)] * 4 + [(1, 1)] * 3 + [(0, 0)] * 2 + [(0.5, 0.5)]

    def run(rates: list[float]) -> Outcomes:
        return Outcomes.of({f"i{i}": {0: float(rate > 0), 1: float(rate == 1)} for i, rate in enumerate(rates)})

    result = compare_paired(run([a for a, _ in kinds]), run([b for _, b in kinds]))
    assert (result.items, result.wins, result.losses, result.both, result.neither, result.other) == (15, 5, 4, 3, 2, 1)


def test_only_shared_items_count() -> None:
    a = Outcomes.of({"x": {0: 1}, "y": {0: 0}, "z": {0: 1}})
    b = Outcomes.of({"z": {0: 0}, "y": {0: 0}, "w": {0: 1}})
    result = compare_paired(a, b)
    assert (result.items, result.wins, result.neither) == (2, 1, 1)
    with pytest.raises(UserError, match="in common"):
        compare_paired(a, Outcomes.of({"q": {0: 1}}))


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=2, max_size=20), st.randoms())
def test_swapping_negates_and_order_does_not_matter(pairs: list[tuple[int, int]], random) -> None:
    a, b = of([x for x, _ in pairs]), of([y for _, y in pairs])
    forth, back = compare_paired(a, b, resamples=200), compare_paired(b, a, resamples=200)
    assert forth.difference == pytest.approx(-back.difference, **EXACT)
    assert (forth.wins, forth.losses) == (back.losses, back.wins)
    assert forth.p == pytest.approx(back.p, **EXACT)
    if len({x - y for x, y in pairs}) == 1:
        assert forth.t is back.t is forth.bootstrap is forth.detectable is None
    else:
        assert (forth.t.low, forth.t.high) == pytest.approx((-back.t.high, -back.t.low), **EXACT)
    names = random.sample(a.ids, len(a.ids))
    again = compare_paired(a.only(names), b, resamples=10)
    assert (again.difference, again.se) == pytest.approx((forth.difference, forth.se), **EXACT)


@pytest.mark.parametrize("scores", [[1, 1, 1, 1], [0, 1, 0, 1]])
def test_equal_differences_are_not_estimable(scores: list[int]) -> None:
    """Four items on which two runs agree do not show that they always do: an interval of no width would say so."""
    for other in (scores, [1 - x for x in scores] if scores == [1] * 4 else scores):
        result = compare_paired(of(scores), of(other))
        assert result.se == pytest.approx(0, **EXACT)
        assert (result.t, result.bootstrap, result.detectable) == (None, None, None)
        assert result.difference == scores[0] - other[0]


def test_detectable_difference() -> None:
    """The usual 2.8 standard errors: 1.959964 + 0.841621."""
    assert detectable_difference(0.05) == pytest.approx(0.05 * 2.8015852181, **EXACT)
    assert items_needed(0.05, 100, detectable_difference(0.05)) == 100
    assert items_needed(0.05, 100, detectable_difference(0.05) / 2) == 400
    assert items_needed(0.05, 100, -detectable_difference(0.05) / 2) == 400
    assert items_needed(1.0, 100, 1.0) == items_needed(1.0, 100, -1.0) == 785  # 2.8015852 squared
    with pytest.raises(UserError, match="a difference of 0"):
        items_needed(0.05, 100, 0.0)


def test_a_power_analysis_agrees() -> None:
    """statsmodels solves for the effect (in units of sd) of a two-sided normal test with 80% power."""
    power = pytest.importorskip("statsmodels.stats.power")
    effect = power.NormalIndPower(ddof=0).solve_power(nobs1=64, alpha=0.05, power=0.8, ratio=0)
    assert detectable_difference(1 / 8) == pytest.approx(float(effect), abs=1e-6)  # its solver's own tolerance


def test_latency() -> None:
    assert latency([]) is None
    result = latency([4.0, 1.0, 3.0, 2.0])
    assert result is not None
    assert (result.p50, result.p95, result.n) == pytest.approx((2.5, 3.85, 4), **EXACT)


def curve(name: str, accuracy: list[float], tokens: list[float], items: int = 6) -> TokenCurve:
    """A curve whose items do not vary: its band has no width."""
    return TokenCurve(name, np.tile(accuracy, (items, 1)).astype(float), np.tile(tokens, (items, 1)).astype(float))


def test_accuracy_at_equal_tokens_by_hand() -> None:
    sc = curve("sc", [0.2, 0.4, 0.8], [100, 200, 800])
    ((at100, at400, beyond),) = accuracy_at([sc], np.arange(6), [100, 400, 900], resamples=50)
    assert astuple(at100) == pytest.approx((100, 0.2, 0.2, 0.2), **EXACT)
    assert astuple(at400) == pytest.approx((400, 0.6, 0.6, 0.6), **EXACT)  # half-way in the logarithm
    assert beyond is None


def test_difference_at_equal_tokens() -> None:
    a, b = curve("a", [0.2, 0.8], [100, 400]), curve("b", [0.1, 0.3], [50, 800])
    result = difference_at(a, b, np.arange(6), 200, resamples=50)
    assert astuple(result) == pytest.approx((200, 0.3, 0.3, 0.3), **EXACT)
    assert difference_at(a, b, np.arange(6), 500) is None


def test_the_band_holds_items_and_pairing() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(40)
    accuracy = (hard[:, None] < np.array([0.3, 0.5, 0.7])).astype(float)
    tokens = rng.integers(50, 150, (40, 3)) * np.array([1.0, 2.0, 4.0])
    one, same = TokenCurve("one", accuracy, tokens), TokenCurve("same", accuracy, tokens)
    ((at,),) = accuracy_at([one], np.arange(40), [250.0], resamples=500)
    assert at.low < at.value < at.high
    zero = difference_at(one, same, np.arange(40), 250.0, resamples=500)
    assert astuple(zero) == pytest.approx((250.0, 0, 0, 0), **EXACT)  # the same items: no doubt at all


def test_at_a_measured_point_it_is_the_bootstrap() -> None:
    from reason.evals.statistics.intervals import bootstrap

    rng = np.random.default_rng(2)
    accuracy = rng.integers(0, 2, (30, 1)).astype(float)
    one = TokenCurve("one", accuracy, np.full((30, 1), 64.0))
    ((at,),) = accuracy_at([one], np.arange(30), [64.0], resamples=400, seed=9)
    plain = bootstrap(accuracy[:, 0], np.arange(30), resamples=400, seed=9)
    assert (at.low, at.high) == pytest.approx((plain.low, plain.high), **EXACT)


def test_where_curves_meet() -> None:
    a, b = curve("a", [0.2, 0.8], [100, 400]), curve("b", [0.1, 0.3], [200, 800])
    assert shared_tokens([a, b], 3) == pytest.approx([200, np.sqrt(200 * 400), 400], **EXACT)
    assert shared_tokens([a, curve("c", [0.1], [50])]) == []
    assert shared_tokens([curve("c", [0.1], [50])]) == [50.0]


def test_curves_of_other_items_are_refused() -> None:
    with pytest.raises(UserError, match="same items"):
        accuracy_at([curve("a", [0.1], [10], items=3)], np.arange(4), [10])
    with pytest.raises(UserError, match="without tokens"):
        accuracy_at([curve("a", [0.1], [0])], np.arange(6), [10])
