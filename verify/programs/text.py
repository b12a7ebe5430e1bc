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
SMALL_NUMBERS = {word: i for i, word in enumerate(_UNITS)} | _TENS
"""Values of the number words of one word below 100."""
_DIGITS = re.compile(
    r"(?<![\w.,/^])(?:(?<!\S)[-−])?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,30})(?:\.[0-9]{1,30})?"
    r"(?![0-9]|[.,/:][0-9]|\^|[ ]?[×x*][ ]?10[ ]?\^)"
)
_SCALE = re.compile(r"[ -]?(hundred|thousand|million|billion|trillion)\b", re.IGNORECASE)
_GROUP_SCALE = re.compile(r"[ -](thousand|million|billion|trillion)\b", re.IGNORECASE)
_LINK = re.compile(r"[ -](?:and[ -])?")
_BELOW_100 = (
    rf"(?:(?:{'|'.join(_TENS)})[- ](?:{'|'.join(_UNITS[1:10])})\b|(?:{'|'.join([*_TENS, *reversed(_UNITS)])})\b)"
)
_WORDS = re.compile(
    rf"\b(?:(?P<hundreds>a|{'|'.join(reversed(_UNITS[1:20]))})[- ]hundred\b(?:[- ](?:and[- ])?(?P<rest>{_BELOW_100}))?"
    rf"|a(?=[- ](?:thousand|million|billion|trillion)\b)|(?P<small>{_BELOW_100}))",
    re.IGNORECASE,
)
_CONTINUATION = re.compile(
    rf"[- ](?:and[- ])?(?:a[- ])?(?:{'|'.join([*_TENS, *_UNITS, *_SCALES, 'half', 'point', 'dozen', 'score'])})\b",
    re.IGNORECASE,
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
    """The number at a position, in digits ("1,500", "1.5 million") or in words ("two hundred and five thousand").

    None if there is none, or if it continues in an unsupported way ("two and a half", "1/2", "10^3").
    """
    digits = _DIGITS.match(text, at)
    if digits is not None:
        numeral = parse_numeral(digits[0].replace("−", "-"))
        if numeral is None:
            return None
        value, decimals, end = numeral.value, numeral.decimals or 0, digits.end()
        scale = _SCALE.match(text, end)
        if scale is not None:
            zeros = _SCALES[scale[1].lower()]
            value, decimals, end = value * 10**zeros, decimals - zeros, scale.end()
    else:
        words = _read_words(text, at)
        if words is None:
            return None
        value, decimals, end = words
    if _CONTINUATION.match(text, end):
        return None
    return WrittenNumber(value, decimals, at, end)


def _read_words(text: str, at: int) -> tuple[Fraction, int, int] | None:
    """Value, decimals and end of a number in words: groups below 1000, each with a smaller scale word than before."""
    value, decimals, max_zeros, position = 0, 0, 15, at
    end: int | None = None
    while (words := _WORDS.match(text, position)) is not None:
        scale = _GROUP_SCALE.match(text, words.end())
        zeros = _SCALES[scale[1].lower()] if scale else 0
        if zeros >= max_zeros:
            break
        hundreds = 100 * SMALL_NUMBERS.get(words["hundreds"].lower(), 1) if words["hundreds"] else 0
        small = words["rest"] or words["small"]
        group = hundreds + (_small_value(small) if small else 0 if hundreds else 1)  # "a thousand" has no number
        value, max_zeros = value + group * 10**zeros, zeros
        decimals = -zeros or (0 if small else -2)
        end = scale.end() if scale else words.end()
        link = _LINK.match(text, end) if scale else None
        if link is None:
            break
        position = link.end()
    return None if end is None else (Fraction(value), decimals, end)


def _small_value(words: str) -> int:
    """A number below 100 in words."""
    return sum(SMALL_NUMBERS[part] for part in words.lower().replace("-", " ").split())


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
