"""`RunWriter`: gathers what a run writes, so that it takes few transactions: one for a run of a single short call.

A transaction costs a good part of the processor time of a short run. So its row, responses and events wait for one
another, but never for long: a process that is killed loses at most what was added within the delays below.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from ..errors import StoreError
from ..events import Event
from ..types import Answer
from .protocol import JsonText, NewCall, NewRun, RunEnd, RunStatus, RunWrites, StoredCall
from .sql import RunStore

CALL_DELAY_S = 0.02
"""How long a finished response waits to be written, if the run goes on without another call, in seconds."""
CREATION_DELAY_S = 0.25
"""How long the row of a run waits that nobody was told of, in seconds."""
EVENTS_DELAY_S = 1.0
"""How long events wait, in seconds."""


class RunWriter:
    """Writes one run to the store. Used from one event loop.

    Everything is gathered until `flush` or `end`, or inside `saving` until its delay is over.

    Attributes:
        is_created: Whether the run is in the store.
    """

    def __init__(self, store: RunStore, run_id: str, *, is_recording: bool = True) -> None:
        self._store = store
        self._run_id = run_id
        self._is_recording = is_recording
        self._pending = RunWrites()
        self._write: asyncio.Future[None] | None = None
        """The write in flight."""
        self._written = RunWrites()
        """What it writes."""
        self._timer: asyncio.TimerHandle | None = None
        self._worker: asyncio.Task[object] | None = None
        """The task inside `saving`."""
        self._cancelling = 0
        """How often it was to be cancelled before."""
        self._error: BaseException | None = None
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
            write = self._write or self._begin_write()
            await asyncio.shield(write)  # the store completes a write even if this is cancelled
            if self._write is write:  # awaiting a future that is done does not let its callbacks run
                await asyncio.sleep(0)

    def end(
        self, status: RunStatus, answer: Answer, error: Mapping[str, JsonValue] | None = None
    ) -> asyncio.Future[None]:
        """Write everything that was not written, and the run's end, at once."""
        if not self._is_recording:
            nothing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            nothing.set_result(None)
            return nothing
        end = RunEnd(status, answer, error)
        return asyncio.ensure_future(self._end_later(end)) if self._write is not None else self._begin_end(end)

    async def _end_later(self, end: RunEnd) -> None:
        while self._write is not None:
            await asyncio.wait([self._write])  # what it could not write comes back
        await self._begin_end(end)

    def _begin_end(self, end: RunEnd) -> asyncio.Future[None]:
        self._pending.end = end
        return self._begin_write()

    def saving(self, *, then_flush: bool = True) -> Saving:
        """Write what is added while an `async with` runs, each part before its delay is over.

        Inside another one, this one has no effect.
        """
        return Saving(self, then_flush)

    def begin_saving(self) -> bool:
        """Begin to write what is added in time, unless that was begun before or nothing is written."""
        if self._worker is not None or not self._is_recording:
            return False
        self._worker = asyncio.current_task()
        assert self._worker is not None
        self._cancelling = self._worker.cancelling()
        self._error = None
        self._schedule(EVENTS_DELAY_S if self.is_created else CREATION_DELAY_S)
        return True

    async def end_saving(self, raised: BaseException | None, *, then_flush: bool) -> None:
        """End what `begin_saving` has begun, after a block that may have raised an exception."""
        worker, error = self._worker, self._background_error()
        assert worker is not None
        self._worker = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if raised is not None and error is not None:
            is_own = worker.uncancel() <= self._cancelling
            if is_own and isinstance(raised, asyncio.CancelledError):
                raise error from None
        if then_flush and error is None:
            await self.flush()

    def _background_error(self) -> BaseException | None:
        """The error of a write that was not awaited."""
        return self._error

    def _schedule(self, delay_s: float) -> None:
        """Write at this time at the latest."""
        if self._worker is None or self._error is not None:
            return
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if self._timer.when() <= loop.time() + delay_s:
                return
            self._timer.cancel()
        self._timer = loop.call_later(delay_s, self._on_time)

    def _schedule_next(self) -> None:
        self._schedule(CALL_DELAY_S if self.has_pending_calls else EVENTS_DELAY_S)

    def _on_time(self) -> None:
        self._timer = None
        if self._write is None and self._pending:
            self._begin_write().add_done_callback(self._on_background_write)
        else:
            self._schedule_next()

    def _on_background_write(self, write: asyncio.Future[None]) -> None:
        error = write.exception() if not write.cancelled() else StoreError("the write was cancelled")
        if error is None:
            self._schedule_next()
        elif self._worker is not None:
            self._error = error
            self._worker.cancel()

    def _begin_write(self) -> asyncio.Future[None]:
        self._written = self.take()
        self._write = asyncio.ensure_future(self._store.save(self._run_id, self._written))
        self._write.add_done_callback(self._on_written)
        return self._write

    def _on_written(self, write: asyncio.Future[None]) -> None:
        written, self._written, self._write = self._written, RunWrites(), None
        if not write.cancelled() and write.exception() is None:
            self.is_created = True
            return
        pending = self._pending
        self._pending = RunWrites(
            creation=written.creation,
            identities=pending.identities or written.identities,
            calls=written.calls + pending.calls,
            copies=written.copies + pending.copies,
            events=written.events + pending.events,
        )


class Saving:
    """What a `RunWriter` does inside an `async with` (see `RunWriter.saving`)."""

    def __init__(self, writer: RunWriter, then_flush: bool) -> None:
        self._writer, self._then_flush = writer, then_flush

    async def __aenter__(self) -> None:
        self._has_begun = self._writer.begin_saving()

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._has_begun:
            await self._writer.end_saving(error, then_flush=self._then_flush)
