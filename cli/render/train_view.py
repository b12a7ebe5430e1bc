"""The live view of a training: episodes, return, accuracy, chains' length, exploration, tokens a second, time to go."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ...core.events import EventFields, SampleFinished
from ...evals.navigator.records import EpisodeRecord, Validation
from .eval_view import EvalProgress, duration
from .console import say
from .status import BAR_WIDTH, MovingView

WINDOW = 100
"""Episodes that the means are over."""


class TrainProgress:
    """Where a training stands; no terminal.

    Args:
        clock: Monotonic seconds; replaced in tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.total = 0
        self.done = 0
        self.fresh = 0
        """Episodes that ended since this process began."""
        self.problems = 0
        self.asking = 0
        self.asked = 0
        self.wrong = 0
        self.epsilon: float | None = None
        self.validation: Validation | None = None
        self.reused = 0
        """Replies that the run store had, since this process began."""
        self._recent: deque[EpisodeRecord] = deque(maxlen=WINDOW)
        self._began: float | None = None
        self._tokens = EvalProgress(clock)
        self._tokens.begin(0, ())

    def begin(self, total: int, records: Sequence[EpisodeRecord], problems: int) -> None:
        """Episodes begin."""
        self.total, self.done, self.problems = total, len(records), problems
        self._recent.extend(records[-WINDOW:])
        self.epsilon = records[-1].epsilon if records else None
        self._began = self._clock()

    def episode(self, record: EpisodeRecord) -> None:
        """An episode ended."""
        self.done, self.fresh, self.epsilon = record.episode, self.fresh + 1, record.epsilon
        self._recent.append(record)

    def event(self, event: EventFields) -> None:
        """A sample is finished."""
        self._tokens.event(event)
        self.reused += isinstance(event, SampleFinished) and event.replayed

    @property
    def earned(self) -> float | None:
        """Mean return of the last episodes."""
        return self._mean([r.earned for r in self._recent])

    @property
    def accuracy(self) -> float | None:
        """Share of right answers among them."""
        return self._mean([float(r.correct) for r in self._recent])

    @property
    def length(self) -> float | None:
        """Their mean number of blocks before the answer."""
        return self._mean([float(r.length) for r in self._recent])

    @property
    def tokens(self) -> int:
        """Tokens generated since this process began."""
        return self._tokens.tokens

    @property
    def tokens_per_s(self) -> float | None:
        """Generated tokens a second over the last minute."""
        return self._tokens.tokens_per_s

    @property
    def seconds_left(self) -> float | None:
        """Time to go at the pace so far; None before the first episode ended."""
        if self._began is None or not self.fresh:
            return None
        return (self._clock() - self._began) / self.fresh * (self.total - self.done)

    def line(self) -> str:
        """All of it in one line."""
        if not self.total:
            return f"asked directly {self.asked}/{self.asking}, {self.wrong} hard" if self.asking else "opening"
        parts = [f"{self.done}/{self.total} episodes"]
        if self.earned is not None and self.accuracy is not None and self.length is not None:
            parts += [f"return {self.earned:.3f}", f"right {100 * self.accuracy:.1f}%", f"{self.length:.2f} blocks"]
        if self.epsilon is not None:
            parts.append(f"epsilon {self.epsilon:.2f}")
        if self.validation is not None:
            parts.append(f"held out {100 * self.validation.accuracy:.1f}%")
        if (rate := self.tokens_per_s) is not None:
            parts.append(f"{rate:.0f} tokens/s")
        if self.reused:
            parts.append(f"{self.reused:,} replies reused")
        if (left := self.seconds_left) is not None:
            parts.append(f"{duration(left)} to go")
        return ", ".join(parts)

    def _mean(self, values: Sequence[float]) -> float | None:
        return sum(values) / len(values) if values else None


class TrainView(MovingView):
    """Draws the progress on standard error; a watcher of trainings.

    Args:
        clock: Monotonic seconds; replaced in tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self.progress = TrainProgress(clock)
        self.begun = False
        """Whether anything was asked or begun."""

    def asking(self, problems: int) -> None:
        """See `TrainingWatcher`."""
        self.begun = True
        self.progress.asking = problems
        self._note = "asking directly, to find the hard questions"

    def asked(self, correct: bool) -> None:
        """See `TrainingWatcher`."""
        self.progress.asked += 1
        self.progress.wrong += not correct
        self._plain()

    def begin(self, episodes: int, records: Sequence[EpisodeRecord], problems: int) -> None:
        """See `TrainingWatcher`."""
        self.begun, self._note = True, ""
        self.progress.begin(episodes, records, problems)
        say(f"{problems} problems, {len(records)} of {episodes} episodes are there")

    def episode(self, record: EpisodeRecord) -> None:
        """See `TrainingWatcher`."""
        self._note = ""
        self.progress.episode(record)
        self._plain()

    def validating(self, problems: int) -> None:
        """See `TrainingWatcher`."""
        self._note = f"asking {problems} held-out questions"

    def validated(self, found: Validation) -> None:
        """See `TrainingWatcher`."""
        self._note = ""
        self.progress.validation = found
        say(
            f"after {found.episode} episodes: {found.correct} of {found.problems} held-out answers right, "
            f"{found.length:.2f} blocks each"
        )

    def event(self, event: EventFields) -> None:
        """See `TrainingWatcher`."""
        self.progress.event(event)
        if self.begun:  # the first episodes may take long, and validations
            self._plain()

    def line(self) -> str:
        """See `MovingView.line`."""
        return f"{self._note}: {self.progress.line()}" if self._note else self.progress.line()

    def render(self) -> RenderableType:
        """The view as it is now."""
        p = self.progress
        head = Table.grid(padding=(0, 1))
        head.add_row(self._spinner, Text.assemble(("reason train navigator", "bold"), (f"  {self._note}", "dim")))
        rows = Table.grid(padding=(0, 1))
        rows.add_column(justify="right", style="dim", min_width=9)
        rows.add_column(width=BAR_WIDTH)
        rows.add_column()
        if not p.total:
            if p.asking:
                bar = Bar(size=p.asking, begin=0, end=p.asked, width=BAR_WIDTH, color="green", bgcolor="grey23")
                rows.add_row("asked", bar, Text(f"{p.asked}/{p.asking}, {p.wrong} hard"))
            return Group(head, rows)
        left = p.seconds_left
        bar = Bar(size=p.total, begin=0, end=p.done, width=BAR_WIDTH, color="green", bgcolor="grey23")
        eta = "" if left is None else f"  {duration(left)} to go"
        rows.add_row("episodes", bar, Text.assemble(f"{p.done}/{p.total}", (eta, "dim")))
        if p.accuracy is not None and p.earned is not None and p.length is not None:
            right = Bar(size=1.0, begin=0, end=p.accuracy, width=BAR_WIDTH, color="blue", bgcolor="grey23")
            rows.add_row("right", right, Text(f"{100 * p.accuracy:.1f}%  return {p.earned:.3f}"))
            rows.add_row("blocks", "", Text(f"{p.length:.2f} before the answer"))
        if p.epsilon is not None:
            random = Bar(size=1.0, begin=0, end=p.epsilon, width=BAR_WIDTH, color="grey58", bgcolor="grey23")
            rows.add_row("epsilon", random, Text(f"{p.epsilon:.3f}"))
        if p.validation is not None:
            found = p.validation
            rows.add_row("held out", "", Text(f"{100 * found.accuracy:.1f}% after {found.episode} episodes"))
        rate = p.tokens_per_s
        shown = f"{p.tokens:,}" + ("" if rate is None else f"  {rate:.0f}/s") + f", {p.reused:,} replies reused"
        rows.add_row("tokens", "", Text(shown))
        return Group(head, rows)
