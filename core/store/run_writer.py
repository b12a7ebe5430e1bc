"""`RunWriter`: gathers what a run writes, so that it takes few transactions: one for a run of a single short call.

A transaction costs a good part of the processor time of a short run. So its row, responses and events wait for one
another, but never for long: a process that is killed loses at most what was added within the delays below.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from pydantic import JsonValue

from ..events import Event
from ..types import Answer
from .group_commit import Connection
from .records import JsonText, NewCall, NewRun, RunEnd, RunStatus, RunWrites, StoredCall
from .sql import RunStore

T = TypeVar("T")

CALL_DELAY_S = 0.02
"""How long a finished response waits to be written, if the run goes on without another call, in seconds."""
CREATION_DELAY_S = 0.25
"""How long the row of a run waits that nobody was told of, in seconds."""
EVENTS_DELAY_S = 1.0
"""How long events wait, in seconds."""


class RunWriter:
    """Writes one run to the store. Used from one event loop.

    Everything is gathered until `flush` or `end`, or until its delay is over; outside of `saving` only responses, which
    cost money, have one. What a write that fails could not store is part of the next one.
    """

    def __init__(self, store: RunStore, run_id: str, *, is_recording: bool = True) -> None:
        self._store = store
        self._run_id = run_id
        self._is_recording = is_recording
        self._pending = RunWrites()
        self._written = RunWrites()
        """What the write in flight writes."""
        self._write: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._worker: asyncio.Task[object] | None = None
        """The task inside `saving`."""
        self._operations: list[_RunOperation] = []
        """Those of `_pending`."""
        self._error: BaseException | None = None
        """Why the task is cancelled."""
        self.is_created = True

    # -- what is written

    def create(self, new: NewRun) -> None:
        """Create the run with its first write."""
        self._pending.creation = new
        self.is_created = False

    def identify(self, identities: JsonText | Mapping[str, JsonValue]) -> None:
        """Record which models the run uses."""
        if self._is_recording:
            self._pending.identities = identities

    def add_calls(self, calls: Sequence[NewCall]) -> None:
        """Store calls that the run has paid for."""
        if self._is_recording:
            self._pending.calls += calls
            self._schedule(CALL_DELAY_S)

    def add_copies(self, calls: Sequence[StoredCall]) -> None:
        """Store calls of other runs that answered this one, so that it can be replayed after they were deleted."""
        if self._is_recording and calls:
            self._pending.copies += calls
            self._schedule(CALL_DELAY_S)

    def add_event(self, event: Event) -> None:
        """Store an event."""
        if self._is_recording:
            self._pending.events.append(event)
            if self._worker is not None:  # events alone are not worth a transaction of their own
                self._schedule(EVENTS_DELAY_S)

    def execute(self, operation: Callable[[Connection], T], *, durable: bool = False) -> asyncio.Future[T]:
        """Execute an operation on the run at once, in one transaction with all that was added before.

        It is executed even if its result is not awaited, and not again if its transaction fails.

        Args:
            durable: Whether the transaction must survive a power cut.
        """
        submitted = _RunOperation(operation, asyncio.get_running_loop().create_future())
        self._operations.append(submitted)
        self._pending.operations.append(submitted.execute)
        self._pending.durable |= durable
        if self._write is None:
            self._begin_write()
        return submitted.future

    @property
    def has_pending_calls(self) -> bool:
        """Whether a response is not in the store yet."""
        return bool(self._pending.calls or self._written.calls)

    def take(self) -> RunWrites:
        """Remove and return what was not written; the caller writes it."""
        writes, self._pending = self._pending, RunWrites()
        return writes

    # -- when it is written

    async def save(self) -> None:
        """Write everything, unless that is done in time (`saving`)."""
        if self._worker is None:
            await self.flush()

    async def flush(self) -> None:
        """Write everything; what was added before is in the store then."""
        while self._write is not None or self._pending:
            await asyncio.shield(self._write or self._begin_write())  # a write is completed even if this is cancelled

    async def end(self, status: RunStatus, answer: Answer, error: Mapping[str, JsonValue] | None = None) -> None:
        """Write everything that was not written, and the run's end."""
        if not self._is_recording:
            return
        while self._write is not None:
            await asyncio.wait([self._write])  # what it could not write comes back
        self._pending.end = RunEnd(status, answer, error)
        await asyncio.shield(self._begin_write())

    @asynccontextmanager
    async def saving(self) -> AsyncIterator[None]:
        """Leave `save` to the delays while the block runs.

        A write that fails cancels the block, which raises the error instead: another process may have the run.
        """
        self._worker = asyncio.current_task()
        assert self._worker is not None
        cancelled_before = self._worker.cancelling()
        if self._pending:
            self._schedule(EVENTS_DELAY_S if self.is_created else CREATION_DELAY_S)
        try:
            yield
        except BaseException as e:
            if (error := self._error) is not None:
                is_own = self._worker.uncancel() <= cancelled_before
                if is_own and isinstance(e, asyncio.CancelledError):
                    raise error from None
            raise
        finally:
            self._worker = self._error = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _schedule(self, delay_s: float) -> None:
        """Write at this time at the latest."""
        if self._error is not None:
            return
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if self._timer.when() <= loop.time() + delay_s:
                return
            self._timer.cancel()
        self._timer = loop.call_later(delay_s, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        if self._write is None and self._pending:  # a write in flight schedules the next one
            self._begin_write().add_done_callback(self._on_background_write)

    def _on_background_write(self, write: asyncio.Task[None]) -> None:
        error = asyncio.CancelledError() if write.cancelled() else write.exception()
        if error is not None and self._worker is not None:
            self._error = error
            self._worker.cancel()

    def _begin_write(self) -> asyncio.Task[None]:
        self._written = self.take()
        operations, self._operations = self._operations, []
        self._write = asyncio.get_running_loop().create_task(self._save(operations))
        self._write.add_done_callback(lambda write: write.cancelled() or write.exception())  # it may not be awaited
        return self._write

    async def _save(self, operations: Sequence[_RunOperation]) -> None:
        written = self._written
        try:
            await self._store.save(self._run_id, written)
        except BaseException as e:
            pending = self._pending
            self._pending = RunWrites(
                creation=written.creation,
                identities=pending.identities or written.identities,
                calls=written.calls + pending.calls,
                copies=written.copies + pending.copies,
                events=written.events + pending.events,
                operations=pending.operations,
                durable=pending.durable,
            )
            for operation in operations:
                operation.fail(e)
            raise
        else:
            self.is_created = True
            for operation in operations:
                operation.succeed()
            if self._pending:
                self._schedule(CALL_DELAY_S if self._pending.calls else EVENTS_DELAY_S)
        finally:
            self._written, self._write = RunWrites(), None
            if self._operations:
                self._begin_write()


class _RunOperation:
    """An operation that was submitted, and its result."""

    def __init__(self, operation: Callable[[Connection], Any], future: asyncio.Future[Any]) -> None:
        self.future = future
        self._operation = operation
        self._result: Any = None

    def execute(self, db: Connection) -> None:
        """Execute it, on the store's thread; again if the transaction is tried again."""
        self._result = self._operation(db)

    def succeed(self) -> None:
        """The transaction was committed."""
        if not self.future.done():  # its awaiter was cancelled
            self.future.set_result(self._result)

    def fail(self, error: BaseException) -> None:
        """The transaction was rolled back."""
        if isinstance(error, asyncio.CancelledError):
            self.future.cancel()
        elif not self.future.done():
            self.future.set_exception(error)
