"""Cells and rows of the tables of verification, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from reason.evals.statistics.intervals import bootstrap
from reason.evals.statistics.outcomes import number_groups
from reason.evals.verifying.figures import RESAMPLES, Difference, Figures, difference, figures_of
from reason.evals.verifying.judging import Judged
from reason.evals.verifying.methods import Told
from reason.evals.verifying.showing import attributed, named_ids, recall_at
from reason.verify.calibration.evidence_scores import attribution

SCORES = ("accuracy", "macro_f1", "weighted_f1", "ece", "brier", "nll", "aurc")
HEAD = (
    *("method", "n", "accuracy", "macro F1", "weighted F1", "ECE", "Brier", "NLL", "AURC"),
    *("evidence P / R / F1", "Δ accuracy (p)", "Δ macro F1", "Δ ECE"),
)


def figures(judged: Sequence[Judged], told: Sequence[Told], *, stated: bool = True, seed: int = 0) -> Figures:
    """Figures of verdicts."""
    return figures_of(
        [one.row.gold for one in judged],
        [one.label for one in told],
        [one.probs for one in told] if stated else None,
        [one.row.group or one.row.name for one in judged],
        seed=seed,
    )


def scores(found: Figures, names: Sequence[str] = SCORES) -> list[str]:
    """Each figure with its interval."""
    return [interval(found, name) for name in names]


def interval(found: Figures, name: str) -> str:
    """A figure with its interval; empty if there is none."""
    e = found.estimate(name)
    return "" if e is None else f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]"


def against(found: Figures, other: Figures | None) -> list[str]:
    """What a method is better or worse by than another."""
    if other is None or other is found:
        return ["", "", ""]
    d = difference(found, other)
    return [f"{signed(d, 'accuracy')} ({p_value(d.p)})", signed(d, "macro_f1"), signed(d, "ece")]


def signed(d: Difference, name: str) -> str:
    """A difference with its interval."""
    e = d.figures.get(name)
    return "" if e is None else f"{e.value:+.3f} [{e.low:+.3f}, {e.high:+.3f}]"


def p_value(p: float) -> str:
    """A p-value as short as it may be."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def evidence_cell(judged: Sequence[Judged], told: Sequence[Told], seed: int = 0) -> str:
    """Precision, recall and F1 of the named passages, the last with its interval."""
    rows = [one.row for one in judged]
    means, count = attributed(rows, told)
    if means is None:
        return ""
    each = [attribution(named_ids(r, t.named), r.right_ids) for r, t in zip(rows, told, strict=True)]
    kept = [(a.f1, r.group or r.name) for a, r in zip(each, rows, strict=True) if a is not None]
    groups = number_groups([name for _, name in kept])
    values = np.array([f1 for f1, _ in kept])
    between = bootstrap(values, groups, resamples=RESAMPLES, seed=seed)
    ends = "" if between is None else f" [{between.low:.3f}, {between.high:.3f}]"
    return f"{means.precision:.3f} / {means.recall:.3f} / {means.f1:.3f}{ends} (n = {count})"


def two_labels(told: Sequence[Told]) -> list[Told]:
    """The same where "not enough evidence" is no answer: the likelier of the other two, among equals refutes."""
    return [
        t._replace(label="supports" if t.probs.supports > t.probs.refutes else "refutes", downgraded=False)
        for t in told
    ]


def recall_cells(judged: Sequence[Judged]) -> list[str]:
    """Share of claims with a whole sufficient set, and with any deciding sentence, among the first 1, 3 and 5."""
    cells = []
    for k in (1, 3, 5):
        at = recall_at([one.row for one in judged], k)
        whole = "" if at.enough is None else f"{at.enough:.3f}"
        cells.append(f"{whole} / {'' if at.any is None else f'{at.any:.3f}'}")
    return cells


def answered_cells(judged: Sequence[Judged], told: Sequence[Told]) -> list[str]:
    """Share of claims with a decisive verdict, share wrong among them, and verdicts that the gate took back."""
    decisive = [(t.label, j.row.gold) for j, t in zip(judged, told, strict=True) if t.label in ("supports", "refutes")]
    wrong = sum(said != gold for said, gold in decisive) / len(decisive) if decisive else None
    return [
        f"{len(decisive) / len(told):.3f}",
        "" if wrong is None else f"{wrong:.3f}",
        str(sum(t.downgraded for t in told)),
    ]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    aligned = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, aligned, *rows))
