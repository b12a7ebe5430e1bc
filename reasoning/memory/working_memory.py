"""`MemoryItem`: one piece of associated knowledge, with where it comes from.

`WorkingMemory`: the items of one search, and who sees which of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, TypeAdapter, ValidationError

from ...core.errors import DataError, UserError
from ...core.messages import Frozen

SELF_SOURCE = "self"
"""Source kind of what the model associated by itself."""


class MemoryItem(Frozen):
    """A piece of knowledge that was associated with a thought.

    Attributes:
        text: The knowledge.
        source_id: Where it comes from, so that an answer can cite it; empty for the model's own.
        source_kind: "self", or the kind of the brain that gave it.
        query: What the brain was asked; empty for the model's own.
        node_id: The thought that it was associated with.
        hash: Of its normal form (`duplicates.text_hash`).
        score: How relevant it is, in [0, 1] where it is known; decides what is dropped first.
        tokens: Its length.
    """

    text: str
    source_id: str = ""
    source_kind: str = SELF_SOURCE
    query: str = ""
    node_id: int = -1
    hash: str
    score: float = 0.0
    tokens: Annotated[int, Field(ge=0)] = 0


Scope = Literal["path", "tree"]
"""Whose items a thought sees: its own and its ancestors', or all."""

_ITEMS = TypeAdapter(tuple[MemoryItem, ...])


class WorkingMemory:
    """The items of one search; a pure value in memory with a JSON form.

    `path` keeps branches that contradict each other apart, and what a thought sees does not depend on the order in
    which its siblings came. With `tree` it does.

    Args:
        scope: Whose items a thought sees.
        shown: Most items in a prompt, at least 0. It bounds prompts alone: nothing is forgotten.

    Raises:
        UserError: A parameter is not allowed.
    """

    def __init__(self, scope: Scope = "path", shown: int = 8) -> None:
        if scope not in get_args(Scope):
            raise UserError(f"no scope of memory is called {scope!r}", hint="path or tree")
        if shown < 0:
            raise UserError(f"shown = {shown}: a prompt cannot have fewer than 0 items")
        self.scope: Scope = scope
        self.most_shown = shown
        self._items: dict[int, tuple[MemoryItem, ...]] = {}

    def add(self, node_id: int, items: Sequence[MemoryItem]) -> None:
        """Remember further items of a thought."""
        if items:
            self._items[node_id] = (*self._items.get(node_id, ()), *items)

    def of(self, node_id: int) -> tuple[MemoryItem, ...]:
        """The items of one thought itself, in the order they came."""
        return self._items.get(node_id, ())

    def known(self, path: Sequence[int]) -> tuple[MemoryItem, ...]:
        """All items that a thought sees, the oldest first.

        Args:
            path: The ids of the thoughts from the root to this one.

        Returns:
            With scope path the items of these, in their order; with tree the items of all thoughts, by id. Of items
            with the same hash, as siblings may have that were expanded together, the first alone.
        """
        nodes = path if self.scope == "path" else sorted(self._items)
        once: dict[str, MemoryItem] = {}
        for node_id in nodes:
            for item in self._items.get(node_id, ()):
                once.setdefault(item.hash, item)
        return tuple(once.values())

    def shown(self, path: Sequence[int]) -> tuple[MemoryItem, ...]:
        """What a prompt for a thought shows: `known`, or so much of it as fits.

        Items of the lowest score are left out first, of equal score the oldest; the rest keep their order.
        """
        known = self.known(path)
        by_worth = sorted(range(len(known)), key=lambda i: (known[i].score, i))
        left_out = frozenset(by_worth[: max(0, len(known) - self.most_shown)])
        return tuple(item for i, item in enumerate(known) if i not in left_out)

    def to_json(self) -> dict[str, Any]:
        """The whole memory as plain JSON."""
        return {
            "scope": self.scope,
            "shown": self.most_shown,
            "items": [[node, _ITEMS.dump_python(items, mode="json")] for node, items in sorted(self._items.items())],
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> WorkingMemory:
        """The memory that `to_json` gave.

        Raises:
            DataError: This is none.
        """
        try:
            memory = cls(state["scope"], int(state["shown"]))
            for node, items in state["items"]:
                memory.add(int(node), _ITEMS.validate_python(items))
        except (UserError, KeyError, TypeError, ValueError, ValidationError) as e:
            raise DataError(f"this is no state of a working memory: {e}", hint="give what to_json gave") from e
        return memory
