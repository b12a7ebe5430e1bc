"""`EventBuffer`: distributes the events of a run to any number of readers; slow readers do not delay the run."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

from ..core.errors import StoreError
from ..core.events import Event, EventsDropped, TextDelta

StoredEvents = Callable[[int, int], Awaitable[Sequence[Event]]]
"""Reads the stored events after a number (first argument), at most as many as the second argument."""

MAX_EVENTS = 512
MAX_TEXT_DELTAS = 4096
PAGE_SIZE = 256
SAVE_TIMEOUT_S = 30.0
"""Maximum time in seconds that a reader waits for evicted events to be in the store; events are saved every second."""


class EventBuffer:
    """An event sink that keeps the newest events of a run; readers that fell behind get older ones from the store.

    Memory is bounded. Text deltas are not stored: each reader that requests them has its own queue, which drops the
    oldest deltas when it is full and reports their number in an `EventsDropped` event.

    Args:
        stored: Reads the stored events of the run.
        on_text_wanted: Called with whether any reader wants text deltas, when readers of text come or leave.
        max_events: Maximum number of buffered events.
        max_text_deltas: Maximum number of queued text deltas per reader.

    Attributes:
        last: Number of the last event, not counting text deltas.
        closed: Whether `close` was called.
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
        """Number of the newest event evicted from the window."""
        self._texts: list[_TextQueue] = []
        self._expected: _TextQueue | None = None
        self._readers: list[asyncio.Future[None]] = []
        """Readers that wait for an event."""
        self.last = 0
        self.closed = False

    @property
    def wants_text(self) -> bool:
        """Whether any reader wants text deltas."""
        return bool(self._texts)

    def __call__(self, event: Event) -> None:
        """Add an event and wake the readers."""
        if isinstance(event, TextDelta):
            for texts in self._texts:
                texts.add(event)
        else:
            if len(self._window) >= self._max_events:
                self._last_dropped = self._window.popleft().number
            self._window.append(event)
            self.last = event.number
        if self._readers:
            self._notify()

    def close(self) -> None:
        """Mark the end of the events; idempotent."""
        self.closed = True
        self._notify()

    def skip_to(self, number: int) -> None:
        """Treat the events up to a number as evicted, for a run that began before this buffer existed."""
        self._last_dropped = max(self._last_dropped, number)
        self.last = max(self.last, number)

    def expect_text(self) -> None:
        """Queue text deltas from now on for the next reader that requests text."""
        self._expected = _TextQueue(self._max_text_deltas)
        self._texts.append(self._expected)
        self._on_text_wanted(True)

    async def read(self, after: int = 0, *, text: bool = False) -> AsyncGenerator[Sequence[Event], None]:
        """Yield the events after a number, in order and each once, all that are there together, until `close`.

        Args:
            after: Number of the last event that the reader has.
            text: Whether to include text deltas, from this call or from `expect_text` on.

        Raises:
            StoreError: An evicted event is not in the store.
        """
        texts, self._expected = (self._expected, None) if text else (None, self._expected)
        if text and texts is None:
            texts = _TextQueue(self._max_text_deltas)
            self._texts.append(texts)
            self._on_text_wanted(True)
        try:
            while True:
                closed = self.closed  # read before the events: those added before `close` are part of this round
                up_to: int | None = None
                if after < self._last_dropped:
                    batch = await self._read_missed(after)
                    up_to = batch[-1].number
                else:
                    batch = self._buffered_after(after)
                deltas = [] if texts is None else texts.take(up_to)
                events = [*heapq.merge(batch, deltas, key=_order)] if batch and deltas else batch or deltas
                if events:
                    yield events
                    after = max(after, events[-1].number)
                    continue
                if closed:
                    return
                await self._wait()
        finally:
            if texts is not None:
                self._texts.remove(texts)
                self._on_text_wanted(self.wants_text)

    def _buffered_after(self, number: int) -> list[Event]:
        newer: list[Event] = []
        for event in reversed(self._window):
            if event.number <= number:
                break
            newer.append(event)
        newer.reverse()
        return newer

    async def _read_missed(self, after: int) -> Sequence[Event]:
        """A first page of the evicted events after a number; waits until the store has them."""
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
        changed = asyncio.get_running_loop().create_future()
        self._readers.append(changed)
        await changed

    def _notify(self) -> None:
        readers, self._readers = self._readers, []
        for changed in readers:
            if not changed.done():  # the reader was cancelled
                changed.set_result(None)


class _TextQueue:
    """The text deltas queued for one reader."""

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
        """Remove and return the deltas up to a number, or all, preceded by `EventsDropped` if any were dropped."""
        taken: list[Event] = []
        if self._dropped:
            taken.append(EventsDropped(count=self._dropped))
            self._dropped = 0
        while self._waiting and (up_to is None or self._waiting[0].number <= up_to):
            taken.append(self._waiting.popleft())
        return taken


def _order(event: Event) -> int:
    return event.number
