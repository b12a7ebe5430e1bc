"""Signals and keys: the first Ctrl-C or SIGTERM cancels the work, which saves its state; the second one exits."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
"""Exit status that a shell reports for a program that wrote to a closed pipe: 128 + SIGPIPE."""
_SHOW_CURSOR = "\x1b[?25h"


MAX_KEYS = 64
"""Maximum number of characters that are read at once."""
MAX_LINE_BYTES = 1 << 16

_restorers: list[Callable[[], object]] = []
"""Called before the process ends at once."""


class Interrupted(BaseException):
    """A signal arrived while no cancellable work was running."""


def run_interruptible(
    work: Coroutine[Any, Any, T],
    on_first: Callable[[], None] = lambda: None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    runner: asyncio.Runner | None = None,
) -> T:
    """Run a coroutine to its end; SIGINT or SIGTERM cancels it, a second one ends the process with status 130.

    Args:
        work: The coroutine.
        on_first: Called once, within the event loop, at the first signal.
        loop_factory: Creates the event loop; None is Python's own.
        runner: Runs it on an event loop that goes on afterwards; None makes one.

    Raises:
        asyncio.CancelledError: A signal arrived, and the work has finished its cleanup.
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
            exit_immediately()
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(cancel)

    async def run() -> T:
        nonlocal loop, task
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        if signals:
            work.close()
            raise asyncio.CancelledError
        return await work

    # signal.signal instead of the loop's own handlers: the second signal must work even while the loop is blocked
    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if runner is not None:
            return runner.run(run())
        with asyncio.Runner(loop_factory=loop_factory) as own:
            return own.run(run())
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def exit_immediately() -> None:
    """End the process without cleanup except for the terminal; the run store survives this at any moment."""
    for restore in _restorers:
        restore()
    if sys.stderr.isatty():
        os.write(sys.stderr.fileno(), _SHOW_CURSOR.encode())
    os._exit(EXIT_INTERRUPTED)


class LineReader:
    """Reads lines that the user types at the terminal, echoed.

    Args:
        suspend: Ends the reading of single keys.
        resume: Begins it again.
    """

    def __init__(
        self, suspend: Callable[[], object] = lambda: None, resume: Callable[[], object] = lambda: None
    ) -> None:
        self._suspend, self._resume = suspend, resume

    async def read(self) -> str | None:
        """The next line, without its end; None if the user typed Ctrl-D, or the terminal is gone."""
        terminal, loop = sys.stdin.fileno(), asyncio.get_running_loop()
        line: asyncio.Future[bytes] = loop.create_future()

        def receive() -> None:
            loop.remove_reader(terminal)
            try:
                line.set_result(os.read(terminal, MAX_LINE_BYTES))
            except OSError:
                line.set_result(b"")

        self._suspend()
        loop.add_reader(terminal, receive)
        try:
            typed = await line
        finally:
            loop.remove_reader(terminal)
            self._resume()
        return typed.decode(errors="replace").rstrip("\r\n") if typed else None


@contextmanager
def keys(on_key: Callable[[str], None]) -> Iterator[LineReader | None]:
    """Read single keys within the context, from within an event loop; the terminal is restored in any case.

    Keys are not echoed; those that send signals (Ctrl-C, Ctrl-Z) still do.

    Args:
        on_key: Called in the event loop with each key.

    Yields:
        What reads a line instead; None if no keys are read: only from a terminal, by a process in the foreground.
    """
    if not can_read_terminal():
        yield None
        return
    import termios

    terminal, loop = sys.stdin.fileno(), asyncio.get_running_loop()

    def read() -> None:
        pressed = os.read(terminal, MAX_KEYS)
        if not pressed:  # the terminal is gone
            loop.remove_reader(terminal)
        for key in pressed.decode(errors="ignore"):
            on_key(key)

    before = termios.tcgetattr(terminal)
    single = termios.tcgetattr(terminal)
    single[3] &= ~(termios.ICANON | termios.ECHO)
    single[6][termios.VMIN], single[6][termios.VTIME] = 1, 0

    def restore() -> None:
        with suppress(termios.error):
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)

    def read_keys() -> None:
        termios.tcsetattr(terminal, termios.TCSADRAIN, single)
        loop.add_reader(terminal, read)

    _restorers.append(restore)
    try:
        read_keys()
        yield LineReader(restore, read_keys)
    finally:
        loop.remove_reader(terminal)
        restore()
        _restorers.remove(restore)


def can_read_terminal() -> bool:
    """Whether standard input is a terminal, and this process is in its foreground."""
    try:
        return sys.stdin.isatty() and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError, AttributeError):  # closed, replaced, or a platform without process groups
        return False
