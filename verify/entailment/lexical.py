"""`LexicalEntailment`: entailment by shared words; needs no model.

Source: our own rule, for tests without a model and as a lower bound for models. It knows no synonyms and no grammar. A
verdict depends on words, numbers, names and negations, never on instructions in the text.
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
from ..types import Label, Pair, Support

MIN_SUPPORTED_RECALL = 0.8
"""Minimum share of the claim's words in a text that supports it."""
MIN_REFUTED_RECALL = 0.5
"""The same for a text that refutes it."""

_HIGH, _LOW = 0.7, 0.15
_SUPPORT: dict[Label, Support] = {
    "supports": Support(_HIGH, _LOW, _LOW),
    "refutes": Support(_LOW, _HIGH, _LOW),
    "neutral": Support(_LOW, _LOW, _HIGH),
}


class LexicalEntailment:
    """Entailment by shared words (see `Entailment`).

    - *supports*: the text has at least 0.8 of the claim's words, all its numbers and names, and the same negation;
    - *refutes*: it has at least half of them, and the sentence nearest to the claim negates where the claim does not
      (or the other way round), or has another number or name instead of one that the text lacks;
    - *neutral* otherwise: a text that omits a number or a name, and has no other instead, is silent.

    The top label has probability 0.7, the others 0.15 each.
    """

    name = "lexical"
    identity = "lexical-2"
    max_words: int | None = None

    async def judge(self, pairs: Sequence[Pair]) -> list[Support | None]:
        """See `Entailment.judge`; never None."""
        return [await asyncio.to_thread(lexical_support, pair) for pair in pairs]

    async def aclose(self) -> None:
        """Do nothing."""


def lexical_support(pair: Pair) -> Support:
    """The verdict of the rule; linear in the length of both texts."""
    return _SUPPORT[_label(pair)]


def _label(pair: Pair) -> Label:
    claim_terms = _terms(pair.claim)
    if not claim_terms:
        return "neutral"
    text = f"{pair.title}\n{pair.evidence}"
    recall = len(claim_terms & _terms(text)) / len(claim_terms)
    if recall < MIN_REFUTED_RECALL:
        return "neutral"
    nearest = _nearest_sentence(pair)
    differs_in_negation = is_negated(nearest) != is_negated(pair.claim)
    claim_numbers, claim_names = number_values(pair.claim), capitalised_words(pair.claim)
    missing_numbers = claim_numbers - number_values(text)
    missing_names = claim_names - frozenset(content_words(text))
    has_other_number = bool(missing_numbers and number_values(nearest) - claim_numbers)
    has_other_name = bool(missing_names and capitalised_words(nearest) - claim_names)
    if differs_in_negation or has_other_number or has_other_name:
        return "refutes"
    is_complete = recall >= MIN_SUPPORTED_RECALL and not missing_numbers and not missing_names
    return "supports" if is_complete else "neutral"


def _terms(text: str) -> frozenset[str | Fraction]:
    """Content words, and numbers by their value: `1,000` is `1000`."""
    return number_values(text).union(w for w in content_words(text) if not w[0].isdigit())


def _nearest_sentence(pair: Pair) -> str:
    """The sentence of the evidence that shares the most with the claim, the first of equals."""
    sentences = [pair.evidence[start:end] for start, end in sentence_spans(pair.evidence)]
    scores = sentence_scores(pair.claim, sentences)
    return sentences[max(range(len(sentences)), key=scores.__getitem__)] if sentences else ""
