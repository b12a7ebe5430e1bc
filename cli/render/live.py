"""The live view of a run on standard error; without a terminal, plain lines at growing intervals."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from ...core.events import Event, RunStarted, TextDelta
from .console import one_line, plural, printable, say, start_live, truncate
from .live_tree import LiveTree
from .run_progress import Progress, WorkersProgress
from .status import STAGE_UNITS, bar, bar_rows, stage_text

MIN_WORKER_WIDTH = 24
"""Minimum width of a worker's text; on a narrow terminal the last workers are left out."""
MIN_WORKER_LINES = 4
GAP = 2


class LiveWorkers:
    """The texts of concurrent workers side by side: the last lines of each, up to half the terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """A column per worker: its name, its finished steps (dim), its unfinished text."""
        workers = self._progress.workers
        if workers is None:
            return
        shown = max(1, min(len(workers.names), (options.max_width + GAP) // (MIN_WORKER_WIDTH + GAP)))
        width = (options.max_width + GAP) // shown - GAP
        room = max(MIN_WORKER_LINES, options.size.height // 2)
        table = Table.grid(padding=(0, GAP, 0, 0))
        for _ in range(shown):
            table.add_column(width=width, no_wrap=True, overflow="crop")
        heads, texts = [], []
        for name, steps, writing in list(zip(workers.names, workers.steps, workers.writing, strict=True))[:shown]:
            heads.append(Text(printable(name), "bold cyan"))
            text = Text(printable("\n".join(steps)), "dim")
            text.append(("\n" if steps and writing else "") + printable(writing), "not dim")
            texts.append(Text("\n").join(text.wrap(console, width, overflow="fold")[-room:]))
        table.add_row(*heads)
        table.add_row(*texts)
        yield Text()
        yield table
        if shown < len(workers.names):
            yield Text(f"… {len(workers.names) - shown} more", "yellow")


FRAMES_PER_S = 8
PLAIN_INTERVAL_S = 15.0
"""Seconds before the first plain line without a terminal."""
MAX_PLAIN_LINES = 20
PLAIN_PULL_AFTER_S = 1.5
"""Seconds after which the loading of files gets a plain line."""
KIND_LABELS = {"thinking_tokens": "thinking"}
"""Labels of limits that differ from their names."""
MAX_VOTES = 5
MAX_SEARCHES = 3
MAX_CHAINS = 4
MAX_WRITERS = 32
"""Number of last steps whose models are shown."""


class LiveView:
    """Live view of a run; an event sink and a context manager.

    Args:
        limits: Limits of the budget by kind, if they are known before the run starts.
        loading: What happens before the run starts: "loading local/smollm2-135m".
        clock: Monotonic seconds; replaced in tests.
    """

    def __init__(
        self,
        limits: Mapping[str, float] | None = None,
        loading: str = "loading the model",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.progress = Progress(limits=dict(limits or {}))
        self._clock = clock
        self._started = clock()
        self._run_started: float | None = None
        self._note = loading
        self.hint = ""
        """What keys do, in the last line; empty is no line."""
        self._pull: tuple[str, int, int | None] | None = None
        self._stage_started, self._stage_reported = 0.0, False
        self._spinner = Spinner("dots")
        self._tree = LiveTree(self.progress)
        self._workers = LiveWorkers(self.progress)
        self._live: Live | None = None
        self._plain_lines = 0
        self._next_plain = PLAIN_INTERVAL_S

    def __enter__(self) -> Self:
        self._live = start_live(self.render, FRAMES_PER_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, event: Event) -> None:
        """Update from an event."""
        if isinstance(event, RunStarted):
            self._run_started = self._clock() - event.at_s
            self._pull = None
        if not isinstance(event, TextDelta):
            self._note = ""
        self.progress.take(event)
        if self._live is None:
            self._plain()

    def note(self, text: str) -> None:
        """Show a note that is not an event, such as "stopping"."""
        self._note = text

    def pulled(self, stage: str, done: int, total: int | None) -> None:
        """Show the progress of model files or documents; called from any thread."""
        if total and done >= total:  # the next one is not this one with a full bar
            self._pull = None
            return
        if self._pull is None or self._pull[0] != stage:
            self._stage_started, self._stage_reported = self._clock(), False
        self._pull = (stage, done, total)
        if self._live is None and not self._stage_reported and self._clock() - self._stage_started > PLAIN_PULL_AFTER_S:
            self._stage_reported = True
            say(stage_text(stage, total or 0, None), label=_label(stage))

    def close(self) -> None:
        """Remove the view; idempotent."""
        if self._live is not None:
            self._live.stop()
            self._live = None
            self._next_plain = float("inf")  # no plain lines after a live view

    # -- drawing

    def render(self) -> RenderableType:
        """The current view."""
        p = self.progress
        elapsed = self._clock() - self._started
        head = Table.grid(padding=(0, 1))
        title = Text.assemble((p.strategy or "reason", "bold"), (f"  {p.model}", "cyan") if p.model else "")
        title.append(f"  {self._note or _thinking(p) or p.stage}", "dim")
        title.append(f"  {elapsed:.1f} s", "dim")
        head.add_row(self._spinner, title)

        rows = bar_rows()
        if self._pull is not None:
            stage, done, total = self._pull
            rows.add_row(_label(stage), bar(done, total, "blue") if total else "", Text(stage_text(stage, done, total)))
        if p.samples_requested > 1 and p.num_generations == 1:  # more calls would be a total that grows
            rows.add_row(
                "chains",
                bar(p.samples_done, p.samples_requested, "green"),
                Text.assemble(f"{p.samples_done}/{p.samples_requested}", (f"  {self._speed()}", "dim")),
            )
        elif p.samples_requested:
            rows.add_row("so far", Text(_samples(p)), Text(self._speed(), "dim"))
        if p.workers is not None:
            rows.add_row("workers", "", self._speed())
        for kind, limit in p.limits.items():
            spent = self._spent(kind, elapsed)
            if limit and spent is not None:
                rows.add_row(KIND_LABELS.get(kind, kind), bar(spent, limit, "yellow"), _amount(kind, spent, limit))
        if p.votes:
            rows.add_row("votes", _votes(p.votes))
        if p.writers:
            summary, last = _writers(p.writers)
            rows.add_row("steps", Text(summary, no_wrap=True, overflow="ellipsis"), Text(last, no_wrap=True))
        if p.chains:
            rows.add_row("blocks", Text(_chains(p.chains), no_wrap=True, overflow="ellipsis"))
        workers = [self._workers] if p.workers is not None else []
        hint = [Text(self.hint, "dim", no_wrap=True, overflow="ellipsis")] if self.hint else []
        if not p.searches and not p.ran and p.jury is None:
            return Group(head, *([rows] if rows.row_count else []), *workers, *hint)
        lines = Table.grid(padding=(0, 1))  # a separate table, since they are longer than a bar
        lines.add_column(justify="right", style="dim", min_width=9)
        lines.add_column(no_wrap=True, overflow="ellipsis")
        if p.ran:
            lines.add_row("chosen", Text(printable(p.ran)))
        if p.jury is not None:
            lines.add_row("jury", Text(printable(p.jury.line())))
        for line in _searches(p):
            lines.add_row("search", Text(line))
        tree = [self._tree] if p.searches else []
        return Group(head, *([rows] if rows.row_count else []), lines, *tree, *workers, *hint)

    def _speed(self) -> str:
        """Tokens so far, and tokens per second."""
        rate = None if self._run_started is None else self.progress.rate(self._clock() - self._run_started)
        return f"{self.progress.tokens:,} tokens" + ("" if rate is None else f"  {rate:.0f} tokens/s")

    def _spent(self, kind: str, elapsed: float) -> float | None:
        if kind == "tokens":
            return float(self.progress.tokens)
        if kind == "thinking_tokens":
            return float(self.progress.thinking_tokens)
        if kind == "seconds":
            return 0.0 if self._run_started is None else self._clock() - self._run_started
        return self.progress.spent.get(kind, 0.0)

    def _plain(self) -> None:
        elapsed = self._clock() - self._started
        if elapsed < self._next_plain or self._plain_lines >= MAX_PLAIN_LINES:
            return
        self._plain_lines += 1
        self._next_plain = elapsed + PLAIN_INTERVAL_S * 2 ** min(self._plain_lines, 6)  # long runs do not fill the log
        p = self.progress
        done = ", ".join(filter(None, (_samples(p), f"{p.tokens:,} tokens")))
        thinking = f", {shown}" if (shown := _thinking(p)) else ""
        workers = f"; {_workers(p.workers)}" if p.workers else ""
        steps = f"; steps {': '.join(_writers(p.writers))}" if p.writers else ""
        blocks = f"; blocks {_chains(p.chains)}" if p.chains else ""
        jury = f"; jury: {printable(p.jury.line())}" if p.jury is not None else ""
        searches = "".join(f"; {line}" for line in _searches(p))
        now = p.stage or self._note or "running"
        say(f"{elapsed:.0f} s: {now}, {done}{thinking}{workers}{steps}{blocks}{jury}{searches}")


def _thinking(progress: Progress) -> str:
    """What samples that are thinking have generated; empty if none is."""
    tokens = progress.thinking_now
    return "" if tokens is None else f"thinking… {tokens:,} tokens" if tokens else "thinking…"


def _samples(progress: Progress) -> str:
    """The samples so far: of one call `3/8 chains`, of several `12 samples`, since more may follow; of one nothing."""
    if progress.num_generations > 1:
        return plural(progress.samples_done, "sample")
    return f"{progress.samples_done}/{progress.samples_requested} chains" if progress.samples_requested > 1 else ""


def _label(stage: str) -> str:
    return "context" if stage in STAGE_UNITS else "model"


def _amount(kind: str, spent: float, limit: float) -> str:
    if kind == "seconds":
        return f"{spent:.1f}/{limit:g} s"
    if kind == "usd":
        return f"{spent:.4f}/{limit:g} USD"
    return f"{spent:,.0f}/{limit:,.0f}"


def _writers(writers: Sequence[str]) -> tuple[str, str]:
    """The models of the steps: `7, 2 by the large model`, and those of the last steps: `SSLSSSL`."""
    more = "…" if len(writers) > MAX_WRITERS else ""
    summary = f"{len(writers):,}, {writers.count('L'):,} by the large model"
    return summary, more + "".join(writers[-MAX_WRITERS:])


def _workers(workers: WorkersProgress) -> str:
    """The finished steps of each worker: `Ada 3 steps, Ben 2 steps`."""
    progress = zip(workers.names, workers.steps, strict=True)
    return printable(", ".join(f"{name} {plural(len(steps), 'step')}" for name, steps in progress))


def _chains(chains: Mapping[int, list[str]]) -> str:
    """The blocks of each attempt: `R Rf Db | R D`."""
    shown = [printable(" ".join(chains[vote])) for vote in sorted(chains)[:MAX_CHAINS]]
    return " | ".join([*shown, *(["…"] if len(chains) > MAX_CHAINS else [])])


def _searches(progress: Progress) -> list[str]:
    """The progress of the last searches."""
    started = [(name, search) for name, search in list(progress.searches.items()) if search.has_started]
    return [printable(search.line(name)) for name, search in started[-MAX_SEARCHES:]]


def _votes(votes: Mapping[str, int]) -> Text:
    text = Text(no_wrap=True, overflow="ellipsis")
    for i, (answer, count) in enumerate(list(votes.items())[:MAX_VOTES]):
        text.append(truncate(one_line(answer), 24), "bold" if i == 0 else "")
        text.append(f" x{count}  ", "dim")
    return text
