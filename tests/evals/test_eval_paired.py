"""Paired comparison, accuracy at equal tokens, latency."""

from __future__ import annotations

from dataclasses import astuple
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import UserError
from reason.evals.statistics.equal_tokens import TokenCurve, accuracy_at, difference_at, shared_tokens
from reason.evals.statistics.intervals import Interval
from reason.evals.statistics.outcomes import Outcomes
from reason.evals.statistics.paired import (
    claim_status,
    compare_paired,
    detectable_difference,
    exact_sign_test,
    holm,
    items_needed,
    newcombe,
    sign_flip_test,
)
from reason.evals.summary import latency
from scipy import stats
from support.paired_outcomes import exact_probabilities, of, pairs

EXACT = {"rel": 0, "abs": 1e-9}


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (3, 9), (12, 12), (0, 20), (40, 17)])
def test_mcnemar_is_statsmodels(b, c):
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    if b + c:
        theirs = tables.mcnemar([[5, b], [c, 7]], exact=True).pvalue
        assert exact_sign_test(b, c) == pytest.approx(min(1.0, float(theirs)), **EXACT)
    else:
        assert exact_sign_test(b, c) == 1.0


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        ((36, 12, 2, 0), 0.0569, 0.3404),  # Newcombe 1998
        ((14, 5, 0, 22), 0.011, 0.226),  # Altman et al. 2000, "Statistics with Confidence", page 52
        ((1, 1, 7, 12), -0.507, -0.026),  # Fagerland, Lydersen and Laake 2014
        ((59, 6, 16, 80), -0.1186, -0.0046),  # Fagerland, Lydersen and Laake 2017, chapter 8
    ],
)
def test_the_score_interval_has_the_published_ends(table, low, high):
    ends = newcombe(*table)
    digits = 4 if len(str(low).lstrip("-")) == 6 else 3
    assert (round(ends.low, digits), round(ends.high, digits)) == (low, high)
    assert compare_paired(*pairs(*table)).interval == ends


@pytest.mark.parametrize("both", range(37))
def test_four_wins_without_a_loss_among_forty_are_not_shown(both):
    """The percentile bootstrap gave [+2.5, +20.0] for them."""
    result = compare_paired(*pairs(both, 4, 0, 36 - both))
    assert result.p == 0.125
    assert result.status() == "not shown"
    assert result.interval is not None
    assert result.interval.low < 0.03


def test_shown_needs_the_adjusted_test_and_the_interval():
    result = compare_paired(*pairs(20, 10, 0, 10))
    assert (result.test, result.p, result.status(), result.status(0.06)) == (
        "McNemar exact", 2 / 2**10, "shown", "not shown",
    )  # fmt: skip
    assert compare_paired(*pairs(20, 0, 10, 10)).status() == "refuted"
    assert claim_status(0.1, Interval(-0.01, 0.2, "t"), 0.01) == "not shown"
    assert claim_status(0.1, None, 0.01) == "not shown"


@pytest.mark.parametrize("rate", [0.02, 0.25])
def test_without_a_difference_hardly_more_than_one_table_in_twenty_is_shown_or_refuted(rate):
    """All tables of 30 items; the items that agree are half right, half wrong."""
    false = 0.0
    for b, c, chance in exact_probabilities(30, rate, rate):
        both = (30 - b - c) // 2
        result = newcombe(both, b, c, 30 - b - c - both)
        false += chance * (claim_status((b - c) / 30, result, exact_sign_test(b, c)) != "not shown")
    assert false <= 0.05


@pytest.mark.parametrize(("wins", "losses"), [(0.1, 0.1), (0.3, 0.1)])
def test_the_score_interval_covers_the_difference(wins, losses):
    """All tables of 30 items, agreeing items half right: coverage of a nominal 95% interval, by enumeration."""
    covered = 0.0
    for b, c, chance in exact_probabilities(30, wins, losses):
        both = (30 - b - c) // 2
        ends = newcombe(both, b, c, 30 - b - c - both)
        covered += chance * (ends.low <= wins - losses <= ends.high)
    assert covered > 0.93


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_sign_flips_are_all_flips(sums):
    observed = abs(sum(sums))
    flips = [abs(sum(s * x for s, x in zip(signs, sums, strict=True))) for signs in product((1, -1), repeat=len(sums))]
    p, exact = sign_flip_test(np.array(sums, dtype=float) / 3)
    assert exact
    assert p == pytest.approx(sum(f >= observed for f in flips) / len(flips), **EXACT)


@given(st.integers(0, 60), st.integers(0, 60))
def test_sign_flips_of_right_and_wrong_are_mcnemar_s_test(wins, losses):
    p, exact = sign_flip_test(np.array([1.0] * wins + [-1.0] * losses + [0.0] * 5))
    assert exact
    assert p == pytest.approx(exact_sign_test(wins, losses), **EXACT)


def test_sampled_sign_flips_come_close_to_the_exact_ones_and_are_never_zero():
    sums = np.sqrt(np.arange(1, 31)) * np.where(np.arange(30) % 3, 1, -1)
    p, exact = sign_flip_test(sums)
    assert not exact
    assert sign_flip_test(sums) == (p, exact)
    assert p == pytest.approx(2 * stats.norm.sf(abs(sums.sum()) / np.sqrt((sums**2).sum())), abs=0.01)
    assert sign_flip_test(np.sqrt(np.arange(1, 31)))[0] == 1 / 100_001


def test_several_seeds_are_tested_by_sign_flips_of_items():
    a = Outcomes.of({f"i{i}": {0: 1, 1: i % 2} for i in range(6)})
    b = Outcomes.of({f"i{i}": {0: 0, 1: 0} for i in range(6)})
    result = compare_paired(a, b)
    assert (result.test, result.seeds, result.clusters) == ("sign-flip exact", 2, 6)
    assert result.p == pytest.approx(2 / 2**6, **EXACT)
    assert result.interval is not None
    assert result.interval.method == "t"


def test_clusters_flip_together():
    """Eight wins of two questions' variants are two clusters, not eight items."""
    groups = {f"i{i}": f"g{i // 4}" for i in range(8)}
    a = Outcomes.of({name: {0: 1} for name in groups}, groups)
    b = Outcomes.of({name: {0: 0} for name in groups}, groups)
    result = compare_paired(a, b)
    assert (result.items, result.clusters, result.p, result.test) == (8, 2, 0.5, "sign-flip exact")
    assert compare_paired(*pairs(0, 8, 0, 0)).p == 2 / 2**8


def test_compare_by_hand():
    result = compare_paired(of([1, 1, 1, 0, 0]), of([1, 0, 0, 0, 1]))
    d = np.array([0, 1, 1, 0, -1.0])
    assert (result.wins, result.losses, result.both, result.neither, result.other) == (2, 1, 1, 1, 0)
    assert result.difference == pytest.approx(0.2, **EXACT)
    assert result.se == pytest.approx(float(stats.sem(d)), **EXACT)
    assert result.interval == newcombe(1, 2, 1, 1)
    assert result.p == 1.0
    assert result.detectable == detectable_difference(result.se)
    halves = compare_paired(of([1, 1, 0.5, 0, 0]), of([1, 0, 0, 0, 1]))
    theirs = stats.ttest_1samp([0, 1, 0.5, 0, -1], 0).confidence_interval(0.95)
    assert (halves.interval.low, halves.interval.high) == pytest.approx((theirs.low, theirs.high), **EXACT)


def test_every_kind_of_item_is_counted():
    """Under two seeds each: 5 won, 4 lost, 3 right and 2 wrong throughout, 1 as often right as wrong in both."""
    kinds = [(1, 0)] * 3 + [(1, 0.5)] * 2 + [(0.5, 1)] * 4 + [(1, 1)] * 3 + [(0, 0)] * 2 + [(0.5, 0.5)]

    def run(rates: list[float]) -> Outcomes:
        return Outcomes.of({f"i{i}": {0: float(rate > 0), 1: float(rate == 1)} for i, rate in enumerate(rates)})

    result = compare_paired(run([a for a, _ in kinds]), run([b for _, b in kinds]))
    assert (result.items, result.wins, result.losses, result.both, result.neither, result.other) == (15, 5, 4, 3, 2, 1)


def test_only_shared_items_count():
    a = Outcomes.of({"x": {0: 1}, "y": {0: 0}, "z": {0: 1}})
    b = Outcomes.of({"z": {0: 0}, "y": {0: 0}, "w": {0: 1}})
    result = compare_paired(a, b)
    assert (result.items, result.wins, result.neither) == (2, 1, 1)
    with pytest.raises(UserError, match="in common"):
        compare_paired(a, Outcomes.of({"q": {0: 1}}))


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=2, max_size=20), st.randoms())
def test_swapping_negates_and_order_does_not_matter(pairs, random):
    a, b = of([x for x, _ in pairs]), of([y for _, y in pairs])
    forth, back = compare_paired(a, b), compare_paired(b, a)
    assert forth.difference == pytest.approx(-back.difference, **EXACT)
    assert (forth.wins, forth.losses) == (back.losses, back.wins)
    assert forth.p == pytest.approx(back.p, **EXACT)
    assert (forth.interval.low, forth.interval.high) == pytest.approx(
        (-back.interval.high, -back.interval.low), **EXACT
    )
    assert (forth.detectable is None) == (len({x - y for x, y in pairs}) == 1)
    names = random.sample(a.ids, len(a.ids))
    again = compare_paired(a.only(names), b)
    assert (again.difference, again.se) == pytest.approx((forth.difference, forth.se), **EXACT)


@pytest.mark.parametrize("scores", [[1, 1, 1, 1], [0, 1, 0, 1]])
def test_equal_differences_are_not_estimable(scores):
    """Four items on which two runs agree do not show that they always do: an interval of no width would say so."""
    for other in (scores, [1 - x for x in scores] if scores == [1] * 4 else scores):
        result = compare_paired(of(scores), of(other))
        assert result.se == pytest.approx(0, **EXACT)
        assert result.detectable is None
        assert result.difference == scores[0] - other[0]
        assert result.interval.low < result.difference < result.interval.high or abs(result.difference) == 1
        doubled = [Outcomes.of({str(i): {0: y, 1: y} for i, y in enumerate(run)}) for run in (scores, other)]
        assert compare_paired(*doubled).interval is None


def test_detectable_difference():
    """The usual 2.8 standard errors: 1.959964 + 0.841621."""
    assert detectable_difference(0.05) == pytest.approx(0.05 * 2.8015852181, **EXACT)
    assert items_needed(0.05, 100, detectable_difference(0.05)) == 100
    assert items_needed(0.05, 100, detectable_difference(0.05) / 2) == 400
    assert items_needed(0.05, 100, -detectable_difference(0.05) / 2) == 400
    assert items_needed(1.0, 100, 1.0) == items_needed(1.0, 100, -1.0) == 785  # 2.8015852 squared
    with pytest.raises(UserError, match="a difference of 0"):
        items_needed(0.05, 100, 0.0)


def test_latency():
    assert latency([]) is None
    result = latency([4.0, 1.0, 3.0, 2.0])
    assert result is not None
    assert (result.p50, result.p95, result.n) == pytest.approx((2.5, 3.85, 4), **EXACT)


def curve(name: str, accuracy: list[float], tokens: list[float], items: int = 6) -> TokenCurve:
    """A curve whose items do not vary: its band has no width."""
    return TokenCurve(name, np.tile(accuracy, (items, 1)).astype(float), np.tile(tokens, (items, 1)).astype(float))


def test_accuracy_at_equal_tokens_by_hand():
    sc = curve("sc", [0.2, 0.4, 0.8], [100, 200, 800])
    ((at100, at400, beyond),) = accuracy_at([sc], np.arange(6), [100, 400, 900], resamples=50)
    assert astuple(at100) == pytest.approx((100, 0.2, 0.2, 0.2), **EXACT)
    assert astuple(at400) == pytest.approx((400, 0.6, 0.6, 0.6), **EXACT)  # half-way in the logarithm
    assert beyond is None


def test_difference_at_equal_tokens():
    a, b = curve("a", [0.2, 0.8], [100, 400]), curve("b", [0.1, 0.3], [50, 800])
    result = difference_at(a, b, np.arange(6), 200, resamples=50)
    assert astuple(result) == pytest.approx((200, 0.3, 0.3, 0.3), **EXACT)
    assert difference_at(a, b, np.arange(6), 500) is None


def test_the_band_holds_items_and_pairing():
    rng = np.random.default_rng(0)
    hard = rng.random(40)
    accuracy = (hard[:, None] < np.array([0.3, 0.5, 0.7])).astype(float)
    tokens = rng.integers(50, 150, (40, 3)) * np.array([1.0, 2.0, 4.0])
    one, same = TokenCurve("one", accuracy, tokens), TokenCurve("same", accuracy, tokens)
    ((at,),) = accuracy_at([one], np.arange(40), [250.0], resamples=500)
    assert at.low < at.value < at.high
    zero = difference_at(one, same, np.arange(40), 250.0, resamples=500)
    assert astuple(zero) == pytest.approx((250.0, 0, 0, 0), **EXACT)  # the same items: no doubt at all


def test_at_a_measured_point_it_is_the_bootstrap():
    from reason.evals.statistics.intervals import bootstrap

    rng = np.random.default_rng(2)
    accuracy = rng.integers(0, 2, (30, 1)).astype(float)
    one = TokenCurve("one", accuracy, np.full((30, 1), 64.0))
    ((at,),) = accuracy_at([one], np.arange(30), [64.0], resamples=400, seed=9)
    plain = bootstrap(accuracy[:, 0], np.arange(30), resamples=400, seed=9)
    assert (at.low, at.high) == pytest.approx((plain.low, plain.high), **EXACT)


def test_where_curves_meet():
    a, b = curve("a", [0.2, 0.8], [100, 400]), curve("b", [0.1, 0.3], [200, 800])
    assert shared_tokens([a, b], 3) == pytest.approx([200, np.sqrt(200 * 400), 400], **EXACT)
    assert shared_tokens([a, curve("c", [0.1], [50])]) == []
    assert shared_tokens([curve("c", [0.1], [50])]) == [50.0]


def test_curves_of_other_items_are_refused():
    with pytest.raises(UserError, match="same items"):
        accuracy_at([curve("a", [0.1], [10], items=3)], np.arange(4), [10])
    with pytest.raises(UserError, match="without tokens"):
        accuracy_at([curve("a", [0.1], [0])], np.arange(6), [10])


def test_holm_by_hand():
    """0.01 · 4, 0.013 · 3 raised to 0.04, 0.014 · 2 raised to 0.04, 0.19 · 1."""
    assert holm([0.19, 0.01, 0.014, 0.013]) == pytest.approx([0.19, 0.04, 0.04, 0.04])


@given(st.lists(st.floats(0, 1), max_size=12), st.randoms())
def test_adjusted_values_keep_the_order_and_reject_no_more_than_the_raw_ones(ps, random):
    adjusted = holm(ps)
    assert all(p <= q <= 1 for p, q in zip(ps, adjusted, strict=True))
    by_size = sorted(range(len(ps)), key=ps.__getitem__)
    assert [adjusted[i] for i in by_size] == sorted(adjusted)
    if ps:
        assert adjusted[by_size[0]] == min(1.0, len(ps) * ps[by_size[0]])  # Bonferroni's
    order = random.sample(range(len(ps)), len(ps))
    assert holm([ps[i] for i in order]) == pytest.approx([adjusted[i] for i in order])
