"""Growing trees: contents of excerpts, counts of hidden nodes, cost of excerpts."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.cli.render.growing_tree import MIN_LINES, GrowingTree, TreeEvent, TreeExcerpt
from reason.cli.render.search_tree import layout_tree
from reason.core.events import Event, LeafSelected, MemoryAssociated, NodesSearched, SearchEnded, SearchNode
from support.mcts_events import noted_events
from support.step_search_events import search_events


def grown(*events: Event) -> GrowingTree:
    tree = GrowingTree()
    for event in events:
        assert isinstance(event, TreeEvent)
        tree.take(event)
    return tree


def told(*parents: int | None, **fields: Any) -> NodesSearched:
    """Nodes 0, 1, … that continue `parents`."""
    return NodesSearched(
        search="s", nodes=tuple(SearchNode(id=i, parent=p, depth=0, **fields) for i, p in enumerate(parents))
    )


def selected(*path: int) -> LeafSelected:
    return LeafSelected(search="s", path=path)


def real(excerpt: TreeExcerpt) -> set[int]:
    """The nodes of an excerpt but its gaps."""
    return {node_id for node_id in excerpt.tree.nodes if node_id >= 0}


def test_small_tree_is_complete() -> None:
    excerpt = grown(*search_events(ended=False)).excerpt(24)
    assert real(excerpt) == set(range(24))
    assert (excerpt.num_hidden, excerpt.gaps, set(excerpt.hidden.values())) == (0, {}, {0})
    assert excerpt.best == 21  # of the complete ones the best scored
    assert excerpt.tree.chosen_path == (0, 1, 5, 10, 21)
    assert excerpt.active == {10}
    assert excerpt.expanded == {0, 1, 2, 5, 7, 10, 12}


def test_hidden_nodes_are_counted_at_their_parents() -> None:
    excerpt = grown(*search_events(ended=False)).excerpt(9)
    assert excerpt.num_hidden == 24 - 9
    assert real(excerpt) >= {0, 1, 5, 10, 21}
    assert real(excerpt) >= {22, 23}  # beside the leaf that was continued last
    assert sum(excerpt.hidden.values()) == 15


def test_last_reported_statistics_win_and_notes_precede_nodes() -> None:
    events = noted_events()
    excerpt = grown(*events[:4]).excerpt(MIN_LINES)
    assert excerpt.tree.nodes[0].values == {"V": 0.55, "N": 2}
    assert (excerpt.notes, excerpt.best, excerpt.active) == ({1: 2}, 1, {0})
    excerpt = grown(*events[:5]).excerpt(MIN_LINES)
    assert excerpt.active == {1}
    excerpt = grown(*events).excerpt(MIN_LINES)
    assert excerpt.tree.nodes[0].values == {"V": 0.625, "N": 4}
    assert (excerpt.best, excerpt.active, excerpt.tree.chosen_path) == (3, set(), (0, 1, 3))
    assert excerpt.tree.stopped == "expansions"


def test_leaves_of_a_batch_are_active_until_others_are_selected() -> None:
    tree = grown(told(None, 0, 0, 0), selected(0, 1), selected(0, 2))
    assert tree.excerpt(MIN_LINES).active == {1, 2}
    tree.take(NodesSearched(search="s", expanded=(1, 2)))
    assert tree.excerpt(MIN_LINES).active == {1, 2}
    tree.take(selected(0, 3))
    assert tree.excerpt(MIN_LINES).active == {3}


def test_best_node_is_complete_then_by_reward_then_by_score() -> None:
    def node(node_id: int, score: float | None, *, terminal: bool = False, **values: float) -> SearchNode:
        return SearchNode(id=node_id, parent=None, depth=0, score=score, terminal=terminal, values=values)

    tree = grown(NodesSearched(search="s", nodes=(node(0, None), node(1, 0.9), node(2, 0.9), node(3, float("nan")))))
    assert tree.excerpt(MIN_LINES).best == 1
    tree.take(NodesSearched(search="s", nodes=(node(4, 0.2, terminal=True), node(5, None, terminal=True))))
    assert tree.excerpt(MIN_LINES).best == 4
    tree.take(NodesSearched(search="s", nodes=(node(6, 0.1, terminal=True, reward=0.7), node(7, 0.6, terminal=True))))
    assert tree.excerpt(MIN_LINES).best == 6
    tree.take(NodesSearched(search="s", nodes=(node(6, 0.1, terminal=True, reward=0.3),)))
    assert tree.excerpt(MIN_LINES).best == 7  # told again as worse than another
    tree.take(SearchEnded(search="s", chosen=4))
    assert tree.excerpt(MIN_LINES).best == 4


def test_node_without_a_known_parent_stays_a_root() -> None:
    lost, own = SearchNode(id=1, parent=9, depth=3), SearchNode(id=2, parent=2, depth=1)
    tree = grown(NodesSearched(search="s", nodes=(lost, own)))
    tree.take(NodesSearched(search="s", nodes=(SearchNode(id=9, parent=1, depth=1), lost)))
    excerpt = tree.excerpt(MIN_LINES)
    assert excerpt.tree.parents == {1: None, 2: None, 9: 1}
    assert excerpt.tree.orphans == {1, 2}


def test_long_paths_have_gaps_in_their_middles() -> None:
    # two chains below the root: 1 … 99, whose end is at work, and 100 … 199, whose end is the best
    parents = [None, *range(99), 0, *range(100, 199)]
    best = SearchNode(id=199, parent=198, depth=99, score=0.9)
    tree = grown(told(*parents), NodesSearched(search="s", nodes=(best,)), selected(*range(100)))
    excerpt = tree.excerpt(10)
    # seven lines for the paths' ends with their gaps, three for what lies around: here the paths' beginnings
    ends, beginnings = {0: None, 98: -1, 99: 98, 198: -2, 199: 198}, {1: 0, 2: 1, 100: 0}
    assert excerpt.tree.parents == {**ends, **beginnings, -1: 2, -2: 100}
    assert excerpt.gaps == {-1: 95, -2: 97}
    assert {i: n for i, n in excerpt.hidden.items() if n} == {2: 95, 100: 97}
    assert excerpt.num_hidden == 95 + 97
    assert excerpt.tree.chosen_path == (0, 100, -2, 198, 199)


@st.composite
def histories(draw: st.DrawFn, most: int = 60) -> tuple[list[int | None], list[TreeEvent]]:
    """Parents of nodes 0, 1, …, and the events that tell them."""
    n = draw(st.integers(1, most))
    parents: list[int | None] = [None]
    for i in range(1, n):
        reach = draw(st.sampled_from([1, 2, 5, most]))  # from chains to bushes
        root = draw(st.integers(0, 19)) == 0
        parents.append(None if root else draw(st.integers(max(0, i - reach), i - 1)))
    events: list[TreeEvent] = []
    at = 0
    while at < n:
        end = draw(st.integers(at + 1, n))
        scored = draw(st.none() | st.integers(at, end - 1))
        nodes = tuple(
            SearchNode(id=i, parent=parents[i], depth=0, score=0.5 + i / 1000 if i == scored else None)
            for i in range(at, end)
        )
        expanded = draw(st.sampled_from([(), (at - 1,)])) if at else ()
        events.append(NodesSearched(search="s", nodes=nodes, expanded=expanded))
        at = end
    if draw(st.booleans()):
        events.append(selected(draw(st.integers(0, n))))  # its last node may be unknown
    if draw(st.booleans()):
        events.append(SearchEnded(search="s", chosen=draw(st.none() | st.integers(0, n))))
    return parents, events


def up(parents: list[int | None], node_id: int) -> list[int]:
    """A node and those above it."""
    path, at = [], parents[node_id] if node_id < len(parents) else None
    if node_id < len(parents):
        path = [node_id]
    while at is not None:
        path.append(at)
        at = parents[at]
    return path


@given(histories(), st.integers(MIN_LINES, 40))
def test_excerpt_is_part_of_the_tree_and_counts_the_rest(
    history: tuple[list[int | None], list[TreeEvent]], room: int
) -> None:
    parents, events = history
    excerpt = grown(*events).excerpt(room)
    shown, tree = real(excerpt), excerpt.tree
    assert len(tree.nodes) <= room
    assert sorted(line.node_id for line in layout_tree(tree, set(tree.nodes))) == sorted(tree.nodes)
    if len(parents) <= room:
        assert shown == set(range(len(parents)))
    # each stands below the select_nodes shown node above it, with a gap between if there is more between
    for node_id in shown:
        above = up(parents, node_id)[1:]
        between = next((n for n, i in enumerate(above) if i in shown), None)
        rendered = tree.parents[node_id]
        if between is None:
            assert not above
            assert rendered is None
        elif between == 0:
            assert rendered == above[0]
        else:
            assert rendered is not None
            assert rendered < 0
            assert excerpt.gaps[rendered] == between >= 2
            assert tree.parents[rendered] == above[between]
    # what is left out is counted at the select_nodes shown node above it
    counted = dict.fromkeys(shown, 0)
    apart = 0
    for node_id in set(range(len(parents))) - shown:
        select_nodes = next((i for i in up(parents, node_id) if i in shown), None)
        if select_nodes is None:
            apart += 1
        else:
            counted[select_nodes] += 1
    assert excerpt.hidden == counted
    assert excerpt.num_hidden == sum(counted.values()) + apart
    # the paths that matter
    ends = [excerpt.best, *excerpt.active]
    paths = [up(parents, i) for i in ends if i is not None and i < len(parents)]
    if len(paths) == 2 or (len(paths) == 1 and len(excerpt.active) < 2):
        for path in paths:
            assert {path[0], path[-1]} <= shown
        if len(set().union(*paths)) <= room:
            assert set().union(*paths) <= shown
    if excerpt.best is not None and excerpt.best < len(parents):
        assert [i for i in tree.chosen_path if i >= 0] == [i for i in reversed(up(parents, excerpt.best)) if i in shown]


def lines_run(work: Callable[[], object]) -> int:
    """Lines of Python that some work runs through; not those of finalizers that a collection meanwhile would run."""
    count = 0

    def trace(_frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before, collecting = sys.gettrace(), gc.isenabled()
    gc.disable()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
        if collecting:
            gc.enable()
    return count


def shapes(n: int) -> dict[str, list[int | None]]:
    """Trees of n nodes that are as deep and as wide as can be, and both."""
    return {
        "chain": [None, *range(n - 1)],
        "star": [None, *[0] * (n - 1)],
        "comb": [None, *(max(0, 2 * ((i - 1) // 2) - 1) for i in range(1, n))],
        "forest": [None] * n,
    }


@pytest.mark.parametrize("shape", shapes(2))
def test_excerpt_cost_is_independent_of_tree_size(shape: str) -> None:
    costs = []
    for n in (201, 2001):
        parents = shapes(n)[shape]
        best = SearchNode(id=n - 1, parent=parents[-1], depth=0, score=0.9)
        tree = grown(told(*parents), NodesSearched(search="s", nodes=(best,)), selected(n // 2))
        assert len(tree.excerpt(20).tree.nodes) <= 20
        costs.append(lines_run(lambda tree=tree: tree.excerpt(20)))
    assert costs[0] == costs[1]


def test_notes_of_the_same_node_add_up() -> None:
    (first, *_) = [event for event in noted_events() if isinstance(event, MemoryAssociated)]
    tree = grown(first, first)
    assert tree.excerpt(MIN_LINES).tree.nodes == {}
    tree.take(told(None, 0))
    assert tree.excerpt(MIN_LINES).notes == {1: 4}
