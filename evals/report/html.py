"""The HTML report: one file without scripts and external resources."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from ..comparison import GreedyComparison
from ..plan import DatasetInfo
from ..scoring import LabelReport
from ..statistics.intervals import Interval
from ..summary import MeanScore, tokens_text
from .content import (
    COSTS,
    MAX_SIDES,
    Disagreement,
    EqualTokensRow,
    Grid,
    GridCell,
    PairSection,
    ReportContent,
    RunAnswer,
    RunSection,
    costs,
)
from .plots import (
    accuracy_against_latency,
    accuracy_against_tokens,
    calibration_diagram,
    risk_coverage_diagram,
    success_rates,
)

MOST_FIGURES = 4
"""Maximum number of metrics that are shown without being requested."""
NOTHING = "\N{EN DASH}"
"""Text of a cell without a value."""
NOT_ESTIMABLE = "not estimable"


def text(plain: str) -> str:
    """Text as HTML writes it."""
    return escape(plain)


def number(cell: str, *, kind: str = "") -> str:
    """A cell with a number, or with what represents one."""
    return f'<td class="num{f" {kind}" if kind else ""}">{cell}</td>'


def percent(value: float | None, missing: str = NOTHING) -> str:
    """A share in per cent."""
    return missing if value is None else f"{100 * value:.1f}"


def best_of(values: Iterable[float]) -> float | None:
    """The largest of several numbers, which is marked; None where all are equal."""
    different = set(values)
    return max(different) if len(different) > 1 else None


def interval(ends: Interval | None, *, signed: bool = False) -> str:
    """An interval in per cent."""
    if ends is None:
        return NOT_ESTIMABLE
    form = "+.1f" if signed else ".1f"
    return f"[{100 * ends.low:{form}}, {100 * ends.high:{form}}]"


def p_value(p: float) -> str:
    """A p-value; a very small one is not 0."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def table(heads: Sequence[str], rows: Sequence[str]) -> str:
    """A table that scrolls sideways where the page is too narrow; the rows are HTML."""
    head = "".join(f"<th>{text(h)}</th>" for h in heads)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def figure(svg: str, caption: str) -> str:
    """A drawing with what it shows; nothing where there is none."""
    return f"<figure>{svg}<figcaption>{text(caption)}</figcaption></figure>" if svg else ""


def figures(sampled: Sequence[str], title: str) -> str:
    """Metrics side by side; many of them only when they are posed for."""
    shown = f'<div class="figures">{"".join(sampled)}</div>'
    return shown if len(sampled) <= MOST_FIGURES else f"<details><summary>{text(title)}</summary>{shown}</details>"


STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1c2024; --soft: #5c656e; --faint: #c3c9cf; --page: #ffffff; --card: #f6f7f9; --line: #e2e5e9;
  --right: #1a7f4b; --wrong: #b3261e; --alarm-ink: #7a1b14; --alarm: #fdecea; --accent: #3457b5; --bar: #4269d0;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e4e7ea; --soft: #9aa3ac; --faint: #4a525a; --page: #14171a; --card: #1c2024; --line: #2c3238;
    --right: #58c98c; --wrong: #f2827a; --alarm-ink: #ffb4ab; --alarm: #3a1d1b; --accent: #8aa9f5; --bar: #6b8cf0;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 1080px; padding: 28px 20px 60px; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif;
}
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 4px; }
h2 { font-size: 18px; margin: 36px 0 10px; }
h3 { font-size: 15px; margin: 18px 0 6px; }
p { margin: 6px 0; }
.soft { color: var(--soft); }
.small { font-size: 13px; }
.alarm { background: var(--alarm); color: var(--alarm-ink); border-radius: 6px; padding: 8px 12px; margin: 6px 0; }
.note { background: var(--card); border-left: 3px solid var(--accent); padding: 8px 12px; margin: 6px 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: right; padding: 6px 8px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; font-size: 12.5px; vertical-align: bottom; white-space: normal; }
th:first-child, td:first-child, td.text { text-align: left; white-space: normal; }
td.text { min-width: 110px; max-width: 340px; overflow-wrap: anywhere; }
td:first-child { min-width: 190px; }
@media (max-width: 600px) { td:first-child { min-width: 120px; } }
td.num { font-variant-numeric: tabular-nums; }
tbody tr:hover { background: var(--card); }
td.best { font-weight: 700; }
.bad { color: var(--wrong); font-weight: 700; }
.good { color: var(--right); }
.whisker { position: relative; display: block; width: 110px; height: 14px; margin-left: auto; }
.whisker i { position: absolute; top: 6px; height: 2px; background: var(--faint); border-radius: 1px; }
.whisker b { position: absolute; top: 3px; width: 8px; height: 8px; margin-left: -4px; border-radius: 50%;
  background: var(--bar); }
.whisker u { position: absolute; top: 0; width: 1px; height: 14px; background: var(--soft); }
.besides { color: var(--wrong); }
td.right { font-weight: 700; color: var(--right); }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(300px, 100%), 1fr)); gap: 18px;
  margin: 8px 0; }
.figures.wide { grid-template-columns: repeat(auto-fill, minmax(min(430px, 100%), 1fr)); }
figure { margin: 0; background: var(--card); border-radius: 8px; padding: 12px; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { font-size: 13px; color: var(--soft); margin-top: 6px; }
details { border-bottom: 1px solid var(--line); }
details > summary { cursor: pointer; padding: 7px 2px; list-style: none; }
details > summary::before { content: "▸"; color: var(--soft); display: inline-block; width: 1.2em; }
details[open] > summary::before { content: "▾"; }
details > summary:hover { color: var(--accent); }
.mark { display: inline-block; min-width: 20px; text-align: center; font-weight: 700; }
.question { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--card); border-radius: 6px;
  padding: 10px 12px; margin: 6px 0; }
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(300px, 100%), 1fr)); gap: 12px;
  padding: 4px 0 14px; }
.side { border: 1px solid var(--line); border-radius: 8px; padding: 10px 12px; min-width: 0; }
.side pre { white-space: pre-wrap; overflow-wrap: anywhere; font: 12.5px/1.45 ui-monospace, monospace;
  max-height: 340px; overflow-y: auto; background: var(--card); border-radius: 6px; padding: 8px 10px;
  margin: 6px 0 0; }
code { font: 12.5px ui-monospace, monospace; background: var(--card); padding: 1px 4px; border-radius: 4px;
  overflow-wrap: anywhere; }
@media print { details { break-inside: avoid; } body { max-width: none; } }
"""


MOST_SUBJECTS = 40
MOST_LABELLED = 3
"""Maximum number of runs whose labels are shown without being requested."""


def breakdown(runs: Sequence[RunSection]) -> str:
    """Every breakdown that the runs have."""
    parts = [_labels(runs)]
    for title, what, by_run in (
        ("Subjects", "accuracy", [r.summary.subjects for r in runs]),
        ("Levels", "accuracy", [r.summary.levels for r in runs]),
        ("Other scores", "mean", [r.summary.metrics for r in runs]),
    ):
        names = list(dict.fromkeys(name for result in by_run for name in result))[:MOST_SUBJECTS]
        if not names:
            continue
        rows = []
        for name in names:
            means: list[MeanScore | None] = [result.get(name) for result in by_run]
            items = max(m.items for m in means if m is not None)
            cells = "".join(number(NOTHING if m is None else _mean(m)) for m in means)
            rows.append(f"<tr><td>{text(name)}</td>{number(str(items))}{cells}</tr>")
        shown = table((title.lower(), "items", *(r.label for r in runs)), rows)
        parts.append(f"<details><summary><b>{title}</b>, {what} % with 95% interval</summary>{shown}</details>")
    return "".join(parts)


def _mean(mean: MeanScore) -> str:
    return f'{100 * mean.value:.1f} <span class="soft">{interval(mean.interval)}</span>'


def _labels(runs: Sequence[RunSection]) -> str:
    labelled = [(r, r.summary.labels) for r in runs]
    results = [(r, report) for r, report in labelled if report is not None]
    if not results:
        return ""
    shown = "".join(_label_table(run.label, report) for run, report in results)
    if len(results) > MOST_LABELLED:
        return f"<details><summary><b>Labels</b></summary>{shown}</details>"
    return f"<h3>Labels</h3>{shown}"


def _label_table(name: str, report: LabelReport) -> str:
    """Metrics of each label, and on the right what its items were taken for."""
    provided = [label for label, f in report.labels.items() if f.predicted]
    if any("" in row for row in report.confusion.values()):
        provided.append("")
    rows = []
    for label, f in report.labels.items():
        figures = (str(f.support), str(f.predicted), percent(f.precision), percent(f.recall), percent(f.f1))
        taken = report.confusion.get(label, {})
        cells = "".join(number(str(taken.get(g, 0) or NOTHING), kind="right" if g == label else "") for g in provided)
        rows.append(f"<tr><td>{text(label)}</td>{''.join(map(number, figures))}{cells}</tr>")
    heads = (
        "label",
        "items",
        "predicted",
        "precision %",
        "recall %",
        "F1 %",
        *(f"as {g or 'unread'}" for g in provided),
    )
    macro = f"macro F1 {100 * report.macro_f1:.1f}%, weighted F1 {100 * report.weighted_f1:.1f}%"
    return f"<p><b>{text(name)}</b>: {macro}</p>{table(heads, rows)}"


def grid_tables(grid: Grid) -> str:
    """A grid: what was right, then what it took; the best of each dataset in bold."""
    best = [best_of(c.accuracy for c in column if c is not None) for column in _columns(grid)]
    rows = [
        f"<tr><td>{text(row.method)}</td>"
        + "".join(_cell(cell, top) for cell, top in zip(row.cells, best, strict=True))
        + "</tr>"
        for row in grid.rows
    ]
    taken = [f"<tr><td>{text(row.method)}</td>{''.join(map(number, costs(row)))}</tr>" for row in grid.rows]
    return (
        f"<h2>All methods, {text(grid.budget)} a question</h2>"
        '<p class="soft">Accuracy % with its 95% interval, and generated tokens a question.</p>'
        + table(("method", *grid.datasets), rows)
        + "<details><summary>What a question took, the mean over its datasets</summary>"
        + table(("method", *COSTS), taken)
        + "</details>"
    )


def _columns(grid: Grid) -> list[list[GridCell | None]]:
    return [[row.cells[i] for row in grid.rows] for i in range(len(grid.datasets))]


def _cell(cell: GridCell | None, best: float | None) -> str:
    if cell is None:
        return number(NOTHING)
    label_text = f'{percent(cell.accuracy)} <span class="soft">{interval(cell.interval)} · {cell.tokens:,.0f}</span>'
    return number(label_text, kind="best" if cell.accuracy == best else "")


def seeds(runs: Sequence[RunSection], greedy: Sequence[GreedyComparison]) -> str:
    """How far each run's score depends on its seeds; not estimable with one seed."""
    rows = [_row(run) for run in runs]
    heads = (
        "run",
        "seeds",
        "mean %",
        "sd",
        "range",
        "two seeds disagree %",
        "always right %",
        "never right %",
        "pass@k %",
        "fail@k %",
    )
    sampled = [figure(success_rates(r), f"{r.label}: items by share of right seeds.") for r in runs]
    several = [d for d in sampled if d]
    shown = (
        table(heads, rows)
        + '<p class="soft small">pass@k is the chance that at least one of k seeds is right, fail@k that at least one '
        "is wrong, at k = 1, 2, 4, … and all seeds.</p>"
        + (figures(several, "Items by share of right seeds") if several else "")
        + _greedy(greedy)
    )
    if not several and not greedy:
        label_text = f"<b>Seeds</b>: one a run, so what another seed would give is {NOT_ESTIMABLE}"
        return f"<details><summary>{label_text}</summary>{shown}</details>"
    return f"<h3>Seeds</h3>{shown}"


def _row(run: RunSection) -> str:
    s = run.summary.spread
    begin = f"<tr><td>{text(run.label)}</td>{number(str(s.seeds))}{number(percent(s.mean))}"
    if s.seeds == 1:
        return f'{begin}<td class="num soft" colspan="7">{NOT_ESTIMABLE} with one seed</td></tr>'
    cells = (
        percent(s.sd, NOT_ESTIMABLE),
        f"{percent(s.low)} … {percent(s.high)}",
        percent(s.instability, NOT_ESTIMABLE),
        percent(s.always),
        percent(s.never),
    )
    tries = "".join(f'<td class="text">{_by_k(result)}</td>' for result in (run.summary.pass_at, run.summary.fail_at))
    return f"{begin}{''.join(map(number, cells))}{tries}</tr>"


def _by_k(result: Mapping[int, float]) -> str:
    """Values at 1, 2, 4, … and at the last k: with many seeds, all of them would fill the page."""
    last = max(result, default=0)
    shown = [k for k in result if k == last or k & (k - 1) == 0]
    return ", ".join(f"{k}: {100 * result[k]:.1f}" for k in shown) or NOT_ESTIMABLE


def _greedy(pairs: Sequence[GreedyComparison]) -> str:
    if not pairs:
        return ""
    rows = [
        f"<tr><td>{text(p.greedy)} <span class='soft'>beside</span> {text(p.sampled)}</td>"
        + "".join(
            map(
                number,
                (
                    percent(p.greedy_accuracy),
                    percent(p.sampled_accuracy),
                    percent(p.best, NOT_ESTIMABLE),
                    NOT_ESTIMABLE if p.sampling_gap is None else f"{100 * p.sampling_gap:+.1f}",
                    f"{100 * p.fragility:+.1f}",
                ),
            )
        )
        + "</tr>"
        for p in pairs
    ]
    return (
        "<h3>Greedy beside sampled</h3>"
        + table(("run", "greedy %", "sampled mean %", "right under any seed %", "sampling gap", "fragility"), rows)
        + '<p class="soft small">The sampling gap is what picking the best sample could add to the greedy run, in '
        "points. Fragility is the part of the greedy accuracy that some samples get wrong.</p>"
    )


def render_html(content: ReportContent) -> str:
    """The report as one HTML document."""
    datasets = {r.dataset.fingerprint: r.dataset for r in content.runs}
    parts = [
        f"<h1>{text(content.title)}</h1>",
        f'<p class="soft">{_headline(content)}</p>',
        *(f'<p class="alarm">{text(w)}</p>' for w in _alarms(content)),
        *map(grid_tables, content.grids),
    ]
    for fingerprint, dataset in datasets.items():
        runs = [r for r in content.runs if r.dataset.fingerprint == fingerprint]
        curves = figure(
            accuracy_against_tokens(content, fingerprint),
            "Accuracy against generated tokens; bands are 95% intervals over items.",
        ) + figure(
            accuracy_against_latency(content, fingerprint),
            "Accuracy against the time of an item, other items in flight at the same time. Runs that the store "
            "answered have no time.",
        )
        parts += [
            f"<h2>{text(_named(dataset))}</h2>",
            _results(runs),
            f'<div class="figures wide">{curves}</div>' if curves else "",
        ]
        names = {r.label for r in runs}
        parts += [
            _pairs([p for p in content.pairs if p.a in names and p.b in names]),
            _equal_tokens([c for c in content.equal_tokens if c.dataset == fingerprint]),
            _calibration(runs),
            breakdown(runs),
            seeds(runs, [g for g in content.greedy if g.greedy in names]),
        ]
    parts += [_disagreements(content), _settings(content.runs), _data(content)]
    body = "\n".join(p for p in parts if p)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(content.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n"
        f'<p class="soft small">Made by reason {text(content.made_with)}. Definitions: docs/statistics.md.</p>\n'
        "</body>\n</html>\n"
    )


def _headline(content: ReportContent) -> str:
    runs = content.runs
    models = list(dict.fromkeys(str(r.settings.get("models.main", "")) for r in runs))
    label_text = f"{len(runs)} run{'s' if len(runs) != 1 else ''} on "
    label_text += " and ".join(dict.fromkeys(f"{_named(r.dataset)}, {r.summary.items} items" for r in runs))
    return text(f"{label_text}, with {' and '.join(models)}")


def _named(dataset: DatasetInfo) -> str:
    return dataset.name + (f" ({dataset.variant})" if dataset.variant else "")


def _alarms(content: ReportContent) -> list[str]:
    contamination = {f"{r.dataset.name}: {r.dataset.warning}" for r in content.runs}
    return [w for w in content.warnings if w not in contamination]


def _results(runs: Sequence[RunSection]) -> str:
    best = best_of(r.summary.accuracy.value for r in runs)
    rows = []
    for run in runs:
        s = run.summary
        seconds = NOTHING if s.latency is None else f"{s.latency.p50:.2f} / {s.latency.p95:.2f}"
        unread = f'<td class="num{" bad" if s.alarming else ""}">{100 * s.unparsed:.1f}</td>'
        rows.append(
            f"<tr><td>{text(run.label)}</td>"
            f'<td class="num{" best" if s.accuracy.value == best else ""}">{100 * s.accuracy.value:.1f}</td>'
            f'<td class="num">{interval(s.accuracy.interval)}</td><td>{_whisker(s.accuracy)}</td>'
            f'<td class="num">{s.items} / {s.spread.seeds}</td>'
            f'<td class="num">{tokens_text(s.cost)}</td><td class="num">{s.cost.paid_tokens / s.rows:,.0f}</td>'
            f'<td class="num">{s.cost.calls:.1f}</td>'
            f'<td class="num">{seconds}</td>{unread}</tr>'
        )
    return table(
        (
            "run",
            "accuracy %",
            "95% interval",
            "0 … 100%",
            "items / seeds",
            "tokens",
            "paid",
            "calls",
            "p50 / p95 s",
            "unread %",
        ),
        rows,
    ) + (
        '<p class="soft small">Tokens, calls and what of the tokens this run paid itself are per item and seed; tokens '
        "count as if none had come from the store.</p>"
    )


def _pairs(pairs: Sequence[PairSection]) -> str:
    if not pairs:
        return ""
    rows = []
    for p in pairs:
        s = p.score
        besides = (
            f'<br><span class="small besides">besides {text("; ".join(map(str, p.besides)))}</span>'
            if p.besides
            else ""
        )
        detectable = percent(s.detectable, NOT_ESTIMABLE)
        rows.append(
            f"<tr><td>{text(p.a)} <span class='soft'>less</span> {text(p.b)}{besides}</td>"
            f'<td class="num{"" if p.status == "not shown" else " best"}">{100 * s.difference:+.1f}</td>'
            f'<td class="num">{interval(s.interval, signed=True)}</td>'
            f'<td class="num">{s.wins} / {s.losses}</td><td class="num">{s.both} / {s.neither}</td>'
            f'<td class="num">{p_value(s.p)}</td><td class="num">{p_value(p.p_adjusted)}</td>'
            f'<td class="num">{detectable}</td>'
            f'<td class="num">{NOTHING if s.items_needed is None else f"{s.items_needed:,}"}</td></tr>'
        )
    return (
        "<h3>Item by item</h3>"
        + table(
            (
                "difference, points",
                "mean",
                "95% interval",
                "wins / losses",
                "both right / wrong",
                "p",
                "p (Holm)",
                "detectable",
                "items needed",
            ),
            rows,
        )
        + '<p class="soft small">Bold where the p-value, corrected for the comparisons of this table, is below 0.05 '
        "and the interval excludes 0; red is what else differs, which may be why. Detectable is the smallest true "
        "difference that this many items would have shown with a chance of 80%.</p>"
    )


def _equal_tokens(curves: Sequence[EqualTokensRow]) -> str:
    tokens = list(dict.fromkeys(a.tokens for c in curves for a in c.at if a is not None))
    if not curves or not tokens:
        return ""
    rows = []
    for curve in curves:
        cells = "".join(
            f'<td class="num">{NOTHING}</td>'
            if a is None
            else f'<td class="num">{100 * a.value:.1f} <span class="soft">[{100 * a.low:.1f}, '
            f"{100 * a.high:.1f}]</span></td>"
            for a in curve.at
        )
        rows.append(f"<tr><td>{text(curve.family)}</td>{cells}</tr>")
    return "<h3>At equal tokens, accuracy % with 95% band</h3>" + table(
        ("method", *(f"{t:,.0f} tokens" for t in tokens)), rows
    )


def _calibration(runs: Sequence[RunSection]) -> str:
    stated = [r for r in runs if r.summary.calibration is not None]
    if not stated:
        return ""
    rows, sampled = [], []
    for run in stated:
        c = run.summary.calibration
        if c is None:
            continue
        auroc = NOTHING if c.auroc is None else f"{c.auroc:.3f}"
        rows.append(
            f'<tr><td>{text(run.label)}</td><td class="num">{c.n}</td><td class="num">{c.ece:.3f}</td>'
            f'<td class="num">{c.adaptive_ece:.3f}</td><td class="num">{c.brier:.3f}</td>'
            f'<td class="num">{c.nll:.3f}</td>'
            f'<td class="num">{auroc}</td><td class="num">{c.aurc:.3f}</td></tr>'
        )
        if (k := run.summary.calibrated) is not None:
            auroc = NOTHING if k.auroc is None else f"{k.auroc:.3f}"
            rows.append(
                f'<tr><td class="soft">calibrated: {text(run.calibration)}</td><td class="num">{k.n}</td>'
                f'<td class="num">{k.ece:.3f}</td><td class="num">{k.adaptive_ece:.3f}</td>'
                f'<td class="num">{k.brier:.3f}</td><td class="num">{k.nll:.3f}</td><td class="num">{auroc}</td>'
                f'<td class="num">{k.aurc:.3f}</td></tr>'
            )
        sampled += [
            figure(calibration_diagram(run), f"{run.label}: share right by confidence, with the answers in each bin."),
            figure(risk_coverage_diagram(run), f"{run.label}: error among the most confident answers."),
        ]
    shown = table(("run", "answers", "ECE", "adaptive ECE", "Brier", "NLL", "AUROC", "AURC"), rows)
    return f"<h3>Calibration</h3>{shown}" + figures(sampled, "Calibration diagrams")


def _disagreements(content: ReportContent) -> str:
    if not content.disagreements:
        return ""
    shown = len(content.disagreements)
    more = "" if shown == content.disagreeing else f" The first {shown} are here."
    if any(len(d.sides) == MAX_SIDES for d in content.disagreements):
        more += f" At most {MAX_SIDES} runs of an item are shown."
    rows = "".join(_disagreement(d) for d in content.disagreements)
    return (
        f"<h2>Where the runs disagree</h2><p class='soft'>{content.disagreeing} items on which some runs are right and "
        f"others wrong, under their first common seed.{more} Click one for the traces.</p>{rows}"
    )


def _disagreement(d: Disagreement) -> str:
    marks = " ".join(
        f'<span class="mark {"good" if s.value == 1 else "bad"}" title="{text(s.run)}">{_mark(s.value)}</span>'
        for s in d.sides
    )
    question = " ".join(d.question.split())
    short = question if len(question) <= 110 else question[:109] + "…"
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    choices = "".join(f"\n{letter}) {c}" for letter, c in zip(letters, d.choices, strict=False))
    return (
        f"<details><summary>{marks} <code>{text(d.id)}</code> {text(short)}</summary>"
        f'<div class="question">{text(d.question + choices)}</div><p>Right answer: <b>{text(d.gold)}</b>'
        f"{f' · {text(d.subject)}' if d.subject else ''}</p>"
        f'<div class="sides">{"".join(_side(s) for s in d.sides)}</div></details>'
    )


def _side(s: RunAnswer) -> str:
    verdict = "good" if s.value == 1 else "bad"
    shown = f"reason runs show {s.run_id}" + (f" --store {shlex.quote(s.store)}" if s.store else "")
    provided = "no answer" if s.prediction is None else s.prediction
    facts = [f"{s.tokens:,} tokens"]
    if s.confidence is not None:
        facts.append(f"confidence {s.confidence:.2f}")
    if s.votes:
        facts.append("votes " + ", ".join(f"{a} x{n}" for a, n in list(s.votes.items())[:6]))
    error = f'<p class="bad">{text(s.error)}</p>' if s.error else ""
    return (
        f'<div class="side"><b>{text(s.run)}</b> <span class="{verdict}">{_mark(s.value)} {text(provided)}</span>'
        f'<div class="soft small">{text(" · ".join(facts))}</div>{error}<pre>{text(s.text)}</pre>'
        f'<div class="soft small"><code>{text(shown)}</code></div></div>'
    )


def _settings(runs: Sequence[RunSection]) -> str:
    names = list(dict.fromkeys(n for r in runs for n in r.settings))
    differing = [n for n in names if len({str(r.settings.get(n)) for r in runs}) > 1]
    same = [n for n in names if n not in differing]
    parts = ["<h2>Settings</h2>"]
    if differing:
        rows = [
            f"<tr><td><code>{text(n)}</code></td>"
            + "".join(f'<td class="text small">{text(_shown(r.settings.get(n)))}</td>' for r in runs)
            + "</tr>"
            for n in differing
        ]
        parts.append("<h3>What differs</h3>" + table(("setting", *(r.label for r in runs)), rows))
    facts = {**{n: _shown(runs[0].settings.get(n)) for n in same}, **runs[0].environment}
    rows = [
        f'<tr><td><code>{text(name)}</code></td><td class="text small">{text(value)}</td></tr>'
        for name, value in facts.items()
    ]
    shown = table(("setting", "value"), rows)
    parts.append(f"<details><summary>What is the same, and what it ran on</summary>{shown}</details>")
    return "".join(parts)


def _data(content: ReportContent) -> str:
    parts = ["<h2>Data</h2>"]
    for use in {r.dataset.fingerprint: r.dataset for r in content.runs}.values():
        parts.append(
            f"<p><b>{text(_named(use))}</b>: {use.size} items, scored by {text(use.scorer)}; "
            f"licence {text(use.licence)}.</p>"
            + (f'<p class="note">{text(use.warning)}</p>' if use.warning else "")
            + f'<p class="soft small">fingerprint <code>{use.fingerprint[:16]}</code></p>'
        )
    return "".join(parts)


def _whisker(mean: MeanScore) -> str:
    ends = mean.interval
    span = (
        "" if ends is None else f'<i style="left:{100 * ends.low:.2f}%;width:{100 * (ends.high - ends.low):.2f}%"></i>'
    )
    return f'<span class="whisker">{span}<b style="left:{100 * mean.value:.2f}%"></b></span>'


def _mark(value: float) -> str:
    return "✓" if value == 1 else "✗" if value == 0 else f"{value:.2f}"


def _shown(value: object) -> str:
    text = NOTHING if value is None else str(value)
    return text if len(text) <= 200 else text[:199] + "…"
