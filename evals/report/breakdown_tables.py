"""A run's score taken apart in the HTML report: by subject, by level, by other scores, by label."""

from __future__ import annotations

from collections.abc import Sequence

from ..scoring.labels import LabelReport
from ..summary import Mean
from .content import RunContent
from .markup import NOTHING, interval, number, percent, table, text

MOST_SUBJECTS = 40
MOST_LABELLED = 3
"""Most runs whose labels are shown without being asked for."""


def breakdown(runs: Sequence[RunContent]) -> str:
    """Every breakdown that the runs have."""
    parts = [_labels(runs)]
    for title, what, by_run in (
        ("Subjects", "accuracy", [r.summary.subjects for r in runs]),
        ("Levels", "accuracy", [r.summary.levels for r in runs]),
        ("Other scores", "mean", [r.summary.metrics for r in runs]),
    ):
        names = list(dict.fromkeys(name for found in by_run for name in found))[:MOST_SUBJECTS]
        if not names:
            continue
        rows = []
        for name in names:
            means: list[Mean | None] = [found.get(name) for found in by_run]
            items = max(m.items for m in means if m is not None)
            cells = "".join(number(NOTHING if m is None else _mean(m)) for m in means)
            rows.append(f"<tr><td>{text(name)}</td>{number(str(items))}{cells}</tr>")
        shown = table((title.lower(), "items", *(r.label for r in runs)), rows)
        parts.append(f"<details><summary><b>{title}</b>, {what} % with 95% interval</summary>{shown}</details>")
    return "".join(parts)


def _mean(mean: Mean) -> str:
    return f'{100 * mean.value:.1f} <span class="soft">{interval(mean.interval)}</span>'


def _labels(runs: Sequence[RunContent]) -> str:
    labelled = [(r, r.summary.labels) for r in runs]
    found = [(r, report) for r, report in labelled if report is not None]
    if not found:
        return ""
    shown = "".join(_label_table(run.label, report) for run, report in found)
    if len(found) > MOST_LABELLED:
        return f"<details><summary><b>Labels</b></summary>{shown}</details>"
    return f"<h3>Labels</h3>{shown}"


def _label_table(name: str, report: LabelReport) -> str:
    """Figures of each label, and on the right what its items were taken for."""
    given = [label for label, f in report.labels.items() if f.given]
    if any("" in row for row in report.confusion.values()):
        given.append("")
    rows = []
    for label, f in report.labels.items():
        figures = (str(f.support), str(f.given), percent(f.precision), percent(f.recall), percent(f.f1))
        taken = report.confusion.get(label, {})
        cells = "".join(number(str(taken.get(g, 0) or NOTHING), kind="right" if g == label else "") for g in given)
        rows.append(f"<tr><td>{text(label)}</td>{''.join(map(number, figures))}{cells}</tr>")
    heads = ("label", "items", "given", "precision %", "recall %", "F1 %", *(f"as {g or 'unread'}" for g in given))
    macro = f"macro F1 {100 * report.macro_f1:.1f}%, weighted F1 {100 * report.weighted_f1:.1f}%"
    return f"<p><b>{text(name)}</b>: {macro}</p>{table(heads, rows)}"
