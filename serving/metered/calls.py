"""`Recorder`: writes finished samples to the run store while others are still being generated.

`tell_spending`: what was booked for a call of whatever kind of model, and what the run has spent so far.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from ...core.events import BudgetCharged
from ...core.run import Run
from ...core.store import RunStore, StoredCall


class Recorder:
    """Takes finished samples without waiting and writes them as fast as the store does, many at once if it is slow.

    An asynchronous context manager: when it is left, for whatever reason, all that was added is written. What is
    waiting is bounded by the samples of the call it serves.

    Args:
        store: Where to.
        run_id: Whose samples they are.

    Raises:
        StoreError: When it is left, if the store failed; the work inside is cancelled as soon as it does.
    """

    def __init__(self, store: RunStore, run_id: str) -> None:
        self._store = store
        self._run_id = run_id
        self._waiting: list[StoredCall] = []
        self._begun: asyncio.Handle | None = None
        self._writer: asyncio.Task[None] | None = None
        self._closed = True

    def add(self, call: StoredCall) -> None:
        """Take a finished sample."""
        self._waiting.append(call)
        if self._writer is None and self._begun is None and not self._closed:
            # not at once: most calls make one sample, whose end is the call's, and need no task for it
            self._begun = asyncio.get_running_loop().call_soon(self._begin)

    async def __aenter__(self) -> Recorder:
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        self._closed, self._writer = False, None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        if self._begun is not None:
            self._begun.cancel()
            self._begun = None
        if self._writer is not None and kind is not None:
            self._writer.cancel()
        try:
            await self._group.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            # the caller's own error or the store's: the group is no more than how they were run
            raise group.exceptions[0] from None
        finally:
            await self._write()

    def _begin(self) -> None:
        self._begun = None
        self._writer = self._group.create_task(self._write_what_waits())

    async def _write_what_waits(self) -> None:
        try:
            await self._write()
        except BaseException:
            self._closed = True  # the group takes no task any more; what waits is written when it is left
            raise
        finally:
            self._writer = None

    async def _write(self) -> None:
        while self._waiting:
            batch = list(self._waiting)
            await self._store.add_calls(self._run_id, batch)
            # only now: if the wait was cancelled, they are written once more, which changes nothing
            del self._waiting[: len(batch)]


def tell_spending(
    run: Run, call: int, role: str, model: str, *, tokens: int = 0, calls: int = 0, reward_calls: int = 0
) -> None:
    """Tell it; the totals are of all models of the run.

    Args:
        run: The run that pays.
        call: Number of the event that told of the call's beginning.
        role: Part that the model plays.
        model: Its name.
        tokens: Tokens that it generated.
        calls: Model calls that were booked.
        reward_calls: Passes that were booked.
    """
    total = run.ledger.usage()
    run.emit(
        BudgetCharged(
            role=role,
            model=model,
            tokens=tokens,
            calls=calls,
            total_tokens=total.completion_tokens,
            total_calls=total.model_calls,
            total_usd=total.cost_usd,
            reward_calls=reward_calls,
            total_reward_calls=total.reward_calls,
            limits=run.config.budget.model_dump(exclude_none=True),
        ),
        parent=call,
    )
