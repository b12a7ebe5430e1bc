"""What a solution cites: the notes that its steps name by number, and those that they say again."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...core.answer import Evidence
from ..memory.content_words import content_words
from ..memory.item import MemoryItem

SAID_AGAIN = 0.6
"""Share of a note's content words from which on a text that never names it is taken to rest on it."""

_MARK = re.compile(r"\[(\d{1,3}(?:\s?[,;]\s?\d{1,3}){0,8})\]")


def cite(text: str, notes: Sequence[MemoryItem], *, beyond: str = "") -> tuple[str, tuple[Evidence, ...]]:
    """Number anew what a text cites, so that its numbers are those of its citations.

    A number in brackets that is no note's stays as it is, and so does one beside it.

    Args:
        text: The solution. `[2]` in it is the second note.
        notes: All notes that its steps saw, in order.
        beyond: The question: words that are there already prove nothing.

    Returns:
        The text with its numbers changed, and what it cites in that order: named notes in the order of their first
        mention, then those whose content it has without naming them.
    """
    order: list[int] = []
    for match in _MARK.finditer(text):
        numbers = _numbers(match)
        if all(1 <= number <= len(notes) for number in numbers):
            order += [number for number in dict.fromkeys(numbers) if number not in order]
    said, known = content_words(_MARK.sub(" ", text)), content_words(beyond)
    for number, note in enumerate(notes, 1):
        own = content_words(note.text) - known
        if number not in order and len(own) >= 2 and len(own & said) >= SAID_AGAIN * len(own):
            order.append(number)
    place = {number: at for at, number in enumerate(order, 1)}

    def renumbered(match: re.Match[str]) -> str:
        numbers = _numbers(match)
        if not all(number in place for number in numbers):
            return match[0]
        return "[" + ", ".join(str(place[number]) for number in numbers) + "]"

    cited = tuple(Evidence(source=source_of(notes[number - 1]), text=notes[number - 1].text) for number in order)
    return _MARK.sub(renumbered, text), cited


def source_of(note: MemoryItem) -> str:
    """Where a note comes from, for people to read."""
    return note.source_id or "the model itself"


def _numbers(match: re.Match[str]) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", match[1])]
