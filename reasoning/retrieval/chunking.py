"""`chunks`: a text in pieces of about a hundred words that end where sentences end."""

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
_LONGEST_WORD = 400
"""Characters: what is longer without a blank (a key, a table in base64) is cut."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a text.

    Attributes:
        start: Its first character's place in the text, from 0.
        end: The place behind its last character.
        heading: The headings it stands under, outermost first, with " > " between; empty if there are none.
    """

    start: int
    end: int
    heading: str = ""


@dataclass(frozen=True, slots=True)
class _Piece:
    """What is never divided: a sentence or a part of a long one."""

    start: int
    end: int
    words: int


def split_chunks(text: str, *, words: int = MAX_WORDS, overlap: int = OVERLAP, headings: bool = False) -> list[Chunk]:
    """Cut a text into pieces.

    A piece takes whole sentences while they fit; one begins anew at a heading. If the text goes on, it takes the last
    sentences of the piece before it with it as far as the overlap allows, so that what is said across a cut is found.

    Args:
        text: The text.
        words: Most words of a piece, at least 1.
        overlap: Most words that a piece shares with the one before it, less than `words`.
        headings: Whether lines that begin with `#` are headings, as in Markdown. They are no part of a piece.

    Returns:
        The pieces, in order. Together they have every word of the text, except those of headings; a word of more than
        400 characters is cut.
    """
    if not 0 <= overlap < words:
        raise ValueError("the overlap is less than the words of a chunk and not negative")
    made: list[Chunk] = []
    for start, end, heading in _sections(text) if headings else [(0, len(text), "")]:
        made += _packed(list(_pieces(text, start, end, words)), words, overlap, heading)
    return made


def _sections(text: str) -> Iterator[tuple[int, int, str]]:
    """What is between headings, each with the headings that it stands under."""
    code = _code_spans(text)
    above: list[tuple[int, str]] = []
    begin = 0
    for match in _HEADING.finditer(text):
        if any(start <= match.start() < end for start, end in code):
            continue
        yield begin, match.start(), _path(above)
        level, title = len(match[1]), " ".join(match[2].split()).rstrip("#").rstrip()
        above = [(at, other) for at, other in above if at < level] + ([(level, title)] if title else [])
        begin = match.end()
    yield begin, len(text), _path(above)


def _path(above: list[tuple[int, str]]) -> str:
    return " > ".join(title for _, title in above)


def _code_spans(text: str) -> list[tuple[int, int]]:
    """Fenced blocks of code, in which `#` begins a comment."""
    marks = [(m.start(), m[1]) for m in _FENCE.finditer(text)]
    spans: list[tuple[int, int]] = []
    opened: tuple[int, str] | None = None
    for at, mark in marks:
        if opened is None:
            opened = (at, mark)
        elif mark == opened[1]:
            spans.append((opened[0], at))
            opened = None
    return spans if opened is None else [*spans, (opened[0], len(text))]


def _pieces(text: str, start: int, end: int, most: int) -> Iterator[_Piece]:
    """Sentences; one that is too long in parts."""
    begin = start
    breaks = [m.span() for m in _BLANK_LINE.finditer(text, start, end)]
    for stop, go_on in [*breaks, (end, end)]:
        for left, right in sentence_spans(text, begin, stop):
            spans = list(_words(text, left, right))
            for i in range(0, len(spans), most):
                part = spans[i : i + most]
                yield _Piece(part[0][0], part[-1][1], len(part))
        begin = go_on


def _words(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    for match in _WORD.finditer(text, start, end):
        for at in range(match.start(), match.end(), _LONGEST_WORD):
            yield at, min(at + _LONGEST_WORD, match.end())


def _packed(pieces: list[_Piece], most: int, overlap: int, heading: str) -> Iterator[Chunk]:
    first = 0
    while first < len(pieces):
        last, count = first, 0
        while last < len(pieces) and count + pieces[last].words <= most:
            count += pieces[last].words
            last += 1
        yield Chunk(pieces[first].start, pieces[last - 1].end, heading)
        if last == len(pieces):
            return
        # as much as the overlap allows, if what comes next still fits beside it
        shared, begin = 0, last
        room = min(overlap, most - pieces[last].words)
        while begin - 1 > first and shared + pieces[begin - 1].words <= room:
            begin -= 1
            shared += pieces[begin].words
        first = begin
