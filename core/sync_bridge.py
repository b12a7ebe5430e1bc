"""`SyncBridge`: asynchronous work for synchronous callers."""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakSet

T = TypeVar("T")

CANCELLED_POLL_S = 0.1
"""Seconds after which a synchronous call on an event loop sees that its task is cancelled."""
MAX_EXIT_S = 2.0
"""Maximum seconds that a program without `close` waits at its end for its connections to be closed."""


class SyncBridge:
    """Runs asynchronous work for synchronous callers, on the event loop of a thread of its own, started at first use.

    A notebook's cell runs inside an event loop, where `asyncio.run` is refused; here the work runs on another thread's
    loop and the caller waits for it. Interrupting the caller cancels the work and waits for its clean-up. The thread
    does not keep the program from ending.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run the coroutine that `work` makes, and return its result or raise its error."""
        loop = self._started()
        tasks: list[asyncio.Task[Any]] = []
        ended = threading.Event()

        async def tracked() -> T:
            task = asyncio.current_task()
            assert task is not None
            tasks.append(task)
            try:
                return await work()
            finally:
                ended.set()

        try:
            return _wait(asyncio.run_coroutine_threadsafe(tracked(), loop))
        except BaseException:
            if not ended.is_set():  # the caller was interrupted, not the work
                asyncio.run_coroutine_threadsafe(_yield(), loop).result()  # after it, the work has started
                if tasks:  # the interrupt did not come before the work was submitted
                    # not the future's `cancel()`, which would also cancel what the work awaits for its clean-up
                    loop.call_soon_threadsafe(tasks[0].cancel)
                    ended.wait()
            raise

    def close(self, timeout_s: float | None = None) -> None:
        """End the loop and its thread, and close its connections; idempotent."""
        with self._lock:
            if self._loop is not None and self._thread is not None:
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join(timeout_s)
            self._loop = self._thread = None

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_run_loop, args=(self._loop,), name="reason-sync", daemon=True)
                self._thread.start()
                _bridges.add(self)
            return self._loop


def _wait(future: Future[T]) -> T:
    """The result of work on another thread."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop runs in this thread
        task = None
    if task is None:
        return future.result()
    cancelling = task.cancelling()
    while not wait([future], CANCELLED_POLL_S).done:
        if task.cancelling() > cancelling:
            raise asyncio.CancelledError
    return future.result()


_bridges: WeakSet[SyncBridge] = WeakSet()


@atexit.register
def _close_bridges() -> None:
    """Close the connections of programs that end without `close`."""
    for bridge in tuple(_bridges):
        bridge.close(MAX_EXIT_S)


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop until it is stopped, and close it."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        loop.run_until_complete(loop.shutdown_asyncgens())
        with suppress(RuntimeError):  # at the end of the program no thread can be started, and none is left to end
            loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


async def _yield() -> None:
    pass
