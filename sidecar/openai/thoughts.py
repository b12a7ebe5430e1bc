"""What a model thought and what it said, apart: `split_thoughts`, and `ThoughtSplitter` for a text that comes.

Thoughts are what stands in `<think>…</think>` (also `thinking`, `thought`), as `reasoning.reading` has it: one that is
never closed runs to the end, and one whose end alone is in the text began with the text.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Kind = Literal["reasoning", "content"]

_TAG = re.compile(r"<(/?)(?:think|thinking|thought)>", re.IGNORECASE)
_TAGS = tuple(f"<{slash}{name}>" for slash in ("", "/") for name in ("think", "thinking", "thought"))


class Piece(NamedTuple):
    """A piece of what a client is told: thoughts, or the answer's text."""

    kind: Kind
    text: str


class ThoughtSplitter:
    """Takes a text as it comes and tells thoughts from the rest. What may be half of a tag is held back.

    At each tag an empty thought is told: what is said before and behind it is not one line.

    Args:
        opened: Whether the text begins inside a thought, because the prompt opened it.

    Attributes:
        late: Whether an end came of a thought that nobody had seen begin: all before it was thought, and has been given
            out as content.
    """

    def __init__(self, *, opened: bool = False) -> None:
        self._thinking = opened
        self._held = ""
        self.late = False

    def feed(self, text: str) -> list[Piece]:
        """The pieces that are certain now."""
        text = self._held + text
        held = _half_a_tag(text)
        self._held = text[len(text) - held :]
        return self._cut(text[: len(text) - held])

    def end(self) -> list[Piece]:
        """What was held back: it was no tag."""
        left, self._held = self._held, ""
        return self._cut(left)

    def _cut(self, text: str) -> list[Piece]:
        pieces: list[Piece] = []
        start = 0
        for tag in _TAG.finditer(text):
            self._put(pieces, text[start : tag.start()])
            if tag[1] and not self._thinking:
                self.late = True
            self._thinking = not tag[1]
            pieces.append(Piece("reasoning", ""))
            start = tag.end()
        self._put(pieces, text[start:])
        return pieces

    def _put(self, pieces: list[Piece], text: str) -> None:
        if text:
            pieces.append(Piece("reasoning" if self._thinking else "content", text))


def split_thoughts(text: str) -> tuple[str, str]:
    """The thoughts of a whole text, and its content; both without white space at their ends."""
    thoughts: list[str] = []
    content: list[str] = []
    start, thinking = 0, False
    for tag in _TAG.finditer(text):
        (thoughts if thinking else content).append(text[start : tag.start()])
        if tag[1] and not thinking:  # all so far belonged to a thought that began before the text
            thoughts, content = [*thoughts, *content], []
        start, thinking = tag.end(), not tag[1]
    (thoughts if thinking else content).append(text[start:])
    return _joined(thoughts), _joined(content)


def _joined(parts: list[str]) -> str:
    """Parts that a thought, or an answer, stood between: each on lines of its own."""
    return "\n".join(filter(None, (part.strip() for part in parts)))


def _half_a_tag(text: str) -> int:
    """Length of the end of a text that may be the beginning of a tag."""
    at = text.rfind("<", max(0, len(text) - max(map(len, _TAGS)) + 1))
    if at < 0:
        return 0
    begun = text[at:].lower()
    return len(begun) if any(tag.startswith(begun) and tag != begun for tag in _TAGS) else 0
