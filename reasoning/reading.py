"""A model's text as a reader sees it: thoughts cut, invisible characters gone, digits and full-width signs plain.

Every position of the reading maps back to the text it came from, so what is found can be shown in place.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

_THOUGHT_TAG = re.compile(r"<(/?)(?:think|thinking|thought)>", re.IGNORECASE)
# Soft hyphen, zero-width characters, bidirectional marks and isolates, word joiners, byte-order mark.
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
_OTHER_DIGIT = re.compile(r"(?![0-9])\d")
# The full-width forms U+FF01..U+FF5E are the ASCII characters, shifted; the minus sign is U+2212.
_PLAIN = {0xFF01 + i: 0x21 + i for i in range(94)} | {0x2212: ord("-"), 0x3000: ord(" ")}


@dataclass(frozen=True, slots=True)
class Reading:
    """What is left to read of a text.

    Attributes:
        text: The readable text.
        origin: Position in the source of each character of `text`; None where nothing was taken away.
    """

    text: str
    origin: Sequence[int] | None = None

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The source's span for a span of the reading; an empty one stays empty."""
        if self.origin is None or start >= end:
            return (start, end) if self.origin is None else (self._at(start), self._at(start))
        return self.origin[start], self.origin[end - 1] + 1

    def _at(self, position: int) -> int:
        origin = self.origin or ()
        return origin[position] if position < len(origin) else (origin[-1] + 1 if origin else 0)


def read(text: str) -> Reading:
    """Read a model's text.

    Thoughts are what stands in `<think>…</think>` (also `thinking`, `thought`). A thought that is never closed runs to
    the end; one that was opened in the prompt, so that only its end is in the text, starts at the beginning. Linear in
    the text's length.
    """
    visible = _visible_spans(text)
    whole = len(visible) == 1 and visible[0] == (0, len(text))
    if whole and text.isascii():
        return Reading(text)
    origin: list[int] | None = None
    shown = text
    if not whole or _INVISIBLE.search(text):
        origin = []
        pieces: list[str] = []
        for start, end in visible:
            if pieces:  # a thought cut out of the middle parts what stood around it
                pieces.append("\n")
                origin.append(start - 1)
            for piece_start, piece_end in _without_invisible(text, start, end):
                pieces.append(text[piece_start:piece_end])
                origin.extend(range(piece_start, piece_end))
        shown = "".join(pieces)
    return Reading(plain_characters(shown), origin)


def thoughts_end(text: str) -> int:
    """Where the last closed thought of a text ends; 0 if there is none."""
    ends = [tag.end() for tag in _THOUGHT_TAG.finditer(text) if tag[1]]
    return ends[-1] if ends else 0


def plain_characters(text: str) -> str:
    """The same text, character by character, with digits of any script and full-width forms in ASCII."""
    if text.isascii():
        return text
    return _OTHER_DIGIT.sub(lambda m: str(unicodedata.decimal(m[0])), text.translate(_PLAIN))


def _visible_spans(text: str) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    start = 0
    thinking = False
    for tag in _THOUGHT_TAG.finditer(text):
        if tag[1]:
            if not thinking:
                spans.clear()
            start, thinking = tag.end(), False
        elif not thinking:
            spans.append((start, tag.start()))
            thinking = True
    if not thinking:
        spans.append((start, len(text)))
    return [(a, b) for a, b in spans if a < b]


def _without_invisible(text: str, start: int, end: int) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    for mark in _INVISIBLE.finditer(text, start, end):
        if start < mark.start():
            spans.append((start, mark.start()))
        start = mark.end()
    if start < end:
        spans.append((start, end))
    return spans
