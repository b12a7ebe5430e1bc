"""What knowledge was associated with the nodes of a run's searches, put together from its events."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from ..core.events import AssociatedItem, EventFields, MemoryAssociated, NodesSearched, RunStarted, SearchEnded
from ..core.search_tree import SearchTree

Notes = Mapping[int, tuple[AssociatedItem, ...]]
"""Pieces of knowledge by the node that they came with; a node without any is not in it."""

OWN = "the model itself"
"""Source of a piece that the model knew."""


def search_notes(events: Iterable[EventFields], trees: Sequence[SearchTree]) -> list[Notes]:
    """The notes of each tree.

    Searches of a name follow each other as in `core.search_tree.search_trees`: an end closes one, and a run that goes
    on tells them again from the first. Notes of a search of which no node and no end was told belong to none.

    Args:
        events: The run's events, in order.
        trees: What `search_trees` makes of them.
    """
    found: dict[tuple[str, int], dict[int, tuple[AssociatedItem, ...]]] = {}
    ended: dict[str, int] = defaultdict(int)
    still_open: dict[str, dict[int, tuple[AssociatedItem, ...]]] = {}
    for event in events:
        if isinstance(event, RunStarted):
            ended.clear()
            still_open.clear()
        elif isinstance(event, (MemoryAssociated, NodesSearched, SearchEnded)):
            notes = still_open.setdefault(event.search, {})
            if isinstance(event, MemoryAssociated):  # it comes before the node itself does
                if event.items:
                    notes[event.node] = notes.get(event.node, ()) + event.items
                continue
            found[event.search, ended[event.search]] = notes
            if isinstance(event, SearchEnded):
                ended[event.search] += 1
                del still_open[event.search]
    place: dict[str, int] = defaultdict(int)
    ordered: list[Notes] = []
    for tree in trees:
        ordered.append(found.get((tree.search, place[tree.search]), {}))
        place[tree.search] += 1
    return ordered


def source_of(item: AssociatedItem) -> str:
    """Where a piece comes from, for people to read."""
    return item.source_id or (OWN if item.source_kind == "self" else item.source_kind)
