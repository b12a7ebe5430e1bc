"""Shared by the benchmarks: the machine, sweeps as TOML, Markdown tables, and comparisons as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from non_inferiority import NonInferiority
from reason.evals.statistics.intervals import bootstrap_means, percentiles
from reason.evals.statistics.paired import PairedComparison, Status, holm


def processor() -> str:
    """The processor's name, if Linux has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def made_here() -> str:
    """A sentence for a table's head: processor, cores, version of reason and date."""
    return (
        f"{processor()}, {os.cpu_count()} cores, reason {version('reason-orchestrator')}, {datetime.now(UTC):%Y-%m-%d}."
    )


def strategy_blocks(methods: Sequence[tuple[str, Mapping[str, object]]]) -> list[str]:
    """A block for each method, its parameters as they stand in TOML."""
    blocks = []
    for name, settings in methods:
        body = "\n".join(f"{key} = {value}" for key, value in settings.items())
        blocks.append(f'[[strategy]]\nname = "{name}"\n[strategy.parameters]\n{body}\n')
    return blocks


def share(values: Sequence[float]) -> str:
    """A mean in per cent with its interval over questions."""
    array = np.array(values)
    low, high = percentiles(bootstrap_means(array, np.arange(len(array))))
    return f"{100 * array.mean():.1f} [{100 * low:.0f}, {100 * high:.0f}]"


def p_value(p: float) -> str:
    """A p-value within a sentence."""
    return f"p {short_p(p)}" if p < 0.001 else f"p = {short_p(p)}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    aligned = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, aligned, *rows))


@dataclass(frozen=True)
class Comparison:
    """A claim "a is better than b" of a table, as `docs/results/comparisons/` holds it and `docs/claims.md` cites it.

    Attributes:
        id: `TABLE/A-vs-B`, unique among all tables.
        n: Items that both have.
        clusters: Groups of them.
        seeds: Seeds or orders of samples over which an item's score is averaged.
        difference: a minus b, as a share.
        low: Lower end of its 95% interval; None if not estimable.
        high: Upper end likewise.
        p: P-value of `test`.
        p_adjusted: The p-value corrected for the other comparisons of the table.
        status: What `p_adjusted` and the interval allow to say.
    """

    id: str
    a: str
    b: str
    metric: str
    n: int
    clusters: int
    seeds: int
    difference: float
    low: float | None
    high: float | None
    test: str
    p: float
    p_adjusted: float
    status: Status


def compared(
    results: Iterable[tuple[str, str, str, PairedComparison | NonInferiority]], metric: str = "accuracy"
) -> list[Comparison]:
    """The comparisons of one table, with their p-values adjusted together by Holm's method.

    Args:
        results: For each the id, the names of a and b, and the result. All comparisons that the table was looked at for
            belong here, not only those that came out well.
    """
    results = list(results)
    rows = []
    adjusted_ps = holm([result.p for *_, result in results])
    for (name, a, b, result), adjusted in zip(results, adjusted_ps, strict=True):
        pair = result.comparison if isinstance(result, NonInferiority) else result
        rows.append(
            Comparison(
                id=name,
                a=a,
                b=b,
                metric=metric,
                n=pair.items,
                clusters=pair.clusters,
                seeds=pair.seeds,
                difference=pair.difference,
                low=None if pair.interval is None else pair.interval.low,
                high=None if pair.interval is None else pair.interval.high,
                test=result.test,
                p=result.p,
                p_adjusted=adjusted,
                status=result.status(adjusted),
            )
        )
    return rows


def comparisons_table(comparisons: Iterable[Comparison]) -> str:
    """Comparisons as a Markdown table; differences and intervals in points."""
    head = ("comparison", "items", "difference", "95% interval", "test", "p", "p (Holm)", "status")
    return table(
        head,
        [
            (
                f"{c.a} minus {c.b}",
                f"{c.n:,}" if c.clusters == c.n else f"{c.n:,} in {c.clusters:,} groups",
                f"{100 * c.difference:+.2f}",
                "not estimable" if c.low is None or c.high is None else f"[{100 * c.low:+.2f}, {100 * c.high:+.2f}]",
                c.test,
                short_p(c.p),
                short_p(c.p_adjusted),
                c.status,
            )
            for c in comparisons
        ],
    )


def write_comparisons(path: Path, comparisons: Iterable[Comparison]) -> None:
    """Write the comparisons of a script as JSON, differences and p-values with six significant digits.

    Raises:
        ValueError: Two of them have the same id.
    """
    comparisons = list(comparisons)
    names = [c.id for c in comparisons]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{path}: several comparisons have the id {twice[0]!r}; give each its own")
    rounded = [
        {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in asdict(c).items()}
        for c in comparisons
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rounded, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def paired_points(result: PairedComparison) -> str:
    """A difference in points with its interval."""
    ends = result.interval
    between = "not estimable" if ends is None else f"{100 * ends.low:+.1f}, {100 * ends.high:+.1f}"
    return f"{100 * result.difference:+.1f} [{between}]"


def difference_cells(results: Sequence[PairedComparison | None], missing: str = "") -> list[str]:
    """A column of differences in points with interval and p-value; of several, p is also adjusted for the column.

    Args:
        missing: The cell where there is nothing to compare.
    """
    known = [result for result in results if result is not None]
    adjusted = iter(holm([result.p for result in known]))
    cells = []
    for result in results:
        if result is None:
            cells.append(missing)
        else:
            more = f", {p_value(next(adjusted))} (Holm)" if len(known) > 1 else ""
            cells.append(f"{paired_points(result)}, {p_value(result.p)}{more}")
    return cells


def short_p(p: float) -> str:
    """A p-value as a cell of a table."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


# -- pages on comparisons


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        figures: Figures for the conclusion, by name.
    """

    text: str
    comparisons: list[Comparison]
    figures: dict[str, float]


def claim_marker(comparison: Comparison) -> str:
    """The marker of a sentence that states this comparison."""
    return f"<!-- claim: {comparison.id} -->"


def adjusted_p(comparison: Comparison) -> str:
    """The adjusted p-value within a sentence."""
    return p_value(comparison.p_adjusted).replace("p ", "adjusted p ", 1)


def finding(comparison: Comparison) -> str:
    """A comparison within a sentence, with the marker of its claim."""
    ends = (
        f" [{100 * comparison.low:+.1f}, {100 * comparison.high:+.1f}]"
        if comparison.low is not None and comparison.high is not None
        else ""
    )
    found = f"{100 * comparison.difference:+.1f} points{ends}, {p_value(comparison.p_adjusted)}, {comparison.status}"
    return f"{found} {claim_marker(comparison)}"


def write_section(page: Path, name: str, text: str) -> None:
    """Put a text between the marks `<!-- benchmark:NAME -->` and `<!-- end -->` of a page.

    Raises:
        ValueError: The page does not have them.
    """
    begin, end = f"<!-- benchmark:{name} -->\n", "<!-- end -->"
    head, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{page} has no part {begin.strip()} … {end}")
    page.write_text(f"{head}{begin}{text}\n{end}{tail}", encoding="utf-8")


def write_results(docs: Path, name: str, page: str, comparisons: Iterable[Comparison]) -> Path:
    """Write a details page and its comparisons; returns the path of the page."""
    path = docs / "results" / "details" / f"{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    write_comparisons(docs / "results" / "comparisons" / f"{name}.json", comparisons)
    return path
