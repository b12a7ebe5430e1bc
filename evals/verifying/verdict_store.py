"""`VerdictStore`: verdicts on pairs in one SQLite file, by who judged and what was judged."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ...core.errors import StoreError
from ...verify.entailment.protocol import Pair
from ...verify.support import Support

KIND: Final = "reason verdicts 1"
BUSY_S: Final = 30.0
"""Seconds that a write waits for another process."""
_AT_ONCE: Final = 500
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
    """A file of verdicts. Each write is one transaction, so what was stored before a crash is found again.

    Several processes may use one file. Its methods block for milliseconds and belong to one thread.

    Args:
        path: The file; made if it is not there.

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
                query = f"SELECT pair, supports, refutes, neutral FROM verdicts WHERE backend = ? AND pair IN ({marks})"  # noqa: S608 (question marks alone)
                known.update((key, Support(*found)) for key, *found in self._db.execute(query, (backend, *part)))
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
        (found,) = self._db.execute("SELECT count(*) FROM verdicts WHERE backend = ?", (backend,)).fetchone()
        return int(found)

    def close(self) -> None:
        """Close the file; idempotent."""
        self._db.close()


def key_of(pair: Pair) -> bytes:
    """A pair by 16 bytes of a hash over its three texts."""
    return hashlib.sha256(json.dumps(list(pair)).encode()).digest()[:16]
