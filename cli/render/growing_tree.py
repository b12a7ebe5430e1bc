"""A search tree that grows with the events of a search, and excerpts of it that fit into a number of lines.

The cost of an event is proportional to its nodes and their paths, the cost of an excerpt to its lines, whatever the
size of the tree. `live_tree` draws the excerpts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count, pairwise, zip_longest
from threading import RLock

from ...core.events import LeafSelected, MemoryAssociated, NodesSearched, SearchEnded, SearchNode
from ...core.search_tree import SearchTree

MIN_LINES = 6
"""Minimum lines of an excerpt: two paths, each with a gap."""

TreeEvent = LeafSelected | MemoryAssociated | NodesSearched | SearchEnded
"""The events of a search."""


@dataclass(frozen=True, slots=True)
class TreeExcerpt:
    """A part of a tree.

    Attributes:
        tree: The visible nodes as a tree. A node with a negative ID is a gap, which replaces hidden steps between its
            parent and its child. The chosen path leads to the best node.
        hidden: Number of hidden nodes below each visible node, including those of its gaps.
        gaps: Number of steps that each gap replaces.
        active: The nodes expanded last, or being expanded.
        best: The best node so far; after the end of the search, the chosen one.
        expanded: The expanded nodes.
        notes: Number of knowledge items associated with each node.
        num_hidden: Total number of hidden nodes.
    """

    tree: SearchTree
    hidden: Mapping[int, int]
    gaps: Mapping[int, int]
    active: frozenset[int]
    best: int | None
    expanded: frozenset[int]
    notes: Mapping[int, int]
    num_hidden: int


class GrowingTree:
    """The tree of one search, updated by events; excerpts may be taken from another thread.

    A node keeps the parent of its first report; a node whose parent was not reported is a root.

    Attributes:
        version: Increases with every event that may change an excerpt.
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
        self._active: list[int] = []
        self._is_selecting = False
        self._best: int | None = None
        self._end: SearchEnded | None = None
        self._focus_path: tuple[int, ...] = ()
        self._best_path: tuple[int, ...] = ()

    def take(self, event: TreeEvent) -> None:
        """Update from an event of this search."""
        with self._lock:
            match event:
                case LeafSelected():
                    if not self._is_selecting:
                        self._active = []
                    self._is_selecting = True
                    self._active += event.path[-1:]
                case MemoryAssociated():  # reported before the node itself
                    self._notes[event.node] = self._notes.get(event.node, 0) + len(event.items)
                case NodesSearched():
                    self._grow(event)
                case SearchEnded():
                    self._end, self._active = event, []
                    if event.chosen is not None:
                        self._best = event.chosen
            self._focus_path = self._path(next((i for i in reversed(self._active) if i in self._nodes), None))
            self._best_path = self._path(self._best)
            self.version += 1

    def excerpt(self, max_lines: int) -> TreeExcerpt:
        """The most relevant part of the tree.

        It contains the paths to the active node and to the best one, with gaps in their middles if they are too long;
        then their neighbours, from the active leaf upwards, by descending score.

        Args:
            max_lines: Maximum number of lines, one per node or gap; at least `MIN_LINES`.
        """
        with self._lock:
            paths = [path for path in (self._focus_path, self._best_path) if path]
            visible = dict.fromkeys(node_id for path in paths for node_id in (path[0], path[-1]))
            complete = dict.fromkeys(chain.from_iterable(path[-max_lines:] for path in paths))
            if all(len(path) <= max_lines for path in paths) and len(complete) <= max_lines:
                visible = complete
            else:  # a third of the lines is for neighbours
                for node_id in _alternating(path[-max_lines:] for path in paths):
                    if (
                        len(visible) + (node_id not in visible) + len(self._gaps(paths, visible))
                        > max_lines - max_lines // 3
                    ):
                        break
                    visible[node_id] = None
            left = max_lines - len(visible) - len(self._gaps(paths, visible))
            for node_id in self._around(paths, visible, max_lines):
                if left <= 0:
                    break
                visible[node_id] = None
                left -= 1
            for _, lower, steps in self._gaps(paths, visible):
                parent = self._parents[lower]
                if steps == 1 and parent is not None:  # a gap would need a line, too
                    visible[parent] = None
            return self._cut_out(visible, self._gaps(paths, visible))

    # -- growing

    def _grow(self, event: NodesSearched) -> None:
        self._is_selecting = False
        self._expanded.update(event.expanded)
        if event.expanded:
            self._active = list(event.expanded)
        best_lost_score = False
        for node in event.nodes:
            if node.id not in self._nodes:
                self._add(node)
            elif node.id == self._best and _sort_key(node) < _sort_key(self._nodes[node.id]):
                best_lost_score = True
            self._nodes[node.id] = node
        scored = [node.id for node in event.nodes if _sort_key(node)[1] > -math.inf]
        if best_lost_score:
            scored = [node.id for node in self._nodes.values() if _sort_key(node)[1] > -math.inf]
        candidates = scored if best_lost_score or self._best is None else [self._best, *scored]
        self._best = max(candidates, key=lambda i: _sort_key(self._nodes[i]), default=None)  # the first of equals

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

    def _around(self, paths: Sequence[Sequence[int]], visible: Mapping[int, None], max_lines: int) -> Iterator[int]:
        """Neighbours of the paths by priority, parents before children."""
        waiting = [node_id for path in paths for node_id in reversed(path[-max_lines:]) if node_id in visible]
        waiting += [path[0] for path in paths]
        roots = self._roots[-max_lines:]
        done: set[int] = set()
        while waiting or roots:
            if not waiting:  # everything below the roots of the paths is visible: other roots follow
                yield from (root for root in roots if root not in visible)
                waiting, roots = roots, []
            layer: list[int] = []
            for node_id in waiting:
                if node_id not in done:
                    done.add(node_id)
                    new = [
                        i for i in self._children.get(node_id, ())[-max_lines:] if i not in visible and i not in done
                    ]
                    new.sort(key=lambda i: (*_sort_key(self._nodes[i]), -i), reverse=True)
                    layer += new
                    yield from new
            waiting = layer

    def _gaps(self, paths: Iterable[Sequence[int]], visible: Mapping[int, None]) -> set[tuple[int, int, int]]:
        """The gaps of the paths: visible node above, visible node below, number of steps between them."""
        return {
            (upper, lower, self._levels[lower] - self._levels[upper] - 1)
            for path in paths
            for upper, lower in pairwise(self._along(path, visible))
            if self._levels[lower] - self._levels[upper] > 1
        }

    def _along(self, path: Sequence[int], visible: Iterable[int]) -> list[int]:
        """The visible nodes of a path, in order; a node's index in a path is its level."""
        here = [i for i in visible if self._levels[i] < len(path) and path[self._levels[i]] == i]
        return sorted(here, key=self._levels.__getitem__)

    def _cut_out(self, visible: Mapping[int, None], gaps: Iterable[tuple[int, int, int]]) -> TreeExcerpt:
        numbered_gaps = dict(zip(count(-1, -1), sorted(gaps), strict=False))
        ordered = sorted(visible, key=lambda i: (self._levels[i], i))  # siblings in the order of their report
        nodes = {node_id: self._nodes[node_id] for node_id in ordered}
        above: dict[int, int | None] = {node_id: self._parents[node_id] for node_id in nodes}
        hidden = {node_id: self._sizes[node_id] - 1 for node_id in nodes}
        for gap, (upper, lower, _) in numbered_gaps.items():
            nodes[gap] = SearchNode(id=gap, parent=upper, depth=self._levels[upper] + 1)
            above[gap], above[lower] = upper, gap
            hidden[upper] -= self._sizes[lower]
        children: dict[int, list[int]] = {}
        for node_id, parent in above.items():
            if parent is not None:
                children.setdefault(parent, []).append(node_id)
                if parent >= 0 and node_id >= 0:
                    hidden[parent] -= self._sizes[node_id]
        roots = tuple(node_id for node_id, parent in above.items() if parent is None)
        lowers = {lower: gap for gap, (_, lower, _) in numbered_gaps.items()}
        best_path = self._along(self._best_path, visible)
        tree = SearchTree(
            search="",
            number=1,
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
        return TreeExcerpt(
            tree=tree,
            hidden=hidden,
            gaps={gap: steps for gap, (_, _, steps) in numbered_gaps.items()},
            active=frozenset(self._active),
            best=self._best,
            expanded=frozenset(nodes) & self._expanded,
            notes={node_id: self._notes[node_id] for node_id in nodes if self._notes.get(node_id)},
            num_hidden=len(self._nodes) - len(visible),
        )


def _alternating(paths: Iterable[Sequence[int]]) -> Iterator[int]:
    """The nodes of the paths from their ends upwards, alternating between the paths."""
    for nodes in zip_longest(*(reversed(path) for path in paths)):
        yield from (node_id for node_id in nodes if node_id is not None)


def _sort_key(node: SearchNode) -> tuple[bool, float]:
    """The sort key of a node: complete solutions first, by reward if there is one, else by score."""
    score = node.values.get("reward", node.score) if node.terminal else node.score
    return node.terminal, -math.inf if score is None or math.isnan(score) else score
