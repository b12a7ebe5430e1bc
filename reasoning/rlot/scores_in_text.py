"""Scores of aspects in free text: bold and bracketed names, labels, tables, lists, JSON that was cut short.

What belongs to an aspect reaches from its name to the next one. In it counts the first of these that is there: a score
that is called so ("Score: 3"); the first number, where nothing but a label and a separator stands before it; a number
alone in brackets or in a cell of a table.
"""

from __future__ import annotations

import re

from .aspects import NAMED

# ranges that tell the scale, and numbers of a list's items: neither is a score
_TO = r"(?:-|\u2013|\u2014|\.{2,3}|…|\bto\b)"
_SCALE = re.compile(
    rf"(?<![\w.])[01](?:{_TO}|\s{{1,3}}to\s{{1,3}})3(?![\d.]*\d)"
    rf"|[(\[]\s{{0,3}}[01]\s{{1,3}}{_TO}\s{{1,3}}3\s{{0,3}}[)\]]",  # with blanks, "1 - 3" may be a score and a reason
    re.IGNORECASE,
)
_ITEM = re.compile(rf"^([ \t]*)\d{{1,2}}[.)][ \t]+(?=[^\w\n]{{0,4}}{NAMED.pattern})", re.IGNORECASE | re.MULTILINE)

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_SCORE = re.compile(
    r"([0-3])(?:\.0+)?(?![A-Za-z%]|\.?\d)"
    r"(?:\s{0,3}/\s{0,3}3(?!\s{0,3}/|\.?\d))?"  # of the scale's end
    r"(?!\s{0,3}(?:/|\.\.|…|to\b|or\b)\s{0,3}\d|[-\u2013\u2014+*\u00d7,]\d|\s{0,3},\s{0,3}\d\s{0,3}(?:,|or\b))",
    re.IGNORECASE,
)
_CALLED = re.compile(r"(?<![A-Za-z])(?:scored?|rating|rated)(?![A-Za-z])[\W_]{0,12}(?:(?:is|of|as)\s{1,3})?", re.I)
_ALONE = re.compile(r"(?<!\w)[(\[|]\s{0,3}(?=[0-3](?:\s{0,3}/\s{0,3}3)?\s{0,3}[)\]|])")
_CLOSED = re.compile(r"[\d./\s]{1,8}[)\]]")
_LINE_END = re.compile(r"[\d./]{1,6}[\s*_\"'`,;.)\]}]*(?:\n|\Z)")
_LONGEST_LABEL = 150


def scores_in_text(text: str) -> dict[str, int]:
    """The scores by aspect, of those alone that have one; of several of one aspect the last."""
    text = _SCALE.sub(" ", _ITEM.sub(r"\1", text))
    names = list(NAMED.finditer(text))
    found: dict[str, int] = {}
    for i, name in enumerate(names):
        end = names[i + 1].start() if i + 1 < len(names) else len(text)
        score = _score_in(text[name.end() : end])
        if score is not None:
            found[name[1].upper()] = score
    return found


def score_at(text: str, position: int = 0) -> int | None:
    """The score that is written at a position; None where none is, or a number that is no score."""
    found = _SCORE.match(text, position)
    return None if found is None else int(found[1])


def _score_in(text: str) -> int | None:
    """The score in what belongs to one aspect."""
    for called in _CALLED.finditer(text):
        score = score_at(text, called.end())
        if score is not None:
            return score
    number = _NUMBER.search(text)
    if number is None:
        return None
    if _separated(text, number.start()):
        return None if _negative(text[: number.start()]) else score_at(text, number.start())
    alone = _ALONE.search(text)
    return None if alone is None else score_at(text, alone.end())


def _separated(text: str, start: int) -> bool:
    """Whether nothing but a label and a separator stands before the first number."""
    before = text[:start]
    label = before.rstrip(" \t*_\"'`")
    if not any(c.isalnum() for c in before):
        return True
    if "\n" in before or len(before) > _LONGEST_LABEL:
        return False
    if label.endswith(("(", "[")):
        return _CLOSED.match(text, start) is not None
    if label.endswith((":", "=", "|", ")", "]", "-", "\u2013", "\u2014", "\u2192", ">")):
        return True
    # "A1 modelling 3" is a score, "A1: as shown in step 3" is none
    return ":" not in before and "=" not in before and _LINE_END.match(text, start) is not None


def _negative(before: str) -> bool:
    """Whether a minus belongs to the number: a dash that touches it, where another sign already separates."""
    return before.endswith(("-", "\u2212")) and any(sign in before for sign in ":=|([")
