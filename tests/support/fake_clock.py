"""A clock that tests advance: the event loop's, on which all intervals of the package are measured (`core.clock`).

Asynchronous tests run on a `FakeClockLoop`. Its time is the process' until the fixture `clock` holds it. From then on
it moves only when the test lets it, and only while nothing else can happen: no callback is ready, no socket has data,
and no thread works for the loop (its executor, a run store). So neither the order of events nor their times depend on
the machine.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from unittest import mock

from reason.core.store.group_commit import GroupCommit

T = TypeVar("T")

DELIVERY_S = 0.005
"""Seconds that the kernel of a busy machine may take to deliver what one socket of the process sends to another."""


class FakeClock:
    """The held time of an event loop, in seconds.

    Attributes:
        flows: Let time pass whenever everything waits, not only in `run`: for clients and servers on one loop.
    """

    def __init__(self, now: float) -> None:
        self.flows = False
        self.began = self.now = math.ceil(now)  # with whole seconds sums of short times are exact
        self._goal: float | None = None
        self._reached: asyncio.Future[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._timer_set: asyncio.Future[None] | None = None

    @property
    def elapsed(self) -> float:
        """Seconds that have passed since the clock was held."""
        return round(self.now - self.began, 6)

    async def settle(self) -> None:
        """Let run what can run: afterwards all tasks wait for time, for another process, or for the test."""
        await self.advance(0)

    async def advance(self, seconds: float) -> None:
        """Let time pass. What is due meanwhile runs in order, each at its own time and as far as it can."""
        await self._move_to(self.now + seconds)

    def skip(self, seconds: float) -> None:
        """Let time pass at once, as for work that blocks the event loop; what is due runs afterwards."""
        self.now += seconds

    async def run(self, work: Awaitable[T]) -> T:
        """The result of work, for which time passes whenever it waits."""
        task = asyncio.ensure_future(work)
        task.add_done_callback(lambda _: self._stop())
        try:
            await self._move_to(math.inf)
        except asyncio.CancelledError:
            task.cancel()
            raise
        return await task

    async def timer(self, seconds: float) -> None:
        """Wait until something is due in so many seconds: a sleep, a timeout, a timer. No time passes.

        For work that waits for a server or a process before; `settle` does not know of those.
        """
        when = self.now + seconds
        while not any(abs(t.when() - when) < 1e-6 and not t.cancelled() for t in self._timers):
            self._timer_set = asyncio.get_running_loop().create_future()
            await self._timer_set

    # -- for the loop

    def on_timer(self, timer: asyncio.TimerHandle) -> None:
        """Take notice of a new timer."""
        self._timers = [t for t in self._timers if t.when() > self.now and not t.cancelled()] + [timer]
        if self._timer_set is not None and not self._timer_set.done():
            self._timer_set.set_result(None)

    def on_idle(self, next_timer_s: float | None) -> bool:
        """Move time to the next timer or to the goal; returns whether there was a move to make."""
        goal = math.inf if self._goal is None and self.flows else self._goal
        if goal is None:
            return False
        if next_timer_s is not None and self.now + next_timer_s <= goal:
            self.now += next_timer_s
        elif goal < math.inf:
            self.now = goal
            self._stop()
        else:
            return False
        return True

    async def _move_to(self, goal: float) -> None:
        assert self._goal is None, "another task moves the time already"
        self._goal, self._reached = goal, asyncio.get_running_loop().create_future()
        try:
            await self._reached
        finally:
            self._goal = None

    def _stop(self) -> None:
        self._goal = None
        if self._reached is not None and not self._reached.done():
            self._reached.set_result(None)


class FakeClockLoop(asyncio.SelectorEventLoop):
    """An event loop whose time can be held.

    Attributes:
        num_outside: Results that threads owe to the loop.
    """

    def __init__(self) -> None:
        self._clock: FakeClock | None = None
        self._offset = 0.0
        self.num_outside = 0
        super().__init__(_Selector(self._on_select))

    def time(self) -> float:
        """The held time, or the process' plus what has been advanced."""
        return super().time() + self._offset if self._clock is None else self._clock.now

    @contextmanager
    def held(self) -> Iterator[FakeClock]:
        """Hold the time inside of the block."""
        clock = self._clock = FakeClock(self.time())
        try:
            with mock.patch.multiple(GroupCommit, open=_open, _submit=_submit):
                yield clock
        finally:
            self._clock = None
            self._offset = clock.now - super().time()

    def call_at(self, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        """Set a timer."""
        timer = super().call_at(*args, **kwargs)
        if self._clock is not None:
            self._clock.on_timer(timer)
        return timer

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:
        """Start work in a thread."""
        return self.expect(super().run_in_executor(executor, func, *args))

    def expect(self, result: asyncio.Future[T]) -> asyncio.Future[T]:
        """Let no time pass until a thread has set a result."""
        self.num_outside += 1
        result.add_done_callback(self._on_result)
        return result

    def _on_result(self, _: object) -> None:
        self.num_outside -= 1

    def _on_select(self, select: Callable[[float | None], list[Any]], timeout: float | None) -> list[Any]:
        if self._clock is None:
            return select(timeout)
        events = select(0)
        if events or timeout == 0:
            return events
        if not self.num_outside:
            if len(self._selector.get_map()) > 1:  # more than the loop's own: what was just sent may be on its way
                events = select(DELIVERY_S)
            if events or self._clock.on_idle(timeout):
                return events
        return select(None)


class _Selector(selectors.DefaultSelector):
    def __init__(self, on_select: Callable[[Callable[[float | None], list[Any]], float | None], list[Any]]) -> None:
        super().__init__()
        self._on_select = on_select

    def select(self, timeout: float | None = None) -> list[Any]:
        return self._on_select(super().select, timeout)


_real_open, _real_submit = GroupCommit.open, GroupCommit._submit


async def _open(self: GroupCommit) -> None:
    await _expect(asyncio.ensure_future(_real_open(self)))


def _submit(self: GroupCommit, *args: Any, **kwargs: Any) -> asyncio.Future[Any]:
    return _expect(_real_submit(self, *args, **kwargs))


def _expect(result: asyncio.Future[T]) -> asyncio.Future[T]:
    loop = asyncio.get_running_loop()
    return loop.expect(result) if isinstance(loop, FakeClockLoop) else result
