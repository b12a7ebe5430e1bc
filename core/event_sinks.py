"""Who hears of events: `MemorySink`, `JsonlSink`, `LiveSink`; and `read_events`, which reads a written trace."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextvars import copy_context
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import anyio

from .errors import DataError, StoreError
from .events import EVENT, EventFields, EventsDropped, Sink, TextDelta

log = logging.getLogger("reason.events")


class Audience:
    """The sinks of a run, which it tells of each event.

    Each hears in the context (`contextvars`) of whoever asked, whichever task or thread has the news: what a stream
    writer, a logger or a tracer looks up there is what it would find beside the question. One that raises hears no
    more, and its error is logged: listening cannot break a run, nor lose what it has paid for.

    Args:
        sinks: Who listens.
    """

    def __init__(self, sinks: Sequence[Sink] = ()) -> None:
        self._sinks = tuple(sinks)
        self._context = copy_context()

    def __call__(self, event: EventFields) -> None:
        """Tell them."""
        for sink in self._sinks:
            try:
                self._context.copy().run(sink, event)  # a copy: a sink may be told of one event while it hears another
            except Exception:
                log.exception("a listener failed at event %d of run %s and hears no more", event.number, event.run_id)
                self._sinks = tuple(other for other in self._sinks if other is not sink)


class MemorySink:
    """Keeps every event."""

    def __init__(self) -> None:
        self.events: list[EventFields] = []

    def __call__(self, event: EventFields) -> None:
        """Keep the event."""
        self.events.append(event)

    def of_type(self, kind: str) -> list[Any]:
        """The events of one type, in order."""
        return [e for e in self.events if getattr(e, "type", None) == kind]


class JsonlSink:
    """Writes every event but text deltas to a file, one JSON object a line; a context manager.

    A file that cannot be written any more (a full disk) does not stop the run, which has its events in the store as
    well: the trace ends there, and leaving the context tells so.

    Args:
        path: The file; replaced if it exists.

    Raises:
        StoreError: The file cannot be opened; on leaving the context, it could not be written to its end.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file: TextIO = path.open("w", encoding="utf-8")
        except OSError as e:
            raise StoreError(f"cannot write the trace to {path}: {e.strerror}", hint="choose another --trace") from e
        self._broken: OSError | None = None

    def __call__(self, event: EventFields) -> None:
        """Write the event."""
        if isinstance(event, TextDelta) or self._broken is not None:
            return
        try:
            self._file.write(event.model_dump_json() + "\n")
        except OSError as e:
            self._broken = e

    def __enter__(self) -> JsonlSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
        except OSError as e:
            self._broken = self._broken or e
        if self._broken is not None and error is None:
            raise StoreError(
                f"the trace {self._path} is incomplete: {self._broken.strerror}",
                hint="`reason runs show RUN --trace FILE` writes it again from the run store",
            ) from self._broken


class LiveSink:
    """Hands events to one asynchronous reader without ever holding up the run.

    When the reader falls `capacity` events behind, the oldest text delta gives way, and if there is none, the oldest
    event; the reader is told how many it missed.

    Args:
        capacity: Most events waiting.
    """

    def __init__(self, capacity: int = 4096) -> None:
        self._waiting: deque[EventFields] = deque()
        self._capacity = capacity
        self._dropped = 0
        self._closed = False
        self._news = anyio.Event()

    def __call__(self, event: EventFields) -> None:
        """Queue the event."""
        if len(self._waiting) >= self._capacity:
            self._make_room()
        self._waiting.append(event)
        self._news.set()

    def close(self) -> None:
        """End the iteration once the waiting events are read."""
        self._closed = True
        self._news.set()

    def _make_room(self) -> None:
        for i, waiting in enumerate(self._waiting):
            if isinstance(waiting, TextDelta):
                del self._waiting[i]
                break
        else:
            self._waiting.popleft()
        self._dropped += 1

    async def __aiter__(self) -> AsyncIterator[EventFields]:
        """The events, in order, until `close`."""
        while True:
            while self._waiting:
                if self._dropped:
                    missed, self._dropped = self._dropped, 0
                    yield EventsDropped(count=missed)
                yield self._waiting.popleft()
            if self._closed:
                return
            self._news = anyio.Event()
            await self._news.wait()


def read_events(path: Path) -> list[EventFields]:
    """Read a trace that `JsonlSink` wrote.

    Raises:
        DataError: The file is missing or a line is not an event; names file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"cannot read the trace {path}: {e}") from e
    events: list[EventFields] = []
    for n, line in enumerate(lines, 1):
        try:
            events.append(EVENT.validate_json(line))
        except ValueError as e:
            raise DataError(f"{path}:{n}: not an event", hint="the file may be cut short") from e
    return events
