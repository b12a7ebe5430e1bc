"""`GroupCommit`: one thread that owns a database connection and makes one transaction of all writes that wait for it.

A commit costs the same for one write and for fifty. While one transaction is being written, what other runs want to
write gathers, and goes into the next: the more runs there are, the fewer transactions each of them costs.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

from ..errors import ReasonError, StoreError

MOST_TOGETHER = 256
"""Most operations in one transaction."""

T = TypeVar("T")
Row = tuple[Any, ...]


class Connection(Protocol):
    """What an operation works with; it is called on the store's thread alone."""

    def execute(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Execute a statement that gives rows, `?` standing for the values."""

    def write(self, sql: str, *rows: Sequence[Any]) -> None:
        """Execute a statement that gives none for each row of values.

        What is wrong with it may be told later in the transaction.
        """

    def owner_of(self, run_id: str) -> Sequence[str | None]:
        """Who owns a run, which nobody else changes until the transaction ends; empty if there is no such run."""

    def forget_owner(self, run_id: str) -> None:
        """The transaction has changed who owns a run."""


class Database(Protocol):
    """A connection with its transactions."""

    def attempt(self, works: Sequence[Callable[[Connection], Any]], runs: Sequence[str]) -> list[Any]:
        """Do the works in one transaction, or none of them.

        Args:
            works: What is to be done, in order.
            runs: The runs whose owners they will ask for.

        Returns:
            What each gives.

        Raises:
            StoreError: The transaction could not be begun or committed. Anything else that a work raises goes through.
        """

    def look(self, work: Callable[[Connection], T]) -> T:
        """Do something that writes nothing.

        Raises:
            StoreError: The database cannot be reached. Anything else that the work raises goes through.
        """

    def told(self, error: Exception) -> Exception:
        """The error as those who use the store are told of it."""

    def close(self) -> None:
        """Close the connection."""


@dataclass(frozen=True, slots=True)
class _Job:
    work: Callable[[Connection], Any]
    writes: bool
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    run: str | None


@dataclass(frozen=True, slots=True)
class _Refused:
    """An operation's own typed refusal, raised before it wrote anything: no reason to undo the others."""

    error: ReasonError


class GroupCommit:
    """Does operations on a database one after the other, writes in groups.

    An operation is a function of the connection. It may be called again if the transaction it was in was undone, and a
    `ReasonError` that it raises must come before its first write. What was given here is done whatever becomes of the
    caller: a cancelled one leaves no half operation and loses none.

    Args:
        open_database: Called on the thread, first thing.
        name: Of the store, for errors.
    """

    def __init__(self, open_database: Callable[[], Database], name: str) -> None:
        self._open_database = open_database
        self._name = name
        self._waiting: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        self.transactions = 0
        """How many were committed."""

    async def open(self) -> None:
        """Start the thread and open the database.

        Raises:
            StoreError: The database cannot be opened.
        """
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = loop.create_future()
        self._thread = threading.Thread(target=self._serve, args=(loop, opened), name="reason-store", daemon=True)
        self._thread.start()
        try:
            await opened
        except asyncio.CancelledError:
            self._waiting.put(None)
            raise

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Do something that writes nothing."""
        return cast(T, await self._give(work, writes=False))

    async def write(self, work: Callable[[Connection], T], run: str | None = None) -> T:
        """Do something whole or not at all, in one transaction with whatever else waits.

        Args:
            work: What is to be done.
            run: The run whose owner it asks for: the owners of all are fetched at once.
        """
        return cast(T, await self._give(work, writes=True, run=run))

    async def aclose(self) -> None:
        """Close the database when all that was given is done; idempotent."""
        if not self._closed:
            self._closed = True
            self._waiting.put(None)
            while self._thread.is_alive():
                await asyncio.to_thread(self._thread.join, 1.0)

    def _give(self, work: Callable[[Connection], Any], *, writes: bool, run: str | None = None) -> asyncio.Future[Any]:
        if self._closed:
            raise StoreError(f"the run store {self._name} is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.put(_Job(work, writes, loop, future, run))
        return future

    # -- on the thread

    def _serve(self, loop: asyncio.AbstractEventLoop, opened: asyncio.Future[None]) -> None:
        try:
            database = self._database = self._open_database()
        except Exception as e:  # noqa: BLE001 (it is the opener's)
            _tell(loop, [(opened, e)])
            return
        _tell(loop, [(opened, None)])
        last = False
        while not last:
            jobs, last = self._next_jobs()
            first = next((i for i, job in enumerate(jobs) if job.writes), len(jobs))
            self._read(database, jobs[:first])
            if first < len(jobs):
                self._write(database, [job for job in jobs if job.writes])
            # whoever looks sees what was given before, whether or not somebody waited for it
            self._read(database, [job for job in jobs[first:] if not job.writes])
        database.close()

    def _next_jobs(self) -> tuple[list[_Job], bool]:
        """What waits, at least one operation unless the store is being closed; and whether it is."""
        jobs: list[_Job] = []
        job = self._waiting.get()
        while job is not None:
            jobs.append(job)
            if len(jobs) == MOST_TOGETHER:
                return jobs, False
            try:
                job = self._waiting.get_nowait()
            except queue.Empty:
                return jobs, False
        return jobs, True

    def _write(self, database: Database, jobs: list[_Job]) -> None:
        try:
            runs = sorted({job.run for job in jobs if job.run is not None})
            outcomes = database.attempt([_kept_refusals(job.work) for job in jobs], runs)
            self.transactions += 1
        except StoreError as e:
            outcomes = [e] * len(jobs)
        except Exception as e:  # noqa: BLE001 (one of them failed: it alone is told so)
            if len(jobs) == 1:
                outcomes = [database.told(e)]
            else:
                for job in jobs:
                    self._write(database, [job])
                return
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
        for job, outcome in zip(jobs, outcomes, strict=True):
            told = outcome.error if isinstance(outcome, _Refused) else outcome
            by_loop.setdefault(job.loop, []).append((job.future, told))
        for loop, results in by_loop.items():
            _tell(loop, results)

    def _read(self, database: Database, jobs: list[_Job]) -> None:
        away: StoreError | None = None
        for job in jobs:
            found: Any = away
            if away is None:
                try:
                    found = database.look(job.work)
                except StoreError as e:  # waited for in vain: nobody behind waits for it once more
                    found = away = e
                except Exception as e:  # noqa: BLE001 (it is the caller's)
                    found = database.told(e)
            _tell(job.loop, [(job.future, found)])


def _kept_refusals(work: Callable[[Connection], Any]) -> Callable[[Connection], Any]:
    def attempt(db: Connection) -> Any:
        try:
            return work(db)
        except ReasonError as e:
            return _Refused(e)

    return attempt


def _tell(loop: asyncio.AbstractEventLoop, results: list[tuple[asyncio.Future[Any], Any]]) -> None:
    """Hand results and errors to those who wait, on their own event loop."""

    def hand_over() -> None:
        for future, result in results:
            if future.done():  # whoever waited was cancelled
                continue
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)

    try:
        loop.call_soon_threadsafe(hand_over)
    except RuntimeError:  # the loop is closed: nobody waits any more
        return
