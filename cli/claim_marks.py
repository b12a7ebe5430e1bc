"""An answer cut where its claims begin and end, and how a verdict is called."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from ..core.answer import CheckedClaim, Verdict, Verification

_GRAVITY: tuple[Verdict, ...] = (
    "supported",
    "not_enough_evidence",
    "unparsed",
    "unchecked",
    "disputed",
    "refuted",
)


class Piece(NamedTuple):
    """A stretch of the answer.

    Attributes:
        text: The stretch.
        claims: Places of the claims that it is part of, the gravest verdict first; empty outside of claims.
        ends: Places of the claims that end with it, in order.
    """

    text: str
    claims: tuple[int, ...]
    ends: tuple[int, ...]


def word_of(verdict: Verdict) -> str:
    """A verdict as people read it."""
    return verdict.replace("_", " ")


def pieces_of(text: str, claims: Sequence[CheckedClaim]) -> list[Piece]:
    """The answer as stretches, each within the same claims from its beginning to its end.

    Claims without a place, or with one that is none of the text's, are part of no stretch.
    """
    placed = [
        (claim.start, claim.end, number)
        for number, claim in enumerate(claims)
        if claim.start is not None and claim.end is not None and 0 <= claim.start < claim.end <= len(text)
    ]
    begins: dict[int, list[int]] = {}
    ends: dict[int, list[int]] = {}
    for start, end, number in placed:
        begins.setdefault(start, []).append(number)
        ends.setdefault(end, []).append(number)
    cuts = sorted({0, len(text), *begins, *ends})
    pieces: list[Piece] = []
    inside: set[int] = set()
    for start, end in pairwise(cuts):
        inside = inside.difference(ends.get(start, ())).union(begins.get(start, ()))
        gravest = sorted(inside, key=lambda n: (-_GRAVITY.index(claims[n].verdict), n))
        pieces.append(Piece(text[start:end], tuple(gravest), tuple(sorted(ends.get(end, ())))))
    return pieces


def counted(verification: Verification) -> str:
    """How many claims have which verdict: `2 of 3 claims supported, 1 refuted`."""
    total = len(verification.claims)
    if not total:
        return "no claim was found that could be checked"
    counts = {v: sum(c.verdict == v for c in verification.claims) for v in _GRAVITY}
    others = [f"{count} {word_of(v)}" for v, count in reversed(counts.items()) if count and v != "supported"]
    plural = "claim" if total == 1 else "claims"
    return ", ".join([f"{counts['supported']} of {total} {plural} supported", *others])


def placed_source(source: str, start: int | None, end: int | None) -> str:
    """A source with the place of the quotation in it: `facts.md:41-72`."""
    return source if start is None or end is None else f"{source}:{start}-{end}"
