"""`SqliteStore`: the run store in one SQLite file in WAL mode.

Several processes may use one file. Each write is part of one transaction, so a process killed at any moment leaves a
store that opens, and a run that can go on without paying twice.
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

from .errors import ReasonError, StoreError
from .sql.group_commit import Connection, GroupCommit, Row
from .sql.runs import Tenure
from .sql.sql_store import SqlStore
from .sql.sqlite_schema import make_tables

BUSY_TIMEOUT_S = 10.0
"""How long another process may hold the file before opening it fails, in seconds."""
PATIENCE_S = 30.0
"""How long an operation on an open store waits for others to write, in seconds. SQLite serves those who wait in no
order: beside somebody who writes without a pause, such as a run that replays, others may go short for a long time."""

T = TypeVar("T")


class SqliteStore(SqlStore):
    """The run store in one SQLite file.

    Open it with `SqliteStore.open`. Safe under several processes. A run is another process's as long as that process
    lives; on another host it is believed to.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path, commits: GroupCommit) -> None:
        super().__init__(commits, Tenure(_this_process(), "0", lambda owner, _: _lives(owner), ""))
        self.path = path

    @classmethod
    async def open(
        cls, path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S, patience_s: float = PATIENCE_S
    ) -> SqliteStore:
        """Open or make the store.

        Args:
            path: The file.
            busy_timeout_s: How long opening waits for others that hold the file.
            patience_s: How long an operation afterwards waits for others that write.

        Raises:
            StoreError: The file cannot be opened, is locked, is no store or is of a newer version of `reason`.
        """
        commits = GroupCommit(lambda: _File(path, busy_timeout_s, patience_s), str(path))
        await commits.open()
        return cls(path, commits)


class _File:
    """The file's connection, as `GroupCommit` uses one."""

    def __init__(self, path: Path, busy_timeout_s: float, patience_s: float) -> None:
        self._path = path
        self._db = _connect(path, busy_timeout_s, patience_s)
        self._connection = _Statements(self._db)

    def attempt(self, works: Sequence[Callable[[Connection], Any]], runs: Sequence[str]) -> list[Any]:
        """See `Database`."""
        with sqlite_errors(self._path):
            self._db.execute("BEGIN IMMEDIATE")
        try:
            outcomes = [work(self._connection) for work in works]
            with sqlite_errors(self._path):
                self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return outcomes

    def look(self, work: Callable[[Connection], T]) -> T:
        """See `Database`."""
        return work(self._connection)

    def told(self, error: Exception) -> Exception:
        """See `Database`."""
        try:
            with sqlite_errors(self._path):
                raise error
        except ReasonError as e:
            return e
        except Exception as e:  # noqa: BLE001 (no error of the database: as it is)
            return e

    def close(self) -> None:
        """See `Database`."""
        self._db.close()


class _Statements:
    """A SQLite connection as operations use one."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def execute(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """See `Connection`."""
        return self._db.execute(sql, values).fetchall()

    def write(self, sql: str, *rows: Sequence[Any]) -> None:
        """See `Connection`."""
        self._db.executemany(sql, rows)

    def owner_of(self, run_id: str) -> Sequence[str | None]:
        """See `Connection`; asking costs nothing here, and a transaction that writes has the file to itself."""
        row: Row | None = self._db.execute("SELECT owner FROM runs WHERE id = ?", (run_id,)).fetchone()
        return row or ()

    def forget_owner(self, run_id: str) -> None:
        """See `Connection`."""


def _connect(path: Path, busy_timeout_s: float, patience_s: float) -> sqlite3.Connection:
    with sqlite_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise StoreError(f"cannot make the folder {path.parent}: {e.strerror}", hint="set --store") from e
        db = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None)
        try:
            _use_wal(db, busy_timeout_s)
            db.execute("PRAGMA synchronous=NORMAL")
            db.execute("PRAGMA foreign_keys=ON")
            make_tables(db, path)
            db.execute(f"PRAGMA busy_timeout={round(1000 * patience_s)}")
        except BaseException:
            db.close()
            raise
        return db


def _use_wal(db: sqlite3.Connection, patience_s: float) -> None:
    """Set the journal mode, waiting for others here: SQLite's own timeout does not hold for a change of mode."""
    end = time.monotonic() + patience_s
    while True:
        try:
            db.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as e:
            if not _is_busy(e) or time.monotonic() >= end:
                raise
            time.sleep(0.01)
        else:
            return


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


def _lives(owner: str) -> bool:
    """Whether the process that took a run is still there; on another host it is believed to be."""
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
    """When a process began, since process numbers are reused; empty if the system hides it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rsplit(")", 1)[1].split()[19]
