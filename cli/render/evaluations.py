"""Evaluations on the terminal: the progress line, tables of runs, the details of one run, the comparison of two."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Self

from rich.text import Text

from ...core.events import Event, SampleFinished
from ...evals.comparison import RunComparison
from ...evals.plan import DatasetInfo
from ...evals.results import ResultRow
from ...evals.runner import RunObserver
from ...evals.statistics.intervals import Interval, wilson
from ...evals.summary import EvalSummary, MeanScore, tokens_text
from .console import duration, out, plain_table, say
from .status import ProgressView


def say_data(use: DatasetInfo) -> None:
    """Print licence and warnings of a dataset on standard error."""
    say(f"{use.name}: licence {use.licence or 'not stated'}", label="data", style="cyan")
    if use.warning:
        say(use.warning, label="warning", style="yellow")


def say_default_seeds(items: int, seeds: int) -> None:
    """Print what running several seeds costs, where the user named none."""
    say(
        f"{items:,} items, {seeds} seeds each as the strategy samples: {items * seeds:,} runs, {seeds} times the cost "
        "of one seed (--seeds 1; in a sweep seeds = [0])",
        label="plan",
        style="cyan",
    )


def say_warnings(label: str, summary: EvalSummary) -> None:
    """Print what makes a score unreliable on standard error."""
    if summary.alarming:
        say(
            f"{label}: {100 * summary.unparsed:.1f}% of the answers could not be parsed; above 5% the score depends "
            "more on the form of the answers than on the method",
            label="warning",
            style="bold red",
        )
    if summary.failed:
        say(
            f"{label}: {summary.failed} rows failed and count as wrong; --resume repeats them",
            label="warning",
            style="yellow",
        )
    for sentence, rows in summary.degraded.items():
        say(f"{label}: {sentence} ({rows} rows)", label="note", style="cyan")


_RUN_COLUMNS = (
    *("items", "seeds", "acc.\n%", "95%\ninterval", "tokens\n/ item", "paid\ntokens", "calls\n/ item"),
    *("p50\ns", "p95\ns", "unparsed\n%"),
)
"""Headings of two lines keep names and intervals unwrapped on a narrow terminal."""


def print_runs(runs: Sequence[tuple[str, EvalSummary]]) -> None:
    """Print a table of runs."""
    table = plain_table("run", *_RUN_COLUMNS, right="|".join(_RUN_COLUMNS))
    table.columns[0].no_wrap = False
    for label, s in runs:
        table.add_row(
            Text(label, "bold"),
            str(s.items),
            str(s.spread.seeds),
            f"{100 * s.accuracy.value:.1f}",
            interval(s.accuracy.interval),
            tokens_text(s.cost),
            f"{s.cost.paid_tokens:,}",
            f"{s.cost.calls:.2f}",
            *(("-", "-") if s.latency is None else (f"{s.latency.p50:.2f}", f"{s.latency.p95:.2f}")),
            Text(f"{100 * s.unparsed:.1f}", "bold red" if s.alarming else ""),
        )
    out().print(table)


def print_details(summary: EvalSummary) -> None:
    """Print the other scores of a run, its seeds and its subjects."""
    console = out()
    levels = [(f"level {name}", mean) for name, mean in summary.levels.items()]
    rows: list[tuple[str, MeanScore]] = [*summary.metrics.items(), *summary.subjects.items(), *levels]
    if rows:
        table = plain_table("score or subject", "items", "%", "95% interval", right="items|%|95% interval")
        for name, mean in rows:
            table.add_row(name, str(mean.items), f"{100 * mean.value:.1f}", interval(mean.interval))
        console.print()
        console.print(table)
    if summary.labels is not None:
        heads = ("items", "predicted", "precision %", "recall %", "F1 %")
        table = plain_table("label", *heads, right="|".join(heads))
        for name, f in summary.labels.labels.items():
            shares = ("-" if value is None else f"{100 * value:.1f}" for value in (f.precision, f.recall, f.f1))
            table.add_row(name, str(f.support), str(f.predicted), *shares)
        console.print(f"\nmacro F1 {100 * summary.labels.macro_f1:.1f}%")
        console.print(table)
    s = summary.spread
    lines = ["one seed: the variation between seeds is not estimable"]
    if s.seeds > 1:
        unstable = "not estimable" if s.instability is None else f"{100 * s.instability:.1f}%"
        lines = [
            f"seeds: mean {100 * s.mean:.1f}%, sd {100 * (s.sd or 0):.1f}, from {100 * s.low:.1f} to "
            f"{100 * s.high:.1f}; two seeds disagree on {unstable} of the items",
            *filter(None, ["  ".join(f"pass@{k} {100 * v:.1f}%" for k, v in summary.pass_at.items())]),
        ]
    for name, c in (("confidence", summary.calibration), ("calibrated", summary.calibrated)):
        if c is not None:
            auroc = "-" if c.auroc is None else f"{c.auroc:.3f}"
            lines.append(
                f"{name} ({c.n} rows): ECE {c.ece:.3f}, adaptive ECE {c.adaptive_ece:.3f}, Brier {c.brier:.3f}, "
                f"NLL {c.nll:.3f}, AUROC {auroc}"
            )
    console.print()
    console.print(Text("\n".join(lines)))


def print_comparison(comparison: RunComparison, *, several: bool) -> None:
    """Print the comparison of two runs, with the corrected p-value if it is one of several."""
    console = out()
    p = comparison.score
    console.print(Text.assemble((comparison.a, "bold"), " minus ", (comparison.b, "bold"), f", on {p.items} items"))
    for d in comparison.compared:
        console.print(Text(f"  compared: {d}"))
    for d in comparison.besides:
        console.print(Text(f"  {'also differs' if comparison.compared else 'differs'}: {d}", "yellow"))
    if comparison.besides:
        console.print(Text("  the difference below is that of all these settings together", "yellow"))
    if comparison.missing:
        console.print(Text(f"  {comparison.missing} rows are in only one of the runs and are ignored", "yellow"))
    rows = {
        "difference": f"{100 * p.difference:+.2f} points, {comparison.status}",
        "95% interval": interval(p.interval, signed=True) + ("" if p.interval is None else f" ({p.interval.method})"),
        "wins / losses": f"{p.wins} / {p.losses}   both right {p.both}, both wrong {p.neither}, other {p.other}",
        p.test: f"p = {p.p:.4f}",
        "p (Holm)": f"p = {comparison.p_adjusted:.4f}" if several else "",
        "detectable difference": "not estimable"
        if p.detectable is None
        else f"{100 * p.detectable:.2f} points (80% power)",
        "items needed to detect it": "" if p.items_needed is None else f"{p.items_needed:,}",
    }
    for name, other in comparison.metrics.items():
        rows[name] = f"{100 * other.difference:+.2f} points {interval(other.interval, signed=True)}"
    table = plain_table("", "")
    table.show_header = False
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    console.print(table)


def interval(ends: Interval | None, *, signed: bool = False) -> str:
    """An interval in percent."""
    if ends is None:
        return "not estimable"
    form = "+.1f" if signed else ".1f"
    return f"[{100 * ends.low:{form}}, {100 * ends.high:{form}}]"


class EvalView(ProgressView, RunObserver):
    """The progress of one evaluation, or of the runs of a sweep one after the other, as an observer of them."""

    def __init__(self, title: str = "reason eval", clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._title = title
        self.has_stored = False
        """Whether a row or a sample of any run is stored."""
        self.watch("")

    def watch(self, run: str) -> Self:
        """Start over for the next run."""
        self._run = run
        self._began = self._clock()
        self._total = self._done = self._new = 0
        self._value = 0.0
        self._right = self._unparsed = self._failed = 0
        self._binary = True
        self._tokens = 0  # generated by this process, without stored completions
        return self

    def begin(self, total: int, rows: Sequence[ResultRow]) -> None:
        self._total, self._began = total, self._clock()
        for row in rows:
            self._count(row)

    def row(self, row: ResultRow) -> None:
        self._count(row)
        self._new += 1
        self._note = ""
        self._plain()

    def event(self, event: Event) -> None:
        if isinstance(event, SampleFinished) and not event.replayed:
            self.has_stored |= event.completion.failure is None
            self._tokens += event.completion.usage.completion_tokens

    def line(self) -> str:
        parts = [self._note] if self._note else []
        parts.append(f"{self._done}/{self._total}")
        seconds = self._clock() - self._began
        if self._done:
            interval = ""
            if self._binary:
                ends = wilson(self._right, self._done)
                interval = f" [{100 * ends.low:.1f}, {100 * ends.high:.1f}]"
            parts.append(f"accuracy {100 * self._value / self._done:.1f}%{interval}")
        if self._tokens:
            parts.append(f"{self._tokens / max(seconds, 1e-9):.0f} tokens/s")
        if self._new:
            parts.append(f"{duration(seconds / self._new * (self._total - self._done))} left")
        if self._unparsed:
            parts.append(f"unparsed answers {self._unparsed}")
        if self._failed:
            parts.append(f"failed {self._failed}")
        return ": ".join(filter(None, (self._title, self._run, ", ".join(parts))))

    def _count(self, row: ResultRow) -> None:
        self.has_stored = True
        self._done += 1
        self._value += row.value
        self._right += row.value == 1.0
        self._binary = self._binary and row.value in (0.0, 1.0)
        self._unparsed += not row.parsed
        self._failed += row.error is not None
