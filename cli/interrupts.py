"""Ctrl-C and `kill`: the first cancels the work, which saves what it has; the second ends the process at once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

EXIT_INTERRUPTED = 130
EXIT_NOBODY_READS = 141
"""What a shell reports of a program that wrote into a closed pipe: 128 + SIGPIPE."""
_SHOW_CURSOR = "\x1b[?25h"


class Interrupted(BaseException):
    """A signal came while nothing was under way that could be cancelled."""


def run_interruptible(
    work: Coroutine[Any, Any, T],
    on_first: Callable[[], None] = lambda: None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> T:
    """Run a coroutine to its end; SIGINT or SIGTERM cancels it, a second one ends the process with status 130.

    Args:
        work: What to do.
        on_first: Called once, within the event loop, when the first signal has come.
        loop_factory: Makes the event loop; None is Python's own.

    Raises:
        asyncio.CancelledError: A signal came and the work has cleaned up after itself.
    """
    loop: asyncio.AbstractEventLoop | None = None
    task: asyncio.Task[Any] | None = None
    signals = 0

    def cancel() -> None:
        on_first()
        if task is not None:
            task.cancel()

    def handle(_number: int, _frame: FrameType | None) -> None:
        nonlocal signals
        signals += 1
        if signals > 1:
            leave_at_once()
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(cancel)

    async def watched() -> T:
        nonlocal loop, task
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        if signals:
            work.close()
            raise asyncio.CancelledError
        return await work

    # signal.signal, and not the loop's own handlers: the second signal must also work while the loop is held up
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(watched())
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def leave_at_once() -> None:
    """End the process without any cleaning up but the cursor's; the run store survives this at any moment."""
    if sys.stderr.isatty():
        os.write(sys.stderr.fileno(), _SHOW_CURSOR.encode())
    os._exit(EXIT_INTERRUPTED)
