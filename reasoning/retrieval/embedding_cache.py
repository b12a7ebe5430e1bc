"""`EmbeddingCache`: vectors of texts on disk, so that a folder that is opened again is not embedded again.

A cache alone: what cannot be read or written is embedded anew, and a file that is damaged is begun anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


T = TypeVar("T")

MAX_BYTES = 1 << 30
"""Bytes of vectors that are kept; those used longest ago go first."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS vectors (
    model BLOB NOT NULL,
    text BLOB NOT NULL,
    used REAL NOT NULL,
    vector BLOB NOT NULL,
    PRIMARY KEY (model, text)
) WITHOUT ROWID
"""


class EmbeddingCache:
    """Vectors by embedding model and text, in one SQLite file; several processes may use it.

    Args:
        path: The file.
        most_bytes: Most bytes of vectors.
    """

    def __init__(self, path: Path, *, most_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self._most_bytes = most_bytes

    async def find(self, identity: str, dimension: int, texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The vectors that are known, by text.

        Args:
            identity: Of the embedding model, with whatever it puts before a text.
            dimension: Numbers of a vector; one of another length is not believed.
            texts: The texts.
        """
        import numpy as np

        model, keys = _hash(identity), {_hash(t): t for t in texts}

        def look(db: sqlite3.Connection) -> dict[str, NDArray[np.float32]]:
            found: dict[str, NDArray[np.float32]] = {}
            wanted = list(keys)
            for some in (wanted[i : i + 500] for i in range(0, len(wanted), 500)):
                marks = ",".join("?" * len(some))
                sql = f"SELECT text, vector FROM vectors WHERE model = ? AND text IN ({marks})"  # noqa: S608
                for key, vector in db.execute(sql, (model, *some)):
                    if len(vector) == 4 * dimension:
                        found[keys[key]] = np.frombuffer(vector, dtype="<f4").astype(np.float32)
                sql = f"UPDATE vectors SET used = ? WHERE model = ? AND text IN ({marks})"  # noqa: S608
                db.execute(sql, (time.time(), model, *some))
            return found

        return await asyncio.to_thread(self._try, look, {})

    async def keep(self, identity: str, vectors: dict[str, NDArray[np.float32]]) -> None:
        """Keep vectors, as far as that is possible.

        Args:
            identity: See `find`.
            vectors: fp32 vectors by text.
        """
        model, now = _hash(identity), time.time()
        rows = [(model, _hash(text), now, vector.astype("<f4").tobytes()) for text, vector in vectors.items()]

        def write(db: sqlite3.Connection) -> None:
            db.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)", rows)
            (held,) = db.execute("SELECT COALESCE(SUM(LENGTH(vector)), 0) FROM vectors").fetchone()
            if held > self._most_bytes:
                # a tenth more than must go, so that not every call has to
                oldest = db.execute("SELECT model, text, LENGTH(vector) FROM vectors ORDER BY used, text").fetchall()
                for one, text, size in oldest:
                    if held <= 0.9 * self._most_bytes:
                        break
                    db.execute("DELETE FROM vectors WHERE model = ? AND text = ?", (one, text))
                    held -= size

        if rows:
            await asyncio.to_thread(self._try, write, None)

    def _try(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        for again in (False, True):
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.closing(sqlite3.connect(self.path, timeout=10)) as db, db:
                    db.execute("PRAGMA journal_mode=WAL")
                    db.execute(_SCHEMA)
                    return work(db)
            except sqlite3.OperationalError:
                return otherwise  # another process holds it, or the disk is full
            except sqlite3.DatabaseError:
                if again:
                    return otherwise
                self._begin_anew()
            except OSError:
                return otherwise
        return otherwise

    def _begin_anew(self) -> None:
        for tail in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                Path(f"{self.path}{tail}").unlink(missing_ok=True)


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=20).digest()
