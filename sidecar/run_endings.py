"""`Endings`: sees that the store knows how a run ended, also where the pipeline could not say so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from ..core.answer import Answer, RunUsage
from ..core.errors import (
    DuplicateRequest,
    LimitReached,
    NotVerified,
    ReasonError,
    RunConflict,
    ServerBusy,
    ShuttingDown,
    StoreError,
    UnknownName,
)
from ..core.events import RunFailed, RunFinished
from ..core.store import RunStatus, RunStore
from .gate.log_lines import log_fault
from .live_run import LiveRun

NO_TURN = (ServerBusy, ShuttingDown, LimitReached)
"""What a run ends with that got no turn."""
MOST_OWED = 10_000
MOST_TRIES = 1000


@dataclass
class _Owed:
    """An ending that the store could not be told yet."""

    run_id: str
    status: RunStatus
    event: RunFinished | RunFailed
    tries: int = 0


class Endings:
    """Notes how runs ended. What the store cannot take now (a full disk, a database that is away) is told it later.

    Args:
        store: Where runs are kept.
    """

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._owed: dict[str, _Owed] = {}

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
            event = live.closing or _last(live, live.board.last + 1, error, stopped)
            if live.ours and len(self._owed) < MOST_OWED:
                self._owed[live.id] = _Owed(live.id, status, event)
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
                if isinstance(e, StoreError) and owed.tries < MOST_TRIES:
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
        if live.handed_over or (isinstance(error, NO_TURN) and live.background):
            with suppress(StoreError):  # the pipeline has given it up already
                await self._store.release_run(live.id)
            return "queued"
        if isinstance(error, NO_TURN) and live.status == "queued":
            await self._store.delete_run(live.id)  # a request that is sent again is a new one
            return "failed"
        event = _last(live, await self._next_number(live), error, stopped)
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
        stored = await self._store.events(live.id) if live.resumed else []
        return max(live.board.last, stored[-1].number if stored else 0) + 1


def _status_of(closing: RunFinished | RunFailed | None, error: ReasonError) -> RunStatus:
    if isinstance(closing, RunFinished) and isinstance(error, NotVerified | StoreError):
        return "interrupted" if closing.answer.stopped == "cancelled" else "finished"
    return "failed"


def _last(live: LiveRun, number: int, error: ReasonError, stopped: bool) -> RunFinished | RunFailed:
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
