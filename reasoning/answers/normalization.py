r"""Normalization of a model's text: without thoughts and invisible characters, digits in ASCII.

`unwrap` removes what surrounds an answer: markdown emphasis, quotes, `$…$`, `\(…\)`, `\text{…}`, full stops.
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
class VisibleText:
    """The visible part of a text.

    Attributes:
        origin: Position in the source of each character of `text`; None if nothing was removed.
    """

    text: str
    origin: Sequence[int] | None = None

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The source's span for a span of the visible text; an empty one is empty in the source too."""
        if self.origin is None or start >= end:
            return (start, end) if self.origin is None else (self._at(start), self._at(start))
        return self.origin[start], self.origin[end - 1] + 1

    def _at(self, position: int) -> int:
        origin = self.origin or ()
        return origin[position] if position < len(origin) else (origin[-1] + 1 if origin else 0)


def visible_text(text: str) -> VisibleText:
    """A model's text without thoughts and invisible characters, normalized.

    Every position maps back to the source, so that a match can be located there. Thoughts are enclosed in
    `<think>…</think>` (also `thinking`, `thought`). A thought that is never closed extends to the end; one that was
    opened in the prompt, so that only its end is in the text, starts at the beginning. Linear in the text's length.
    """
    visible = _visible_spans(text)
    is_unchanged = len(visible) == 1 and visible[0] == (0, len(text))
    if is_unchanged and text.isascii():
        return VisibleText(text)
    origin: list[int] | None = None
    shown = text
    if not is_unchanged or _INVISIBLE.search(text):
        origin = []
        pieces: list[str] = []
        for start, end in visible:
            if pieces:  # a thought removed from the middle separates the text around it
                pieces.append("\n")
                origin.append(start - 1)
            for piece_start, piece_end in _without_invisible(text, start, end):
                pieces.append(text[piece_start:piece_end])
                origin.extend(range(piece_start, piece_end))
        shown = "".join(pieces)
    return VisibleText(normalize_characters(shown), origin)


def normalize_characters(text: str) -> str:
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


MAX_ANSWER_CHARS = 4000
"""Maximum length of an answer, in characters."""

_MAX_LAYERS = 16  # nested wrappings removed
_PAIRS = (
    ("$$", "$$"),
    ("$", "$"),
    ("\\(", "\\)"),
    ("\\[", "\\]"),
    ("***", "***"),
    ("**", "**"),
    ("__", "__"),
    ("*", "*"),
    ("_", "_"),
    ("```", "```"),
    ("`", "`"),
    ('"', '"'),
    ("“", "”"),
    ("«", "»"),
    ("「", "」"),
    ("'", "'"),
    ("‘", "’"),  # noqa: RUF001 (typographic quotes)
)
_OPENINGS = frozenset(opening[0] for opening, _ in _PAIRS)
_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathsf|mbox|boxed|fbox|operatorname)\s?\{")
_EDGE_LEFT = " \t\r\n:=>*#,;"
_EDGE_RIGHT = " \t\r\n.,;:*。"
_SPACING = re.compile(r"\\(?:displaystyle|quad|qquad|[,;:!])\s?")


def closing_brace(text: str, after_open: int, end: int) -> int | None:
    r"""Position of the brace that closes the one just before `after_open`; escaped braces (`\{`) do not count.

    Args:
        after_open: Position after the opening brace.
        end: End of the search; may be beyond the text.
    """
    end = min(end, len(text))
    depth = 1
    i = after_open
    while i < end:
        character = text[i]
        if character == "\\":
            i += 2
            continue
        if character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return i
        i += 1
    return None


def unwrap(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without blanks, final punctuation and wrappings around it; may be empty."""
    for _ in range(_MAX_LAYERS):
        before = (start, end)
        start, end = _edges(text, start, end)
        start, end = _pair(text, start, end)
        start, end = _command(text, start, end)
        if (start, end) == before:
            break
    return start, end


def _edges(text: str, start: int, end: int) -> tuple[int, int]:
    """Without blanks and punctuation; emphasis at only one end is a leftover and removed, too."""
    while (
        start < end and (text[start] in _EDGE_LEFT or text[start].isspace()) and not text.startswith(("**", "*"), start)
    ):
        start += 1
    while end > start and (text[end - 1] in _EDGE_RIGHT or text[end - 1].isspace()) and text[end - 1] != "*":
        if text[end - 1] in " ," and _escaped(text, start, end - 1):  # "\ " and "\,": LaTeX space
            end -= 1
        end -= 1
    if end - start > 1 and text[end - 1] in "!?" and text[end - 2].isalpha() and end - start > 2:  # "n!" is a factorial
        end -= 1
    leading, trailing = text[start:end].startswith("*"), text[start:end].endswith("*")
    if leading != trailing:
        while start < end and text[start] == "*":
            start += 1
        while end > start and text[end - 1] == "*":
            end -= 1
    spacing = _SPACING.match(text, start, end)
    if spacing and spacing.end() < end:
        start = spacing.end()
    return start, end


def _escaped(text: str, start: int, position: int) -> bool:
    return position > start and text[position - 1] == "\\"


def _pair(text: str, start: int, end: int) -> tuple[int, int]:
    for opening, closing in _PAIRS if text[start : start + 1] in _OPENINGS else ():
        inner_start, inner_end = start + len(opening), end - len(closing)
        if (
            inner_start < inner_end
            and text.startswith(opening, start, end)
            and text.startswith(closing, inner_end)
            and text.find(closing, inner_start, inner_end) < 0
            and not _escaped(text, start, inner_end)
        ):
            return inner_start, inner_end
    if text.startswith("$", end - 1) and end - start > 1 and text.count("$", start, end) == 1:
        return start, end - 1  # the other half of a formula that began outside
    return start, end


def _command(text: str, start: int, end: int) -> tuple[int, int]:
    command = _COMMAND.match(text, start, end)
    if command and end - start <= MAX_ANSWER_CHARS and closing_brace(text, command.end(), end) == end - 1:
        return command.end(), end - 1
    return start, end
