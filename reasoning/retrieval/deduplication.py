"""When two texts say the same: equal but for case, spacing and punctuation, or made of the same word 3-grams.

These are the first two of three levels; the third compares embeddings (`admission`). The levels and their thresholds
are this project's own, for CoAT's aim of little redundancy (Pan, Deng, Huang 2025, arXiv:2502.02390).

`FingerprintIndex`: many texts, among which the ones that say the same as an item are found without looking at each.

`Seen`: passages that say nothing that a better one has not said word for word.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

from .passages import Passage

MIN_JACCARD = 0.80
"""Share of common 3-grams, of all that either text has, from which on two texts are the same."""
MIN_CONTAINMENT = 0.90
"""Share of an item's 3-grams that a text has, from which on the item says nothing new."""

DuplicateLevel = Literal[1, 2, 3]
"""How a duplicate was found: by its hash, by its words, by its embedding."""

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_WITHIN_WORD = re.compile(r"(?<=[^\W\d_])['\u2019](?=[^\W\d_])")
_MEANT = re.compile(
    r"""(?<=\d)\.(?=\d)        # a decimal point
      | (?<![\w.])-(?=\d)      # the sign of a number
      | (?<=\d)[*/](?=\d)     # 3/4
      | (?<=[^\W\d_])\#        # C#
      | [%‰]""",
    re.VERBOSE,
)
_WORD = re.compile(
    # scripts that put no blanks between words: a sign is a word
    r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"
    r"|[^\s\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+"
)
_ROUNDS = 8


def normalized_text(text: str) -> str:
    """A text without what does not change its meaning: NFKC, casefold, no punctuation, single blanks.

    Punctuation is Unicode's categories P; it becomes a blank, or nothing within a word ("don't") and between thousands.
    What changes a fact stays: decimal points, signs of numbers, "3/4", percent, "C#". Signs that are no punctuation,
    as + and =, stay too. Invisible characters go. The normal form of a normal form is itself.
    """
    for _ in range(_ROUNDS):  # a step may make room for another, as when a joiner goes between a letter and its accent
        before, text = text, _normal_once(text)
        if text == before:
            break
    return text


def text_hash(text: str) -> str:
    """SHA-256 of a text's normal form, in hexadecimal."""
    return _hash_of(normalized_text(text))


def normalized_words(text: str) -> list[str]:
    """The words of a text's normal form; in scripts without blanks between words, each sign is one."""
    return _WORD.findall(normalized_text(text))


@dataclass(frozen=True, slots=True)
class TextFingerprint:
    """What a text is known by.

    Attributes:
        form: Its normal form.
        words: Its words.
        trigrams: Its word 3-grams; none if it has fewer than three words.
    """

    form: str
    words: frozenset[str]
    trigrams: frozenset[tuple[str, str, str]]

    @classmethod
    def of(cls, text: str) -> TextFingerprint:
        """The marks of a text."""
        form = normalized_text(text)
        words: list[str] = _WORD.findall(form)
        return cls(form, frozenset(words), frozenset(zip(words, words[1:], words[2:], strict=False)))

    @property
    def hash(self) -> str:
        """`text_hash` of the text."""
        return _hash_of(self.form)


def jaccard(left: TextFingerprint, right: TextFingerprint) -> float:
    """Common 3-grams by all 3-grams of both, in [0, 1]; of words where a text has fewer than three."""
    a: frozenset[object] = left.trigrams if left.trigrams and right.trigrams else left.words
    b: frozenset[object] = right.trigrams if left.trigrams and right.trigrams else right.words
    return len(a & b) / len(a | b) if a and b else 0.0


def containment(item: TextFingerprint, text: TextFingerprint) -> float:
    """Share of an item's 3-grams that occur in a text, in [0, 1]; of its words if it has fewer than three."""
    if item.trigrams:
        return len(item.trigrams & text.trigrams) / len(item.trigrams)
    return len(item.words & text.words) / len(item.words) if item.words else 0.0


def duplicate_level(
    item: TextFingerprint,
    texts: Iterable[TextFingerprint],
    *,
    jaccard_from: float = MIN_JACCARD,
    containment_from: float = MIN_CONTAINMENT,
) -> DuplicateLevel | None:
    """The level, 1 or 2, on which an item says what one of some texts says; None if it says something else.

    Args:
        item: The item.
        texts: What there is already.
        jaccard_from: Least `jaccard` of the same.
        containment_from: Least `containment` of the item in a text that says the same.
    """
    found: DuplicateLevel | None = None
    for text in texts:
        if item.form == text.form:
            return 1
        if found is None and (jaccard(item, text) >= jaccard_from or containment(item, text) >= containment_from):
            found = 2
    return found


def _hash_of(form: str) -> str:
    return hashlib.sha256(form.encode()).hexdigest()


def _normal_once(text: str) -> str:
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = "".join(c for c in text if unicodedata.category(c) != "Cf").replace("\N{MINUS SIGN}", "-")
    text = _WITHIN_WORD.sub("", _THOUSANDS.sub("", text))
    meant = {m.start() for m in _MEANT.finditer(text)}
    kept = (c if i in meant or not _is_stripped(c) else " " for i, c in enumerate(text))
    return " ".join("".join(kept).split())


def _is_stripped(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] == "P" or category in ("Cc", "Cs")


K = TypeVar("K")
_Trigram = tuple[str, str, str]


class FingerprintIndex:
    """The marks of many texts by number; answers exactly as `duplicate_level` over all of them.

    A text that has three words or more can be the same as such an item only if they have a 3-gram in common.
    """

    def __init__(self) -> None:
        self._marks: dict[int, TextFingerprint] = {}
        self._short: dict[int, TextFingerprint] = {}
        self._forms: dict[str, set[int]] = defaultdict(set)
        self._having: dict[_Trigram, set[int]] = defaultdict(set)

    def __len__(self) -> int:
        return len(self._marks)

    def add(self, number: int, marks: TextFingerprint) -> None:
        """Take a text in, under a number that is not there yet."""
        self._marks[number] = marks
        self._forms[marks.form].add(number)
        if not marks.trigrams:
            self._short[number] = marks
        for trigram in marks.trigrams:
            self._having[trigram].add(number)

    def remove(self, number: int) -> None:
        """Take a text out."""
        marks = self._marks.pop(number)
        self._short.pop(number, None)
        _leave(self._forms, marks.form, number)
        for trigram in marks.trigrams:
            _leave(self._having, trigram, number)

    def marks(self, number: int) -> TextFingerprint:
        """The marks of a text."""
        return self._marks[number]

    def level(
        self, item: TextFingerprint, *, jaccard_from: float = MIN_JACCARD, containment_from: float = MIN_CONTAINMENT
    ) -> DuplicateLevel | None:
        """The level, 1 or 2, on which an item says what one of the texts says (see `duplicate_level`)."""
        if item.form in self._forms:
            return 1
        if item.trigrams:
            near = {number for trigram in item.trigrams for number in self._having.get(trigram, ())}
            texts = [*self._short.values(), *(self._marks[number] for number in near)]
        else:
            texts = list(self._marks.values())
        return duplicate_level(item, texts, jaccard_from=jaccard_from, containment_from=containment_from)


def _leave(numbers: dict[K, set[int]], key: K, number: int) -> None:
    numbers[key].discard(number)
    if not numbers[key]:
        del numbers[key]


_UNMISTAKABLE = 20
"""Words from which on the same text under two titles is taken for a copy, and not for two people's "He was born …"."""


class PassageDeduplicator:
    """Passages taken so far, best first.

    A passage is a repetition if all its words and all its word 3-grams stand in one that was taken, under the same
    title; under another title only if the texts are the same and long. A single number, name or "not" that differs
    makes another passage: likeness alone would take a contradiction for a copy.
    """

    def __init__(self) -> None:
        self._marks: dict[str, list[TextFingerprint]] = defaultdict(list)
        self._long: set[str] = set()

    def repeats(self, passage: Passage) -> bool:
        """Whether a passage says nothing new; if it says something new, it is taken."""
        marks = TextFingerprint.of(passage.text)
        title = normalized_text(passage.title)
        if marks.form in self._long or any(_within(marks, taken) for taken in self._marks[title]):
            return True
        self._marks[title].append(marks)
        if len(marks.form.split()) >= _UNMISTAKABLE:
            self._long.add(marks.form)
        return False


def _within(item: TextFingerprint, taken: TextFingerprint) -> bool:
    if item.form == taken.form:
        return True
    return bool(item.trigrams) and item.words <= taken.words and item.trigrams <= taken.trigrams
