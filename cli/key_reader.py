"""Single keys while a run is in the terminal: `a` asks for the answer now. Ctrl-C keeps its meaning."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from .interrupts import at_exit

MAX_KEYS = 64
"""Maximum number of characters that are read at once."""


def can_read_keys() -> bool:
    """Whether standard input is a terminal whose keys this process may read: it is in the foreground."""
    try:
        return sys.stdin.isatty() and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError, AttributeError):  # closed, replaced, or a platform without process groups
        return False


@contextmanager
def keys(on_key: Callable[[str], None]) -> Iterator[bool]:
    """Read keys within the context, from within an event loop; the terminal is restored at its end in any case.

    The terminal hands out each key at once and does not show it; signals of keys (Ctrl-C, Ctrl-Z) stay as they are.

    Args:
        on_key: Called in the event loop with each key.

    Yields:
        Whether keys are read: not without a terminal.
    """
    if not can_read_keys():
        yield False
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

    with at_exit(restore):
        try:
            termios.tcsetattr(terminal, termios.TCSADRAIN, single)
            loop.add_reader(terminal, read)
            yield True
        finally:
            loop.remove_reader(terminal)
            restore()
