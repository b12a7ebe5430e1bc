"""The words of a text as the embedded judge compares them: stems, numbers with their worth, names, negations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

from ...reasoning.numerals import find_numerals

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")  # noqa: RUF001 (typographic apostrophe)
_ORDINAL = frozenset({"st", "nd", "rd", "th", "s"})
_ENDINGS: Final = ("'s", "’s", "ing", "ed", "es", "s", "ly", "e")  # noqa: RUF001
_LEAST_STEM: Final = 4

# fmt: off
_SMALL: Final = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)
# fmt: on
_WORTH: Final = {word: float(i) for i, word in enumerate(_SMALL)} | {
    "thirty": 30.0,
    "forty": 40.0,
    "fifty": 50.0,
    "sixty": 60.0,
    "seventy": 70.0,
    "eighty": 80.0,
    "ninety": 90.0,
}
_SCALES: Final = {"hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}

# fmt: off
STOP: Final = frozenset([
    "a", "an", "the", "of", "in", "on", "at", "by", "for", "to", "from", "with", "as", "and", "or", "but", "nor",
    "so", "yet", "if", "than", "that", "this", "these", "those", "there", "here", "it", "its", "he", "she", "his",
    "her", "him", "hers", "they", "them", "their", "theirs", "we", "us", "our", "you", "your", "i", "me", "my", "who",
    "whom", "whose", "which", "what", "when", "where", "is", "are", "was", "were", "be", "been", "being", "am", "has",
    "have", "had", "having", "do", "does", "did", "will", "would", "can", "could", "may", "might", "shall", "should",
    "must", "s", "t", "also", "into", "out", "up", "about", "between", "during", "after", "before", "over", "under",
    "again", "then", "once", "both", "each", "such", "own", "same", "too", "very", "just", "one",
])
"""Words that say little by themselves."""
NEGATIONS: Final = frozenset([
    "not", "never", "no", "none", "nobody", "nothing", "neither", "nor", "without", "cannot", "lacks", "lacked",
    "lack", "fails", "failed", "refused", "refuses", "unable", "incapable", "avoided", "zero",
])
ABSOLUTES: Final = frozenset([
    "only", "solely", "exclusively", "entirely", "all", "always", "every", "completely", "just", "purely",
])
# fmt: on

Kind = Literal["word", "name", "number", "year"]


_LARGEST: Final = 1e200
"""Where numbers end: hundreds of digits are no quantity, and a float holds 308 of them."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word or number of a text.

    Attributes:
        start: Its first character.
        end: One past the last.
        stem: What it is compared by; numbers of equal worth have the same.
        kind: A plain word, a capitalised one, a number, or a number that looks like a year.
        value: What a number is worth; 0 for words.
        percent: Whether it is a percentage.
        plain: Whether it says little by itself (`STOP`).
        negates: Whether it negates.
    """

    start: int
    end: int
    stem: str
    kind: Kind
    value: float = 0.0
    percent: bool = False
    plain: bool = False
    negates: bool = False

    @property
    def counts(self) -> bool:
        """Whether it is a number or year."""
        return self.kind in ("number", "year")


def words_in(text: str) -> list[Word]:
    """The words and numbers of a text, in order. Linear in the text's length."""
    found: list[Word] = []
    at = 0
    for numeral in find_numerals(text):
        found.extend(_plain_words(text, at, numeral.start, found[-1] if found else None))
        value = _as_float(numeral.value)
        year = numeral.figure.isdigit() and 1000 <= value <= 2100 and "," not in text[numeral.start : numeral.end]
        start = numeral.start + (text[numeral.start] == " ")
        found.append(_number(start, numeral.end, value, "year" if year else "number", numeral.percent))
        at = numeral.end
    found.extend(_plain_words(text, at, len(text), found[-1] if found else None))
    return _scaled(found, text)


def _plain_words(text: str, start: int, end: int, before: Word | None) -> Iterator[Word]:
    for match in _WORD.finditer(text, start, end):
        word = match.group()
        low = word.casefold()
        if before is not None and before.end == match.start() and low in _ORDINAL and before.counts:
            continue
        if low in _WORTH and low not in ("one", "zero"):
            yield _number(match.start(), match.end(), _WORTH[low], "number", False)
            continue
        negates = low in NEGATIONS or low.endswith(("n't", "n’t"))  # noqa: RUF001
        plain = low in STOP
        name = word[0].isupper() and not plain and not negates
        yield Word(match.start(), match.end(), stem(low), "name" if name else "word", plain=plain, negates=negates)


def stem(word: str) -> str:
    """A word without its ending, by rule; short words stay as they are."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= (_LEAST_STEM if ending[0] not in "'’" else 1):  # noqa: RUF001
            word = word[: -len(ending)]
            break
    return word[:-1] + "i" if word.endswith("y") and len(word) >= _LEAST_STEM else word


def _as_float(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return _LARGEST if value > 0 else -_LARGEST


def _number(start: int, end: int, value: float, kind: Kind, percent: bool) -> Word:
    value = max(-_LARGEST, min(value, _LARGEST))
    return Word(start, end, f"#{value:.10g}{'%' if percent else ''}", kind, value, percent)


def _scaled(words: list[Word], text: str) -> list[Word]:
    """Numbers before "million" and the like are worth as much more; the word becomes part of them. So does percent."""
    found: list[Word] = []
    for word in words:
        low = "" if word.counts else text[word.start : word.end].casefold()
        scale, percent = _SCALES.get(low), low == "percent"
        last = found[-1] if found else None
        if (scale or percent) and last is not None and last.counts and word.start - last.end <= 2:
            value = last.value * (scale or 0.01)
            found[-1] = _number(last.start, word.end, value, "number", last.percent or percent)
        else:
            found.append(word)
    return found
