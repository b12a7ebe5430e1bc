"""`RunManager`: every run that this process works on; all of them live in one task group and end with it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine, Iterable
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Any

from pydantic import JsonValue

from ..agents.reasoner import Reasoner
from ..core.errors import (
    Cancelled,
    DataError,
    DuplicateRequest,
    ReasonError,
    RunConflict,
    ServerBusy,
    ShuttingDown,
    UserError,
)
from ..core.run import RunConfig, new_run_id, read_config
from ..core.settings import ServeSettings
from ..core.store.protocol import RunRecord, RunStore
from .admission import AdmissionQueue
from .auth import Caller
from .error_objects import error_from
from .logs import log_fault
from .native.schemas import is_active
from .run_lifecycle import Observer, ResumeReason, RunLifecycle, SpendingLimits
from .runs import POLL_INTERVAL_S, AnyRun, AttachedRun, LiveRun, StoredRun

ADOPT_INTERVAL_S = 2.0
"""How often the run manager looks for runs that other processes left after, in seconds."""
CANCEL_GRACE_S = 10.0
"""How long runs that were stopped get to save what they have, in seconds."""


class RunManager:
    """Starts, finds, cancels and resumes runs; an asynchronous context manager.

    Runs wait for their turn (`AdmissionQueue`), continue through the reasoner, and are in the store from their
    acceptance on. A background run that this process cannot end continues in another: `adopt` takes up what processes
    left that were killed or reported to stop.

    Args:
        reasoner: The reasoner that answers.
        store: Where runs are kept; the reasoner's.
        serve: Bounds.
        admission: Turns.
        allowance: Bounds what a caller's runs may spend; None bounds nothing.
        observers: See each run before it begins.
    """

    def __init__(
        self,
        reasoner: Reasoner,
        store: RunStore,
        serve: ServeSettings,
        admission: AdmissionQueue,
        *,
        allowance: SpendingLimits | None = None,
        observers: Iterable[Observer] = (),
    ) -> None:
        self.store, self._serve, self._admission = store, serve, admission
        self._lifecycle = RunLifecycle(reasoner, store, admission, allowance, observers, lambda: self.draining)
        self._live: dict[str, LiveRun] = {}
        self._tasks = asyncio.TaskGroup()
        self._stack = AsyncExitStack()
        self._stop_now = asyncio.Event()
        self._probe: asyncio.Task[bool] | None = None
        self.draining = False

    async def __aenter__(self) -> RunManager:
        await self._stack.enter_async_context(self._tasks)
        self._maintainer = self._tasks.create_task(self._maintain())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.drain(self._serve.drain_timeout_s if error is None else 0.0)
        self._maintainer.cancel()
        if self._probe is not None:
            self._probe.cancel()
        await self._stack.__aexit__(kind, error, trace)

    @property
    def in_flight(self) -> int:
        """Runs that this process works on, those that wait for their turn included."""
        return len(self._live)

    # -- what callers ask for

    async def start(
        self,
        config: RunConfig,
        caller: Caller,
        *,
        background: bool = False,
        idempotency: str | None = None,
        digest: str = "",
        text: bool = False,
    ) -> AnyRun:
        """Start a run; returns once it has its turn, or, in the background, once it is in the store.

        Cancelling the wait cancels the run, unless it was sent with an idempotency key or continues in the background.

        Args:
            config: Its configuration.
            caller: Whose it is.
            background: Whether it continues in another process when this one ends.
            idempotency: The caller's name for the request. A request of that name that was made before is attached to
                instead, and continues if its process was killed.
            digest: Hash of the request, to distinguish a repeated request from another.
            text: Whether someone is about to read its events who wants text as it is generated, from the beginning.

        Raises:
            ServerBusy: No turn came.
            ShuttingDown: No new runs are taken.
            DuplicateRequest: The idempotency key was used for another request.
        """
        if self.draining:
            raise ShuttingDown
        config = config.model_copy(update={"tenant": caller.tenant})
        if background and self._waiting() >= self._serve.max_queued:
            try:
                await self._lifecycle.refuse_repeated(config, idempotency, digest)
            except DuplicateRequest as e:
                return await self._attach_repeated(e, caller)
            raise ServerBusy(
                f"{self._waiting()} runs wait already", retry_after_s=ADOPT_INTERVAL_S, hint="try again later"
            )
        # of such a name others cannot guess the next, and no two are alike however many begin in a second
        run_id = f"{new_run_id()}{secrets.token_hex(5)}"
        live = LiveRun(run_id, config, self.store, background=background, is_detached=idempotency is not None)
        live.caller = caller
        if text:
            live.buffer.expect_text()
        free = self._admission.in_flight < self._serve.max_runs
        self._spawn(live, self._lifecycle.begin(live, idempotency, digest, free=free))
        try:
            await live.accepted()
        except DuplicateRequest as e:
            return await self._attach_repeated(e, caller)
        except asyncio.CancelledError:
            if not live.is_detached:
                live.cancel()
            raise
        return live

    async def attach(self, run_id: str, caller: Caller) -> AnyRun:
        """A run of the caller's tenant.

        Raises:
            UnknownName: There is none of that name.
        """
        live = self._live.get(run_id)
        if live is not None and caller.sees in (None, live.config.tenant):
            return live
        return self._stored(await self.record(run_id, caller))

    async def record(self, run_id: str, caller: Caller) -> RunRecord:
        """A run as the store has it; its status is this process's where it works on it.

        Raises:
            UnknownName: There is none of that name.
        """
        return await self.store.get_run(run_id, tenant=caller.sees, exact=True)

    async def cancel(self, run_id: str, caller: Caller) -> RunRecord:
        """Stop a run, whichever process works on it; one that has ended stays as it is.

        Returns:
            The run. One of another process ends a little later.

        Raises:
            UnknownName: There is none of that name.
        """
        record = await self.record(run_id, caller)
        if not is_active(record):
            return record
        await self.store.request_cancel(run_id)
        live = self._live.get(run_id)
        if live is not None:
            live.cancel()
            with suppress(TimeoutError):
                async with asyncio.timeout(CANCEL_GRACE_S):
                    await live.wait_ended()
        return await self.record(run_id, caller)

    async def resume(self, run_id: str, caller: Caller) -> LiveRun:
        """Continue with a run that was interrupted or failed; nothing that it paid for is paid again.

        One that this process works on is given as it is.

        Raises:
            UnknownName: There is none of that name.
            RunConflict: It is finished, or another process works on it.
            ServerBusy: No turn came.
        """
        record = await self.record(run_id, caller)
        if record.status == "finished":
            raise RunConflict(f"run {run_id} is finished", hint=f"GET /v1/runs/{run_id} has its answer")
        if self.draining:
            raise ShuttingDown
        stopped = self._live.get(run_id)
        if stopped is not None and stopped.stopping:
            await stopped.wait_ended()
        live = self._resumed(record, "requested", caller)
        await live.accepted()
        return live

    async def reaches_store(self, within_s: float) -> bool:
        """Whether the store answers within some seconds.

        One question is on its way at a time, however often this is queried: a store that is away keeps what waits for
        it waiting in line, and those who want to know must not make the line longer.
        """
        probe = self._probe
        if probe is None or probe.done():
            probe = self._probe = self._tasks.create_task(self._ask_store())
        done, _ = await asyncio.wait((probe,), timeout=within_s)
        return bool(done) and not probe.cancelled() and probe.result()

    # -- what the process itself asks for

    async def adopt(self) -> int:
        """Take up background runs that no one works on, as many as there are turns for; returns how many."""
        room = self._serve.max_runs - self._admission.in_flight - self._admission.waiting
        if self.draining or room <= 0:
            return 0
        adopted = 0
        for record in await self.store.list_claimable_runs(room):
            if record.id in self._live:
                continue
            if record.cancel_requested:  # anyone who was to stop it is gone: now it is stopped without it
                await self.store.request_cancel(record.id)
                continue
            try:
                self._resumed(record, "adopted")
            except DataError as e:  # no one can continue with it, and it must not stand before all others for ever
                await self._fail_unreadable(record.id, e)
            else:
                adopted += 1
        return adopted

    def begin_drain(self) -> None:
        """Take no new runs; those that wait for a turn are sent away, or stay queued in the store. Idempotent."""
        self.draining = True
        self._admission.close()

    async def drain(self, seconds: float) -> None:
        """Take no new runs, and let those in flight end.

        What has not ended in time is stopped: background runs are given up as "queued" and continue in the next
        process, the others are cancelled, with their partial answers saved.

        Args:
            seconds: How long runs get.
        """
        self.begin_drain()
        await self._wait_stopped(seconds)
        for live in list(self._live.values()):
            live.stop("drained")
        await self._wait_stopped(CANCEL_GRACE_S, stop_now=False)

    def stop_now(self) -> None:
        """End a drain's waiting: what continues is stopped now."""
        self._stop_now.set()

    async def _wait_stopped(self, seconds: float, *, stop_now: bool = True) -> None:
        """Wait until no run is left, up to a number of seconds or, if `stop_now`, until `stop_now` is called."""
        empty = asyncio.ensure_future(self._until_empty())
        cut = asyncio.ensure_future(self._stop_now.wait() if stop_now else asyncio.sleep(seconds))
        try:
            await asyncio.wait((empty, cut), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            empty.cancel()
            cut.cancel()

    async def _until_empty(self) -> None:
        while self._live:
            await next(iter(self._live.values())).wait_ended()
            await asyncio.sleep(0)  # its task takes it off the run manager

    # -- inside

    def _resumed(self, record: RunRecord, reason: ResumeReason, caller: Caller | None = None) -> LiveRun:
        """Continue with a stored run; one that this process works on is given as it is."""
        live = self._live.get(record.id)
        if live is None or live.ended:
            live = LiveRun(
                record.id,
                read_config(record),
                self.store,
                background=record.background,
                is_detached=True,
                resumed=True,
            )
            live.caller = caller or live.caller
            self._spawn(live, self._lifecycle.resume(live, reason))
        return live

    async def _attach_repeated(self, made: DuplicateRequest, caller: Caller) -> AnyRun:
        """The run of a request that is sent again; it continues where its process was killed or the model failed.

        Raises:
            DuplicateRequest: It was another request.
        """
        if not made.same_digest:
            raise made
        live = self._live.get(made.run_id)
        if live is None:
            record = await self.record(made.run_id, caller)
            if not _continues(record):
                return self._stored(record, replayed=True)
            live = self._resumed(record, "repeated", caller)
            await live.accepted()
        return AttachedRun(live)

    async def _fail_unreadable(self, run_id: str, error: DataError) -> None:
        """Note that a run that no one works on cannot continue."""
        try:
            await self.store.claim_run(run_id, allowed=("queued", "running"))
        except UserError:  # another process was faster
            return
        error_object: dict[str, JsonValue] = {"code": error.code, "message": error.message}
        await self.store.end_run(run_id, "failed", None, error_object)

    async def _ask_store(self) -> bool:
        try:
            await self.store.cancel_requested(["-"])
        except Exception:  # noqa: BLE001 (whatever it is, the store does not answer)
            return False
        return True

    def _stored(self, record: RunRecord, *, replayed: bool = False) -> StoredRun:
        return StoredRun(self.store, record, lambda: self.draining, replayed=replayed)

    def _spawn(self, live: LiveRun, work: Coroutine[Any, Any, None]) -> None:
        def forget(_: object) -> None:
            if self._live.get(live.id) is live:
                del self._live[live.id]
            if not live.ended:  # cancelled before its first step: no one but the waiting knows of it
                live.end("interrupted", error=Cancelled())

        self._live[live.id] = live
        task = self._tasks.create_task(work, name=f"run {live.id}")
        task.add_done_callback(forget)
        live.begin(task)

    def _waiting(self) -> int:
        return sum(live.status == "queued" for live in self._live.values())

    async def _maintain(self) -> None:
        """Stop what other processes want stopped, and take up what they left, again and again."""
        since_adopting = ADOPT_INTERVAL_S
        while True:
            try:
                # what is reported of a stored run that has yet to be taken is left over from its time before
                known = {live.id: live for live in self._live.values() if live.is_owned or not live.resumed}
                if known:
                    for run_id in await self.store.cancel_requested(list(known)):
                        known[run_id].cancel()
                await self._lifecycle.endings.retry_pending()
                if since_adopting >= ADOPT_INTERVAL_S:
                    since_adopting = 0.0
                    await self.adopt()
            except ReasonError as e:  # the store is away for a while
                log_fault("store.unreachable", e)
            except Exception as e:  # noqa: BLE001 (whatever it is: it must not end the runs of all)
                log_fault("desk.fault", e)
            await asyncio.sleep(POLL_INTERVAL_S)
            since_adopting += POLL_INTERVAL_S


def _continues(record: RunRecord) -> bool:
    """Whether a request that is sent again takes its run further, rather than getting what ended it."""
    if record.status == "failed":
        status = error_from(record.error or {}).http_status
        return status >= 500 or status == 429
    return record.status == "interrupted" and not is_active(record)
