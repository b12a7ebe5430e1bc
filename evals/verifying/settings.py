"""What is shown for a claim: oracle, padded oracle, a retriever's first k, random sentences, whole pages."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ...core.errors import DataError
from ...verify.evidence import Passage
from ...verify.retrieval.retriever import Retriever
from .rows import ClaimRow, Corpus, ranked

K: Final = 5
"""Sentences that are shown for a claim."""
_CLAIMS_AT_ONCE: Final = 256


def oracle_two(rows: Sequence[ClaimRow]) -> list[ClaimRow]:
    """Supported and refuted claims with the passages that decide them."""
    return [
        replace(row, passages=ranked(row.right)) for row in rows if row.gold in ("supports", "refutes") and row.right
    ]


def oracle_padded(rows: Sequence[ClaimRow], corpus: Corpus, k: int = K, seed: int = 0) -> list[ClaimRow]:
    """All classes with the same number of passages, so that their number tells nothing.

    Deciding passages come first into the k, those of a smallest sufficient set before the others; then what was
    retrieved; then, for the few claims of which less was, sentences drawn from the corpus. They are shown in the
    retriever's order, what it did not find last.

    Args:
        rows: Claims with what was retrieved.
        corpus: Sentences to fill up with.
        k: Passages of a claim.
        seed: Of the drawing.

    Raises:
        DataError: A claim has no retrieved passages, or the corpus is too small.
    """
    found = []
    for row in rows:
        retrieved = _shown(row)
        smallest = min(row.sets, key=len, default=())
        first = sorted(row.right, key=lambda p: p.id not in smallest)
        taken = {p.id: p for p in (*first, *retrieved)}
        chosen = list(taken.values())[:k]
        if len(chosen) < k:
            chosen += _drawn(row, corpus, k - len(chosen), seed, without=set(taken))
        rank = {p.id: i for i, p in enumerate(retrieved)}
        found.append(replace(row, passages=ranked(sorted(chosen, key=lambda p: rank.get(p.id, len(rank))))))
    return found


def first(rows: Sequence[ClaimRow], k: int) -> list[ClaimRow]:
    """The best k of what is shown."""
    return [replace(row, passages=_shown(row)[:k]) for row in rows]


def random_sentences(rows: Sequence[ClaimRow], corpus: Corpus, k: int = K, seed: int = 0) -> list[ClaimRow]:
    """Sentences of the corpus for each claim, drawn by seed and claim; deciding ones are not kept out."""
    return [replace(row, passages=ranked(_drawn(row, corpus, k, seed))) for row in rows]


async def retrieved_by(rows: Sequence[ClaimRow], retriever: Retriever, k: int = K) -> list[ClaimRow]:
    """What a retriever finds.

    Raises:
        ReasonError: As `Retriever.retrieve`.
    """
    found: list[ClaimRow] = []
    for start in range(0, len(rows), _CLAIMS_AT_ONCE):
        part = rows[start : start + _CLAIMS_AT_ONCE]
        told = await retriever.retrieve([row.claim for row in part], k)
        found += [replace(row, passages=tuple(passages)) for row, passages in zip(part, told, strict=True)]
    return found


def by_page(rows: Sequence[ClaimRow]) -> list[ClaimRow]:
    """Passages of one page as one passage, best first within it: texts that a span can be cut from.

    What is right and enough is told by pages then.
    """
    found = []
    for row in rows:
        pages: dict[str, list[Passage]] = {}
        for passage in _shown(row):
            pages.setdefault(passage.source, []).append(passage)
        whole = [
            one[0].model_copy(update={"id": f"page:{page}", "text": " ".join(p.text for p in one)})
            for page, one in pages.items()
        ]
        place = {p.id: f"page:{p.source}" for p in (*row.right, *_shown(row))}
        found.append(
            replace(
                row,
                passages=tuple(whole),
                right=tuple(p.model_copy(update={"id": place[p.id]}) for p in row.right),
                sets=tuple(tuple(dict.fromkeys(place[i] for i in one)) for one in row.sets),
            )
        )
    return found


def replaced(rows: Sequence[ClaimRow], share: float, seed: int = 0) -> list[ClaimRow]:
    """Each passage replaced, with a probability, by one that is shown for another claim.

    What is replaced at a share stays so, by the same passage, at every larger one.

    Args:
        rows: At least two claims with passages.
        share: The probability, in [0, 1].
        seed: Of the drawing.

    Raises:
        DataError: There are no two claims.
    """
    if len(rows) < 2:
        raise DataError("evidence of other claims needs at least two claims")
    found = []
    for number, row in enumerate(rows):
        rng = random.Random(_seed(f"replaced {seed}", row))  # noqa: S311 (a draw that can be repeated)
        shown = []
        for passage in _shown(row):
            chance, other, at = rng.random(), rng.randrange(len(rows) - 1), rng.random()
            offered = _shown(rows[other + (other >= number)])
            if chance < share and offered:
                passage = offered[int(at * len(offered))].model_copy(update={"score": passage.score})
            shown.append(passage)
        found.append(replace(row, passages=tuple(shown)))
    return found


def _shown(row: ClaimRow) -> tuple[Passage, ...]:
    if row.passages is None:
        raise DataError(f"nothing was retrieved for the claim {row.name} of {row.source}", hint="retrieve first")
    return row.passages


def _drawn(row: ClaimRow, corpus: Corpus, count: int, seed: int, without: set[str] | None = None) -> list[Passage]:
    names = list(corpus)
    kept_out = without or set()
    if len(names) - len(kept_out) < count:
        raise DataError(f"the corpus has {len(names)} sentences, too few to show {count}")
    rng = random.Random(_seed(f"drawn {seed}", row))  # noqa: S311 (a draw that can be repeated)
    drawn: dict[str, None] = {}
    while len(drawn) < count:
        name = names[rng.randrange(len(names))]
        if name not in kept_out:
            drawn[name] = None
    return [corpus[name] for name in drawn]


def _seed(what: str, row: ClaimRow) -> int:
    return int.from_bytes(hashlib.sha256(f"{what}\x1f{row.source}\x1f{row.name}".encode()).digest()[:8], "big")
