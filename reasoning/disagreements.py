"""Where several answers to one question differ: in their result, or in statements about the same thing.

Source: our own rule. Two sentences of different answers differ if they share at least half of the words of the shorter
one and one of them has a number that the other has another for, or is negated where the other is not. It finds what is
written differently, not what is wrong, and knows no synonyms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, islice
from typing import Final, NamedTuple

from .retrieval.words import content_words, is_negated, number_values
from .segmentation import sentence_spans

MIN_SHARED: Final = 0.5
"""Minimum share of the shorter sentence's words that the other one has."""
MIN_WORDS: Final = 3
"""Minimum words that both sentences have; two sentences with fewer need not be about the same thing."""
MAX_SENTENCES: Final = 60
"""Sentences of an answer that are compared, from its beginning."""


class Disagreement(NamedTuple):
    """Two sentences that differ.

    Attributes:
        authors: The authors of the two.
        sentences: The sentences.
        overlap: Share of the shorter sentence's words that the other one has.
    """

    authors: tuple[int, int]
    sentences: tuple[str, str]
    overlap: float


@dataclass(frozen=True)
class _Sentence:
    text: str
    words: frozenset[str]
    numbers: frozenset[Fraction]
    negated: bool


def find_disagreements(texts: Mapping[int, str], maximum: int) -> list[Disagreement]:
    """Pairs of sentences of different texts that differ, those about the same thing for sure first.

    Args:
        texts: The texts by author.
        maximum: Maximum number of pairs. A sentence is in one of them at most, and equal pairs are listed once.
    """
    sentences = {author: _sentences(text) for author, text in texts.items()}
    pairs = [
        Disagreement((a, b), (one.text, other.text), overlap)
        for a, b in combinations(texts, 2)
        for one in sentences[a]
        for other in sentences[b]
        if (overlap := _difference(one, other))
    ]
    chosen: list[Disagreement] = []
    listed: set[str] = set()
    for pair in sorted(pairs, key=lambda pair: -pair.overlap):  # stable: of equals the first
        if len(chosen) < maximum and listed.isdisjoint(pair.sentences):
            chosen.append(pair)
            listed.update(pair.sentences)
    return chosen


def _sentences(text: str) -> list[_Sentence]:
    return [_sentence(text[start:end]) for start, end in islice(sentence_spans(text), MAX_SENTENCES)]


def _sentence(text: str) -> _Sentence:
    words = frozenset(word for word in content_words(text) if not word[0].isdigit())
    return _Sentence(text, words, number_values(text), is_negated(text))


def _difference(one: _Sentence, other: _Sentence) -> float:
    """The overlap of two sentences that differ; 0 if they do not, or are not about the same thing."""
    shared = len(one.words & other.words)
    if shared < MIN_WORDS:
        return 0.0
    overlap = shared / min(len(one.words), len(other.words))
    if overlap < MIN_SHARED:
        return 0.0
    has_other_number = bool(one.numbers - other.numbers and other.numbers - one.numbers)
    return overlap if has_other_number or one.negated != other.negated else 0.0


def describe_results(results: Sequence[tuple[str, Sequence[str]]]) -> str:
    """The results that several answers come to, in one line; empty if there is one result.

    Args:
        results: Each result, with the letters of the answers that come to it.
    """
    if len(results) < 2:
        return ""
    parts = [
        f"{'answers' if len(letters) > 1 else 'answer'} {' and '.join(letters)} "
        f"{'come' if len(letters) > 1 else 'comes'} to {result}"
        for result, letters in results
    ]
    return f"They come to different results: {'; '.join(parts)}."
