"""JSON as small models write it: text around it, commas too many, cut off in the middle. Never raises."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

from ...reasoning.reading import thoughts_end

MOST_CHARS: Final = 40_000
"""Characters of a reply that are looked at."""

_MOST_STARTS = 16
_CLOSERS = {"{": "}", "[": "]"}


def find_object(reply: str, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any] | None:
    """The first JSON object of a reply that is what is wanted.

    Whole objects are looked for first, also inside others that are none. If there is no such one, the first that was
    begun and not ended is closed where its last whole value ends.

    Args:
        reply: The reply; thoughts in it are left out.
        wanted: Says whether an object is the one.
    """
    text = reply[thoughts_end(reply) :][:MOST_CHARS]
    decoder = json.JSONDecoder(strict=False)
    starts = [match.start() for match in re.finditer(r"\{", text)][:_MOST_STARTS]
    for closing in (False, True):
        for at in starts:
            try:
                value = json.loads(_closed(text[at:]), strict=False) if closing else decoder.raw_decode(text, at)[0]
                if isinstance(value, dict) and "\\u" in text:
                    value = _whole(value)
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict) and wanted(value):
                return value
    return None


def find_text(reply: str, key: str) -> tuple[str, bool] | None:
    """The text of a field, wherever in a reply it stands and whatever is wrong with the rest.

    Args:
        reply: The reply.
        key: The field's name.

    Returns:
        The text, and whether it was ended; None if there is no such field with a text that is not blank.
    """
    text = reply[thoughts_end(reply) :][:MOST_CHARS]
    field = re.search(rf"[\"']?{re.escape(key)}[\"']?\s{{0,4}}:\s{{0,4}}\"", text, re.IGNORECASE)
    if field is None:
        return None
    body = re.compile(r'(?:[^"\\]|\\.)*', re.DOTALL).match(text, field.end())
    raw = body[0] if body else ""
    try:
        said = json.JSONDecoder(strict=False).decode(f'"{raw}"')
    except ValueError:  # an escape that JSON does not know
        said = raw.replace("\\n", "\n").replace('\\"', '"').replace("\\", "")
    said = said.encode("utf-8", "replace").decode()
    return (said, body is not None and body.end() < len(text)) if said.strip() else None


def texts_in(value: Any, most: int, most_chars: int) -> tuple[str, ...]:
    """The texts of a list, or the one text that stands in a list's place; blank ones and others are left out."""
    items = value if isinstance(value, list) else [value]
    told = [" ".join(item.split())[:most_chars] for item in items if isinstance(item, str)]
    return tuple(text for text in told if text)[:most]


def objects_in(value: Any) -> list[dict[str, Any]]:
    """The objects of a list, or the one that stands in a list's place."""
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, dict)]


def _whole(value: dict[str, Any]) -> dict[str, Any]:
    """An object with "?" for halves of surrogate pairs, which JSON may name and no file or database can hold."""
    told: dict[str, Any] = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    return told


def _closed(text: str) -> str:
    """JSON that was cut off, up to its last whole value, with the brackets that are missing; stray commas go, too."""
    stack: list[str] = []
    pieces: list[str] = []
    safe: tuple[int, str] | None = None
    at = 0
    while at < len(text):
        character = text[at]
        if character == '"':
            string = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL).match(text, at)
            if string is None:
                break
            pieces.append(string[0])
            at = string.end()
            continue
        if character in _CLOSERS:
            stack.append(_CLOSERS[character])
        elif character in "}]":
            if not stack or stack[-1] != character:
                break
            stack.pop()
        elif character == ",":
            safe = (len(pieces), "".join(reversed(stack)))
            if re.compile(r"\s*[}\]]").match(text, at + 1):  # one too many
                at += 1
                continue
        pieces.append(character)
        at += 1
        if character in "}]":
            safe = (len(pieces), "".join(reversed(stack)))
            if not stack:
                break
    return "".join(pieces[: safe[0]]) + safe[1] if safe else ""
