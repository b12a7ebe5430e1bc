"""A report as a list of blocks, and its two forms: HTML, by one template, and Markdown without figures and traces."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...core.extras import missing_package
from ..comparison import GreedyComparison
from ..plan import DatasetInfo
from ..scoring import LabelReport
from ..statistics.calibration import CalibrationMetrics
from ..statistics.intervals import Interval
from ..summary import tokens_text
from .content import (
    COSTS,
    MAX_SIDES,
    EqualTokensRow,
    Grid,
    GridCell,
    PairSection,
    ReportContent,
    RunAnswer,
    RunSection,
    costs,
)

TEMPLATE: Final = Path(__file__).with_name("report.html.j2")
NOT_ESTIMABLE: Final = "not estimable"
MAX_NAMES: Final = 40
"""Maximum number of subjects that are listed."""


class Strong(str):
    """A cell that stands out."""

    __slots__ = ()


@dataclass(frozen=True)
class Block:
    """A part of a report.

    Attributes:
        title: Its heading; empty for none.
        level: Level of the heading, 2 or 3.
        text: What precedes the table.
        heads: Headings of the table's columns; empty for no table.
        rows: Its rows.
        figures: Drawings as SVG, each with a caption; HTML only.
        folded: Whether it is shown on request only; Markdown leaves it out.
    """

    title: str = ""
    level: int = 3
    text: str = ""
    heads: tuple[str, ...] = ()
    rows: Sequence[Sequence[str]] = ()
    figures: Sequence[tuple[str, str]] = ()
    folded: bool = False


def render_markdown(content: ReportContent) -> str:
    """The report as Markdown."""
    lines = [f"# {_plain(content.title)}", "", *(f"> - {_plain(w)}" for w in content.warnings)]
    for block in report_blocks(content):
        if block.folded:
            continue
        if block.title:
            lines += ["", f"{'#' * block.level} {_plain(block.title)}"]
        if block.text:
            lines += ["", _plain(block.text)]
        if block.heads:
            lines += ["", _line(block.heads), "| --- |" + " ---: |" * (len(block.heads) - 1), *map(_line, block.rows)]
    lines += ["", f"Made by reason {content.made_with}; definitions: docs/statistics.md."]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(f'**{_plain(c)}**' if isinstance(c, Strong) else _plain(c) for c in cells)} |"


def _plain(text: str) -> str:
    """Text of which nothing may end a cell or begin markup."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")


def render_html(content: ReportContent) -> str:
    """The report as one HTML document, without scripts and external resources.

    Raises:
        UserError: Jinja or matplotlib is not installed.
    """
    try:
        from jinja2 import Environment
    except ModuleNotFoundError as e:
        raise missing_package("an HTML report", e.name, "eval") from e
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters |= {"mark": _mark, "show_command": _show_command}
    environment.tests["strong"] = lambda cell: isinstance(cell, Strong)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    shown = len(content.disagreements)
    return template.render(
        content=content,
        blocks=report_blocks(content, figures=True),
        more="" if shown == content.disagreeing else f"The first {shown} are here.",
        max_sides=MAX_SIDES,
    )


def _mark(value: float) -> str:
    return "✓" if value == 1 else "✗" if value == 0 else f"{value:.2f}"


def _show_command(side: RunAnswer) -> str:
    return f"reason runs show {side.run_id}" + (f" --store {shlex.quote(side.store)}" if side.store else "")


def report_blocks(content: ReportContent, *, figures: bool = False) -> list[Block]:
    """The report but for its title, warnings and traces.

    Args:
        figures: Whether to draw the figures.
    """
    blocks = [block for grid in content.grids for block in _grid(grid)]
    datasets = {r.dataset.fingerprint: r.dataset for r in content.runs}
    for fingerprint, dataset in datasets.items():
        runs = [r for r in content.runs if r.dataset.fingerprint == fingerprint]
        names = {r.label for r in runs}
        blocks += [
            _results(dataset, runs, figures=figures),
            *_pairs([p for p in content.pairs if p.a in names and p.b in names]),
            *_equal_tokens([c for c in content.equal_tokens if c.dataset == fingerprint]),
            *_calibration(runs, figures=figures),
            *(_labels(run.label, run.summary.labels) for run in runs if run.summary.labels is not None),
            *_breakdown(runs),
            _seeds(runs, figures=figures),
            *_greedy([g for g in content.greedy if g.greedy in names]),
        ]
    if content.pairs:
        blocks.append(Block(text=f"{content.disagreeing} items on which runs disagree."))
    return [*blocks, *_settings(content.runs), *_data(datasets.values())]


def _grid(grid: Grid) -> list[Block]:
    columns = zip(*(row.cells for row in grid.rows), strict=True)
    best = [best_of(c.accuracy for c in column if c is not None) for column in columns]

    def cell(value: GridCell | None, top: float | None) -> str:
        if value is None:
            return "-"
        text = f"{share(value.accuracy)} {interval(value.interval)} · {value.tokens:,.0f}"
        return Strong(text) if value.accuracy == top else text

    rows = [(row.method, *map(cell, row.cells, best)) for row in grid.rows]
    return [
        Block(
            f"All methods, {grid.budget} a question",
            2,
            "Accuracy % with its 95% interval, and generated tokens a question.",
            ("method", *grid.datasets),
            rows,
        ),
        Block(
            text="What a question took, the mean over its datasets:",
            heads=("method", *COSTS),
            rows=[(row.method, *costs(row)) for row in grid.rows],
        ),
    ]


def best_of(values: Iterable[float]) -> float | None:
    """The largest of several numbers, which stands out; None where all are equal."""
    different = set(values)
    return max(different) if len(different) > 1 else None


def _results(dataset: DatasetInfo, runs: Sequence[RunSection], *, figures: bool) -> Block:
    best = best_of(r.summary.accuracy.value for r in runs)
    rows = []
    for run in runs:
        s = run.summary
        accuracy, unread = share(s.accuracy.value), share(s.unparsed)
        rows.append(
            (
                run.label,
                Strong(accuracy) if s.accuracy.value == best else accuracy,
                interval(s.accuracy.interval),
                f"{s.items} / {s.spread.seeds}",
                tokens_text(s.cost),
                f"{s.cost.paid_tokens / s.rows:,.0f}",
                f"{s.cost.calls:.1f}",
                "-" if s.latency is None else f"{s.latency.p50:.2f} / {s.latency.p95:.2f}",
                Strong(unread) if s.alarming else unread,
            )
        )
    drawn: list[tuple[str, str]] = []
    if figures:
        from .plots import accuracy_against_tokens

        caption = "Accuracy against generated tokens; bands are 95% intervals over items."
        drawn = [(accuracy_against_tokens(runs), caption)]
    return Block(
        _named(dataset),
        2,
        "Tokens, calls and what of the tokens this run paid itself are per item and seed; tokens count as if none had "
        "come from the store.",
        ("run", "accuracy %", "95% interval", "items / seeds", "tokens", "paid", "calls", "p50 / p95 s", "unread %"),
        rows,
        drawn,
    )


def _pairs(pairs: Sequence[PairSection]) -> list[Block]:
    rows = []
    for p in pairs:
        s = p.score
        difference = f"{100 * s.difference:+.1f}"
        rows.append(
            (
                f"{p.a} minus {p.b}",
                difference if p.status == "not shown" else Strong(difference),
                interval(s.interval, signed=True),
                f"{s.wins} / {s.losses}",
                f"{s.both} / {s.neither}",
                p_value(s.p),
                p_value(p.p_adjusted),
                p.status,
                share(s.detectable, NOT_ESTIMABLE),
                "-" if s.items_needed is None else f"{s.items_needed:,}",
                "; ".join(map(str, p.besides)) or "-",
            )
        )
    text = (
        "In points. Bold where the p-value, corrected for the comparisons of this table, is below 0.05 and the "
        "interval excludes 0. Detectable is the smallest true difference that this many items would have shown with a "
        "chance of 80%."
    )
    heads = ("difference", "mean", "95% interval", "wins / losses", "both right / wrong", "p", "p (Holm)", "status",
             "detectable", "items needed", "other differences")  # fmt: skip
    return [Block("Item by item", 3, text, heads, rows)] if rows else []


def _equal_tokens(curves: Sequence[EqualTokensRow]) -> list[Block]:
    tokens = list(dict.fromkeys(a.tokens for c in curves for a in c.at if a is not None))
    rows = [
        (
            c.family,
            *("-" if a is None else f"{100 * a.value:.1f} [{100 * a.low:.1f}, {100 * a.high:.1f}]" for a in c.at),
        )
        for c in curves
    ]
    heads = ("method", *(f"{t:,.0f} tokens" for t in tokens))
    return [Block("Accuracy % at equal tokens, with 95% band", heads=heads, rows=rows)] if tokens else []


def _calibration(runs: Sequence[RunSection], *, figures: bool) -> list[Block]:
    def row(name: str, c: CalibrationMetrics) -> tuple[str, ...]:
        numbers = (c.ece, c.adaptive_ece, c.brier, c.nll, c.auroc, c.aurc)
        return name, str(c.n), *("-" if value is None else f"{value:.3f}" for value in numbers)

    rows: list[tuple[str, ...]] = []
    drawn: list[tuple[str, str]] = []
    for run in runs:
        stated, mapped = run.summary.calibration, run.summary.calibrated
        if stated is None:
            continue
        rows += [row(run.label, stated), *([] if mapped is None else [row(f"calibrated: {run.calibration}", mapped)])]
        if figures:
            from .plots import calibration_diagram, risk_coverage_diagram

            drawn += [
                (calibration_diagram(run), f"{run.label}: share right by confidence, with the answers in each bin."),
                (risk_coverage_diagram(run), f"{run.label}: error among the most confident answers."),
            ]
    heads = ("run", "answers", "ECE", "adaptive ECE", "Brier", "NLL", "AUROC", "AURC")
    return [Block("Calibration", heads=heads, rows=rows, figures=drawn)] if rows else []


def _labels(name: str, report: LabelReport) -> Block:
    """Metrics of each label, and what its items were taken for."""
    rows = [
        (
            label,
            str(f.support),
            str(f.predicted),
            *map(share, (f.precision, f.recall, f.f1)),
            ", ".join(f"{taken or 'unread'} {n}" for taken, n in report.confusion.get(label, {}).items()) or "-",
        )
        for label, f in report.labels.items()
    ]
    heads = ("label", "items", "predicted", "precision %", "recall %", "F1 %", "taken for")
    macro = f"Macro F1 {100 * report.macro_f1:.1f}%, weighted F1 {100 * report.weighted_f1:.1f}%."
    return Block(f"Labels of {name}", 3, macro, heads, rows)


def _breakdown(runs: Sequence[RunSection]) -> list[Block]:
    blocks = []
    for title, by_run in (
        ("Accuracy % by subject", [r.summary.subjects for r in runs]),
        ("Accuracy % by level", [r.summary.levels for r in runs]),
        ("Other scores, %", [r.summary.metrics for r in runs]),
    ):
        rows = []
        for name in list(dict.fromkeys(name for means in by_run for name in means))[:MAX_NAMES]:
            means = [result.get(name) for result in by_run]
            items = max(m.items for m in means if m is not None)
            cells = ("-" if m is None else f"{100 * m.value:.1f} {interval(m.interval)}" for m in means)
            rows.append((name, str(items), *cells))
        if rows:
            blocks.append(Block(title, heads=("", "items", *(r.label for r in runs)), rows=rows))
    return blocks


def _seeds(runs: Sequence[RunSection], *, figures: bool) -> Block:
    if all(r.summary.spread.seeds == 1 for r in runs):
        return Block(text=f"One seed a run: what another seed would give is {NOT_ESTIMABLE}.")
    rows = []
    for run in runs:
        s = run.summary.spread
        several = s.seeds > 1
        rows.append(
            (
                run.label,
                str(s.seeds),
                share(s.mean),
                share(s.sd, NOT_ESTIMABLE),
                f"{share(s.low)} … {share(s.high)}" if several else NOT_ESTIMABLE,
                share(s.instability, NOT_ESTIMABLE),
                f"{share(s.always)} / {share(s.never)}" if several else NOT_ESTIMABLE,
                _by_k(run.summary.pass_at),
                _by_k(run.summary.fail_at),
            )
        )
    drawn: list[tuple[str, str]] = []
    if figures:
        from .plots import success_rates

        drawn = [(success_rates(r), f"{r.label}: items by share of right seeds.") for r in runs]
    text = (
        "pass@k is the chance that at least one of k seeds is right, fail@k that at least one is wrong, at k = 1, 2, "
        "4, … and all seeds."
    )
    heads = ("run", "seeds", "mean %", "sd", "range", "two seeds disagree %", "always / never right %", "pass@k %",
             "fail@k %")  # fmt: skip
    return Block("Seeds", 3, text, heads, rows, drawn)


def _by_k(values: Mapping[int, float]) -> str:
    """Values at 1, 2, 4, … and at the last k: with many seeds, all of them would fill the page."""
    last = max(values, default=0)
    return ", ".join(f"@{k} {100 * v:.1f}" for k, v in values.items() if k == last or k & (k - 1) == 0) or NOT_ESTIMABLE


def _greedy(pairs: Sequence[GreedyComparison]) -> list[Block]:
    rows = [
        (
            f"{p.greedy} beside {p.sampled}",
            share(p.greedy_accuracy),
            share(p.sampled_accuracy),
            share(p.best, NOT_ESTIMABLE),
            NOT_ESTIMABLE if p.sampling_gap is None else f"{100 * p.sampling_gap:+.1f}",
            f"{100 * p.fragility:+.1f}",
        )
        for p in pairs
    ]
    text = (
        "The sampling gap is what picking the best sample could add to the greedy run, in points. Fragility is the "
        "part of the greedy accuracy that some samples get wrong."
    )
    heads = ("run", "greedy %", "sampled mean %", "right under any seed %", "sampling gap", "fragility")
    return [Block("Greedy beside sampled", 3, text, heads, rows)] if rows else []


def _settings(runs: Sequence[RunSection]) -> list[Block]:
    names = list(dict.fromkeys(n for r in runs for n in r.settings))
    differing = [n for n in names if len({str(r.settings.get(n)) for r in runs}) > 1]
    same = {n: _shown(runs[0].settings.get(n)) for n in names if n not in differing}
    rows = [(n, *(_shown(r.settings.get(n)) for r in runs)) for n in differing]
    blocks = [Block("Settings that differ", 2, "", ("setting", *(r.label for r in runs)), rows)] if rows else []
    facts = [*{**same, **runs[0].environment}.items()]
    return [*blocks, Block("What is the same, and what it ran on", 2, "", ("setting", "value"), facts, folded=True)]


def _shown(value: object) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= 200 else text[:199] + "…"


def _data(datasets: Iterable[DatasetInfo]) -> list[Block]:
    rows = [
        (_named(use), str(use.size), use.scorer, use.licence, use.fingerprint[:16], use.warning) for use in datasets
    ]
    return [Block("Data", 2, "", ("dataset", "items", "scored by", "licence", "fingerprint", "warning"), rows)]


def _named(dataset: DatasetInfo) -> str:
    return dataset.name + (f" ({dataset.variant})" if dataset.variant else "")


def share(value: float | None, missing: str = "-") -> str:
    """A share in per cent."""
    return missing if value is None else f"{100 * value:.1f}"


def p_value(p: float) -> str:
    """A p-value; a very small one is not 0."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def interval(ends: Interval | None, *, signed: bool = False) -> str:
    """An interval in per cent."""
    if ends is None:
        return NOT_ESTIMABLE
    form = "+.1f" if signed else ".1f"
    return f"[{100 * ends.low:{form}}, {100 * ends.high:{form}}]"
