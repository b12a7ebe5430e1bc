"""`split_chunks`: a text in overlapping chunks of about a hundred words that end at sentence boundaries."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ..segmentation import sentence_spans

MAX_WORDS = 120
OVERLAP = 20

_WORD = re.compile(r"\S+")
_BLANK_LINE = re.compile(r"\n[^\S\n]*\n\s*")
_HEADING = re.compile(r"^(#{1,6})[^\S\n]+(\S[^\n]*)$", re.MULTILINE)
_FENCE = re.compile(r"^[^\S\n]{0,3}(```|~~~)", re.MULTILINE)
_MAX_WORD_CHARS = 400
"""Longer runs without a space (a key, a table in base64) are cut."""


@dataclass(frozen=True, slots=True)
class TextChunk:
    """Characters `start` to `end` of a text; `heading` is the path of headings above, joined with " > "."""

    start: int
    end: int
    heading: str = ""


@dataclass(frozen=True, slots=True)
class _Unit:
    """A span that is never divided: a sentence, or a part of one that is too long."""

    start: int
    end: int
    words: int


def split_chunks(
    text: str, *, words: int = MAX_WORDS, overlap: int = OVERLAP, headings: bool = False
) -> list[TextChunk]:
    """Split a text into chunks.

    A chunk takes complete sentences while they fit, and a heading starts a new one. The next chunk repeats the last
    sentences of the previous one as far as the overlap allows.

    Args:
        text: The text.
        words: Maximum words of a chunk.
        overlap: Maximum words repeated from the previous chunk, less than `words`.
        headings: Whether lines that begin with `#` are Markdown headings, which are not part of a chunk.

    Returns:
        The chunks in order. Together they contain every word except those of headings; a word of more than 400
        characters is cut.
    """
    if not 0 <= overlap < words:
        raise ValueError(f"overlap must be in [0, {words}), got {overlap}")
    chunks: list[TextChunk] = []
    for start, end, heading in _sections(text) if headings else [(0, len(text), "")]:
        chunks += _pack(list(_units(text, start, end, words)), words, overlap, heading)
    return chunks


def _sections(text: str) -> Iterator[tuple[int, int, str]]:
    """Spans between headings, each with the path of headings above it."""
    code = _code_spans(text)
    path: list[tuple[int, str]] = []
    begin = 0
    for match in _HEADING.finditer(text):
        if any(start <= match.start() < end for start, end in code):
            continue
        yield begin, match.start(), _heading_path(path)
        level, title = len(match[1]), " ".join(match[2].split()).rstrip("#").rstrip()
        path = [(at, heading) for at, heading in path if at < level] + ([(level, title)] if title else [])
        begin = match.end()
    yield begin, len(text), _heading_path(path)


def _heading_path(path: list[tuple[int, str]]) -> str:
    return " > ".join(title for _, title in path)


def _code_spans(text: str) -> list[tuple[int, int]]:
    """Fenced code blocks, in which `#` begins a comment."""
    spans: list[tuple[int, int]] = []
    opening: tuple[int, str] | None = None
    for match in _FENCE.finditer(text):
        if opening is None:
            opening = (match.start(), match[1])
        elif match[1] == opening[1]:
            spans.append((opening[0], match.start()))
            opening = None
    return spans if opening is None else [*spans, (opening[0], len(text))]


def _units(text: str, start: int, end: int, max_words: int) -> Iterator[_Unit]:
    """Sentences; one that is too long in parts."""
    begin = start
    breaks = [m.span() for m in _BLANK_LINE.finditer(text, start, end)]
    for stop, next_begin in [*breaks, (end, end)]:
        for left, right in sentence_spans(text, begin, stop):
            spans = list(_word_spans(text, left, right))
            for i in range(0, len(spans), max_words):
                part = spans[i : i + max_words]
                yield _Unit(part[0][0], part[-1][1], len(part))
        begin = next_begin


def _word_spans(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    for match in _WORD.finditer(text, start, end):
        for at in range(match.start(), match.end(), _MAX_WORD_CHARS):
            yield at, min(at + _MAX_WORD_CHARS, match.end())


def _pack(units: list[_Unit], max_words: int, overlap: int, heading: str) -> Iterator[TextChunk]:
    first = 0
    while first < len(units):
        last, count = first, 0
        while last < len(units) and count + units[last].words <= max_words:
            count += units[last].words
            last += 1
        yield TextChunk(units[first].start, units[last - 1].end, heading)
        if last == len(units):
            return
        # repeat as much as the overlap allows, if the next unit still fits
        shared, begin = 0, last
        max_shared = min(overlap, max_words - units[last].words)
        while begin - 1 > first and shared + units[begin - 1].words <= max_shared:
            begin -= 1
            shared += units[begin].words
        first = begin
