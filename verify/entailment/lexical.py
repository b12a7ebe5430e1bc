"""`LexicalEntailment`: whether a text supports a claim, by their words alone; needs no model.

Source: our own rule, for tests without a model and as a lower bound to compare models with. It knows no synonyms and no
grammar. What it says of a pair depends on words, numbers, names and negations, never on what the text asks for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from fractions import Fraction

from ...reasoning.retrieval.words import (
    capitalised_words,
    content_words,
    is_negated,
    number_values,
    sentence_scores,
)
from ...reasoning.segmentation import sentence_spans
from ..types import Label, Support
from .protocol import Pair

SUPPORTED_RECALL = 0.8
"""Least share of the claim's words in a text that supports it."""
REFUTED_RECALL = 0.5
"""Least share of them in a text that refutes it."""

_SURE, _REST = 0.7, 0.15
_SUPPORTS, _REFUTES, _NEUTRAL = (
    Support(_SURE, _REST, _REST),
    Support(_REST, _SURE, _REST),
    Support(_REST, _REST, _SURE),
)


class LexicalEntailment:
    """Entailment by shared words (see `Entailment`).

    - *supports*: the text has at least 0.8 of the claim's words, all its numbers and names, and denies as it does;
    - *refutes*: it has at least half of them, and the sentence nearest to the claim denies where the claim does not (or
      the other way round), or has another number or name in the place of one that the text lacks;
    - *neutral* otherwise: a text that leaves a number or a name out, and has no other in its place, is silent.

    The likeliest label has probability 0.7, the others 0.15 each.
    """

    name = "lexical"
    identity = "lexical-1"
    max_words: int | None = None

    async def judge(self, pairs: Sequence[Pair]) -> list[Support | None]:
        """What each evidence says of its claim, in order; never None (see `Entailment.judge`)."""
        return [await asyncio.to_thread(by_words, pair) for pair in pairs]

    async def aclose(self) -> None:
        """Do nothing."""


def by_words(pair: Pair) -> Support:
    """What the evidence says of the claim, by words alone; linear in the length of both."""
    return {"supports": _SUPPORTS, "refutes": _REFUTES, "neutral": _NEUTRAL}[_label(pair)]


def _label(pair: Pair) -> Label:
    wanted = _meant(pair.claim)
    if not wanted:
        return "neutral"
    shown = f"{pair.title}\n{pair.evidence}"
    recall = len(wanted & _meant(shown)) / len(wanted)
    if recall < REFUTED_RECALL:
        return "neutral"
    nearest = _nearest_sentence(pair)
    denied = is_negated(nearest) != is_negated(pair.claim)
    claimed_numbers, claimed_names = number_values(pair.claim), capitalised_words(pair.claim)
    no_number = claimed_numbers - number_values(shown)
    no_name = claimed_names - frozenset(content_words(shown))
    other_number = bool(no_number and number_values(nearest) - claimed_numbers)
    other_name = bool(no_name and capitalised_words(nearest) - claimed_names)
    if denied or other_number or other_name:
        return "refutes"
    return "supports" if recall >= SUPPORTED_RECALL and not no_number and not no_name else "neutral"


def _meant(text: str) -> frozenset[str | Fraction]:
    """Words of meaning, and numbers by what they are worth: `1,000` is `1000`."""
    return number_values(text).union(w for w in content_words(text) if not w[0].isdigit())


def _nearest_sentence(pair: Pair) -> str:
    """The sentence of the evidence that has the most in common with the claim, the first of equals."""
    parts = [pair.evidence[start:end] for start, end in sentence_spans(pair.evidence)]
    scores = sentence_scores(pair.claim, parts)
    return parts[max(range(len(parts)), key=scores.__getitem__)] if parts else ""
