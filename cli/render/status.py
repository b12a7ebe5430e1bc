"""The progress line: one line about long work on standard error.

A terminal redraws it; without one, plain lines are printed at growing intervals.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from .console import byte_size, plural, say, start_live

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

FRAMES_PER_S = 4
FIRST_LINE_S = 15.0
"""Seconds before the first plain line; the interval doubles with each line."""
MAX_INTERVAL_S = 1800.0

STAGE_UNITS = {"reading": "files", "embedding": "passages"}
"""Units of the stages of reading documents."""
BYTE_STAGES = frozenset({"downloading", "checking", "unpacking", "converting"})
"""Stages of model files, which count bytes; all others count items."""

StageReporter = Callable[[str, int, int | None], None]
"""Called with the stage, the amount done, and the total if it is known."""


def stage_text(stage: str, done: int, total: int | None) -> str:
    """A stage and its progress: `downloading 12 MB of 88 MB`, `embedding 300 of 1,547 passages`."""
    if stage in BYTE_STAGES:
        scale = max(done, total or 0)
        amount = byte_size(done, scale) + (f" of {byte_size(total, scale)}" if total else "")
    else:
        unit = STAGE_UNITS.get(stage)
        amount = (f"{done:,} of {total:,}" if total else f"{done:,}") + (f" {unit}" if unit else "")
    return f"{stage} {amount}" if done or total else stage


class ProgressView(ABC):
    """The progress line of long work, as a context manager.

    Args:
        clock: Monotonic seconds; replaced in tests.
        note: The work until the first report.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, note: str = "loading the model") -> None:
        from rich.spinner import Spinner

        self._clock = clock
        self._started = clock()
        self._first_note = self._note = note
        self._spinner = Spinner("dots")
        self._live: Live | None = None
        self._interval = FIRST_LINE_S
        self._next_line = self._interval

    def __enter__(self) -> Self:
        self._live = start_live(self.render, FRAMES_PER_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the line; idempotent."""
        if self._live is not None:
            self._live.stop()
            self._live = None
            self._next_line = float("inf")  # no plain lines after a redrawn one

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Remove the line while the block uses the terminal."""
        live, next_line = self._live, self._next_line
        if live is not None:
            live.stop()
        self._live, self._next_line = None, float("inf")
        try:
            yield
        finally:
            self._live, self._next_line = None if live is None else start_live(self.render, FRAMES_PER_S), next_line

    def note(self, text: str) -> None:
        """Show a note in the line."""
        self._note = text

    def pulled(self, stage: str, done: int, total: int | None) -> None:
        """Show the progress of model files or documents; called from any thread."""
        if total and done >= total:
            self._note = self._first_note
        else:
            self._note = stage_text(stage, done, total)
            self._plain()

    @abstractmethod
    def line(self) -> str:
        """The current state in one line."""

    def render(self) -> RenderableType:
        """What a terminal shows."""
        from rich.table import Table
        from rich.text import Text

        row = Table.grid(padding=(0, 1))
        row.add_row(self._spinner, Text(self._terminal_line(), no_wrap=True, overflow="ellipsis"))
        return row

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning of the work."""
        return self._clock() - self._started

    def _terminal_line(self) -> str:
        return f"{self.line()} · {self.elapsed:.1f} s"

    def _plain(self) -> None:
        """Print a plain line if one is due."""
        elapsed = self.elapsed
        if self._live is None and elapsed >= self._next_line:
            self._interval = min(2 * self._interval, MAX_INTERVAL_S)
            self._next_line = elapsed + self._interval
            say(f"{elapsed:.0f} s: {self.line()}")


class StatusLine(ProgressView):
    """A note as the progress line; without a terminal, a new first word of the note prints a plain line, too."""

    def __init__(self, note: str) -> None:
        super().__init__(note=note)
        self._last = ""

    def line(self) -> str:
        return self._note

    def __call__(self, text: str) -> None:
        """Show a note."""
        self.note(text)
        self._plain()

    def _plain(self) -> None:
        word = self._note.partition(" ")[0]
        if self._live is None and word != self._last:
            self._last = word
            say(self._note)
        else:
            super()._plain()


class CountView(ProgressView):
    """The progress line of a count of finished items.

    Args:
        title: The work.
        noun: The item, in the singular.
    """

    def __init__(self, title: str, noun: str) -> None:
        super().__init__()
        self._title, self._noun = title, noun
        self._done = self._total = 0

    def count(self, done: int, total: int) -> None:
        """Show the count."""
        self._note, self._done, self._total = "", done, total
        self._plain()

    def line(self) -> str:
        count = f"{self._done:,} of {plural(self._total, self._noun)}" if self._total else ""
        return " · ".join(filter(None, (self._title, self._note, count)))
