"""`WorkingMemory`: the items that one search has associated with its thoughts, and their visibility."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from ...core.errors import UserError
from ..knowledge import MemoryItem

Scope = Literal["path", "tree"]
"""Visible items of a thought: its own and its ancestors', or all."""


class WorkingMemory:
    """The items of one search.

    Scope `path` keeps contradictory branches apart, and what a thought sees does not depend on the order in which its
    siblings were created. With `tree` it does.

    Args:
        scope: Which items are visible to a thought.
        max_shown: Maximum items in a prompt. It limits prompts only: no item is removed.

    Raises:
        UserError: A parameter is not allowed.
    """

    def __init__(self, scope: Scope = "path", max_shown: int = 8) -> None:
        if scope not in get_args(Scope):
            raise UserError(f"scope must be 'path' or 'tree', got {scope!r}")
        if max_shown < 0:
            raise UserError(f"max_shown must not be negative, got {max_shown}")
        self.scope: Scope = scope
        self.max_shown = max_shown
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
            With scope "path" the items of these, in their order; with "tree" the items of all thoughts, by id. Of items
            with the same hash, which siblings that were expanded together may have, only the first.
        """
        nodes = path if self.scope == "path" else sorted(self._items)
        by_hash: dict[str, MemoryItem] = {}
        for node_id in nodes:
            for item in self._items.get(node_id, ()):
                by_hash.setdefault(item.hash, item)
        return tuple(by_hash.values())

    def shown(self, path: Sequence[int]) -> tuple[MemoryItem, ...]:
        """The `visible` items that a prompt shows.

        Items of the lowest score are left out first, among equals the oldest; the rest keep their order.
        """
        visible = self.visible(path)
        by_score = sorted(range(len(visible)), key=lambda i: (visible[i].score, i))
        left_out = frozenset(by_score[: max(0, len(visible) - self.max_shown)])
        return tuple(item for i, item in enumerate(visible) if i not in left_out)
