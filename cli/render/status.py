"""One line on standard error that says what is being done right now.

`stage_bar`: how far work of several stages is, as a bar on standard error.

`MovingView`: a picture on standard error that moves while work goes on; where nothing can, a line now and then.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from rich.console import RenderableType
from rich.live import Live
from rich.spinner import Spinner

from .console import err, moving_parts, moving_picture, say


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


Told = Callable[[str, int, int | None], None]
"""Hears the stage, how much of it is done, and how much there is, where that is known."""


@contextmanager
def stage_bar(lines: Told, *, of_bytes: bool = False) -> Iterator[Told]:
    """A bar that begins anew with each stage.

    Args:
        lines: Hears it instead where nothing can move.
        of_bytes: Whether it is bytes that are counted.
    """
    if not moving_parts():
        yield lines
        return
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    count = DownloadColumn() if of_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn())
    with Progress(*columns, console=err(), transient=True) as bar:
        shown = bar.add_task("starting", total=None)
        last = ""

        def draw(stage: str, done: int, total: int | None) -> None:
            nonlocal last
            if stage != last:
                last = stage
                bar.reset(shown, description=stage, total=total)
            bar.update(shown, completed=done, total=total)

        yield draw


FRAMES_PER_S = 4
PLAIN_EVERY_S = 30.0
"""Seconds between two plain lines where nothing can move; the gap doubles up to half an hour."""
BAR_WIDTH = 28


class MovingView(ABC):
    """Draws where long work stands: a context manager.

    Args:
        clock: Monotonic seconds; replaced in tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._note = "loading the model"
        self._spinner = Spinner("dots")
        self._live: Live | None = None
        self._gap = PLAIN_EVERY_S
        self._next_plain = clock() + self._gap

    def __enter__(self) -> Self:
        self._live = moving_picture(self.render, FRAMES_PER_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def note(self, text: str) -> None:
        """Show what is going on beside."""
        self._note = text

    def pulled(self, stage: str, done: int, total: int | None) -> None:
        """Show how far a model's files are; called from another thread."""
        self._note = f"{stage} {done / 1e6:,.0f} MB" + (f" of {total / 1e6:,.0f} MB" if total else "")

    @abstractmethod
    def render(self) -> RenderableType:
        """The view as it is now."""

    @abstractmethod
    def line(self) -> str:
        """The same in one line."""

    def _plain(self) -> None:
        """A line now and then, where nothing can move."""
        if self._live is None and self._clock() >= self._next_plain:
            self._gap = min(2 * self._gap, 1800.0)
            self._next_plain = self._clock() + self._gap
            say(self.line())
