"""`RunLifecycle` takes a run from admission to its end; `EndRecorder` records the end in the store.

The end is recorded even if the pipeline could not do so (the store was unreachable, the process was stopping). Failed
writes are kept in memory and retried.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from types import TracebackType
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
from ..core.store.protocol import NewRun, RunEnd, RunStatus, RunWrites
from ..core.store.sql import RunStore
from ..core.types import Answer, RunUsage
from .admission import AdmissionQueue
from .auth import Caller
from .error_objects import INTERNAL, public_error
from .logs import log_fault
from .runs import LiveRun, StoredRun

NOT_ADMITTED = (ServerBusy, ShuttingDown, KeyLimitExceeded)
"""Errors of a run that was not admitted."""
MAX_PENDING_ENDS = 10_000
MAX_ATTEMPTS = 1000


@dataclass
class _PendingEnd:
    """The end of a run that has not been written to the store yet."""

    run_id: str
    writes: RunWrites
    tries: int = 0


class EndRecorder:
    """Writes the ends of runs to the store, and retries writes that failed (full disk, unreachable database)."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._pending: dict[str, _PendingEnd] = {}

    async def record(self, live: LiveRun, error: ReasonError, *, stopped: bool) -> RunStatus:
        """Record the end of a run without an answer, unless the pipeline has recorded it.

        Args:
            live: The run.
            error: The error that ended it.
            stopped: Whether it was cancelled.

        Returns:
            The run's final status, or "queued" if another process is to continue it.
        """
        try:
            return await self._record(live, error, stopped)
        except Exception as e:  # noqa: BLE001 (a failed write must not end the other runs)
            log_fault("run.end_not_stored", e, run=live.id)
            status: RunStatus = "interrupted" if stopped else _status_of(live.closing, error)
            event = live.closing or _final_event(live, live.buffer.last + 1, error, stopped)
            if live.is_owned and len(self._pending) < MAX_PENDING_ENDS:
                self._pending[live.id] = _PendingEnd(live.id, _ending(status, event, live.unwritten()))
            return status

    @contextmanager
    def suspended(self, run_id: str) -> Iterator[None]:
        """Drop the pending end of a run that is claimed inside the context; restore it if the context raises."""
        pending = self._pending.pop(run_id, None)
        try:
            yield
        except BaseException:
            if pending is not None:
                self._pending[run_id] = pending
            raise

    async def retry_pending(self) -> None:
        """Retry the writes that failed."""
        for pending in list(self._pending.values()):
            pending.tries += 1
            try:
                if await self._is_open(pending) and pending.run_id in self._pending:
                    await self._store.save(pending.run_id, pending.writes)
            except UnknownName:
                pass  # deleted in the meantime
            except Exception as e:  # noqa: BLE001 (only a StoreError is worth a retry)
                if isinstance(e, StoreError) and pending.tries < MAX_ATTEMPTS:
                    continue
                log_fault("run.end_given_up", e, run=pending.run_id)
            if self._pending.get(pending.run_id) is pending:
                del self._pending[pending.run_id]

    async def _record(self, live: LiveRun, error: ReasonError, stopped: bool) -> RunStatus:
        if live.closing is not None:
            status: RunStatus = "interrupted" if stopped else _status_of(live.closing, error)
            if isinstance(error, StoreError):  # the pipeline emitted the event, but the write may have failed
                await self._write(live, status, live.closing)
            return status
        if not live.is_stored or isinstance(error, DuplicateRequest | RunConflict):
            return "failed"
        if not live.is_owned:
            return "queued" if live.background else "interrupted"
        if live.handed_over or (isinstance(error, NOT_ADMITTED) and live.background):
            with suppress(StoreError):  # the pipeline may have released it
                await self._store.release_run(live.id)
            return "queued"
        if isinstance(error, NOT_ADMITTED) and live.status == "queued":
            await self._store.delete_run(live.id)  # a retry of the request starts a new run
            return "failed"
        event = _final_event(live, await self._next_number(live), error, stopped)
        status = "interrupted" if stopped else "failed"
        await self._write(live, status, event)
        live.emit(event)
        return status

    async def _write(self, live: LiveRun, status: RunStatus, event: RunFinished | RunFailed) -> None:
        await live.saved()
        await self._store.save(live.id, _ending(status, event, live.unwritten()))

    async def _is_open(self, pending: _PendingEnd) -> bool:
        """Whether the end has not been written: by the store, or by another process that has claimed the run."""
        if pending.writes.creation is not None:
            return True
        record = await self._store.get_run(pending.run_id, exact=True)
        return record.status in ("queued", "running")

    async def _next_number(self, live: LiveRun) -> int:
        """Number for the final event of a run that ended before the pipeline started."""
        stored = await self._store.list_events(live.id) if live.resumed else []
        return max(live.buffer.last, stored[-1].number if stored else 0) + 1


def _ending(status: RunStatus, event: RunFinished | RunFailed, unwritten: RunWrites) -> RunWrites:
    """The writes that end a run: what was not written of it, the event and the end."""
    unwritten.events.append(event)
    if isinstance(event, RunFinished):
        unwritten.end = RunEnd(status, event.answer)
    else:
        unwritten.end = RunEnd(status, error={"code": event.code, "message": event.message})
    return unwritten


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
"""Called with each run before it starts; returns a sink for the run's events, or None."""


ResumeReason = Literal["adopted", "repeated", "requested"]
"""Why a stored run continues: the process adopted it, its request was repeated, or a caller requested it.

If another process claims the run first, "requested" raises `RunConflict`; the other reasons follow that process."""
_ACTIVE: tuple[RunStatus, ...] = ("queued", "running")
_RESUMABLE: tuple[RunStatus, ...] = (*_ACTIVE, "interrupted", "failed")


class SpendingHold(Protocol):
    """The budget held for a run, and a sink that accounts for the run's spending."""

    budget: Budget

    def __call__(self, event: Event) -> None:
        """Process an event of the run."""


class SpendingLimits(Protocol):
    """Spending limits of callers."""

    def hold(self, caller: Caller, budget: Budget) -> AbstractAsyncContextManager[SpendingHold]:
        """Reserve a run's budget while the run is in flight.

        Raises:
            KeyLimitExceeded: The caller has reached a limit.
        """


class RunLifecycle:
    """Takes runs from admission to their end.

    Args:
        reasoner: The reasoner that executes the runs.
        store: The reasoner's run store.
        admission: The admission queue.
        allowance: Spending limits of callers; None for no limits.
        observers: Called with each run before it starts.
        stopping: Returns whether the process is stopping.
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
        self._observers, self._stopping = tuple(observers), stopping
        self.allowance = allowance
        self.endings = EndRecorder(store)

    async def begin(self, live: LiveRun, idempotency: str | None, digest: str, *, free: bool) -> None:
        """Create a run, execute it, and record its end in `live`.

        Args:
            live: The run.
            idempotency: The request's idempotency key.
            digest: Hash of the request.
            free: Whether an admission slot is likely to be free.
        """
        await self._finish(live, self._begin(live, idempotency, digest, free))

    async def resume(self, live: LiveRun, reason: ResumeReason) -> None:
        """Continue a stored run from where it stopped, and record its end in `live`."""
        await self._finish(live, self._resume(live, reason))

    async def _begin(self, live: LiveRun, idempotency: str | None, digest: str, free: bool) -> Answer | StoredRun:
        early = live.background or idempotency is not None

        async def create(status: Literal["queued", "running"]) -> None:
            await self._store.create_run(
                live.id,
                live.config,
                tenant=live.config.tenant,
                background=live.background,
                status=status,
                idempotency=idempotency,
                digest=digest,
            )
            live.is_stored = True
            live.is_owned = status == "running" or not live.background

        async with _Holding(self, live.config, live.caller, idempotency, digest) as hold:
            if hold is not None:
                live.config = live.config.model_copy(update={"budget": hold.budget})
            if early:
                await shielded(create("running" if free else "queued"))
            if live.background:
                live.accept()
            async with self._admission.slot(live.config.tenant, unlimited=live.background):
                if not early:
                    live.creation = NewRun(live.config, live.config.tenant)
                    live.is_stored = live.is_owned = True
                elif not free and (other_owner := await self._claim(live, "adopted")) is not None:
                    return other_owner
                sinks = self._sinks(live, hold)
                # another process may have claimed a run that waited in the store
                untouched = free or not early
                return await self._reasoner.arun(
                    live.config,
                    run_id=live.id,
                    sinks=sinks,
                    is_created=True,
                    creation=live.creation,
                    is_new=untouched,
                    on_start=live.attach_run,
                )

    async def _resume(self, live: LiveRun, reason: ResumeReason) -> Answer | StoredRun:
        live.is_stored = True
        # an adopted run was admitted before: it counts against its tenant's daily limit, but against no key
        caller = Caller(tenant=live.config.tenant) if reason == "adopted" else live.caller
        slot = self._admission.slot(live.config.tenant, unlimited=reason == "adopted")
        async with _Holding(self, live.config, caller) as hold, slot:
            other_owner = await self._claim(live, reason)
            if other_owner is not None:
                return other_owner
            sinks = self._sinks(live, hold)
            return await self._reasoner.aresume(live.id, sinks=sinks, is_claimed=True, on_start=live.attach_run)

    async def refuse_repeated(self, config: RunConfig, idempotency: str | None, digest: str) -> None:
        """Raise if the request's idempotency key is in use; checked before a request is rejected for another reason.

        Args:
            config: The run's configuration.
            idempotency: The request's idempotency key; None is never a repetition.
            digest: Hash of the request.

        Raises:
            DuplicateRequest: The key is in use.
        """
        known = None if idempotency is None else await self._store.find_request(config.tenant, idempotency)
        if known is not None:
            raise DuplicateRequest(known[0], known[1] == digest)

    def _sinks(self, live: LiveRun, hold: SpendingHold | None) -> list[Sink]:
        """Mark the run as running and return its sinks."""
        live.status = "running"
        live.accept()
        sinks = [live.emit, hold, *(observer(live) for observer in self._observers)]
        return [sink for sink in sinks if sink is not None]

    async def _claim(self, live: LiveRun, reason: ResumeReason) -> StoredRun | None:
        """Claim a stored run; if another process has it, return the run as stored."""
        # another process may have claimed and ended the run since its record was read
        only = _ACTIVE if reason == "adopted" else _RESUMABLE

        async def take() -> None:
            await self._store.claim_run(live.id, allowed=only, adopting=reason == "adopted")
            live.is_owned = True

        try:
            with self.endings.suspended(live.id):
                await shielded(take())
        except UserError as e:
            if reason == "requested":
                # the message of `e` reveals the process and host that own the run
                raise RunConflict(
                    f"run {live.id} is owned by another process or has changed", hint="fetch the run again"
                ) from e
            return StoredRun(self._store, await self._store.get_run(live.id, exact=True), self._stopping)
        return None

    async def _finish(self, live: LiveRun, going: Coroutine[Any, Any, Answer | StoredRun]) -> None:
        """Await the run and record its end in the store and in `live`, whatever happens."""
        try:
            done = await going
        except asyncio.CancelledError:
            await shielded(self._end_stopped(live))
            raise
        except Exception as e:  # noqa: BLE001 (after any fault, the store and callers must see that the run ended)
            error = _public_error(e, live.id)
            live.end(await shielded(self.endings.record(live, error, stopped=False)), error=error)
        else:
            if isinstance(done, StoredRun):
                live.end(done.status, other_owner=done)
            else:
                live.end("finished", done)

    async def _end_stopped(self, live: LiveRun) -> None:
        """End a cancelled run; if it ended by itself before the cancellation, its stored end applies."""
        closing = live.closing
        if closing is not None and not (isinstance(closing, RunFinished) and closing.answer.stopped == "cancelled"):
            with suppress(ReasonError):
                record = await self._store.get_run(live.id, exact=True)
                live.end(record.status, other_owner=StoredRun(self._store, record, self._stopping))
                return
        error = _stop_error(live)
        live.end(await self.endings.record(live, error, stopped=True), error=error)


class _Holding:
    """A run's budget as it is reserved inside an `async with`; None if there are no spending limits.

    Raises:
        KeyLimitExceeded: The caller has reached a limit.
        DuplicateRequest: The caller has reached a limit, and the request repeats an earlier one.
    """

    def __init__(
        self,
        lifecycle: RunLifecycle,
        config: RunConfig,
        caller: Caller,
        idempotency: str | None = None,
        digest: str = "",
    ) -> None:
        allowance = lifecycle.allowance
        self._hold = nullcontext() if allowance is None else allowance.hold(caller, config.budget)
        self._lifecycle, self._config, self._idempotency, self._digest = lifecycle, config, idempotency, digest

    async def __aenter__(self) -> SpendingHold | None:
        try:
            return await self._hold.__aenter__()
        except KeyLimitExceeded:
            await self._lifecycle.refuse_repeated(self._config, self._idempotency, self._digest)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._hold.__aexit__(kind, error, trace)


def _stop_error(live: LiveRun) -> ReasonError:
    """The error that `LiveRun.result` raises for a cancelled run."""
    partial = live.closing.answer if isinstance(live.closing, RunFinished) else None
    if live.stopping == "cancelled":
        return Cancelled(partial=partial)
    return ShuttingDown("the server stopped before the run finished", partial=partial, hint="resume the run")


def _public_error(error: Exception, run_id: str) -> ReasonError:
    """The error as callers see it; an unexpected exception is logged and reported as an internal error."""
    if isinstance(error, ReasonError):
        if isinstance(error, StoreError):
            log_fault("run.store_failed", error, run=run_id)
        return public_error(error, run_id=run_id)
    log_fault("run.fault", error, run=run_id)
    return ReasonError(f"{INTERNAL} (run {run_id})")
