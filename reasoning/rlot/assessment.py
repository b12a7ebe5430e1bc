"""Parsing a self-assessment: seven scores from 0 to 3.

A completion is parsed as JSON where it contains JSON (`scores_in_json`), and by the names of the aspects for the rest
(`scores_in_text`). Scores are the integers 0 to 3 in digits: `2`, `"2"`, `2.0`, `2/3`; words, ranges (`0-3`) and other
numbers are not. An aspect without a score is 0, "not involved", and is counted as missing. The last of several scores
of an aspect counts. Text in `<think>` is ignored.

Source: Hao, Li, Yuan, Li 2025, "RL of Thoughts", arXiv:2505.14140, for the aspects and the scale. Differs: the authors'
program uses one regular expression, to which bold or bracketed names are "not involved", and does not count what it
cannot parse.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from ..answers.normalization import visible_text

ASPECTS: Final = ("A1", "A2", "A3", "B1", "B2", "C1", "C2")
"""Correctness of the modelling, clarity for further reasoning, correctness of the calculation; complexity still ahead,
existence of alternative methods; closeness to the final answer, completeness within the step."""

State: TypeAlias = tuple[int, int, int, int, int, int, int]
"""A score for each of `ASPECTS`: 1 false, 2 unsure, 3 true, 0 not involved."""

ASPECT_NAME: Final = re.compile(r"(?<![A-Za-z0-9])(A[123]|B[12]|C[12])(?![A-Za-z0-9])", re.IGNORECASE)
"""The name of an aspect as a word; an underscore ends a word."""


# neither ranges that state the scale nor numbers of list items are scores
_TO = r"(?:-|\u2013|\u2014|\.{2,3}|…|\bto\b)"
_SCALE = re.compile(
    rf"(?<![\w.])[01](?:{_TO}|\s{{1,3}}to\s{{1,3}})3(?![\d.]*\d)"
    rf"|[(\[]\s{{0,3}}[01]\s{{1,3}}{_TO}\s{{1,3}}3\s{{0,3}}[)\]]",  # with blanks, "1 - 3" may be a score and a reason
    re.IGNORECASE,
)
_ITEM = re.compile(
    rf"^([ \t]*)\d{{1,2}}[.)][ \t]+(?=[^\w\n]{{0,4}}{ASPECT_NAME.pattern})", re.IGNORECASE | re.MULTILINE
)

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_SCORE = re.compile(
    r"([0-3])(?:\.0+)?(?![A-Za-z%]|\.?\d)"
    r"(?:\s{0,3}/\s{0,3}3(?!\s{0,3}/|\.?\d))?"  # of the scale's end
    r"(?!\s{0,3}(?:/|\.\.|…|to\b|or\b)\s{0,3}\d|[-\u2013\u2014+*\u00d7,]\d|\s{0,3},\s{0,3}\d\s{0,3}(?:,|or\b))",
    re.IGNORECASE,
)
_SCORE_WORD = re.compile(r"(?<![A-Za-z])(?:scored?|rating|rated)(?![A-Za-z])[\W_]{0,12}(?:(?:is|of|as)\s{1,3})?", re.I)
_BRACKETED = re.compile(r"(?<!\w)[(\[|]\s{0,3}(?=[0-3](?:\s{0,3}/\s{0,3}3)?\s{0,3}[)\]|])")
_CLOSED = re.compile(r"[\d./\s]{1,8}[)\]]")
_LINE_END = re.compile(r"[\d./]{1,6}[\s*_\"'`,;.)\]}]*(?:\n|\Z)")
_MAX_LABEL_CHARS = 150


def scores_in_text(text: str) -> dict[str, int]:
    """The scores by aspect, the last one of each aspect.

    What belongs to an aspect reaches from its name to the next name. Its score is the first of: a number labelled as a
    score ("Score: 3"); the first number, if only a label and a separator precede it; a number in brackets or in a table
    cell.
    """
    text = _SCALE.sub(" ", _ITEM.sub(r"\1", text))
    names = list(ASPECT_NAME.finditer(text))
    scores: dict[str, int] = {}
    for i, name in enumerate(names):
        end = names[i + 1].start() if i + 1 < len(names) else len(text)
        score = _score_in(text[name.end() : end])
        if score is not None:
            scores[name[1].upper()] = score
    return scores


def score_at(text: str, position: int = 0) -> int | None:
    """The score at a position; None if there is none."""
    match = _SCORE.match(text, position)
    return None if match is None else int(match[1])


def _score_in(text: str) -> int | None:
    """The score in the text of one aspect."""
    for match in _SCORE_WORD.finditer(text):
        score = score_at(text, match.end())
        if score is not None:
            return score
    number = _NUMBER.search(text)
    if number is None:
        return None
    if _separated(text, number.start()):
        return None if _negative(text[: number.start()]) else score_at(text, number.start())
    bracketed = _BRACKETED.search(text)
    return None if bracketed is None else score_at(text, bracketed.end())


def _separated(text: str, start: int) -> bool:
    """Whether only a label and a separator precede the first number."""
    before = text[:start]
    label = before.rstrip(" \t*_\"'`")
    if not any(c.isalnum() for c in before):
        return True
    if "\n" in before or len(before) > _MAX_LABEL_CHARS:
        return False
    if label.endswith(("(", "[")):
        return _CLOSED.match(text, start) is not None
    if label.endswith((":", "=", "|", ")", "]", "-", "\u2013", "\u2014", "\u2192", ">")):
        return True
    # "A1 modelling 3" is a score, "A1: as shown in step 3" is none
    return ":" not in before and "=" not in before and _LINE_END.match(text, start) is not None


def _negative(before: str) -> bool:
    """Whether the number is negative: a dash touches it and another separator precedes the dash."""
    return before.endswith(("-", "\u2212")) and any(sign in before for sign in ":=|([")


_MAX_ATTEMPTS = 64  # to find JSON: each may read to the text's end
_MAX_DEPTH = 8
_SCORE_KEYS = ("score", "value", "rating")


class _Object(list[tuple[str, Any]]):
    """A JSON object as pairs, since names may repeat."""


def scores_in_json(text: str) -> dict[str, int | None]:
    """The scores by aspect, in plain JSON, objects with a reason, nested objects, or lists of named scores.

    Returns:
        One entry for each aspect that is named: its last score, None if it has no valid one.
    """
    scores: dict[str, int | None] = {}
    for value in _values(text):
        for aspect, score in _named(value, _MAX_DEPTH):
            if score is not None or aspect not in scores:
                scores[aspect] = score
    return scores


def _values(text: str) -> Iterator[Any]:
    """The outermost JSON objects and lists in a text."""
    decoder = json.JSONDecoder(object_pairs_hook=_Object)
    position = 0
    for _ in range(_MAX_ATTEMPTS):
        starts = [at for at in (text.find("{", position), text.find("[", position)) if at >= 0]
        if not starts:
            return
        try:
            value, position = decoder.raw_decode(text, min(starts))
        except (ValueError, RecursionError):
            position = min(starts) + 1
        else:
            yield value


def _named(value: Any, depth: int) -> Iterator[tuple[str, int | None]]:
    """Aspects and their scores, in order."""
    if depth == 0 or not isinstance(value, list):
        return
    if not isinstance(value, _Object):
        for item in value:
            yield from _named(item, depth - 1)
        return
    aspects = [_aspect(key) for key, _ in value]
    if not any(aspects):
        named = [aspect for _, text in value if isinstance(text, str) and (aspect := _aspect(text))]
        score = _score_of_keys(value)
        if len(named) == 1 and score is not None:  # {"aspect": "A1", "score": 2}
            yield named[0], score
            return
    for (key, inner), aspect in zip(value, aspects, strict=True):
        if aspect is None:
            yield from _named(inner, depth - 1)
        else:
            yield aspect, _score(inner, plain=key.strip().upper() == aspect)


def _aspect(key: str) -> str | None:
    """The aspect at the beginning of a key, as in "A1", "**A1**" and "A1: correctness"."""
    match = ASPECT_NAME.search(key[:12])
    return match[1].upper() if match and not any(c.isalnum() for c in key[: match.start()]) else None


def _score(value: Any, *, plain: bool) -> int | None:
    """The score that a value is or contains.

    Args:
        plain: Whether the key is exactly the aspect's name; only then may a text continue after the score.
    """
    if isinstance(value, _Object):
        by_key = _score_of_keys(value)
        return by_key if by_key is not None else _only(inner for _, inner in value)
    if isinstance(value, list):
        return _only(value)
    if isinstance(value, str) and plain:
        return score_at(value.strip())
    return _scalar(value)


def _score_of_keys(pairs: _Object) -> int | None:
    scores = [_scalar(inner) for key, inner in pairs if key.strip().lower() in _SCORE_KEYS]
    return next((score for score in reversed(scores) if score is not None), None)


def _only(values: Iterator[Any] | list[Any]) -> int | None:
    scores = [score for value in values if (score := _scalar(value)) is not None]
    return scores[0] if len(scores) == 1 else None


def _scalar(value: Any) -> int | None:
    """A number or text that is exactly a score; booleans are not."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return int(value) if value in (0, 1, 2, 3) else None
    if isinstance(value, str) and len(value) <= 12 and not any(c.isalpha() for c in value):
        return score_at(value.strip())
    return None


_MAX_CHARS = 20_000
"""Characters parsed, from the end; an assessment has a few hundred."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """A model's self-assessment.

    Attributes:
        state: The scores; missing ones are 0.
        missing: Number of aspects without a score, 0 to 7.
    """

    state: State
    missing: int


def read_assessment(text: str) -> Assessment:
    """Parse the scores in a completion; never raises, missing ones are counted."""
    visible = visible_text(text[-_MAX_CHARS:]).text
    in_json = scores_in_json(visible)
    scores = {**scores_in_text(visible), **in_json}
    a1, a2, a3, b1, b2, c1, c2 = (scores.get(aspect) for aspect in ASPECTS)
    return Assessment(
        state=(a1 or 0, a2 or 0, a3 or 0, b1 or 0, b2 or 0, c1 or 0, c2 or 0),
        missing=(a1, a2, a3, b1, b2, c1, c2).count(None),
    )
