"""Trees from events: whatever a trace lacks, and however deep it is."""

from __future__ import annotations

from hypothesis import given
from reason.core.events import Degraded, Event, NodesSearched, RunStarted, SearchEnded, SearchNode
from reason.core.search_tree import SearchTree, search_trees
from reason.core.types import Question
from support.search_tree_strategies import any_parents, grown_trees, tree_of
from support.step_search_events import search_events


def told(search: str, *nodes: tuple[int, int | None], expanded: tuple[int, ...] = (), text: str = "") -> NodesSearched:
    made = tuple(SearchNode(id=i, parent=parent, depth=0, text=text) for i, parent in nodes)
    return NodesSearched(search=search, nodes=made, expanded=expanded, discarded=1)


def begun(resumed: bool = False) -> RunStarted:
    return RunStarted(question=Question(text="?"), strategy="s", models={}, seed=1, resumed=resumed)


def test_a_search_tree_is_reconstructed() -> None:
    (tree,) = search_trees([Degraded(what="no part of it"), *search_events()])
    assert (tree.search, tree.number, tree.stopped, tree.chosen) == ("best-first", 1, "done", 21)
    assert list(tree.nodes) == list(range(24))
    assert tree.roots == (0,)
    assert tree.orphans == frozenset()
    assert tree.children[0] == (1, 2, 3, 4)
    assert tree.chosen_path == tree.path(21) == (0, 1, 5, 10, 21)
    assert tree.text(5) == tree.nodes[1].text + tree.nodes[5].text
    assert tree.expanded == (0, 1, 5, 2, 7, 12, 10)
    assert tree.expansions()[12] == (6,)
    assert tree.discarded == 6 - 1
    assert tree.cost["prm_passes"] == 23


def test_a_search_without_an_end_has_no_outcome() -> None:
    (tree,) = search_trees(search_events(ended=False))
    assert (tree.stopped, tree.chosen, tree.chosen_path, dict(tree.cost)) == (None, None, (), {})
    assert len(tree.nodes) == 24


def test_events_without_a_search_give_no_tree() -> None:
    assert search_trees([]) == []
    assert search_trees([begun(), Degraded(what="x")]) == []


def test_an_end_ends_the_search_of_its_name() -> None:
    trees = search_trees(
        [
            told("a", (0, None)),
            told("b", (0, None), (1, 0)),
            told("a", (1, 0)),
            SearchEnded(search="a", chosen=1),
            told("a", (0, None)),
            SearchEnded(search="b", stopped="exhausted"),
            SearchEnded(search="c", stopped="budget"),
        ]
    )
    assert [(t.search, t.number, len(t.nodes), t.stopped) for t in trees] == [
        ("a", 1, 2, "done"),
        ("b", 2, 2, "exhausted"),
        ("a", 3, 1, None),
        ("c", 4, 0, "budget"),
    ]


def test_a_repeated_node_replaces_the_former_at_its_position() -> None:
    again = SearchNode(id=1, parent=0, depth=1, values={"visits": 2})
    events = [
        told("m", (0, None), (1, 0), (2, 0), expanded=(0,)),
        NodesSearched(search="m", nodes=(again,), expanded=(0,)),
    ]
    (tree,) = search_trees(events)
    assert tree.nodes[1] is again
    assert tree.children[0] == (1, 2)
    assert tree.expansions() == {0: (1, 2)}


def test_a_resumed_run_repeats_its_searches() -> None:
    first: list[Event] = [
        begun(),
        told("a", (0, None), expanded=(0,)),
        SearchEnded(search="a"),
        told("a", (7, None)),
    ]
    again: list[Event] = [begun(resumed=True), told("a", (0, None), expanded=(0,)), SearchEnded(search="a")]
    whole = search_trees([*first, *again, told("a", (0, None), (1, 0)), told("b", (3, None))])
    assert [(t.search, t.number, list(t.nodes)) for t in whole] == [("a", 1, [0]), ("a", 2, [0, 1]), ("b", 3, [3])]
    assert whole[0].expanded == (0,)  # once, not twice
    half = search_trees([*first, begun(resumed=True)])  # it was not told again
    assert [list(t.nodes) for t in half] == [[0], [7]]


def test_unknown_parents_make_orphans() -> None:
    tree = tree_of([None, 0, 9, 2], chosen=9)
    assert tree.roots == (0, 2)
    assert tree.orphans == {2}
    assert tree.parents[2] is None
    assert tree.path(3) == (2, 3)
    assert (tree.chosen, tree.chosen_path) == (9, ())


def test_a_deep_chain_does_not_recurse() -> None:
    tree = tree_of([None, *range(49_999)], chosen=49_999)
    assert tree.chosen_path == tuple(range(50_000))
    assert list(tree.walk()) == [(i, i) for i in range(50_000)]


def check(tree: SearchTree) -> None:
    walked = [node_id for node_id, _ in tree.walk()]
    assert sorted(walked) == sorted(tree.nodes) == sorted(tree.parents)
    levels = dict(tree.walk())
    for node_id, parent in tree.parents.items():
        assert levels[node_id] == (0 if parent is None else levels[parent] + 1)
        assert parent is None or walked.index(parent) < walked.index(node_id)
        path = tree.path(node_id)
        assert len(path) == levels[node_id] + 1
        assert path[0] in tree.roots
    assert {n for below in tree.children.values() for n in below} | set(tree.roots) == set(tree.nodes)


@given(any_parents())
def test_every_node_leads_up_to_a_root(parents: list[int | None]) -> None:
    tree = tree_of(parents)
    check(tree)
    for node_id, named in enumerate(parents):
        assert tree.parents[node_id] == named or node_id in tree.orphans
        if named is not None and named not in tree.nodes:
            assert node_id in tree.orphans
    # of each circle one node is cut loose, and no more
    unknown = {i for i, named in enumerate(parents) if named is not None and named >= len(parents)}
    assert len(tree.orphans - unknown) == circles(parents)


def circles(parents: list[int | None]) -> int:
    found = set()
    for start in range(len(parents)):
        at: int | None = start
        for _ in parents:
            at = parents[at] if at is not None and at < len(parents) else None
        if at is not None and at < len(parents):
            circle = {at}
            while (at := parents[at]) not in circle:  # type: ignore[index]
                circle.add(at)
            found.add(min(circle))
    return len(found)


@given(grown_trees())
def test_a_reconstructed_tree_has_every_reported_node(tree: SearchTree) -> None:
    check(tree)
    assert tree.orphans == frozenset()
    assert all(tree.parents[n.id] == n.parent for n in tree.nodes.values())
