"""The Markdown report: the same tables without metrics and traces, for pull requests and notebooks."""

from __future__ import annotations

from collections.abc import Sequence

from ..comparison import GreedyComparison
from ..statistics.intervals import Interval
from ..summary import tokens_text
from .content import COSTS, Grid, GridCell, ReportContent, RunSection, costs

NOT_ESTIMABLE = "not estimable"


def render_markdown(content: ReportContent) -> str:
    """The report as Markdown."""
    lines = [f"# {_t(content.title)}", ""]
    lines += [f"> - {_t(w)}" for w in content.warnings]
    for grid in content.grids:
        lines += _grid(grid)
    for fingerprint, dataset in {r.dataset.fingerprint: r.dataset for r in content.runs}.items():
        runs = [r for r in content.runs if r.dataset.fingerprint == fingerprint]
        names = {r.label for r in runs}
        lines += ["", f"## {_t(dataset.name)}{f' ({dataset.variant})' if dataset.variant else ''}", ""]
        lines += _results(runs)
        pairs = [p for p in content.pairs if p.a in names and p.b in names]
        if pairs:
            lines += ["", "Item by item, in points:", ""]
            lines += _table(
                (
                    "difference",
                    "mean",
                    "95% interval",
                    "wins/losses",
                    "p",
                    "p (Holm)",
                    "status",
                    "detectable",
                    "items needed",
                    "other differences",
                ),
                [
                    (
                        f"{p.a} minus {p.b}",
                        f"{100 * p.score.difference:+.1f}",
                        _interval(p.score.interval, signed=True),
                        f"{p.score.wins}/{p.score.losses}",
                        _p(p.score.p),
                        _p(p.p_adjusted),
                        p.status,
                        NOT_ESTIMABLE if p.score.detectable is None else f"{100 * p.score.detectable:.1f}",
                        "-" if p.score.items_needed is None else f"{p.score.items_needed:,}",
                        "; ".join(map(str, p.besides)) or "-",
                    )
                    for p in pairs
                ],
            )
        curves = [c for c in content.equal_tokens if c.dataset == fingerprint]
        tokens = list(dict.fromkeys(a.tokens for c in curves for a in c.at if a is not None))
        if curves and tokens:
            lines += ["", "Accuracy % at equal tokens, with 95% band:", ""]
            lines += _table(
                ("method", *(f"{t:,.0f} tokens" for t in tokens)),
                [
                    (
                        c.family,
                        *(
                            "-" if a is None else f"{100 * a.value:.1f} [{100 * a.low:.1f}, {100 * a.high:.1f}]"
                            for a in c.at
                        ),
                    )
                    for c in curves
                ],
            )
        lines += _subjects(runs)
        for run in runs:
            lines += _labels(run)
        lines += _seeds(runs)
        lines += _greedy([g for g in content.greedy if g.greedy in names])
    if content.pairs:
        lines += ["", f"{content.disagreeing} items on which runs disagree."]
    lines += ["", "## Data", ""]
    for use in {r.dataset.fingerprint: r.dataset for r in content.runs}.values():
        variant = f" ({use.variant})" if use.variant else ""
        lines.append(
            f"- {_t(use.name + variant)}: {use.size} items, licence {_t(use.licence)}, "
            f"fingerprint `{use.fingerprint[:16]}`"
        )
    lines += ["", f"Made by reason {content.made_with}; definitions: docs/statistics.md."]
    return "\n".join(lines) + "\n"


def _grid(grid: Grid) -> list[str]:
    return [
        "",
        f"## All methods, {grid.budget} a question",
        "",
        "Accuracy % with its 95% interval, generated tokens a question.",
        "",
        *_table(("method", *grid.datasets), [(row.method, *map(_grid_cell, row.cells)) for row in grid.rows]),
        "",
        "What a question took, the mean over its datasets:",
        "",
        *_table(
            ("method", *COSTS),
            [(row.method, *costs(row)) for row in grid.rows],
        ),
    ]


def _grid_cell(cell: GridCell | None) -> str:
    return "-" if cell is None else f"{100 * cell.accuracy:.1f} {_interval(cell.interval)}, {cell.tokens:,.0f}"


def _results(runs: Sequence[RunSection]) -> list[str]:
    rows = []
    for run in runs:
        s = run.summary
        c, k = s.calibration, s.calibrated
        rows.append(
            (
                run.label,
                str(s.items),
                str(s.spread.seeds),
                f"{100 * s.accuracy.value:.1f}",
                _interval(s.accuracy.interval),
                tokens_text(s.cost),
                f"{s.cost.paid_tokens / s.rows:,.0f}",
                "-" if s.latency is None else f"{s.latency.p50:.2f} / {s.latency.p95:.2f}",
                f"**{100 * s.unparsed:.1f}**" if s.alarming else f"{100 * s.unparsed:.1f}",
                ("-" if c is None else f"{c.ece:.3f}") + ("" if k is None else f" (calibrated {k.ece:.3f})"),
            )
        )
    heads = (
        "run", "items", "seeds", "accuracy %", "95% interval", "tokens/item", "paid here", "p50 / p95 s", "unread %",
        "ECE",
    )  # fmt: skip
    return _table(heads, rows)


def _subjects(runs: Sequence[RunSection]) -> list[str]:
    lines: list[str] = []
    for title, by_run in (
        ("Accuracy % by subject:", [r.summary.subjects for r in runs]),
        ("Accuracy % by level:", [r.summary.levels for r in runs]),
        ("Other scores, %:", [r.summary.metrics for r in runs]),
    ):
        names = list(dict.fromkeys(name for result in by_run for name in result))
        if names:
            lines += ["", title, ""]
            lines += _table(
                ("", *(r.label for r in runs)),
                [
                    (
                        name,
                        *(
                            f"{100 * result[name].value:.1f} {_interval(result[name].interval)}"
                            if name in result
                            else "-"
                            for result in by_run
                        ),
                    )
                    for name in names
                ],
            )
    return lines


def _labels(run: RunSection) -> list[str]:
    result = run.summary.labels
    if result is None:
        return []
    label_text = f"{_t(run.label)}: macro F1 {100 * result.macro_f1:.1f}%, weighted F1 {100 * result.weighted_f1:.1f}%"
    rows = []
    for name, f in result.labels.items():
        taken = ", ".join(f"{values or 'unread'} {n}" for values, n in result.confusion.get(name, {}).items())
        shares = map(_share, (f.precision, f.recall, f.f1))
        rows.append((name, str(f.support), str(f.predicted), *shares, taken or "-"))
    heads = ("label", "items", "predicted", "precision %", "recall %", "F1 %", "taken for")
    return ["", f"{label_text}:", "", *_table(heads, rows)]


def _seeds(runs: Sequence[RunSection]) -> list[str]:
    if all(r.summary.spread.seeds == 1 for r in runs):
        return ["", f"One seed a run: what another seed would give is {NOT_ESTIMABLE}."]
    rows = []
    for run in runs:
        s = run.summary.spread
        rows.append(
            (
                run.label,
                str(s.seeds),
                _share(s.mean),
                _share(s.sd, NOT_ESTIMABLE),
                f"{_share(s.low)} … {_share(s.high)}" if s.seeds > 1 else NOT_ESTIMABLE,
                _share(s.instability, NOT_ESTIMABLE),
                f"{_share(s.always)} / {_share(s.never)}" if s.seeds > 1 else NOT_ESTIMABLE,
                ", ".join(f"@{k} {100 * v:.1f}" for k, v in run.summary.pass_at.items()) or NOT_ESTIMABLE,
                ", ".join(f"@{k} {100 * v:.1f}" for k, v in run.summary.fail_at.items()) or NOT_ESTIMABLE,
            )
        )
    heads = (
        "run", "seeds", "mean %", "sd", "range", "two seeds disagree %", "always / never right %", "pass@k %",
        "fail@k %",
    )  # fmt: skip
    return ["", "Seeds:", "", *_table(heads, rows)]


def _greedy(pairs: Sequence[GreedyComparison]) -> list[str]:
    if not pairs:
        return []
    rows = [
        (
            f"{p.greedy} beside {p.sampled}",
            _share(p.greedy_accuracy),
            _share(p.sampled_accuracy),
            _share(p.best, NOT_ESTIMABLE),
            NOT_ESTIMABLE if p.sampling_gap is None else f"{100 * p.sampling_gap:+.1f}",
            f"{100 * p.fragility:+.1f}",
        )
        for p in pairs
    ]
    heads = ("run", "greedy %", "sampled mean %", "right under any seed %", "sampling gap", "fragility")
    return ["", "Greedy beside sampled:", "", *_table(heads, rows)]


def _p(value: float) -> str:
    return "under 0.001" if value < 0.001 else f"{value:.3f}"


def _share(value: float | None, missing: str = "-") -> str:
    return missing if value is None else f"{100 * value:.1f}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(map(_t, heads)) + " |",
        "| --- |" + " ---: |" * (len(heads) - 1),
        *("| " + " | ".join(map(_t, row)) + " |" for row in rows),
    ]


def _interval(ends: Interval | None, *, signed: bool = False) -> str:
    if ends is None:
        return "not estimable"
    form = "+.1f" if signed else ".1f"
    return f"[{100 * ends.low:{form}}, {100 * ends.high:{form}}]"


def _t(text: str) -> str:
    """Text within a table: nothing in it may end a cell or begin markup."""
    plain = " ".join(text.split())
    return plain.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")
