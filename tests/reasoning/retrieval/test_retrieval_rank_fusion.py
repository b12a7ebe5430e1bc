"""Reciprocal-rank fusion against the sum that the paper writes, and its order."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.reasoning.retrieval.rank_fusion import fuse_rankings

RANKINGS = st.lists(st.lists(st.integers(0, 8), unique=True, max_size=9), max_size=5)


def test_worked_values():
    fused = fuse_rankings([["a", "b", "c"], ["c", "a"]])
    assert [item for item, _ in fused] == ["a", "c", "b"]
    assert [score for _, score in fused] == pytest.approx([1 / 61 + 1 / 62, 1 / 63 + 1 / 61, 1 / 62])
    assert fuse_rankings([]) == fuse_rankings([[], []]) == []
    assert fuse_rankings([["x", "y"]], k=0) == [("x", 1.0), ("y", 0.5)]


def test_equal_scores_go_by_the_best_place_and_then_by_the_order_of_the_rankings():
    assert [i for i, _ in fuse_rankings([["a", "b"], ["b", "a"]])] == ["a", "b"]
    assert [i for i, _ in fuse_rankings([["b"], ["a"]])] == ["b", "a"]
    # with k = 0, twice second and once first are the same sum
    assert fuse_rankings([["x", "a"], ["y", "a"]], k=0)[:3] == [("x", 1.0), ("y", 1.0), ("a", 1.0)]


def test_an_item_that_a_ranking_has_twice_counts_at_its_better_place():
    assert fuse_rankings([["a", "b", "a", "c"]]) == fuse_rankings([["a", "b", "c"]])


@given(RANKINGS)
def test_it_is_the_sum_over_the_rankings(rankings):
    fused = fuse_rankings(rankings)
    exact = {
        item: sum((Fraction(1, 61 + r.index(item)) for r in rankings if item in r), Fraction())
        for item in {i for r in rankings for i in r}
    }
    assert {item for item, _ in fused} == exact.keys()
    assert len(fused) == len(exact)
    for item, score in fused:
        assert score == pytest.approx(float(exact[item]), abs=1e-15)
    scores = [score for _, score in fused]
    assert scores == sorted(scores, reverse=True)
