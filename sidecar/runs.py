"""Runs as the server's routes see them: `LiveRun` (this process works on it), `StoredRun` (known from the store only).

`AnyRun` is either of them, or an `AttachedRun`: a live run that a repeated request is attached to.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Literal

from ..core.errors import BackendError, Cancelled, NotVerified, ReasonError, ShuttingDown
from ..core.events import Event, RunFailed, RunFinished
from ..core.run import Run, RunConfig, read_config
from ..core.store.protocol import RunRecord, RunStatus, RunStore
from ..core.types import Answer
from .auth import Caller
from .error_objects import error_from, stored_error_object
from .event_buffer import PAGE_SIZE, EventBuffer
from .native.schemas import is_active

POLL_INTERVAL_S = 0.5
"""How often the store is queried about a run that another process works on, in seconds."""


class StoredRun:
    """A run as the store has it: it has ended, waits, or another process works on it.

    Args:
        store: The store.
        record: The run.
        stopping: Whether this process is about to stop and no longer waits for the run.
        replayed: Whether this is the answer to a request that was made before.
    """

    def __init__(
        self,
        store: RunStore,
        record: RunRecord,
        stopping: Callable[[], bool] = lambda: False,
        *,
        replayed: bool = False,
    ) -> None:
        self.replayed = replayed
        self._store, self._stopping = store, stopping
        self.record = record
        self.id = record.id
        self.config = read_config(record)

    @property
    def status(self) -> RunStatus:
        """As the store last said."""
        return self.record.status

    async def events(self, after: int = 0, *, text: bool = False) -> AsyncGenerator[Event, None]:
        """The stored events with a higher number, and those that come, until the run has ended.

        Args:
            after: Number of the last event that the reader has.
            text: Changes nothing: text deltas are not stored.
        """
        while True:
            ended = not is_active(self.record)  # what was stored before it ended is read in this round
            page = await self._store.list_events(self.id, after=after, limit=PAGE_SIZE)
            for event in page:
                yield event
                after = event.number
            if page:
                continue
            if ended or self._stopping():
                return
            await self._refresh()

    async def result(self) -> Answer:
        """The answer, waited for.

        Raises:
            ReasonError: What ended the run.
        """
        while is_active(self.record):
            if self._stopping():
                raise ShuttingDown
            await self._refresh()
        return stored_answer(self.record)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[StoredRun]:
        """Hold the run for a request; it belongs to no one here."""
        yield self

    async def _refresh(self) -> None:
        await asyncio.sleep(POLL_INTERVAL_S)
        self.record = await self._store.get_run(self.id, exact=True)


def stored_answer(record: RunRecord) -> Answer:
    """The answer of a run that has ended.

    Raises:
        ReasonError: What ended it: its own error; `NotVerified` or `Cancelled` with the partial answer.
    """
    answer = None if record.answer is None else Answer.model_validate(record.answer)
    if record.status == "failed":
        raise error_from(stored_error_object(record.error or {}), partial=answer)
    if record.status == "interrupted" or answer is None:
        raise Cancelled("the run was stopped before its end", partial=answer)
    if read_config(record).require_verified:
        verdict = "unchecked" if answer.verification is None else answer.verification.verdict
        if verdict != "supported":
            raise NotVerified(f"the answer is not verified: {verdict.replace('_', ' ')}", partial=answer)
    return answer


MAX_STARTS = 100
"""How often a run may be begun without coming to an end."""


class LiveRun:
    """A run that this process works on, or that waits here for its turn.

    Args:
        run_id: Its name.
        config: Its configuration.
        store: Where it is kept.
        background: Whether it continues in another process when this one ends.
        is_detached: Whether it continues when no one waits for it any more.
        resumed: Whether it was begun before.

    Attributes:
        buffer: Its events.
        is_stored: Whether the store has it.
        is_owned: Whether it is this process's there.
        replayed: Whether this is the answer to a request that was made before.
        status: "queued" until it has its turn, then "running"; in the end as the store has it.
        stopping: Why it was reported to stop; empty if it was not.
    """

    replayed = False

    def __init__(
        self,
        run_id: str,
        config: RunConfig,
        store: RunStore,
        *,
        background: bool = False,
        is_detached: bool = False,
        resumed: bool = False,
    ) -> None:
        self.id, self.config, self.resumed = run_id, config, resumed
        self.is_stored, self.is_owned = resumed, False
        self.background, self.is_detached = background, is_detached or background
        self.caller = Caller()
        """The caller; no one, where a process took the run up by itself."""
        self.requested_at_s = time.monotonic()
        self.status: RunStatus = "queued"
        self.stopping: Literal["", "cancelled", "drained"] = ""
        self.closing: RunFinished | RunFailed | None = None
        """The event that ended it, once there is one."""
        self.buffer = EventBuffer(
            lambda after, limit: store.list_events(run_id, after=after, limit=limit), _text_switch(weakref.ref(self))
        )
        self._run: Run | None = None
        self._task: asyncio.Task[None] | None = None
        self._accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended = asyncio.Event()
        self._answer: Answer | None = None
        self._error: ReasonError | None = None
        self._other_owner: StoredRun | None = None

    # -- for anyone who requested

    async def events(self, after: int = 0, *, text: bool = False) -> AsyncGenerator[Event, None]:
        """Events with a higher number, stored ones first, until the last; each once, in order.

        Any number of readers may read, as slowly as they like.

        Args:
            after: Number of the last event that the reader has; 0 is none.
            text: Whether to stream text as it is generated, from now on. Text deltas are not stored.
        """
        async with aclosing(self.buffer.read(after, text=text)) as events:
            async for event in events:
                yield event
                after = max(after, event.number)
        await self._ended.wait()
        if self._other_owner is not None:
            async with aclosing(self._other_owner.events(after)) as events:
                async for event in events:
                    yield event

    async def result(self) -> Answer:
        """The answer, waited for; cancelling the wait does not cancel the run (see `held`).

        Raises:
            ReasonError: What ended the run: its own error; `Cancelled` or `ShuttingDown` with the partial answer.
        """
        await self._ended.wait()
        if self._other_owner is not None:
            return await self._other_owner.result()
        if self._error is not None:
            raise self._error
        assert self._answer is not None
        return self._answer

    @property
    def ended(self) -> bool:
        """Whether this process is done with it."""
        return self._ended.is_set()

    async def wait_ended(self) -> None:
        """Wait until this process is done with it."""
        await self._ended.wait()

    def cancel(self) -> None:
        """Stop it: what it has so far is saved, and the engine stops generating. Idempotent."""
        self.stop("cancelled")

    @asynccontextmanager
    async def held(self) -> AsyncIterator[LiveRun]:
        """Hold the run for a request: left before it has ended, it is cancelled, unless it `is_detached`."""
        try:
            yield self
        finally:
            if not self.is_detached and not self.ended:
                self.cancel()
                await self._ended.wait()

    # -- for the run manager

    async def accepted(self) -> None:
        """Wait until the caller can be reported that there is such a run.

        Raises:
            ReasonError: There will be none.
        """
        await asyncio.shield(self._accepted)

    def accept(self) -> None:
        """Let `accepted` return."""
        if not self._accepted.done():
            self._accepted.set_result(None)

    def begin(self, task: asyncio.Task[None]) -> None:
        """Know the task that works on it."""
        self._task = task

    def attach_run(self, run: Run) -> None:
        """Know the run itself.

        Raises:
            BackendError: It was begun so often that anyone who takes it up must be supposed to die of it.
        """
        self._run = run
        if run.num_starts >= MAX_STARTS:
            raise BackendError(
                f"the run was begun {run.num_starts} times and never ended", hint="look at why its processes died"
            )
        self.buffer.skip_to(run.last_stored_event)
        self._update_run()

    def emit(self, event: Event) -> None:
        """A sink of the run."""
        if isinstance(event, RunFinished | RunFailed):
            self.closing = event
        self.buffer(event)

    def stop(self, why: Literal["cancelled", "drained"]) -> None:
        """Cancel its task; a background run that is stopped by a drain is given up for the next process."""
        if self.ended or self.stopping:
            return
        self.stopping = why
        self._update_run()
        if self._task is not None:
            self._task.cancel()

    def end(
        self,
        status: RunStatus,
        answer: Answer | None = None,
        error: ReasonError | None = None,
        other_owner: StoredRun | None = None,
    ) -> None:
        """Note how it ended, or where it continues."""
        self.status, self._answer, self._error, self._other_owner = status, answer, error, other_owner
        if error is not None and not self._accepted.done():
            self._accepted.set_exception(error)
            self._accepted.exception()  # anyone who waited may have left
        self.accept()
        self._ended.set()
        self.buffer.close()
        self._run = self._task = None  # they know this run; without the circle it belongs to its last reader

    @property
    def handed_over(self) -> bool:
        """Whether it is stopped for another process to continue with."""
        return self.background and self.stopping == "drained"

    def _update_run(self) -> None:
        if self._run is not None:
            self._run.stream_text = self.buffer.wants_text
            self._run.requeue = self.handed_over


def _text_switch(run: weakref.ref[LiveRun]) -> Callable[[bool], None]:
    """Notifies a run that text is requested, or no more, without keeping it."""

    def update(_is_wanted: bool) -> None:
        live = run()
        if live is not None:
            live._update_run()

    return update


class AttachedRun:
    """A run under the eyes of a request that was made before: it is not stopped when that one leaves."""

    replayed = True

    def __init__(self, run: LiveRun) -> None:
        self._run = run
        self.id, self.config = run.id, run.config

    @property
    def status(self) -> RunStatus:
        """See `LiveRun`."""
        return self._run.status

    def events(self, after: int = 0, *, text: bool = False) -> AsyncGenerator[Event, None]:
        """See `LiveRun`."""
        return self._run.events(after, text=text)

    async def result(self) -> Answer:
        """See `LiveRun`."""
        return await self._run.result()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[AttachedRun]:
        """Hold the run for a request."""
        yield self


AnyRun = LiveRun | StoredRun | AttachedRun
