"""`StoredRun`: a run that this process knows from the store alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

from ..agents.asked import read_config
from ..core.answer import Answer
from ..core.errors import Cancelled, NotVerified, ShuttingDown
from ..core.events import EventFields
from ..core.store import RunRecord, RunStatus, RunStore
from .error_objects import error_from, shown_error
from .event_board import PAGE

POLL_S = 0.5
"""How often the store is asked about a run that another process works on, in seconds."""


def goes_on(record: RunRecord) -> bool:
    """Whether a run is under way, or will be taken up: one in the background whose process was killed is."""
    if record.status in ("queued", "running"):
        return True
    return record.background and record.status == "interrupted" and record.owner is not None


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

    async def events(self, after: int = 0, *, text: bool = False) -> AsyncGenerator[EventFields, None]:
        """The stored events with a higher number, and those that come, until the run has ended.

        Args:
            after: Number of the last event that the reader has.
            text: Changes nothing: text deltas are not stored.
        """
        while True:
            ended = not goes_on(self.record)  # what was stored before it ended is read in this round
            page = await self._store.events(self.id, after=after, limit=PAGE)
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
        while goes_on(self.record):
            if self._stopping():
                raise ShuttingDown
            await self._refresh()
        return answer_of(self.record)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[StoredRun]:
        """Hold the run for a request; it belongs to nobody here."""
        yield self

    async def _refresh(self) -> None:
        await asyncio.sleep(POLL_S)
        self.record = await self._store.get_run(self.id, exact=True)


def answer_of(record: RunRecord) -> Answer:
    """The answer of a run that has ended.

    Raises:
        ReasonError: What ended it: its own error; `NotVerified` or `Cancelled` with the partial answer.
    """
    answer = None if record.answer is None else Answer.model_validate(record.answer)
    if record.status == "failed":
        raise error_from(shown_error(record.error or {}), partial=answer)
    if record.status == "interrupted" or answer is None:
        raise Cancelled("the run was stopped before its end", partial=answer)
    if read_config(record).require_verified:
        verdict = "unchecked" if answer.verification is None else answer.verification.verdict
        if verdict != "supported":
            raise NotVerified(f"the answer is not verified: {verdict.replace('_', ' ')}", partial=answer)
    return answer
