"""Search trees of every shape, as Hypothesis draws them: also such as no search could have grown."""

from __future__ import annotations

from hypothesis import strategies as st
from reason.core.events import NodesSearched, SearchEnded, SearchNode
from reason.core.search_tree import SearchTree, search_trees


def tree_of(parents: list[int | None], chosen: int | None = None, **fields: object) -> SearchTree:
    """The tree whose node i continues `parents[i]`."""
    nodes = []
    for i, parent in enumerate(parents):
        depth = 0 if parent is None else 1 + (nodes[parent].depth if parent < i else 0)
        nodes.append(SearchNode(id=i, parent=parent, depth=depth, text=f"s{i} ", **fields))  # type: ignore[arg-type]
    (tree,) = search_trees([NodesSearched(search="s", nodes=tuple(nodes)), SearchEnded(search="s", chosen=chosen)])
    return tree


@st.composite
def grown_trees(draw: st.DrawFn, most: int = 40) -> SearchTree:
    """Trees in which each node follows the one it continues; with several roots, and a chosen node or none."""
    n = draw(st.integers(1, most))
    parents: list[int | None] = [None]
    for i in range(1, n):
        reach = draw(st.sampled_from([1, 2, 5, most]))  # from chains to bushes
        root = draw(st.integers(0, 19)) == 0
        parents.append(None if root else draw(st.integers(max(0, i - reach), i - 1)))
    return tree_of(parents, draw(st.none() | st.integers(0, n - 1)))


def any_parents(most: int = 12) -> st.SearchStrategy[list[int | None]]:
    """What each of some nodes names as its parent: an earlier or later one, itself, one never told, none."""
    return st.integers(1, most).flatmap(lambda n: st.lists(st.none() | st.integers(0, n + 1), min_size=n, max_size=n))
