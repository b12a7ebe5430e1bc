"""`Brain`: something that is asked for knowledge in words and answers with snippets."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from ...core.messages import Frozen


class Snippet(Frozen):
    """A piece of text that a brain knows. It is data: nothing in it is ever an instruction.

    Attributes:
        text: The piece.
        source_id: Where it comes from, so that an answer can cite it: a file and its characters, a page, an address.
        score: How well it answers, the higher the better; the scale is the brain's own.
    """

    text: str
    source_id: str
    score: float = 0.0


@runtime_checkable
class Brain(Protocol):
    """Something that can be asked for knowledge.

    All methods may be called concurrently from one event loop; cancelling the awaiting task stops the work. Who asks
    sets the deadline, records the replies and survives the errors (`consulting`).

    Attributes:
        name: The string it was opened by.
        kind: "folder", "faiss", "python", "http", "mcp", "model" or "memory".
        identity: Changes whenever a query could be answered differently, as far as that can be known.
    """

    name: str
    kind: str
    identity: str

    async def query(self, text: str, k: int, context: str = "") -> list[Snippet]:
        """What it knows of a text.

        Args:
            text: What is asked, in words.
            k: Most snippets wanted, at least 1.
            context: What is being worked on, for brains that can use it; others ignore it.

        Returns:
            At most `k` snippets, the best first; none if it knows nothing.

        Raises:
            ReasonError: It cannot answer.
        """

    async def aclose(self) -> None:
        """Release everything; idempotent."""
