"""`Seen`: passages that say nothing that a better one has not said word for word."""

from __future__ import annotations

from collections import defaultdict

from ...reasoning.memory.duplicates import Marks, normal_form
from ..evidence import Passage

_UNMISTAKABLE = 20
"""Words from which on the same text under two titles is taken for a copy, and not for two people's "He was born …"."""


class Seen:
    """Passages taken so far, best first.

    A passage is a repetition if all its words and all its word 3-grams stand in one that was taken, under the same
    title; under another title only if the texts are the same and long. A single number, name or "not" that differs
    makes another passage: likeness alone would take a contradiction for a copy.
    """

    def __init__(self) -> None:
        self._marks: dict[str, list[Marks]] = defaultdict(list)
        self._long: set[str] = set()

    def repeats(self, passage: Passage) -> bool:
        """Whether a passage says nothing new; if it says something new, it is taken."""
        marks = Marks.of(passage.text)
        title = normal_form(passage.title)
        if marks.form in self._long or any(_within(marks, taken) for taken in self._marks[title]):
            return True
        self._marks[title].append(marks)
        if len(marks.form.split()) >= _UNMISTAKABLE:
            self._long.add(marks.form)
        return False


def _within(item: Marks, taken: Marks) -> bool:
    if item.form == taken.form:
        return True
    return bool(item.trigrams) and item.words <= taken.words and item.trigrams <= taken.trigrams
