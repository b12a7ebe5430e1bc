"""Numbers, fillers and hedges in claims that programs check, and the result of such a check."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, NamedTuple, Self

from pydantic import Field, model_validator

from ...core.messages import Frozen
from ...reasoning.answers.numerals import parse_numeral

# ruff: noqa: RUF001 (typographic signs are meant)


MAX_CHARS = 2000
"""Maximum length of a claim; a longer one is not a single statement."""

_HEDGES = re.compile(
    r"\b(?:not|no|never|none|neither|nor|cannot|without|unlike|false|wrong|wrongly|incorrect\w*|untrue|invalid"
    r"|mistak\w*"
    r"|errors?|erroneous\w*|errs?|myths?|misconception|if|unless|suppos\w+|assum\w+|hypothetical\w*|imagin\w+"
    r"|pretend\w*"
    r"|would|could|might|may(?! [0-9])|perhaps|possibly|whether|believ\w+|claim(?:s|ed|ing)?|said|says?|saying"
    r"|think|thinks|thought|argu\w+|alleg\w+|suggest\w*|instead|rather|joke\w*|jokingly|fiction\w*|novel|slogan"
    r"|song|title[ds]?|film"
    r"|movie|game|called|named|base|binary|octal|hex|hexadecimal|ternary|modulo|mod|modular|clock|boolean|logical"
    r"|ring|field|group"
    r"|matrix|vectors?|strings?|concatenat\w+|complex|approximation|estimat\w+|guess\w*|example of|impossible|exist\w*"
    r"|hoax|typo|misprint\w*|misread\w*|placeholder)\b|n['’]t\b|≠|!=|\?",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"[\"“”«»„`]|(?<!\w)['‘](?=\w)")

# fmt: off
_FILLERS = frozenset([
    "so", "thus", "therefore", "hence", "then", "that", "because", "since", "as", "means", "exactly", "precisely",
    "also", "and", "we", "get", "have", "answer", "result", "in", "fact", "indeed", "now", "clearly", "mathematically",
    "it", "follows", "know", "see", "the", "calculation", "is", "this", "gives", "result", "consequently", "finally",
    "first", "second", "next", "note", "on", "a", "day", "to", "be", "precise", "other", "words", "which", "total",
])
_UNITS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]
_TENS = {
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
# fmt: on
_SMALL = {word: i for i, word in enumerate(_UNITS)} | _TENS
_DIGITS = re.compile(
    r"(?<![\w.,/^])(?:(?<!\S)[-−])?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,30})(?:\.[0-9]{1,30})?"
    r"(?![0-9]|[.,/:][0-9]|\^|[ ]?[×x*][ ]?10[ ]?\^)"
)
_SCALE = re.compile(r"[ -]?(hundred|thousand|million|billion|trillion)\b", re.IGNORECASE)
_WORDS = re.compile(
    rf"\b(?:(?:{'|'.join(_TENS)})[- ](?:{'|'.join(_UNITS[1:10])})|(?:{'|'.join([*_TENS, *reversed(_UNITS)])}))\b",
    re.IGNORECASE,
)
_CONTINUATION = re.compile(
    rf"[- ](?:and[- ])?(?:{'|'.join([*_TENS, *_UNITS, *_SCALES, 'half', 'point', 'dozen', 'score'])})\b", re.IGNORECASE
)
_WORD = re.compile(r"\w+(?:['’]\w+)?")


class WrittenNumber(NamedTuple):
    """A number in a claim.

    Attributes:
        value: Its value.
        decimals: Digits after the decimal point; 0 for an integer, negative if a scale word ("million") replaces zeros.
        start: First character.
        end: One past the last character.
    """

    value: Fraction
    decimals: int
    start: int
    end: int


def read_number(text: str, at: int) -> WrittenNumber | None:
    """The number at a position, in digits ("1,500", "1.5 million") or in words up to "ninety-nine thousand".

    None if there is none, or if it continues in an unsupported way ("two and a half", "1/2", "10^3").
    """
    digits = _DIGITS.match(text, at)
    if digits is not None:
        numeral = parse_numeral(digits[0].replace("−", "-"))
        if numeral is None:
            return None
        value, decimals, end = numeral.value, numeral.decimals or 0, digits.end()
    else:
        words = _WORDS.match(text, at)
        if words is None:
            return None
        parts = words[0].lower().replace("-", " ").split()
        value, decimals, end = Fraction(sum(_SMALL[part] for part in parts)), 0, words.end()
    scale = _SCALE.match(text, end)
    if scale is not None:
        zeros = _SCALES[scale[1].lower()]
        value, decimals, end = value * 10**zeros, decimals - zeros, scale.end()
    if _CONTINUATION.match(text, end):
        return None
    return WrittenNumber(value, decimals, at, end)


def is_hedged(text: str) -> bool:
    """Whether a text negates, supposes, reports or jokes, so that it does not simply state something."""
    return _HEDGES.search(text) is not None


def is_filler(text: str) -> bool:
    """Whether a text has only whitespace, punctuation and words such as "so" and "therefore"."""
    return all(word.lower() in _FILLERS for word in _WORD.findall(text))


def has_quotes(text: str) -> bool:
    """Whether a text has quotation marks, so that parts of it may be quoted."""
    return _QUOTED.search(text) is not None


class ProgramVerdict(Frozen):
    """Result of a check. A wrong part makes the claim wrong; a correct part supports only itself.

    Attributes:
        holds: Whether the checked part is correct.
        detail: The computation, in one line.
        start: First character of the part in the claim's text.
        end: One past the last character.
        is_complete: Whether the part is the complete claim. "She was born in 1900 and died in 1950 at 50" agrees with
            itself, but that does not support the year of birth.
    """

    holds: bool
    detail: str
    start: Annotated[int, Field(ge=0)]
    end: int
    is_complete: bool = False

    @model_validator(mode="after")
    def _check_span(self) -> Self:
        if self.end <= self.start:
            raise ValueError(f"the part ends ({self.end}) before it begins ({self.start})")
        return self
