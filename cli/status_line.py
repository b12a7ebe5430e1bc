"""One line on standard error that says what is being done right now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .console import err, moving_parts, say

Tell = Callable[[str], None]


@contextmanager
def status_line() -> Iterator[Tell]:
    """A line that changes; where nothing can move, one line whenever what is said begins with another word."""
    if moving_parts():
        with err().status("") as status:
            yield lambda text: status.update(text)
        return
    last = ""

    def tell(text: str) -> None:
        nonlocal last
        kind = text.partition(" ")[0]
        if kind != last:
            last = kind
            say(text)

    yield tell
