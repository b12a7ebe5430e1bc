"""The engine's thread, the only one that touches torch, and the calls that wait for it on event loops."""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch

from ...core.errors import BackendError, BackendUnavailable, ReasonError
from .prefix_cache import PrefixCache
from .scheduler import Scheduler
from .tasks import ExclusiveTask, Work


class EngineThread:
    """Runs a scheduler's steps on a thread of its own, while there is work.

    Args:
        num_threads: How many of torch's threads it uses; a function chooses, on the engine's thread.
        after_step: Called on the thread after every step: delivers what the step produced.
    """

    def __init__(
        self, scheduler: Scheduler, num_threads: int | Callable[[], int], after_step: Callable[[], None]
    ) -> None:
        self._scheduler, self._after_step = scheduler, after_step
        self._num_threads = num_threads
        self._changed = threading.Condition()
        self._inbox: deque[Work] = deque()
        self._closing = False
        self._threads_before = torch.get_num_threads()
        self._thread = threading.Thread(target=self._main, name="reason-local-engine", daemon=True)
        self._thread.start()
        atexit.register(self.close)  # a daemon thread that ends within torch aborts the process

    def submit(self, tasks: list[Work]) -> None:
        """Hand over work.

        Raises:
            BackendUnavailable: The engine is closed.
        """
        with self._changed:
            if self._closing:
                raise BackendUnavailable("the local engine is closed", hint="load the model again")
            self._inbox.extend(tasks)
            self._changed.notify()

    def wake(self) -> None:
        """Have the thread look at its tasks' `cancelled` flags soon."""
        with self._changed:
            self._changed.notify()

    def close(self) -> None:
        """End the thread after the running step; what has not finished is failed. Idempotent."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not threading.current_thread():
            self._thread.join()
        atexit.unregister(self.close)

    def _main(self) -> None:
        # Every thread has its own count once it is set, but new threads inherit the last one set anywhere.
        torch.set_num_threads(1)
        try:
            with torch.inference_mode():
                torch.set_num_threads(self._choose_threads())
                self._loop()
        finally:
            torch.set_num_threads(self._threads_before)

    def _choose_threads(self) -> int:
        if isinstance(self._num_threads, int):
            return self._num_threads
        try:
            return self._num_threads()
        except Exception:  # noqa: BLE001 - what is wrong with the model, its first call reports
            return 1

    def _loop(self) -> None:
        while self._take_inbox():
            try:
                self._scheduler.step()
            except BackendError:
                pass  # every task has been failed
            except Exception as error:  # noqa: BLE001 - whatever breaks, waiting calls must receive it
                self._scheduler.fail_all(BackendError(f"the local engine failed: {error!r}"))
            self._after_step()
        self._scheduler.fail_all(BackendUnavailable("the local engine was closed"))
        self._after_step()

    def _take_inbox(self) -> bool:
        """Move new tasks to the scheduler, waiting while there is none; False when closing."""
        with self._changed:
            while not (self._inbox or self._scheduler.has_work or self._closing):
                self._changed.wait()
            for task in self._inbox:
                self._scheduler.submit(task)
            self._inbox.clear()
            return not self._closing


class PendingCall:
    """A waiting call: collects what the engine's thread emits, and delivers it to the event loop once a step."""

    def __init__(self, on_item: Callable[[Any], None]) -> None:
        self.loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self.loop.create_future()
        self.tasks: list[Work] = []
        self._on_item = on_item
        self._items: list[Any] = []

    def emit(self, item: Any) -> None:
        """On the engine's thread: an item to deliver; a `ReasonError` fails the call."""
        self._items.append(item)

    def flush(self) -> None:
        """On the engine's thread, after a step: deliver what was emitted."""
        if not self._items:
            return
        items, self._items = self._items, []
        try:
            self.loop.call_soon_threadsafe(self._receive, items)
        except RuntimeError:  # the loop is closed
            self.cancel()

    def _receive(self, items: list[Any]) -> None:
        for item in items:
            if self.ended.done():
                return
            if isinstance(item, ReasonError):
                self.ended.set_exception(item)
                return
            try:
                self._on_item(item)
            except Exception as e:  # noqa: BLE001 - the listener's own error, which the caller must receive
                if not self.ended.done():
                    self.ended.set_exception(e)
                return

    def finish(self) -> None:
        """On the loop: everything was delivered."""
        if not self.ended.done():
            self.ended.set_result(None)

    def cancel(self) -> None:
        """From any thread: drop the work at the next step."""
        for task in self.tasks:
            task.cancelled = True


class CallQueue:
    """Runs calls on an engine's thread."""

    def __init__(self, scheduler: Scheduler, num_threads: int | Callable[[], int]) -> None:
        self._open: set[PendingCall] = set()
        self._lock = threading.Lock()
        self._thread = EngineThread(scheduler, num_threads, self._flush)

    async def run(self, call: PendingCall) -> None:
        """Submit a call and wait for its end; a cancelled wait cancels the work.

        Raises:
            BackendUnavailable: The engine is closed.
            ReasonError: A task failed with it.
            Exception: A listener raised it; the work is cancelled.
        """
        with self._lock:
            self._open.add(call)
        try:
            self._thread.submit(call.tasks)
            await call.ended
        finally:
            call.cancel()
            with self._lock:
                self._open.discard(call)
            self._thread.wake()

    async def run_one(self, make: Callable[[PendingCall], Work]) -> Any:
        """Run a call of one task, which emits one result.

        Args:
            make: Creates the task, whose results and errors go to `PendingCall.emit`.

        Raises:
            ReasonError: As `run`.
        """
        results: list[Any] = []

        def on_item(result: Any) -> None:
            results.append(result)
            call.finish()

        call = PendingCall(on_item)
        call.tasks.append(make(call))
        await self.run(call)
        return results[0]

    async def run_exclusive(self, compute: Callable[[PrefixCache, Callable[[], bool]], Any]) -> Any:
        """Run an `ExclusiveTask`; returns its result, and raises as `run`."""
        return await self.run_one(lambda call: ExclusiveTask(compute, call.emit, call.emit))

    def submit_detached(self, tasks: Sequence[Work]) -> None:
        """From any thread: submit work that nothing waits for. Does nothing if the engine is closed."""
        with suppress(BackendUnavailable):
            self._thread.submit(list(tasks))

    async def aclose(self) -> None:
        """End the thread; running calls are cancelled. Idempotent."""
        for call in tuple(self._open):
            call.cancel()
            with suppress(RuntimeError):  # its loop may be closed
                call.loop.call_soon_threadsafe(call.ended.cancel)
        await asyncio.to_thread(self._thread.close)

    def _flush(self) -> None:
        """On the engine's thread, after a step."""
        with self._lock:
            calls = tuple(self._open)
        for call in calls:
            call.flush()
