"""`RunWork`: how one run goes on a server: it is accepted, has its turn, and ends, whatever comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import Any, Literal, Protocol

from ..agents.reasoner import Reasoner
from ..core.answer import Answer
from ..core.budget import Budget
from ..core.errors import (
    Cancelled,
    DuplicateRequest,
    LimitReached,
    ReasonError,
    RunConflict,
    ShuttingDown,
    StoreError,
    UserError,
)
from ..core.events import EventFields, RunFinished, Sink
from ..core.run import RunConfig
from ..core.store import RunStatus, RunStore
from ..core.unbroken import to_its_end
from .admission import Admission
from .callers import Caller
from .error_objects import INTERNAL
from .gate.log_lines import log_fault
from .live_run import LiveRun
from .run_endings import Endings
from .stored_run import StoredRun

Observer = Callable[[LiveRun], Sink | None]
"""Sees each run before it begins, and may hear its events."""


Why = Literal["adopted", "repeated", "asked"]
"""Why a stored run goes on: the process takes it up by itself, its request was sent again, or a caller wants it to.

What another process has taken meanwhile is left to that one, but for a caller who wants it, who is told."""
_UNDER_WAY: tuple[RunStatus, ...] = ("queued", "running")
_UNFINISHED: tuple[RunStatus, ...] = (*_UNDER_WAY, "interrupted", "failed")


class Held(Protocol):
    """What a run may spend, and a sink that hears what it does."""

    budget: Budget

    def __call__(self, event: EventFields) -> None:
        """Hear an event."""


class Allowance(Protocol):
    """Says what a caller's runs may spend."""

    def hold(self, caller: Caller, budget: Budget) -> AbstractAsyncContextManager[Held]:
        """Hold it while a run is under way; raises `LimitReached`."""


class RunWork:
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
        allowance: Allowance | None,
        observers: Iterable[Observer],
        stopping: Callable[[], bool],
    ) -> None:
        self._reasoner, self._store, self._admission = reasoner, store, admission
        self._allowance, self._observers, self._stopping = allowance, tuple(observers), stopping
        self.endings = Endings(store)

    async def begin(self, live: LiveRun, idempotency: str | None, digest: str, *, free: bool) -> None:
        """Make a new run and take it to its end, which `live` is told of.

        Args:
            live: The run.
            idempotency: The caller's name for the request.
            digest: Hash of the request.
            free: Whether a turn is likely to be had at once.
        """
        await self._to_an_end(live, self._begin(live, idempotency, digest, free))

    async def go_on(self, live: LiveRun, why: Why) -> None:
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
                await to_its_end(create("running" if free else "queued"))
            if live.background:
                live.accept()
            async with self._admission.turn(live.config.tenant, patient=live.background):
                if not early:
                    await to_its_end(create("running"))
                elif not free and (elsewhere := await self._take(live, "adopted")) is not None:
                    return elsewhere
                sinks = self._heard(live, holding)
                # one that waited in the store may have been taken up by another process meanwhile
                untouched = free or not early
                return await self._reasoner.arun(
                    live.config, run_id=live.id, sinks=sinks, created=True, fresh=untouched, begun=live.set_out
                )

    async def _go_on(self, live: LiveRun, why: Why) -> Answer | StoredRun:
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
    ) -> AsyncIterator[Held | None]:
        """What the run may spend. One that goes on has the budget that it began with: else it would not go on so.

        Raises:
            LimitReached: Its caller may spend nothing now.
            DuplicateRequest: Nor needs to: the request was made before.
        """
        async with AsyncExitStack() as stack:
            holding: Held | None = None
            if self._allowance is not None:
                try:
                    holding = await stack.enter_async_context(self._allowance.hold(caller, live.config.budget))
                except LimitReached:
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

    def _heard(self, live: LiveRun, holding: Held | None) -> list[Sink]:
        """The sinks of a run that has its turn."""
        live.status = "running"
        live.accept()
        sinks = [live.emit, holding, *(observer(live) for observer in self._observers)]
        return [sink for sink in sinks if sink is not None]

    async def _take(self, live: LiveRun, why: Why) -> StoredRun | None:
        """Take a stored run for this process; where it goes on, if another one has it."""
        # between the look at it and this, another process may have taken and ended it
        only = _UNDER_WAY if why == "adopted" else _UNFINISHED

        async def take() -> None:
            await self._store.take_run(live.id, only=only)
            live.ours = True

        try:
            with self.endings.set_aside(live.id):
                await to_its_end(take())
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
            await to_its_end(self._end_stopped(live))
            raise
        except Exception as e:  # noqa: BLE001 (whatever it is, neither store nor callers may believe that it goes on)
            error = _known(e, live.id)
            live.end(await to_its_end(self.endings.note(live, error, stopped=False)), error=error)
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
        error = _stopped(live)
        live.end(await self.endings.note(live, error, stopped=True), error=error)


def _stopped(live: LiveRun) -> ReasonError:
    """What a run that was cancelled ends with, in the eyes of who waits for it."""
    partial = live.closing.answer if isinstance(live.closing, RunFinished) else None
    if live.stopping == "cancelled":
        return Cancelled(partial=partial)
    return ShuttingDown("the server stopped before the run's end", partial=partial, hint="resume the run")


def _known(error: Exception, run_id: str) -> ReasonError:
    """An error as callers may see it; one that is none of ours is a fault, which the log has."""
    if isinstance(error, ReasonError):
        if isinstance(error, StoreError):
            log_fault("run.store_failed", error, run=run_id)
        return error
    log_fault("run.fault", error, run=run_id)
    return ReasonError(INTERNAL)
