"""`by_provenance`: which parts of a run say a claim in the same words, and which said it first; needs no model.

Source: our own rule (grade I0 of attribution): the share of the claim's three-word sequences that stand in a part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...reasoning.brains.bm25 import words_of
from ..claims import Claim
from ..reports import InternalAttribution
from .segments import Segment

CONTAINED = 0.6
"""Least share of a claim's sequences in a part that counts as a source."""
LENGTH = 3
"""Words of a sequence; a shorter claim is one sequence as a whole."""

Gram = tuple[str, ...]


def by_provenance(
    claims: Sequence[Claim], segments: Sequence[Segment], *, contained: float = CONTAINED
) -> list[tuple[InternalAttribution, ...]]:
    """All parts that contain a claim, with their rank.

    Words are compared without case and marks over letters; what stands between them does not count. Linear in the
    length of the segments for each length of a sequence, of which there are three at most.

    Args:
        claims: The claims.
        segments: The parts of the run, in the order in which they came to be.
        contained: Least share of the claim's distinct sequences, in (0, 1].

    Returns:
        For each claim its sources in that order. The weight is the share, in [0, 1]; `detail` tells the rank, from 1.
    """
    wanted = [_grams(words_of(claim.text)) for claim in claims]
    lengths = {len(next(iter(grams))) for grams in wanted if grams}
    sought: set[Gram] = set().union(*wanted)
    found: list[list[InternalAttribution]] = [[] for _ in claims]
    for segment in segments:
        words = words_of(segment.text)
        there = {gram for length in sorted(lengths) for gram in _sequences(words, length) if gram in sought}
        for grams, sources in zip(wanted, found, strict=True):
            share = len(grams & there) / len(grams) if grams else 0.0
            if grams and share >= contained:
                sources.append(_source(segment, share, len(sources) + 1, len(grams)))
    return [tuple(sources) for sources in found]


def containment(claim: str, text: str) -> float:
    """Share of a claim's distinct three-word sequences that stand in a text, in [0, 1]; 0 for a claim without words."""
    grams = _grams(words_of(claim))
    if not grams:
        return 0.0
    return len(grams & set(_sequences(words_of(text), len(next(iter(grams)))))) / len(grams)


def _source(segment: Segment, share: float, rank: int, grams: int) -> InternalAttribution:
    return InternalAttribution(
        component=segment.name,
        kind="provenance",
        weight=share,
        detail={
            "method": f"share of the claim's sequences of {LENGTH} words that stand in the part",
            "sequences": grams,
            "rank": rank,
            "first": rank == 1,
            "part": segment.kind,
        },
    )


def _grams(words: Sequence[str]) -> frozenset[Gram]:
    return frozenset(_sequences(words, min(LENGTH, len(words)))) if words else frozenset()


def _sequences(words: Sequence[str], length: int) -> Iterator[Gram]:
    return zip(*(words[i:] for i in range(length)), strict=False)
