"""`PassageDatabase`: an index's documents, passages and vectors in one SQLite file, from which all else is derived.

A passage has a position, a number that it keeps and that is never reused. Replaced documents stay until the published
index no longer needs them, so that searches use the previous state while an index is being changed.
"""

from __future__ import annotations

import errno
import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ....core.errors import DataError, StoreError, UserError
from ...knowledge import Passage, searchable_text
from ..passages import position_id
from ..words import split_words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

READING, LIVE, REMOVED = 0, 1, 2
"""States of a document: its passages are being written; it is part of the index; it was removed."""

_BATCH = 2000
_MAX_PARAMETERS = 500
_BUSY_TIMEOUT_S = 30
_SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (
    number INTEGER PRIMARY KEY,
    path TEXT NOT NULL,
    source TEXT NOT NULL,
    digest TEXT NOT NULL,
    state INTEGER NOT NULL,
    passages INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS by_path ON documents (path);
CREATE INDEX IF NOT EXISTS by_source ON documents (source);
CREATE TABLE IF NOT EXISTS passages (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    document INTEGER NOT NULL,
    id TEXT NOT NULL,
    source TEXT NOT NULL,
    title TEXT NOT NULL,
    text TEXT NOT NULL,
    start INTEGER,
    words TEXT NOT NULL,
    content_hash BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS by_document ON passages (document);
CREATE INDEX IF NOT EXISTS by_id ON passages (id);
CREATE INDEX IF NOT EXISTS by_content_hash ON passages (content_hash);
CREATE TABLE IF NOT EXISTS vectors (content_hash BLOB PRIMARY KEY, vector BLOB NOT NULL);
"""
_DOCUMENT_COLUMNS = "number, path, source, digest, passages"
# the plus keeps SQLite from going document by document: passages are read in order of position, nothing is sorted
_IS_LIVE = "+document IN (SELECT number FROM documents WHERE state = ?)"


class IndexedDocument(NamedTuple):
    """A document of the index; `passages` is their number."""

    number: int
    path: str
    source: str
    digest: str
    passages: int


class PassageDatabase:
    """The rows of an index. Use it from one thread at a time.

    Args:
        path: The file.
        write: Whether it is opened for writing, and created if necessary.

    Raises:
        sqlite3.DatabaseError: It cannot be opened, or is not an index database.
    """

    def __init__(self, path: Path, *, write: bool = False) -> None:
        uri = path.resolve().as_uri() + ("?mode=rwc" if write else "?mode=ro")
        self._db = sqlite3.connect(
            uri, uri=True, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            self._db.execute("PRAGMA synchronous=FULL" if write else "PRAGMA query_only=ON")
            if write:
                self._db.executescript(_SCHEMA)
            self._db.execute("SELECT number FROM documents LIMIT 1")
        except sqlite3.DatabaseError:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the file; idempotent."""
        self._db.close()

    # -- documents

    def documents(self) -> Iterator[IndexedDocument]:
        """The documents of the index, in the order in which they were added."""
        sql = f"SELECT {_DOCUMENT_COLUMNS} FROM documents WHERE state = ? ORDER BY number"  # noqa: S608
        return (IndexedDocument(*row) for row in self._db.execute(sql, (LIVE,)))

    def document(self, path: str) -> IndexedDocument | None:
        """The document of a path."""
        sql = f"SELECT {_DOCUMENT_COLUMNS} FROM documents WHERE path = ? AND state = ?"  # noqa: S608
        row = self._db.execute(sql, (path, LIVE)).fetchone()
        return None if row is None else IndexedDocument(*row)

    def unique_source(self, path: str, source: str) -> str:
        """The source that passages of a path cite, or the complete path if another path has that source."""
        sql = "SELECT 1 FROM documents WHERE source = ? AND path != ? AND state != ? LIMIT 1"
        return source if self._db.execute(sql, (source, path, REMOVED)).fetchone() is None else path

    def add_document(self, path: str, source: str, digest: str, passages: Iterable[Passage]) -> int:
        """Add a document; the previous one of the path is removed once all new passages are written.

        Returns:
            The number of its passages; a document without any is not part of the index.
        """
        cursor = self._db.execute(
            "INSERT INTO documents (path, source, digest, state) VALUES (?, ?, ?, ?)", (path, source, digest, READING)
        )
        number = cursor.lastrowid
        assert number is not None
        count, remaining = 0, iter(passages)
        while batch := list(islice(remaining, _BATCH)):
            with self._transaction():
                for one in batch:
                    p, text = self._with_unique_id(one, path, number), searchable_text(one)
                    words = " ".join(split_words(text))
                    row = (number, p.id, p.source, p.title, p.text, p.start, words, _content_hash(text))
                    self._db.execute("INSERT INTO passages VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)", row)
            count += len(batch)
        with self._transaction():
            self._db.execute("UPDATE documents SET state = ? WHERE path = ? AND state = ?", (REMOVED, path, LIVE))
            if count:
                self._db.execute("UPDATE documents SET state = ?, passages = ? WHERE number = ?", (LIVE, count, number))
            else:
                self._db.execute("DELETE FROM documents WHERE number = ?", (number,))
        return count

    def remove_document(self, number: int) -> None:
        """Mark a document as removed."""
        self._db.execute("UPDATE documents SET state = ? WHERE number = ?", (REMOVED, number))

    def delete_incomplete(self) -> None:
        """Delete documents left incomplete by an interrupted build."""
        self._delete(READING)

    def delete_removed(self) -> None:
        """Delete removed documents, which the published index no longer needs, and vectors without a passage."""
        if self._delete(REMOVED):
            self._db.execute("DELETE FROM vectors WHERE content_hash NOT IN (SELECT content_hash FROM passages)")

    # -- passages and vectors

    def num_passages(self) -> tuple[int, int]:
        """Number of passages, removed ones included, and of those with vectors."""
        sql = "SELECT COUNT(*), COUNT(vectors.content_hash) FROM passages LEFT JOIN vectors USING (content_hash)"
        passages, embedded = self._db.execute(sql).fetchone()
        return passages, embedded

    def live_positions(self) -> NDArray[np.int64]:
        """The positions of the index, ascending."""
        import numpy as np

        sql = f"SELECT position FROM passages WHERE {_IS_LIVE} ORDER BY position"  # noqa: S608
        return np.fromiter((row[0] for row in self._db.execute(sql, (LIVE,))), dtype=np.int64)

    def live_words(self) -> Iterator[list[str]]:
        """The words of each passage of the index, in order of position."""
        sql = f"SELECT words FROM passages WHERE {_IS_LIVE} ORDER BY position"  # noqa: S608
        return (words.split() for (words,) in self._db.execute(sql, (LIVE,)))

    def without_vectors(self, after: int, count: int) -> list[tuple[int, bytes, str]]:
        """(position, content hash, searchable text) of the next live passages after a position without a vector."""
        sql = (
            "SELECT position, content_hash, title, text FROM passages "  # noqa: S608
            f"WHERE position > ? AND {_IS_LIVE} "
            "AND NOT EXISTS (SELECT 1 FROM vectors WHERE vectors.content_hash = passages.content_hash) "
            "ORDER BY position LIMIT ?"
        )
        rows = self._db.execute(sql, (after, LIVE, count))
        return [(position, hashed, f"{title}\n{text}" if title else text) for position, hashed, title, text in rows]

    def add_vectors(self, vectors: Mapping[bytes, NDArray[np.float32]]) -> None:
        """Store vectors by content hash, which passages with the same text share."""
        rows = [(content_hash, vector.astype("<f4").tobytes()) for content_hash, vector in vectors.items()]
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)

    def vectors(self, positions: NDArray[np.int64], dimension: int) -> NDArray[np.float32]:
        """The vectors of ascending positions, `[positions, dimension]`.

        Raises:
            DataError: One is missing or has another dimension.
        """
        import numpy as np

        vectors: NDArray[np.float32] = np.empty((len(positions), dimension), dtype=np.float32)
        found = 0
        for start in range(0, len(positions), _MAX_PARAMETERS):
            batch = tuple(positions[start : start + _MAX_PARAMETERS].tolist())
            sql = (
                "SELECT vector FROM passages JOIN vectors USING (content_hash) "  # noqa: S608
                f"WHERE position IN ({','.join('?' * len(batch))}) ORDER BY position"
            )
            for (vector,) in self._db.execute(sql, batch):
                if len(vector) == 4 * dimension:
                    vectors[found] = np.frombuffer(vector, dtype="<f4")
                    found += 1
        if found < len(positions):
            raise DataError("vectors of the index are missing or damaged", hint="remove it and build it again")
        return vectors

    def passages_at(self, positions: Sequence[int]) -> dict[int, Passage]:
        """The passages at positions, as far as they exist."""
        passages: dict[int, Passage] = {}
        for batch in (positions[i : i + _MAX_PARAMETERS] for i in range(0, len(positions), _MAX_PARAMETERS)):
            marks = ",".join("?" * len(batch))
            sql = f"SELECT position, id, source, title, text, start FROM passages WHERE position IN ({marks})"  # noqa: S608
            for position, name, source, title, text, start in self._db.execute(sql, tuple(batch)):
                passages[position] = Passage(id=name, source=source, title=title, text=text, start=start)
        return passages

    def digest(self) -> str:
        """Hash of the content of the index."""
        hashed = hashlib.sha256()
        for document in self.documents():
            hashed.update(repr((document.source, document.digest, document.passages)).encode("utf-8", "surrogatepass"))
        return hashed.hexdigest()

    def _with_unique_id(self, passage: Passage, path: str, number: int) -> Passage:
        sql = (
            "SELECT 1 FROM passages JOIN documents ON document = number "
            "WHERE id = ? AND state != ? AND (path != ? OR number = ?) LIMIT 1"
        )
        if self._db.execute(sql, (passage.id, REMOVED, path, number)).fetchone() is None:
            return passage
        return passage.model_copy(update={"id": position_id(passage)})

    def _delete(self, state: int) -> bool:
        """Delete the documents in a state; whether there were any."""
        numbers = [row[0] for row in self._db.execute("SELECT number FROM documents WHERE state = ?", (state,))]
        for number in numbers:
            with self._transaction():
                self._db.execute("DELETE FROM passages WHERE document = ?", (number,))
                self._db.execute("DELETE FROM documents WHERE number = ?", (number,))
        return bool(numbers)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:  # a full disk has already ended it
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def _content_hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR}


@contextmanager
def index_errors(directory: Path) -> Iterator[None]:
    """Turn errors of the system and the database on an index's own files into errors with a remedy.

    Raises:
        StoreError: The disk is full, or a file cannot be written.
        UserError: The directory is not writable.
        DataError: The database is damaged.
    """
    try:
        yield
    except OSError as e:
        raise _storage_error(directory, e, is_full=e.errno in _FULL, is_forbidden=e.errno in _FORBIDDEN) from e
    except sqlite3.DatabaseError as e:
        code = getattr(e, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise DataError(f"the index {directory} is damaged: {e}", hint="remove it and rebuild it") from e
        is_forbidden = code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)
        raise _storage_error(directory, e, is_full=code == sqlite3.SQLITE_FULL, is_forbidden=is_forbidden) from e


def _storage_error(directory: Path, error: Exception, *, is_full: bool, is_forbidden: bool) -> StoreError | UserError:
    if is_full:
        return StoreError(
            f"the disk of {directory} is full; what was saved is kept",
            hint="free some space and run it again to continue",
        )
    if is_forbidden:
        return UserError(f"cannot write the index {directory}: {error}", hint="choose another directory")
    return StoreError(f"the index {directory} cannot be read or written: {error}")
