"""Which passages a claim names: those whose title stands in it, word for word."""

from __future__ import annotations

import re
from functools import lru_cache

from ...reasoning.brains.bm25 import words_of

_BRACKET = re.compile(r"\s*\([^()]{0,200}\)\s*$")
_MOST_WORDS = 20
_MOST_CLAIM_WORDS = 400
# fmt: off
_NO_NAMES = frozenset([
    "a", "an", "the", "it", "he", "she", "they", "we", "i", "this", "that", "in", "on", "at", "of", "to", "is", "was",
    "and", "or", "not", "no", "one", "all", "you", "who", "what", "which", "there", "other",
])
# fmt: on


def name_length(title: str, claim: NamedIn) -> int:
    """How many words of a claim are the title's: all words of the title, side by side; 0 if they are not in it.

    What stands in brackets at the title's end ("Mercury (planet)") tells things of one name apart and need not be said.
    Of headings ("Animals > Mammals") the longest that is named counts.
    """
    return max((len(name) for name in _names_of(title) if name in claim), default=0)


class NamedIn:
    """The runs of words of a claim.

    Args:
        claim: The claim; of a very long one the beginning counts.
    """

    def __init__(self, claim: str) -> None:
        words = words_of(claim[: 20 * _MOST_CLAIM_WORDS])[:_MOST_CLAIM_WORDS]
        self._words = words
        self._runs: dict[int, set[tuple[str, ...]]] = {}

    def __contains__(self, name: tuple[str, ...]) -> bool:
        size = len(name)
        if size not in self._runs:
            self._runs[size] = {tuple(self._words[i : i + size]) for i in range(len(self._words) - size + 1)}
        return name in self._runs[size]


@lru_cache(maxsize=4096)
def _names_of(title: str) -> tuple[tuple[str, ...], ...]:
    names = []
    for part in title[:2000].split(" > "):
        name = tuple(words_of(_BRACKET.sub("", part) or part))
        if 0 < len(name) <= _MOST_WORDS and not _NO_NAMES.issuperset(name):
            names.append(name)
    return tuple(names)
