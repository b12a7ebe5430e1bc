"""`GroupCommit`: one thread that owns a database connection and commits all waiting writes in one transaction.

A commit costs the same for one write and for fifty. While one transaction is being written, the writes of other runs
wait and join the next: the more runs there are, the fewer transactions each of them costs.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from ..errors import ReasonError, StoreError

MAX_OPERATIONS = 256
"""Maximum number of operations in one transaction."""

T = TypeVar("T")
Row = tuple[Any, ...]


class Connection(Protocol):
    """What an operation works with; used on the store's thread only."""

    def execute(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Execute a statement that returns rows; `?` stands for the values."""

    def write(self, sql: str, *rows: Sequence[Any]) -> None:
        """Execute a statement that returns nothing, once for each row of values.

        Its error may be raised later in the transaction.
        """

    def create_tables(self, schema: str) -> None:
        """Execute statements that create tables, separated by `;` and a line break.

        A database fills in its type of `{name}` (text that sorts by code point), its type of `{bytes}`, and the `{end}`
        of a table without row ids.
        """

    def owner_of(self, run_id: str) -> Sequence[str | None]:
        """The owner of a run, locked until the transaction ends; empty if there is no such run."""

    def forget_owner(self, run_id: str) -> None:
        """Report that the transaction has changed the owner of a run."""


class Database(Protocol):
    """A connection with its transactions."""

    def transact(
        self, operations: Sequence[Callable[[Connection], Any]], runs: Sequence[str], *, durable: bool = False
    ) -> list[Any]:
        """Execute the operations, in order, in one transaction, or none of them.

        Args:
            durable: Whether the transaction must survive a power cut, not only the end of the process.
        """

    def query(self, operation: Callable[[Connection], T]) -> T:
        """Execute an operation that writes nothing."""

    def translated(self, error: Exception) -> Exception:
        """The error as callers of the store get it."""

    def close(self) -> None:
        """Close the connection."""


@dataclass(frozen=True, slots=True)
class _Operation:
    execute: Callable[[Connection], Any]
    writes: bool
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    run: str | None
    durable: bool


@dataclass(frozen=True, slots=True)
class _Refusal:
    """An operation's own typed error, raised before it wrote anything: no reason to roll back the others."""

    error: ReasonError


class GroupCommit:
    """Executes operations on a database one after the other, writes in groups.

    An operation is a function of the connection. It may be executed again if its transaction was rolled back, and must
    raise a `ReasonError` before its first write. It is submitted at once, and executed even if its result is not
    awaited or its caller is cancelled: a cancelled caller leaves no half operation and loses none.
    """

    def __init__(self, open_database: Callable[[], Database], name: str) -> None:
        self._open_database = open_database
        self._name = name
        self._queue: queue.SimpleQueue[_Operation | None] = queue.SimpleQueue()
        self._closed = False
        self.transactions = 0
        """Number of committed transactions."""

    async def open(self) -> None:
        """Start the thread and open the database."""
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = loop.create_future()
        self._thread = threading.Thread(target=self._serve, args=(loop, opened), name="reason-store", daemon=True)
        self._thread.start()
        try:
            await opened
        except asyncio.CancelledError:
            self._queue.put(None)
            raise

    def read(self, operation: Callable[[Connection], T]) -> asyncio.Future[T]:
        """Execute an operation that writes nothing."""
        return self._submit(operation, writes=False)

    def write(
        self, operation: Callable[[Connection], T], run: str | None = None, *, durable: bool = False
    ) -> asyncio.Future[T]:
        """Execute an operation completely or not at all, in one transaction with all others that wait.

        Args:
            durable: Whether the transaction must survive a power cut, not only the end of the process.
        """
        return self._submit(operation, writes=True, run=run, durable=durable)

    async def aclose(self) -> None:
        """Close the database after all submitted operations; idempotent."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            while self._thread.is_alive():
                await asyncio.to_thread(self._thread.join, 1.0)

    def _submit(
        self, operation: Callable[[Connection], Any], *, writes: bool, run: str | None = None, durable: bool = False
    ) -> asyncio.Future[Any]:
        if self._closed:
            raise StoreError(f"the run store {self._name} is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._queue.put(_Operation(operation, writes, loop, future, run, durable))
        return future

    # -- on the thread

    def _serve(self, loop: asyncio.AbstractEventLoop, opened: asyncio.Future[None]) -> None:
        try:
            database = self._database = self._open_database()
        except Exception as e:  # noqa: BLE001 (it is raised in the opener's task)
            _resolve(loop, [(opened, e)])
            return
        _resolve(loop, [(opened, None)])
        last = False
        while not last:
            operations, last = self._next_operations()
            first_write = next((i for i, op in enumerate(operations) if op.writes), len(operations))
            self._read(database, operations[:first_write])
            if first_write < len(operations):
                self._write(database, [op for op in operations if op.writes])
            # a read sees all writes submitted before it, awaited or not
            self._read(database, [op for op in operations[first_write:] if not op.writes])
        database.close()

    def _next_operations(self) -> tuple[list[_Operation], bool]:
        """The waiting operations, at least one unless the store is being closed; and whether it is."""
        operations: list[_Operation] = []
        operation = self._queue.get()
        while operation is not None:
            operations.append(operation)
            if len(operations) == MAX_OPERATIONS:
                return operations, False
            try:
                operation = self._queue.get_nowait()
            except queue.Empty:
                return operations, False
        return operations, True

    def _write(self, database: Database, operations: list[_Operation]) -> None:
        try:
            runs = sorted({op.run for op in operations if op.run is not None})
            durable = any(op.durable for op in operations)
            results = database.transact([_keeping_refusals(op.execute) for op in operations], runs, durable=durable)
            self.transactions += 1
        except StoreError as e:
            results = [e] * len(operations)
        except Exception as e:  # noqa: BLE001 (one of them failed: only its caller gets the error)
            if len(operations) == 1:
                results = [database.translated(e)]
            else:
                for operation in operations:
                    self._write(database, [operation])
                return
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
        for operation, result in zip(operations, results, strict=True):
            outcome = result.error if isinstance(result, _Refusal) else result
            by_loop.setdefault(operation.loop, []).append((operation.future, outcome))
        for loop, outcomes in by_loop.items():
            _resolve(loop, outcomes)

    def _read(self, database: Database, operations: list[_Operation]) -> None:
        unreachable: StoreError | None = None
        for operation in operations:
            result: Any = unreachable
            if unreachable is None:
                try:
                    result = database.query(operation.execute)
                except StoreError as e:  # the following operations do not wait for the database once more
                    result = unreachable = e
                except Exception as e:  # noqa: BLE001 (it is raised in the caller's task)
                    result = database.translated(e)
            _resolve(operation.loop, [(operation.future, result)])


def _keeping_refusals(operation: Callable[[Connection], Any]) -> Callable[[Connection], Any]:
    def execute(db: Connection) -> Any:
        try:
            return operation(db)
        except ReasonError as e:
            return _Refusal(e)

    return execute


def _resolve(loop: asyncio.AbstractEventLoop, results: list[tuple[asyncio.Future[Any], Any]]) -> None:
    """Set results and errors of futures on their own event loop."""

    def resolve() -> None:
        for future, result in results:
            if future.done():  # its awaiter was cancelled
                continue
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)

    try:
        loop.call_soon_threadsafe(resolve)
    except RuntimeError:  # the loop is closed: nothing awaits them any more
        return
