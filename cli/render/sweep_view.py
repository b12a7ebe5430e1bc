"""The live view of a sweep: how many of its runs are done, and where each one that is under way stands."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ...core.events import EventFields, SampleFinished
from ...evals.results import Row
from .eval_view import EvalProgress, picture
from .status import BAR_WIDTH, MovingView


class SweepView(MovingView):
    """Draws the progress of all runs of a sweep on standard error.

    Args:
        runs: How many there are.
        clock: Monotonic seconds; replaced in tests.
    """

    def __init__(self, runs: int, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self.clock = clock
        self._runs = runs
        self._begun: dict[str, WatchedRun] = {}

    def watch(self, title: str) -> WatchedRun:
        """The watcher of a run that begins."""
        self._begun[title] = WatchedRun(self)
        return self._begun[title]

    @property
    def tokens(self) -> int:
        """Tokens that were generated since this process began."""
        return sum(run.progress.tokens for run in self._begun.values())

    @property
    def answering(self) -> bool:
        """Whether a run has begun to be answered."""
        return any(run.progress.total for run in self._begun.values())

    def heard(self, event: EventFields) -> None:
        """Something happened in some run."""
        self._note = "" if isinstance(event, SampleFinished) else self._note

    def moved(self) -> None:
        """A row of some run is finished."""
        self._note = ""
        self._plain()

    def line(self) -> str:
        """See `MovingView.line`."""
        rates = [run.progress.tokens_per_s or 0.0 for run in self._under_way.values()]
        shown = "; ".join(f"{title}: {run.progress.line()}" for title, run in self._under_way.items())
        return f"{self._done} of {self._runs} runs, {sum(rates):.0f} tokens/s" + (f"; {shown}" if shown else "")

    def render(self) -> RenderableType:
        """The view as it is now."""
        head = Table.grid(padding=(0, 1))
        bar = Bar(size=self._runs, begin=0, end=self._done, width=BAR_WIDTH, color="green", bgcolor="grey23")
        said = Text.assemble(f"{self._done}/{self._runs} runs  {self.tokens:,} tokens", (f"  {self._note}", "dim"))
        head.add_row(self._spinner, bar, said)
        parts: list[RenderableType] = [head]
        for title, run in self._under_way.items():
            parts += [Text(title, "bold"), picture(run.progress)]
        return Group(*parts)

    @property
    def _done(self) -> int:
        return sum(run.done for run in self._begun.values())

    @property
    def _under_way(self) -> dict[str, WatchedRun]:
        return {title: run for title, run in self._begun.items() if run.progress.total and not run.done}


class WatchedRun:
    """One run of the sweep; a watcher of an evaluation.

    Args:
        view: Draws it.
    """

    def __init__(self, view: SweepView) -> None:
        self.progress = EvalProgress(view.clock)
        self._view = view

    @property
    def done(self) -> bool:
        """Whether all rows are there."""
        return 0 < self.progress.total == self.progress.done

    def begin(self, total: int, rows: Sequence[Row]) -> None:
        """See `Watcher`."""
        self.progress.begin(total, rows)

    def row(self, row: Row) -> None:
        """See `Watcher`."""
        self.progress.row(row)
        self._view.moved()

    def event(self, event: EventFields) -> None:
        """See `Watcher`."""
        self.progress.event(event)
        self._view.heard(event)
