"""`KnownWords`: many texts, among which the ones that say the same as an item are found without looking at each."""

from __future__ import annotations

from collections import defaultdict
from typing import TypeVar

from .duplicates import CONTAINMENT, JACCARD, Level, Marks, same_words

K = TypeVar("K")
_Trigram = tuple[str, str, str]


class KnownWords:
    """The marks of many texts by number; answers exactly as `same_words` over all of them.

    A text that has three words or more can be the same as such an item only if they have a 3-gram in common.
    """

    def __init__(self) -> None:
        self._marks: dict[int, Marks] = {}
        self._short: dict[int, Marks] = {}
        self._forms: dict[str, set[int]] = defaultdict(set)
        self._having: dict[_Trigram, set[int]] = defaultdict(set)

    def __len__(self) -> int:
        return len(self._marks)

    def add(self, number: int, marks: Marks) -> None:
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

    def marks(self, number: int) -> Marks:
        """The marks of a text."""
        return self._marks[number]

    def level(
        self, item: Marks, *, jaccard_from: float = JACCARD, containment_from: float = CONTAINMENT
    ) -> Level | None:
        """The level, 1 or 2, on which an item says what one of the texts says (see `same_words`)."""
        if item.form in self._forms:
            return 1
        if item.trigrams:
            near = {number for trigram in item.trigrams for number in self._having.get(trigram, ())}
            texts = [*self._short.values(), *(self._marks[number] for number in near)]
        else:
            texts = list(self._marks.values())
        return same_words(item, texts, jaccard_from=jaccard_from, containment_from=containment_from)


def _leave(numbers: dict[K, set[int]], key: K, number: int) -> None:
    numbers[key].discard(number)
    if not numbers[key]:
        del numbers[key]
