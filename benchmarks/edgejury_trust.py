"""What a jury's agreement is worth: confidence and labels beside what is right; and what leaving early saves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from davinci_cells import table
from edgejury_cells import beside
from edgejury_sittings import Heard
from reason.evals.comparison import StoredRun
from reason.evals.statistics.calibration import auroc, calibration
from reason.evals.statistics.intervals import bootstrap_means, percentiles, resample_groups, wilson
from reason.evals.statistics.outcomes import Array, number_groups

RESAMPLES = 2000
LABELS = ("consistent", "uncertain", "contradicted")
STAGES = ("answer", "review", "chair", "agreement")


def confidence_table(several: Sequence[tuple[str, StoredRun]]) -> str:
    """AUROC and calibration of the stated confidences; methods that state none are left out."""
    head = ("method", "answers with a confidence", "values that it takes", "AUROC [95 %]", "ECE", "Brier")
    rows = []
    for name, run in several:
        stated = [
            (row.id, row.confidence, row.correct)
            for row in run.rows
            if row.confidence is not None and row.correct is not None
        ]
        if not stated:
            continue
        conf = np.array([one[1] for one in stated], dtype=float)
        right = np.array([one[2] for one in stated], dtype=float)
        found = calibration(conf, right)
        rows.append(
            [
                *(name, str(len(stated)), str(len(np.unique(conf)))),
                auroc_cell(conf, right, [one[0] for one in stated]),
                *(f"{found.ece:.3f}", f"{found.brier:.3f}"),
            ]
        )
    return table(head, rows)


def auroc_cell(conf: Array, right: Array, questions: Sequence[str], resamples: int = RESAMPLES) -> str:
    """AUROC with its interval over resampled questions.

    Resamples in which all answers are right, or all wrong, have none and are left out.
    """
    value = auroc(conf, right)
    if value is None:
        return "all right or all wrong"
    groups = number_groups(questions)
    members = [np.flatnonzero(groups == g) for g in range(int(groups.max()) + 1)]
    drawn = []
    for some in resample_groups(len(members), resamples, 0):
        for chosen in some:
            at = np.concatenate([members[g] for g in chosen])
            once = auroc(conf[at], right[at])
            if once is not None:
                drawn.append(once)
    low, high = percentiles(np.array(drawn))
    return f"{value:.3f} [{float(low):.3f}, {float(high):.3f}]"


def labels_table(several: Sequence[tuple[str, Heard]]) -> str:
    """The label of each answer (the one claim of a closed question) beside whether it is right."""
    head = ("method", "label", "answers", "right % [95 %]", "wrong %")
    rows = []
    for name, heard in several:
        told = [(sitting.labels[0].label, row.value) for row, sitting in heard.sat if len(sitting.labels) == 1]
        for label in LABELS:
            rights = [value for said, value in told if said == label]
            if not rights:
                rows.append([name, label, "0", "", ""])
                continue
            ends = wilson(round(sum(rights)), len(rights))
            share = float(np.mean(rights))
            rows.append(
                [
                    *(name, label, str(len(rights))),
                    f"{100 * share:.1f} [{100 * ends.low:.0f}, {100 * ends.high:.0f}]",
                    f"{100 * (1 - share):.1f}",
                ]
            )
    return table(head, rows)


def exits_table(pairs: Sequence[tuple[str, Heard, Heard]]) -> str:
    """What leaving early saves and costs, over the rows that both have.

    Args:
        pairs: The jury's name, the run that leaves early where all agree, and the one that never does.
    """
    head = (
        *("jury", "questions", "left early %", "right of those, leaving %", "right of those, staying %"),
        *("calls saved [95 %]", "tokens saved [95 %]", "right answers, leaving less staying [95 %]"),
    )
    rows = []
    for name, leaving, staying in pairs:
        stayed = {row.key: row for row in staying.rows}
        both = [(row, one, stayed[row.key]) for row, one in leaving.sat if row.key in stayed]
        if not both:
            rows.append([name, "0", *[""] * 6])
            continue
        left = [(row, other) for row, one, other in both if one.path == "early_exit"]
        groups = number_groups([row.id for row, _, _ in both])
        saved = [
            np.array([getattr(o.ledger, what) - getattr(r.ledger, what) for r, _, o in both], dtype=float)
            for what in ("model_calls", "completion_tokens")
        ]
        rows.append(
            [
                *(name, str(len(both)), f"{100 * len(left) / len(both):.1f}"),
                *(f"{100 * np.mean([pair[i].value for pair in left]):.1f}" if left else "" for i in (0, 1)),
                *(_amount(values, *percentiles(bootstrap_means(values, groups))) for values in saved),
                beside(leaving.run, staying.run),
            ]
        )
    return table(head, rows)


def stages_table(several: Sequence[tuple[str, Heard]], *, timed: bool) -> str:
    """What each stage costs, a mean a question that came to it; with seconds, or without.

    Args:
        several: Juries by name.
        timed: Whether their questions were asked one at a time, with nothing from the run store.
    """
    head = ["jury", "stage", "questions", "calls", "tokens read", "tokens written", *(["s p50 / p95"] if timed else [])]
    rows = []
    for name, heard in several:
        for stage in STAGES:
            costs = [cost for _, sitting in heard.sat for cost in sitting.stages if cost.stage == stage and cost.calls]
            if not costs:
                continue
            means = [np.mean([getattr(c, what) for c in costs]) for what in ("prompt_tokens", "completion_tokens")]
            p50, p95 = np.quantile([c.latency_ms / 1000 for c in costs], [0.5, 0.95])
            rows.append(
                [
                    *(name, stage, str(len(costs)), f"{np.mean([c.calls for c in costs]):.2f}"),
                    *(f"{mean:,.0f}" for mean in means),
                    *([f"{p50:.1f} / {p95:.1f}"] if timed else []),
                ]
            )
    return table(head, rows)


def no_answer(run: StoredRun) -> str:
    """Share of answers that name no option, in per cent."""
    return f"{100 * np.mean([not row.parsed for row in run.rows]):.1f}"


def _amount(values: Array, low: Array, high: Array) -> str:
    return f"{values.mean():,.1f} [{float(low):,.1f}, {float(high):,.1f}]"
