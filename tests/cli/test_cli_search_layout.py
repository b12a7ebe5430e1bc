"""Where nodes lie: apart, in order, parents in the middle, in time that grows with the tree alone."""

from __future__ import annotations

import random
from collections import defaultdict
from itertools import pairwise

import pytest
from any_search import any_parents, grown_trees, tree_of
from hypothesis import given
from reason.cli import search_layout
from reason.cli.search_layout import extent, tidy
from reason.core.search_tree import SearchTree


def check(tree: SearchTree) -> None:
    spots = tidy(tree)
    assert set(spots) == set(tree.nodes)
    layers: dict[int, list[float]] = defaultdict(list)
    for node_id, level in tree.walk():  # from left to right within a layer
        assert spots[node_id].layer == level
        layers[level].append(spots[node_id].x)
    for xs in layers.values():
        assert all(right - left >= 1 - 1e-6 for left, right in pairwise(xs))
    for parent, below in tree.children.items():
        assert spots[parent].x == pytest.approx((spots[below[0]].x + spots[below[-1]].x) / 2, abs=1e-6)
    assert min(spot.x for spot in spots.values()) == 0
    assert extent(spots)[1] == max(layers)


@given(grown_trees())
def test_no_two_nodes_overlap(tree: SearchTree) -> None:
    check(tree)


@given(any_parents())
def test_a_broken_trace_is_laid_out_too(parents: list[int | None]) -> None:
    check(tree_of(parents))


def test_small_trees_are_as_narrow_as_can_be() -> None:
    assert tidy(tree_of([None])) == {0: (0, 0)}
    assert [spot.x for spot in tidy(tree_of([None, 0, 0])).values()] == [0.5, 0, 1]
    # two subtrees of three leaves each, and a leaf that is spread evenly between them
    spots = tidy(tree_of([None, 0, 0, 0, 1, 1, 1, 3, 3, 3]))
    assert [spots[i].x for i in (1, 2, 3)] == [1, 2.5, 4]
    assert extent(spots) == (5, 2)


def test_a_subtree_tucks_in_under_a_shallow_sibling() -> None:
    spots = tidy(tree_of([None, 0, 0, 2, 2, 2]))
    assert [spots[i].x for i in range(6)] == [0.5, 0, 1, 0, 1, 2]


def test_nothing_is_laid_out() -> None:
    assert extent({}) == (0, 0)


@pytest.mark.parametrize("shape", ["chain", "comb", "random", "wide", "roots"])
def test_five_thousand_nodes_take_linear_work_and_no_recursion(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    n = 5000
    rng = random.Random(7)
    parents: dict[str, list[int | None]] = {
        "chain": [None, *range(n - 1)],
        "comb": [None, *(i - 1 if i % 2 else max(0, i - 2) for i in range(1, n))],
        "random": [None, *(rng.randrange(max(0, i - 40), i) for i in range(1, n))],
        "wide": [None, *([0] * (n - 1))],
        "roots": [None] * n,
    }
    steps = [0]
    for name in ("_leftmost", "_rightmost"):
        inner = getattr(search_layout._Sheet, name)

        def counted(self: object, place: int, inner: object = inner) -> object:
            steps[0] += 1
            return inner(self, place)  # type: ignore[operator]

        monkeypatch.setattr(search_layout._Sheet, name, counted)
    tree = tree_of(parents[shape])
    check(tree)
    assert steps[0] <= 8 * n
