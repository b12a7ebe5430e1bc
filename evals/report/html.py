"""The HTML report: one file without scripts and without anything from elsewhere, to be read in a minute."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from ..plan import DatasetUse
from ..summary import Mean
from .breakdown_tables import breakdown
from .content import Content, CurveContent, Disagreement, PairContent, RunContent, Side
from .grid_tables import grid_tables
from .markup import NOT_ESTIMABLE, NOTHING, best_of, figure, figures, interval, p_value, percent, table
from .markup import text as _t
from .plots import accuracy_against_latency, accuracy_against_tokens, calibration_diagram, risk_coverage_diagram
from .seed_tables import seeds
from .style import STYLE


def render_html(content: Content) -> str:
    """The report as one HTML document."""
    datasets = {r.dataset.fingerprint: r.dataset for r in content.runs}
    parts = [
        f"<h1>{_t(content.title)}</h1>",
        f'<p class="soft">{_headline(content)}</p>',
        *(f'<p class="alarm">{_t(w)}</p>' for w in _alarms(content)),
        *map(grid_tables, content.grids),
    ]
    for fingerprint, dataset in datasets.items():
        runs = [r for r in content.runs if r.dataset.fingerprint == fingerprint]
        curves = figure(
            accuracy_against_tokens(content, fingerprint),
            "Accuracy against generated tokens; bands are 95% intervals over items.",
        ) + figure(
            accuracy_against_latency(content, fingerprint),
            "Accuracy against the time of an item, other items under way at the same time. Runs that the store "
            "answered have no time.",
        )
        parts += [
            f"<h2>{_t(_named(dataset))}</h2>",
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
        f"<title>{_t(content.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n"
        f'<p class="soft small">Made by reason {_t(content.made_with)}. Definitions: docs/statistics.md.</p>\n'
        "</body>\n</html>\n"
    )


def _headline(content: Content) -> str:
    runs = content.runs
    models = list(dict.fromkeys(str(r.settings.get("models.main", "")) for r in runs))
    said = f"{len(runs)} run{'s' if len(runs) != 1 else ''} on "
    said += " and ".join(dict.fromkeys(f"{_named(r.dataset)}, {r.summary.items} items" for r in runs))
    return _t(f"{said}, with {' and '.join(models)}")


def _named(dataset: DatasetUse) -> str:
    return dataset.name + (f" ({dataset.variant})" if dataset.variant else "")


def _alarms(content: Content) -> list[str]:
    contamination = {f"{r.dataset.name}: {r.dataset.warning}" for r in content.runs}
    return [w for w in content.warnings if w not in contamination]


def _results(runs: Sequence[RunContent]) -> str:
    best = best_of(r.summary.accuracy.value for r in runs)
    rows = []
    for run in runs:
        s = run.summary
        seconds = NOTHING if s.latency is None else f"{s.latency.p50:.2f} / {s.latency.p95:.2f}"
        unread = f'<td class="num{" bad" if s.alarming else ""}">{100 * s.unparsed:.1f}</td>'
        rows.append(
            f"<tr><td>{_t(run.label)}</td>"
            f'<td class="num{" best" if s.accuracy.value == best else ""}">{100 * s.accuracy.value:.1f}</td>'
            f'<td class="num">{interval(s.accuracy.interval)}</td><td>{_whisker(s.accuracy)}</td>'
            f'<td class="num">{s.items} / {s.spread.seeds}</td>'
            f'<td class="num">{s.cost.tokens:,.0f}</td><td class="num">{s.cost.paid_tokens / s.rows:,.0f}</td>'
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


def _pairs(pairs: Sequence[PairContent]) -> str:
    if not pairs:
        return ""
    rows = []
    for p in pairs:
        s = p.score
        clear = s.t is not None and (s.t.low > 0 or s.t.high < 0)
        besides = f'<br><span class="small besides">besides {_t("; ".join(p.besides))}</span>' if p.besides else ""
        detectable = percent(s.detectable, NOT_ESTIMABLE)
        rows.append(
            f"<tr><td>{_t(p.a)} <span class='soft'>less</span> {_t(p.b)}{besides}</td>"
            f'<td class="num{" best" if clear else ""}">{100 * s.difference:+.1f}</td>'
            f'<td class="num">{interval(s.t, signed=True)}</td>'
            f'<td class="num">{interval(s.bootstrap, signed=True)}</td>'
            f'<td class="num">{s.wins} / {s.losses}</td><td class="num">{s.both} / {s.neither}</td>'
            f'<td class="num">{p_value(s.p)}</td><td class="num">{detectable}</td></tr>'
        )
    return (
        "<h3>Item by item</h3>"
        + table(
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
        + '<p class="soft small">Bold where the interval excludes 0; red is what else differs, which may be why. The '
        "last column is the smallest true difference that this many items would have shown with a chance of 80%.</p>"
    )


def _equal_tokens(curves: Sequence[CurveContent]) -> str:
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
    return "<h3>At equal tokens, accuracy % with 95% band</h3>" + table(
        ("method", *(f"{t:,.0f} tokens" for t in tokens)), rows
    )


def _calibration(runs: Sequence[RunContent]) -> str:
    stated = [r for r in runs if r.summary.calibration is not None]
    if not stated:
        return ""
    rows, drawn = [], []
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
        if (k := run.summary.calibrated) is not None:
            auroc = NOTHING if k.auroc is None else f"{k.auroc:.3f}"
            rows.append(
                f'<tr><td class="soft">calibrated: {_t(run.calibration)}</td><td class="num">{k.n}</td>'
                f'<td class="num">{k.ece:.3f}</td><td class="num">{k.adaptive_ece:.3f}</td>'
                f'<td class="num">{k.brier:.3f}</td><td class="num">{k.nll:.3f}</td><td class="num">{auroc}</td>'
                f'<td class="num">{k.aurc:.3f}</td></tr>'
            )
        drawn += [
            figure(calibration_diagram(run), f"{run.label}: share right by confidence, with the answers in each bin."),
            figure(risk_coverage_diagram(run), f"{run.label}: error among the most confident answers."),
        ]
    shown = table(("run", "answers", "ECE", "adaptive ECE", "Brier", "NLL", "AUROC", "AURC"), rows)
    return f"<h3>Calibration</h3>{shown}" + figures(drawn, "Calibration diagrams")


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
    shown = f"reason runs show {s.run_id}" + (f" --store {shlex.quote(s.store)}" if s.store else "")
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
        f'<div class="soft small"><code>{_t(shown)}</code></div></div>'
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
        parts.append("<h3>What differs</h3>" + table(("setting", *(r.label for r in runs)), rows))
    facts = {**{n: _shown(runs[0].settings.get(n)) for n in same}, **runs[0].environment}
    rows = [
        f'<tr><td><code>{_t(name)}</code></td><td class="text small">{_t(value)}</td></tr>'
        for name, value in facts.items()
    ]
    shown = table(("setting", "value"), rows)
    parts.append(f"<details><summary>What is the same, and what it ran on</summary>{shown}</details>")
    return "".join(parts)


def _data(content: Content) -> str:
    parts = ["<h2>Data</h2>"]
    for use in {r.dataset.fingerprint: r.dataset for r in content.runs}.values():
        parts.append(
            f"<p><b>{_t(_named(use))}</b>: {use.size} items, scored by {_t(use.scorer)}; licence {_t(use.licence)}.</p>"
            + (f'<p class="note">{_t(use.warning)}</p>' if use.warning else "")
            + f'<p class="soft small">fingerprint <code>{use.fingerprint[:16]}</code></p>'
        )
    return "".join(parts)


def _whisker(mean: Mean) -> str:
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
