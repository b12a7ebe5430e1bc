"""`RunLifecycle`: how one run goes on a server: it is accepted, has its turn, and ends, whatever comes.

`EndRecorder`: sees that the store knows how a run ended, also where the pipeline could not say so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ..agents.reasoner import Reasoner
from ..core.budget import Budget
from ..core.concurrency import shielded
from ..core.errors import (
    Cancelled,
    DuplicateRequest,
    KeyLimitExceeded,
    NotVerified,
    ReasonError,
    RunConflict,
    ServerBusy,
    ShuttingDown,
    StoreError,
    UnknownName,
    UserError,
)
from ..core.events import Event, RunFailed, RunFinished, Sink
from ..core.run import RunConfig
from ..core.store.protocol import RunStatus, RunStore
from ..core.types import Answer, RunUsage
from .admission import Admission
from .auth import Caller
from .error_objects import INTERNAL
from .logs import log_fault
from .runs import LiveRun, StoredRun

NOT_ADMITTED = (ServerBusy, ShuttingDown, KeyLimitExceeded)
"""What a run ends with that got no turn."""
MAX_PENDING_ENDS = 10_000
MAX_ATTEMPTS = 1000


@dataclass
class _PendingEnd:
    """An ending that the store could not be told yet."""

    run_id: str
    status: RunStatus
    event: RunFinished | RunFailed
    tries: int = 0


class EndRecorder:
    """Notes how runs ended. What the store cannot take now (a full disk, a database that is away) is told it later.

    Args:
        store: Where runs are kept.
    """

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._owed: dict[str, _PendingEnd] = {}

    async def note(self, live: LiveRun, error: ReasonError, *, stopped: bool) -> RunStatus:
        """Tell the store how a run ended that has no answer, as far as the pipeline has not done so.

        Args:
            live: The run.
            error: What ended it.
            stopped: Whether it was cancelled.

        Returns:
            Its status.
        """
        try:
            return await self._note(live, error, stopped)
        except Exception as e:  # noqa: BLE001 (whatever it is, it must not end the other runs of the desk)
            log_fault("run.end_not_stored", e, run=live.id)
            status: RunStatus = "interrupted" if stopped else _status_of(live.closing, error)
            event = live.closing or _final_event(live, live.board.last + 1, error, stopped)
            if live.ours and len(self._owed) < MAX_PENDING_ENDS:
                self._owed[live.id] = _PendingEnd(live.id, status, event)
            return status

    @contextmanager
    def set_aside(self, run_id: str) -> Iterator[None]:
        """Owe the store no ending of a run any more that is taken up inside; where that fails, it is owed as before."""
        owed = self._owed.pop(run_id, None)
        try:
            yield
        except BaseException:
            if owed is not None:
                self._owed[run_id] = owed
            raise

    async def note_again(self) -> None:
        """Tell the store what it could not be told before."""
        for owed in list(self._owed.values()):
            owed.tries += 1
            try:
                record = await self._store.get_run(owed.run_id, exact=True)
                if record.status in ("queued", "running") and owed.run_id in self._owed:
                    await self._write(owed.run_id, owed.status, owed.event)
            except UnknownName:
                pass  # removed meanwhile
            except Exception as e:  # noqa: BLE001 (a fault of ours stays one, however often it is tried)
                if isinstance(e, StoreError) and owed.tries < MAX_ATTEMPTS:
                    continue
                log_fault("run.end_given_up", e, run=owed.run_id)
            if self._owed.get(owed.run_id) is owed:
                del self._owed[owed.run_id]

    async def _note(self, live: LiveRun, error: ReasonError, stopped: bool) -> RunStatus:
        if live.closing is not None:
            status: RunStatus = "interrupted" if stopped else _status_of(live.closing, error)
            if isinstance(error, StoreError):  # the pipeline has told it, and may not have been heard
                await self._write(live.id, status, live.closing)
            return status
        if not live.in_store or isinstance(error, DuplicateRequest | RunConflict):
            return "failed"
        if not live.ours:
            return "queued" if live.background else "interrupted"
        if live.handed_over or (isinstance(error, NOT_ADMITTED) and live.background):
            with suppress(StoreError):  # the pipeline has given it up already
                await self._store.release_run(live.id)
            return "queued"
        if isinstance(error, NOT_ADMITTED) and live.status == "queued":
            await self._store.delete_run(live.id)  # a request that is sent again is a new one
            return "failed"
        event = _final_event(live, await self._next_number(live), error, stopped)
        status = "interrupted" if stopped else "failed"
        await self._write(live.id, status, event)
        live.emit(event)
        return status

    async def _write(self, run_id: str, status: RunStatus, event: RunFinished | RunFailed) -> None:
        if isinstance(event, RunFinished):
            await self._store.end_run(run_id, status, event.answer.model_dump(mode="json"), events=[event])
        else:
            await self._store.end_run(
                run_id, status, None, {"code": event.code, "message": event.message}, events=[event]
            )

    async def _next_number(self, live: LiveRun) -> int:
        """Number of the last event of a run that ends before it has set out."""
        stored = await self._store.list_events(live.id) if live.resumed else []
        return max(live.board.last, stored[-1].number if stored else 0) + 1


def _status_of(closing: RunFinished | RunFailed | None, error: ReasonError) -> RunStatus:
    if isinstance(closing, RunFinished) and isinstance(error, NotVerified | StoreError):
        return "interrupted" if closing.answer.stopped == "cancelled" else "finished"
    return "failed"


def _final_event(live: LiveRun, number: int, error: ReasonError, stopped: bool) -> RunFinished | RunFailed:
    if not stopped:
        return RunFailed(number=number, run_id=live.id, code=error.code, message=error.message)
    nothing = Answer(
        answer=None,
        text="",
        strategy=live.config.strategy,
        model=live.config.models.get("main", ""),
        confidence=None,
        stopped="cancelled",
        candidates=(),
        verification=None,
        usage=RunUsage(),
        run_id=live.id,
        seed=live.config.seed,
    )
    return RunFinished(number=number, run_id=live.id, answer=nothing)


Observer = Callable[[LiveRun], Sink | None]
"""Sees each run before it begins, and may hear its events."""


ResumeReason = Literal["adopted", "repeated", "asked"]
"""Why a stored run goes on: the process takes it up by itself, its request was sent again, or a caller wants it to.

What another process has taken meanwhile is left to that one, but for a caller who wants it, who is told."""
_ACTIVE: tuple[RunStatus, ...] = ("queued", "running")
_RESUMABLE: tuple[RunStatus, ...] = (*_ACTIVE, "interrupted", "failed")


class SpendingHold(Protocol):
    """What a run may spend, and a sink that hears what it does."""

    budget: Budget

    def __call__(self, event: Event) -> None:
        """Hear an event."""


class SpendingLimits(Protocol):
    """Says what a caller's runs may spend."""

    def hold(self, caller: Caller, budget: Budget) -> AbstractAsyncContextManager[SpendingHold]:
        """Hold it while a run is under way; raises `KeyLimitExceeded`."""


class RunLifecycle:
    """Takes runs from their acceptance to their end.

    Args:
        reasoner: Who answers.
        store: Where runs are kept; the reasoner's.
        admission: Turns.
        allowance: Bounds what a caller's runs may spend; None bounds nothing.
        observers: See each run before it begins.
        stopping: Whether the process is about to stop.
    """

    def __init__(
        self,
        reasoner: Reasoner,
        store: RunStore,
        admission: Admission,
        allowance: SpendingLimits | None,
        observers: Iterable[Observer],
        stopping: Callable[[], bool],
    ) -> None:
        self._reasoner, self._store, self._admission = reasoner, store, admission
        self._allowance, self._observers, self._stopping = allowance, tuple(observers), stopping
        self.endings = EndRecorder(store)

    async def begin(self, live: LiveRun, idempotency: str | None, digest: str, *, free: bool) -> None:
        """Make a new run and take it to its end, which `live` is told of.

        Args:
            live: The run.
            idempotency: The caller's name for the request.
            digest: Hash of the request.
            free: Whether a turn is likely to be had at once.
        """
        await self._to_an_end(live, self._begin(live, idempotency, digest, free))

    async def go_on(self, live: LiveRun, why: ResumeReason) -> None:
        """Take a stored run from where it stopped to its end, which `live` is told of.

        Args:
            live: The run.
            why: Why it goes on.
        """
        await self._to_an_end(live, self._go_on(live, why))

    async def _begin(self, live: LiveRun, idempotency: str | None, digest: str, free: bool) -> Answer | StoredRun:
        early = live.background or idempotency is not None

        async def create(status: Literal["queued", "running"]) -> None:
            await self._store.create_run(
                live.id,
                live.config.model_dump(mode="json"),
                tenant=live.config.tenant,
                background=live.background,
                status=status,
                idempotency=idempotency,
                digest=digest,
            )
            live.in_store = True
            live.ours = status == "running" or not live.background

        async with self._hold(live, live.caller, idempotency, digest) as holding:
            if holding is not None:
                live.config = live.config.model_copy(update={"budget": holding.budget})
            if early:
                await shielded(create("running" if free else "queued"))
            if live.background:
                live.accept()
            async with self._admission.turn(live.config.tenant, patient=live.background):
                if not early:
                    await shielded(create("running"))
                elif not free and (elsewhere := await self._take(live, "adopted")) is not None:
                    return elsewhere
                sinks = self._heard(live, holding)
                # one that waited in the store may have been taken up by another process meanwhile
                untouched = free or not early
                return await self._reasoner.arun(
                    live.config, run_id=live.id, sinks=sinks, created=True, fresh=untouched, begun=live.set_out
                )

    async def _go_on(self, live: LiveRun, why: ResumeReason) -> Answer | StoredRun:
        live.in_store = True
        # what a process takes up by itself was let in before: it counts for its tenant's day, and for no key
        caller = Caller(tenant=live.config.tenant) if why == "adopted" else live.caller
        turn = self._admission.turn(live.config.tenant, patient=why == "adopted")
        async with self._hold(live, caller) as holding, turn:
            elsewhere = await self._take(live, why)
            if elsewhere is not None:
                return elsewhere
            sinks = self._heard(live, holding)
            return await self._reasoner.aresume(live.id, sinks=sinks, taken=True, begun=live.set_out)

    @asynccontextmanager
    async def _hold(
        self, live: LiveRun, caller: Caller, idempotency: str | None = None, digest: str = ""
    ) -> AsyncIterator[SpendingHold | None]:
        """What the run may spend. One that goes on has the budget that it began with: else it would not go on so.

        Raises:
            LimitReached: Its caller may spend nothing now.
            DuplicateRequest: Nor needs to: the request was made before.
        """
        async with AsyncExitStack() as stack:
            holding: SpendingHold | None = None
            if self._allowance is not None:
                try:
                    holding = await stack.enter_async_context(self._allowance.hold(caller, live.config.budget))
                except KeyLimitExceeded:
                    await self.refuse_repeated(live.config, idempotency, digest)
                    raise
            yield holding

    async def refuse_repeated(self, config: RunConfig, idempotency: str | None, digest: str) -> None:
        """Refuse a request that was made before, ahead of any other reason for which it would be refused.

        Args:
            config: What it asks for.
            idempotency: The caller's name for it; without one it is never a repeated one.
            digest: Its hash.

        Raises:
            DuplicateRequest: It was.
        """
        known = None if idempotency is None else await self._store.find_request(config.tenant, idempotency)
        if known is not None:
            raise DuplicateRequest(known[0], known[1] == digest)

    def _heard(self, live: LiveRun, holding: SpendingHold | None) -> list[Sink]:
        """The sinks of a run that has its turn."""
        live.status = "running"
        live.accept()
        sinks = [live.emit, holding, *(observer(live) for observer in self._observers)]
        return [sink for sink in sinks if sink is not None]

    async def _take(self, live: LiveRun, why: ResumeReason) -> StoredRun | None:
        """Take a stored run for this process; where it goes on, if another one has it."""
        # between the look at it and this, another process may have taken and ended it
        only = _ACTIVE if why == "adopted" else _RESUMABLE

        async def take() -> None:
            await self._store.claim_run(live.id, allowed=only)
            live.ours = True

        try:
            with self.endings.set_aside(live.id):
                await shielded(take())
        except UserError as e:
            if why == "asked":
                # the error's own text tells which process on which host
                raise RunConflict(f"run {live.id} goes on elsewhere or has changed", hint="look at it again") from e
            return StoredRun(self._store, await self._store.get_run(live.id, exact=True), self._stopping)
        return None

    async def _to_an_end(self, live: LiveRun, going: Coroutine[Any, Any, Answer | StoredRun]) -> None:
        """Wait for a run's end, and see that both the store and `live` know how it ended, whatever happens."""
        try:
            done = await going
        except asyncio.CancelledError:
            await shielded(self._end_stopped(live))
            raise
        except Exception as e:  # noqa: BLE001 (whatever it is, neither store nor callers may believe that it goes on)
            error = _public_error(e, live.id)
            live.end(await shielded(self.endings.note(live, error, stopped=False)), error=error)
        else:
            if isinstance(done, StoredRun):
                live.end(done.status, elsewhere=done)
            else:
                live.end("finished", done)

    async def _end_stopped(self, live: LiveRun) -> None:
        """End a run that was cancelled, as the store has it where it had ended by itself before it noticed."""
        closing = live.closing
        if closing is not None and not (isinstance(closing, RunFinished) and closing.answer.stopped == "cancelled"):
            with suppress(ReasonError):
                record = await self._store.get_run(live.id, exact=True)
                live.end(record.status, elsewhere=StoredRun(self._store, record, self._stopping))
                return
        error = _stop_error(live)
        live.end(await self.endings.note(live, error, stopped=True), error=error)


def _stop_error(live: LiveRun) -> ReasonError:
    """What a run that was cancelled ends with, in the eyes of who waits for it."""
    partial = live.closing.answer if isinstance(live.closing, RunFinished) else None
    if live.stopping == "cancelled":
        return Cancelled(partial=partial)
    return ShuttingDown("the server stopped before the run's end", partial=partial, hint="resume the run")


def _public_error(error: Exception, run_id: str) -> ReasonError:
    """An error as callers may see it; one that is none of ours is a fault, which the log has."""
    if isinstance(error, ReasonError):
        if isinstance(error, StoreError):
            log_fault("run.store_failed", error, run=run_id)
        return error
    log_fault("run.fault", error, run=run_id)
    return ReasonError(INTERNAL)
