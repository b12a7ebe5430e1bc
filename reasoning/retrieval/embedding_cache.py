"""`EmbeddingCache`: document vectors in SQLite, so that documents are not embedded again when they are opened again.

A vector is found by its embedding model and its text: of a file that has changed, only the passages that are new are
embedded, wherever the file is and whatever it is called.

It is only a cache: vectors that cannot be read or written are embedded again, and a damaged file is replaced.
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

from ...serving.encoders.protocols import EmbeddingModel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")

FILE = "vectors.sqlite3"
"""Name of the file in the cache directory (`Settings.cache_dir`)."""
MAX_BYTES = 1 << 30
"""Maximum bytes of vectors; LRU eviction."""

_BATCH = 64
_MAX_PARAMETERS = 500
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
    """Vectors by embedding model and text in one SQLite file, which several processes may share."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self._max_bytes = max_bytes

    async def get(self, identity: str, dimension: int, texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The cached vectors of texts.

        Args:
            identity: Identity of the embedding model and of the prompt before a text.
            dimension: Dimension of a vector; vectors of another one are ignored.
            texts: The texts.
        """
        import numpy as np

        model, texts_by_key = _hash(identity), {_hash(t): t for t in texts}

        def read(db: sqlite3.Connection) -> dict[str, NDArray[np.float32]]:
            vectors: dict[str, NDArray[np.float32]] = {}
            keys = list(texts_by_key)
            for batch in (keys[i : i + _MAX_PARAMETERS] for i in range(0, len(keys), _MAX_PARAMETERS)):
                marks = ",".join("?" * len(batch))
                sql = f"SELECT text, vector FROM vectors WHERE model = ? AND text IN ({marks})"  # noqa: S608
                for key, vector in db.execute(sql, (model, *batch)):
                    if len(vector) == 4 * dimension:
                        vectors[texts_by_key[key]] = np.frombuffer(vector, dtype="<f4").astype(np.float32)
                sql = f"UPDATE vectors SET used = ? WHERE model = ? AND text IN ({marks})"  # noqa: S608
                db.execute(sql, (time.time(), model, *batch))
            return vectors

        return await asyncio.to_thread(self._transaction, read, {})

    async def put(self, identity: str, vectors: dict[str, NDArray[np.float32]]) -> None:
        """Cache fp32 vectors by text, as far as possible."""
        model, now = _hash(identity), time.time()
        rows = [(model, _hash(text), now, vector.astype("<f4").tobytes()) for text, vector in vectors.items()]

        def write(db: sqlite3.Connection) -> None:
            db.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)", rows)
            (size,) = db.execute("SELECT COALESCE(SUM(LENGTH(vector)), 0) FROM vectors").fetchone()
            if size > self._max_bytes:  # a tenth more than necessary goes, so that not every call has to evict
                excess = size - 0.9 * self._max_bytes
                db.execute(
                    "DELETE FROM vectors WHERE (model, text) IN (SELECT model, text FROM (SELECT model, text, "
                    "SUM(LENGTH(vector)) OVER (ORDER BY used, text) - LENGTH(vector) AS before FROM vectors) "
                    "WHERE before < ?)",
                    (excess,),
                )

        if rows:
            await asyncio.to_thread(self._transaction, write, None)

    def _transaction(self, work: Callable[[sqlite3.Connection], T], default: T) -> T:
        for is_retry in (False, True):
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.closing(sqlite3.connect(self.path, timeout=10)) as db, db:
                    db.execute("PRAGMA journal_mode=WAL")
                    db.execute(_SCHEMA)
                    return work(db)
            except sqlite3.OperationalError:
                return default  # locked by another process, or the disk is full
            except sqlite3.DatabaseError:
                if is_retry:
                    return default
                self._delete()
            except OSError:
                return default
        return default

    def _delete(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)


async def embed_documents(
    texts: Sequence[str],
    embedding: EmbeddingModel,
    *,
    cache: EmbeddingCache | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Document vectors of texts, `[texts, dimension]`, embedded in batches that are cached at once.

    Raises:
        BackendError: The embedding model failed.
    """
    import numpy as np

    identity = f"{embedding.identity}/document"
    vectors: NDArray[np.float32] = np.zeros((len(texts), embedding.dimension), dtype=np.float32)
    for start in range(0, len(texts), _BATCH):
        batch = list(dict.fromkeys(texts[start : start + _BATCH]))
        known = {} if cache is None else await cache.get(identity, embedding.dimension, batch)
        missing = [text for text in batch if text not in known]
        if missing:
            computed = dict(zip(missing, await embedding.embed(missing, kind="document"), strict=True))
            if cache is not None:
                await cache.put(identity, computed)
            known |= computed
        for i, text in enumerate(texts[start : start + _BATCH], start):
            vectors[i] = known[text]
        if progress is not None:
            progress(min(start + _BATCH, len(texts)), len(texts))
    return vectors


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=20).digest()
