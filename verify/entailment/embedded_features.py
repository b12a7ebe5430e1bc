"""Features of a text and a claim for the embedded judge: a mark for each word and numbers about the pair.

The network has 22 million weights and some ten thousand training pairs. Shared words and matching numbers need not be
learned from them: they are computed here, from stems, values of numbers, names and negations.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

from ...reasoning.answers.normalization import find_numerals
from ..types import Pair

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")  # noqa: RUF001 (typographic apostrophe)
_ORDINAL = frozenset({"st", "nd", "rd", "th", "s"})
_ENDINGS: Final = ("'s", "’s", "ing", "ed", "es", "s", "ly", "e")  # noqa: RUF001
_MIN_STEM: Final = 4

# fmt: off
_SMALL: Final = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)
# fmt: on
_NUMBER_WORDS: Final = {word: float(i) for i, word in enumerate(_SMALL)} | {
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
"""Stop words of the trained network; fixed, since its weights depend on them."""
NEGATIONS: Final = frozenset([
    "not", "never", "no", "none", "nobody", "nothing", "neither", "nor", "without", "cannot", "lacks", "lacked",
    "lack", "fails", "failed", "refused", "refuses", "unable", "incapable", "avoided", "zero",
])
ABSOLUTES: Final = frozenset([
    "only", "solely", "exclusively", "entirely", "all", "always", "every", "completely", "just", "purely",
])
# fmt: on

Kind = Literal["word", "name", "number", "year"]


_MAX_VALUE: Final = 1e200
"""Maximum absolute value, within the range of a float."""


@dataclass(frozen=True, slots=True)
class FeatureWord:
    """A word or number of a text.

    Attributes:
        start: Its first character.
        end: One past the last.
        stem: Key for comparison; numbers of equal value have the same.
        kind: A plain word, a capitalised one, a number, or a number that may be a year.
        value: Value of a number; 0 for words.
        percent: Whether it is a percentage.
        plain: Whether it is a stop word (`STOP`).
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


def feature_words(text: str) -> list[FeatureWord]:
    """The words and numbers of a text, in order. Linear in the text's length."""
    words: list[FeatureWord] = []
    at = 0
    for numeral in find_numerals(text):
        words.extend(_parse_words(text, at, numeral.start, words[-1] if words else None))
        value = _as_float(numeral.value)
        year = numeral.text.isdigit() and 1000 <= value <= 2100 and "," not in text[numeral.start : numeral.end]
        start = numeral.start + (text[numeral.start] == " ")
        words.append(_number(start, numeral.end, value, "year" if year else "number", numeral.percent))
        at = numeral.end
    words.extend(_parse_words(text, at, len(text), words[-1] if words else None))
    return _merge_scales(words, text)


def _parse_words(text: str, start: int, end: int, before: FeatureWord | None) -> Iterator[FeatureWord]:
    for match in _WORD.finditer(text, start, end):
        word = match.group()
        lowered = word.casefold()
        if before is not None and before.end == match.start() and lowered in _ORDINAL and before.counts:
            continue
        if lowered in _NUMBER_WORDS and lowered not in ("one", "zero"):
            yield _number(match.start(), match.end(), _NUMBER_WORDS[lowered], "number", False)
            continue
        negates = lowered in NEGATIONS or lowered.endswith(("n't", "n’t"))  # noqa: RUF001
        plain = lowered in STOP
        name = word[0].isupper() and not plain and not negates
        yield FeatureWord(
            match.start(), match.end(), stem(lowered), "name" if name else "word", plain=plain, negates=negates
        )


def stem(word: str) -> str:
    """A word without its inflectional ending; short words are unchanged."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= (_MIN_STEM if ending[0] not in "'’" else 1):  # noqa: RUF001
            word = word[: -len(ending)]
            break
    return word[:-1] + "i" if word.endswith("y") and len(word) >= _MIN_STEM else word


def _as_float(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return _MAX_VALUE if value > 0 else -_MAX_VALUE


def _number(start: int, end: int, value: float, kind: Kind, percent: bool) -> FeatureWord:
    value = max(-_MAX_VALUE, min(value, _MAX_VALUE))
    return FeatureWord(start, end, f"#{value:.10g}{'%' if percent else ''}", kind, value, percent)


def _merge_scales(words: list[FeatureWord], text: str) -> list[FeatureWord]:
    """Merge scale words such as "million", and "percent", into the preceding number."""
    merged: list[FeatureWord] = []
    for word in words:
        lowered = "" if word.counts else text[word.start : word.end].casefold()
        scale, percent = _SCALES.get(lowered), lowered == "percent"
        last = merged[-1] if merged else None
        if (scale or percent) and last is not None and last.counts and word.start - last.end <= 2:
            value = last.value * (scale or 0.01)
            merged[-1] = _number(last.start, word.end, value, "number", last.percent or percent)
        else:
            merged.append(word)
    return merged


MARKS: Final = (
    "none",
    "claim: in the text",
    "claim: in the title alone",
    "claim: number that the text lacks",
    "claim: name that the text lacks",
    "claim: word that the text lacks",
    "claim: comparison that holds",
    "claim: comparison that does not hold",
    "text: in the claim",
    "text: number that the claim lacks",
    "text: name that the claim lacks",
    "negation that the other side lacks",
)
"""Names of the marks of words."""
(
    _IN_TEXT, _IN_TITLE, _NUMBER, _NAME, _MISSING, _HOLDS, _FAILS, _IN_CLAIM, _TEXT_NUMBER, _TEXT_NAME, _NEGATION,
) = range(1, 12)  # fmt: skip

FEATURES: Final = (
    "share of the claim's words in text or title",
    "share of them in the text",
    "words that both lack",
    "share of the claim's word pairs in the text",
    "number missing, the text has another",
    "number missing, the text has none",
    "all numbers found",
    "comparison holds",
    "comparison does not hold",
    "names missing",
    "negation on one side",
    "claim negates",
    "claim says only or all, the text does not",
    "share of the title in the claim",
)
"""Names of the features of a pair, each in [0, 1]."""

MAX_CHARS: Final = 4096
"""Characters of a text that are compared, more than fit the network's tokens."""

_LARGER = frozenset({"more", "over", "above", "greater", "exceed", "exceeds", "exceeded", "exceeding", "larger"})
_SMALLER = frozenset({"less", "fewer", "under", "below", "smaller"})
_LATER, _EARLIER = frozenset({"after", "since"}), frozenset({"before", "until"})
_MAX_LOG_RATIO: Final = math.log(5)
"""Maximum log ratio of two numbers that may have the same meaning."""


@dataclass(frozen=True, slots=True)
class MarkedSpan:
    """A mark on a part of a text: characters from `start` to `end`."""

    start: int
    end: int
    mark: int


@dataclass(frozen=True, slots=True)
class PairFeatures:
    """Marks and features of a pair.

    Attributes:
        title: Marks of the title, in order; words without a mark are left out.
        evidence: Marks of the evidence.
        claim: Marks of the claim.
        features: A number for each of `FEATURES`.
    """

    title: tuple[MarkedSpan, ...]
    evidence: tuple[MarkedSpan, ...]
    claim: tuple[MarkedSpan, ...]
    features: tuple[float, ...]


def pair_features(pair: Pair) -> PairFeatures:
    """Compare the words of a text and a claim. Linear in their length; uses `MAX_CHARS` characters of each."""
    evidence = feature_words(pair.evidence[:MAX_CHARS])
    title = feature_words(pair.title[:MAX_CHARS])
    text = pair.claim[:MAX_CHARS]
    claim = feature_words(text)
    in_evidence, in_title = {w.stem for w in evidence}, {w.stem for w in title}
    in_claim = {w.stem for w in claim}
    in_text = in_evidence | in_title
    comparisons = _comparisons(claim, text, evidence, pair.evidence[:MAX_CHARS])
    claim_negates, text_negates = any(w.negates for w in claim), any(w.negates for w in evidence)
    marks = [_claim_mark(w, in_evidence, in_title, comparisons.get(i), text_negates) for i, w in enumerate(claim)]
    numbers = [(i, w) for i, w in enumerate(claim) if w.counts]
    missing_numbers = [w for i, w in numbers if w.stem not in in_text and i not in comparisons]
    other_numbers = [w for w in evidence if w.counts and w.stem not in in_claim]
    content = [w for w in claim if not w.plain and not w.negates] or claim
    pairs = _stem_pairs(claim)
    extra_absolutes = _absolute_words(claim, text) - _absolute_words(evidence, pair.evidence)
    title_words = [w for w in title if not w.plain]
    features = (
        _share(sum(w.stem in in_text for w in content), len(content)),
        _share(sum(w.stem in in_evidence for w in content), len(content)),
        min(1.0, sum(w.stem not in in_text for w in content) / 5),
        _share(len(pairs & _stem_pairs(evidence)), len(pairs)),
        float(any(are_comparable(a, b) for a in missing_numbers for b in other_numbers)),
        float(any(not any(are_comparable(a, b) for b in other_numbers) for a in missing_numbers)),
        float(bool(numbers) and not missing_numbers and False not in comparisons.values()),
        float(True in comparisons.values()),
        float(False in comparisons.values()),
        min(1.0, sum(w.kind == "name" and w.stem not in in_text for w in claim) / 3),
        float(claim_negates != text_negates),
        float(claim_negates),
        float(bool(extra_absolutes)),
        _share(sum(w.stem in in_claim for w in title_words), len(title_words)),
    )
    return PairFeatures(
        title=_nonzero_marks(title, [_text_mark(w, in_claim, True) for w in title]),
        evidence=_nonzero_marks(evidence, [_text_mark(w, in_claim, claim_negates) for w in evidence]),
        claim=_nonzero_marks(claim, marks),
        features=features,
    )


def _claim_mark(
    word: FeatureWord, in_evidence: set[str], in_title: set[str], comparison: bool | None, text_negates: bool
) -> int:
    if comparison is not None:
        return _HOLDS if comparison else _FAILS
    if word.negates:
        return 0 if text_negates else _NEGATION
    if word.stem in in_evidence:
        return _IN_TEXT
    if word.stem in in_title:
        return _IN_TITLE
    if word.plain:
        return 0
    return _NUMBER if word.counts else (_NAME if word.kind == "name" else _MISSING)


def _text_mark(word: FeatureWord, in_claim: set[str], claim_negates: bool) -> int:
    if word.negates:
        return 0 if claim_negates else _NEGATION
    if word.stem in in_claim:
        return _IN_CLAIM
    return _TEXT_NUMBER if word.counts else (_TEXT_NAME if word.kind == "name" else 0)


def _nonzero_marks(words: Sequence[FeatureWord], marks: Sequence[int]) -> tuple[MarkedSpan, ...]:
    return tuple(MarkedSpan(w.start, w.end, mark) for w, mark in zip(words, marks, strict=True) if mark)


def _comparisons(
    claim: Sequence[FeatureWord], text: str, evidence: Sequence[FeatureWord], other: str
) -> dict[int, bool]:
    """For each number of the claim that is compared ("more than 100"): whether the evidence's nearest one fits."""
    holds: dict[int, bool] = {}
    for i, word in enumerate(claim):
        direction = comparison_sign(claim, i, text)
        if not word.counts or not direction:
            continue
        nearest = [(abs(_log_ratio(word, w)), j) for j, w in enumerate(evidence) if are_comparable(word, w)]
        nearest = [(distance, j) for distance, j in nearest if word.kind == "year" or distance <= _MAX_LOG_RATIO]
        if not nearest:
            continue
        _, j = min(nearest)
        nearest_word = evidence[j]
        if nearest_word.value == word.value:
            strict = direction in (1, -1)
            other_direction = comparison_sign(evidence, j, other)
            holds[i] = not strict or ((other_direction > 0) == (direction > 0) and other_direction != 0)
        else:
            holds[i] = (nearest_word.value > word.value) == (direction > 0)
    return holds


def comparison_sign(words: Sequence[FeatureWord], i: int, text: str) -> int:
    """Comparison of a number: 1 more, 2 at least, -1 less, -2 at most, 0 none."""
    before = [text[w.start : w.end].casefold() for w in words[max(0, i - 3) : i]]
    last = before[-1] if before else ""
    if words[i].kind == "year":
        return 1 if last in _LATER else (-1 if last in _EARLIER else 0)
    if before[-2:] in (["at", "least"], ["no", "fewer"]):
        return 2
    if before[-2:] in (["at", "most"], ["up", "to"]):
        return -2
    if last == "than" and len(before) > 1:
        last = before[-2]
    return 1 if last in _LARGER else (-1 if last in _SMALLER else 0)


def are_comparable(a: FeatureWord, b: FeatureWord) -> bool:
    """Whether the second is a number of the first one's kind: both percentages or neither, both years or neither."""
    return b.counts and a.percent == b.percent and (a.kind == "year") == (b.kind == "year")


def _log_ratio(a: FeatureWord, b: FeatureWord) -> float:
    if a.value <= 0 or b.value <= 0:
        return 0.0 if a.value == b.value else math.inf
    return math.log(b.value / a.value)


def _stem_pairs(words: Sequence[FeatureWord]) -> set[tuple[str, str]]:
    kept = [w.stem for w in words if not w.plain]
    return set(itertools.pairwise(kept))


def _absolute_words(words: Sequence[FeatureWord], text: str) -> set[str]:
    return {text[w.start : w.end].casefold() for w in words} & ABSOLUTES


def _share(part: int, total: int) -> float:
    return part / total if total else 0.0
