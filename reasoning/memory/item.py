"""`MemoryItem`: one piece of associated knowledge, with where it comes from."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ...core.messages import Frozen

SELF = "self"
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
    source_kind: str = SELF
    query: str = ""
    node_id: int = -1
    hash: str
    score: float = 0.0
    tokens: Annotated[int, Field(ge=0)] = 0
