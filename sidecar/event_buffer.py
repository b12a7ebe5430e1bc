"""`EventBuffer`: one run's events for any number of readers; a slow one neither delays the run nor loses an event."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

from ..core.errors import StoreError
from ..core.events import Event, EventsDropped, TextDelta

StoredEvents = Callable[[int, int], Awaitable[Sequence[Event]]]
"""Reads stored events with a number above the first argument, up to as many as the second."""

MAX_EVENTS = 512
MAX_TEXT_DELTAS = 4096
PAGE_SIZE = 256
SAVE_TIMEOUT_S = 30.0
"""How long a reader that fell after waits for the store to have what it missed; events are saved every second."""


class EventBuffer:
    """A sink that keeps the newest events of a run; anyone who needs older ones reads them from the store.

    Memory is bounded whatever the readers do. Text deltas are nowhere stored: each reader that wants them has a queue
    of its own, whose oldest give way, and is reported how many it missed.

    Args:
        stored: Reads the run's stored events.
        on_text_wanted: Called when the first reader wants text deltas, and when none does any more.
        max_events: Maximum number of events kept.
        max_text_deltas: Maximum number of text deltas that wait for one reader.

    Attributes:
        last: Number of the last event but text deltas.
    """

    def __init__(
        self,
        stored: StoredEvents,
        on_text_wanted: Callable[[bool], None] = lambda _: None,
        *,
        max_events: int = MAX_EVENTS,
        max_text_deltas: int = MAX_TEXT_DELTAS,
    ) -> None:
        self._stored, self._on_text_wanted = stored, on_text_wanted
        self._window: deque[Event] = deque()
        self._max_events, self._max_text_deltas = max_events, max_text_deltas
        self._last_dropped = 0
        """Number of the newest event that is no longer kept."""
        self._texts: list[_TextQueue] = []
        self._expected: _TextQueue | None = None
        self._changed: asyncio.Future[None] | None = None
        self.last = 0
        self.closed = False

    @property
    def wants_text(self) -> bool:
        """Whether a reader wants text deltas."""
        return bool(self._texts)

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if isinstance(event, TextDelta):
            for texts in self._texts:
                texts.add(event)
        else:
            if len(self._window) >= self._max_events:
                self._last_dropped = self._window.popleft().number
            self._window.append(event)
            self.last = event.number
        self._notify()

    def close(self) -> None:
        """No more events will come; idempotent."""
        self.closed = True
        self._notify()

    def skip_to(self, number: int) -> None:
        """Know that the run had events up to a number before this buffer was there."""
        self._last_dropped = max(self._last_dropped, number)
        self.last = max(self.last, number)

    def expect_text(self) -> None:
        """Keep text deltas from now on for a reader that is yet to come; the first that wants text has them."""
        self._expected = _TextQueue(self._max_text_deltas)
        self._texts.append(self._expected)
        self._on_text_wanted(True)

    async def read(self, after: int = 0, *, text: bool = False) -> AsyncGenerator[Event, None]:
        """The events with a higher number, in order, each once, until `close`.

        Args:
            after: Number of the last event that the reader has.
            text: Whether it wants text deltas; of those, the ones from now on, or from `expect_text` on.

        Raises:
            StoreError: What the reader missed is not in the store.
        """
        texts, self._expected = (self._expected, None) if text else (None, self._expected)
        if text and texts is None:
            texts = _TextQueue(self._max_text_deltas)
            self._texts.append(texts)
            self._on_text_wanted(True)
        try:
            while True:
                closed = self.closed  # what came before it was closed is read in this round
                up_to: int | None = None
                if after < self._last_dropped:
                    batch = await self._read_missed(after)
                    up_to = batch[-1].number
                else:
                    batch = self._buffered_after(after)
                deltas = [] if texts is None else texts.take(up_to)
                for event in heapq.merge(batch, deltas, key=_order):
                    yield event
                    after = max(after, event.number)
                if batch or deltas:
                    continue
                if closed:
                    return
                await self._wait()
        finally:
            if texts is not None:
                self._texts.remove(texts)
                self._on_text_wanted(self.wants_text)

    def _buffered_after(self, number: int) -> list[Event]:
        newer = list(itertools.takewhile(lambda event: event.number > number, reversed(self._window)))
        newer.reverse()
        return newer

    async def _read_missed(self, after: int) -> Sequence[Event]:
        """What a reader that fell after has missed, or a beginning of it; waits until the store has it."""
        waited = 0.0
        while True:
            missed = [e for e in await self._stored(after, PAGE_SIZE) if e.number <= self._last_dropped]
            if missed:
                return missed
            if waited >= SAVE_TIMEOUT_S or self.closed:
                raise StoreError(f"the events after number {after} are not in the run store")
            await asyncio.sleep(0.1)
            waited += 0.1

    async def _wait(self) -> None:
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._changed)

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed.set_result(None)
            self._changed = None


class _TextQueue:
    """The text deltas that wait for one reader."""

    def __init__(self, max_events: int) -> None:
        self._waiting: deque[TextDelta] = deque()
        self._max_events = max_events
        self._dropped = 0

    def add(self, event: TextDelta) -> None:
        if len(self._waiting) >= self._max_events:
            self._waiting.popleft()
            self._dropped += 1
        self._waiting.append(event)

    def take(self, up_to: int | None) -> list[Event]:
        """Those up to a number, or all, taken away; before them, how many were missed."""
        taken: list[Event] = []
        if self._dropped:
            taken.append(EventsDropped(count=self._dropped))
            self._dropped = 0
        while self._waiting and (up_to is None or self._waiting[0].number <= up_to):
            taken.append(self._waiting.popleft())
        return taken


def _order(event: Event) -> int:
    return event.number
