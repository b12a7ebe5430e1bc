"""The HTML report: one file without scripts and without anything from elsewhere, to be read in a minute."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..statistics.intervals import Interval
from ..summary import UNPARSED_ALARM, Mean
from .content import Content, Disagreement, PairContent, RunContent, Side
from .plots import (
    accuracy_against_latency,
    accuracy_against_tokens,
    calibration_diagram,
    risk_coverage_diagram,
    success_rates,
)
from .style import STYLE

MOST_SUBJECTS = 40
MOST_FIGURES = 4
NOTHING = "\N{EN DASH}"
"""Stands in a cell that has no value."""


def render_html(content: Content) -> str:
    """The report as one HTML document."""
    datasets = {r.dataset.fingerprint: r.dataset for r in content.runs}
    parts = [
        f"<h1>{_t(content.title)}</h1>",
        f'<p class="soft">{_headline(content)}</p>',
        *(f'<p class="alarm">{_t(w)}</p>' for w in _alarms(content)),
    ]
    for fingerprint, dataset in datasets.items():
        runs = [r for r in content.runs if r.dataset.fingerprint == fingerprint]
        heading = dataset.name + (f" ({dataset.variant})" if dataset.variant else "")
        parts += [
            f"<h2>{_t(heading)}</h2>",
            _results(runs),
            '<div class="figures wide">',
            _figure(
                accuracy_against_tokens(content, fingerprint),
                "Accuracy against generated tokens; bands are 95% intervals over items.",
            ),
            _figure(
                accuracy_against_latency(content, fingerprint),
                "Accuracy against the time of an item, other items under way at the same time. Runs that the store "
                "answered have no time.",
            ),
            "</div>",
        ]
        names = {r.label for r in runs}
        parts += [
            _pairs([p for p in content.pairs if p.a in names and p.b in names]),
            _equal_tokens(content, dataset.name) if len(runs) > 1 else "",
            _calibration(runs),
            _seeds(runs),
            _breakdown(runs),
        ]
    parts += [_disagreements(content), _settings(content.runs), _data(content)]
    body = "\n".join(p for p in parts if p)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_t(content.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n"
        f'<p class="soft small">Made by reason {_t(content.made_with)}. Definitions: docs/statistics.md.</p>\n'
        "</body>\n</html>\n"
    )


def _headline(content: Content) -> str:
    runs = content.runs
    models = list(dict.fromkeys(str(r.settings.get("models.main", "")) for r in runs))
    said = f"{len(runs)} run{'s' if len(runs) != 1 else ''} on "
    said += " and ".join(dict.fromkeys(f"{r.dataset.name} ({r.summary.items} items)" for r in runs))
    return _t(f"{said}, with {' and '.join(models)}")


def _alarms(content: Content) -> list[str]:
    contamination = {f"{r.dataset.name}: {r.dataset.warning}" for r in content.runs}
    return [w for w in content.warnings if w not in contamination]


def _results(runs: Sequence[RunContent]) -> str:
    best = max(r.summary.accuracy.value for r in runs)
    rows = []
    for run in runs:
        s = run.summary
        seconds = NOTHING if s.latency is None else f"{s.latency.p50:.2f} / {s.latency.p95:.2f}"
        unread = f'<td class="num{" bad" if s.unparsed > UNPARSED_ALARM else ""}">{100 * s.unparsed:.1f}</td>'
        rows.append(
            f"<tr><td>{_t(run.label)}</td>"
            f'<td class="num{" best" if s.accuracy.value == best else ""}">{100 * s.accuracy.value:.1f}</td>'
            f'<td class="num">{_interval(s.accuracy.interval)}</td><td>{_whisker(s.accuracy)}</td>'
            f'<td class="num">{s.items} / {s.spread.seeds}</td>'
            f'<td class="num">{s.cost.tokens:,.0f}</td><td class="num">{s.cost.paid_tokens / s.rows:,.0f}</td>'
            f'<td class="num">{s.cost.calls:.1f}</td>'
            f'<td class="num">{seconds}</td>{unread}</tr>'
        )
    return _table(
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


def _pairs(pairs: Sequence[PairContent]) -> str:
    if not pairs:
        return ""
    rows = []
    for p in pairs:
        s = p.score
        clear = s.t is not None and (s.t.low > 0 or s.t.high < 0)
        besides = "".join(f'<br><span class="small bad">differs besides: {_t(d)}</span>' for d in p.besides)
        detectable = "not estimable" if s.detectable is None else f"{100 * s.detectable:.1f}"
        rows.append(
            f"<tr><td>{_t(p.a)} <span class='soft'>less</span> {_t(p.b)}{besides}</td>"
            f'<td class="num{" best" if clear else ""}">{100 * s.difference:+.1f}</td>'
            f'<td class="num">{_interval(s.t, signed=True)}</td>'
            f'<td class="num">{_interval(s.bootstrap, signed=True)}</td>'
            f'<td class="num">{s.wins} / {s.losses}</td><td class="num">{s.both} / {s.neither}</td>'
            f'<td class="num">{s.p:.3f}</td><td class="num">{detectable}</td></tr>'
        )
    return (
        "<h3>Item by item</h3>"
        + _table(
            (
                "difference, points",
                "mean",
                "95% (t)",
                "95% (bootstrap)",
                "wins / losses",
                "both right / wrong",
                "exact p",
                "could have been seen",
            ),
            rows,
        )
        + '<p class="soft small">Bold where the interval excludes 0. The last column is the smallest true difference '
        "that this many items would have shown with a chance of 80%.</p>"
    )


def _equal_tokens(content: Content, dataset: str) -> str:
    curves = [c for c in content.equal_tokens if c.dataset == dataset]
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
        rows.append(f"<tr><td>{_t(curve.family)}</td>{cells}</tr>")
    return "<h3>At equal tokens, accuracy % with 95% band</h3>" + _table(
        ("method", *(f"{t:,.0f} tokens" for t in tokens)), rows
    )


def _calibration(runs: Sequence[RunContent]) -> str:
    stated = [r for r in runs if r.summary.calibration is not None]
    if not stated:
        return ""
    rows, figures = [], []
    for run in stated:
        c = run.summary.calibration
        if c is None:
            continue
        auroc = NOTHING if c.auroc is None else f"{c.auroc:.3f}"
        rows.append(
            f'<tr><td>{_t(run.label)}</td><td class="num">{c.n}</td><td class="num">{c.ece:.3f}</td>'
            f'<td class="num">{c.adaptive_ece:.3f}</td><td class="num">{c.brier:.3f}</td>'
            f'<td class="num">{c.nll:.3f}</td>'
            f'<td class="num">{auroc}</td><td class="num">{c.aurc:.3f}</td></tr>'
        )
        figures += [
            _figure(calibration_diagram(run), f"{run.label}: share right by confidence, with the answers in each bin."),
            _figure(risk_coverage_diagram(run), f"{run.label}: error among the most confident answers."),
        ]
    table = _table(("run", "answers", "ECE", "adaptive ECE", "Brier", "NLL", "AUROC", "AURC"), rows)
    return f"<h3>Calibration</h3>{table}" + _figures(figures, "Calibration diagrams")


def _seeds(runs: Sequence[RunContent]) -> str:
    several = [r for r in runs if r.summary.spread.seeds > 1]
    if not several:
        return ""
    rows = []
    for run in several:
        s = run.summary.spread
        sd = "not estimable" if s.sd is None else f"{100 * s.sd:.1f}"
        unstable = "not estimable" if s.instability is None else f"{100 * s.instability:.1f}"
        passes = ", ".join(f"@{k} {100 * v:.1f}" for k, v in run.summary.pass_at.items())
        rows.append(
            f'<tr><td>{_t(run.label)}</td><td class="num">{100 * s.mean:.1f}</td><td class="num">{sd}</td>'
            f'<td class="num">{100 * s.low:.1f} … {100 * s.high:.1f}</td><td class="num">{unstable}</td>'
            f'<td class="num">{100 * s.always:.1f}</td><td class="num">{100 * s.never:.1f}</td>'
            f'<td class="text">{passes}</td></tr>'
        )
    figures = [_figure(success_rates(r), f"{r.label}: items by share of right seeds.") for r in several]
    table = _table(
        ("run", "mean %", "sd", "range", "two seeds disagree %", "always right %", "never right %", "pass@k %"), rows
    )
    return f"<h3>Seeds</h3>{table}" + _figures(figures, "Items by share of right seeds")


def _breakdown(runs: Sequence[RunContent]) -> str:
    parts = []
    for title, by_run in (
        ("Subjects", [r.summary.subjects for r in runs]),
        ("Other scores", [r.summary.metrics for r in runs]),
    ):
        names = list(dict.fromkeys(name for found in by_run for name in found))[:MOST_SUBJECTS]
        if not names:
            continue
        rows = []
        for name in names:
            means: list[Mean | None] = [found.get(name) for found in by_run]
            items = max(m.items for m in means if m is not None)
            cells = "".join(
                f'<td class="num">{NOTHING}</td>'
                if m is None
                else f'<td class="num">{100 * m.value:.1f} <span class="soft">{_interval(m.interval)}</span></td>'
                for m in means
            )
            rows.append(f'<tr><td>{_t(name)}</td><td class="num">{items}</td>{cells}</tr>')
        table = _table((title.lower(), "items", *(r.label for r in runs)), rows)
        parts.append(f"<details><summary><b>{title}</b>, accuracy % with 95% interval</summary>{table}</details>")
    labelled = [r for r in runs if r.summary.labels is not None]
    if labelled:
        parts.append(f"<details><summary><b>Labels</b></summary>{_labels(labelled)}</details>")
    return "".join(parts)


def _labels(runs: Sequence[RunContent]) -> str:
    rows = []
    for run in runs:
        found = run.summary.labels
        if found is None:
            continue
        macro = f"macro F1 {100 * found.macro_f1:.1f}, weighted {100 * found.weighted_f1:.1f}"
        rows.append(f'<tr><td><b>{_t(run.label)}</b></td><td class="text" colspan="6">{macro}</td></tr>')
        for name, f in found.labels.items():
            shares = "".join(
                f'<td class="num">{NOTHING if v is None else f"{100 * v:.1f}"}</td>'
                for v in (f.precision, f.recall, f.f1)
            )
            taken = ", ".join(f"{given or 'unread'} {n}" for given, n in found.confusion.get(name, {}).items())
            rows.append(
                f'<tr><td>{_t(name)}</td><td class="num">{f.support}</td><td class="num">{f.given}</td>{shares}'
                f'<td class="text small">{_t(taken)}</td></tr>'
            )
    return _table(("label", "items", "given", "precision %", "recall %", "F1 %", "taken for"), rows)


def _disagreements(content: Content) -> str:
    if not content.disagreements:
        return ""
    shown = len(content.disagreements)
    more = "" if shown == content.disagreeing else f" The first {shown} are here."
    rows = "".join(_disagreement(d) for d in content.disagreements)
    return (
        f"<h2>Where the runs disagree</h2><p class='soft'>{content.disagreeing} items on which some runs are right and "
        f"others wrong, under their first common seed.{more} Click one for the traces.</p>{rows}"
    )


def _disagreement(d: Disagreement) -> str:
    marks = " ".join(
        f'<span class="mark {"good" if s.value == 1 else "bad"}" title="{_t(s.run)}">{_mark(s.value)}</span>'
        for s in d.sides
    )
    question = " ".join(d.question.split())
    short = question if len(question) <= 110 else question[:109] + "…"
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    choices = "".join(f"\n{letter}) {c}" for letter, c in zip(letters, d.choices, strict=False))
    return (
        f"<details><summary>{marks} <code>{_t(d.id)}</code> {_t(short)}</summary>"
        f'<div class="question">{_t(d.question + choices)}</div><p>Right answer: <b>{_t(d.gold)}</b>'
        f"{f' · {_t(d.subject)}' if d.subject else ''}</p>"
        f'<div class="sides">{"".join(_side(s) for s in d.sides)}</div></details>'
    )


def _side(s: Side) -> str:
    verdict = "good" if s.value == 1 else "bad"
    given = "no answer" if s.prediction is None else s.prediction
    facts = [f"{s.tokens:,} tokens"]
    if s.confidence is not None:
        facts.append(f"confidence {s.confidence:.2f}")
    if s.votes:
        facts.append("votes " + ", ".join(f"{a} x{n}" for a, n in list(s.votes.items())[:6]))
    error = f'<p class="bad">{_t(s.error)}</p>' if s.error else ""
    return (
        f'<div class="side"><b>{_t(s.run)}</b> <span class="{verdict}">{_mark(s.value)} {_t(given)}</span>'
        f'<div class="soft small">{_t(" · ".join(facts))}</div>{error}<pre>{_t(s.text)}</pre>'
        f'<div class="soft small"><code>reason runs show {_t(s.run_id)}</code></div></div>'
    )


def _settings(runs: Sequence[RunContent]) -> str:
    names = list(dict.fromkeys(n for r in runs for n in r.settings))
    differing = [n for n in names if len({str(r.settings.get(n)) for r in runs}) > 1]
    same = [n for n in names if n not in differing]
    parts = ["<h2>Settings</h2>"]
    if differing:
        rows = [
            f"<tr><td><code>{_t(n)}</code></td>"
            + "".join(f'<td class="text small">{_t(_shown(r.settings.get(n)))}</td>' for r in runs)
            + "</tr>"
            for n in differing
        ]
        parts.append("<h3>What differs</h3>" + _table(("setting", *(r.label for r in runs)), rows))
    facts = {**{n: _shown(runs[0].settings.get(n)) for n in same}, **runs[0].environment}
    rows = [
        f'<tr><td><code>{_t(name)}</code></td><td class="text small">{_t(value)}</td></tr>'
        for name, value in facts.items()
    ]
    table = _table(("setting", "value"), rows)
    parts.append(f"<details><summary>What is the same, and what it ran on</summary>{table}</details>")
    return "".join(parts)


def _data(content: Content) -> str:
    parts = ["<h2>Data</h2>"]
    for use in {r.dataset.name: r.dataset for r in content.runs}.values():
        parts.append(
            f"<p><b>{_t(use.name)}</b>: {use.size} items, scored by {_t(use.scorer)}; licence {_t(use.licence)}.</p>"
            + (f'<p class="note">{_t(use.warning)}</p>' if use.warning else "")
            + f'<p class="soft small">fingerprint <code>{use.fingerprint[:16]}</code></p>'
        )
    return "".join(parts)


def _table(heads: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f"<th>{_t(h)}</th>" for h in heads)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _whisker(mean: Mean) -> str:
    ends = mean.interval
    span = (
        "" if ends is None else f'<i style="left:{100 * ends.low:.2f}%;width:{100 * (ends.high - ends.low):.2f}%"></i>'
    )
    return f'<span class="whisker">{span}<b style="left:{100 * mean.value:.2f}%"></b></span>'


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{_t(caption)}</figcaption></figure>" if svg else ""


def _figures(figures: Sequence[str], title: str) -> str:
    """Figures side by side; many of them only when they are asked for."""
    shown = f'<div class="figures">{"".join(figures)}</div>'
    return shown if len(figures) <= MOST_FIGURES else f"<details><summary>{_t(title)}</summary>{shown}</details>"


def _interval(ends: Interval | None, *, signed: bool = False) -> str:
    if ends is None:
        return "not estimable"
    form = "+.1f" if signed else ".1f"
    return f"[{100 * ends.low:{form}}, {100 * ends.high:{form}}]"


def _mark(value: float) -> str:
    return "✓" if value == 1 else "✗" if value == 0 else f"{value:.2f}"


def _shown(value: object) -> str:
    text = NOTHING if value is None else str(value)
    return text if len(text) <= 200 else text[:199] + "…"


def _t(text: str) -> str:
    return escape(text)
