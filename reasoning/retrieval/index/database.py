"""`PassageDatabase`: the documents and passages of an index, in one SQLite file; all else is made of them.

A passage has a place, a number that it keeps. Documents that are replaced stay until what is published no longer needs
them, so an index that is being changed answers as before.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..passages import Passage, position_id

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


READING, WHOLE, GONE = 0, 1, 2
"""States of a document: its passages are being written; it is part of the index; it is no longer."""

_BATCH = 2000
_WAIT_S = 30
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
CREATE TABLE IF NOT EXISTS passages (
    place INTEGER PRIMARY KEY,
    document INTEGER NOT NULL,
    id TEXT NOT NULL,
    source TEXT NOT NULL,
    title TEXT NOT NULL,
    text TEXT NOT NULL,
    start INTEGER,
    same BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS by_document ON passages (document);
CREATE INDEX IF NOT EXISTS by_id ON passages (id);
CREATE INDEX IF NOT EXISTS by_same ON passages (same);
"""


class PassageRow(NamedTuple):
    """A passage as it is indexed: where, what is searched of it, and the hash of that."""

    place: int
    shown: str
    same: bytes


class IndexedDocument(NamedTuple):
    """A document that is part of the index."""

    number: int
    path: str
    source: str
    digest: str
    passages: int


class PassageDatabase:
    """The rows of an index. Used by one thread at a time.

    Args:
        path: The file.
        write: Whether it is to be written; it is made then if it is not there.
        floor: Least place of a new passage: one past the last that something is kept of, as places are not used twice.

    Raises:
        sqlite3.DatabaseError: It cannot be opened, or is no such file.
    """

    def __init__(self, path: Path, *, write: bool = False, floor: int = 0) -> None:
        self._floor = floor
        where = path.resolve().as_uri() + ("?mode=rwc" if write else "?mode=ro")
        self._db = sqlite3.connect(where, uri=True, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
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
        """The documents of the index, in the order in which they came."""
        sql = "SELECT number, path, source, digest, passages FROM documents WHERE state = ? ORDER BY number"
        return (IndexedDocument(*row) for row in self._db.execute(sql, (WHOLE,)))

    def document(self, path: str) -> IndexedDocument | None:
        """The document of a path."""
        sql = "SELECT number, path, source, digest, passages FROM documents WHERE path = ? AND state = ?"
        row = self._db.execute(sql, (path, WHOLE)).fetchone()
        return None if row is None else IndexedDocument(*row)

    def free_source(self, path: str, source: str) -> str:
        """What passages of a path are to call it: the source, or the whole path if another path is called so."""
        sql = "SELECT 1 FROM documents WHERE source = ? AND path != ? AND state != ? LIMIT 1"
        return source if self._db.execute(sql, (source, path, GONE)).fetchone() is None else path

    def put(self, path: str, source: str, digest: str, passages: Iterable[Passage]) -> int:
        """Take a document in; the one of this path before it is gone once all passages of the new one are there.

        Returns:
            How many passages it has; one without any is no part of the index.
        """
        cursor = self._db.execute(
            "INSERT INTO documents (path, source, digest, state) VALUES (?, ?, ?, ?)", (path, source, digest, READING)
        )
        number = cursor.lastrowid
        assert number is not None
        count, left = 0, iter(passages)
        while some := list(islice(left, _BATCH)):
            with self._transaction():
                place = max(self.end(), self._floor)
                for one in some:
                    passage = self._with_own_id(one, path, number)
                    row = (place, number, passage.id, passage.source, passage.title, passage.text, passage.start)
                    self._db.execute("INSERT INTO passages VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*row, _same(passage)))
                    place += 1
            count += len(some)
        with self._transaction():
            self._db.execute("UPDATE documents SET state = ? WHERE path = ? AND state = ?", (GONE, path, WHOLE))
            if count:
                self._db.execute(
                    "UPDATE documents SET state = ?, passages = ? WHERE number = ?", (WHOLE, count, number)
                )
            else:
                self._db.execute("DELETE FROM documents WHERE number = ?", (number,))
        return count

    def take_out(self, number: int) -> None:
        """Let a document be gone."""
        self._db.execute("UPDATE documents SET state = ? WHERE number = ?", (GONE, number))

    def drop_half_read(self) -> None:
        """Remove what a stopped reading has left."""
        self._remove(READING)

    def drop_gone(self) -> None:
        """Remove documents that are gone; nothing that is published needs them any more."""
        self._remove(GONE)

    # -- passages

    def end(self) -> int:
        """One past the last place."""
        (end,) = self._db.execute("SELECT COALESCE(MAX(place), -1) + 1 FROM passages").fetchone()
        return int(end)

    def live(self) -> NDArray[np.int64]:
        """The places of the index, ascending."""
        import numpy as np

        sql = (
            "SELECT place FROM passages WHERE document IN (SELECT number FROM documents WHERE state = ?) ORDER BY place"
        )
        return np.fromiter((row[0] for row in self._db.execute(sql, (WHOLE,))), dtype=np.int64)

    def rows(self, start: int, stop: int) -> list[PassageRow]:
        """The passages from a place up to another, also of documents that are gone."""
        sql = "SELECT place, title, text, same FROM passages WHERE place >= ? AND place < ? ORDER BY place"
        found = self._db.execute(sql, (start, stop))
        return [PassageRow(place, f"{title}\n{text}" if title else text, same) for place, title, text, same in found]

    def earlier(self, same: Sequence[bytes], before: int) -> dict[bytes, int]:
        """By hash, the first place before another of a passage with the same text and title."""
        found: dict[bytes, int] = {}
        wanted = iter(dict.fromkeys(same))
        while some := list(islice(wanted, 500)):
            marks = ",".join("?" * len(some))
            sql = f"SELECT same, MIN(place) FROM passages WHERE same IN ({marks}) AND place < ? GROUP BY same"  # noqa: S608
            found.update(self._db.execute(sql, (*some, before)))
        return found

    def at(self, places: Sequence[int]) -> dict[int, Passage]:
        """The passages of places, as far as they are there."""
        found: dict[int, Passage] = {}
        for some in (places[i : i + 500] for i in range(0, len(places), 500)):
            marks = ",".join("?" * len(some))
            sql = f"SELECT place, id, source, title, text, start FROM passages WHERE place IN ({marks})"  # noqa: S608
            for place, name, source, title, text, start in self._db.execute(sql, tuple(some)):
                found[place] = Passage(id=name, source=source, title=title, text=text, start=start)
        return found

    def digest(self) -> str:
        """Hash of what the index holds."""
        hashed = hashlib.sha256()
        for document in self.documents():
            hashed.update(repr((document.source, document.digest, document.passages)).encode("utf-8", "surrogatepass"))
        return hashed.hexdigest()

    def _with_own_id(self, passage: Passage, path: str, number: int) -> Passage:
        sql = (
            "SELECT 1 FROM passages JOIN documents ON document = number "
            "WHERE id = ? AND state != ? AND (path != ? OR number = ?) LIMIT 1"
        )
        if self._db.execute(sql, (passage.id, GONE, path, number)).fetchone() is None:
            return passage
        return passage.model_copy(update={"id": position_id(passage)})

    def _remove(self, state: int) -> None:
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
            if self._db.in_transaction:  # a full disk has ended it already
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def _same(passage: Passage) -> bytes:
    text = f"{passage.title}\n{passage.text}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).digest()
