"""The engine's thread: it alone touches torch; the event loop hands it tasks and is told of what comes of them.

Calls: between the event loops that wait and the engine's one thread.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch

from ...core.errors import BackendError, BackendUnavailable, ReasonError
from .hardware import StepWatch
from .scheduler import Scheduler
from .tasks import Work


class Worker:
    """Runs a scheduler's steps on a thread of its own, while there is work.

    Args:
        scheduler: What to run.
        threads: Threads torch may use for a step.
        after_step: Called on the thread after every step: hands on what the step produced.
    """

    def __init__(self, scheduler: Scheduler, threads: int, after_step: Callable[[], None]) -> None:
        self._scheduler, self._after_step = scheduler, after_step
        self._watch = StepWatch(threads)
        self._changed = threading.Condition()
        self._inbox: deque[Work] = deque()
        self._closing = False
        self._threads_before = torch.get_num_threads()
        self._thread = threading.Thread(target=self._main, name="reason-local-engine", daemon=True)
        self._thread.start()

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
        """End the thread after the step under way; what was not finished is failed. Idempotent."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _main(self) -> None:
        # Every thread has its own count once it is set, but new threads inherit the last one set anywhere.
        torch.set_num_threads(self._watch.threads)
        try:
            with torch.inference_mode():
                self._loop()
        finally:
            torch.set_num_threads(self._threads_before)

    def _loop(self) -> None:
        while self._take():
            began = time.perf_counter()
            try:
                size = self._scheduler.step()
            except BackendError:
                size = None  # every task has been told
            except Exception as error:  # noqa: BLE001 - whatever breaks, those who wait must hear of it
                size = None
                self._scheduler.fail_all(BackendError(f"the local engine failed: {error!r}"))
            if size is not None and size.rows and not (size.filled or size.alone):
                self._watch.observe(size.rows + size.guessed, time.perf_counter() - began)
                if torch.get_num_threads() != self._watch.threads:
                    torch.set_num_threads(self._watch.threads)
            self._after_step()
        self._scheduler.fail_all(BackendUnavailable("the local engine was closed"))
        self._after_step()

    def _take(self) -> bool:
        """Move new tasks to the scheduler, waiting while there is none; False when closing."""
        with self._changed:
            while not (self._inbox or self._scheduler.busy or self._closing):
                self._changed.wait()
            for task in self._inbox:
                self._scheduler.submit(task)
            self._inbox.clear()
            return not self._closing


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
