"""Metrics, ratios, tables and reports of servers under load."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from reporting import table
from scipy import stats
from sidecar_load_client import LoadMetrics

DIRECT = "(direct)"
OURS = "reason"


@dataclass(frozen=True)
class Cell:
    """What is sent: `streams` at once, `requests` in all, as a stream or not, and whether the model takes its time."""

    streams: int
    requests: int
    streamed: bool
    paced: bool = False

    @property
    def label(self) -> str:
        """How tables call it."""
        return f"{self.streams} {'streams' if self.streamed else 'complete responses'} at once"


@dataclass(frozen=True)
class Round:
    """What one server did in one cell of one round. Times are in seconds.

    Attributes:
        rate: Good responses a second.
        p50: Median latency; p95 and p99 likewise.
        first: Median time to the first event with text; None where nothing is streamed.
        first_p99: 99th percentile of it.
        failures: Requests that failed.
        what: The failures, by what they were.
        calls: Requests that the model server had for each of ours.
        server_cpu: Processor seconds of the server for each good response.
        busy: Share of the time in which the load generator used a core.
    """

    rate: float
    p50: float
    p95: float
    p99: float
    first: float | None
    first_p99: float | None
    failures: int
    what: dict[str, int]
    calls: float
    server_cpu: float
    busy: float


def round_of(metrics: LoadMetrics, args: int, calls: int, server_cpu: float) -> Round:
    """Metrics of one job as a round."""
    good = len(metrics.latencies)
    p50, p95, p99 = np.quantile(metrics.latencies, (0.5, 0.95, 0.99)) if good else (math.nan,) * 3
    firsts = np.quantile(metrics.firsts, (0.5, 0.99)) if metrics.firsts else (None, None)
    return Round(
        rate=good / metrics.seconds,
        p50=float(p50),
        p95=float(p95),
        p99=float(p99),
        first=None if firsts[0] is None else float(firsts[0]),
        first_p99=None if firsts[1] is None else float(firsts[1]),
        failures=sum(metrics.failures.values()),
        what=dict(metrics.failures),
        calls=calls / args,
        server_cpu=server_cpu / max(1, args),
        busy=metrics.cpu / metrics.seconds,
    )


Rounds = dict[Cell, dict[str, list[Round]]]
"""By cell and server, one a round."""


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Geometric mean of the ratio over rounds that were measured side by side, with its 95 % t interval.

    The interval is of the logarithms; with one round it is NaN.
    """
    logs = np.log(np.asarray(ours, dtype=float)) - np.log(np.asarray(theirs, dtype=float))
    mean = float(logs.mean())
    if len(logs) < 2:
        return math.exp(mean), math.nan, math.nan
    reach = float(stats.t.ppf(0.975, len(logs) - 1)) * float(logs.std(ddof=1)) / math.sqrt(len(logs))
    return math.exp(mean), math.exp(mean - reach), math.exp(mean + reach)


def ratio_text(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """A ratio as a table has it."""
    mean, low, high = ratio(ours, theirs)
    return f"{mean:.2f}" if math.isnan(low) else f"{mean:.2f} [{low:.2f}, {high:.2f}]"


def added(mine: Sequence[Round], direct: Sequence[Round], of: Callable[[Round], float]) -> float:
    """Median over the rounds of what a server adds to the model server's own time, in milliseconds."""
    return statistics.median(of(a) - of(b) for a, b in zip(mine, direct, strict=True)) * 1e3


def cell_table(cell: Cell, servers: dict[str, list[Round]]) -> str:
    """One cell: a row for each server."""
    head = [
        "server",
        "requests/s",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "added p50 ms",
        "added p99 ms",
        "first event p50 / p99 ms",
    ]
    head += ["server's CPU ms each", "calls each", "failed", f"{OURS} is … times as fast"]
    rows = []
    for name, rounds in servers.items():
        row = [name, f"{median(r.rate for r in rounds):.0f}"]
        row += [
            f"{median(v) * 1e3:.1f}"
            for v in ([r.p50 for r in rounds], [r.p95 for r in rounds], [r.p99 for r in rounds])
        ]
        if name == DIRECT:
            row += ["", ""]
        else:
            row += [f"{added(rounds, servers[DIRECT], lambda r: r.p50):+.1f}"]
            row += [f"{added(rounds, servers[DIRECT], lambda r: r.p99):+.1f}"]
        firsts = [(r.first, r.first_p99) for r in rounds if r.first is not None and r.first_p99 is not None]
        row += [
            f"{median(a for a, _ in firsts) * 1e3:.1f} / {median(b for _, b in firsts) * 1e3:.1f}" if firsts else ""
        ]
        row += [f"{median(r.server_cpu for r in rounds) * 1e3:.2f}", f"{median(r.calls for r in rounds):.2f}"]
        row += [str(sum(r.failures for r in rounds))]
        other = name not in (DIRECT, OURS) and OURS in servers
        measured = other and all(r.rate > 0 for r in (*rounds, *servers[OURS]))
        row += [ratio_text([r.rate for r in servers[OURS]], [r.rate for r in rounds]) if measured else ""]
        rows.append(row)
    pace = "a model that takes its time" if cell.paced else "a model that answers at once"
    return f"### {cell.label}, {pace} ({cell.requests} requests a round)\n\n{table(head, rows)}"


def memory_table(memory: dict[str, tuple[float, int, int]]) -> str:
    """Processor seconds until each server was ready, and its resident memory then and at the end."""
    rows = [[name, f"{cpu:.1f}", f"{a / 2**20:.0f}", f"{b / 2**20:.0f}"] for name, (cpu, a, b) in memory.items()]
    head = ["server", "CPU s until it is ready", "MiB before the first request", "MiB after the last"]
    return table(head, rows)


def median(values: Iterable[float]) -> float:
    """A median over rounds."""
    return statistics.median(values)


def spread(values: Sequence[float], digits: int) -> tuple[str, str]:
    """Median and range as two cells; both empty without values, "none" where one of them is NaN."""
    if any(math.isnan(value) for value in values):
        return "none", ""
    if not values:
        return "", ""
    return f"{statistics.median(values):.{digits}f}", f"{min(values):.{digits}f} - {max(values):.{digits}f}"


def write_report(report: str, record: object, out: Path | None, name: str) -> None:
    """Print a report; with a directory, also write it to `NAME.md` and its data to `NAME.json`."""
    print(report)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{name}.md").write_text(report + "\n", encoding="utf-8")
        (out / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def as_json(measured: Rounds) -> list[dict[str, object]]:
    """All rounds as they were."""
    return [
        {**asdict(cell), "servers": {name: [asdict(r) for r in rounds] for name, rounds in servers.items()}}
        for cell, servers in measured.items()
    ]
