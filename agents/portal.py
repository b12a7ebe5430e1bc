"""`Portal`: runs asynchronous work for callers that are not asynchronous, also inside a running event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

T = TypeVar("T")


class Portal:
    """An event loop on a thread of its own, started at first use.

    A notebook's cell runs inside an event loop, where `asyncio.run` is refused; here the work runs on another thread's
    loop and the caller waits for it. Interrupting the caller cancels the work and waits for its clean-up.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: AbstractContextManager[BlockingPortal] | None = None
        self._portal: BlockingPortal | None = None

    def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run the coroutine that `work` makes, and return its result or raise its error."""
        with self._lock:
            if self._portal is None:
                self._running = start_blocking_portal("asyncio")
                self._portal = self._running.__enter__()
        portal = self._portal
        begun: list[asyncio.Task[Any]] = []
        ended = threading.Event()

        async def known() -> T:
            task = asyncio.current_task()
            assert task is not None
            begun.append(task)
            try:
                return await work()
            finally:
                ended.set()

        try:
            result: T = portal.start_task_soon(known).result()
            return result
        except BaseException:
            if not ended.is_set():  # the caller was interrupted, not the work
                portal.call(_nothing)  # behind it, the work has begun
                if begun:  # the interrupt did not come before it was handed over
                    # not the future's `cancel()`, which would cancel what the work awaits for its clean-up as well
                    begun[0].get_loop().call_soon_threadsafe(begun[0].cancel)
                    ended.wait()
            raise

    def close(self) -> None:
        """End the loop and its thread; idempotent."""
        with self._lock:
            if self._running is not None:
                self._running.__exit__(None, None, None)
            self._running = self._portal = None


async def _nothing() -> None:
    """Take a turn on the loop."""
