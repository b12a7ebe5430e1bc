"""The live view of an evaluation: items done, accuracy so far with its interval, tokens a second, time to go."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ...core.events import EventFields, SampleFinished
from ...evals.results import Row
from ...evals.statistics.intervals import wilson
from .status import BAR_WIDTH, MovingView

RATE_WINDOW_S = 60.0


class EvalProgress:
    """Where an evaluation stands; no terminal.

    Args:
        clock: Monotonic seconds; replaced in tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.total = 0
        self.done = 0
        self.fresh = 0
        """Rows that were made since this process began."""
        self.value = 0.0
        self.right = 0
        self.binary = True
        self.unparsed = 0
        self.failed = 0
        self.tokens = 0
        """Tokens that a model generated since then; what the store answered is not among them."""
        self._began: float | None = None
        self._recent: deque[tuple[float, int]] = deque()

    def begin(self, total: int, rows: Sequence[Row]) -> None:
        """A run begins."""
        self.total, self.done, self.fresh, self.value, self.right = total, 0, 0, 0.0, 0
        self.binary, self.unparsed, self.failed = True, 0, 0
        self._began = self._clock()
        for row in rows:
            self._count(row)

    def row(self, row: Row) -> None:
        """A row is finished."""
        self._count(row)
        self.fresh += 1

    def event(self, event: EventFields) -> None:
        """A sample is finished."""
        if isinstance(event, SampleFinished) and not event.replayed:
            now, made = self._clock(), event.completion.usage.completion_tokens
            self.tokens += made
            self._recent.append((now, made))
            while self._recent and self._recent[0][0] < now - RATE_WINDOW_S:
                self._recent.popleft()

    @property
    def accuracy(self) -> float | None:
        """Mean score so far."""
        return self.value / self.done if self.done else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's interval of it, where every score is 0 or 1; rows are taken as independent while it runs."""
        if not self.done or not self.binary:
            return None
        found = wilson(self.right, self.done)
        return found.low, found.high

    @property
    def seconds_left(self) -> float | None:
        """Time to go at the pace so far; None before the first row."""
        if self._began is None or not self.fresh:
            return None
        return (self._clock() - self._began) / self.fresh * (self.total - self.done)

    @property
    def tokens_per_s(self) -> float | None:
        """Generated tokens a second over the last minute."""
        if self._began is None or not self._recent:
            return None
        now = self._clock()
        since = max(self._began, now - RATE_WINDOW_S)
        return sum(n for at, n in self._recent if at >= since) / max(now - since, 1e-9)

    def line(self) -> str:
        """All of it in one line."""
        parts = [f"{self.done}/{self.total}"]
        if self.accuracy is not None:
            parts.append(f"accuracy {100 * self.accuracy:.1f}%{_interval(self.interval)}")
        if (rate := self.tokens_per_s) is not None:
            parts.append(f"{rate:.0f} tokens/s")
        if (left := self.seconds_left) is not None:
            parts.append(f"{duration(left)} to go")
        if self.unparsed:
            parts.append(f"unread answers {self.unparsed}")
        if self.failed:
            parts.append(f"failed {self.failed}")
        return ", ".join(parts)

    def _count(self, row: Row) -> None:
        self.done += 1
        self.value += row.value
        self.right += row.value == 1.0
        self.binary = self.binary and row.value in (0.0, 1.0)
        self.unparsed += not row.parsed
        self.failed += row.error is not None


class EvalView(MovingView):
    """Draws the progress on standard error; a watcher of an evaluation.

    Args:
        clock: Monotonic seconds; replaced in tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self.progress = EvalProgress(clock)
        self._title = ""

    def run(self, title: str) -> None:
        """The run's name."""
        self._title = title

    def begin(self, total: int, rows: Sequence[Row]) -> None:
        """See `Watcher`."""
        self.progress.begin(total, rows)

    def row(self, row: Row) -> None:
        """See `Watcher`."""
        self._note = ""
        self.progress.row(row)
        self._plain()

    def event(self, event: EventFields) -> None:
        """See `Watcher`."""
        self._note = "" if isinstance(event, SampleFinished) else self._note
        self.progress.event(event)

    def line(self) -> str:
        """See `MovingView.line`."""
        return f"{self._title}: {self.progress.line()}"

    def render(self) -> RenderableType:
        """The view as it is now."""
        head = Table.grid(padding=(0, 1))
        head.add_row(self._spinner, Text.assemble((self._title or "reason eval", "bold"), (f"  {self._note}", "dim")))
        return Group(head, picture(self.progress)) if self.progress.total else head


def picture(p: EvalProgress) -> RenderableType:
    """Where an evaluation stands, as bars."""
    rows = Table.grid(padding=(0, 1))
    rows.add_column(justify="right", style="dim", min_width=9)
    rows.add_column(width=BAR_WIDTH)
    rows.add_column()
    left = p.seconds_left
    eta = "" if left is None else f"  {duration(left)} to go"
    bar = Bar(size=p.total, begin=0, end=p.done, width=BAR_WIDTH, color="green", bgcolor="grey23")
    rows.add_row("items", bar, Text.assemble(f"{p.done}/{p.total}", (eta, "dim")))
    if p.accuracy is not None:
        shown = Bar(size=1.0, begin=0, end=p.accuracy, width=BAR_WIDTH, color="blue", bgcolor="grey23")
        rows.add_row("accuracy", shown, Text(f"{100 * p.accuracy:.1f}%{_interval(p.interval)}"))
    rate = p.tokens_per_s
    rows.add_row("tokens", "", Text(f"{p.tokens:,}" + ("" if rate is None else f"  {rate:.0f}/s")))
    if p.unparsed or p.failed:
        rows.add_row("", "", Text(f"unread answers {p.unparsed}, failed {p.failed}", "yellow"))
    return rows


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _interval(ends: tuple[float, float] | None) -> str:
    return "" if ends is None else f" [{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]"
