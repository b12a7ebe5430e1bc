"""Blocks of an answer in Markdown or plain text: prose, list items, headings, table rows and code.

Code, formulas, addresses and quotations, in which no sentence may end, are covered by a placeholder character. The
covered text has the length of the answer, so that positions are the same in both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

# ruff: noqa: RUF001 (typographic quotation marks are meant)


COVER = "\ue000"
"""Placeholder of a covered character: private use, so neither punctuation, whitespace nor letter."""

FORMULA_CHARS = 2000
"""Maximum length of a covered formula, inline code or quotation; a longer match is not markup."""

_FENCE = re.compile(r"^[ \t]{0,8}(?:[-*+>]\s{1,3}|[0-9]{1,3}[.)]\s)?[ \t]{0,3}(`{3,}|~{3,})([^\n]*)$", re.MULTILINE)
_DISPLAYED = re.compile(
    r"(?P<dollars>(?<!\\)\$\$)|(?<!\\)\\(?P<bracket>[\[\]])|(?<!\\)\\(?P<environment>begin|end)\{[a-z*]{1,20}\}"
)
_INLINE = re.compile(
    r"`[^`\n]{1,400}`"
    r"|\\\([^\n]{1,400}?\\\)"
    r"|(?<![\\$\w])\$(?=[^\s$])[^$\n]{0,300}[^\s$\\]\$(?![\w$])"
    r"|(?:https?://|www\.)[^\s<>\"]{1,2000}(?<![.,;:!?)])"
)
_QUOTED = re.compile(r"[\"“](?=\S)[^\"“”\n]{1,400}?[\"”]|«[^«»\n]{1,400}»|„[^„“”\n]{1,400}[“”]")
_SENTENCE_END = re.compile(r"[.!?;:。！？]")
_PUNCTUATION_RUN = re.compile(r"([.!?]{3})[.!?]{6,}")


def code_blocks(text: str) -> list[tuple[int, int]]:
    """Spans of the fenced code of a text, fences included; an unclosed block extends to the end."""
    spans: list[tuple[int, int]] = []
    opening: re.Match[str] | None = None
    for match in _FENCE.finditer(text):
        if opening is None:
            if "`" not in match[2] or match[1][0] == "~":
                opening = match
        elif match[1].startswith(opening[1]) and not match[2].strip():
            spans.append((opening.start(), match.end()))
            opening = None
    if opening is not None:
        spans.append((opening.start(), len(text)))
    return spans


def formula_blocks(text: str) -> Iterator[tuple[int, int]]:
    r"""Spans of displayed formulas: `$$ … $$`, `\[ … \]`, `\begin{…} … \end{…}`; of nested formulas the outermost."""
    opening: tuple[str, int] | None = None
    depth = 0
    for match in _DISPLAYED.finditer(text):
        kind = "$" if match["dollars"] else "[" if match["bracket"] else "e"
        if opening is not None and match.start() - opening[1] > FORMULA_CHARS:
            opening = None
        if opening is None:
            if match["bracket"] != "]" and match["environment"] != "end":
                opening, depth = (kind, match.start()), 1
        elif kind == opening[0]:
            is_closing = kind == "$" or match["bracket"] == "]" or match["environment"] == "end"
            depth += -1 if is_closing else (kind == "e")
            if depth == 0:
                yield opening[1], match.end()
                opening = None


def cover_markup(text: str) -> tuple[str, list[tuple[int, int]], list[tuple[int, int]]]:
    """The covered text, its blocks of code and its displayed formulas. Linear in the text's length.

    In quotations only sentence-ending punctuation is covered.

    Args:
        text: The answer.
    """
    code = code_blocks(text)
    covered = _cover_spans(text, code)
    formulas = list(formula_blocks(covered))
    covered = _cover_spans(covered, formulas)
    covered = _INLINE.sub(lambda m: COVER * len(m[0]), covered)
    covered = _QUOTED.sub(_cover_quotation, covered)
    return _PUNCTUATION_RUN.sub(lambda m: COVER * (len(m[0]) - 3) + m[1], covered), code, formulas


def _cover_spans(text: str, spans: list[tuple[int, int]]) -> str:
    pieces, at = [], 0
    for start, end in spans:
        pieces += [text[at:start], COVER * (end - start)]
        at = end
    return "".join([*pieces, text[at:]])


def _cover_quotation(match: re.Match[str]) -> str:
    """A quotation with covered punctuation, except at its end, where it may end the outer sentence."""
    inner = match[0][1:-1]
    after = match.string[match.end() : match.end() + 2].lstrip()
    ends = inner[-1:] in (".", "!", "?", "。", "！", "？") and not after[:1].islower() and after[:1] != ","
    last = inner[-1] if ends else ""
    body = inner[: len(inner) - len(last)]
    return match[0][0] + _SENTENCE_END.sub(COVER, body) + last + match[0][-1]


Kind = Literal["prose", "item", "heading", "header", "row", "code", "break"]

_RULE = re.compile(r"[ \t]*(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,}|=+)[ \t\r]*")
_HEADING = re.compile(r"[ \t]{0,3}#{1,6}[ \t]+(?=\S)")
_BOLD_LINE = re.compile(r"[ \t]*\*\*[^*\n]{1,120}\*\*:?[ \t\r]*")
_ITEM = re.compile(
    r"[ \t]*(?:[-*+\u2022\u25e6\u2023\u2013][ \t]+|\(?[0-9]{1,3}[.)][ \t]+|\(?[a-zA-Z][)][ \t]+)"
    r"(?:\[[ xX]\][ \t]+)?(?=\S)"
)
_QUOTE = re.compile(r"[ \t]{0,3}(?:>[ \t]?)+")
_ROW = re.compile(r"[ \t]*\|[^\n]*\|[ \t\r]*")
_SEPARATOR = re.compile(r"[ \t]*\|?(?:[ \t]*:?-{2,}:?[ \t]*\|?)+[ \t\r]*")
_ENDED_LINE = re.compile(r"[.!?:;\u3002\uff01\uff1f][\"'\u201d\u2019)\]*_]{0,4}$")
# fmt: off
_UNFINISHED_ENDS = frozenset([
    "the", "a", "an", "of", "in", "on", "at", "to", "for", "by", "from", "with", "and", "or", "as", "was", "is", "are",
    "were", "that", "which", "his", "her", "its", "their", "than", "into", "between",
])
# fmt: on
_LONG_LINE = 50


class Block(NamedTuple):
    """A part of an answer.

    Attributes:
        kind: Kind of the part; "break" is a blank line or a rule.
        start: First character, after any marker.
        end: One past the last.
    """

    kind: Kind
    start: int
    end: int


def blocks(covered: str, code: list[tuple[int, int]]) -> Iterator[Block]:
    """The parts of an answer, in order. A continued line belongs to the preceding block. Linear.

    Args:
        covered: The covered answer (`cover_markup`).
        code: Spans of its code blocks.
    """
    starts = {start for start, _ in code}
    pending: Block | None = None
    lines = list(_lines(covered))
    for i, (start, end) in enumerate(lines):
        line = covered[start:end]
        following = covered[slice(*lines[i + 1])] if i + 1 < len(lines) else ""
        block = _parse_block(line, start, end, following, starts)
        if pending is not None and _continues(covered, pending, block):
            pending = pending._replace(end=block.end)
            if block.kind == "code":
                yield pending
                pending = None
            continue
        if pending is not None:
            yield pending
            pending = None
        if block.kind in ("prose", "item"):
            pending = block
        else:
            yield block
    if pending is not None:
        yield pending


def _lines(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    while start <= len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        yield start, end
        start = end + 1


def _parse_block(line: str, start: int, end: int, following: str, code: set[int]) -> Block:
    if not line.strip():
        return Block("break", start, end)
    if line.startswith(COVER) and start in code:
        return Block("code", start, end)
    quote = _QUOTE.match(line)
    if quote is not None:
        start, line = start + quote.end(), line[quote.end() :]
        if not line.strip():
            return Block("break", start, end)
    if _RULE.fullmatch(line) or (_SEPARATOR.fullmatch(line) and "-" in line):
        return Block("break", start, end)
    if _ROW.fullmatch(line) and line.count("|") > 2:
        return Block("header" if _is_separator(following) else "row", start, end)
    heading = _HEADING.match(line)
    if heading is not None:
        return Block("heading", start + heading.end(), end)
    underline = following.strip()
    if _BOLD_LINE.fullmatch(line) and not _ENDED_LINE.search(line.strip().strip("*").rstrip(":*")):
        return Block("heading", start, end)
    if len(underline) > 2 and set(underline) in ({"="}, {"-"}) and len(line) < 120:
        return Block("heading", start, end)
    item = _ITEM.match(line)
    return Block("item", start + item.end(), end) if item else Block("prose", start, end)


def _is_separator(line: str) -> bool:
    return "-" in line and _SEPARATOR.fullmatch(line) is not None


def _continues(covered: str, pending: Block, block: Block) -> bool:
    """Whether a block continues the preceding one across a line break."""
    before = covered[max(pending.start, pending.end - 60) : pending.end].rstrip()
    if block.kind == "code":
        return before.endswith(":")
    if block.kind != "prose" or block.start - pending.end > 12:
        return False
    after = covered[block.start : block.start + 40].lstrip()
    if before.endswith(COVER) or after.startswith(COVER):
        return not _ENDED_LINE.search(before) or (before.endswith(":") and after.startswith(COVER))
    if _ENDED_LINE.search(before):
        return False
    if after[:1].islower() or before.endswith(","):
        return True
    last = before.rsplit(None, 1)[-1:] or [""]
    return pending.end - pending.start >= _LONG_LINE and last[0].lower() in _UNFINISHED_ENDS


def cells(line: str, start: int) -> list[tuple[int, int]]:
    """Spans of the cells of a table's row, without surrounding whitespace; that of an empty cell is empty.

    Args:
        line: The row.
        start: Its position in the answer.
    """
    spans = []
    at = 0
    for piece in line.split("|"):
        left = at + len(piece) - len(piece.lstrip())
        spans.append((start + left, start + left + len(piece.strip())))
        at += len(piece) + 1
    return spans[1:-1]
