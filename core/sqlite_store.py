"""`SqliteStore`: the run store in one SQLite file in WAL mode, as JSON and never pickle.

Several processes may use one file. Each write is one transaction, so a process killed at any moment leaves a store that
opens, and a run that can go on without paying twice.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import JsonValue

from .errors import StoreError, UnknownName, UserError
from .events import EVENT, EventFields
from .store import RunRecord, RunStatus, StoredCall

SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 10.0
"""How long another process may hold the file before opening it fails, in seconds."""
PATIENCE_S = 30.0
"""How long an operation on an open store waits for others to write, in seconds. SQLite serves those who wait in no
order: beside somebody who writes without a pause, such as a run that replays, others may go short for a long time."""

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    status TEXT NOT NULL,
    config TEXT NOT NULL,
    identities TEXT NOT NULL DEFAULT '{}',
    answer TEXT,
    error TEXT,
    owner TEXT
);
CREATE INDEX IF NOT EXISTS runs_created ON runs (created);
CREATE TABLE IF NOT EXISTS calls (
    run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    role TEXT NOT NULL,
    model TEXT NOT NULL,
    request TEXT NOT NULL,
    reply TEXT NOT NULL,
    cut INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL,
    PRIMARY KEY (run_id, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS calls_key ON calls (key);
CREATE TABLE IF NOT EXISTS events (
    run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    event TEXT NOT NULL,
    PRIMARY KEY (run_id, number)
) WITHOUT ROWID;
"""


class SqliteStore:
    """The run store in one SQLite file.

    Open it with `SqliteStore.open`. Safe under several processes. All statements run on one thread of the store's own,
    each operation as one function: cancelling the caller never leaves half a transaction.
    """

    def __init__(self, path: Path, db: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        self.path = path
        self._db = db
        self._thread = thread
        self._closed = False

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
        thread = ThreadPoolExecutor(1, thread_name_prefix="reason-store")
        try:
            db = await asyncio.get_running_loop().run_in_executor(thread, _connect, path, busy_timeout_s, patience_s)
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(path, db, thread)

    async def create_run(self, run_id: str, config: dict[str, JsonValue]) -> None:
        """See `RunStore`."""
        now = time.time()
        row = (run_id, now, now, _dump(config), _this_process())
        await self._write(
            "INSERT INTO runs (id, created, updated, status, config, owner) VALUES (?, ?, ?, 'running', ?, ?)", [row]
        )

    async def take_run(self, run_id: str) -> None:
        """See `RunStore`."""

        def take(db: sqlite3.Connection) -> None:
            row = db.execute("SELECT owner FROM runs WHERE id = ?", (run_id,)).fetchone()
            if row is None:
                raise UnknownName("run", run_id, hint="`reason runs list` shows those there are")
            if row[0] and row[0] != _this_process() and _lives(row[0]):
                host, pid, _ = row[0].rsplit(":", 2)
                raise UserError(
                    f"run {run_id} is being worked on by process {pid} on {host}", hint="wait until it ends, or stop it"
                )
            db.execute(
                "UPDATE runs SET owner = ?, status = 'running', updated = ? WHERE id = ?",
                (_this_process(), time.time(), run_id),
            )

        await self._transaction(take)

    async def set_identities(self, run_id: str, identities: dict[str, JsonValue]) -> None:
        """See `RunStore`."""
        await self._write("UPDATE runs SET identities = ? WHERE id = ?", [(_dump(identities), run_id)])

    async def end_run(
        self,
        run_id: str,
        status: RunStatus,
        answer: dict[str, JsonValue] | None = None,
        error: dict[str, JsonValue] | None = None,
    ) -> None:
        """See `RunStore`."""
        await self._write(
            "UPDATE runs SET status = ?, answer = ?, error = ?, owner = NULL, updated = ? WHERE id = ?",
            [(status, _dump(answer), _dump(error), time.time(), run_id)],
        )

    async def get_run(self, run_id: str) -> RunRecord:
        """See `RunStore`."""
        begins = run_id.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        sql = f"SELECT {_RUN_COLUMNS} FROM runs WHERE id LIKE ? ESCAPE '\\' ORDER BY id = ? DESC LIMIT 2"  # noqa: S608
        rows = await self._read(sql, (begins, run_id)) if run_id else []
        if not rows:
            raise UnknownName("run", run_id, hint="`reason runs list` shows those there are")
        if len(rows) > 1 and rows[0][0] != run_id:
            raise UserError(f"several runs begin with {run_id!r}", hint="give more of the name")
        return _record(rows[0])

    async def list_runs(self, limit: int = 50) -> list[RunRecord]:
        """See `RunStore`."""
        sql = f"SELECT {_RUN_COLUMNS} FROM runs ORDER BY created DESC, id DESC LIMIT ?"  # noqa: S608
        return [_record(row) for row in await self._read(sql, (limit,))]

    async def delete_run(self, run_id: str) -> None:
        """See `RunStore`."""

        def delete(db: sqlite3.Connection) -> None:
            for table in ("checkpoints", "writes"):  # LangGraph's, in the same file once a run has made them
                if db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone():
                    db.execute(f"DELETE FROM {table} WHERE thread_id = ?", (run_id,))  # noqa: S608
            db.execute("DELETE FROM runs WHERE id = ?", (run_id,))

        await self._transaction(delete)

    async def find_calls(self, run_id: str, keys: Sequence[str], *, any_run: bool = False) -> dict[str, StoredCall]:
        """See `RunStore`."""
        found: dict[str, StoredCall] = {}
        for start in range(0, len(keys), 500):  # SQLite bounds the number of parameters of a statement
            some = keys[start : start + 500]
            where = f"key IN ({','.join('?' * len(some))}) AND " + (
                "(run_id = ? OR cut = 0)" if any_run else "run_id = ?"
            )
            sql = f"SELECT key, role, model, request, reply, cut FROM calls WHERE {where} ORDER BY run_id = ?"  # noqa: S608
            # this run's own come last and win
            for key, role, model, request, reply, cut in await self._read(sql, (*some, run_id, run_id)):
                found[key] = StoredCall(
                    key=key, role=role, model=model, request=json.loads(request), reply=json.loads(reply), cut=bool(cut)
                )
        return found

    async def add_calls(self, run_id: str, calls: Sequence[StoredCall]) -> None:
        """See `RunStore`."""
        now = time.time()
        await self._write(
            "INSERT OR IGNORE INTO calls (run_id, key, role, model, request, reply, cut, created) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [(run_id, c.key, c.role, c.model, _dump(c.request), _dump(c.reply), c.cut, now) for c in calls],
        )

    async def count_calls(self, run_id: str) -> int:
        """See `RunStore`."""
        ((count,),) = await self._read("SELECT COUNT(*) FROM calls WHERE run_id = ?", (run_id,))
        return int(count)

    async def calls(self, run_id: str) -> list[StoredCall]:
        """See `RunStore`."""
        sql = "SELECT key, role, model, request, reply, cut FROM calls WHERE run_id = ? ORDER BY key"
        return [
            StoredCall(
                key=key, role=role, model=model, request=json.loads(request), reply=json.loads(reply), cut=bool(cut)
            )
            for key, role, model, request, reply, cut in await self._read(sql, (run_id,))
        ]

    async def keys_paid_before(self, run_id: str) -> frozenset[str]:
        """See `RunStore`."""
        sql = (
            "SELECT key FROM calls AS mine WHERE run_id = ? AND EXISTS (SELECT 1 FROM calls AS theirs "
            "WHERE theirs.key = mine.key AND theirs.run_id <> mine.run_id AND theirs.created < mine.created)"
        )
        return frozenset(row[0] for row in await self._read(sql, (run_id,)))

    async def add_events(self, run_id: str, events: Sequence[EventFields]) -> None:
        """See `RunStore`."""
        await self._write(
            "INSERT OR REPLACE INTO events (run_id, number, event) VALUES (?, ?, ?)",
            [(run_id, e.number, e.model_dump_json()) for e in events],
        )

    async def events(self, run_id: str) -> list[EventFields]:
        """See `RunStore`."""
        rows = await self._read("SELECT event FROM events WHERE run_id = ? ORDER BY number", (run_id,))
        return [EVENT.validate_json(row[0]) for row in rows]

    async def aclose(self) -> None:
        """See `RunStore`."""
        if not self._closed:
            self._closed = True
            await asyncio.get_running_loop().run_in_executor(self._thread, self._db.close)
            self._thread.shutdown(wait=False)

    async def _read(self, sql: str, values: Sequence[Any]) -> list[Any]:
        return await self._on_thread(lambda db: db.execute(sql, values).fetchall())

    async def _write(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        if rows:
            await self._transaction(lambda db: db.executemany(sql, rows))

    async def _transaction(self, work: Callable[[sqlite3.Connection], object]) -> None:
        def whole_or_not_at_all(db: sqlite3.Connection) -> None:
            db.execute("BEGIN IMMEDIATE")
            try:
                work(db)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

        await self._on_thread(whole_or_not_at_all)

    async def _on_thread(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._closed:
            raise StoreError(f"the run store {self.path} is closed")

        def guarded() -> T:
            with sqlite_errors(self.path):
                return work(self._db)

        return await asyncio.get_running_loop().run_in_executor(self._thread, guarded)


_RUN_COLUMNS = "id, created, updated, status, config, identities, answer, error, owner"


def _record(row: Sequence[Any]) -> RunRecord:
    run_id, created, updated, status, config, identities, answer, error, owner = row
    if status == "running" and not (owner and _lives(owner)):
        status = "interrupted"  # killed before it could say so
    return RunRecord(
        id=run_id,
        created=created,
        updated=updated,
        status=status,
        config=json.loads(config),
        identities=json.loads(identities),
        answer=json.loads(answer) if answer else None,
        error=json.loads(error) if error else None,
        owner=owner,
    )


def _dump(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _connect(path: Path, busy_timeout_s: float, patience_s: float) -> sqlite3.Connection:
    with sqlite_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise StoreError(f"cannot make the folder {path.parent}: {e.strerror}", hint="set --store") from e
        db = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)
        try:
            _use_wal(db, busy_timeout_s)
            db.execute("PRAGMA synchronous=NORMAL")
            db.execute("PRAGMA foreign_keys=ON")
            _make_tables(db, path)
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


def _make_tables(db: sqlite3.Connection, path: Path) -> None:
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
        row = db.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
        version = int(row[0]) if row else 0
        if version == SCHEMA_VERSION:
            return
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{path} was written by a newer version of reason (schema {version})", hint="upgrade reason"
            )
    db.execute("BEGIN IMMEDIATE")
    try:
        for statement in _SCHEMA.split(";\n"):
            if statement.strip():
                db.execute(statement)
        db.execute("INSERT OR REPLACE INTO meta VALUES ('schema', ?)", (str(SCHEMA_VERSION),))
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


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
