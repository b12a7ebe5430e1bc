"""What events tell of a search: its nodes, and the knowledge that came into it."""

from __future__ import annotations

from pydantic import Field

from .messages import Frozen


class SearchNode(Frozen):
    """A node of a search tree: the beginning of a solution, of which it holds the last step.

    Attributes:
        id: Its number within the search, from 0.
        parent: The node that it continues; None for a root.
        depth: Steps up to here; 0 for a root.
        text: The last step; empty for a root.
        tokens: Tokens generated for this step.
        score: What the reward source says of the solution up to here, in [0, 1]; None if it says nothing.
        terminal: Whether the solution is complete.
        forced: Whether the step is a final answer asked for since steps or budget had run out.
        values: What the search orders its nodes by, under the names of its method.
    """

    id: int
    parent: int | None
    depth: int
    text: str = ""
    tokens: int = 0
    score: float | None = None
    terminal: bool = False
    forced: bool = False
    values: dict[str, float] = Field(default_factory=dict)


class AssociatedItem(Frozen):
    """A piece of knowledge that came into a search.

    Attributes:
        text: The knowledge.
        source_id: Where it comes from; empty for the model's own.
        source_kind: "self", or the kind of what was asked: "folder", "http", "memory", …
        score: How relevant it is.
    """

    text: str
    source_id: str = ""
    source_kind: str = "self"
    score: float = 0.0
