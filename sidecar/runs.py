"""Runs as routes see them: `LiveRun` (executed by this process) and `StoredRun` (read from the store).

`AnyRun` is one of them or an `AttachedRun`, a live run that a repeated request is attached to. An `EventBuffer`
distributes the events of a live run to any number of readers; slow readers do not delay the run.
"""

from __future__ import annotations

import asyncio
import heapq
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

from ..core.clock import monotonic
from ..core.errors import Cancelled, NotVerified, ReasonError, ShuttingDown, StoreError
from ..core.events import RUN_ENDS, Event, EventsDropped, RunFailed, RunFinished, TextDelta
from ..core.run import Run, RunConfig, read_config
from ..core.store.records import NewRun, RunRecord, RunStatus, RunWrites
from ..core.store.sql import RunStore
from ..core.types import Answer, RunUsage
from ..core.verdicts import failure_text
from .auth import Caller
from .errors import RunErrors, error_from
from .native.schemas import is_active

POLL_INTERVAL_S = 0.5
"""Interval between reads of a run that another process executes, in seconds."""

StoredEvents = Callable[[int, int], Awaitable[Sequence[Event]]]
"""Reads the stored events after a number (first argument), at most as many as the second argument."""

MAX_EVENTS = 512
MAX_TEXT_DELTAS = 4096
PAGE_SIZE = 256
SAVE_TIMEOUT_S = 30.0
"""Maximum time in seconds that a reader waits for evicted events to be in the store; events are saved every second."""


class EventBuffer:
    """An event sink that keeps the newest events of a run; readers that fell behind get older ones from the store.

    Memory is bounded. Text deltas are not stored: each reader that requests them has its own queue, which drops the
    oldest deltas when it is full and reports their number in an `EventsDropped` event.

    Args:
        stored: Reads the stored events of the run.
        on_text_wanted: Called with whether any reader wants text deltas, when readers of text come or leave.
        max_events: Maximum number of buffered events.
        max_text_deltas: Maximum number of queued text deltas per reader.

    Attributes:
        last: Number of the last event, not counting text deltas.
        closed: Whether `close` was called.
    """

    def __init__(
        self,
        stored: StoredEvents,
        on_text_wanted: Callable[[bool], None] = lambda _: None,
        *,
        max_events: int = MAX_EVENTS,
        max_text_deltas: int = MAX_TEXT_DELTAS,
    ) -> None:
        self._stored, self._on_text_wanted = stored, on_text_wanted
        self._window: deque[Event] = deque()
        self._max_events, self._max_text_deltas = max_events, max_text_deltas
        self._last_dropped = 0
        """Number of the newest event evicted from the window."""
        self._texts: list[_TextQueue] = []
        self._expected: _TextQueue | None = None
        self._readers: list[asyncio.Future[None]] = []
        """Readers that wait for an event."""
        self.last = 0
        self.closed = False

    @property
    def wants_text(self) -> bool:
        """Whether any reader wants text deltas."""
        return bool(self._texts)

    def __call__(self, event: Event) -> None:
        """Add an event and wake the readers."""
        if isinstance(event, TextDelta):
            for texts in self._texts:
                texts.add(event)
        else:
            if len(self._window) >= self._max_events:
                self._last_dropped = self._window.popleft().number
            self._window.append(event)
            self.last = event.number
        if self._readers:
            self._notify()

    def close(self) -> None:
        """Mark the end of the events; idempotent."""
        self.closed = True
        self._notify()

    def skip_to(self, number: int) -> None:
        """Treat the events up to a number as evicted, for a run that began before this buffer existed."""
        self._last_dropped = max(self._last_dropped, number)
        self.last = max(self.last, number)

    def expect_text(self) -> None:
        """Queue text deltas from now on for the next reader that requests text."""
        self._expected = _TextQueue(self._max_text_deltas)
        self._texts.append(self._expected)
        self._on_text_wanted(True)

    async def read(self, after: int = 0, *, text: bool = False) -> AsyncGenerator[Sequence[Event], None]:
        """Yield the events after a number, in order and each once, all that are there together, until `close`.

        Args:
            after: Number of the last event that the reader has.
            text: Whether to include text deltas, from this call or from `expect_text` on.

        Raises:
            StoreError: An evicted event is not in the store.
        """
        texts, self._expected = (self._expected, None) if text else (None, self._expected)
        if text and texts is None:
            texts = _TextQueue(self._max_text_deltas)
            self._texts.append(texts)
            self._on_text_wanted(True)
        try:
            while True:
                closed = self.closed  # read before the events: those added before `close` are part of this round
                up_to: int | None = None
                if after < self._last_dropped:
                    batch = await self._read_missed(after)
                    up_to = batch[-1].number
                else:
                    batch = self._buffered_after(after)
                deltas = [] if texts is None else texts.take(up_to)
                events = [*heapq.merge(batch, deltas, key=_number_of)] if batch and deltas else batch or deltas
                if events:
                    yield events
                    after = max(after, events[-1].number)
                    continue
                if closed:
                    return
                await self._wait()
        finally:
            if texts is not None:
                self._texts.remove(texts)
                self._on_text_wanted(self.wants_text)

    def _buffered_after(self, number: int) -> list[Event]:
        newer: list[Event] = []
        for event in reversed(self._window):
            if event.number <= number:
                break
            newer.append(event)
        newer.reverse()
        return newer

    async def _read_missed(self, after: int) -> Sequence[Event]:
        """A first page of the evicted events after a number; waits until the store has them."""
        waited = 0.0
        while True:
            missed = [e for e in await self._stored(after, PAGE_SIZE) if e.number <= self._last_dropped]
            if missed:
                return missed
            if waited >= SAVE_TIMEOUT_S or self.closed:
                raise StoreError(f"the events after number {after} are not in the run store")
            await asyncio.sleep(0.1)
            waited += 0.1

    async def _wait(self) -> None:
        changed = asyncio.get_running_loop().create_future()
        self._readers.append(changed)
        await changed

    def _notify(self) -> None:
        readers, self._readers = self._readers, []
        for changed in readers:
            if not changed.done():  # the reader was cancelled
                changed.set_result(None)


class _TextQueue:
    """The text deltas queued for one reader."""

    def __init__(self, max_events: int) -> None:
        self._waiting: deque[TextDelta] = deque()
        self._max_events = max_events
        self._dropped = 0

    def add(self, event: TextDelta) -> None:
        if len(self._waiting) >= self._max_events:
            self._waiting.popleft()
            self._dropped += 1
        self._waiting.append(event)

    def take(self, up_to: int | None) -> list[Event]:
        """Remove and return the deltas up to a number, or all, preceded by `EventsDropped` if any were dropped."""
        taken: list[Event] = []
        if self._dropped:
            taken.append(EventsDropped(count=self._dropped))
            self._dropped = 0
        while self._waiting and (up_to is None or self._waiting[0].number <= up_to):
            taken.append(self._waiting.popleft())
        return taken


def _number_of(event: Event) -> int:
    return event.number


@dataclass(frozen=True)
class ClientTurn:
    """A request's turn of a run that waits for its client; each ends with calls, the last one with the answer.

    Attributes:
        number: From 1.
        after: Number of the event that ended the turn before.
        spent: Usage of the turns before.
        asked: IDs of the calls that the turn before ended with.
    """

    number: int = 1
    after: int = 0
    spent: RunUsage = field(default_factory=RunUsage)
    asked: frozenset[str] = frozenset()

    def name(self, run_id: str) -> str:
        """Name of the turn: of the first that of the run."""
        return run_id if self.number == 1 else f"{run_id}_{self.number}"


def client_turns(events: Sequence[Event]) -> tuple[list[ClientTurn], list[RunFinished]]:
    """The turns of a run, the one that follows the last calls included, and the ends of all but that one."""
    ends = {
        event.answer.pending: event
        for event in events
        if isinstance(event, RunFinished) and waits_for_client(event.answer)
    }  # of a run that was resumed without what it waits for, the last
    turns = [ClientTurn()]
    for end in ends.values():
        asked = frozenset(call.id for call in end.answer.pending)
        turns.append(ClientTurn(len(turns) + 1, end.number, end.answer.usage, asked))
    return turns, list(ends.values())


def waits_for_client(answer: Answer) -> bool:
    """Whether a run waits for its client: for approvals, or for results of tools that the client executes."""
    return any(call.question != "outcome" for call in answer.pending)


class FollowedRun(ABC):
    """A run whose events can be read.

    Attributes:
        turn: The turn that the request is about.
    """

    turn = ClientTurn()

    @abstractmethod
    def batches(self, after: int = 0, *, text: bool = False) -> AsyncGenerator[Sequence[Event], None]:
        """Yield the events with a higher number than `after` until the last, each once and in order.

        Args:
            after: Number of the last event that the reader has; 0 if none.
            text: Whether to include text deltas generated from now on, if the run is live. They are not stored.

        Yields:
            The events that are there at once.
        """

    async def events(self, after: int = 0, *, text: bool = False) -> AsyncGenerator[Event, None]:
        """Yield the events of `batches` one by one."""
        async with aclosing(self.batches(after, text=text)) as batches:
            async for batch in batches:
                for event in batch:
                    yield event

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Hold the run for a request: at the end, a run that is only this request's is cancelled."""
        try:
            yield
        finally:
            await self.release()

    async def release(self) -> None:  # noqa: B027 (nothing ends, unless the run is this request's)
        """End the hold of a request; a run that another process or request has started goes on."""


class StoredRun(FollowedRun):
    """A run read from the store: it has ended, is queued, or another process executes it.

    Args:
        store: The run store.
        record: The run's record.
        stopping: Returns whether this process is stopping; waits for the run end then.
        replayed: Whether the run belongs to a repeated request.
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
        """The status at the last read of the store."""
        return self.record.status

    async def batches(self, after: int = 0, *, text: bool = False) -> AsyncGenerator[Sequence[Event], None]:
        """Yield the stored events, and new ones until the run has ended."""
        while True:
            ended = not is_active(self.record)  # read before the events, so that none of an ended run is missed
            page = await self._store.list_events(self.id, after=after, limit=PAGE_SIZE)
            if page:
                yield page
                after = page[-1].number
                continue
            if ended or self._stopping():
                return
            await self._refresh()

    async def result(self) -> Answer:
        """Wait for the run's end and return its answer.

        Raises:
            ReasonError: The error that ended the run.
            ShuttingDown: This process is stopping and the run is still active.
        """
        while is_active(self.record):
            if self._stopping():
                raise ShuttingDown
            await self._refresh()
        return stored_answer(self.record)

    async def _refresh(self) -> None:
        await asyncio.sleep(POLL_INTERVAL_S)
        self.record = await self._store.get_run(self.id, exact=True)


def stored_answer(record: RunRecord) -> Answer:
    """Return the answer of a run that has ended.

    Raises:
        Cancelled: The run was interrupted; the error has the partial answer.
        NotVerified: The run requires a verified answer and the verdict is not "supported".
        ReasonError: The error that the run failed with.
    """
    answer = None if record.answer is None else Answer.model_validate(record.answer)
    if record.status == "failed":
        raise error_from(record.error or {}, partial=answer)
    if record.status == "interrupted" or answer is None:
        raise Cancelled("the run was stopped before it finished", partial=answer)
    if record.status == "waiting":
        return answer
    verification = answer.verification
    if read_config(record).require_verified and (verification is None or verification.verdict != "supported"):
        raise NotVerified(failure_text(verification), partial=answer)
    return answer


class LiveRun(FollowedRun):
    """A run that this process executes or has queued for an admission slot.

    Args:
        run_id: The run's ID.
        config: The run's configuration.
        store: The run store.
        background: Whether another process continues the run when this one ends.
        is_detached: Whether the run continues when its client disconnects; always true for background runs.
        resumed: Whether the run was started before.

    Attributes:
        buffer: The run's events.
        is_stored: Whether the run is in the store, or will be with its first write.
        creation: How it is created with its first write; None if it was created before it began.
        is_owned: Whether the store has this process as the run's owner.
        replayed: Whether the run belongs to a repeated request.
        status: "queued" until the run is admitted, then "running"; at the end, the stored status.
        stopping: Why the run was asked to stop; empty if it was not.
        is_concluding: Whether the run was asked to answer now.
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
        self.creation: NewRun | None = None
        self.background, self.is_detached = background, is_detached or background
        self.caller = Caller()
        """The caller; the default caller if the process adopted the run."""
        self.requested_at_s = monotonic()
        self.status: RunStatus = "queued"
        self.stopping: Literal["", "cancelled", "drained"] = ""
        self.is_concluding = False
        self.closing: RunFinished | RunFailed | None = None
        """The final event, once emitted."""
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

    # -- for requests

    async def batches(self, after: int = 0, *, text: bool = False) -> AsyncGenerator[Sequence[Event], None]:
        """Yield the events; there may be any number of concurrent readers, and a slow one does not delay the run."""
        async with aclosing(self.buffer.read(after, text=text)) as batches:
            async for batch in batches:
                yield batch
                after = max(after, batch[-1].number)
        await self._ended.wait()
        if self._other_owner is not None:
            async with aclosing(self._other_owner.batches(after)) as batches:
                async for batch in batches:
                    yield batch

    async def result(self) -> Answer:
        """Wait for the run's end and return its answer; cancelling the wait does not cancel the run (see `held`).

        Raises:
            Cancelled, ShuttingDown: The run was stopped; the error has the partial answer.
            ReasonError: The error that ended the run.
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
        """Whether the run has ended in this process."""
        return self._ended.is_set()

    async def wait_ended(self) -> None:
        """Wait until the run has ended in this process."""
        await self._ended.wait()

    def cancel(self) -> None:
        """Cancel the run: generation stops and the partial answer is saved. Idempotent."""
        self.stop("cancelled")

    def conclude(self) -> None:
        """End the run with an answer from what it has; a run that waits does so as soon as it starts. Idempotent."""
        self.is_concluding = True
        if self._run is not None:
            self._run.conclude()

    async def release(self) -> None:
        """End the hold of a request: a run that has not ended is cancelled unless it `is_detached`."""
        if not self.is_detached and not self.ended:
            self.cancel()
            await self._ended.wait()

    # -- for the run manager

    async def accepted(self) -> None:
        """Wait until the run is accepted.

        Raises:
            ReasonError: The run was rejected.
        """
        await asyncio.shield(self._accepted)

    def accept(self) -> None:
        """Let `accepted` return."""
        if not self._accepted.done():
            self._accepted.set_result(None)

    def begin(self, task: asyncio.Task[None]) -> None:
        """Set the task that executes the run."""
        self._task = task

    def attach_run(self, run: Run) -> None:
        """Set the underlying `Run`."""
        self._run = run
        run.error_filter = RunErrors(self.id)
        self.buffer.skip_to(run.last_stored_event)
        self._update_run()
        if self.is_concluding:
            run.conclude()

    async def saved(self) -> None:
        """Wait until the run is in the store as it is now.

        Raises:
            StoreError: The store failed.
        """
        if self._run is not None:
            await self._run.writer.flush()

    def unwritten(self) -> RunWrites:
        """Remove and return what the store does not have of the run; the caller writes it."""
        if self._run is None:  # it has not started
            return RunWrites(creation=self.creation)
        return self._run.writer.take()

    def emit(self, event: Event) -> None:
        """Event sink of the run."""
        if isinstance(event, RUN_ENDS):
            self.closing = event
        self.buffer(event)

    def stop(self, why: Literal["cancelled", "drained"]) -> None:
        """Cancel the task; a background run that is stopped by a drain is released for another process."""
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
        """Set the outcome, or the stored run to follow if another process owns it."""
        self.status, self._answer, self._error, self._other_owner = status, answer, error, other_owner
        if error is not None and not self._accepted.done():
            self._accepted.set_exception(error)
            self._accepted.exception()  # marks it as retrieved: there may be no waiter
        self.accept()
        self._ended.set()
        self.buffer.close()
        self._run = self._task = None  # breaks the reference cycle

    @property
    def handed_over(self) -> bool:
        """Whether the run was stopped so that another process continues it."""
        return self.background and self.stopping == "drained"

    def _update_run(self) -> None:
        if self._run is not None:
            self._run.stream_text = self.buffer.wants_text
            self._run.requeue = self.handed_over


def _text_switch(run: weakref.ref[LiveRun]) -> Callable[[bool], None]:
    """Return a callback that updates the run's text streaming, without a strong reference to the run."""

    def update(_is_wanted: bool) -> None:
        live = run()
        if live is not None:
            live._update_run()

    return update


class AttachedRun(FollowedRun):
    """A live run that a repeated request is attached to; the request's disconnect does not cancel it."""

    replayed = True

    def __init__(self, run: LiveRun) -> None:
        self._run = run
        self.id, self.config, self.turn = run.id, run.config, run.turn

    @property
    def status(self) -> RunStatus:
        return self._run.status

    def batches(self, after: int = 0, *, text: bool = False) -> AsyncGenerator[Sequence[Event], None]:
        return self._run.batches(after, text=text)

    async def result(self) -> Answer:
        return await self._run.result()


AnyRun = LiveRun | StoredRun | AttachedRun
