"""`PostgresStore`: the run store in a Postgres database, for several machines.

A process proves that it is alive by a lease that it renews. When the lease has expired, the process that claims its
runs owns them, and the former owner, should it still live, cannot write to them any more: each write checks the owner
in its own transaction.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict

from ..errors import StoreError, UserError
from .group_commit import Connection, GroupCommit, Row
from .location import redacted_location
from .sql import SCHEMA, SCHEMA_VERSION, Ownership, RunStore

_SCHEMA = f"""{SCHEMA};
CREATE INDEX calls_key ON calls (key);
CREATE TABLE owners (id TEXT PRIMARY KEY, lease_until DOUBLE PRECISION NOT NULL);
CREATE TABLE commits (owner TEXT PRIMARY KEY, number BIGINT NOT NULL)"""

_TABLES_LOCK = 0x7265_6173_6F6E
"""Id of the advisory lock under which one process at a time creates tables."""

LEASE_S = 30.0
"""How long a process counts as alive after it last renewed its lease, in seconds."""
RENEW_S = 5.0
"""Interval of renewals, in seconds."""
RECONNECT_S = 1.0
"""Interval of renewals that failed, in seconds."""
RETRY_S = 120.0
"""How long an operation on an open store retries an unreachable server, in seconds: what a failover may take."""
LOCK_S = 30.0
"""How long an operation waits for a lock, in seconds."""
CONNECT_S = 5
"""Timeout of one attempt to connect to one host, in seconds."""
KEEPALIVE = {"keepalives_idle": 4, "keepalives_interval": 3, "keepalives_count": 2, "tcp_user_timeout": 10_000}
"""A connection to a machine or network that is gone is given up after 10 seconds. By default the system would wait for
a quarter of an hour, and the lease would expire in the meantime."""
MAX_ATTEMPTS = 5
"""How often a transaction is attempted that conflicts with others."""

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
_NOW = "EXTRACT(EPOCH FROM clock_timestamp())"
_NUMBER = "INSERT INTO commits VALUES (?, ?) ON CONFLICT (owner) DO UPDATE SET number = excluded.number"
_IS_ALIVE = f"EXISTS (SELECT 1 FROM owners WHERE owners.id = owner AND owners.lease_until > {_NOW})"  # noqa: S608


class PostgresStore(RunStore):
    """The run store in a Postgres database; open it with `PostgresStore.open`.

    Each opened store is an owner of its own, which counts as alive as long as its lease is renewed.
    """

    def __init__(self, owner: str, commits: GroupCommit, lease: Lease) -> None:
        super().__init__(commits, Ownership(owner, _IS_ALIVE, lambda _, is_alive: bool(is_alive), " FOR UPDATE"))
        self.owner = owner
        self._lease = lease
        self._has_key_index = True

    @classmethod
    async def open(
        cls, url: str, *, lease_s: float = LEASE_S, renew_s: float = RENEW_S, retry_s: float = RETRY_S
    ) -> PostgresStore:
        """Open the database, and create the tables if there are none."""
        owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        renew = (
            f"INSERT INTO owners VALUES (?, {_NOW} + ?) "  # noqa: S608
            "ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until"
        )

        def prepare(db: Connection) -> None:
            _create_tables(db)
            db.write(f"DELETE FROM owners WHERE lease_until < {_NOW} - 86400", ())  # noqa: S608
            db.write("DELETE FROM commits WHERE owner NOT IN (SELECT id FROM owners)", ())
            db.write(renew, (owner, lease_s))

        def connect_lease() -> _PostgresConnection:
            connection = _PostgresConnection(_connect(url))
            # a lease does not wait for a synchronous standby that is gone, as writes do
            connection.write("SET synchronous_commit = local", ())
            return connection

        commits = GroupCommit(lambda: _Server(url, owner, retry_s, prepare), redacted_location(url))
        await commits.open()
        lease = Lease(connect_lease, lambda db: db.write(renew, (owner, lease_s)), renew_s)
        lease.start()
        return cls(owner, commits, lease)

    async def aclose(self) -> None:
        """Close the store; runs that it still owns can be claimed at once. Idempotent."""
        if self._lease.stop():
            try:
                await asyncio.to_thread(self._lease.join)
                if self._lease.is_renewed:  # else the server is not waited for: the lease expires by itself
                    with suppress(StoreError):
                        await self.commits.write(lambda db: db.write("DELETE FROM owners WHERE id = ?", (self.owner,)))
            finally:
                await super().aclose()


class ClosableConnection(Connection, Protocol):
    """A connection of the lease's own."""

    def close(self) -> None:
        """Close it."""


class Lease(threading.Thread):
    """Renews this process' lease, whatever its event loop is doing: from a thread, over a connection of its own.

    While the server cannot be reached, renewal is retried each second. An expired lease does no harm:
    writes of this process are refused from the moment that another one has claimed the run.
    """

    def __init__(
        self, connect: Callable[[], ClosableConnection], renew: Callable[[Connection], object], interval_s: float
    ) -> None:
        super().__init__(name="reason-lease", daemon=True)
        self._connect, self._renew, self._interval_s = connect, renew, interval_s
        self._stopped = threading.Event()
        self.is_renewed = True

    def stop(self) -> bool:
        """Stop renewing; returns whether this is the first call."""
        is_first = not self._stopped.is_set()
        self._stopped.set()
        return is_first

    def run(self) -> None:
        """Renew until `stop`."""
        connection: ClosableConnection | None = None
        while not self._stopped.wait(self._interval_s if self.is_renewed else min(self._interval_s, RECONNECT_S)):
            try:
                if connection is None:
                    connection = self._connect()
                self._renew(connection)
                self.is_renewed = True
            except Exception as e:  # noqa: BLE001 (whatever it is: the next attempt is a new one)
                self.is_renewed = False
                _LOG.warning("the lease of this process could not be renewed: %s", type(e).__name__)
                if connection is not None:
                    with suppress(Exception):  # only `stop` may end this thread
                        connection.close()
                    connection = None
        if connection is not None:
            connection.close()


class _PostgresConnection:
    def __init__(self, db: psycopg.Connection[Row]) -> None:
        self.db = db
        self._owners: dict[str, Sequence[str | None]] = {}

    def execute(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        return self.db.execute(sql.replace("?", "%s").encode(), values or None).fetchall()

    def write(self, sql: str, *rows: Sequence[Any]) -> None:
        """Execute a statement for each row; inside a pipeline without waiting for the server's answer."""
        statement = sql.replace("?", "%s").encode()
        for row in rows:
            self.db.execute(statement, row or None)

    def create_tables(self, schema: str) -> None:
        self.execute("SELECT pg_advisory_xact_lock(?)", (_TABLES_LOCK,))
        for statement in schema.format(name='TEXT COLLATE "C"', bytes="BYTEA", end="").split(";\n"):
            self.write(statement, ())

    def lock_runs(self, run_ids: Sequence[str]) -> None:
        """Fetch the owners of runs at once, and lock the rows until the transaction ends.

        Always in one order, so that two transactions cannot deadlock.
        """
        self._owners = {}
        if not run_ids:  # the table may not exist yet
            return
        rows = self.execute("SELECT id, owner FROM runs WHERE id = ANY (?) ORDER BY id FOR UPDATE", (list(run_ids),))
        self._owners = {**dict.fromkeys(run_ids, ()), **{run_id: (owner,) for run_id, owner in rows}}

    def owner_of(self, run_id: str) -> Sequence[str | None]:
        if run_id not in self._owners:
            rows = self.execute("SELECT owner FROM runs WHERE id = ? FOR UPDATE", (run_id,))
            self._owners[run_id] = rows[0] if rows else ()
        return self._owners[run_id]

    def forget_owner(self, run_id: str) -> None:
        self._owners.pop(run_id, None)

    def close(self) -> None:
        self.db.close()


class _Server:
    """A connection that is restored when it is lost, as `GroupCommit` uses one (`Database`).

    Each transaction writes its number into its process' row of the table `commits`, by which a new connection learns
    whether a COMMIT without an answer succeeded. Postgres' own transaction ids cannot tell: a server that crashed, or a
    standby that was promoted, gives the id of a transaction that it does not know to another one.
    """

    def __init__(self, url: str, owner: str, retry_s: float, prepare: Callable[[Connection], object]) -> None:
        self._url, self._owner, self._retry_s = url, owner, retry_s
        self._number = 0
        try:
            self._connection = _PostgresConnection(_connect(url))
            version = _schema_version(self._connection)
            if version > SCHEMA_VERSION:
                raise StoreError(
                    f"{redacted_location(url)} was written by a newer version of reason", hint="upgrade reason"
                )
            if 0 < version < SCHEMA_VERSION:
                raise StoreError(
                    f"{redacted_location(url)} was written by an older version of reason",
                    hint="choose another database",
                )
            self.transact([prepare], ())
        except psycopg.Error as e:
            raise self.translated(e) from e

    def transact(
        self, operations: Sequence[Callable[[Connection], Any]], runs: Sequence[str], *, durable: bool = False
    ) -> list[Any]:
        """Execute the operations in one transaction, which the server makes durable.

        A transaction that conflicted with others, or lost its server, is tried again. If the server was lost while
        committing, the status of the transaction is looked up afterwards: nothing is written twice.
        """
        for attempt in range(MAX_ATTEMPTS):
            self._number += 1
            is_committing = False
            try:
                db = self._connected()
                with db.db.pipeline():
                    db.write("BEGIN", ())
                    db.lock_runs(runs)
                    results = [operation(db) for operation in operations]
                    db.write(_NUMBER, (self._owner, self._number))
                is_committing = True
                db.write("COMMIT", ())
            except psycopg.OperationalError as e:
                if self._is_lost():
                    if is_committing and self._is_committed():
                        return results
                elif not isinstance(e, errors.DeadlockDetected | errors.SerializationFailure):
                    self._roll_back()
                    raise
                else:
                    self._roll_back()
                if attempt == MAX_ATTEMPTS - 1:
                    raise self.translated(e) from e
            except BaseException:
                self._roll_back()
                raise
            else:
                return results
        raise AssertionError("the loop returns or raises")

    def query(self, operation: Callable[[Connection], T]) -> T:
        try:
            return operation(self._connected())
        except psycopg.OperationalError:
            if not self._is_lost():
                raise
            return operation(self._connected())

    def translated(self, error: Exception) -> Exception:
        if not isinstance(error, psycopg.Error):
            return error
        location = redacted_location(self._url)
        if isinstance(error, errors.DiskFull):
            return StoreError(f"no space left for the run store {location}", hint="free some space there")
        if isinstance(error, errors.LockNotAvailable):
            return StoreError(f"the run store {location} is locked by another process", hint="try again")
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return StoreError(f"cannot use the run store {location}: {lines[0]}", hint="check the database server")

    def close(self) -> None:
        self._connection.close()

    def _is_lost(self) -> bool:
        return self._connection.db.closed

    def _roll_back(self) -> None:
        if not self._is_lost():
            try:
                self._connection.write("ROLLBACK", ())
            except psycopg.Error:  # the first error is raised; this connection is unusable
                self._connection.close()

    def _is_committed(self) -> bool:
        """Whether the last transaction was committed, whose COMMIT got no answer."""
        end = time.monotonic() + self._retry_s
        while time.monotonic() < end:
            try:  # waits while the transaction is still being committed
                rows = self._connected().execute(
                    "SELECT number FROM commits WHERE owner = ? FOR UPDATE", (self._owner,)
                )
            except psycopg.OperationalError:
                if not self._is_lost():
                    break
            else:
                return bool(rows) and rows[0][0] == self._number
        raise StoreError(
            f"the run store {redacted_location(self._url)} was lost, and whether the last write succeeded is unknown",
            hint="resume the runs that were running",
        )

    def _connected(self) -> _PostgresConnection:
        """The connection, restored if it was lost."""
        end, pause = time.monotonic() + self._retry_s, 0.05
        while self._is_lost():
            try:
                self._connection = _PostgresConnection(_connect(self._url))
            except psycopg.OperationalError as e:
                if time.monotonic() + pause >= end:
                    raise self.translated(e) from e
                time.sleep(pause)
                pause = min(2 * pause, 2.0)
        return self._connection


def _schema_version(db: Connection) -> int:
    """The database's schema version; 0 if it has no tables of ours.

    The catalogue is queried as any table is: by name (`to_regclass`) Postgres may answer from what it knew when the
    transaction began, while it was waiting for another process that creates the tables.
    """
    if not db.execute("SELECT 1 FROM pg_tables WHERE tablename = 'meta' AND schemaname = ANY (current_schemas(false))"):
        return 0
    rows = db.execute("SELECT value FROM meta WHERE key = 'schema'")
    return int(rows[0][0]) if rows else 0


def _create_tables(db: Connection) -> None:
    """Create the tables if there are none, inside a transaction."""
    db.execute("SELECT pg_advisory_xact_lock(?)", (_TABLES_LOCK,))
    if _schema_version(db) == 0:  # another process may have been faster
        db.create_tables(_SCHEMA)
        db.write("INSERT INTO meta VALUES ('schema', ?)", (str(SCHEMA_VERSION),))


def _connect(url: str) -> psycopg.Connection[Row]:
    try:
        parameters = conninfo_to_dict(url)
    except psycopg.ProgrammingError:  # its message shows the URL, and with it the password
        raise UserError(
            f"{redacted_location(url)} is not the URL of a database", hint="postgresql://USER@HOST:PORT/DATABASE"
        ) from None
    defaults: dict[str, Any] = {
        "connect_timeout": CONNECT_S,
        "application_name": "reason",
        "client_encoding": "utf8",  # texts of a database in SQL_ASCII would be bytes
        "target_session_attrs": "read-write",  # a standby is none
        **KEEPALIVE,
    }
    db = psycopg.connect(autocommit=True, **{**defaults, **parameters})
    try:
        db.execute(f"SET lock_timeout = {round(1000 * LOCK_S)}".encode())
        # a process suspended inside a transaction must not block others for ever
        db.execute(f"SET idle_in_transaction_session_timeout = {round(1000 * LEASE_S)}".encode())
    except BaseException:
        db.close()
        raise
    return db
