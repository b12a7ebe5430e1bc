r"""An answer with everything covered that no sentence may be cut in: code, formulas, addresses, quotations.

The covered text has the length of the answer, so that every place in it is a place in the answer.
"""

# ruff: noqa: RUF001 (typographic quotation marks are meant)
from __future__ import annotations

import re
from collections.abc import Iterator

COVER = "\ue000"
"""What stands for a covered character: a private one, which is no mark, no blank and no letter."""

FORMULA_CHARS = 2000
"""Longest formula, code in a line or quotation that is covered; what is longer is a stray mark."""

_FENCE = re.compile(r"^[ \t]{0,8}(?:[-*+>]\s{1,3}|[0-9]{1,3}[.)]\s)?[ \t]{0,3}(`{3,}|~{3,})([^\n]*)$", re.MULTILINE)
_DISPLAYED = re.compile(
    r"(?P<dollars>(?<!\\)\$\$)|(?<!\\)\\(?P<bracket>[\[\]])|(?<!\\)\\(?P<environment>begin|end)\{[a-z*]{1,20}\}"
)
_WITHIN = re.compile(
    r"`[^`\n]{1,400}`"
    r"|\\\([^\n]{1,400}?\\\)"
    r"|(?<![\\$\w])\$(?=[^\s$])[^$\n]{0,300}[^\s$\\]\$(?![\w$])"
    r"|(?:https?://|www\.)[^\s<>\"]{1,2000}(?<![.,;:!?)])"
)
_QUOTED = re.compile(r"[\"“](?=\S)[^\"“”\n]{1,400}?[\"”]|«[^«»\n]{1,400}»|„[^„“”\n]{1,400}[“”]")
_ENDS = re.compile(r"[.!?;:。！？]")
_RUN = re.compile(r"([.!?]{3})[.!?]{6,}")


def code_blocks(text: str) -> list[tuple[int, int]]:
    """Spans of the fenced code of a text, fences included; one that is never closed runs to the end."""
    found: list[tuple[int, int]] = []
    opened: re.Match[str] | None = None
    for match in _FENCE.finditer(text):
        if opened is None:
            if "`" not in match[2] or match[1][0] == "~":
                opened = match
        elif match[1].startswith(opened[1]) and not match[2].strip():
            found.append((opened.start(), match.end()))
            opened = None
    if opened is not None:
        found.append((opened.start(), len(text)))
    return found


def formula_blocks(text: str) -> Iterator[tuple[int, int]]:
    r"""Spans of displayed formulas: `$$ … $$`, `\[ … \]`, `\begin{…} … \end{…}`; of nested ones the outermost."""
    begun: tuple[str, int] | None = None
    depth = 0
    for match in _DISPLAYED.finditer(text):
        kind = "$" if match["dollars"] else "[" if match["bracket"] else "e"
        if begun is not None and match.start() - begun[1] > FORMULA_CHARS:
            begun = None
        if begun is None:
            if match["bracket"] != "]" and match["environment"] != "end":
                begun, depth = (kind, match.start()), 1
        elif kind == begun[0]:
            closes = kind == "$" or match["bracket"] == "]" or match["environment"] == "end"
            depth += -1 if closes else (kind == "e")
            if depth == 0:
                yield begun[1], match.end()
                begun = None


def masked(text: str) -> tuple[str, list[tuple[int, int]], list[tuple[int, int]]]:
    """The covered text, its blocks of code and its displayed formulas. Linear in the text's length.

    In quotations only the marks that end sentences are covered; in code, formulas and addresses everything is.

    Args:
        text: The answer.
    """
    code = code_blocks(text)
    covered = _covered(text, code)
    formulas = list(formula_blocks(covered))
    covered = _covered(covered, formulas)
    covered = _WITHIN.sub(lambda m: COVER * len(m[0]), covered)
    covered = _QUOTED.sub(_quotation, covered)
    return _RUN.sub(lambda m: COVER * (len(m[0]) - 3) + m[1], covered), code, formulas


def _covered(text: str, spans: list[tuple[int, int]]) -> str:
    pieces, at = [], 0
    for start, end in spans:
        pieces += [text[at:start], COVER * (end - start)]
        at = end
    return "".join([*pieces, text[at:]])


def _quotation(match: re.Match[str]) -> str:
    """With the marks within covered; a last one is left, since it may end the sentence around."""
    inside = match[0][1:-1]
    behind = match.string[match.end() : match.end() + 2].lstrip()
    ends = inside[-1:] in (".", "!", "?", "。", "！", "？") and not behind[:1].islower() and behind[:1] != ","
    last = inside[-1] if ends else ""
    body = inside[: len(inside) - len(last)]
    return match[0][0] + _ENDS.sub(COVER, body) + last + match[0][-1]
