"""`clusters`: which pieces of evidence are copies of one another, exact ones and near ones.

Near are two texts that share enough three-word sequences, or enough two-word ones: of a sentence of twenty words three
changed ones leave too few of the former and enough of the latter. Copies of copies are copies. Pairs are found by
prefix filtering: two sets can only be as alike as asked if they share one of their rarest members, so that texts are
compared with those few alone. It finds every pair, unlike hashing. 10,000 texts take seconds; a search that takes
longer is ended, and that is told.

Source: Broder 1997, "On the resemblance and containment of documents" (resemblance of word sequences); Bayardo, Ma,
Srikant 2007, "Scaling Up All Pairs Similarity Search", and Chaudhuri, Ganti, Kaushik 2006, "A Primitive Operator for
Similarity Joins in Data Cleaning" (prefixes).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Final, NamedTuple

from ...reasoning.retrieval.words import split_words
from . import Item

SKETCH: Final = 256
"""Bits of a set's picture."""
MOST_WORK: Final = 5_000_000
"""Members of sets that are compared at most: a few seconds. Only texts made to be compared in vain need more."""


class Clusters(NamedTuple):
    """Items by what they are copies of.

    Attributes:
        groups: Places of the items, every place in one group; groups by their first place, places in order.
        complete: Whether all pairs were compared that had to be.
    """

    groups: tuple[tuple[int, ...], ...]
    complete: bool


def clusters(items: Sequence[Item], *, jaccard: float = 0.6, pairs: float = 0.4) -> Clusters:
    """Groups of items that share an id or are copies. It does not depend on their order.

    Args:
        items: The items; those without a text are no copies of anything by text.
        jaccard: Common three-word sequences over all of both, from which texts are near copies; in (0, 1].
        pairs: The same of two-word sequences, from which they are, too; in (0, 1].
    """
    if len(items) < 2:
        return Clusters(tuple((i,) for i in range(len(items))), True)
    families = _Families(len(items))
    first_of_id: dict[str, int] = {}
    first_of_text: dict[tuple[str, ...], int] = {}
    for i, item in enumerate(items):
        if item.id:
            families.unite(first_of_id.setdefault(item.id, i), i)
        words = tuple(split_words(item.text)) if item.text else ()
        if words:
            families.unite(first_of_text.setdefault(words, i), i)
    work = _Work()
    at = list(first_of_text.values())
    if len(at) > 1:
        _join([_grams(words, 3) for words in first_of_text], at, jaccard, families, work)
        _join([_grams(words, 2) for words in first_of_text], at, pairs, families, work)
    groups: dict[int, list[int]] = {}
    for i in range(len(items)):
        groups.setdefault(families.head(i), []).append(i)
    return Clusters(tuple(map(tuple, groups.values())), work.left >= 0)


def _grams(words: tuple[str, ...], n: int) -> frozenset[Hashable]:
    """Sequences of n words; a shorter text is one sequence."""
    return frozenset(zip(*(words[i:] for i in range(n)), strict=False)) if len(words) >= n else frozenset([words])


class _Work:
    """What may still be compared; below 0 when it is spent."""

    def __init__(self) -> None:
        self.left = MOST_WORK


class _Families:
    """Disjoint sets; joined by size, so that heads change seldom."""

    def __init__(self, count: int) -> None:
        self._above = list(range(count))
        self._size = [1] * count

    def head(self, i: int) -> int:
        while self._above[i] != i:
            self._above[i] = self._above[self._above[i]]
            i = self._above[i]
        return i

    def unite(self, i: int, j: int) -> None:
        i, j = self.head(i), self.head(j)
        if i == j:
            return
        if self._size[i] < self._size[j]:
            i, j = j, i
        self._above[j] = i
        self._size[i] += self._size[j]


class _Sketched(NamedTuple):
    """A set of numbers, and a picture of it in bits: two sets differ in as many members as their pictures, or more."""

    members: frozenset[int]
    bits: int


def _join(
    sets: Sequence[frozenset[Hashable]], at: Sequence[int], least: float, families: _Families, work: _Work
) -> None:
    """Unite all whose sets have a Jaccard similarity of `least` or more.

    A set is looked up by its rarest members, as many as leave too few others for that similarity. What is found is
    kept by family: one similar member is enough, and a family that is joined already is passed over whole, so that
    many copies of one text cost no more than others.
    """
    number: dict[Hashable, int] = {}
    numbered = [_sketched(frozenset(number.setdefault(m, len(number)) for m in one)) for one in sets]
    frequency = Counter(m for one in numbered for m in one.members)
    holders: dict[int, dict[int, list[int]]] = {}
    for x in sorted(range(len(sets)), key=lambda x: len(numbered[x].members)):
        mine = numbered[x]
        size = len(mine.members)
        rarest = sorted(mine.members, key=lambda m: (frequency[m], m))[: size - math.ceil(least * size - 1e-9) + 1]
        shared = [member for member in rarest if frequency[member] > 1]
        for member in shared:
            for family, others in holders.get(member, {}).items():
                work.left -= 1
                if families.head(family) != families.head(at[x]) and _one_alike(mine, others, numbered, least, work):
                    families.unite(family, at[x])
                if work.left < 0:
                    return
        for member in shared:
            holders.setdefault(member, {}).setdefault(families.head(at[x]), []).append(x)


def _one_alike(mine: _Sketched, others: Sequence[int], sets: Sequence[_Sketched], least: float, work: _Work) -> bool:
    members, bits = mine
    size = len(members)
    for y in others:
        work.left -= 1
        other, other_bits = sets[y]
        both = size + len(other)
        # of a similarity J, the sets differ in both * (1 - J) / (1 + J) members
        if (bits ^ other_bits).bit_count() * (1 + least) > both * (1 - least) + 1e-9:
            continue
        work.left -= len(other)
        if work.left < 0:
            return False
        common = len(members & other)
        if common >= least * (both - common) - 1e-9:
            return True
    return False


def _sketched(members: frozenset[int]) -> _Sketched:
    bits = 0
    for m in members:
        # the low bits of a multiplicative hash are those of the number, so that few members collide
        bits |= 1 << (m * 0x9E3779B1 >> 7) % SKETCH
    return _Sketched(members, bits)
