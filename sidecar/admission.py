"""`AdmissionQueue`: limits the runs in flight, queues further requests and rejects those that do not fit.

Free slots are assigned to tenants round-robin, and first come, first served within a tenant. When the queue is full, a
request from a tenant with a short queue displaces the newest request of the tenant with the longest one, so that no
tenant can fill the queue.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from ..core.clock import monotonic
from ..core.errors import ReasonError, ServerBusy, ShuttingDown

AdmissionObserver = Callable[[int, int], None]
"""Called with the number of runs in flight and the number of waiting callers when either changes; must not block."""

QUEUE_TIMEOUT_S = 30.0
"""Maximum wait for a slot, in seconds, after which a request is refused."""
INITIAL_RUN_S = 5.0
MAX_RETRY_AFTER_S = 60.0


@dataclass(eq=False)
class _Waiter:
    """A queued caller; `slot` resolves when it gets a slot, or fails with the reason for its rejection."""

    slot: asyncio.Future[None]
    unlimited: bool


class AdmissionQueue:
    """Run slots with a fair queue. Not thread-safe: use it from one event loop.

    Args:
        max_runs: Maximum number of runs in flight.
        max_queued: Maximum number of waiting callers over all tenants, not counting unlimited ones.
        on_change: Called when the number of runs in flight or of waiting callers changes.
        on_abandoned: Called for each caller that is cancelled while it waits.
    """

    def __init__(
        self,
        max_runs: int,
        max_queued: int,
        *,
        on_change: AdmissionObserver | None = None,
        on_abandoned: Callable[[], None] | None = None,
    ) -> None:
        self._max_runs, self._max_waiting = max_runs, max_queued
        self._on_change, self._on_abandoned = on_change, on_abandoned
        self._queues: OrderedDict[str, deque[_Waiter]] = OrderedDict()
        """Waiting callers by tenant, in the order of the next assignments; no queue is empty."""
        self._closed = False
        self._mean_run_s = INITIAL_RUN_S
        self.in_flight = 0
        """Number of slots in use."""

    @property
    def waiting(self) -> int:
        """Number of waiting callers."""
        return sum(map(len, self._queues.values()))

    @asynccontextmanager
    async def slot(self, tenant: str, *, unlimited: bool = False) -> AsyncIterator[None]:
        """Hold a slot inside an `async with`, waiting for one if all are in use.

        Args:
            tenant: The tenant that the run belongs to.
            unlimited: Ignore the queue limit and the timeout; used for background runs.

        Raises:
            ServerBusy: The queue is full, or no slot became free in time.
            ShuttingDown: The queue is closed.
        """
        await self._wait_for_slot(tenant, unlimited)
        begun = monotonic()
        try:
            yield
        finally:
            # exponential moving average of the run time; `_busy` estimates the wait from it
            self._mean_run_s += (monotonic() - begun - self._mean_run_s) / 8
            self._leave()

    def close(self) -> None:
        """Accept no new runs and reject all waiting callers; idempotent."""
        self._closed = True
        queues, self._queues = self._queues, OrderedDict()
        for queue in queues.values():
            for one in queue:
                _reject(one, ShuttingDown())
        self._notify()

    async def _wait_for_slot(self, tenant: str, unlimited: bool) -> None:
        if self._closed:
            raise ShuttingDown
        if self.in_flight < self._max_runs:  # then the queue is empty: released slots go to waiting callers first
            self.in_flight += 1
            self._notify()
            return
        if not unlimited and sum(map(_count_limited, self._queues.values())) >= self._max_waiting:
            self._make_room(tenant)
        waiter = _Waiter(asyncio.get_running_loop().create_future(), unlimited)
        self._queues.setdefault(tenant, deque()).append(waiter)
        self._notify()
        try:
            async with asyncio.timeout(None if unlimited else QUEUE_TIMEOUT_S):
                await waiter.slot
        except BaseException as e:
            self._give_up(tenant, waiter)
            if isinstance(e, TimeoutError):
                raise self._busy(f"no slot became free within {QUEUE_TIMEOUT_S:g} s") from None
            if isinstance(e, asyncio.CancelledError) and self._on_abandoned is not None:
                self._on_abandoned()
            raise

    def _give_up(self, tenant: str, waiter: _Waiter) -> None:
        """Leave the queue; a slot that was assigned at the same moment passes to the next caller."""
        queue = self._queues.get(tenant)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self._queues[tenant]
            self._notify()
        elif waiter.slot.done() and not waiter.slot.cancelled() and waiter.slot.exception() is None:
            self._leave()

    def _leave(self) -> None:
        """Release a slot; it passes directly to the next waiting caller, so that no new caller overtakes it."""
        while self._queues:
            tenant, queue = next(iter(self._queues.items()))
            one = queue.popleft()
            if queue:
                self._queues.move_to_end(tenant)
            else:
                del self._queues[tenant]
            if not one.slot.done():  # skip a cancelled waiter whose task has not run yet
                one.slot.set_result(None)
                self._notify()
                return
        self.in_flight -= 1
        self._notify()

    def _make_room(self, tenant: str) -> None:
        """Reject the newest caller of the longest queue, if it is at least two longer than the tenant's; else raise."""
        longest = max(self._queues, key=lambda t: _count_limited(self._queues[t]), default=tenant)
        queue = self._queues.get(longest, deque())
        if _count_limited(queue) <= _count_limited(self._queues.get(tenant, ())) + 1:
            raise self._busy(f"{self.in_flight} runs are in flight and {self.waiting} are queued")
        last = next(one for one in reversed(queue) if not one.unlimited)
        queue.remove(last)
        _reject(last, self._busy("the request made room for a tenant with fewer requests"))

    def _busy(self, why: str) -> ReasonError:
        wait = self._mean_run_s * (self.waiting + 1) / self._max_runs
        return ServerBusy(
            f"the server is busy: {why}",
            retry_after_s=math.ceil(min(max(wait, 1.0), MAX_RETRY_AFTER_S)),
            hint="try again later",
        )

    def _notify(self) -> None:
        if self._on_change is not None:
            self._on_change(self.in_flight, self.waiting)


def _count_limited(queue: Iterable[_Waiter]) -> int:
    return sum(not one.unlimited for one in queue)


def _reject(one: _Waiter, why: ReasonError) -> None:
    if not one.slot.done():
        one.slot.set_exception(why)
