r"""Segmentation of a model's text into sentences and steps, and how steps are compared.

A step begins after a blank line, at a heading, at "Step 3:" and at a numbered item ("3. …", "3) …"). A text with none
of these is split into its sentences. Joined, the steps are the text. Fenced code and displayed formulas (`\[ … \]`, `$$
… $$`, `\begin{…} … \end{…}`) are never split: `split_steps` knows which of them close, `is_inside_block` decides for a
text that is still being generated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..core.unicode_forms import normalize

_END = re.compile(r"[.!?]+[\"'”’)\]*_]*(?=\s|$)|[。！？]+|\n")  # noqa: RUF001 (ideographic full stops)
# fmt: off
_ABBREVIATIONS = frozenset([
    "dr", "mr", "mrs", "ms", "prof", "st", "jr", "sr", "mt", "ft", "gen", "col", "lt", "sgt", "rev", "hon", "no",
    "nr", "vol", "fig", "eq", "approx", "ca", "cf", "vs", "etc", "dept", "univ", "inc", "ltd", "co", "e.g", "i.e",
    "a.m", "p.m", "u.s", "u.k", "d.c", "b.c", "a.d", "ph.d",
])
# fmt: on
# After a single capital letter and a point, these words begin a sentence ("… vitamin C. It is …"), others continue a
# name ("J. K. Rowling").
# fmt: off
_STARTERS = frozenset([
    "the", "this", "that", "these", "those", "it", "he", "she", "they", "we", "you", "i", "so", "thus", "hence",
    "therefore", "because", "since", "as", "in", "on", "at", "by", "for", "from", "to", "a", "an", "and", "but", "or",
    "if", "when", "while", "however", "then", "option", "answer", "choice", "all", "both", "each", "there", "here",
    "note", "let", "with", "is", "are", "explanation", "question",
])
# fmt: on
_LAST_WORD = re.compile(r"[^\s(\[\"'*]{1,12}$")
_NEXT_WORD = re.compile(r"\s*([^\W\d_]+)")


def sentence_spans(text: str, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
    """Spans of the sentences, in order, without the blanks around them; a line's end is a sentence's end.

    A point within a number, after an initial ("J. K. Rowling") or after a common abbreviation ends nothing. Linear.
    """
    stop = len(text) if end is None else end
    begin = start
    for match in _END.finditer(text, start, stop):
        if match[0] == "." and _continues(text, match.start(), match.end(), stop):
            continue
        yield from _stripped(text, begin, match.end())
        begin = match.end()
    yield from _stripped(text, begin, stop)


def sentence_end(text: str, start: int, end: int) -> int:
    """Where the sentence that begins at `start` ends, its full stop included."""
    for match in _END.finditer(text, start, end):
        if match[0] == "." and _continues(text, match.start(), match.end(), end):
            continue
        return match.end()
    return end


def _stripped(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    piece = text[start:end]
    left = len(piece) - len(piece.lstrip())
    right = len(piece.rstrip())
    if left < right:
        yield start + left, start + right


def _continues(text: str, point: int, after: int, end: int) -> bool:
    """Whether the point at `point` belongs to an abbreviation or an initial."""
    word = _LAST_WORD.search(text, max(0, point - 12), point)
    if word is None:
        return False
    following = _NEXT_WORD.match(text, after, min(end, after + 24))
    if following is None or "\n" in text[after : following.start(1)]:
        return False
    if word[0].lower() in _ABBREVIATIONS:
        return True
    initial = len(word[0]) == 1 and word[0].isupper() and word[0] != "I"
    dotted = re.fullmatch(r"(?:[A-Z]\.)+[A-Z]", word[0]) is not None
    return (initial or dotted) and following[1].lower() not in _STARTERS


# A line that begins a step: "## Step 2", "**Step 2:**", "Step 2.", "2. …", "2) …", "(2) …".
_BEGIN = re.compile(
    r"^[ \t]{0,8}(?:\#{1,6}[ \t]|[*_]{0,3}step[ \t]{0,3}[0-9]{1,3}\b|[*_]{0,3}\(?[0-9]{1,3}[.)][*_]{0,3}[ \t])",
    re.MULTILINE | re.IGNORECASE,
)
_BLANK = re.compile(r"\n[ \t\r]*\n\s*")
_FENCE = re.compile(r"^[ \t]{0,8}(?:```|~~~)", re.MULTILINE)
_DISPLAY = re.compile(r"\\\[|\\\]|\$\$|\\(?:begin|end)\{")


def split_steps(text: str) -> list[str]:
    """Split a text into steps.

    White space belongs to the preceding step, at the text's beginning to the first step. Linear in the text's length.

    Args:
        text: A chain of reasoning.

    Returns:
        The steps, none of them blank unless the text is; joined, they are the text. Empty for an empty text.
    """
    if not text:
        return []
    cuts = _marked_cuts(text)
    if not cuts:
        cuts = _sentence_cuts(text)
    return _pieces(text, cuts)


def _marked_cuts(text: str) -> list[int]:
    cuts = {m.start() for m in _BEGIN.finditer(text)} | {m.end() for m in _BLANK.finditer(text)}
    return _outside(text, sorted(cuts))


def _sentence_cuts(text: str) -> list[int]:
    cuts = []
    at = 0
    while at < len(text):
        at = sentence_end(text, at, len(text))
        while at < len(text) and text[at].isspace():
            at += 1
        cuts.append(at)
    return _outside(text, cuts)


def _outside(text: str, cuts: list[int]) -> list[int]:
    """The cuts that are outside of fenced code and displayed formulas."""
    if not _FENCE.search(text) and not _DISPLAY.search(text):
        return cuts
    closed: list[tuple[int, int]] = []
    fences = [m.start() for m in _FENCE.finditer(text)]
    closed += zip(fences[0::2], fences[1::2], strict=False)
    depth = 0
    begun = 0
    dollars: int | None = None
    for mark in _DISPLAY.finditer(text):
        if mark[0] == "$$":
            if dollars is None:
                dollars = mark.start()
            else:
                closed.append((dollars, mark.end()))
                dollars = None
        elif mark[0] in ("\\[", "\\begin{"):
            begun = mark.start() if depth == 0 else begun
            depth += 1
        elif depth > 0:
            depth -= 1
            if depth == 0:
                closed.append((begun, mark.end()))
    closed.sort()
    kept = []
    i = 0
    covered = 0  # end of the regions that begin before the cut
    for cut in cuts:
        while i < len(closed) and closed[i][0] < cut:
            covered = max(covered, closed[i][1])
            i += 1
        if cut >= covered:
            kept.append(cut)
    return kept


def _pieces(text: str, cuts: list[int]) -> list[str]:
    pieces = []
    start = 0
    for cut in [*cuts, len(text)]:
        if text[start:cut].strip():  # a blank stretch joins what follows
            pieces.append(text[start:cut])
            start = cut
    if start < len(text):  # a blank end joins what comes before
        if pieces:
            pieces[-1] += text[start:]
        else:
            pieces.append(text[start:])
    return pieces


# "Step 3:", "**Step 3.1**", "## Step 3 -", "- 3. ", "(3) "; a bare number needs a blank after it, so that "3.5 kg" and
# "(2)(3) = 6" are no labels
_LABEL = re.compile(
    r"(?:[#>*_ ]|-(?= )){0,8}(?:step ?[0-9]{1,3}(?:\.[0-9]{1,3}){0,2}\b"
    r"(?:[*_ ]{0,4}(?:[:.)]|[-\u2013\u2014](?= )))?[*_ ]{0,4}"
    r"|\(?[0-9]{1,3}[.)]{1,2}[*_]{0,3}(?: |$))",
    re.IGNORECASE,
)
_BLANKS = re.compile(r"\s+")


def normalize_step(text: str) -> str:
    """The normal form by which siblings are compared: NFKC, blanks collapsed, without a label such as "Step 3:".

    Source: A*-decoding (Chatziveroglou 2025, arXiv:2505.13672) leaves this open; the form is ours.
    """
    form = _BLANKS.sub(" ", normalize("NFKC", text)).strip()
    label = _LABEL.match(form)
    return form[label.end() :] if label else form


def strip_repeated_steps(steps: Sequence[str], text: str) -> str:
    """A continuation without the steps that it repeats.

    A model that cannot continue a given prefix is instructed to continue it, and may repeat all of it or its end.
    Blanks do not count in the comparison.

    Args:
        steps: The steps of the prefix.
        text: The continuation.

    Returns:
        The text after the longest run of last steps that it begins with, or empty if it only repeats first steps; the
        text itself if it repeats nothing.
    """
    for first in range(len(steps)):
        end = _after(steps[first:], text)
        if end is not None:
            return text[end:].lstrip()
    for last in range(len(steps) - 1, 0, -1):
        end = _after(steps[:last], text)
        if end is not None and not text[end:].strip():
            return ""
    return text


def _after(steps: Sequence[str], text: str) -> int | None:
    """Position in the text after these steps; None if it does not begin with them."""
    at = 0
    for word in (word for step in steps for word in step.split()):  # most texts differ in the first word
        while at < len(text) and text[at].isspace():
            at += 1
        if not text.startswith(word, at):
            return None
        at += len(word)
    return at or None


FORMULA_CHARS = 2000
"""Longest formula, in characters: an opening mark further back is a stray one."""

_MARK = re.compile(
    r"""
    ^[ \t]{0,8}(?P<fence>`{3,}(?=[^`\n]*$)|~{3,})(?P<info>[^\n]*)$
    | (?P<dollars>(?<!\\)\$\$)
    | (?<!\\)\\(?P<bracket>[\[\]])
    | (?<!\\)\\(?P<environment>begin|end)\{
    """,
    re.VERBOSE | re.MULTILINE,
)


class _Blocks:
    """Which blocks are open after the marks so far, in the order of the text.

    Formula marks inside code are ignored, and a fence inside a formula means that the formula's mark was a stray one.
    """

    def __init__(self) -> None:
        self._fence: str | None = None
        self._dollars: int | None = None
        self._bracket: int | None = None
        self._environments: list[int] = []

    def take(self, mark: re.Match[str]) -> None:
        """Process the next mark."""
        if mark["fence"]:
            if self._fence is None:
                self._fence = mark["fence"]
                self._dollars = self._bracket = None
                self._environments.clear()
            elif mark["fence"].startswith(self._fence) and not mark["info"].strip():
                self._fence = None
        elif self._fence is not None:
            return
        elif mark["dollars"]:
            stray = self._dollars is not None and mark.start() - self._dollars > FORMULA_CHARS
            self._dollars = mark.start() if self._dollars is None or stray else None
        elif mark["bracket"]:
            self._bracket = mark.start() if mark["bracket"] == "[" else None
        elif mark["environment"] == "begin":
            self._environments.append(mark.start())
        elif self._environments:
            self._environments.pop()

    def is_open(self, at: int) -> bool:
        """Whether a position after the last mark is inside a block."""
        begun = (self._dollars, self._bracket, self._environments[-1] if self._environments else None)
        return self._fence is not None or any(start is not None and at - start <= FORMULA_CHARS for start in begun)


def is_inside_block(text: str) -> bool:
    """Whether a text ends inside fenced code or a displayed formula. Linear in the text's length.

    Args:
        text: The beginning of a solution, from its first character on.
    """
    blocks = _Blocks()
    for mark in _MARK.finditer(text):
        blocks.take(mark)
    return blocks.is_open(len(text))


def find_boundary(text: str, delimiter: str, before: str = "") -> int | None:
    """Position of the first delimiter outside of fenced code and displayed formulas; None if there is none.

    Linear in the length of both texts, whatever the delimiter.

    Args:
        text: The searched text; blanks at its beginning are no step, so a delimiter among them does not count.
        delimiter: End of a step.
        before: The text before it.
    """
    blocks, marks = _Blocks(), _MARK.finditer(before + text)
    mark = next(marks, None)
    at = text.find(delimiter, len(text) - len(text.lstrip()))
    while at >= 0:
        end = len(before) + at
        while mark is not None and (mark.start() < end if mark["fence"] else mark.end() <= end):
            blocks.take(mark)
            mark = next(marks, None)
        if not blocks.is_open(end):
            return at
        at = text.find(delimiter, at + 1)
    return None
