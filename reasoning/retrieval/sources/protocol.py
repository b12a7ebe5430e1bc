"""`KnowledgeSource`: something that is asked for knowledge in words and answers with snippets.

What brains answer, read with suspicion: whatever they are, what comes back is text of bounded size, or an error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from ....core.errors import InvalidResponse
from ....core.messages import Frozen


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
class KnowledgeSource(Protocol):
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


MAX_SNIPPETS = 100
"""Most snippets of one reply that are looked at."""

MAX_CHARS = 20_000
"""Most characters of a snippet's text; what is longer is cut."""

MAX_SOURCE_CHARS = 1000
"""Most characters of a source's name."""


def valid_snippets(snippets: Sequence[Snippet]) -> list[Snippet]:
    """Snippets that can be stored and shown: bounded in number and size, valid Unicode, none empty, finite scores."""
    kept: list[Snippet] = []
    for snippet in snippets[:MAX_SNIPPETS]:
        text = valid_text(snippet.text, MAX_CHARS)
        if text.strip():
            score = snippet.score if math.isfinite(snippet.score) else 0.0
            source = valid_text(snippet.source_id, MAX_SOURCE_CHARS)
            kept.append(Snippet(text=text, source_id=source, score=score))
    return kept


def valid_text(text: str, most: int) -> str:
    """The beginning of a text, without halves of surrogate pairs, which no file or database takes."""
    return text[:most].encode("utf-8", "replace").decode()


def parse_snippets(found: Any, where: str) -> list[Snippet]:
    """Snippets out of what a program of somebody else's gave.

    Args:
        found: A list, or an object whose field `snippets` is one. Its members: a `Snippet`; a text; a pair of text and
            source; an object with `text` and optionally `source_id` and `score`.
        where: Who gave it: the source of snippets that name none, and the name that errors have.

    Raises:
        BadReply: It is something else.
    """
    if isinstance(found, dict) and "snippets" in found:
        found = found["snippets"]
    if found is None:
        return []
    if isinstance(found, str | bytes | dict) or not hasattr(found, "__iter__"):
        raise _bad(where, f"it gave {type(found).__name__} instead of a list of snippets")
    return valid_snippets([_read(member, where) for _, member in zip(range(MAX_SNIPPETS), found, strict=False)])


def _read(member: Any, where: str) -> Snippet:
    if isinstance(member, Snippet):
        return member
    if isinstance(member, str):
        return Snippet(text=member, source_id=where)
    if isinstance(member, tuple | list) and len(member) == 2 and all(isinstance(part, str) for part in member):
        return Snippet(text=member[0], source_id=member[1])
    if not isinstance(member, dict):
        raise _bad(where, f"a snippet is {type(member).__name__}")
    text, source, score = member.get("text"), member.get("source_id"), member.get("score")
    if not isinstance(text, str):
        raise _bad(where, "a snippet has no text")
    if source is not None and not isinstance(source, str | int):
        raise _bad(where, f"the source_id of a snippet is {type(source).__name__}")
    if score is not None and (isinstance(score, bool) or not isinstance(score, int | float)):
        raise _bad(where, f"the score of a snippet is {type(score).__name__}")
    try:
        number = 0.0 if score is None else float(score)
    except OverflowError:
        number = 0.0
    return Snippet(text=text, source_id=where if source in (None, "") else str(source), score=number)


def _bad(where: str, why: str) -> InvalidResponse:
    return InvalidResponse(
        f"{where}: {why}", hint='a reply is {"snippets": [{"text": "…", "source_id": "…", "score": 0.5}, …]}'
    )
