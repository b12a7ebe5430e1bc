"""`SaidText`: the answer's text on its way to a client, of which nothing is ever taken back."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.errors import BadReply

PIECE_CHARS = 48
"""Characters of a piece, about, where a text is known whole."""


class SaidText:
    """Gives out a growing text as far as it is certain.

    White space at the beginning is dropped, white space at the end held back, and so is what may be the beginning of a
    stop string: what follows one is never given out.

    Args:
        stop: The stop strings.

    Attributes:
        said: What was given out.
        stopped: Whether a stop string came.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop = tuple(stop)
        self._held = ""
        self._parted = False
        self.said = ""
        self.stopped = False

    def add(self, text: str) -> str:
        """What may be given out now."""
        if self.stopped:
            return ""
        if self._parted:
            text = text.lstrip()
            if not text:
                return ""
            self._parted = False
            text = f"\n{text}" if self.said or self._held else text
        text = self._held + text
        if not self.said:
            text = text.lstrip()
        cut = stop_at(text, self._stop)
        if cut is not None:
            self.stopped, self._held = True, ""
            return self._give(text[:cut].rstrip())
        sure = text[: len(text) - _half_a_stop(text, self._stop)].rstrip()
        self._held = text[len(sure) :]
        return self._give(sure)

    def part(self) -> None:
        """Begin a new line with whatever comes next: a thought stood between."""
        self._held, self._parted = self._held.rstrip(), True

    def finish(self, whole: str, *, late: bool = False) -> str:
        """What is left, where the whole text is known.

        Args:
            whole: The text.
            late: Whether thoughts were given out too, so that the text is the end of what was.

        Raises:
            BadReply: It does not begin with what was given out.
        """
        if whole.startswith(self.said):
            return self._give(whole[len(self.said) :])
        if late:
            overlap = next(n for n in range(len(whole), -1, -1) if self.said.endswith(whole[:n]))
            return self._give(whole[overlap:])
        raise BadReply("the answer does not go on as it was streamed", hint="ask again without stream")

    def _give(self, text: str) -> str:
        self.said += text
        return text


def stop_at(text: str, stop: Sequence[str]) -> int | None:
    """Where the stop string begins that is complete first; None if there is none.

    That is what a model that writes one character after the other stops at: of two that overlap, the one that ends
    first, wherever it begins, and of several that end there the longest.
    """
    found = [(at + len(s), at) for s in stop if (at := text.find(s)) >= 0]
    return min(found)[1] if found else None


def until_stop(text: str, stop: Sequence[str]) -> str:
    """A whole text up to its first stop string."""
    cut = stop_at(text, stop)
    return text if cut is None else text[:cut].rstrip()


def in_pieces(text: str, size: int = PIECE_CHARS) -> list[str]:
    """A text in pieces of about a size that end behind white space where there is some."""
    pieces: list[str] = []
    start = 0
    while len(text) - start > size:
        end = max(text.rfind(" ", start, start + size), text.rfind("\n", start, start + size)) + 1
        end = end if end > start else start + size
        pieces.append(text[start:end])
        start = end
    return [*pieces, text[start:]] if start < len(text) else pieces


def _half_a_stop(text: str, stop: Sequence[str]) -> int:
    """Length of the longest end of a text that a stop string begins with."""
    longest = max(map(len, stop), default=1) - 1
    for length in range(min(longest, len(text)), 0, -1):
        end = text[-length:]
        if any(s.startswith(end) for s in stop):
            return length
    return 0
