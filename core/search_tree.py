"""The trees that a run's searches grew, put together from its events.

`NodesSearched` tells nodes, `SearchEnded` closes the search of its name. Searches of different names may overlap; those
of one name follow each other. The trace may be incomplete: a search without an end, nodes whose parents were never
told, parents that lead in a circle. All of that gives a tree; nothing here recurses, and all of it takes linear time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from .events import Event, NodesSearched, RunStarted, SearchEnded, SearchNode


@dataclass(frozen=True, slots=True)
class SearchTree:
    """What one search has found.

    Attributes:
        search: Name of its method.
        place: Its place among the run's searches, from 1, by when they began.
        nodes: The nodes by id, as last told, in the order in which they were first told.
        parents: Parent of each node; None for a root and for an orphan.
        children: Children of each node that has some, in the order in which they were first told.
        roots: Nodes without a parent, orphans included, in the order in which they were first told.
        orphans: Roots that name a parent which was never told, or which descends from them.
        expanded: Nodes that were continued, in order; a node as often as it was.
        discarded: Continuations that became no node.
        stopped: Why it ended; None while no end is told.
        chosen: The node whose solution it returned; None if none was, or no end is told. It may be one never told.
        chosen_path: The known nodes from a root to the chosen one.
        cost: What it has cost, as told at its end.
    """

    search: str
    place: int
    nodes: Mapping[int, SearchNode]
    parents: Mapping[int, int | None]
    children: Mapping[int, tuple[int, ...]]
    roots: tuple[int, ...]
    orphans: frozenset[int]
    expanded: tuple[int, ...]
    discarded: int
    stopped: str | None
    chosen: int | None
    chosen_path: tuple[int, ...]
    cost: Mapping[str, int]

    def path(self, node_id: int) -> tuple[int, ...]:
        """The nodes from a root to this one."""
        return _path(self.parents, node_id)

    def text(self, node_id: int) -> str:
        """The solution up to a node, as one text."""
        return "".join(self.nodes[i].text for i in self.path(node_id))

    def walk(self) -> Iterator[tuple[int, int]]:
        """Each node and its distance from its root, a node before its children, siblings in order."""
        waiting = [(root, 0) for root in reversed(self.roots)]
        while waiting:
            node_id, level = waiting.pop()
            yield node_id, level
            waiting.extend((child, level + 1) for child in reversed(self.children.get(node_id, ())))

    def turns(self) -> dict[int, tuple[int, ...]]:
        """When each expanded node was continued: its places in `expanded`, from 1."""
        found: dict[int, list[int]] = defaultdict(list)
        for turn, node_id in enumerate(self.expanded, 1):
            found[node_id].append(turn)
        return {node_id: tuple(turns) for node_id, turns in found.items()}


def search_trees(events: Iterable[Event]) -> list[SearchTree]:
    """The searches of a run, in the order in which they began.

    A run that goes on after an interruption tells its searches again from their beginning: the k-th search of a name
    then takes the place of the k-th before. One that is not told again stays as it was.

    Args:
        events: The run's events, in order; those that tell nothing of a search are passed over.

    Returns:
        The trees; empty where nothing was searched.
    """
    found: dict[tuple[str, int], _Told] = {}
    begun: dict[str, int] = defaultdict(int)
    still_open: dict[str, _Told] = {}
    for event in events:
        if isinstance(event, RunStarted):
            begun.clear()
            still_open.clear()
        elif isinstance(event, (NodesSearched, SearchEnded)):
            told = still_open.get(event.search)
            if told is None:
                told = still_open[event.search] = found[event.search, begun[event.search]] = _Told()
                begun[event.search] += 1
            if isinstance(event, NodesSearched):
                told.take(event)
            else:
                told.end = event
                del still_open[event.search]
    return [told.tree(name, place) for place, ((name, _), told) in enumerate(found.items(), 1)]


@dataclass(slots=True)
class _Told:
    """What the events have told of one search so far."""

    nodes: dict[int, SearchNode] = field(default_factory=dict)
    expanded: list[int] = field(default_factory=list)
    discarded: int = 0
    end: SearchEnded | None = None

    def take(self, event: NodesSearched) -> None:
        self.expanded += event.expanded
        self.discarded += event.discarded
        for node in event.nodes:
            self.nodes[node.id] = node  # one told again keeps its place

    def tree(self, search: str, place: int) -> SearchTree:
        parents = _parents(self.nodes)
        children: dict[int, list[int]] = defaultdict(list)
        for node_id, parent in parents.items():
            if parent is not None:
                children[parent].append(node_id)
        roots = tuple(node_id for node_id, parent in parents.items() if parent is None)
        chosen = None if self.end is None else self.end.chosen
        return SearchTree(
            search=search,
            place=place,
            nodes=self.nodes,
            parents=parents,
            children={node_id: tuple(below) for node_id, below in children.items()},
            roots=roots,
            orphans=frozenset(node_id for node_id in roots if self.nodes[node_id].parent is not None),
            expanded=tuple(self.expanded),
            discarded=self.discarded,
            stopped=None if self.end is None else self.end.stopped,
            chosen=chosen,
            chosen_path=_path(parents, chosen) if chosen in parents else (),
            cost={} if self.end is None else dict(self.end.cost),
        )


def _parents(nodes: Mapping[int, SearchNode]) -> dict[int, int | None]:
    """Parents such that each node leads up to a root: unknown ones are left away, and circles are cut."""
    parents = {node_id: node.parent if node.parent in nodes else None for node_id, node in nodes.items()}
    leads_up: set[int] = set()
    for node_id in nodes:
        way: set[int] = set()
        at: int | None = node_id
        while at is not None and at not in leads_up:
            if at in way:
                parents[at] = None
                break
            way.add(at)
            at = parents[at]
        leads_up |= way
    return parents


def _path(parents: Mapping[int, int | None], node_id: int | None) -> tuple[int, ...]:
    backwards = []
    while node_id is not None:
        backwards.append(node_id)
        node_id = parents[node_id]
    return tuple(reversed(backwards))
