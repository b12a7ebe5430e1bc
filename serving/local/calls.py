"""Calls: between the event loops that wait and the engine's one thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from ...core.errors import BackendUnavailable, ReasonError
from .scheduler import Scheduler
from .tasks import Work
from .worker import Worker


class Call:
    """One awaiting call: collects what the engine's thread tells, and hands it to the event loop once a step."""

    def __init__(self, hear: Callable[[Any], None]) -> None:
        self.loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self.loop.create_future()
        self.tasks: list[Work] = []
        self._hear = hear
        self._told: list[Any] = []
        self._lock = threading.Lock()

    def tell(self, item: Any) -> None:
        """On the engine's thread: something to hand on."""
        self._told.append(item)

    def flush(self) -> bool:
        """On the engine's thread, after a step: hand on what was told. False if nobody listens any more."""
        if not self._told:
            return True
        items, self._told = self._told, []
        try:
            self.loop.call_soon_threadsafe(self._receive, items)
        except RuntimeError:  # the loop is closed
            self.cancel()
            return False
        return True

    def _receive(self, items: list[Any]) -> None:
        for item in items:
            if self.ended.done():
                return
            if isinstance(item, ReasonError):
                self.ended.set_exception(item)
                return
            try:
                self._hear(item)
            except Exception as e:  # noqa: BLE001 (the listener's own, whatever it is: who waits must hear of it)
                if not self.ended.done():
                    self.ended.set_exception(e)
                return

    def finish(self) -> None:
        """On the loop: all has come."""
        if not self.ended.done():
            self.ended.set_result(None)

    def cancel(self) -> None:
        """From any thread: drop the work at the next step."""
        for task in self.tasks:
            task.cancelled = True


class Calls:
    """The engine's thread and the calls that wait for it.

    Args:
        scheduler: What the thread runs.
        threads: Threads torch may use for a step.
    """

    def __init__(self, scheduler: Scheduler, threads: int) -> None:
        self._open: set[Call] = set()
        self._lock = threading.Lock()
        self._worker = Worker(scheduler, threads, self._flush)

    async def run(self, call: Call) -> None:
        """Hand a call over and wait for its end; a cancelled wait cancels the work.

        Raises:
            BackendUnavailable: The engine is closed.
            ReasonError: What a task failed with.
            Exception: What a listener raised; the work is cancelled.
        """
        with self._lock:
            self._open.add(call)
        try:
            self._worker.submit(call.tasks)
            await call.ended
        finally:
            call.cancel()
            with self._lock:
                self._open.discard(call)
            self._worker.wake()

    def leave(self, tasks: Sequence[Work]) -> None:
        """From any thread: hand over work that nobody waits for. Nothing is done if the engine is closed."""
        with suppress(BackendUnavailable):
            self._worker.submit(list(tasks))

    async def aclose(self) -> None:
        """End the thread; calls under way are cancelled. Idempotent."""
        for call in tuple(self._open):
            call.cancel()
            with suppress(RuntimeError):  # its loop may be closed
                call.loop.call_soon_threadsafe(call.ended.cancel)
        await asyncio.to_thread(self._worker.close)

    def _flush(self) -> None:
        """On the engine's thread, after a step."""
        with self._lock:
            calls = tuple(self._open)
        for call in calls:
            call.flush()
