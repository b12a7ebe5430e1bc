"""Where named memories lie, and which there are.

Each has a folder `memory/<name>` beside the run store: `items.sqlite3` has the items and their vectors, `index.faiss`
a FAISS index over these, which is made anew whenever it does not fit, and `index.json` what that was made of.

`MemoryDatabase`: the items of a named memory in SQLite, with their vectors. Everything here blocks.

Several processes may use one file. A change is one transaction, and each state has a mark of its own (`Head`), by which
others see that what they know is no longer all.

What there is to say of named memories without opening them for work.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import ValidationError

from ...core.errors import StoreError, UnknownName, UserError
from ...core.messages import Frozen
from ...core.registry import nearest
from ...core.settings import Settings
from ...serving.kv_store import check_name
from .named_memory import MemoryState
from .working_memory import MemoryItem

ROWS = "items.sqlite3"
LOCK_TIMEOUT_S = 10.0
"""How long another process may hold a memory's folder, in seconds."""


@dataclass(frozen=True)
class MemoryLocation:
    """Where a named memory lies, whether it is there or not.

    Attributes:
        name: Its name.
        folder: Its folder.
    """

    name: str
    folder: Path

    @property
    def rows(self) -> Path:
        """The file of its items."""
        return self.folder / ROWS

    def exists(self) -> bool:
        """Whether it is there."""
        return self.rows.is_file()

    @contextmanager
    def locked(self, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
        """Keep other processes from replacing or removing files of the folder while the block runs. Blocks.

        Raises:
            StoreError: Another process holds it too long, or the folder cannot be written.
        """
        locks = self.folder.parent / ".locks"
        with folder_errors(self):
            locks.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = FileLock(locks / f"{self.name}.lock")
            try:
                lock.acquire(timeout=timeout_s)
            except Timeout:
                raise StoreError(f"memory {self.name!r} is held by another process", hint="try again") from None
        try:
            yield
        finally:
            lock.release()


def memory_location(name: str, settings: Settings) -> MemoryLocation:
    """Where the memory of that name lies, or would.

    Raises:
        UserError: A memory cannot have that name.
    """
    try:
        check_name(name)
    except UserError as e:
        shown = repr(name) if len(name) <= 100 else repr(name[:97]) + "…"
        raise UserError(f"{shown} cannot name a memory", hint=e.hint) from None
    return MemoryLocation(name, _home(settings) / name)


def find_memory(name: str, settings: Settings) -> MemoryLocation:
    """Where an existing memory lies.

    Raises:
        UserError: A memory cannot have that name.
        UnknownName: There is none.
    """
    place = memory_location(name, settings)
    if not place.exists():
        near = nearest(name, [p.name for p in list_memories(settings)])
        raise UnknownName("memory", name, near, hint="`reason memory list` shows those there are")
    return place


def list_memories(settings: Settings) -> list[MemoryLocation]:
    """The memories that there are, by name."""
    try:
        folders = sorted(_home(settings).iterdir())
    except OSError:
        return []
    places = [MemoryLocation(f.name, f) for f in folders if not f.name.startswith(".")]
    return [place for place in places if place.exists()]


def remove_memory(place: MemoryLocation) -> None:
    """Remove a memory with all its items. Blocks.

    Raises:
        StoreError: Another process holds its folder, or it cannot be removed.
    """
    with place.locked(), folder_errors(place):
        place.rows.unlink(missing_ok=True)  # first: without it, what is left is no memory
        shutil.rmtree(place.folder)


@contextmanager
def folder_errors(place: MemoryLocation) -> Iterator[None]:
    """Turn what the operating system says of a memory's folder into `StoreError`."""
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(f"no space left for memory {place.name!r} in {place.folder}", hint="free some") from e
        raise StoreError(
            f"cannot use the folder {place.folder} of memory {place.name!r}: {e.strerror or e}", hint="set --store"
        ) from e


def _home(settings: Settings) -> Path:
    return settings.beside_store / "memory"


SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 10.0
"""How long another process may be writing before an operation fails, in seconds."""
_SOME = 500
"""Most parameters of one statement."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS items (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    text TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE,
    source_id TEXT NOT NULL,
    source_kind TEXT NOT NULL,
    query TEXT NOT NULL,
    node_id INTEGER NOT NULL,
    score REAL NOT NULL,
    tokens INTEGER NOT NULL,
    run_id TEXT NOT NULL,
    question TEXT NOT NULL,
    created REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS items_worth ON items (score, id);
CREATE TABLE IF NOT EXISTS vectors (
    item_id INTEGER NOT NULL REFERENCES items (id) ON DELETE CASCADE,
    embedding TEXT NOT NULL,
    vector BLOB NOT NULL,
    PRIMARY KEY (item_id, embedding)
);
"""
_COLUMNS = "id, text, hash, source_id, source_kind, query, node_id, score, tokens, run_id, question, created"


class MemoryDamaged(StoreError):
    """The items of a memory cannot be read."""

    code = "memory_damaged"


class StoredItem(Frozen):
    """An item of a named memory.

    Attributes:
        id: Its number in that memory, from 1; never used twice.
        item: The item.
        run_id: The run that it comes from; empty if from none.
        question: What that run was asked.
        created: When it came, in seconds since 1970.
    """

    id: int
    item: MemoryItem
    run_id: str = ""
    question: str = ""
    created: float


class MemoryDatabase:
    """The open file of a memory. Use it from one thread at a time.

    Args:
        place: Where the memory lies.
        create: Whether to make it if it is not there.

    Raises:
        UnknownName: It is not there.
        StoreError: It cannot be opened, is held by another process, damaged, or of a newer version of `reason`.
    """

    def __init__(self, place: MemoryLocation, *, create: bool = True) -> None:
        self.place = place
        with place.locked():
            if not place.exists():
                if not create:
                    raise UnknownName("memory", place.name, hint="`reason memory list` shows those there are")
                with folder_errors(place):
                    place.folder.mkdir(mode=0o700, exist_ok=True)  # what was asked may be private
            with _sqlite_errors(place):
                self._db = sqlite3.connect(
                    place.rows, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
                )
                try:
                    self._prepare()
                except BaseException:
                    self._db.close()
                    raise
        self._file = _file_of(place)

    def head(self) -> MemoryState:
        """The state of the rows."""
        with self._errors():
            return self._head()

    def read(self, known: Collection[int] = ()) -> tuple[MemoryState, list[int], list[StoredItem]]:
        """All of one state.

        Args:
            known: Ids of items that need not be read.

        Returns:
            The state, the ids of all items, and the items that are not known, both in order of their ids.
        """
        with self._errors(), self._transaction("BEGIN"):
            ids = [int(row[0]) for row in self._db.execute("SELECT id FROM items ORDER BY id")]
            fresh = [i for i in ids if i not in known]
            if len(fresh) == len(ids):
                rows = self._db.execute(f"SELECT {_COLUMNS} FROM items ORDER BY id").fetchall()  # noqa: S608
            else:
                rows = [row for some in _parts(fresh) for row in self._rows(some)]
            return self._head(), ids, [_item(self.place, row) for row in rows]

    def vectors(self, embedding: str, ids: Sequence[int]) -> dict[int, bytes]:
        """The vectors that some items have of an embedding model, as they were put."""
        found: dict[int, bytes] = {}
        with self._errors():
            for some in _parts(ids):
                sql = f"SELECT item_id, vector FROM vectors WHERE embedding = ? AND item_id IN ({_marks(some)})"  # noqa: S608
                found.update((int(i), bytes(v)) for i, v in self._db.execute(sql, (embedding, *some)))
        return found

    def put_vectors(self, embedding: str, vectors: Mapping[int, bytes]) -> None:
        """Keep vectors of items; those of items that are gone are left out."""
        with self._errors(), self._transaction("BEGIN IMMEDIATE"):
            self._db.executemany(
                "INSERT OR REPLACE INTO vectors SELECT id, ?, ? FROM items WHERE id = ?",
                [(embedding, vector, i) for i, vector in vectors.items()],
            )

    def add(
        self,
        head: MemoryState,
        items: Sequence[tuple[MemoryItem, bytes | None]],
        *,
        run_id: str,
        question: str,
        embedding: str,
        most: int,
    ) -> tuple[list[int], list[int]] | None:
        """Put items in and, where there are then too many, those of lowest score out, the oldest of them first.

        Args:
            head: The state in which the items are new.
            items: The items, each with its vector if it has one.
            run_id: The run that they come from.
            question: What it was asked.
            embedding: Identity of the model of the vectors.
            most: Most items that stay.

        Returns:
            The ids of the new items and of those that went; None, and nothing done, if the state is another.
        """
        now = time.time()
        with self._errors(), self._transaction("BEGIN IMMEDIATE"):
            if self._head() != head:
                return None
            new: list[int] = []
            for item, vector in items:
                values = (item.text, item.hash, item.source_id, item.source_kind, item.query, item.node_id, item.score)
                cursor = self._db.execute(
                    f"INSERT INTO items ({_COLUMNS}) VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                    (*values, item.tokens, run_id, question, now),
                )
                assert cursor.lastrowid is not None
                new.append(cursor.lastrowid)
                if vector is not None:
                    self._db.execute("INSERT INTO vectors VALUES (?, ?, ?)", (new[-1], embedding, vector))
            over = max(0, head.rows + len(new) - most)
            gone = [int(i) for (i,) in self._db.execute("SELECT id FROM items ORDER BY score, id LIMIT ?", (over,))]
            self._db.executemany("DELETE FROM items WHERE id = ?", [(i,) for i in gone])
            self._change(now)
            return new, gone

    def remove(self, ids: Sequence[int]) -> None:
        """Take items out: all of them or, if one is not there, none.

        Raises:
            UnknownName: One is not there.
        """
        with self._errors(), self._transaction("BEGIN IMMEDIATE"):
            for i in dict.fromkeys(ids):
                if self._db.execute("DELETE FROM items WHERE id = ?", (i,)).rowcount == 0:
                    raise UnknownName(
                        "item", f"{self.place.name} {i}", hint=f"`reason memory show {self.place.name}` shows them"
                    )
            if ids:
                self._change(time.time())

    def changed(self) -> float:
        """When it was last changed, in seconds since 1970."""
        with self._errors():
            try:
                return float(self._meta("changed"))
            except ValueError as e:
                raise _damaged(self.place, e) from e

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # -- within

    def _prepare(self) -> None:
        db = self._db
        if db.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute("PRAGMA foreign_keys=ON")
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
            version = self._number("schema")
            if version == SCHEMA_VERSION:
                return
            raise StoreError(
                f"memory {self.place.name!r} was written by a newer version of reason (schema {version})",
                hint="upgrade reason",
            )
        with self._transaction("BEGIN IMMEDIATE"):
            for statement in _SCHEMA.split(";\n"):
                if statement.strip():
                    db.execute(statement)
            db.executemany("INSERT INTO meta VALUES (?, ?)", [("schema", str(SCHEMA_VERSION)), ("change", "0")])
            self._change(time.time())

    def _head(self) -> MemoryState:
        ((rows,),) = self._db.execute("SELECT COUNT(*) FROM items").fetchall()
        return MemoryState(change=self._number("change"), mark=self._meta("mark"), rows=rows)

    def _change(self, now: float) -> None:
        values = {"change": str(self._number("change") + 1), "mark": secrets.token_hex(16), "changed": repr(now)}
        self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())

    def _meta(self, key: str) -> str:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise _damaged(self.place, f"{key} is missing")
        return str(row[0])

    def _number(self, key: str) -> int:
        try:
            return int(self._meta(key))
        except ValueError as e:
            raise _damaged(self.place, e) from e

    def _rows(self, ids: Sequence[int]) -> list[tuple[object, ...]]:
        sql = f"SELECT {_COLUMNS} FROM items WHERE id IN ({_marks(ids)}) ORDER BY id"  # noqa: S608
        return self._db.execute(sql, ids).fetchall()

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        self._db.execute(begin)
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        if _file_of(self.place) != self._file:  # the open file is one that nobody will find again
            raise StoreError(f"memory {self.place.name!r} was removed by another process", hint="open it anew")
        with _sqlite_errors(self.place):
            yield


def _damaged(place: MemoryLocation, what: object) -> MemoryDamaged:
    return MemoryDamaged(
        f"memory {place.name!r} is damaged: {what}",
        hint=f"put a copy of {place.rows} in its place, or `reason memory rm {place.name}`",
    )


@contextmanager
def _sqlite_errors(place: MemoryLocation) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as e:
        code = e.sqlite_errorcode & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StoreError(f"memory {place.name!r} is being written by another process", hint="try again") from e
        if code == sqlite3.SQLITE_FULL:
            raise StoreError(f"no space left for memory {place.name!r} in {place.folder}", hint="free some") from e
        if code == sqlite3.SQLITE_ERROR:  # no such table or column
            raise _damaged(place, e) from e
        raise StoreError(f"cannot use memory {place.name!r} in {place.folder}: {e}", hint="set --store") from e
    except sqlite3.ProgrammingError as e:
        raise StoreError(f"memory {place.name!r} is closed", hint="open it anew") from e
    except sqlite3.DatabaseError as e:
        raise _damaged(place, e) from e


def _item(place: MemoryLocation, row: Sequence[object]) -> StoredItem:
    values = dict(zip(_COLUMNS.split(", "), row, strict=True))
    of_item = {key: values.pop(key) for key in MemoryItem.model_fields}
    try:
        return StoredItem.model_validate({**values, "item": of_item})
    except ValidationError as e:
        raise _damaged(place, f"item {values['id']}: {e.errors()[0]['msg']}") from e


def _file_of(place: MemoryLocation) -> tuple[int, int] | None:
    """Which file of the system it is; None if it is gone."""
    try:
        stat = os.stat(place.rows)
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def _parts(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    return (ids[start : start + _SOME] for start in range(0, len(ids), _SOME))


def _marks(ids: Sequence[int]) -> str:
    return ",".join("?" * len(ids))


class MemorySummary(Frozen):
    """A line of the list of memories.

    Attributes:
        name: Its name.
        state: "damaged" if its items cannot be read; the other fields are then 0.
        items: How many it has.
        changed: When it was last changed, in seconds since 1970.
        size_bytes: Bytes that it takes on disk.
    """

    name: str
    state: Literal["ready", "damaged"]
    items: int = 0
    changed: float = 0.0
    size_bytes: int = 0


def summarize_memory(place: MemoryLocation) -> MemorySummary:
    """What there is to say of a memory; one that is damaged is told as such.

    Raises:
        StoreError: Another process holds it.
    """
    size = sum(p.stat().st_size for p in place.folder.iterdir() if p.is_file())
    try:
        rows = MemoryDatabase(place, create=False)
    except MemoryDamaged:
        return MemorySummary(name=place.name, state="damaged", size_bytes=size)
    try:
        return MemorySummary(
            name=place.name, state="ready", items=rows.head().rows, changed=rows.changed(), size_bytes=size
        )
    except MemoryDamaged:
        return MemorySummary(name=place.name, state="damaged", size_bytes=size)
    finally:
        rows.close()
