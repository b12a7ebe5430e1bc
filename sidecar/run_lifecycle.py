"""`RunLifecycle`: takes a run from admission to its end; `EndRecorder` makes sure that the store learns how it ended.

A run's end is recorded even where the pipeline could not do so (the store was unreachable, the process was stopping);
what could not be written is kept and retried.
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
from .admission import AdmissionQueue
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
    """An ending that the store could not be reported yet."""

    run_id: str
    status: RunStatus
    event: RunFinished | RunFailed
    tries: int = 0


class EndRecorder:
    """Notes how runs ended. What the store cannot take now (a full disk, a database that is away) is reported it later.

    Args:
        store: Where runs are kept.
    """

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._pending: dict[str, _PendingEnd] = {}

    async def record(self, live: LiveRun, error: ReasonError, *, stopped: bool) -> RunStatus:
        """Record in the store how a run ended that has no answer, as far as the pipeline has not done so.

        Args:
            live: The run.
            error: What ended it.
            stopped: Whether it was cancelled.

        Returns:
            Its status.
        """
        try:
            return await self._record(live, error, stopped)
        except Exception as e:  # noqa: BLE001 (whatever it is, it must not end the other runs of the desk)
            log_fault("run.end_not_stored", e, run=live.id)
            status: RunStatus = "interrupted" if stopped else _status_of(live.closing, error)
            event = live.closing or _final_event(live, live.buffer.last + 1, error, stopped)
            if live.is_owned and len(self._pending) < MAX_PENDING_ENDS:
                self._pending[live.id] = _PendingEnd(live.id, status, event)
            return status

    @contextmanager
    def suspended(self, run_id: str) -> Iterator[None]:
        """Owe the store no ending of a run any more that is taken up inside; where that fails, it is owed as before."""
        pending = self._pending.pop(run_id, None)
        try:
            yield
        except BaseException:
            if pending is not None:
                self._pending[run_id] = pending
            raise

    async def retry_pending(self) -> None:
        """Write the ends that could not be written before."""
        for pending in list(self._pending.values()):
            pending.tries += 1
            try:
                record = await self._store.get_run(pending.run_id, exact=True)
                if record.status in ("queued", "running") and pending.run_id in self._pending:
                    await self._write(pending.run_id, pending.status, pending.event)
            except UnknownName:
                pass  # removed meanwhile
            except Exception as e:  # noqa: BLE001 (a fault of ours stays one, however often it is tried)
                if isinstance(e, StoreError) and pending.tries < MAX_ATTEMPTS:
                    continue
                log_fault("run.end_given_up", e, run=pending.run_id)
            if self._pending.get(pending.run_id) is pending:
                del self._pending[pending.run_id]

    async def _record(self, live: LiveRun, error: ReasonError, stopped: bool) -> RunStatus:
        if live.closing is not None:
            status: RunStatus = "interrupted" if stopped else _status_of(live.closing, error)
            if isinstance(error, StoreError):  # the pipeline has reported it, and may not have been heard
                await self._write(live.id, status, live.closing)
            return status
        if not live.is_stored or isinstance(error, DuplicateRequest | RunConflict):
            return "failed"
        if not live.is_owned:
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
        return max(live.buffer.last, stored[-1].number if stored else 0) + 1


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
"""Sees each run before it begins, and may receive its events."""


ResumeReason = Literal["adopted", "repeated", "requested"]
"""Why a stored run continues: the process takes it up by itself, its request was sent again, or a caller wants it to.

What another process has taken meanwhile is left to that one, but for a caller who wants it, who is reported."""
_ACTIVE: tuple[RunStatus, ...] = ("queued", "running")
_RESUMABLE: tuple[RunStatus, ...] = (*_ACTIVE, "interrupted", "failed")


class SpendingHold(Protocol):
    """What a run may spend, and a sink that receives what it does."""

    budget: Budget

    def __call__(self, event: Event) -> None:
        """Take an event."""


class SpendingLimits(Protocol):
    """States what a caller's runs may spend."""

    def hold(self, caller: Caller, budget: Budget) -> AbstractAsyncContextManager[SpendingHold]:
        """Hold it while a run is in flight; raises `KeyLimitExceeded`."""


class RunLifecycle:
    """Takes runs from their acceptance to their end.

    Args:
        reasoner: The reasoner that answers.
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
        admission: AdmissionQueue,
        allowance: SpendingLimits | None,
        observers: Iterable[Observer],
        stopping: Callable[[], bool],
    ) -> None:
        self._reasoner, self._store, self._admission = reasoner, store, admission
        self._allowance, self._observers, self._stopping = allowance, tuple(observers), stopping
        self.endings = EndRecorder(store)

    async def begin(self, live: LiveRun, idempotency: str | None, digest: str, *, free: bool) -> None:
        """Make a new run and take it to its end, which `live` is notified of.

        Args:
            live: The run.
            idempotency: The caller's name for the request.
            digest: Hash of the request.
            free: Whether a turn is likely to be had at once.
        """
        await self._finish(live, self._begin(live, idempotency, digest, free))

    async def resume(self, live: LiveRun, reason: ResumeReason) -> None:
        """Take a stored run from where it stopped to its end, which `live` is notified of.

        Args:
            live: The run.
            reason: Why it continues.
        """
        await self._finish(live, self._resume(live, reason))

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
            live.is_stored = True
            live.is_owned = status == "running" or not live.background

        async with self._hold(live, live.caller, idempotency, digest) as hold:
            if hold is not None:
                live.config = live.config.model_copy(update={"budget": hold.budget})
            if early:
                await shielded(create("running" if free else "queued"))
            if live.background:
                live.accept()
            async with self._admission.slot(live.config.tenant, unlimited=live.background):
                if not early:
                    await shielded(create("running"))
                elif not free and (other_owner := await self._claim(live, "adopted")) is not None:
                    return other_owner
                sinks = self._sinks(live, hold)
                # one that waited in the store may have been taken up by another process meanwhile
                untouched = free or not early
                return await self._reasoner.arun(
                    live.config,
                    run_id=live.id,
                    sinks=sinks,
                    is_created=True,
                    is_new=untouched,
                    on_start=live.attach_run,
                )

    async def _resume(self, live: LiveRun, reason: ResumeReason) -> Answer | StoredRun:
        live.is_stored = True
        # what a process takes up by itself was let in before: it counts for its tenant's day, and for no key
        caller = Caller(tenant=live.config.tenant) if reason == "adopted" else live.caller
        slot = self._admission.slot(live.config.tenant, unlimited=reason == "adopted")
        async with self._hold(live, caller) as hold, slot:
            other_owner = await self._claim(live, reason)
            if other_owner is not None:
                return other_owner
            sinks = self._sinks(live, hold)
            return await self._reasoner.aresume(live.id, sinks=sinks, is_claimed=True, on_start=live.attach_run)

    @asynccontextmanager
    async def _hold(
        self, live: LiveRun, caller: Caller, idempotency: str | None = None, digest: str = ""
    ) -> AsyncIterator[SpendingHold | None]:
        """What the run may spend. One that continues has the budget that it began with: else it would not continue so.

        Raises:
            KeyLimitExceeded: Its caller may spend nothing now.
            DuplicateRequest: Nor needs to: the request was made before.
        """
        async with AsyncExitStack() as stack:
            hold: SpendingHold | None = None
            if self._allowance is not None:
                try:
                    hold = await stack.enter_async_context(self._allowance.hold(caller, live.config.budget))
                except KeyLimitExceeded:
                    await self.refuse_repeated(live.config, idempotency, digest)
                    raise
            yield hold

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

    def _sinks(self, live: LiveRun, hold: SpendingHold | None) -> list[Sink]:
        """The sinks of a run that has its turn."""
        live.status = "running"
        live.accept()
        sinks = [live.emit, hold, *(observer(live) for observer in self._observers)]
        return [sink for sink in sinks if sink is not None]

    async def _claim(self, live: LiveRun, reason: ResumeReason) -> StoredRun | None:
        """Take a stored run for this process; where it continues, if another one has it."""
        # between the look at it and this, another process may have taken and ended it
        only = _ACTIVE if reason == "adopted" else _RESUMABLE

        async def take() -> None:
            await self._store.claim_run(live.id, allowed=only)
            live.is_owned = True

        try:
            with self.endings.suspended(live.id):
                await shielded(take())
        except UserError as e:
            if reason == "requested":
                # the error's own text shows which process on which host
                raise RunConflict(f"run {live.id} goes on elsewhere or has changed", hint="look at it again") from e
            return StoredRun(self._store, await self._store.get_run(live.id, exact=True), self._stopping)
        return None

    async def _finish(self, live: LiveRun, going: Coroutine[Any, Any, Answer | StoredRun]) -> None:
        """Wait for a run's end, and see that both the store and `live` know how it ended, whatever happens."""
        try:
            done = await going
        except asyncio.CancelledError:
            await shielded(self._end_stopped(live))
            raise
        except Exception as e:  # noqa: BLE001 (whatever it is, neither store nor callers may believe that it goes on)
            error = _public_error(e, live.id)
            live.end(await shielded(self.endings.record(live, error, stopped=False)), error=error)
        else:
            if isinstance(done, StoredRun):
                live.end(done.status, other_owner=done)
            else:
                live.end("finished", done)

    async def _end_stopped(self, live: LiveRun) -> None:
        """End a run that was cancelled, as the store has it where it had ended by itself before it noticed."""
        closing = live.closing
        if closing is not None and not (isinstance(closing, RunFinished) and closing.answer.stopped == "cancelled"):
            with suppress(ReasonError):
                record = await self._store.get_run(live.id, exact=True)
                live.end(record.status, other_owner=StoredRun(self._store, record, self._stopping))
                return
        error = _stop_error(live)
        live.end(await self.endings.record(live, error, stopped=True), error=error)


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
