"""Progress of long work on standard error: a status line, a progress bar, and the base of live views."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .console import byte_size, can_animate, err, say, start_live

if TYPE_CHECKING:
    from rich.bar import Bar
    from rich.console import RenderableType
    from rich.live import Live
    from rich.table import Table

FRAMES_PER_S = 4
PLAIN_INTERVAL_S = 30.0
"""Seconds between two plain lines without a terminal; the interval doubles up to half an hour."""
BAR_WIDTH = 28

STAGE_UNITS = {"reading": "files", "embedding": "passages"}
"""Units of the stages of reading documents."""
BYTE_STAGES = frozenset({"downloading", "checking", "unpacking", "converting"})
"""Stages of model files, which count bytes; all others count items."""

StageReporter = Callable[[str, int, int | None], None]
"""Called with the stage, the amount done, and the total if it is known."""


class StatusLine:
    """A line that is redrawn; without a terminal, a new line whenever the first word of the text changes.

    Args:
        status: The rich status; None if standard error cannot be redrawn.
        quiet: Whether nothing is printed.
    """

    def __init__(self, status: Any, *, quiet: bool = False) -> None:
        self._status, self._quiet = status, quiet
        self._last = ""

    def __call__(self, text: str) -> None:
        """Show the work in progress."""
        if self._status is not None:
            self._status.update(text)
        elif not self._quiet and text.partition(" ")[0] != self._last:
            self._last = text.partition(" ")[0]
            say(text)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Hide the line while something is printed, since an active rich status captures all output."""
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
    """A status line within the block; `quiet` shows none."""
    if can_animate() and not quiet:
        with err().status("") as status:
            yield StatusLine(status)
    else:
        yield StatusLine(None, quiet=quiet)


def stage_text(stage: str, done: int, total: int | None) -> str:
    """What happens, and how far it is: `downloading 12 MB of 88 MB`, `embedding 300 of 1,547 passages`."""
    if stage in BYTE_STAGES:
        scale = max(done, total or 0)
        amount = byte_size(done, scale) + (f" of {byte_size(total, scale)}" if total else "")
    else:
        unit = STAGE_UNITS.get(stage)
        amount = (f"{done:,} of {total:,}" if total else f"{done:,}") + (f" {unit}" if unit else "")
    return f"{stage} {amount}" if done or total else stage


@contextmanager
def stage_bar(plain: StageReporter, first: str) -> Iterator[StageReporter]:
    """A progress bar that restarts with each stage; a stage of unknown length, or at its end, has no bar.

    Args:
        plain: Used instead if standard error cannot be redrawn.
        first: What happens before the first stage, and after the last.
    """
    if not can_animate():
        yield plain
        return
    from rich.console import Group
    from rich.spinner import Spinner
    from rich.table import Table

    state: tuple[str, int, int | None] = (first, 0, None)
    spinner = Spinner("dots")

    def render() -> RenderableType:
        stage, done, total = state
        head = Table.grid(padding=(0, 1))
        head.add_row(spinner, stage_text(stage, done, total))
        return Group(head, bar(done, total, "blue")) if total else head

    def report(stage: str, done: int, total: int | None) -> None:
        nonlocal state
        state = (first, 0, None) if total and done >= total else (stage, done, total)

    live = start_live(render, FRAMES_PER_S)
    try:
        yield report
    finally:
        if live is not None:
            live.stop()


class ProgressView(ABC):
    """A live view of long work, as a context manager; without a terminal, plain lines at growing intervals.

    Args:
        clock: Monotonic seconds; replaced in tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.spinner import Spinner

        self._clock = clock
        self._note = "loading the model"
        self._spinner = Spinner("dots")
        self._live: Live | None = None
        self._interval = PLAIN_INTERVAL_S
        self._next_plain = clock() + self._interval

    def __enter__(self) -> Self:
        self._live = start_live(self.render, FRAMES_PER_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def note(self, text: str) -> None:
        """Show a note next to the title."""
        self._note = text

    def pulled(self, stage: str, done: int, total: int | None) -> None:
        """Show the progress of model files or documents; called from another thread."""
        self._note = "loading the model" if total and done >= total else stage_text(stage, done, total)

    @abstractmethod
    def render(self) -> RenderableType:
        """The current view."""

    @abstractmethod
    def line(self) -> str:
        """The current state in one line."""

    def title(self, text: str) -> Table:
        """The first row of a view: spinner, title and note."""
        from rich.table import Table
        from rich.text import Text

        row = Table.grid(padding=(0, 1))
        row.add_row(self._spinner, Text.assemble((text, "bold"), (f"  {self._note}", "dim")))
        return row

    def _plain(self) -> None:
        """Print a plain line if one is due."""
        if self._live is None and self._clock() >= self._next_plain:
            self._interval = min(2 * self._interval, 1800.0)
            self._next_plain = self._clock() + self._interval
            say(self.line())


def bar(done: float, total: float, colour: str) -> Bar:
    """A bar of a live view."""
    from rich.bar import Bar

    size = max(total, 1e-9)
    return Bar(size=size, begin=0, end=min(done, size), width=BAR_WIDTH, color=colour, bgcolor="grey23")


def bar_rows() -> Table:
    """The rows of a live view: name, bar, text."""
    from rich.table import Table

    rows = Table.grid(padding=(0, 1))
    rows.add_column(justify="right", style="dim", min_width=9)
    rows.add_column(width=BAR_WIDTH)
    rows.add_column()
    return rows
