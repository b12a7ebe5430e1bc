"""One line on standard error that says what is being done right now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .console import err, moving_parts, say


class StatusLine:
    """A line that changes; where nothing can move, one line whenever what is said begins with another word.

    Args:
        status: What rich draws; None if nothing can move.
        quiet: Whether nothing is said at all.
    """

    def __init__(self, status: Any, *, quiet: bool = False) -> None:
        self._status, self._quiet = status, quiet
        self._last = ""

    def __call__(self, text: str) -> None:
        """Say what is being done."""
        if self._status is not None:
            self._status.update(text)
        elif not self._quiet and text.partition(" ")[0] != self._last:
            self._last = text.partition(" ")[0]
            say(text)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Take the line away while something is printed: as long as it is there, rich sends all output its way."""
        if self._status is None:
            yield
            return
        self._status.stop()
        try:
            yield
        finally:
            self._status.start()


@contextmanager
def status_line(*, quiet: bool = False) -> Iterator[StatusLine]:
    """A status line for as long as the block runs.

    Args:
        quiet: Whether to show none.
    """
    if moving_parts() and not quiet:
        with err().status("") as status:
            yield StatusLine(status)
    else:
        yield StatusLine(None, quiet=quiet)
