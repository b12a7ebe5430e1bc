"""`AdmissionQueue`: how many runs are in flight at once, who waits for a slot, and who is rejected.

Slots go round the waiting tenants, one each, and within a tenant first come, first served. Where the queue is full, the
tenant with the longest queue gives way to one with a shorter queue, so that no tenant can fill the queue for the
others.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from ..core.errors import ReasonError, ServerBusy, ShuttingDown

AdmissionObserver = Callable[[int, int], None]
"""Receives how many runs are in flight and how many callers wait, whenever that changes; must be quick."""

INITIAL_RUN_S = 5.0
MAX_RETRY_AFTER_S = 60.0


@dataclass(eq=False)
class _Waiter:
    """A caller in line; `turn` ends with the turn, or with why there is none."""

    slot: asyncio.Future[None]
    unlimited: bool


class AdmissionQueue:
    """Turns for runs. Used from one event loop; every method is atomic there.

    Args:
        max_runs: Maximum number of runs in flight at once.
        max_queued: Maximum number of callers that wait, all tenants together and patient ones not counted; more are
            sent away.
        queue_timeout_s: Longest wait, in seconds.
        on_change: Receives every change.
        on_abandoned: Receives each caller that was cancelled while it waited.
        clock: Monotonic seconds; replaced in tests.
    """

    def __init__(
        self,
        max_runs: int,
        max_queued: int,
        queue_timeout_s: float,
        *,
        on_change: AdmissionObserver | None = None,
        on_abandoned: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_runs, self._max_waiting, self._max_wait_s = max_runs, max_queued, queue_timeout_s
        self._on_change, self._on_abandoned, self._clock = on_change, on_abandoned, clock
        self._queues: OrderedDict[str, deque[_Waiter]] = OrderedDict()
        """Who waits, by tenant; the tenant whose turn is next comes first, and none is empty."""
        self._closed = False
        self._mean_run_s = INITIAL_RUN_S
        self.in_flight = 0
        """Turns that are taken."""

    @property
    def waiting(self) -> int:
        """Callers that wait."""
        return sum(map(len, self._queues.values()))

    @asynccontextmanager
    async def slot(self, tenant: str, *, unlimited: bool = False) -> AsyncIterator[None]:
        """Hold a turn; wait for one where all are taken.

        Args:
            tenant: On whose behalf.
            unlimited: Wait as long as it takes, and also where the queue is full: for runs that no one waits for.

        Raises:
            ServerBusy: The queue is full, or no turn came in time.
            ShuttingDown: No new runs are taken.
        """
        await self._enter(tenant, unlimited)
        begun = self._clock()
        try:
            yield
        finally:
            # the last runs count most; how long a run holds a slot is all that is known of when the next is free
            self._mean_run_s += (self._clock() - begun - self._mean_run_s) / 8
            self._leave()

    def close(self) -> None:
        """Take no new runs, and send away anyone who waits; idempotent."""
        self._closed = True
        queues, self._queues = self._queues, OrderedDict()
        for queue in queues.values():
            for one in queue:
                _reject(one, ShuttingDown())
        self._notify()

    async def _enter(self, tenant: str, unlimited: bool) -> None:
        if self._closed:
            raise ShuttingDown
        if self.in_flight < self._max_runs:  # then no one waits: a turn that is given back is sent to them first
            self.in_flight += 1
            self._notify()
            return
        if not unlimited and sum(map(_count_limited, self._queues.values())) >= self._max_waiting:
            self._make_room(tenant)
        waiter = _Waiter(asyncio.get_running_loop().create_future(), unlimited)
        self._queues.setdefault(tenant, deque()).append(waiter)
        self._notify()
        try:
            async with asyncio.timeout(None if unlimited else self._max_wait_s):
                await waiter.slot
        except BaseException as e:
            self._give_up(tenant, waiter)
            if isinstance(e, TimeoutError):
                raise self._busy(f"no turn came within {self._max_wait_s:g} s") from None
            if isinstance(e, asyncio.CancelledError) and self._on_abandoned is not None:
                self._on_abandoned()
            raise

    def _give_up(self, tenant: str, waiter: _Waiter) -> None:
        """Leave the line; a turn that came at the same moment continues to the next."""
        queue = self._queues.get(tenant)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self._queues[tenant]
            self._notify()
        elif waiter.slot.done() and not waiter.slot.cancelled() and waiter.slot.exception() is None:
            self._leave()

    def _leave(self) -> None:
        """Give a turn back: the next in line has it at once, so that no one overtakes."""
        while self._queues:
            tenant, queue = next(iter(self._queues.items()))
            one = queue.popleft()
            if queue:
                self._queues.move_to_end(tenant)
            else:
                del self._queues[tenant]
            if not one.slot.done():  # one whose task was cancelled has yet to find out
                one.slot.set_result(None)
                self._notify()
                return
        self.in_flight -= 1
        self._notify()

    def _make_room(self, tenant: str) -> None:
        """Send away the last of the longest line, unless it is the caller's own.

        Raises:
            ServerBusy: It is.
        """
        longest = max(self._queues, key=lambda t: _count_limited(self._queues[t]), default=tenant)
        queue = self._queues.get(longest, deque())
        if _count_limited(queue) <= _count_limited(self._queues.get(tenant, ())) + 1:
            raise self._busy(f"{self.in_flight} runs are under way and {self.waiting} wait")
        last = next(one for one in reversed(queue) if not one.unlimited)
        queue.remove(last)
        _reject(last, self._busy("it has made room for a tenant with fewer requests"))

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
