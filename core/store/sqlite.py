"""`SqliteStore`: the run store in one SQLite file in WAL mode.

Several processes may use one file. Each write is part of one transaction, so a process killed at any moment leaves a
store that opens, and runs that can be resumed without paying twice.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ReasonError, StoreError
from .group_commit import Connection, GroupCommit, Row
from .sql import SCHEMA, SCHEMA_VERSION, Ownership, RunStore

BUSY_TIMEOUT_S = 10.0
"""Maximum wait for another process that locks the file, when opening it, in seconds."""
WRITE_TIMEOUT_S = 30.0
"""Maximum wait of an operation on an open store for other writers, in seconds. SQLite serves waiting writers in no
order: a process that writes without a pause, such as a replay, may starve others for a long time."""

T = TypeVar("T")


class SqliteStore(RunStore):
    """The run store in one SQLite file; open it with `SqliteStore.open`.

    Safe under several processes. A run is owned by another process as long as that process lives; a process on another
    host counts as alive.
    """

    def __init__(self, path: Path, commits: GroupCommit) -> None:
        super().__init__(commits, Ownership(_this_process(), "0", lambda owner, _: _is_alive(owner), ""))
        self.path = path

    @classmethod
    async def open(
        cls, path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S, write_timeout_s: float = WRITE_TIMEOUT_S
    ) -> SqliteStore:
        """Open or create the store."""
        commits = GroupCommit(lambda: _File(path, busy_timeout_s, write_timeout_s), str(path))
        await commits.open()
        return cls(path, commits)

    async def disown_runs(self) -> None:
        """Take all runs from their owners, because the caller knows that none of them works on the file any more.

        An owner on another host counts as alive otherwise, also when that host is gone.
        """
        await self.commits.write(lambda db: db.write("UPDATE runs SET owner = NULL WHERE owner IS NOT NULL", ()))


class _File:
    """The file's connection, as `GroupCommit` uses one (`Database`)."""

    def __init__(self, path: Path, busy_timeout_s: float, write_timeout_s: float) -> None:
        self._path = path
        self._db = _connect(path, busy_timeout_s, write_timeout_s)
        self._is_durable = False
        self._connection = _SqliteConnection(self._db)

    def transact(
        self, operations: Sequence[Callable[[Connection], Any]], runs: Sequence[str], *, durable: bool = False
    ) -> list[Any]:
        with sqlite_errors(self._path):
            if durable != self._is_durable:
                # NORMAL syncs the log only at checkpoints: a power cut may undo the last transactions, SIGKILL cannot
                self._db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
                self._is_durable = durable
            self._db.execute("BEGIN IMMEDIATE")
        try:
            results = [operation(self._connection) for operation in operations]
            with sqlite_errors(self._path):
                self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return results

    def query(self, operation: Callable[[Connection], T]) -> T:
        return operation(self._connection)

    def translated(self, error: Exception) -> Exception:
        try:
            with sqlite_errors(self._path):
                raise error
        except ReasonError as e:
            return e
        except Exception as e:  # noqa: BLE001 (not an error of the database)
            return e

    def close(self) -> None:
        self._db.close()


class _SqliteConnection:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def execute(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        return self._db.execute(sql, values).fetchall()

    def write(self, sql: str, *rows: Sequence[Any]) -> None:
        self._db.executemany(sql, rows)

    def create_tables(self, schema: str) -> None:
        for statement in schema.format(name="TEXT", bytes="BLOB", end=" WITHOUT ROWID").split(";\n"):
            self._db.execute(statement)

    def owner_of(self, run_id: str) -> Sequence[str | None]:
        """The owner, read each time: that costs nothing here, and a transaction that writes locks the file."""
        row: Row | None = self._db.execute("SELECT owner FROM runs WHERE id = ?", (run_id,)).fetchone()
        return row or ()

    def forget_owner(self, run_id: str) -> None:
        pass


def _connect(path: Path, busy_timeout_s: float, write_timeout_s: float) -> sqlite3.Connection:
    with sqlite_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise StoreError(f"cannot create the directory {path.parent}: {e.strerror}", hint="set --store") from e
        db = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None)
        try:
            _use_wal(db, busy_timeout_s)
            db.execute("PRAGMA synchronous=NORMAL")
            db.execute("PRAGMA foreign_keys=ON")
            _create_tables(db, path)
            db.execute(f"PRAGMA busy_timeout={round(1000 * write_timeout_s)}")
        except BaseException:
            db.close()
            raise
        return db


def _use_wal(db: sqlite3.Connection, timeout_s: float) -> None:
    """Set the journal mode, waiting for other processes: SQLite's own timeout does not apply to a change of mode."""
    end = time.monotonic() + timeout_s
    while True:
        try:
            db.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as e:
            if not _is_busy(e) or time.monotonic() >= end:
                raise
            time.sleep(0.01)
        else:
            return


def _create_tables(db: sqlite3.Connection, path: Path) -> None:
    """Create the tables in one transaction; of several processes, the first does."""
    if _schema_version(db, path) == SCHEMA_VERSION:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        if _schema_version(db, path) == 0:
            _SqliteConnection(db).create_tables(SCHEMA)
            db.execute("INSERT INTO meta VALUES ('schema', ?)", (str(SCHEMA_VERSION),))
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _schema_version(db: sqlite3.Connection, path: Path) -> int:
    """The file's schema version; 0 if it has no tables of ours."""
    if db.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'meta'").fetchone() is None:
        return 0
    row = db.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
    version = int(row[0]) if row else 0
    if version > SCHEMA_VERSION:
        raise StoreError(f"{path} was written by a newer version of reason (schema {version})", hint="upgrade reason")
    if 0 < version < SCHEMA_VERSION:
        raise StoreError(
            f"{path} was written by an older version of reason (schema {version})",
            hint="choose another run store, or move the file away",
        )
    return version


def _is_busy(error: sqlite3.OperationalError) -> bool:
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


@contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors on this file into `StoreError`, each with its remedy."""
    try:
        yield
    except sqlite3.OperationalError as e:
        if _is_busy(e):
            raise StoreError(
                f"the run store {path} is locked by another process", hint="try again, or set --store"
            ) from e
        if e.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL:
            raise StoreError(f"no space left for the run store {path}", hint="free some space, or set --store") from e
        raise StoreError(f"cannot use the run store {path}: {e}", hint="set --store to another file") from e
    except sqlite3.DatabaseError as e:
        raise StoreError(
            f"the run store {path} is corrupt or no run store: {e}", hint="move it away, or set --store to another file"
        ) from e


def _this_process() -> str:
    return f"{socket.gethostname()}:{os.getpid()}:{_start_time(os.getpid())}"


def _is_alive(owner: str) -> bool:
    """Whether an owner's process still exists; on another host it is assumed to."""
    host, pid, started = owner.rsplit(":", 2)
    if host != socket.gethostname():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _start_time(int(pid)) == started


def _start_time(pid: int) -> str:
    """When a process began, since process ids are reused; empty if the system hides it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rsplit(")", 1)[1].split()[19]
