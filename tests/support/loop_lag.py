"""How long an event loop was blocked by synchronous code, and by which."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback

MAX_BLOCK_S = 0.2
"""No request may block a server's event loop for longer."""
PROBE_S = 0.01
WAITING = frozenset({"wait", "_worker", "get", "_next_operations", "respond", "_bootstrap"})
"""Functions in which threads wait."""


class LoopTurns:
    """Counts how often others have the event loop during the block; an asynchronous context manager."""

    count = 0

    async def __aenter__(self) -> LoopTurns:
        self._task = asyncio.ensure_future(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    async def _run(self) -> None:
        while True:
            self.count += 1
            await asyncio.sleep(0)


class LoopWatchdog:
    """Measures, from a thread of its own, the longest time for which a loop did not run what was scheduled.

    A context manager; enter it on the loop's own thread, or give the loop and its thread's id.

    Attributes:
        longest_s: The longest block, in seconds; on a busy machine, the time that other processes took is part of it.
        longest_cpu_s: The most processor time of this process during a block, in seconds. It includes that of other
            threads, which block the loop too while they hold the interpreter's lock, and no time of other processes.
        stack: The stacks in the middle of the block with the most processor time, the loop's thread first.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None, thread_id: int | None = None) -> None:
        self._loop = loop or asyncio.get_running_loop()
        self._thread_id = thread_id or threading.get_ident()
        self._stopped = threading.Event()
        self._stops_loop = False
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.reset()

    def reset(self) -> None:
        """Forget the blocks so far."""
        self.longest_s, self.longest_cpu_s, self.stack = 0.0, 0.0, ""

    @property
    def is_alive(self) -> bool:
        """Whether it measures."""
        return self._thread.is_alive()

    def __enter__(self) -> LoopWatchdog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stops_loop = threading.get_ident() == self._thread_id
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            slept, slept_cpu = time.monotonic() + PROBE_S, time.process_time()
            if self._stopped.wait(PROBE_S):
                return
            # C code that holds the interpreter's lock blocks this thread too
            self._note(time.monotonic() - slept, time.process_time() - slept_cpu, "")
            answered = threading.Event()
            cpu: list[float] = []

            def answer(answered: threading.Event = answered, cpu: list[float] = cpu) -> None:
                cpu.append(time.process_time())
                answered.set()

            sent, sent_cpu = time.monotonic(), time.process_time()
            try:
                self._loop.call_soon_threadsafe(answer)
            except RuntimeError:  # the loop is closed
                return
            stack = ""
            while not answered.wait(PROBE_S):
                if self._stopped.is_set() and self._stops_loop:
                    return  # the loop cannot answer: its thread waits for this one
                waited, spent = time.monotonic() - sent, time.process_time() - sent_cpu
                if not stack and spent > max(MAX_BLOCK_S / 4, self.longest_cpu_s / 2):
                    stack = self._stacks()
                self._note(waited, spent, stack)
                if self._stopped.is_set() and waited > 60:
                    return
            self._note(time.monotonic() - sent, cpu[0] - sent_cpu, stack)

    def _stacks(self) -> str:
        frames = sys._current_frames()
        order = [self._thread_id, *(one for one in frames if one not in (self._thread_id, threading.get_ident()))]
        stacks = [traceback.extract_stack(frames[one])[-8:] for one in order if one in frames]
        return "\n".join("".join(traceback.format_list(stack)) for stack in stacks if stack[-1].name not in WAITING)

    def _note(self, seconds: float, cpu_s: float, stack: str) -> None:
        self.longest_s = max(self.longest_s, seconds)
        if cpu_s > self.longest_cpu_s:
            if not stack and cpu_s > MAX_BLOCK_S / 2:
                stack = self._stacks()
            self.longest_cpu_s, self.stack = cpu_s, stack or self.stack
