r"""Cutting a chain of reasoning into steps, and stopping a model at the end of one.

A step begins after a blank line, at a heading, at "Step 3:" and at a numbered item ("3. …", "3) …"). A text with none
of these is cut into its sentences. Nothing is lost: the steps, joined, are the text.
"""

from __future__ import annotations

import re

from .sentences import sentence_end

# A line that begins a step: "## Step 2", "**Step 2:**", "Step 2.", "2. …", "2) …", "(2) …".
_BEGIN = re.compile(
    r"^[ \t]{0,8}(?:\#{1,6}[ \t]|[*_]{0,3}step[ \t]{0,3}[0-9]{1,3}\b|[*_]{0,3}\(?[0-9]{1,3}[.)][*_]{0,3}[ \t])",
    re.MULTILINE | re.IGNORECASE,
)
_BLANK = re.compile(r"\n[ \t\r]*\n\s*")
_FENCE = re.compile(r"^[ \t]{0,8}(?:```|~~~)", re.MULTILINE)
_DISPLAY = re.compile(r"\\\[|\\\]|\$\$|\\(?:begin|end)\{")


def split_steps(text: str) -> list[str]:
    """Cut a text into steps.

    Code between fences and displayed formulas are never cut. White space belongs to the step before it, at the text's
    beginning to the first step. Linear in the text's length.

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


def step_stops() -> tuple[str, ...]:
    """Stop strings for generating a chain step by step: where `split_steps` would begin the next step.

    A blank line ends a step; models that write none begin the next step with "Step" or a heading on a new line.
    """
    return ("\n\n", "\nStep ", "\n## ", "\n### ")


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
    """The cuts that lie in no fenced code and no displayed formula."""
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
