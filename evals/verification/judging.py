"""Verdicts on the pairs of many claims: judged in batches, stored in one SQLite file, and never judged twice."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from ...core.errors import DataError, StoreError
from ...verify.davinci.pairs import judged_pair
from ...verify.entailment.windows import WindowedEntailment
from ...verify.types import Entailment, Pair, Support
from .claims import LabelledClaim

KIND: Final = "reason verdicts 1"
BUSY_S: Final = 30.0
"""Seconds that a write waits for another process."""
_AT_ONCE: Final = 500
_CLAIMS_AT_ONCE: Final = 256
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS verdicts (
    backend TEXT NOT NULL,
    pair BLOB NOT NULL,
    supports REAL NOT NULL,
    refutes REAL NOT NULL,
    neutral REAL NOT NULL,
    PRIMARY KEY (backend, pair)
) WITHOUT ROWID;
"""


class VerdictStore:
    """A file of verdicts; each write is one transaction.

    Several processes may use one file. Its methods block for milliseconds and belong to one thread.

    Raises:
        StoreError: It cannot be opened, or holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
        except (OSError, sqlite3.Error) as e:
            raise StoreError(f"cannot open the verdicts {path}: {e}") from e
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
            self._db.execute("INSERT OR IGNORE INTO meta VALUES ('kind', ?)", (KIND,))
            (kind,) = self._db.execute("SELECT value FROM meta WHERE key = 'kind'").fetchone()
        except (sqlite3.Error, TypeError) as e:
            self._db.close()
            raise StoreError(f"cannot use {path} for verdicts: {e}", hint="name another file") from e
        if kind != KIND:
            self._db.close()
            raise StoreError(f"{path} holds {kind!r}, not {KIND!r}", hint="name another file")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def find(self, backend: str, pairs: Sequence[Pair]) -> list[Support | None]:
        """What is known of pairs, in order; None of those that are not.

        Raises:
            StoreError: The file cannot be read.
        """
        keys = [key_of(pair) for pair in pairs]
        distinct = list(dict.fromkeys(keys))
        known: dict[bytes, Support] = {}
        try:
            for start in range(0, len(distinct), _AT_ONCE):
                part = distinct[start : start + _AT_ONCE]
                marks = ",".join("?" * len(part))
                query = f"SELECT pair, supports, refutes, neutral FROM verdicts WHERE backend = ? AND pair IN ({marks})"  # noqa: S608 (question marks only)
                known.update((key, Support(*result)) for key, *result in self._db.execute(query, (backend, *part)))
        except sqlite3.Error as e:
            raise StoreError(f"cannot read the verdicts {self.path}: {e}") from e
        return [known.get(key) for key in keys]

    def add(self, backend: str, verdicts: Mapping[Pair, Support]) -> None:
        """Store verdicts, all or none of them; what is known already stays as it is.

        Raises:
            StoreError: They cannot be written.
        """
        rows = [(backend, key_of(pair), *support) for pair, support in verdicts.items()]
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany("INSERT OR IGNORE INTO verdicts VALUES (?, ?, ?, ?, ?)", rows)
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as e:
            raise StoreError(f"cannot write the verdicts {self.path}: {e}") from e

    def count(self, backend: str) -> int:
        """How many pairs of a backend are known."""
        (result,) = self._db.execute("SELECT count(*) FROM verdicts WHERE backend = ?", (backend,)).fetchone()
        return int(result)

    def close(self) -> None:
        """Close the file; idempotent."""
        self._db.close()


def key_of(pair: Pair) -> bytes:
    """A pair by 16 bytes of a hash over its three texts."""
    return hashlib.sha256(json.dumps(list(pair)).encode()).digest()[:16]


BATCH: Final = 512
"""Pairs that are judged, and stored, at a time."""


class JudgedClaim(NamedTuple):
    """A claim and what the judge says of its passages.

    Attributes:
        row: The claim.
        supports: Of each passage; None where the judge's response could not be parsed.
    """

    row: LabelledClaim
    supports: tuple[Support | None, ...]


class StoredEntailment:
    """An entailment that judges what a store does not have, in batches, and stores it (see `Entailment`).

    What could not be read is not stored, and so is judged again when it is requested again. Cancelled, it loses one
    batch up to.

    Args:
        entailment: What judges evidence of any length; long ones window by window. Closed with this object.
        store: Keeps verdicts; not closed.
    """

    max_words: int | None = None

    def __init__(self, entailment: Entailment, store: VerdictStore, batch: int = BATCH) -> None:
        full = entailment if entailment.max_words is None else WindowedEntailment(entailment)
        self._entailment, self._store, self._batch = full, store, max(1, batch)
        self.name, self.identity = full.name, full.identity
        self.num_judged = 0

    async def judge(self, pairs: Sequence[Pair]) -> list[Support | None]:
        """What each evidence states about its claim, in order (see `Entailment.judge`)."""
        results: list[Support | None] = []
        for start in range(0, len(pairs), self._batch):
            results += await self._some(pairs[start : start + self._batch])
        return results

    async def aclose(self) -> None:
        """Close what judges; idempotent."""
        await self._entailment.aclose()

    async def _some(self, pairs: Sequence[Pair]) -> list[Support | None]:
        known = dict(zip(pairs, self._store.find(self.identity, pairs), strict=True))
        missing = [pair for pair, verdict in known.items() if verdict is None]
        if missing:
            values = await self._entailment.judge(missing)
            self.num_judged += len(missing)
            fresh = {pair: verdict for pair, verdict in zip(missing, values, strict=True) if verdict is not None}
            self._store.add(self.identity, fresh)
            # as the store has them: the same before and after a restart
            known.update(fresh)
        return [known[pair] for pair in pairs]


async def judge_claims(
    rows: Sequence[LabelledClaim], entailment: Entailment, progress: Callable[[int], None] = lambda done: None
) -> list[JudgedClaim]:
    """Claims with what the judge says of their passages, in order.

    The pairs are those of `davinci`.

    Args:
        rows: The claims.
        entailment: What judges; a `StoredEntailment` keeps each batch, so that a killed judgement resumes.
        progress: Called with the number of judged claims.

    Raises:
        DataError: A claim has no passages yet.
        ReasonError: The judge failed, or the store.
    """
    results: list[JudgedClaim] = []
    for start in range(0, len(rows), _CLAIMS_AT_ONCE):
        part = rows[start : start + _CLAIMS_AT_ONCE]
        pairs = [pairs_of(row) for row in part]
        singles = iter(await entailment.judge([pair for own in pairs for pair in own]))
        supports = [tuple(next(singles) for _ in own) for own in pairs]
        results += [JudgedClaim(row, own) for row, own in zip(part, supports, strict=True)]
        progress(len(results))
    return results


def pairs_of(row: LabelledClaim) -> list[Pair]:
    """The pairs of a claim, one for each passage.

    Raises:
        DataError: It has no passages yet.
    """
    if row.passages is None:
        raise DataError(f"nothing was retrieved for the claim {row.name} of {row.source}", hint="retrieve first")
    return [judged_pair(row.claim, passage) for passage in row.passages]
