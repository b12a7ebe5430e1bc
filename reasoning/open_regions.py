r"""Whether a text that is still being written stands inside something that must not be cut.

Fenced code, and displayed formulas: `\[ … \]`, `$$ … $$`, `\begin{…} … \end{…}`. `steps.split_steps` answers the same
for a text that is whole, where it knows which of these close; here the end is still to come.
"""

from __future__ import annotations

import re

FORMULA_CHARS = 2000
"""Longest formula, in characters: what opened one further back is a stray mark and not heeded any more."""

_MARK = re.compile(
    r"""
    ^[ \t]{0,8}(?P<fence>`{3,}(?=[^`\n]*$)|~{3,})(?P<info>[^\n]*)$
    | (?P<dollars>(?<!\\)\$\$)
    | (?<!\\)\\(?P<bracket>[\[\]])
    | (?<!\\)\\(?P<environment>begin|end)\{
    """,
    re.VERBOSE | re.MULTILINE,
)


def is_open(text: str) -> bool:
    """Whether a text ends inside fenced code or a displayed formula.

    Marks of formulas inside code mean nothing, and a fence inside a formula shows that the formula's mark was a stray
    one. Linear in the text's length.

    Args:
        text: The beginning of a reply, from its first character on.
    """
    fence: str | None = None
    dollars: int | None = None
    bracket: int | None = None
    environments: list[int] = []
    for mark in _MARK.finditer(text):
        if mark["fence"]:
            if fence is None:
                fence = mark["fence"]
                dollars = bracket = None
                environments.clear()
            elif mark["fence"].startswith(fence) and not mark["info"].strip():
                fence = None
        elif fence is not None:
            continue
        elif mark["dollars"]:
            stray = dollars is not None and mark.start() - dollars > FORMULA_CHARS
            dollars = mark.start() if dollars is None or stray else None
        elif mark["bracket"]:
            bracket = mark.start() if mark["bracket"] == "[" else None
        elif mark["environment"] == "begin":
            environments.append(mark.start())
        elif environments:
            environments.pop()
    begun = [at for at in (dollars, bracket, *environments) if at is not None]
    return fence is not None or any(len(text) - at <= FORMULA_CHARS for at in begun)


def first_boundary(text: str, delimiter: str, before: str = "") -> int | None:
    """Where the first delimiter begins that lies in nothing which must not be cut; None if there is none.

    Args:
        text: What is searched; blanks at its beginning are no step, so a delimiter among them does not count.
        delimiter: What ends a step.
        before: What stands before the text.
    """
    at = text.find(delimiter, len(text) - len(text.lstrip()))
    while at >= 0:
        if not is_open(before + text[:at]):
            return at
        at = text.find(delimiter, at + 1)
    return None
