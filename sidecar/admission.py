"""`AdmissionFilter`: how many runs are under way at once, who waits for a turn, and who is sent away.

Turns go round the tenants that wait, one each, and within a tenant to whoever came first. Where the queue is full, the
tenant with the longest line gives way to one with a shorter line: nobody can fill the queue for the others.
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
"""Hears how many runs are under way and how many callers wait, whenever that changes; must be quick."""

INITIAL_RUN_S = 5.0
MAX_RETRY_AFTER_S = 60.0


@dataclass(eq=False)
class _Waiter:
    """A caller in line; `turn` ends with the turn, or with why there is none."""

    turn: asyncio.Future[None]
    patient: bool


class Admission:
    """Turns for runs. Used from one event loop; every method is atomic there.

    Args:
        max_runs: Most runs under way at once.
        max_waiting: Most callers that wait, all tenants together and patient ones not counted; more are sent away.
        max_wait_s: Longest wait, in seconds.
        told: Hears of every change.
        gave_up: Hears of each caller that was cancelled while it waited.
        clock: Monotonic seconds; replaced in tests.
    """

    def __init__(
        self,
        max_runs: int,
        max_waiting: int,
        max_wait_s: float,
        *,
        told: AdmissionObserver | None = None,
        gave_up: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_runs, self._max_waiting, self._max_wait_s = max_runs, max_waiting, max_wait_s
        self._told, self._gave_up, self._clock = told, gave_up, clock
        self._lines: OrderedDict[str, deque[_Waiter]] = OrderedDict()
        """Who waits, by tenant; the tenant whose turn is next comes first, and none is empty."""
        self._closed = False
        self._held_s = INITIAL_RUN_S
        self.in_flight = 0
        """Turns that are taken."""

    @property
    def waiting(self) -> int:
        """Callers that wait."""
        return sum(map(len, self._lines.values()))

    @asynccontextmanager
    async def turn(self, tenant: str, *, patient: bool = False) -> AsyncIterator[None]:
        """Hold a turn; wait for one where all are taken.

        Args:
            tenant: On whose behalf.
            patient: Wait as long as it takes, and also where the queue is full: for runs that nobody waits for.

        Raises:
            ServerBusy: The queue is full, or no turn came in time.
            ShuttingDown: No new runs are taken.
        """
        await self._enter(tenant, patient)
        begun = self._clock()
        try:
            yield
        finally:
            # the last runs count most; what a run holds a turn for is all that is known of when the next is free
            self._held_s += (self._clock() - begun - self._held_s) / 8
            self._leave()

    def close(self) -> None:
        """Take no new runs, and send away whoever waits; idempotent."""
        self._closed = True
        lines, self._lines = self._lines, OrderedDict()
        for line in lines.values():
            for one in line:
                _reject(one, ShuttingDown())
        self._tell()

    async def _enter(self, tenant: str, patient: bool) -> None:
        if self._closed:
            raise ShuttingDown
        if self.in_flight < self._max_runs:  # then nobody waits: a turn that is given back goes to them first
            self.in_flight += 1
            self._tell()
            return
        if not patient and sum(map(_impatient, self._lines.values())) >= self._max_waiting:
            self._make_room(tenant)
        mine = _Waiter(asyncio.get_running_loop().create_future(), patient)
        self._lines.setdefault(tenant, deque()).append(mine)
        self._tell()
        try:
            async with asyncio.timeout(None if patient else self._max_wait_s):
                await mine.turn
        except BaseException as e:
            self._give_up(tenant, mine)
            if isinstance(e, TimeoutError):
                raise self._busy(f"no turn came within {self._max_wait_s:g} s") from None
            if isinstance(e, asyncio.CancelledError) and self._gave_up is not None:
                self._gave_up()
            raise

    def _give_up(self, tenant: str, mine: _Waiter) -> None:
        """Leave the line; a turn that came at the same moment goes on to the next."""
        line = self._lines.get(tenant)
        if line is not None and mine in line:
            line.remove(mine)
            if not line:
                del self._lines[tenant]
            self._tell()
        elif mine.turn.done() and not mine.turn.cancelled() and mine.turn.exception() is None:
            self._leave()

    def _leave(self) -> None:
        """Give a turn back: the next in line has it at once, so that nobody overtakes."""
        while self._lines:
            tenant, line = next(iter(self._lines.items()))
            one = line.popleft()
            if line:
                self._lines.move_to_end(tenant)
            else:
                del self._lines[tenant]
            if not one.turn.done():  # one whose task was cancelled has yet to find out
                one.turn.set_result(None)
                self._tell()
                return
        self.in_flight -= 1
        self._tell()

    def _make_room(self, tenant: str) -> None:
        """Send away the last of the longest line, unless it is the caller's own.

        Raises:
            ServerBusy: It is.
        """
        longest = max(self._lines, key=lambda t: _impatient(self._lines[t]), default=tenant)
        line = self._lines.get(longest, deque())
        if _impatient(line) <= _impatient(self._lines.get(tenant, ())) + 1:
            raise self._busy(f"{self.in_flight} runs are under way and {self.waiting} wait")
        last = next(one for one in reversed(line) if not one.patient)
        line.remove(last)
        _reject(last, self._busy("it has made room for a tenant with fewer requests"))

    def _busy(self, why: str) -> ReasonError:
        wait = self._held_s * (self.waiting + 1) / self._max_runs
        return ServerBusy(
            f"the server is busy: {why}",
            retry_after_s=math.ceil(min(max(wait, 1.0), MAX_RETRY_AFTER_S)),
            hint="try again later",
        )

    def _tell(self) -> None:
        if self._told is not None:
            self._told(self.in_flight, self.waiting)


def _impatient(line: Iterable[_Waiter]) -> int:
    return sum(not one.patient for one in line)


def _reject(one: _Waiter, why: ReasonError) -> None:
    if not one.turn.done():
        one.turn.set_exception(why)
