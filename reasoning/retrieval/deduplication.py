"""Duplicate and copy detection: normalised forms and hashes, word 3-grams, near copies of evidence.

`duplicate_level` and `FingerprintIndex` implement two of the three levels at which memory rejects an item (the third
compares embeddings, see `memory.admission`). `PassageDeduplicator` drops passages that repeat a better-ranked one.
`cluster_copies` groups near copies among many texts, for the fusion of evidence.
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol, TypeVar

from ...core.unicode_forms import normalize
from ..knowledge import Passage
from .words import split_words

K = TypeVar("K")

MIN_JACCARD = 0.80
"""Jaccard index of word 3-grams from which two texts are duplicates."""
MIN_CONTAINMENT = 0.90
"""Share of an item's 3-grams contained in a text from which the item is a duplicate of it."""

DuplicateLevel = Literal[1, 2, 3]
"""Level at which a duplicate was detected: hash, word 3-grams, or embedding."""

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


def normalized_words(text: str) -> list[str]:
    """The words of the normalised text; in scripts without spaces, one word a character."""
    return _WORD.findall(normalized_text(text))


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


def duplicate_level(
    item: TextFingerprint,
    texts: Iterable[TextFingerprint],
    *,
    min_jaccard: float = MIN_JACCARD,
    min_containment: float = MIN_CONTAINMENT,
) -> DuplicateLevel | None:
    """The level, 1 or 2, at which an item duplicates one of the texts; None if it duplicates none."""
    level: DuplicateLevel | None = None
    for text in texts:
        if item.form == text.form:
            return 1
        if level is None and (jaccard(item, text) >= min_jaccard or containment(item, text) >= min_containment):
            level = 2
    return level


class FingerprintIndex:
    """Fingerprints of many texts by number, with an inverted index of 3-grams; equivalent to `duplicate_level`.

    A text of three words or more can only duplicate such an item if they share a 3-gram.
    """

    def __init__(self) -> None:
        self._fingerprints: dict[int, TextFingerprint] = {}
        self._short: dict[int, TextFingerprint] = {}
        self._by_form: dict[str, set[int]] = defaultdict(set)
        self._by_trigram: dict[tuple[str, str, str], set[int]] = defaultdict(set)

    def __len__(self) -> int:
        return len(self._fingerprints)

    def add(self, number: int, fingerprint: TextFingerprint) -> None:
        """Add a text under an unused number."""
        self._fingerprints[number] = fingerprint
        self._by_form[fingerprint.form].add(number)
        if not fingerprint.trigrams:
            self._short[number] = fingerprint
        for trigram in fingerprint.trigrams:
            self._by_trigram[trigram].add(number)

    def remove(self, number: int) -> None:
        """Remove a text."""
        fingerprint = self._fingerprints.pop(number)
        self._short.pop(number, None)
        _discard(self._by_form, fingerprint.form, number)
        for trigram in fingerprint.trigrams:
            _discard(self._by_trigram, trigram, number)

    def duplicate_level(
        self, item: TextFingerprint, *, min_jaccard: float = MIN_JACCARD, min_containment: float = MIN_CONTAINMENT
    ) -> DuplicateLevel | None:
        """The level, 1 or 2, at which an item duplicates one of the texts (see `duplicate_level`)."""
        if item.form in self._by_form:
            return 1
        if item.trigrams:
            near = {number for trigram in item.trigrams for number in self._by_trigram.get(trigram, ())}
            texts = [*self._short.values(), *(self._fingerprints[number] for number in near)]
        else:
            texts = list(self._fingerprints.values())
        return duplicate_level(item, texts, min_jaccard=min_jaccard, min_containment=min_containment)


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

SKETCH_BITS: Final = 256
MAX_WORK: Final = 5_000_000
"""Maximum number of compared set members, a few seconds; only adversarial texts need more."""


class Copyable(Protocol):
    """A piece of evidence with a text and an id, either of which may be empty."""

    @property
    def text(self) -> str:
        """The text."""

    @property
    def id(self) -> str:
        """The id."""


class CopyClusters(NamedTuple):
    """Items grouped by copies.

    Attributes:
        groups: Indices of the items; every index is in one group. Groups are ordered by their first index.
        complete: Whether the search finished within `MAX_WORK`.
    """

    groups: tuple[tuple[int, ...], ...]
    complete: bool


def cluster_copies(items: Sequence[Copyable], *, jaccard: float = 0.6, pairs: float = 0.4) -> CopyClusters:
    """Group items that share an id, or whose texts are exact or near copies; transitive and independent of order.

    Two texts are near copies if they share enough word 3-grams, or enough word 2-grams: three changed words in a
    sentence of twenty leave too few 3-grams and enough 2-grams. Pairs are detected by prefix filtering, which is
    exhaustive, unlike locality-sensitive hashing.

    Source: Broder 1997, "On the resemblance and containment of documents"; Bayardo, Ma, Srikant 2007, "Scaling Up All
    Pairs Similarity Search", and Chaudhuri, Ganti, Kaushik 2006, "A Primitive Operator for Similarity Joins in Data
    Cleaning" (prefix filtering).

    Args:
        items: Items without a text are not compared by text.
        jaccard: Jaccard index of word 3-grams from which texts are near copies; in (0, 1].
        pairs: The same for word 2-grams.
    """
    if len(items) < 2:
        return CopyClusters(tuple((i,) for i in range(len(items))), True)
    sets = _DisjointSets(len(items))
    first_by_id: dict[str, int] = {}
    first_by_text: dict[tuple[str, ...], int] = {}
    for i, item in enumerate(items):
        if item.id:
            sets.unite(first_by_id.setdefault(item.id, i), i)
        words = tuple(split_words(item.text)) if item.text else ()
        if words:
            sets.unite(first_by_text.setdefault(words, i), i)
    work = _WorkBudget()
    indices = list(first_by_text.values())
    if len(indices) > 1:
        _similarity_join([_ngrams(words, 3) for words in first_by_text], indices, jaccard, sets, work)
        _similarity_join([_ngrams(words, 2) for words in first_by_text], indices, pairs, sets, work)
    groups: dict[int, list[int]] = {}
    for i in range(len(items)):
        groups.setdefault(sets.find(i), []).append(i)
    return CopyClusters(tuple(map(tuple, groups.values())), work.left >= 0)


def _ngrams(words: tuple[str, ...], n: int) -> frozenset[Hashable]:
    """The n-grams of words; a shorter text is a single n-gram."""
    return frozenset(zip(*(words[i:] for i in range(n)), strict=False)) if len(words) >= n else frozenset([words])


class _WorkBudget:
    """Comparisons left; negative when exhausted."""

    def __init__(self) -> None:
        self.left = MAX_WORK


class _DisjointSets:
    """Union-find with union by size, so that roots change seldom."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))
        self._size = [1] * count

    def find(self, i: int) -> int:
        while self._parent[i] != i:
            self._parent[i] = self._parent[self._parent[i]]
            i = self._parent[i]
        return i

    def unite(self, i: int, j: int) -> None:
        i, j = self.find(i), self.find(j)
        if i == j:
            return
        if self._size[i] < self._size[j]:
            i, j = j, i
        self._parent[j] = i
        self._size[i] += self._size[j]


class _SketchedSet(NamedTuple):
    """A set of numbers with a bit sketch: two sets differ in at least as many members as their sketches in bits."""

    members: frozenset[int]
    bits: int


def _similarity_join(
    grams: Sequence[frozenset[Hashable]],
    indices: Sequence[int],
    threshold: float,
    sets: _DisjointSets,
    work: _WorkBudget,
) -> None:
    """Unite all items whose n-gram sets have a Jaccard index of at least the threshold.

    The index key of a set is its rarest members, enough of them that a similar set must share one. Candidates are kept
    by cluster: one similar member suffices, and an already united cluster is skipped completely, so that many copies
    of one text cost no more than other texts.
    """
    numbers: dict[Hashable, int] = {}
    sketched = [_sketch(frozenset(numbers.setdefault(m, len(numbers)) for m in ngrams)) for ngrams in grams]
    frequency = Counter(m for sketch in sketched for m in sketch.members)
    candidates: dict[int, dict[int, list[int]]] = {}
    for x in sorted(range(len(grams)), key=lambda x: len(sketched[x].members)):
        query = sketched[x]
        size = len(query.members)
        prefix_length = size - math.ceil(threshold * size - 1e-9) + 1
        rarest = sorted(query.members, key=lambda m: (frequency[m], m))[:prefix_length]
        shared = [member for member in rarest if frequency[member] > 1]
        for member in shared:
            for cluster, others in candidates.get(member, {}).items():
                work.left -= 1
                is_united = sets.find(cluster) == sets.find(indices[x])
                if not is_united and _is_similar(query, others, sketched, threshold, work):
                    sets.unite(cluster, indices[x])
                if work.left < 0:
                    return
        for member in shared:
            candidates.setdefault(member, {}).setdefault(sets.find(indices[x]), []).append(x)


def _is_similar(
    query: _SketchedSet,
    others: Sequence[int],
    sketched: Sequence[_SketchedSet],
    threshold: float,
    work: _WorkBudget,
) -> bool:
    members, bits = query
    size = len(members)
    for y in others:
        work.left -= 1
        other, other_bits = sketched[y]
        total_size = size + len(other)
        # at a similarity J the sets differ in both * (1 - J) / (1 + J) members
        if (bits ^ other_bits).bit_count() * (1 + threshold) > total_size * (1 - threshold) + 1e-9:
            continue
        work.left -= len(other)
        if work.left < 0:
            return False
        common = len(members & other)
        if common >= threshold * (total_size - common) - 1e-9:
            return True
    return False


def _sketch(members: frozenset[int]) -> _SketchedSet:
    bits = 0
    for m in members:
        # the low bits of a multiplicative hash are those of the number, so that few members collide
        bits |= 1 << (m * 0x9E3779B1 >> 7) % SKETCH_BITS
    return _SketchedSet(members, bits)


def _sha256(form: str) -> str:
    return hashlib.sha256(form.encode()).hexdigest()


def _discard(numbers: dict[K, set[int]], key: K, number: int) -> None:
    numbers[key].discard(number)
    if not numbers[key]:
        del numbers[key]


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
