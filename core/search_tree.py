"""The search trees of a run, reconstructed from its events.

`NodesSearched` adds nodes, `SearchEnded` ends the search of its name. Searches of different names may overlap; those of
one name follow each other. A trace may be incomplete: a search without an end, unknown parents, parents in a cycle. All
of that yields a tree; nothing here recurses, and everything takes linear time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from .events import Event, NodesSearched, RunStarted, SearchEnded, SearchNode


@dataclass(frozen=True, slots=True)
class SearchTree:
    """One search.

    Attributes:
        search: Name of its method.
        number: Its number among the run's searches, from 1, by their starts.
        nodes: The nodes by id with their latest values, in the order of their first events.
        parents: Parent of each node; None for a root and for an orphan.
        children: Children of each inner node, in the order of their first events.
        roots: Nodes without a parent, orphans included, in the order of their first events.
        orphans: Roots that name a parent which is unknown or descends from them.
        expanded: Nodes that were continued, in order, once per continuation.
        discarded: Continuations that became no node.
        stopped: Why it ended; None if there is no end.
        chosen: The node whose solution it returned; None if there is none. It may be unknown.
        chosen_path: The known nodes from a root to the chosen one.
        cost: Its cost, as of its end.
    """

    search: str
    number: int
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
        """The partial solution of a node, as one text."""
        return "".join(self.nodes[i].text for i in self.path(node_id))

    def walk(self) -> Iterator[tuple[int, int]]:
        """Each node and its distance from its root, a node before its children, siblings in order."""
        stack = [(root, 0) for root in reversed(self.roots)]
        while stack:
            node_id, level = stack.pop()
            yield node_id, level
            stack.extend((child, level + 1) for child in reversed(self.children.get(node_id, ())))

    def expansions(self) -> dict[int, tuple[int, ...]]:
        """When each expanded node was continued: its positions in `expanded`, from 1."""
        positions: dict[int, list[int]] = defaultdict(list)
        for position, node_id in enumerate(self.expanded, 1):
            positions[node_id].append(position)
        return {node_id: tuple(each) for node_id, each in positions.items()}


def search_trees(events: Iterable[Event]) -> list[SearchTree]:
    """The searches of a run, in the order of their starts.

    A resumed run repeats its searches from their beginning: then the k-th search of a name replaces the former k-th.
    A search that is not repeated stays as it was.

    Args:
        events: The run's events, in order; those not about a search are ignored.
    """
    builders: dict[tuple[str, int], _TreeBuilder] = {}
    num_started: dict[str, int] = defaultdict(int)
    running: dict[str, _TreeBuilder] = {}
    for event in events:
        if isinstance(event, RunStarted):
            num_started.clear()
            running.clear()
        elif isinstance(event, (NodesSearched, SearchEnded)):
            builder = running.get(event.search)
            if builder is None:
                builder = running[event.search] = builders[event.search, num_started[event.search]] = _TreeBuilder()
                num_started[event.search] += 1
            if isinstance(event, NodesSearched):
                builder.add(event)
            else:
                builder.end = event
                del running[event.search]
    return [builder.build(name, number) for number, ((name, _), builder) in enumerate(builders.items(), 1)]


@dataclass(slots=True)
class _TreeBuilder:
    nodes: dict[int, SearchNode] = field(default_factory=dict)
    expanded: list[int] = field(default_factory=list)
    discarded: int = 0
    end: SearchEnded | None = None

    def add(self, event: NodesSearched) -> None:
        self.expanded += event.expanded
        self.discarded += event.discarded
        for node in event.nodes:
            self.nodes[node.id] = node  # a repeated node keeps its position

    def build(self, search: str, number: int) -> SearchTree:
        parents = _acyclic_parents(self.nodes)
        children: dict[int, list[int]] = defaultdict(list)
        for node_id, parent in parents.items():
            if parent is not None:
                children[parent].append(node_id)
        roots = tuple(node_id for node_id, parent in parents.items() if parent is None)
        chosen = None if self.end is None else self.end.chosen
        return SearchTree(
            search=search,
            number=number,
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


def _acyclic_parents(nodes: Mapping[int, SearchNode]) -> dict[int, int | None]:
    """Parents such that each node leads up to a root: unknown parents are dropped, and cycles are cut."""
    parents = {node_id: node.parent if node.parent in nodes else None for node_id, node in nodes.items()}
    reaches_root: set[int] = set()
    for node_id in nodes:
        visited: set[int] = set()
        at: int | None = node_id
        while at is not None and at not in reaches_root:
            if at in visited:
                parents[at] = None
                break
            visited.add(at)
            at = parents[at]
        reaches_root |= visited
    return parents


def _path(parents: Mapping[int, int | None], node_id: int | None) -> tuple[int, ...]:
    reversed_path = []
    while node_id is not None:
        reversed_path.append(node_id)
        node_id = parents[node_id]
    return tuple(reversed(reversed_path))
