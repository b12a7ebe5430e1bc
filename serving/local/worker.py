"""The engine's thread: it alone touches torch; the event loop hands it tasks and is told of what comes of them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

import torch

from ...core.errors import BackendError, BackendUnavailable
from .calibrate import StepWatch
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
