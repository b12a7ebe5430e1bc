"""`PassageDatabase`: the documents and passages of an index in one SQLite file; everything else is derived from it.

A passage has a position, a number that it keeps and that is never reused. Replaced documents stay until the published
index no longer needs them, so that searches use the previous state while an index is being changed.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ...knowledge import Passage
from ..passages import position_id

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
    position INTEGER PRIMARY KEY,
    document INTEGER NOT NULL,
    id TEXT NOT NULL,
    source TEXT NOT NULL,
    title TEXT NOT NULL,
    text TEXT NOT NULL,
    start INTEGER,
    content_hash BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS by_document ON passages (document);
CREATE INDEX IF NOT EXISTS by_id ON passages (id);
CREATE INDEX IF NOT EXISTS by_content_hash ON passages (content_hash);
"""
_DOCUMENT_COLUMNS = "number, path, source, digest, passages"


class PassageRow(NamedTuple):
    """A passage as it is indexed: its position, its searchable text, and the hash of that."""

    position: int
    text: str
    content_hash: bytes


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
        min_position: Minimum position of a new passage: one past the last with stored counts or vectors.

    Raises:
        sqlite3.DatabaseError: It cannot be opened, or is not an index database.
    """

    def __init__(self, path: Path, *, write: bool = False, min_position: int = 0) -> None:
        self._min_position = min_position
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
                position = max(self.end(), self._min_position)
                for one in batch:
                    p = self._with_unique_id(one, path, number)
                    row = (position, number, p.id, p.source, p.title, p.text, p.start, _content_hash(p))
                    self._db.execute("INSERT INTO passages VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
                    position += 1
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
        """Delete removed documents, which the published index no longer needs."""
        self._delete(REMOVED)

    # -- passages

    def end(self) -> int:
        """One past the last position."""
        (end,) = self._db.execute("SELECT COALESCE(MAX(position), -1) + 1 FROM passages").fetchone()
        return int(end)

    def live_positions(self) -> NDArray[np.int64]:
        """The positions of the index, ascending."""
        import numpy as np

        sql = (
            "SELECT position FROM passages WHERE document IN (SELECT number FROM documents WHERE state = ?) "
            "ORDER BY position"
        )
        return np.fromiter((row[0] for row in self._db.execute(sql, (LIVE,))), dtype=np.int64)

    def rows(self, start: int, stop: int) -> list[PassageRow]:
        """The passages of a range of positions, removed ones included."""
        sql = (
            "SELECT position, title, text, content_hash FROM passages "
            "WHERE position >= ? AND position < ? ORDER BY position"
        )
        rows = self._db.execute(sql, (start, stop))
        return [PassageRow(p, f"{title}\n{text}" if title else text, digest) for p, title, text, digest in rows]

    def earlier_positions(self, hashes: Sequence[bytes], before: int) -> dict[bytes, int]:
        """By content hash, the first position before another of a passage with the same text and title."""
        # one look-up each: a statement for several reads all passages of a text, however often it is repeated
        sql = "SELECT MIN(position) FROM passages WHERE content_hash = ? AND position < ?"
        found = ((one, self._db.execute(sql, (one, before)).fetchone()[0]) for one in dict.fromkeys(hashes))
        return {one: position for one, position in found if position is not None}

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

    def _delete(self, state: int) -> None:
        numbers = [row[0] for row in self._db.execute("SELECT number FROM documents WHERE state = ?", (state,))]
        for number in numbers:
            with self._transaction():
                self._db.execute("DELETE FROM passages WHERE document = ?", (number,))
                self._db.execute("DELETE FROM documents WHERE number = ?", (number,))

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


def _content_hash(passage: Passage) -> bytes:
    return hashlib.blake2b(f"{passage.title}\n{passage.text}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
