"""Verdicts on the pairs of many claims: judged in batches, stored as they come, and never judged twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, Literal, NamedTuple

from ...core.errors import DataError
from ...verify.entailment.protocol import Entailment, Pair
from ...verify.entailment.windows import WindowedEntailment
from ...verify.spans import by_words
from ...verify.support import Support
from .rows import ClaimRow
from .verdict_store import VerdictStore

Form = Literal["full", "span", "concat", "claim"]
"""What is judged of a claim: each passage; the best sentence of each; all passages as one text; no text at all."""

BATCH: Final = 512
"""Pairs that are judged, and stored, at a time."""


class Judged(NamedTuple):
    """A claim and what its pairs say.

    Attributes:
        row: The claim.
        supports: Of each passage, or of the one text of "concat" and "claim"; None where it could not be read.
    """

    row: ClaimRow
    supports: tuple[Support | None, ...]


class StoredEntailment:
    """An entailment that judges what a store does not have, in batches, and stores it (see `Entailment`).

    What could not be read is not stored, and so is judged again when it is asked for again. Cancelled, it loses one
    batch at most.

    Args:
        entailment: What judges evidence of any length; long ones window by window. Closed with this object.
        store: Keeps verdicts; not closed.
        batch: Most pairs of a batch.
    """

    max_words: int | None = None

    def __init__(self, entailment: Entailment, store: VerdictStore, batch: int = BATCH) -> None:
        whole = entailment if entailment.max_words is None else WindowedEntailment(entailment)
        self._entailment, self._store, self._batch = whole, store, max(1, batch)
        self.name, self.identity = whole.name, whole.identity
        self.asked = 0

    async def judge(self, pairs: Sequence[Pair]) -> list[Support | None]:
        """What each evidence says of its claim, in order (see `Entailment.judge`)."""
        found: list[Support | None] = []
        for start in range(0, len(pairs), self._batch):
            found += await self._some(pairs[start : start + self._batch])
        return found

    async def aclose(self) -> None:
        """Close what judges; idempotent."""
        await self._entailment.aclose()

    async def _some(self, pairs: Sequence[Pair]) -> list[Support | None]:
        known = dict(zip(pairs, self._store.find(self.identity, pairs), strict=True))
        missing = [pair for pair, verdict in known.items() if verdict is None]
        if missing:
            told = await self._entailment.judge(missing)
            self.asked += len(missing)
            fresh = {pair: verdict for pair, verdict in zip(missing, told, strict=True) if verdict is not None}
            self._store.add(self.identity, fresh)
            # as the store has them: the same before and after a restart
            known.update(fresh)
        return [known[pair] for pair in pairs]


async def judge_pairs(
    pairs: Iterable[Pair],
    entailment: StoredEntailment,
    told: Callable[[int], None] = lambda done: None,
    batch: int = BATCH,
) -> int:
    """Fill the store with verdicts on pairs, a batch in memory at a time.

    Args:
        pairs: The pairs; those of which verdicts are stored cost nothing.
        entailment: What judges.
        told: Hears how many pairs are done.
        batch: Most pairs that are held.

    Returns:
        How many pairs were done.

    Raises:
        ReasonError: The judge failed, or the store; what was judged before is stored.
    """
    left, done = iter(pairs), 0
    while some := list(islice(left, batch)):
        await entailment.judge(some)
        done += len(some)
        told(done)
    return done


async def judged_rows(rows: Sequence[ClaimRow], form: Form, entailment: Entailment) -> list[Judged]:
    """Claims with what their pairs say, in order.

    Raises:
        DataError: A claim has no passages yet.
        ReasonError: The judge failed.
    """
    asked = [pairs_of(row, form) for row in rows]
    told = iter(await entailment.judge([pair for pairs in asked for pair in pairs]))
    return [Judged(row, tuple(next(told) for _ in pairs)) for row, pairs in zip(rows, asked, strict=True)]


def every_pair(rows: Iterable[ClaimRow], form: Form) -> Iterator[Pair]:
    """The pairs of claims, one after the other."""
    for row in rows:
        yield from pairs_of(row, form)


def pairs_of(row: ClaimRow, form: Form) -> list[Pair]:
    """What is asked of a claim, as `davinci` asks it.

    Raises:
        DataError: It has no passages yet.
    """
    if form == "claim":
        return [Pair("", row.claim)]
    if row.passages is None:
        raise DataError(f"nothing was retrieved for the claim {row.name} of {row.source}", hint="retrieve first")
    if form == "concat":
        texts = [f"{p.title}: {p.text}" if p.title else p.text for p in row.passages]
        return [Pair(" ".join(texts), row.claim)] if texts else []
    if form == "span":
        best = [by_words(p, row.claim) for p in row.passages]
        return [
            Pair(p.text if span is None else span.text, row.claim, p.title)
            for p, span in zip(row.passages, best, strict=True)
        ]
    return [Pair(p.text, row.claim, p.title) for p in row.passages]
