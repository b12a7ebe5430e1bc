"""`PostgresStore`: the run store in a Postgres database, for several machines.

A process proves that it lives by a lease, which it renews while it does. When it is gone, whoever takes its runs is
their owner, and a process that was believed dead and is not writes nothing to them any more: each write asks who the
owner is, in its own transaction.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict

from .errors import StoreError, UserError
from .sql.group_commit import Connection, GroupCommit, Row
from .sql.lease import Lease
from .sql.postgres_schema import SCHEMA_VERSION, make_tables, version_of
from .sql.runs import Tenure
from .sql.sql_store import SqlStore
from .store_place import shown_store

LEASE_S = 30.0
"""How long a process is believed alive after it last said so, in seconds."""
RENEW_S = 5.0
"""How often it says so, in seconds."""
PATIENCE_S = 30.0
"""How long an operation on an open store waits for a server that cannot be reached, or for a lock, in seconds."""
CONNECT_S = 10
"""How long one attempt to connect takes at most, in seconds."""
SILENCE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 2, "tcp_user_timeout": 20_000}
"""When a connection is given up on which the server says nothing, not even that it is there (a machine or a network
that is gone): after 20 seconds.
By itself the system would wait for a quarter of an hour, and a lease run out meanwhile."""
TRIES = 5
"""How often a transaction is tried that others have thwarted."""

T = TypeVar("T")

_NOW = "EXTRACT(EPOCH FROM clock_timestamp())"
_LIVES = f"EXISTS (SELECT 1 FROM owners WHERE owners.id = runs.owner AND owners.lease_until > {_NOW})"  # noqa: S608


class PostgresStore(SqlStore):
    """The run store in a Postgres database.

    Open it with `PostgresStore.open`. Each opened store is an owner of its own, which counts as alive as long as its
    lease is renewed.

    Attributes:
        owner: Its name as an owner.
    """

    def __init__(self, owner: str, commits: GroupCommit, lease: Lease) -> None:
        super().__init__(commits, Tenure(owner, _LIVES, lambda _, flag: bool(flag), " FOR UPDATE"))
        self.owner = owner
        self._lease = lease

    @classmethod
    async def open(
        cls, url: str, *, lease_s: float = LEASE_S, renew_s: float = RENEW_S, patience_s: float = PATIENCE_S
    ) -> PostgresStore:
        """Open the database, and make the tables if there are none.

        Args:
            url: `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`, or as much of it as is needed.
            lease_s: How long this process is believed alive after it last said so.
            renew_s: How often it says so.
            patience_s: How long an operation afterwards waits for a server that cannot be reached.

        Raises:
            UserError: The address is none.
            StoreError: The database cannot be reached or is of a newer version of `reason`.
        """
        owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        renew = (
            f"INSERT INTO owners VALUES (?, {_NOW} + ?) "  # noqa: S608
            "ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until"
        )

        def prepare(db: Connection) -> None:
            make_tables(db)
            db.write(f"DELETE FROM owners WHERE lease_until < {_NOW} - 86400", ())  # noqa: S608
            db.write(renew, (owner, lease_s))

        commits = GroupCommit(lambda: _Server(url, patience_s, prepare), shown_store(url))
        await commits.open()
        lease = Lease(lambda: _Statements(_connect(url)), lambda db: db.write(renew, (owner, lease_s)), renew_s)
        lease.start()
        return cls(owner, commits, lease)

    async def aclose(self) -> None:
        """See `RunStore`; runs that are still this store's can be taken at once."""
        if self._lease.stop():
            try:
                await asyncio.to_thread(self._lease.join)
                with suppress(StoreError):  # the lease runs out by itself
                    await self._commits.write(lambda db: db.write("DELETE FROM owners WHERE id = ?", (self.owner,)))
            finally:
                await super().aclose()


class _Statements:
    """A Postgres connection as operations use one."""

    def __init__(self, db: psycopg.Connection[Row]) -> None:
        self.db = db
        self._owners: dict[str, Sequence[str | None]] = {}

    def execute(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """See `Connection`."""
        return self.db.execute(sql.replace("?", "%s").encode(), values or None).fetchall()

    def write(self, sql: str, *rows: Sequence[Any]) -> None:
        """See `Connection`; inside a pipeline nobody waits for the server's answer."""
        statement = sql.replace("?", "%s").encode()
        for row in rows:
            self.db.execute(statement, row or None)

    def lock_runs(self, run_ids: Sequence[str]) -> None:
        """Fetch the owners of runs at once, and keep those rows from others until the transaction ends.

        Always in one order, so that two transactions do not wait for each other.
        """
        self._owners = {}
        if not run_ids:  # nor may the table be there yet
            return
        rows = self.execute("SELECT id, owner FROM runs WHERE id = ANY (?) ORDER BY id FOR UPDATE", (list(run_ids),))
        self._owners = {**dict.fromkeys(run_ids, ()), **{run_id: (owner,) for run_id, owner in rows}}

    def owner_of(self, run_id: str) -> Sequence[str | None]:
        """See `Connection`."""
        if run_id not in self._owners:
            rows = self.execute("SELECT owner FROM runs WHERE id = ? FOR UPDATE", (run_id,))
            self._owners[run_id] = rows[0] if rows else ()
        return self._owners[run_id]

    def forget_owner(self, run_id: str) -> None:
        """See `Connection`."""
        self._owners.pop(run_id, None)

    def close(self) -> None:
        """Close the connection."""
        self.db.close()


class _Server:
    """A connection that is made anew when it is lost, as `GroupCommit` uses one."""

    def __init__(self, url: str, patience_s: float, prepare: Callable[[Connection], object]) -> None:
        self._url, self._patience_s = url, patience_s
        try:
            self._connection = _Statements(_connect(url))
            if version_of(self._connection) > SCHEMA_VERSION:
                raise StoreError(f"{shown_store(url)} was written by a newer version of reason", hint="upgrade reason")
            self.attempt([prepare], ())
        except psycopg.Error as e:
            raise self.told(e) from e

    def attempt(self, works: Sequence[Callable[[Connection], Any]], runs: Sequence[str]) -> list[Any]:
        """See `Database`.

        A transaction that others thwarted, or during which the server went away, is tried again. Where it went away in
        the very moment of committing, it is asked afterwards what became of the transaction: nothing is written twice.
        """
        for tried in range(TRIES):
            number: str | None = None
            try:
                db = self._connected()
                with db.db.pipeline():
                    db.write("BEGIN", ())
                    db.lock_runs(runs)
                    outcomes = [work(db) for work in works]
                    number = db.execute("SELECT pg_current_xact_id_if_assigned()::text")[0][0]
                db.write("COMMIT", ())
            except psycopg.OperationalError as e:
                if self._lost():
                    if number is not None and self._committed(number):
                        return outcomes
                elif not isinstance(e, errors.DeadlockDetected | errors.SerializationFailure):
                    self._undo()
                    raise
                else:
                    self._undo()
                if tried == TRIES - 1:
                    raise self.told(e) from e
            except BaseException:
                self._undo()
                raise
            else:
                return outcomes
        raise AssertionError("each way out is in the loop")

    def look(self, work: Callable[[Connection], T]) -> T:
        """See `Database`."""
        try:
            return work(self._connected())
        except psycopg.OperationalError:
            if not self._lost():
                raise
            return work(self._connected())

    def told(self, error: Exception) -> Exception:
        """See `Database`."""
        if not isinstance(error, psycopg.Error):
            return error
        where = shown_store(self._url)
        if isinstance(error, errors.DiskFull):
            return StoreError(f"no space left for the run store {where}", hint="free some space there")
        if isinstance(error, errors.LockNotAvailable):
            return StoreError(f"the run store {where} is locked by another process", hint="try again")
        said = str(error).strip().splitlines() or [type(error).__name__]
        return StoreError(f"cannot use the run store {where}: {said[0]}", hint="look whether the server is well")

    def close(self) -> None:
        """See `Database`."""
        self._connection.close()

    def _lost(self) -> bool:
        return self._connection.db.closed

    def _undo(self) -> None:
        if not self._lost():
            try:
                self._connection.write("ROLLBACK", ())
            except psycopg.Error:  # what failed before is told; this connection is good for nothing any more
                self._connection.close()

    def _committed(self, number: str) -> bool:
        """Whether a transaction was committed whose COMMIT got no answer."""
        end = time.monotonic() + self._patience_s
        status: str | None = "in progress"
        while status == "in progress" and time.monotonic() < end:
            try:
                status = self._connected().execute("SELECT pg_xact_status(?::xid8)", (number,))[0][0]
            except errors.InvalidParameterValue:  # "in the future": the server crashed, and knows nothing of it
                return False
            except psycopg.OperationalError as e:
                if not self._lost():
                    raise self.told(e) from e
            if status == "in progress":
                time.sleep(0.1)
        if status in ("committed", "aborted"):
            return status == "committed"
        raise StoreError(
            f"the run store {shown_store(self._url)} went away and does not tell what it has written",
            hint="resume the runs that were going on",
        )

    def _connected(self) -> _Statements:
        """The connection, made anew where it was lost, as often as patience allows."""
        end, pause = time.monotonic() + self._patience_s, 0.05
        while self._lost():
            try:
                self._connection = _Statements(_connect(self._url))
            except psycopg.OperationalError as e:
                if time.monotonic() + pause >= end:
                    raise self.told(e) from e
                time.sleep(pause)
                pause = min(2 * pause, 2.0)
        return self._connection


def _connect(url: str) -> psycopg.Connection[Row]:
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError:  # what it says shows the address, and with it a password
        raise UserError(
            f"{shown_store(url)} is no address of a database", hint="postgresql://USER@HOST:PORT/DATABASE"
        ) from None
    ours: dict[str, Any] = {"connect_timeout": CONNECT_S, "application_name": "reason", **SILENCE}
    db = psycopg.connect(autocommit=True, **{**ours, **given})
    try:
        db.execute(f"SET lock_timeout = {round(1000 * PATIENCE_S)}".encode())
        # a process that was stopped in the middle of a transaction must not hold others up for ever
        db.execute(f"SET idle_in_transaction_session_timeout = {round(1000 * LEASE_S)}".encode())
    except BaseException:
        db.close()
        raise
    return db
