"""A report as a file: HTML by one template, Markdown without figures and traces, or JSON.

HTML and Markdown render the same list of blocks. Figures are drawn by matplotlib as SVG, with CSS variables as colours,
for light and dark pages.
"""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ...core.errors import UserError
from ...core.extras import missing_package
from ...core.files import write_file
from ..comparison import GreedyComparison, RunComparison
from ..plan import DatasetInfo
from ..scoring import LabelReport
from ..statistics.calibration import CalibrationMetrics
from ..statistics.intervals import Interval
from ..summary import EvalSummary, tokens_text
from .content import MAX_SIDES, EqualTokensRow, Grid, ReportContent, RunAnswer, RunSection

FORMS: Final = (".html", ".md", ".json")
TEMPLATE: Final = Path(__file__).with_name("report.html.j2")
NOT_ESTIMABLE: Final = "not estimable"
MAX_NAMES: Final = 40
"""Maximum number of subjects listed."""
COLOURS: Final = ("#4269d0", "#d9822b", "#3a9d5d", "#b5487a", "#8250c4", "#1f9ea3", "#9c6b4e", "#7a7f87")
"""Colours of methods, of similar lightness on white and on near-black."""
INK: Final = "#010203"
FAINT: Final = "#040506"
"""Placeholders of the page's own colours while matplotlib draws; replaced by CSS variables afterwards."""


def render(content: ReportContent, form: str) -> str:
    """A report as text.

    Args:
        form: One of `FORMS`.

    Raises:
        UserError: There is no such form, or Jinja or matplotlib is not installed.
    """
    match form:
        case ".html":
            return render_html(content)
        case ".md":
            return render_markdown(content)
        case ".json":
            return content.model_dump_json(indent=2) + "\n"
    raise UserError(f"unsupported report format {form!r}", hint=f"use one of {' '.join(FORMS)}")


def write_report(content: ReportContent, path: Path) -> None:
    """Write a report atomically, in the format of the file's suffix.

    Raises:
        UserError: As `render`.
        StoreError: The file cannot be written.
    """
    write_file(path, render(content, path.suffix.lower()).encode("utf-8", "surrogatepass"))


class Strong(str):
    """An emphasised cell."""

    __slots__ = ()


@dataclass(frozen=True)
class ReportBlock:
    """A heading (unless `title` is empty), a text and a table (unless `heads` is empty); HTML adds SVGs with captions.

    A folded block is collapsed in HTML and left out in Markdown.
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
    """Escape text for a cell of a Markdown table."""
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
    shown = len(content.disputed)
    return template.render(
        content=content,
        blocks=report_blocks(content, figures=True),
        more="" if shown == content.num_disputed else f"The first {shown} are here.",
        max_sides=MAX_SIDES,
    )


def _mark(value: float) -> str:
    return "✓" if value == 1 else "✗" if value == 0 else f"{value:.2f}"


def _show_command(side: RunAnswer) -> str:
    return f"reason runs show {side.run_id}" + (f" --store {shlex.quote(side.store)}" if side.store else "")


def report_blocks(content: ReportContent, *, figures: bool = False) -> list[ReportBlock]:
    """The report without its title, warnings and traces."""
    blocks = [block for grid in content.grids for block in _grid(grid, [r.summary for r in content.runs])]
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
        blocks.append(ReportBlock(text=f"{content.num_disputed} items on which runs disagree."))
    return [*blocks, *_settings(content.runs), *_data(datasets.values())]


def _grid(grid: Grid, summaries: Sequence[EvalSummary]) -> list[ReportBlock]:
    rows = {method: [None if run is None else summaries[run] for run in runs] for method, runs in grid.methods.items()}
    best = [best_of(s.accuracy.value for s in column if s is not None) for column in zip(*rows.values(), strict=True)]

    def cell(s: EvalSummary | None, top: float | None) -> str:
        if s is None:
            return "-"
        text = f"{share(s.accuracy.value)} {interval(s.accuracy.interval)} · {s.cost.tokens:,.0f}"
        return Strong(text) if s.accuracy.value == top else text

    return [
        ReportBlock(
            f"All methods, {grid.budget} a question",
            2,
            "Accuracy % with its 95% interval, and generated tokens per question.",
            ("method", *grid.datasets),
            [(method, *map(cell, runs, best)) for method, runs in rows.items()],
        ),
        ReportBlock(
            text="Cost per question, the mean over its datasets:",
            heads=("method", "tokens", "prompt tokens", "calls", "median s", "USD", "ended by the budget %"),
            rows=[(method, *_costs([s for s in runs if s is not None])) for method, runs in rows.items()],
        ),
    ]


def _costs(runs: Sequence[EvalSummary]) -> Iterable[str]:
    """Cost of a method per question: means over its datasets."""
    columns: list[tuple[str, list[float | None]]] = [
        (",.0f", [s.cost.tokens for s in runs]),
        (",.0f", [s.cost.prompt_tokens for s in runs]),
        (".1f", [s.cost.calls for s in runs]),
        (".1f", [None if s.latency is None else s.latency.p50 for s in runs]),
        (".4f", [None if s.cost.usd is None else s.cost.usd / s.rows for s in runs]),
        (".0f", [100 * s.out_of_budget / s.rows for s in runs]),
    ]
    for form, values in columns:
        known = [value for value in values if value is not None]
        yield format(sum(known) / len(known), form) if known and len(known) == len(values) else "-"


def best_of(values: Iterable[float]) -> float | None:
    """The largest of several numbers, which is emphasised; None if all are equal."""
    different = set(values)
    return max(different) if len(different) > 1 else None


def _results(dataset: DatasetInfo, runs: Sequence[RunSection], *, figures: bool) -> ReportBlock:
    best = best_of(r.summary.accuracy.value for r in runs)
    rows = []
    for run in runs:
        s = run.summary
        accuracy, unparsed = share(s.accuracy.value), share(s.unparsed)
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
                Strong(unparsed) if s.alarming else unparsed,
            )
        )
    drawn: list[tuple[str, str]] = []
    if figures:
        caption = "Accuracy against generated tokens; bands are 95% intervals over items."
        drawn = [(_accuracy_against_tokens(runs), caption)]
    return ReportBlock(
        _named(dataset),
        2,
        "Tokens, tokens paid by this run, and calls are per item and seed; tokens from the store count as generated.",
        ("run", "accuracy %", "95% interval", "items / seeds", "tokens", "paid", "calls", "p50 / p95 s", "unparsed %"),
        rows,
        drawn,
    )


def _pairs(pairs: Sequence[RunComparison]) -> list[ReportBlock]:
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
        "In points. Bold if the p-value, corrected for the comparisons of this table, is below 0.05 and the interval "
        "excludes 0. Detectable is the smallest true difference that this many items would have shown with 80% power."
    )
    heads = ("difference", "mean", "95% interval", "wins / losses", "both right / wrong", "p", "p (Holm)", "status",
             "detectable", "items needed", "other differences")  # fmt: skip
    return [ReportBlock("Item by item", 3, text, heads, rows)] if rows else []


def _equal_tokens(curves: Sequence[EqualTokensRow]) -> list[ReportBlock]:
    tokens = list(dict.fromkeys(a.tokens for c in curves for a in c.at if a is not None))
    rows = [
        (
            c.family,
            *("-" if a is None else f"{100 * a.value:.1f} [{100 * a.low:.1f}, {100 * a.high:.1f}]" for a in c.at),
        )
        for c in curves
    ]
    heads = ("method", *(f"{t:,.0f} tokens" for t in tokens))
    return [ReportBlock("Accuracy % at equal tokens, with 95% band", heads=heads, rows=rows)] if tokens else []


def _calibration(runs: Sequence[RunSection], *, figures: bool) -> list[ReportBlock]:
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
            drawn.append((_reliability(stated), f"{run.label}: share right by confidence, with the answers per bin."))
    heads = ("run", "answers", "ECE", "adaptive ECE", "Brier", "NLL", "AUROC", "AURC")
    return [ReportBlock("Calibration", heads=heads, rows=rows, figures=drawn)] if rows else []


def _labels(name: str, report: LabelReport) -> ReportBlock:
    """Metrics of each label, and its confusions."""
    rows = [
        (
            label,
            str(f.support),
            str(f.predicted),
            *map(share, (f.precision, f.recall, f.f1)),
            ", ".join(f"{taken or 'unparsed'} {n}" for taken, n in report.confusion.get(label, {}).items()) or "-",
        )
        for label, f in report.labels.items()
    ]
    heads = ("label", "items", "predicted", "precision %", "recall %", "F1 %", "taken for")
    macro = f"Macro F1 {100 * report.macro_f1:.1f}%, weighted F1 {100 * report.weighted_f1:.1f}%."
    return ReportBlock(f"Labels of {name}", 3, macro, heads, rows)


def _breakdown(runs: Sequence[RunSection]) -> list[ReportBlock]:
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
            blocks.append(ReportBlock(title, heads=("", "items", *(r.label for r in runs)), rows=rows))
    return blocks


def _seeds(runs: Sequence[RunSection], *, figures: bool) -> ReportBlock:
    if all(r.summary.spread.seeds == 1 for r in runs):
        return ReportBlock(text=f"One seed per run: the variation between seeds is {NOT_ESTIMABLE}.")
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
        drawn = [(_success_rates(r), f"{r.label}: items by share of right seeds.") for r in runs]
    text = (
        "pass@k is the chance that at least one of k seeds is right, fail@k that at least one is wrong, at k = 1, 2, "
        "4, … and all seeds."
    )
    heads = ("run", "seeds", "mean %", "sd", "range", "two seeds disagree %", "always / never right %", "pass@k %",
             "fail@k %")  # fmt: skip
    return ReportBlock("Seeds", 3, text, heads, rows, drawn)


def _by_k(values: Mapping[int, float]) -> str:
    """Values at 1, 2, 4, … and at the last k."""
    last = max(values, default=0)
    return ", ".join(f"@{k} {100 * v:.1f}" for k, v in values.items() if k == last or k & (k - 1) == 0) or NOT_ESTIMABLE


def _greedy(pairs: Sequence[GreedyComparison]) -> list[ReportBlock]:
    rows = [
        (
            f"{p.greedy} and {p.sampled}",
            share(p.greedy_accuracy),
            share(p.sampled_accuracy),
            share(p.best, NOT_ESTIMABLE),
            NOT_ESTIMABLE if p.sampling_gap is None else f"{100 * p.sampling_gap:+.1f}",
            f"{100 * p.fragility:+.1f}",
        )
        for p in pairs
    ]
    text = (
        "The sampling gap is how much picking the best sample could add to the greedy run, in points. Fragility is the "
        "part of the greedy accuracy that some samples get wrong."
    )
    heads = ("run", "greedy %", "sampled mean %", "right under any seed %", "sampling gap", "fragility")
    return [ReportBlock("Greedy and sampled runs", 3, text, heads, rows)] if rows else []


def _settings(runs: Sequence[RunSection]) -> list[ReportBlock]:
    names = list(dict.fromkeys(n for r in runs for n in r.settings))
    differing = [n for n in names if len({str(r.settings.get(n)) for r in runs}) > 1]
    same = {n: _shown(runs[0].settings.get(n)) for n in names if n not in differing}
    rows = [(n, *(_shown(r.settings.get(n)) for r in runs)) for n in differing]
    blocks = [ReportBlock("Settings that differ", 2, "", ("setting", *(r.label for r in runs)), rows)] if rows else []
    facts = [*{**same, **runs[0].environment}.items()]
    return [*blocks, ReportBlock("Common settings and environment", 2, "", ("setting", "value"), facts, folded=True)]


def _shown(value: object) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= 200 else text[:199] + "…"


def _data(datasets: Iterable[DatasetInfo]) -> list[ReportBlock]:
    rows = [
        (_named(use), str(use.size), use.scorer, use.licence, use.fingerprint[:16], use.warning) for use in datasets
    ]
    return [ReportBlock("Data", 2, "", ("dataset", "items", "scored by", "licence", "fingerprint", "warning"), rows)]


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


# -- figures


def _accuracy_against_tokens(runs: Sequence[RunSection]) -> str:
    """Accuracy against generated tokens per item, a curve per method, 95% intervals as bands; empty for one run."""
    families = list(dict.fromkeys(r.family for r in runs))
    if len(runs) < 2 or not any(r.summary.cost.tokens > 0 for r in runs):
        return ""  # zero tokens have no place on a log scale
    figure, axes = _figure(5.0, 3.1)
    for i, family in enumerate(families):
        colour = COLOURS[i % len(COLOURS)]
        members = sorted(
            (r for r in runs if r.family == family and r.summary.cost.tokens > 0), key=lambda r: r.summary.cost.tokens
        )
        if not members:
            continue
        x = [r.summary.cost.tokens for r in members]
        y = [100 * r.summary.accuracy.value for r in members]
        ends = [r.summary.accuracy.interval for r in members]
        low = [v if e is None else 100 * e.low for v, e in zip(y, ends, strict=True)]
        high = [v if e is None else 100 * e.high for v, e in zip(y, ends, strict=True)]
        if len(members) > 1:
            axes.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)
        else:
            axes.vlines(x, low, high, color=colour, alpha=0.5, linewidth=2)
        axes.plot(x, y, color=colour, marker="o", markersize=5, linewidth=1.8, label=family)
    axes.set_xscale("log")
    axes.set_xlabel("generated tokens per item (log scale)")
    axes.set_ylabel("accuracy %")
    columns = 2 if max(map(len, families)) < 40 else 1
    figure.legend(loc="outside upper left", ncols=columns, frameon=False, fontsize=8, labelcolor=INK)
    return _svg(figure)


def _reliability(result: CalibrationMetrics) -> str:
    """Accuracy against stated confidence in ten bins, with the number of answers in each."""
    figure, axes = _figure(3.4, 3.1)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    most = max(b.count for b in result.bins)
    for b in result.bins:
        axes.bar((b.low + b.high) / 2, b.accuracy, width=0.085, color=COLOURS[0], alpha=0.25 + 0.65 * b.count / most)
        axes.plot([b.confidence], [b.accuracy], marker="o", markersize=4, color=COLOURS[1], clip_on=False, zorder=3)
        axes.annotate(
            f"{b.count:.0f}",
            ((b.low + b.high) / 2, b.accuracy),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=7,
            color=INK,
        )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.08)
    axes.set_xlabel("stated confidence")
    axes.set_ylabel("share right")
    return _svg(figure)


def _success_rates(run: RunSection) -> str:
    """Histogram of the items by their share of right seeds; empty with one seed."""
    spread = run.summary.spread
    if spread.seeds < 2:
        return ""
    figure, axes = _figure(3.4, 2.4)
    axes.bar([i / 10 + 0.05 for i in range(10)], spread.histogram, width=0.088, color=COLOURS[0])
    axes.set_xlim(0, 1)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("share of right seeds")
    axes.set_ylabel("items")
    return _svg(figure)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as e:
        raise missing_package("a report with figures", e.name, "eval") from e
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(colors=INK, which="both", labelsize=8)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(INK)
        label.set_fontsize(9)
    axes.grid(visible=True, axis="y", color=FAINT, alpha=0.35, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Any) -> str:
    """The figure as SVG in the page's colours and width; deterministic."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "reason", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = text.replace(INK, "var(--ink)").replace(FAINT, "var(--faint)")
    text = re.sub(r"font: [^;\"]*?([\d.]+px)[^;\"]*", r"font: \1 system-ui, sans-serif", text)
    return re.sub(
        r'<svg([^>]*?) width="[^"]*"', r"<svg\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1), count=1
    )
