"""Validation of the snippets of knowledge sources."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ....core.errors import InvalidResponse
from ...knowledge import Snippet

MAX_SNIPPETS = 100
"""Snippets of one response that are read."""
MAX_CHARS = 20_000
"""Characters of a snippet; longer texts are cut."""
MAX_SOURCE_CHARS = 1000


def valid_snippets(snippets: Sequence[Snippet]) -> list[Snippet]:
    """Snippets that can be stored and shown: limited number and size, valid Unicode, not empty, finite scores."""
    valid: list[Snippet] = []
    for snippet in snippets[:MAX_SNIPPETS]:
        text = valid_text(snippet.text, MAX_CHARS)
        if text.strip():
            score = snippet.score if math.isfinite(snippet.score) else 0.0
            source = valid_text(snippet.source_id, MAX_SOURCE_CHARS)
            valid.append(Snippet(text=text, source_id=source, score=score))
    return valid


def valid_text(text: str, max_chars: int) -> str:
    """The beginning of a text without lone surrogates, which neither files nor databases accept."""
    return text[:max_chars].encode("utf-8", "replace").decode()


def parse_snippets(response: Any, source_name: str) -> list[Snippet]:
    """Snippets in the response of foreign code.

    Args:
        response: A list, or an object whose field `snippets` is one. Its members: a `Snippet`; a text; a pair of text
            and source; an object with `text` and optionally `source_id` and `score`.
        source_name: The source of snippets that name none, and the name in errors.

    Raises:
        InvalidResponse: It has another form.
    """
    if isinstance(response, dict) and "snippets" in response:
        response = response["snippets"]
    if response is None:
        return []
    if isinstance(response, str | bytes | dict) or not hasattr(response, "__iter__"):
        raise _invalid(source_name, f"expected a list of snippets, got {type(response).__name__}")
    return valid_snippets([_parse(one, source_name) for _, one in zip(range(MAX_SNIPPETS), response, strict=False)])


def _parse(member: Any, source_name: str) -> Snippet:
    if isinstance(member, Snippet):
        return member
    if isinstance(member, str):
        return Snippet(text=member, source_id=source_name)
    if isinstance(member, tuple | list) and len(member) == 2 and all(isinstance(part, str) for part in member):
        return Snippet(text=member[0], source_id=member[1])
    if not isinstance(member, dict):
        raise _invalid(source_name, f"a snippet is {type(member).__name__}")
    text, source, score = member.get("text"), member.get("source_id"), member.get("score")
    if not isinstance(text, str):
        raise _invalid(source_name, "a snippet has no text")
    if source is not None and not isinstance(source, str | int):
        raise _invalid(source_name, f"the source_id of a snippet is {type(source).__name__}")
    if score is not None and (isinstance(score, bool) or not isinstance(score, int | float)):
        raise _invalid(source_name, f"the score of a snippet is {type(score).__name__}")
    try:
        value = 0.0 if score is None else float(score)
    except OverflowError:
        value = 0.0
    return Snippet(text=text, source_id=source_name if source in (None, "") else str(source), score=value)


def _invalid(source_name: str, reason: str) -> InvalidResponse:
    return InvalidResponse(
        f"{source_name}: {reason}",
        hint='the expected response is {"snippets": [{"text": "…", "source_id": "…", "score": 0.5}, …]}',
    )
