"""A search tree while it grows: what is known of it, and as much of it as there is room for.

An event costs what it tells and the paths of what it tells. What is shown costs what is shown, however large the tree
has become. No terminal here: `live_tree` draws it, the tests check it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count, pairwise, zip_longest
from threading import RLock

from ...core.events import LeafSelected, MemoryAssociated, NodesSearched, SearchEnded, SearchNode
from ...core.search_tree import SearchTree

LEAST_ROOM = 6
"""Lines that a tree needs: two paths, each with a gap in it."""

TreeEvent = LeafSelected | MemoryAssociated | NodesSearched | SearchEnded
"""What tells of a search."""


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A part of a tree.

    Attributes:
        tree: The nodes shown, as a tree of its own. A node of an id below 0 is a gap: steps left out between the node
            above it and the one below it. Its chosen path is that to the best node.
        left_out: How many nodes are left out below each node that is shown, those of its gaps included.
        gaps: How many steps each gap stands for.
        at_work: Those that were continued last, or are just being continued.
        best: The best node so far; when the search has ended, the chosen one.
        expanded: Those that were continued.
        notes: Pieces of knowledge associated with each node.
        missing: All nodes that are left out.
    """

    tree: SearchTree
    left_out: Mapping[int, int]
    gaps: Mapping[int, int]
    at_work: frozenset[int]
    best: int | None
    expanded: frozenset[int]
    notes: Mapping[int, int]
    missing: int


class GrowingTree:
    """One search's tree, event by event; another thread may ask for excerpts meanwhile.

    A node stays below the one that it continued when it was first told; one whose parent was not told is a root.

    Attributes:
        version: Grows with every event that may change an excerpt.
    """

    def __init__(self) -> None:
        self.version = 0
        self._lock = RLock()
        self._nodes: dict[int, SearchNode] = {}
        self._parents: dict[int, int | None] = {}
        self._children: dict[int, list[int]] = {}
        self._roots: list[int] = []
        self._levels: dict[int, int] = {}
        self._sizes: dict[int, int] = {}
        self._notes: dict[int, int] = {}
        self._expanded: set[int] = set()
        self._at_work: list[int] = []
        self._choosing = False
        self._best: int | None = None
        self._end: SearchEnded | None = None
        self._focus_path: tuple[int, ...] = ()
        self._best_path: tuple[int, ...] = ()

    def take(self, event: TreeEvent) -> None:
        """Move on by one event of this search."""
        with self._lock:
            match event:
                case LeafSelected():
                    if not self._choosing:
                        self._at_work = []
                    self._choosing = True
                    self._at_work += event.path[-1:]
                case MemoryAssociated():  # it comes before the node itself does
                    self._notes[event.node] = self._notes.get(event.node, 0) + len(event.items)
                case NodesSearched():
                    self._grow(event)
                case SearchEnded():
                    self._end, self._at_work = event, []
                    if event.chosen is not None:
                        self._best = event.chosen
            self._focus_path = self._path(next((i for i in reversed(self._at_work) if i in self._nodes), None))
            self._best_path = self._path(self._best)
            self.version += 1

    def excerpt(self, room: int) -> Excerpt:
        """As much as fits.

        The paths to the node at work and to the best one are always there; where they are too long, with gaps in their
        middles. Then come their neighbours, from the leaf at work upwards, the better scored first.

        Args:
            room: Most lines, a node or gap each; at least `LEAST_ROOM`.
        """
        with self._lock:
            paths = [path for path in (self._focus_path, self._best_path) if path]
            shown = dict.fromkeys(node_id for path in paths for node_id in (path[0], path[-1]))
            whole = dict.fromkeys(chain.from_iterable(path[-room:] for path in paths))
            if all(len(path) <= room for path in paths) and len(whole) <= room:
                shown = whole
            else:  # a third of the room is for what grows around
                for node_id in _alternating(path[-room:] for path in paths):
                    if len(shown) + (node_id not in shown) + len(self._gaps(paths, shown)) > room - room // 3:
                        break
                    shown[node_id] = None
            left = room - len(shown) - len(self._gaps(paths, shown))
            for node_id in self._around(paths, shown, room):
                if left <= 0:
                    break
                shown[node_id] = None
                left -= 1
            for _, lower, steps in self._gaps(paths, shown):
                parent = self._parents[lower]
                if steps == 1 and parent is not None:  # as long as its gap
                    shown[parent] = None
            return self._cut_out(shown, self._gaps(paths, shown))

    # -- growing

    def _grow(self, event: NodesSearched) -> None:
        self._choosing = False
        self._expanded.update(event.expanded)
        if event.expanded:
            self._at_work = list(event.expanded)
        doubtful = False
        for node in event.nodes:
            if node.id not in self._nodes:
                self._add(node)
            elif node.id == self._best and _worth(node) < _worth(self._nodes[node.id]):
                doubtful = True
            self._nodes[node.id] = node
        scored = [node.id for node in event.nodes if _worth(node)[1] > -math.inf]
        if doubtful:
            scored = [node.id for node in self._nodes.values() if _worth(node)[1] > -math.inf]
        rivals = scored if doubtful or self._best is None else [self._best, *scored]
        self._best = max(rivals, key=lambda i: _worth(self._nodes[i]), default=None)  # of equals the first

    def _add(self, node: SearchNode) -> None:
        self._nodes[node.id] = node
        parent = node.parent if node.parent in self._parents else None
        self._parents[node.id] = parent
        self._sizes[node.id] = 1
        self._levels[node.id] = 0 if parent is None else self._levels[parent] + 1
        (self._roots if parent is None else self._children.setdefault(parent, [])).append(node.id)
        while parent is not None:
            self._sizes[parent] += 1
            parent = self._parents[parent]

    def _path(self, node_id: int | None) -> tuple[int, ...]:
        if node_id is None or node_id not in self._nodes:
            return ()
        path = [node_id]
        while (parent := self._parents[path[-1]]) is not None:
            path.append(parent)
        return tuple(reversed(path))

    # -- showing

    def _around(self, paths: Sequence[Sequence[int]], shown: Mapping[int, None], room: int) -> Iterator[int]:
        """Nodes beside the paths in the order in which they should be shown; none before the one that it continues."""
        waiting = [node_id for path in paths for node_id in reversed(path[-room:]) if node_id in shown]
        waiting += [path[0] for path in paths]
        roots = self._roots[-room:]
        done: set[int] = set()
        while waiting or roots:
            if not waiting:  # all that is below the paths' roots is there: other starts follow
                yield from (root for root in roots if root not in shown)
                waiting, roots = roots, []
            layer: list[int] = []
            for node_id in waiting:
                if node_id not in done:
                    done.add(node_id)
                    new = [i for i in self._children.get(node_id, ())[-room:] if i not in shown and i not in done]
                    new.sort(key=lambda i: (*_worth(self._nodes[i]), -i), reverse=True)
                    layer += new
                    yield from new
            waiting = layer

    def _gaps(self, paths: Iterable[Sequence[int]], shown: Mapping[int, None]) -> set[tuple[int, int, int]]:
        """Where steps of a path are left out: the shown node above, the one below, and how many steps lie between."""
        return {
            (upper, lower, self._levels[lower] - self._levels[upper] - 1)
            for path in paths
            for upper, lower in pairwise(self._along(path, shown))
            if self._levels[lower] - self._levels[upper] > 1
        }

    def _along(self, path: Sequence[int], shown: Iterable[int]) -> list[int]:
        """Those of a path that are shown, in order; a node's place in a path is its level."""
        here = [i for i in shown if self._levels[i] < len(path) and path[self._levels[i]] == i]
        return sorted(here, key=self._levels.__getitem__)

    def _cut_out(self, shown: Mapping[int, None], gaps: Iterable[tuple[int, int, int]]) -> Excerpt:
        numbered = dict(zip(count(-1, -1), sorted(gaps), strict=False))
        places = sorted(shown, key=lambda i: (self._levels[i], i))  # siblings as they were told
        nodes = {node_id: self._nodes[node_id] for node_id in places}
        above: dict[int, int | None] = {node_id: self._parents[node_id] for node_id in nodes}
        left_out = {node_id: self._sizes[node_id] - 1 for node_id in nodes}
        for gap, (upper, lower, _) in numbered.items():
            nodes[gap] = SearchNode(id=gap, parent=upper, depth=self._levels[upper] + 1)
            above[gap], above[lower] = upper, gap
            left_out[upper] -= self._sizes[lower]
        children: dict[int, list[int]] = {}
        for node_id, parent in above.items():
            if parent is not None:
                children.setdefault(parent, []).append(node_id)
                if parent >= 0 and node_id >= 0:
                    left_out[parent] -= self._sizes[node_id]
        roots = tuple(node_id for node_id, parent in above.items() if parent is None)
        lowers = {lower: gap for gap, (_, lower, _) in numbered.items()}
        best_path = self._along(self._best_path, shown)
        tree = SearchTree(
            search="",
            place=1,
            nodes=nodes,
            parents=above,
            children={node_id: tuple(below) for node_id, below in children.items()},
            roots=roots,
            orphans=frozenset(root for root in roots if nodes[root].parent is not None),
            expanded=(),
            discarded=0,
            stopped=None if self._end is None else self._end.stopped,
            chosen=None if self._end is None else self._end.chosen,
            chosen_path=tuple(chain.from_iterable((lowers[i], i) if i in lowers else (i,) for i in best_path)),
            cost={},
        )
        return Excerpt(
            tree=tree,
            left_out=left_out,
            gaps={gap: steps for gap, (_, _, steps) in numbered.items()},
            at_work=frozenset(self._at_work),
            best=self._best,
            expanded=frozenset(nodes) & self._expanded,
            notes={node_id: self._notes[node_id] for node_id in nodes if self._notes.get(node_id)},
            missing=len(self._nodes) - len(shown),
        )


def _alternating(paths: Iterable[Sequence[int]]) -> Iterator[int]:
    """The nodes of the paths from their ends upwards, one of each in turn."""
    for together in zip_longest(*(reversed(path) for path in paths)):
        yield from (node_id for node_id in together if node_id is not None)


def _worth(node: SearchNode) -> tuple[bool, float]:
    """What a node is compared by: a complete solution by its reward where it has one, else by its score."""
    score = node.values.get("reward", node.score) if node.terminal else node.score
    return node.terminal, -math.inf if score is None or math.isnan(score) else score
