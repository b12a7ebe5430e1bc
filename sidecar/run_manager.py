"""`RunManager`: all runs of this process, in one task group, from their admission to their end.

The end of a run is recorded even if the pipeline could not do so (the store was unreachable, the process was stopping).
Failed writes are kept in memory and retried.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

from pydantic import JsonValue

from ..agents.loop.records import Decision, ToolCallStore, client_results, decide
from ..agents.loop.tool import ToolResult
from ..agents.reasoner import Reasoner
from ..core.budget import Budget
from ..core.clock import monotonic
from ..core.concurrency import shielded
from ..core.errors import (
    Cancelled,
    DataError,
    DuplicateRequest,
    KeyLimitExceeded,
    NotVerified,
    ReasonError,
    RunConflict,
    RunQuarantined,
    ServerBusy,
    ShuttingDown,
    StoreError,
    UnknownName,
    UserError,
)
from ..core.events import RunFailed, RunFinished, Sink
from ..core.run import RunConfig, new_run_id, read_config
from ..core.settings import ServeSettings
from ..core.store.group_commit import Connection
from ..core.store.records import NewRun, RunEnd, RunRecord, RunStatus, RunWrites
from ..core.store.sql import RunStore, to_json
from ..core.types import Answer, PendingToolCall, RunUsage
from .admission import AdmissionQueue
from .auth import Caller
from .coordination import RunCoordinator
from .errors import INTERNAL, error_from, public_error
from .key_limits import KeyLimiter
from .logs import log_event, log_fault
from .native.schemas import is_active
from .runs import POLL_INTERVAL_S, AnyRun, AttachedRun, ClientTurn, LiveRun, StoredRun, client_turns, stored_answer

ADOPT_INTERVAL_S = 2.0
"""Interval between searches for runs without a living owner, in seconds."""
MAX_ADOPTIONS = 3
"""How many processes may adopt a run one after another and die with it before it is quarantined."""
PROBE_INTERVAL_S = 1.0
"""Interval between writes that check the store for health checks, in seconds."""
CANCEL_GRACE_S = 10.0
"""Time that a stopped run gets to save its partial results, in seconds."""
PRUNE_INTERVAL_S = 60.0
"""Time between two searches for runs to delete, in seconds."""
PRUNE_PAUSE_S = 1.0
"""Pause between the transactions of one search, in which others write."""
DAY_S = 86_400
NOT_ADMITTED = (ServerBusy, ShuttingDown, KeyLimitExceeded)
"""Errors of a run that was not admitted."""
MAX_PENDING_ENDS = 10_000
"""Maximum number of ends that are kept in memory while the store fails."""
MAX_ATTEMPTS = 1000
"""Maximum number of attempts to write an end that the store has failed to write."""

Observer = Callable[[LiveRun], Sink | None]
"""Called with each run before it starts; returns a sink for the run's events, or None."""

ResumeReason = Literal["adopted", "repeated", "requested"]
"""Why a stored run continues: the process adopted it, its request was repeated, or a caller requested it.

If another process claims the run first, "requested" raises `RunConflict`; the other reasons follow that process."""
_ACTIVE: tuple[RunStatus, ...] = ("queued", "running")
_RESUMABLE: tuple[RunStatus, ...] = (*_ACTIVE, "waiting", "interrupted", "failed")


@dataclass(frozen=True)
class CallAnswers:
    """What a client answers to the calls that a run waits for.

    Attributes:
        decisions: By the calls' ids.
        outputs: Results of calls that the client has executed, by the ids that the model gave the calls.
        turn: Number of the turn that they begin; None is the last one that they fit.
    """

    run_id: str
    decisions: Mapping[str, Decision]
    outputs: Mapping[str, str]
    turn: int | None = None


@dataclass
class _PendingEnd:
    """The end of a run that has not been written to the store yet."""

    writes: RunWrites
    attempts: int = 0


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
                self._pending[live.id] = _PendingEnd(_ending(status, event, live.unwritten()))
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
        for run_id, pending in list(self._pending.items()):
            pending.attempts += 1
            try:
                if await self._is_open(run_id, pending.writes) and run_id in self._pending:
                    await self._store.save(run_id, pending.writes)
            except UnknownName:
                pass  # deleted in the meantime
            except Exception as e:  # noqa: BLE001 (the other ends are still to be written)
                if isinstance(e, StoreError) and pending.attempts < MAX_ATTEMPTS:
                    continue  # unreachable for now
                log_fault("run.end_given_up", e, run=run_id)
            if self._pending.get(run_id) is pending:
                del self._pending[run_id]

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

    async def _is_open(self, run_id: str, writes: RunWrites) -> bool:
        """Whether the end has not been written: by the store, or by another process that has claimed the run."""
        if writes.creation is not None:
            return True
        return (await self._store.get_run(run_id, exact=True)).status in _ACTIVE

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
        stopped = closing.answer.stopped
        return "interrupted" if stopped == "cancelled" else "waiting" if stopped == "waiting" else "finished"
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


class RunManager:
    """Starts, finds, concludes, cancels and resumes runs; an asynchronous context manager.

    A run waits for an admission slot (`AdmissionQueue`) and is then executed by the reasoner. A background run, and one
    with an idempotency key, is in the store from its acceptance; any other from its first write, which is its end or a
    quarter of a second after its start, whichever comes first. If this process ends before a background run does,
    another process continues the run: `adopt` claims the background runs of processes that were killed or drained. A
    run that kills every process that adopts it is quarantined: it ends as failed, with the error `RunQuarantined`.

    Args:
        reasoner: The reasoner that executes the runs.
        store: The reasoner's run store.
        serve: Limits of the server.
        admission: The admission queue.
        allowance: Spending limits of callers; None for no limits.
        observers: Called with each run before it starts.
    """

    def __init__(
        self,
        reasoner: Reasoner,
        store: RunStore,
        serve: ServeSettings,
        admission: AdmissionQueue,
        *,
        allowance: KeyLimiter | None = None,
        observers: Iterable[Observer] = (),
    ) -> None:
        self.store, self._reasoner, self._serve, self._admission = store, reasoner, serve, admission
        self._allowance, self._observers = allowance, tuple(observers)
        self.others = RunCoordinator(store)
        self.endings = EndRecorder(store)
        self._live: dict[str, LiveRun] = {}
        self._tasks = asyncio.TaskGroup()
        self._stack = AsyncExitStack()
        self._stop_now = asyncio.Event()
        self._probe: asyncio.Task[bool] | None = None
        self._probed_at = 0.0
        self._last_chance = ""
        self.leaving = self.draining = False

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
        """Number of this process's runs, including those that wait for an admission slot."""
        return sum(not live.ended for live in self._live.values())

    # -- requests of callers

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
        """Start a run; returns once it has an admission slot or, for a background run, once it is in the store.

        Cancelling this coroutine cancels the run, unless the run is in the background or has an idempotency key.

        Args:
            config: The run's configuration.
            caller: The caller; sets the run's tenant.
            background: Whether another process continues the run when this one ends.
            idempotency: The request's idempotency key. If it is in use, the existing run is returned, and resumed if
                its process was killed.
            digest: Hash of the request, to distinguish a repeated request from a different one with the same key.
            text: Buffer text deltas from the start for a reader that is about to attach.

        Raises:
            ServerBusy: The queue is full, or no slot became free in time.
            ShuttingDown: The server is draining.
            DuplicateRequest: The idempotency key was used for a different request.
            RunConflict: The conversation's run before has not ended, or another question was faster.
        """
        if self.draining:
            raise ShuttingDown
        config = config.model_copy(update={"tenant": caller.tenant})
        if config.client_loop:
            joined = await self._joined(config, caller, is_detached=idempotency is not None, text=text)
            if joined is not None:
                return joined
        if background and self._waiting() >= self._serve.max_queued:
            try:
                await self._refuse_repeated(config, idempotency, digest)
            except DuplicateRequest as e:
                return await self._attach_repeated(e, caller)
            raise ServerBusy(
                f"{self._waiting()} runs are already waiting", retry_after_s=ADOPT_INTERVAL_S, hint="try again later"
            )
        # random, so that IDs cannot be guessed and do not collide when many runs start in one second
        run_id = f"{new_run_id()}{secrets.token_hex(5)}"
        live = LiveRun(run_id, config, self.store, background=background, is_detached=idempotency is not None)
        live.caller = caller
        if text:
            live.buffer.expect_text()
        free = self._admission.in_flight < self._serve.max_runs
        self._spawn(live, self._finish(live, self._begin(live, idempotency, digest, free)))
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
        """Return a run that the caller may see: live if this process executes it, else as stored.

        Raises:
            UnknownName: There is no such run.
        """
        live = self._live_run(run_id, caller)
        if live is not None:
            return live
        return self._stored(await self.record(run_id, caller))

    async def record(self, run_id: str, caller: Caller) -> RunRecord:
        """Return the stored record of a run that the caller may see.

        Raises:
            UnknownName: There is no such run.
        """
        live = self._live.get(run_id)
        if live is not None and not live.ended:
            await live.saved()
        return await self.store.get_run(run_id, tenant=caller.sees, exact=True)

    async def cancel(self, run_id: str, caller: Caller) -> RunRecord:
        """Cancel a run of this or another process; no effect on a run that has ended.

        Returns:
            The run's record. A run of another process may still be active; it ends shortly afterwards.

        Raises:
            UnknownName: There is no such run.
        """
        live = self._live_run(run_id, caller)
        if live is not None and not live.ended:
            live.cancel()  # before the store is asked, since a short run would end meanwhile
            with suppress(TimeoutError):
                async with asyncio.timeout(CANCEL_GRACE_S):
                    await live.wait_ended()
        record = await self.record(run_id, caller)
        if record.status == "waiting":
            await self._cancel_waiting(record)
            return await self.record(run_id, caller)
        if not is_active(record):
            return record
        await self.others.request_cancel(run_id)
        return await self.record(run_id, caller)

    async def delete(self, run_id: str, caller: Caller) -> None:
        """Delete a run that has ended, with its calls and events; its spending stays recorded.

        Raises:
            UnknownName: There is no such run.
            RunConflict: It has not ended.
        """
        await self.record(run_id, caller)
        await self.store.delete_run(run_id, only_ended=True)
        live = self._live.get(run_id)
        if live is not None and live.ended:  # readers no longer find it, although its task is not done yet
            del self._live[run_id]

    async def conclude(self, run_id: str, caller: Caller) -> RunRecord:
        """End a run of this or another process with an answer from what it has; no effect on a run that has ended.

        A run that waits for an admission slot, or for a process, answers as soon as it has one. Idempotent.

        Returns:
            The run's record; the run ends shortly afterwards.

        Raises:
            UnknownName: There is no such run.
        """
        record = await self.record(run_id, caller)
        if record.status == "waiting":
            calls = await self.pending(run_id)
            if any(call.question != "approval" for call in calls):
                raise RunConflict(f"run {run_id} waits for more than approvals", hint="decide about its calls first")
            reject = Decision(kind="reject", reason="the user wants the answer now", by=decided_by(caller))
            await decide(ToolCallStore(self.store), run_id, {call.id: reject for call in calls}, owned=False)
            return await self._continue_waiting(run_id, caller, answer_now=True)
        if not is_active(record):
            return record
        await self.others.request_answer(run_id)
        live = self._live.get(run_id)
        if live is not None:
            live.conclude()
        return await self.record(run_id, caller)

    async def pending(self, run_id: str) -> tuple[PendingToolCall, ...]:
        """The tool calls that a run waits for; empty if it does not wait for any."""
        rows = await ToolCallStore(self.store).list(run_id)
        return tuple(call for row in rows if (call := row.pending) is not None)

    async def decide(
        self, run_id: str, caller: Caller, decisions: Mapping[str, Decision], *, resume: bool = True
    ) -> RunRecord:
        """Record decisions about the calls that a run waits for; a run that needs no further one continues.

        It continues in the background, here or in another process.

        Args:
            decisions: By the calls' ids.
            resume: Whether it continues once all is decided; otherwise `resume` continues it.

        Raises:
            UnknownName: There is no such run, or no such pending call.
            UserError: A decision is not one that its call needs.
            RunConflict: The run does not wait, or another decision was faster.
        """
        record = await self.record(run_id, caller)
        if record.status != "waiting":
            raise RunConflict(f"run {run_id} is {record.status}: it waits for no decision", hint="read it again")
        await decide(ToolCallStore(self.store), run_id, decisions, owned=False)
        return await self._continue_waiting(run_id, caller) if resume else await self.record(run_id, caller)

    async def _continue_waiting(self, run_id: str, caller: Caller, *, answer_now: bool = False) -> RunRecord:
        await self.others.queue_waiting(run_id, answer_now=answer_now)
        record = await self.record(run_id, caller)
        if record.status == "queued" and not self.draining:
            self._resumed(record, "adopted")
        return record

    async def resume(self, run_id: str, caller: Caller) -> LiveRun:
        """Resume a run that was interrupted or failed; completed model calls are not repeated.

        A run that this process executes is returned unchanged.

        Raises:
            UnknownName: There is no such run.
            RunConflict: The run is finished, or another process executes it.
            ServerBusy: The queue is full, or no slot became free in time.
            ShuttingDown: The server is draining.
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
        """Whether the store can be written, within a number of seconds.

        Calls within `PROBE_INTERVAL_S` share one probe: health checks neither pile up on a store that does not respond
        nor load one that does.
        """
        probe = self._probe
        is_fresh = monotonic() - self._probed_at < PROBE_INTERVAL_S
        if probe is None or (probe.done() and not is_fresh):
            probe = self._probe = self._tasks.create_task(self._ask_store())
        done, _ = await asyncio.wait((probe,), timeout=within_s)
        return bool(done) and not probe.cancelled() and probe.result()

    # -- requests of the process itself

    async def adopt(self) -> int:
        """Claim background runs without a living owner, up to the number of free admission slots; returns how many.

        A run that `MAX_ADOPTIONS` processes have died with is quarantined. One that has a last chance is adopted only
        while this process has no other such run: of several that died with one process, only one may be the cause.
        """
        room = self._serve.max_runs - self._admission.in_flight - self._admission.waiting
        if self.draining or room <= 0:
            return 0
        adopted = 0
        for record in await self.others.list_claimable(room):
            if record.id in self._live:
                continue
            if record.cancel_requested:  # its owner died before it cancelled the run; without an owner, the store does
                await self.others.request_cancel(record.id)
                continue
            if record.owner is not None:
                if record.adoptions >= MAX_ADOPTIONS:
                    await self._fail(record.id, RunQuarantined(record.id, record.adoptions))
                    continue
                if record.adoptions == MAX_ADOPTIONS - 1:
                    if self._last_chance in self._live:
                        continue
                    self._last_chance = record.id
            try:
                self._resumed(record, "adopted")
            except DataError as e:  # no process can resume it, and it would block the runs after it
                await self._fail(record.id, e)
            else:
                adopted += 1
        return adopted

    async def announce_drain(self, seconds: float) -> None:
        """Fail readiness probes and accept new runs for this time; a call of `stop_now` ends it."""
        self.leaving = True
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop_now.wait()

    def begin_drain(self) -> None:
        """Accept no new runs and reject waiting ones; waiting background runs stay queued in the store. Idempotent."""
        self.leaving = self.draining = True
        self._admission.close()

    async def drain(self, seconds: float) -> None:
        """Accept no new runs and wait for those in flight.

        After `seconds`, the remaining runs are stopped: background runs are released as "queued" for another process,
        the others are cancelled and their partial answers saved.
        """
        self.begin_drain()
        await self._wait_stopped(seconds)
        for live in list(self._live.values()):
            live.stop("drained")
        await self._wait_stopped(CANCEL_GRACE_S, stop_now=False)

    def stop_now(self) -> None:
        """End the waits of `announce_drain` and `drain`; the remaining runs are stopped at once."""
        self._stop_now.set()

    async def _wait_stopped(self, seconds: float, *, stop_now: bool = True) -> None:
        """Wait until no run is left, for at most `seconds`; if `stop_now`, a call of `stop_now` ends the wait."""
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
            await asyncio.sleep(0)  # lets the task's callback remove the run

    # -- internals

    async def _joined(self, config: RunConfig, caller: Caller, *, is_detached: bool, text: bool) -> AnyRun | None:
        """The run that made the calls whose results a client returns; None if the request begins a new one.

        A repeated request gets the turn that the first one led to, or is attached to it.
        """
        call_id, results = client_results(config.question)
        if not results:
            return None
        calls = ToolCallStore(self.store)
        for run_id in await calls.client_runs(next(iter(results)), call_id, config.tenant):
            with suppress(UnknownName):  # deleted meanwhile
                record = await self.store.get_run(run_id, exact=True)
                if record.config.get("client_loop") != config.client_loop:
                    continue
                turns, _ = client_turns(await self.store.list_events(run_id))
                turn = next((turn for turn in turns if turn.asked == results.keys()), None)
                if turn is None or await calls.return_results(run_id, results) == "other":
                    continue
                return await self._continued(run_id, turn, turns[-1], caller, is_detached=is_detached, text=text)
        return None

    async def answer_calls(
        self,
        answers: CallAnswers,
        caller: Caller,
        *,
        background: bool = False,
        is_detached: bool = False,
        text: bool = False,
    ) -> AnyRun:
        """Continue a run with all decisions and results that it waits for.

        A repeated request gets the turn that the first one led to, or is attached to it.

        Args:
            background: Whether it continues here or in another process, whatever becomes of the request.
            is_detached: Whether it continues when the client disconnects.
            text: As of `start`.

        Raises:
            UnknownName: There is no such run.
            UserError: An answer is missing, or it is of no call that the run has waited for.
            RunConflict: Another answer was faster.
        """
        if self.draining:
            raise ShuttingDown
        run_id, decisions = answers.run_id, answers.decisions
        await self.record(run_id, caller)
        turns, ends = client_turns(await self.store.list_events(run_id))
        calls = ToolCallStore(self.store)
        rows = {row.id: row for row in await calls.list(run_id)}
        fitting = (one for one in turns[:0:-1] if answers.turn in (None, one.number) and decisions.keys() <= one.asked)
        turn = next(fitting, None)
        if turn is None:
            raise UserError(f"run {run_id} has asked for no such answer", hint="read its last response", param="input")
        pending = ends[turn.number - 2].answer.pending
        results = {
            call.id: ToolResult(text=answers.outputs[rows[call.id].call_id])
            for call in pending
            if call.question == "result" and rows[call.id].call_id in answers.outputs
        }
        if missing := [call for call in pending if call.id not in {*results, *decisions}]:
            names = ", ".join(f"{call.question} of {call.tool}" for call in missing)
            raise UserError(f"run {run_id} waits for more: {names}", hint="send all that it waits for", param="input")
        for call, decision in decisions.items():
            stored = rows[call].decision
            if stored is not None and stored.kind != decision.kind:
                raise RunConflict(f"another decision was made about {call}", hint="read the response again")
        if results and await calls.return_results(run_id, results) == "other":
            raise RunConflict(f"run {run_id} has other results of these calls", hint="read the response again")
        if new := {call: decision for call, decision in decisions.items() if rows[call].decision is None}:
            await decide(calls, run_id, new, owned=False)
        if background:
            run = self._stored(await self._continue_waiting(run_id, caller))
            run.turn = turn
            return run
        return await self._continued(run_id, turn, turns[-1], caller, is_detached=is_detached, text=text)

    async def _continued(
        self, run_id: str, turn: ClientTurn, last: ClientTurn, caller: Caller, *, is_detached: bool, text: bool
    ) -> AnyRun:
        """A run from a turn on whose calls are answered: it continues, unless it has done so already."""
        record = await self.store.get_run(run_id, exact=True)
        live = self._live.get(run_id)
        is_last = turn == last and (live is None or live.ended or live.turn == turn)
        if is_last and live is not None and not live.ended:
            return AttachedRun(live)
        if not is_last or not (record.status == "waiting" or _continues(record)):
            stored = self._stored(record, replayed=True)
            stored.turn = turn
            return stored
        live = self._resumed(record, "repeated", caller, is_detached=is_detached or record.background)
        live.turn = turn
        if text:
            live.buffer.expect_text()
        try:
            await live.accepted()
        except asyncio.CancelledError:
            await live.release()
            raise
        return live

    def _resumed(
        self, record: RunRecord, reason: ResumeReason, caller: Caller | None = None, *, is_detached: bool = True
    ) -> LiveRun:
        """Resume a stored run, unless this process executes it already."""
        live = self._live.get(record.id)
        if live is None or live.ended:
            live = LiveRun(
                record.id,
                read_config(record),
                self.store,
                background=record.background,
                is_detached=is_detached,
                resumed=True,
            )
            live.caller = caller or live.caller
            live.is_concluding = record.background and record.answer_requested
            self._spawn(live, self._finish(live, self._resume(live, reason)))
        return live

    async def _attach_repeated(self, made: DuplicateRequest, caller: Caller) -> AnyRun:
        """Attach to the run of a repeated request; resumes it if its process was killed or the model failed."""
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

    async def _cancel_waiting(self, record: RunRecord) -> None:
        """End a waiting run with its partial answer; nothing was spent since it was charged."""
        answer = stored_answer(record).model_copy(update={"stopped": "cancelled", "pending": ()})
        event = RunFinished(number=await self._next_number(record.id), run_id=record.id, answer=answer)

        def end(db: Connection) -> None:
            sql = "UPDATE runs SET status = 'interrupted', owner = NULL, stopped = ?, answer = ? WHERE id = ?"
            db.write(sql, (answer.stopped, to_json(answer), record.id))
            db.forget_owner(record.id)

        allowed: tuple[RunStatus, ...] = ("waiting",)
        try:
            await self.store.claim_run(record.id, allowed=allowed)
        except UserError:  # it has been continued
            return
        await self.store.save(record.id, RunWrites(events=[event], operations=[end]))

    async def _fail(self, run_id: str, error: ReasonError) -> None:
        """Mark a run that no process can continue as failed."""
        try:
            await self.store.claim_run(run_id, allowed=("queued", "running"), adopting=True)
        except UserError:  # another process was faster
            return
        log_event("run.given_up", run=run_id, code=error.code)
        event = RunFailed(number=await self._next_number(run_id), run_id=run_id, code=error.code, message=error.message)
        error_object: dict[str, JsonValue] = {"code": error.code, "message": str(error)}
        await self.store.end_run(run_id, "failed", None, error_object, events=[event])

    async def _next_number(self, run_id: str) -> int:
        stored = await self.store.list_events(run_id)
        return (stored[-1].number if stored else 0) + 1

    async def _ask_store(self) -> bool:
        try:
            await self.others.check_writable()
        except Exception as e:  # noqa: BLE001 (whatever it is, runs cannot be stored)
            log_fault("store.not_writable", e)
            return False
        finally:
            self._probed_at = monotonic()
        return True

    def _stored(self, record: RunRecord, *, replayed: bool = False) -> StoredRun:
        return StoredRun(self.store, record, lambda: self.draining, replayed=replayed)

    def _spawn(self, live: LiveRun, work: Coroutine[Any, Any, None]) -> None:
        def forget(_: object) -> None:
            if self._live.get(live.id) is live:
                del self._live[live.id]
            if not live.ended:  # the task was cancelled before its first step
                live.end("interrupted", error=Cancelled())

        self._live[live.id] = live
        task = self._tasks.create_task(work, name=f"run {live.id}")
        task.add_done_callback(forget)
        live.begin(task)

    def _live_run(self, run_id: str, caller: Caller) -> LiveRun | None:
        """The run of this process with that id, if the caller may see it."""
        live = self._live.get(run_id)
        return live if live is not None and caller.sees in (None, live.config.tenant) else None

    def _waiting(self) -> int:
        return sum(live.status == "queued" for live in self._live.values())

    async def _maintain(self) -> None:
        """Periodically cancel and conclude runs on request of other processes, retry failed writes, adopt and prune."""
        days = self._serve.retention_days
        adopt_at = prune_at = 0.0
        while True:
            try:
                # a cancel request of a resumed run that is not claimed yet is from before its resumption
                known = {live.id: live for live in self._live.values() if live.is_owned or not live.resumed}
                if known:
                    requested = await self.others.requested(list(known))
                    for run_id in requested.cancelled:
                        known[run_id].cancel()
                    for run_id in requested.answered:
                        known[run_id].conclude()
                await self.endings.retry_pending()
                if monotonic() >= adopt_at:
                    adopt_at = monotonic() + ADOPT_INTERVAL_S
                    await self.adopt()
                if days is not None and monotonic() >= prune_at:
                    prune_at = monotonic() + PRUNE_INTERVAL_S
                    if pruned := await self.store.prune_runs(before=time.time() - days * DAY_S):
                        prune_at = monotonic() + PRUNE_PAUSE_S
                        log_event("store.pruned", runs=pruned)
            except ReasonError as e:  # the store is unreachable for now
                log_fault("store.unreachable", e)
            except Exception as e:  # noqa: BLE001 (a fault here must not end the task group)
                log_fault("run_manager.fault", e)
            await asyncio.sleep(POLL_INTERVAL_S)

    # -- the life of a run

    async def _begin(self, live: LiveRun, idempotency: str | None, digest: str, free: bool) -> Answer | StoredRun:
        early = live.background or idempotency is not None or bool(live.config.conversation)

        async def create(status: Literal["queued", "running"]) -> None:
            new = NewRun(live.config, live.config.tenant, live.background, status, idempotency, digest)
            checks = [self.others.must_follow(live.id, live.config)] if live.config.conversation else []
            await self.store.save(live.id, RunWrites(new, operations=checks))
            live.is_stored = True
            live.is_owned = status == "running" or not live.background

        async with self._holding(live.config, live.caller, idempotency, digest) as budget:
            live.config = live.config.model_copy(update={"budget": budget})
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
                sinks = self._sinks(live)
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
        async with self._holding(live.config, caller), slot:
            other_owner = await self._claim(live, reason)
            if other_owner is not None:
                return other_owner
            sinks = self._sinks(live)
            return await self._reasoner.aresume(live.id, sinks=sinks, is_claimed=True, on_start=live.attach_run)

    async def _refuse_repeated(self, config: RunConfig, idempotency: str | None, digest: str) -> None:
        """Raise if the request's idempotency key is in use; checked before a request is rejected for another reason."""
        known = None if idempotency is None else await self.others.find_request(config.tenant, idempotency)
        if known is not None:
            raise DuplicateRequest(known[0], known[1] == digest)

    def _sinks(self, live: LiveRun) -> list[Sink]:
        """Mark the run as running and return its sinks."""
        live.status = "running"
        live.accept()
        sinks = [live.emit, *(observer(live) for observer in self._observers)]
        return [sink for sink in sinks if sink is not None]

    async def _claim(self, live: LiveRun, reason: ResumeReason) -> StoredRun | None:
        """Claim a stored run; if another process has it, return the run as stored."""
        # another process may have claimed and ended the run since its record was read
        only = _ACTIVE if reason == "adopted" else _RESUMABLE

        async def take() -> None:
            await self.store.claim_run(live.id, allowed=only, adopting=reason == "adopted")
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
            return self._stored(await self.store.get_run(live.id, exact=True))
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
                live.end("waiting" if done.stopped == "waiting" else "finished", done)

    async def _end_stopped(self, live: LiveRun) -> None:
        """End a cancelled run; if it ended by itself before the cancellation, its stored end applies."""
        closing = live.closing
        if closing is not None and not (isinstance(closing, RunFinished) and closing.answer.stopped == "cancelled"):
            with suppress(ReasonError):
                record = await self.store.get_run(live.id, exact=True)
                live.end(record.status, other_owner=self._stored(record))
                return
        error = _stop_error(live)
        live.end(await self.endings.record(live, error, stopped=True), error=error)

    @asynccontextmanager
    async def _holding(
        self, config: RunConfig, caller: Caller, idempotency: str | None = None, digest: str = ""
    ) -> AsyncIterator[Budget]:
        """Reserve a run's budget inside an `async with`; gives what the spending limits leave of it."""
        async with AsyncExitStack() as stack:
            budget = config.budget
            if self._allowance is not None:
                try:
                    budget = await stack.enter_async_context(self._allowance.hold(caller, budget))
                except KeyLimitExceeded:
                    await self._refuse_repeated(config, idempotency, digest)
                    raise
            yield budget


def decided_by(caller: Caller) -> str:
    """The origin of a caller's decisions about tool calls."""
    return ":".join(filter(None, ("http", caller.key_id or caller.tenant)))


def _continues(record: RunRecord) -> bool:
    """Whether a repeated request resumes the run, rather than getting its stored error."""
    if record.status == "failed":
        status = error_from(record.error or {}).http_status
        return status >= 500 or status == 429
    return record.status == "interrupted" and not is_active(record)


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
