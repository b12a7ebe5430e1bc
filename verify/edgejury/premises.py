"""`premises_of`: the sentence of each opinion that speaks most of each claim, which is what the claim is held against.

By meaning where the run has an embedding model, else by words. What was found by meaning is noted in the run store: a
replay has no embedding model.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import JsonValue

from ...core.errors import BackendError, LimitExceeded
from ...core.run import Run
from ...reasoning.decisions import keep, recall
from ...reasoning.sentences import sentence_spans
from ...serving.embeddings import EmbeddingModel
from ...serving.metered import MeteredModel
from .agreement import premise

MOST_SENTENCES = 60
"""Sentences of one opinion that are looked at."""


async def premises_of(
    claims: Sequence[str], texts: Sequence[str], embedding: EmbeddingModel | None, model: MeteredModel, run: Run
) -> list[list[str]]:
    """For each claim the part of each text that speaks most of it.

    Args:
        claims: The claims.
        texts: The texts.
        embedding: Compares sentences; None where there is none.
        model: Under whom the run store notes what was found.
        run: The run.

    Returns:
        `[claims][texts]`; a text without a sentence is its own.
    """
    by_words = [[premise(claim, text) for text in texts] for claim in claims]
    if embedding is None or not claims or not texts:
        return by_words
    cut = [[text[a:b] for a, b in list(sentence_spans(text))[:MOST_SENTENCES]] for text in texts]
    what: dict[str, JsonValue] = {"jury": "premises", "claims": [*claims], "texts": [*texts]}
    noted = await recall(run, model, what)
    best = None if noted is None else noted.get("best")
    if not isinstance(best, list):
        try:
            best = await _nearest(claims, cut, embedding)
            noted = {"best": best}
        except (LimitExceeded, BackendError) as e:
            best = []
            noted = {"best": best, "why": e.message}
        await keep(run, model, what, noted)
    if noted is not None and "why" in noted:
        run.degrade(f"sentences are compared by their words: {noted['why']}")
    if not best:
        return by_words
    return [
        [
            sentences[place] if isinstance(row, list) and isinstance(place := row[t], int) and sentences else words[t]
            for t, sentences in enumerate(cut)
        ]
        for row, words in zip(best, by_words, strict=True)
    ]


async def _nearest(claims: Sequence[str], cut: Sequence[Sequence[str]], embedding: EmbeddingModel) -> list[JsonValue]:
    """For each claim the place of the nearest sentence of each text, by cosine; -1 where a text has none."""
    sentences = [sentence for text in cut for sentence in text]
    if not sentences:
        return [[-1 for _ in cut] for _ in claims]
    vectors = await embedding.embed([*claims, *sentences])
    likeness = vectors[: len(claims)] @ vectors[len(claims) :].T
    found: list[JsonValue] = []
    for row in likeness:
        places: list[JsonValue] = []
        at = 0
        for text in cut:
            places.append(int(row[at : at + len(text)].argmax()) if text else -1)
            at += len(text)
        found.append(places)
    return found
