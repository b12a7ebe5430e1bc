"""`TokenClock`: replays recorded samples in the order in which they would finish, token step by token step.

Samples in flight together advance together, one token a step, so the shortest remaining one finishes first. No time
passes: the clock jumps from one finished sample to the next. It stands still while those who wait for samples still
work on the last one: they may cancel the others, or start new ones, as of that step.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

SETTLE_TURNS = 16
"""Turns of the event loop in which nothing happens before the clock advances: a listener has woken its tasks, they have
checked their stopping rule, and have cancelled a call or begun another."""


@dataclass(eq=False)
class Playback:
    """One sample while it is replayed.

    Attributes:
        length: Its tokens.
        on_finish: Called when it has finished.
        start: Step at which it began.
        tokens: Tokens that it has generated: all of them, or as far as it got when it was cancelled.
    """

    length: int
    on_finish: Callable[[], None]
    start: int = 0
    tokens: int = 0


@dataclass(eq=False)
class _Call:
    open: set[Playback]
    done: asyncio.Future[None]
    is_waiting: bool = True


class TokenClock:
    """The clock of the samples that belong to one run on one question."""

    def __init__(self) -> None:
        self.now = 0
        """Steps so far."""
        self._queue: list[tuple[int, int, Playback, _Call]] = []
        self._order = itertools.count()
        self._holds = 0
        self._waiting = 0
        self._changes = 0
        self._released = asyncio.Event()
        self._driver: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in flight and nobody holds it."""
        return not self._queue and not self._holds and not self._waiting

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Stop the clock, except while the holder waits in `play`."""
        self._holds += 1
        self._changed()
        try:
            yield
        finally:
            self._holds -= 1
            self._changed()

    async def play(self, samples: Sequence[Playback]) -> None:
        """Replay samples from the present step on, until all have finished.

        Cancelling stops them where they are (`Playback.tokens`).
        """
        if not samples:
            return
        call = _Call(set(samples), asyncio.get_running_loop().create_future())
        for sample in samples:
            sample.start = self.now
            heapq.heappush(self._queue, (self.now + sample.length, next(self._order), sample, call))
        self._waiting += 1
        self._changed()
        if self._driver is None:
            self._driver = asyncio.get_running_loop().create_task(self._advance())
        try:
            await call.done
        finally:
            if call.open:
                for sample in call.open:
                    sample.tokens = min(sample.length, self.now - sample.start)
                self._queue = [entry for entry in self._queue if entry[3] is not call]
                heapq.heapify(self._queue)
            self._leave(call)

    def _leave(self, call: _Call) -> None:
        """The call no longer waits: its caller works on what it got."""
        if call.is_waiting:
            call.is_waiting = False
            self._waiting -= 1
            self._changed()

    def _changed(self) -> None:
        self._changes += 1
        self._released.set()

    async def _advance(self) -> None:
        """Finish the samples in their order, while there are any."""
        try:
            while self._queue:
                await self._settled()
                if not self._queue:
                    break
                self.now = self._queue[0][0]
                while self._queue and self._queue[0][0] == self.now:
                    _, _, sample, call = heapq.heappop(self._queue)
                    self._finish(sample, call)
        finally:
            self._driver = None

    def _finish(self, sample: Playback, call: _Call) -> None:
        sample.tokens = sample.length
        call.open.discard(sample)
        try:
            sample.on_finish()
        except Exception as e:  # noqa: BLE001 (it belongs to the caller, who awaits the call)
            if not call.done.done():
                call.done.set_exception(e)
        if not call.open and not call.done.done():
            call.done.set_result(None)
        if call.done.done():
            self._leave(call)

    async def _settled(self) -> None:
        """Wait until nobody works on what has finished."""
        turns, changes = 0, self._changes
        while turns < SETTLE_TURNS:
            if self._holds > self._waiting:
                self._released.clear()
                await self._released.wait()
            else:
                await asyncio.sleep(0)
            turns, changes = (turns + 1, changes) if changes == self._changes else (0, self._changes)
