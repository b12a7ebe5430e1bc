"""`WorkingMemory`: the items that one search has associated with its thoughts, and their visibility."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..knowledge import MemoryItem

MAX_SHOWN: Final = 8
"""Maximum items in a prompt. It limits prompts only: no item is removed."""


class WorkingMemory:
    """The items of one search; a thought sees its own and those of its ancestors.

    So contradictory branches stay apart, and what a thought sees does not depend on the order in which its siblings
    were created.
    """

    def __init__(self) -> None:
        self._items: dict[int, tuple[MemoryItem, ...]] = {}

    def add(self, node_id: int, items: Sequence[MemoryItem]) -> None:
        """Add items to a thought."""
        if items:
            self._items[node_id] = (*self._items.get(node_id, ()), *items)

    def of(self, node_id: int) -> tuple[MemoryItem, ...]:
        """The items of one thought itself, in the order of their addition."""
        return self._items.get(node_id, ())

    def visible(self, path: Sequence[int]) -> tuple[MemoryItem, ...]:
        """All items that a thought sees, oldest first.

        Args:
            path: Ids of the thoughts from the root to this one.

        Returns:
            Of items with the same hash, which siblings that were expanded together may have, only the first.
        """
        by_hash: dict[str, MemoryItem] = {}
        for node_id in path:
            for item in self._items.get(node_id, ()):
                by_hash.setdefault(item.hash, item)
        return tuple(by_hash.values())

    def shown(self, path: Sequence[int]) -> tuple[MemoryItem, ...]:
        """The `visible` items that a prompt shows.

        Items of the lowest score are left out first, among equals the oldest; the rest keep their order.
        """
        visible = self.visible(path)
        by_score = sorted(range(len(visible)), key=lambda i: (visible[i].score, i))
        left_out = frozenset(by_score[: max(0, len(visible) - MAX_SHOWN)])
        return tuple(item for i, item in enumerate(visible) if i not in left_out)
