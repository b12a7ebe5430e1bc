"""Duplicate and copy detection: normalised forms and hashes, word 3-grams, near copies of evidence.

`is_duplicate` has two of the three levels at which memory rejects an item: equal form, and word 3-grams (the third
compares embeddings, see `memory.admission`). `PassageDeduplicator` drops passages that repeat a better-ranked one.
`cluster_copies` groups near copies among many texts, for the fusion of evidence.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

from ...core.unicode_forms import normalize
from ..knowledge import Passage
from .words import split_words

MIN_JACCARD = 0.80
"""Jaccard index of word 3-grams from which two texts are duplicates."""
MIN_CONTAINMENT = 0.90
"""Share of an item's 3-grams contained in a text from which the item is a duplicate of it."""

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_WITHIN_WORD = re.compile(r"(?<=[^\W\d_])['\u2019](?=[^\W\d_])")
_SIGNIFICANT = re.compile(
    r"""(?<=\d)\.(?=\d)        # a decimal point
      | (?<![\w.])-(?=\d)      # the sign of a number
      | (?<=\d)[*/](?=\d)     # 3/4
      | (?<=[^\W\d_])\#        # C#
      | [%‰]""",
    re.VERBOSE,
)
_WORD = re.compile(
    # in scripts without spaces between words, each character is a word
    r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"
    r"|[^\s\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+"
)
_MAX_ROUNDS = 8


def normalized_text(text: str) -> str:
    """A text reduced to what determines its meaning: NFKC, casefold, no punctuation, single spaces.

    Punctuation (Unicode categories P) becomes a space, or nothing within a word ("don't") and between thousands.
    Decimal points, signs of numbers, "3/4", percent, "C#", and symbols such as + and = stay, since they change facts.
    Invisible characters are removed. The function is idempotent.
    """
    for _ in range(_MAX_ROUNDS):  # removing a joiner may let a letter and its accent combine
        before, text = text, _normalize_once(text)
        if text == before:
            break
    return text


def text_hash(text: str) -> str:
    """SHA-256 of the normalised text, in hexadecimal."""
    return _sha256(normalized_text(text))


@dataclass(frozen=True, slots=True)
class TextFingerprint:
    """Data that texts are compared by: normalised form, its words, and its word 3-grams (none below three words)."""

    form: str
    words: frozenset[str]
    trigrams: frozenset[tuple[str, str, str]]

    @classmethod
    def of(cls, text: str) -> TextFingerprint:
        """The fingerprint of a text."""
        form = normalized_text(text)
        words: list[str] = _WORD.findall(form)
        return cls(form, frozenset(words), frozenset(zip(words, words[1:], words[2:], strict=False)))

    @property
    def hash(self) -> str:
        """`text_hash` of the text."""
        return _sha256(self.form)


def jaccard(left: TextFingerprint, right: TextFingerprint) -> float:
    """Jaccard index of the word 3-grams; of the words where a text has fewer than three."""
    use_trigrams = bool(left.trigrams and right.trigrams)
    a: frozenset[object] = left.trigrams if use_trigrams else left.words
    b: frozenset[object] = right.trigrams if use_trigrams else right.words
    return len(a & b) / len(a | b) if a and b else 0.0


def containment(item: TextFingerprint, text: TextFingerprint) -> float:
    """Share of an item's word 3-grams that occur in a text; of its words if it has fewer than three."""
    if item.trigrams:
        return len(item.trigrams & text.trigrams) / len(item.trigrams)
    return len(item.words & text.words) / len(item.words) if item.words else 0.0


def is_duplicate(item: TextFingerprint, texts: Iterable[TextFingerprint]) -> bool:
    """Whether an item duplicates one of the texts: its normalised form, or enough of its word 3-grams."""
    return any(
        item.form == text.form or jaccard(item, text) >= MIN_JACCARD or containment(item, text) >= MIN_CONTAINMENT
        for text in texts
    )


# -- repeated passages

_UNMISTAKABLE = 20
"""Words from which the same text under two titles is a copy, rather than the "He was born in …" of two people."""


class PassageDeduplicator:
    """Detects passages that repeat one with a better rank.

    A passage is a repetition if all its words and all its word 3-grams occur in an earlier one with the same title;
    under another title only if the texts are equal and long. A single number, name or "not" that differs makes a
    different passage: similarity does not distinguish a contradiction from a copy.
    """

    def __init__(self) -> None:
        self._by_title: dict[str, list[TextFingerprint]] = defaultdict(list)
        self._long: set[str] = set()

    def is_repetition(self, passage: Passage) -> bool:
        """Whether a passage repeats an earlier one; if not, it is added."""
        fingerprint = TextFingerprint.of(passage.text)
        title = normalized_text(passage.title)
        if fingerprint.form in self._long or any(_is_part(fingerprint, other) for other in self._by_title[title]):
            return True
        self._by_title[title].append(fingerprint)
        if len(fingerprint.form.split()) >= _UNMISTAKABLE:
            self._long.add(fingerprint.form)
        return False


def _is_part(item: TextFingerprint, other: TextFingerprint) -> bool:
    if item.form == other.form:
        return True
    return bool(item.trigrams) and item.words <= other.words and item.trigrams <= other.trigrams


# -- clusters of near copies


class Copyable(Protocol):
    """A piece of evidence with a text and an id, either of which may be empty."""

    @property
    def text(self) -> str:
        """The text."""

    @property
    def id(self) -> str:
        """The id."""


def cluster_copies(items: Sequence[Copyable], *, jaccard: float = 0.6, pairs: float = 0.4) -> list[tuple[int, ...]]:
    """Group items that share an id, or whose texts are exact or near copies; transitive and independent of order.

    Two texts are near copies if they share enough word 3-grams, or enough word 2-grams: three changed words in a
    sentence of twenty leave too few 3-grams and enough 2-grams.

    Source: Broder 1997, "On the resemblance and containment of documents".

    Args:
        items: Items without a text are not compared by text.
        jaccard: Jaccard index of word 3-grams from which texts are near copies; in (0, 1].
        pairs: The same for word 2-grams.

    Returns:
        The groups, as indices of the items, ordered by their first index.
    """
    parent = list(range(len(items)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first_by_id: dict[str, int] = {}
    first_by_text: dict[tuple[str, ...], int] = {}
    for i, item in enumerate(items):
        if item.id:
            parent[root(i)] = root(first_by_id.setdefault(item.id, i))
        words = tuple(split_words(item.text)) if item.text else ()
        if words:
            parent[root(i)] = root(first_by_text.setdefault(words, i))
    # an inverted index of n-grams: only texts that share one are compared
    for n, threshold in ((3, jaccard), (2, pairs)):
        sizes: dict[int, int] = {}
        holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for words, i in first_by_text.items():
            grams = _ngrams(words, n)
            sizes[i] = len(grams)
            for j, common in Counter(chain.from_iterable(holders[gram] for gram in grams)).items():
                if common >= threshold * (sizes[i] + sizes[j] - common) - 1e-9:
                    parent[root(i)] = root(j)
            for gram in grams:
                holders[gram].append(i)
    groups: dict[int, list[int]] = defaultdict(list)
    for i in range(len(items)):
        groups[root(i)].append(i)
    return [tuple(group) for group in groups.values()]


def _ngrams(words: tuple[str, ...], n: int) -> frozenset[tuple[str, ...]]:
    """The n-grams of words; a shorter text is a single n-gram."""
    return frozenset(zip(*(words[i:] for i in range(n)), strict=False)) if len(words) >= n else frozenset([words])


def _sha256(form: str) -> str:
    return hashlib.sha256(form.encode()).hexdigest()


def _normalize_once(text: str) -> str:
    text = normalize("NFKC", normalize("NFKC", text).casefold())
    text = "".join(c for c in text if unicodedata.category(c) != "Cf").replace("\N{MINUS SIGN}", "-")
    text = _WITHIN_WORD.sub("", _THOUSANDS.sub("", text))
    significant = {m.start() for m in _SIGNIFICANT.finditer(text)}
    kept = (c if i in significant or not _is_stripped(c) else " " for i, c in enumerate(text))
    return " ".join("".join(kept).split())


def _is_stripped(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] == "P" or category in ("Cc", "Cs")
