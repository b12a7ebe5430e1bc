"""Named memories on disk: their directories, their SQLite database, and summaries. Everything here blocks.

Each memory has a directory `memory/<name>` next to the run store: `items.sqlite3` has the items and their vectors,
`index.faiss` a FAISS index over these, which is rebuilt whenever it does not match, and `index.json` the state it
was built from. Several processes may use one memory. A change is one transaction, and each state has a random token
(`MemoryState`), by which other processes detect that theirs is outdated.
"""

from __future__ import annotations

import errno
import os
import re
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
from ..knowledge import MemoryItem

_MAX_NAME_LENGTH = 80
_NAME = re.compile(rf"[a-z0-9](?:[a-z0-9._-]{{0,{_MAX_NAME_LENGTH - 2}}}[a-z0-9])?")
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?")
"""Names that Windows reserves."""

DATABASE_FILE = "items.sqlite3"
LOCK_TIMEOUT_S = 10.0
"""Maximum seconds that another process may hold a memory's directory."""
SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 10.0
"""Maximum seconds that another process may be writing before an operation fails."""
_MAX_PARAMETERS = 500

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
CREATE INDEX IF NOT EXISTS items_by_score ON items (score, id);
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
        id: Its number in that memory, from 1; never reused.
        item: The item.
        run_id: The run that it comes from; empty if none.
        question: The question of that run.
        created: When it was added, in seconds since 1970.
    """

    id: int
    item: MemoryItem
    run_id: str = ""
    question: str = ""
    created: float


class MemoryState(Frozen):
    """A state of a memory's items.

    Attributes:
        version: Number of changes.
        token: Random token of the last change, so that no two states are equal.
        num_items: Number of items.
    """

    version: int
    token: str
    num_items: int


# -- directories


@dataclass(frozen=True)
class MemoryLocation:
    """The name and the directory of a memory, which need not exist."""

    name: str
    directory: Path

    @property
    def database(self) -> Path:
        """The file of its items."""
        return self.directory / DATABASE_FILE

    def exists(self) -> bool:
        """Whether the memory exists."""
        return self.database.is_file()

    @contextmanager
    def locked(self, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
        """Prevent other processes from replacing or removing files of the directory. Blocks.

        Raises:
            StoreError: Another process holds the lock too long, or the directory cannot be written.
        """
        locks = self.directory.parent / ".locks"
        with _directory_errors(self):
            locks.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = FileLock(locks / f"{self.name}.lock")
            try:
                lock.acquire(timeout=timeout_s)
            except Timeout:
                raise StoreError(f"memory {self.name!r} is locked by another process", hint="try again") from None
        try:
            yield
        finally:
            lock.release()


def memory_location(name: str, settings: Settings) -> MemoryLocation:
    """The location of a memory, which need not exist.

    Raises:
        UserError: The name is not valid.
    """
    if not _NAME.fullmatch(name) or _RESERVED.fullmatch(name):
        quoted_name = repr(name) if len(name) <= 100 else repr(name[:97]) + "…"
        raise UserError(
            f"{quoted_name} is not a valid name of a memory",
            hint=f"a name is 1 to {_MAX_NAME_LENGTH} of a-z, 0-9, '.', '_' and '-', the first and last a letter or "
            "digit, and no reserved file name",
        )
    return MemoryLocation(name, _root(settings) / name)


def find_memory(name: str, settings: Settings) -> MemoryLocation:
    """The location of an existing memory.

    Raises:
        UserError: The name is not valid.
        UnknownName: There is no such memory.
    """
    location = memory_location(name, settings)
    if not location.exists():
        suggestions = nearest(name, [other.name for other in list_memories(settings)])
        raise UnknownName("memory", name, suggestions, hint="`reason memory list` shows the existing ones")
    return location


def list_memories(settings: Settings) -> list[MemoryLocation]:
    """The existing memories, by name."""
    try:
        directories = sorted(_root(settings).iterdir())
    except OSError:
        return []
    locations = [MemoryLocation(d.name, d) for d in directories if not d.name.startswith(".")]
    return [location for location in locations if location.exists()]


def remove_memory(location: MemoryLocation) -> None:
    """Remove a memory with all its items. Blocks.

    Raises:
        StoreError: Another process holds its lock, or it cannot be removed.
    """
    with location.locked(), _directory_errors(location):
        location.database.unlink(missing_ok=True)  # first: without it, the directory is not a memory
        shutil.rmtree(location.directory)


def _root(settings: Settings) -> Path:
    return settings.data_dir / "memory"


@contextmanager
def _directory_errors(location: MemoryLocation) -> Iterator[None]:
    """Turn errors of the operating system into `StoreError`."""
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_space(location) from e
        raise StoreError(
            f"cannot use the directory {location.directory} of memory {location.name!r}: {e.strerror or e}",
            hint="set --store",
        ) from e


def _no_space(location: MemoryLocation) -> StoreError:
    return StoreError(
        f"no space left for memory {location.name!r} in {location.directory}", hint="free some disk space"
    )


# -- database


class MemoryDatabase:
    """The open database of a memory. Use it from one thread at a time.

    Args:
        location: The memory.
        create: Whether to create it if it does not exist.

    Raises:
        UnknownName: It does not exist.
        StoreError: It cannot be opened, is locked by another process, damaged, or of a newer version of `reason`.
    """

    def __init__(self, location: MemoryLocation, *, create: bool = True) -> None:
        self.location = location
        with location.locked():
            if not location.exists():
                if not create:
                    raise UnknownName("memory", location.name, hint="`reason memory list` shows the existing ones")
                with _directory_errors(location):
                    location.directory.mkdir(mode=0o700, exist_ok=True)  # questions may be private
            with _sqlite_errors(location):
                self._db = sqlite3.connect(
                    location.database, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
                )
                try:
                    self._prepare()
                except BaseException:
                    self._db.close()
                    raise
        self._file_id = _file_id(location)

    def state(self) -> MemoryState:
        """The current state."""
        with self._errors():
            return self._state()

    def read(self, known_ids: Collection[int] = ()) -> tuple[MemoryState, list[int], list[StoredItem]]:
        """A consistent state, the ids of all its items, and the items whose ids are not known, both by id."""
        with self._errors(), self._transaction("BEGIN"):
            ids = [int(row[0]) for row in self._db.execute("SELECT id FROM items ORDER BY id")]
            new = [i for i in ids if i not in known_ids]
            if len(new) == len(ids):
                rows = self._db.execute(f"SELECT {_COLUMNS} FROM items ORDER BY id").fetchall()  # noqa: S608
            else:
                rows = [row for batch in _batches(new) for row in self._rows(batch)]
            return self._state(), ids, [_stored_item(self.location, row) for row in rows]

    def vectors(self, embedding: str, ids: Sequence[int]) -> dict[int, bytes]:
        """The stored vectors of items by the embedding model with this identity."""
        vectors: dict[int, bytes] = {}
        with self._errors():
            for batch in _batches(ids):
                sql = f"SELECT item_id, vector FROM vectors WHERE embedding = ? AND item_id IN ({_marks(batch)})"  # noqa: S608
                vectors.update((int(i), bytes(v)) for i, v in self._db.execute(sql, (embedding, *batch)))
        return vectors

    def put_vectors(self, embedding: str, vectors: Mapping[int, bytes]) -> None:
        """Store vectors of items; those of removed items are ignored."""
        with self._errors(), self._transaction("BEGIN IMMEDIATE"):
            self._db.executemany(
                "INSERT OR REPLACE INTO vectors SELECT id, ?, ? FROM items WHERE id = ?",
                [(embedding, vector, i) for i, vector in vectors.items()],
            )

    def add(
        self,
        state: MemoryState,
        items: Sequence[tuple[MemoryItem, bytes | None]],
        *,
        run_id: str,
        question: str,
        embedding: str,
        max_items: int,
    ) -> tuple[list[int], list[int]] | None:
        """Add items and, beyond `max_items`, evict those of the lowest score, the oldest first.

        Args:
            state: The state in which the items are new.
            items: The items, each with its vector if it has one.
            run_id: The run that they come from.
            question: The question of the run.
            embedding: Identity of the model of the vectors.
            max_items: Maximum items that stay.

        Returns:
            The ids of the new and of the evicted items; None, without any change, if the state differs.
        """
        now = time.time()
        with self._errors(), self._transaction("BEGIN IMMEDIATE"):
            if self._state() != state:
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
            excess = max(0, state.num_items + len(new) - max_items)
            rows = self._db.execute("SELECT id FROM items ORDER BY score, id LIMIT ?", (excess,))
            evicted = [int(i) for (i,) in rows]
            self._db.executemany("DELETE FROM items WHERE id = ?", [(i,) for i in evicted])
            self._set_changed(now)
            return new, evicted

    def remove(self, ids: Sequence[int]) -> None:
        """Remove items: all of them or, if one does not exist, none.

        Raises:
            UnknownName: One does not exist.
        """
        name = self.location.name
        with self._errors(), self._transaction("BEGIN IMMEDIATE"):
            for i in dict.fromkeys(ids):
                if self._db.execute("DELETE FROM items WHERE id = ?", (i,)).rowcount == 0:
                    raise UnknownName("item", f"{name} {i}", hint=f"`reason memory show {name}` lists the items")
            if ids:
                self._set_changed(time.time())

    def changed(self) -> float:
        """Time of the last change, in seconds since 1970."""
        with self._errors():
            try:
                return float(self._meta("changed"))
            except ValueError as e:
                raise _damaged(self.location, e) from e

    def close(self) -> None:
        """Close the database."""
        self._db.close()

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
                f"memory {self.location.name!r} was written by a newer version of reason (schema {version})",
                hint="upgrade reason",
            )
        with self._transaction("BEGIN IMMEDIATE"):
            for statement in _SCHEMA.split(";\n"):
                if statement.strip():
                    db.execute(statement)
            db.executemany("INSERT INTO meta VALUES (?, ?)", [("schema", str(SCHEMA_VERSION)), ("version", "0")])
            self._set_changed(time.time())

    def _state(self) -> MemoryState:
        ((count,),) = self._db.execute("SELECT COUNT(*) FROM items").fetchall()
        return MemoryState(version=self._number("version"), token=self._meta("token"), num_items=count)

    def _set_changed(self, now: float) -> None:
        values = {"version": str(self._number("version") + 1), "token": secrets.token_hex(16), "changed": repr(now)}
        self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())

    def _meta(self, key: str) -> str:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise _damaged(self.location, f"{key} is missing")
        return str(row[0])

    def _number(self, key: str) -> int:
        try:
            return int(self._meta(key))
        except ValueError as e:
            raise _damaged(self.location, e) from e

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
        if _file_id(self.location) != self._file_id:  # the open file is no longer the one at this path
            raise StoreError(f"memory {self.location.name!r} was removed by another process", hint="open it again")
        with _sqlite_errors(self.location):
            yield


def _damaged(location: MemoryLocation, reason: object) -> MemoryDamaged:
    return MemoryDamaged(
        f"memory {location.name!r} is damaged: {reason}",
        hint=f"restore a copy of {location.database}, or run `reason memory rm {location.name}`",
    )


@contextmanager
def _sqlite_errors(location: MemoryLocation) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as e:
        code = e.sqlite_errorcode & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StoreError(f"memory {location.name!r} is being written by another process", hint="try again") from e
        if code == sqlite3.SQLITE_FULL:
            raise _no_space(location) from e
        if code == sqlite3.SQLITE_ERROR:  # no such table or column
            raise _damaged(location, e) from e
        raise StoreError(f"cannot use memory {location.name!r} in {location.directory}: {e}", hint="set --store") from e
    except sqlite3.ProgrammingError as e:
        raise StoreError(f"memory {location.name!r} is closed", hint="open it again") from e
    except sqlite3.DatabaseError as e:
        raise _damaged(location, e) from e


def _stored_item(location: MemoryLocation, row: Sequence[object]) -> StoredItem:
    values = dict(zip(_COLUMNS.split(", "), row, strict=True))
    item = {key: values.pop(key) for key in MemoryItem.model_fields}
    try:
        return StoredItem.model_validate({**values, "item": item})
    except ValidationError as e:
        raise _damaged(location, f"item {values['id']}: {e.errors()[0]['msg']}") from e


def _file_id(location: MemoryLocation) -> tuple[int, int] | None:
    """Device and inode of the database; None if it does not exist."""
    try:
        stat = os.stat(location.database)
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def _batches(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    return (ids[start : start + _MAX_PARAMETERS] for start in range(0, len(ids), _MAX_PARAMETERS))


def _marks(ids: Sequence[int]) -> str:
    return ",".join("?" * len(ids))


# -- summaries


class MemorySummary(Frozen):
    """A row of the list of memories.

    Attributes:
        name: Its name.
        state: "damaged" if its items cannot be read; the other fields are then 0.
        items: Number of items.
        changed: Time of the last change, in seconds since 1970.
        size_bytes: Bytes on disk.
    """

    name: str
    state: Literal["ready", "damaged"]
    items: int = 0
    changed: float = 0.0
    size_bytes: int = 0


def summarize_memory(location: MemoryLocation) -> MemorySummary:
    """The summary of a memory, damaged or not.

    Raises:
        StoreError: Another process holds its lock.
    """
    size = sum(p.stat().st_size for p in location.directory.iterdir() if p.is_file())
    damaged = MemorySummary(name=location.name, state="damaged", size_bytes=size)
    try:
        database = MemoryDatabase(location, create=False)
    except MemoryDamaged:
        return damaged
    try:
        return MemorySummary(
            name=location.name,
            state="ready",
            items=database.state().num_items,
            changed=database.changed(),
            size_bytes=size,
        )
    except MemoryDamaged:
        return damaged
    finally:
        database.close()
