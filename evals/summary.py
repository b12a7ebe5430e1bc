"""`EvalSummary`: what the rows of one run say, in numbers. Reports and the command line print it; its JSON is a report.

Seconds per item: median and 95th percentile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from ..core.messages import Frozen
from .results import ResultRow
from .scoring import LabelReport, label_report
from .statistics.calibration import CalibrationMetrics, calibration_metrics
from .statistics.intervals import Interval, bootstrap, standard_error, wilson
from .statistics.outcomes import Outcomes
from .statistics.seeds import SeedSpread, fail_at_k, pass_at_k, seed_spread


@dataclass(frozen=True)
class Latency:
    """Quantiles of seconds, linearly interpolated between order statistics; `n` items were measured."""

    p50: float
    p95: float
    n: int


def latency(seconds: Sequence[float]) -> Latency | None:
    """Median and 95th percentile; None of nothing.

    Only for uninterrupted items: the run store answers without delay.
    """
    if not seconds:
        return None
    p50, p95 = np.quantile(np.asarray(seconds, dtype=float), [0.5, 0.95])
    return Latency(float(p50), float(p95), len(seconds))


UNPARSED_ALARM = 0.05
"""Share of rows without an answer above which the score states more about the format than about the method."""


class MeanScore(Frozen):
    """A mean over items with its 95% interval.

    Attributes:
        items: Number of items.
        value: The mean over items of their mean over seeds.
        se: Standard error, clustered by group where items have one; None if not estimable.
        interval: Wilson's where one seed answered independent items right or wrong, else the bootstrap's over items (or
            groups); where every item is right, or every one wrong, under all seeds, Wilson's with each group as one
            trial. None if not estimable.
    """

    items: int
    value: float
    se: float | None
    interval: Interval | None


class MeanCost(Frozen):
    """What an item has cost on average.

    Attributes:
        tokens: Generated tokens per item and seed, as if none had come from the store.
        thinking_tokens: Part of them that are thoughts.
        prompt_tokens: Prompt tokens likewise.
        calls: Model calls likewise.
        total_tokens: Generated tokens of all rows, likewise.
        paid_tokens: Of those, what this run paid itself.
        paid_responses: Responses that this run paid.
        responses: All responses.
        usd: US dollars that this run paid; None if a price is unknown.
    """

    tokens: float
    thinking_tokens: float = 0.0
    prompt_tokens: float
    calls: float
    total_tokens: int
    paid_tokens: int
    paid_responses: int
    responses: int
    usd: float | None


def tokens_text(cost: MeanCost) -> str:
    """Generated tokens of an item, and how many of them are thoughts if any are: `1,200 (900 thought)`."""
    return f"{cost.tokens:,.0f}" + (f" ({cost.thinking_tokens:,.0f} thought)" if cost.thinking_tokens else "")


class EvalSummary(Frozen):
    """One run in numbers.

    Attributes:
        items: Items with a row.
        rows: Rows: items times seeds.
        accuracy: Of the main score.
        metrics: The other scores by name.
        subjects: The main score by subject; empty where there is one only.
        levels: The main score by how hard the source states the items are, likewise.
        labels: Macro F1 and the confusion of labels, over all rows; None where nothing is labelled.
        spread: Over seeds.
        pass_at: pass@k by k, for every k up to the number of seeds.
        fail_at: At least one failure in k tries, likewise.
        unparsed: Share of rows without an answer.
        failed: Rows that ended with an error; they count as wrong.
        retried: Rows that were begun again after an error.
        out_of_budget: Rows that the budget stopped.
        degraded: What could not be done as the method states, with the number of rows.
        cost: What it has cost.
        latency: Of rows that were computed in one go; None if there are none.
        calibration: Of the stated confidences; None if none is stated.
        calibrated: Of the confidences after the run's calibration map; None if it used none.
        confident: Rows with a stated confidence.
    """

    items: int
    rows: int
    accuracy: MeanScore
    metrics: dict[str, MeanScore] = Field(default_factory=dict)
    subjects: dict[str, MeanScore] = Field(default_factory=dict)
    levels: dict[str, MeanScore] = Field(default_factory=dict)
    labels: LabelReport | None = None
    spread: SeedSpread
    pass_at: dict[int, float] = Field(default_factory=dict)
    fail_at: dict[int, float] = Field(default_factory=dict)
    unparsed: float
    failed: int
    retried: int
    out_of_budget: int
    degraded: dict[str, int] = Field(default_factory=dict)
    cost: MeanCost
    latency: Latency | None
    calibration: CalibrationMetrics | None
    calibrated: CalibrationMetrics | None = None
    confident: int

    @property
    def alarming(self) -> bool:
        """Whether too many answers could not be read."""
        return self.unparsed > UNPARSED_ALARM


def outcomes_of(rows: Sequence[ResultRow], metric: str | None = None) -> Outcomes:
    """The scores of rows, items by seeds, clustered by the items' groups.

    Args:
        metric: Which score; rows that do not have it are left out. None is the main one.

    Raises:
        UserError: There are no rows.
    """
    scores: dict[str, dict[Any, float]] = {}
    for row in rows:
        if metric is None:
            scores.setdefault(row.id, {})[row.seed] = row.value
        elif metric in row.metrics:
            scores.setdefault(row.id, {})[row.seed] = row.metrics[metric]
    return Outcomes.of(scores, {r.id: r.group for r in rows if r.group}, bounded=metric is None)


def mean_of(outcomes: Outcomes) -> MeanScore:
    """The mean of outcomes with its interval."""
    p = outcomes.p
    if outcomes.binary and outcomes.scores.shape[1] == 1 and not outcomes.clustered:
        interval: Interval | None = wilson(int(p.sum()), len(p))
    else:
        interval = bootstrap(p, outcomes.clusters)
        if interval is not None and interval.low == interval.high and p[0] in (0.0, 1.0):
            # no resample of nothing but 0, or nothing but 1, holds anything else: each group then counts as one trial
            groups = int(outcomes.clusters.max()) + 1
            interval = wilson(int(p[0]) * groups, groups)
    return MeanScore(items=len(p), value=float(p.mean()), se=standard_error(p, outcomes.clusters), interval=interval)


def summarize(rows: Sequence[ResultRow]) -> EvalSummary:
    """The numbers of one run.

    Raises:
        UserError: There are no rows.
    """
    outcomes = outcomes_of(rows)
    seeds = outcomes.scores.shape[1]
    notes: dict[str, int] = {}
    for row in rows:
        for what in row.degraded:
            notes[what] = notes.get(what, 0) + 1
    names = sorted({name for row in rows for name in row.metrics})
    decided = [r for r in rows if r.correct is not None]
    stated = [(r.confidence, r.correct) for r in decided if r.confidence is not None]
    mapped = [(r.calibrated_confidence, r.correct) for r in decided if r.calibrated_confidence is not None]
    attempts = range(1, seeds + 1)
    return EvalSummary(
        items=len(outcomes.ids),
        rows=len(rows),
        accuracy=mean_of(outcomes),
        metrics={name: mean_of(outcomes_of(rows, name)) for name in names},
        subjects=_by(rows, lambda r: r.subject),
        levels=_by(rows, lambda r: r.level),
        labels=_labels(rows),
        spread=seed_spread(outcomes),
        pass_at={k: v for k in attempts if (v := pass_at_k(outcomes, k)) is not None},
        fail_at={k: v for k in attempts if (v := fail_at_k(outcomes, k)) is not None},
        unparsed=sum(not r.parsed for r in rows) / len(rows),
        failed=sum(r.error is not None for r in rows),
        retried=sum(r.attempts > 1 for r in rows),
        out_of_budget=sum(r.stopped == "budget" for r in rows),
        degraded=notes,
        cost=_cost(rows),
        latency=latency([r.timing.wall_s for r in rows if r.timing.uninterrupted and r.error is None]),
        calibration=calibration_metrics(*np.array(stated, dtype=float).T) if stated else None,
        calibrated=calibration_metrics(*np.array(mapped, dtype=float).T) if mapped else None,
        confident=len(stated),
    )


def _by(rows: Sequence[ResultRow], name_of: Callable[[ResultRow], str]) -> dict[str, MeanScore]:
    """The main score by what the rows are named; empty where that is one name only."""
    names = sorted({name for row in rows if (name := name_of(row))})
    if len(names) < 2:
        return {}
    return {name: mean_of(outcomes_of([r for r in rows if name_of(r) == name])) for name in names}


def _labels(rows: Sequence[ResultRow]) -> LabelReport | None:
    golds = [(row, row.gold) for row in rows if isinstance(row.gold, dict) and row.gold.get("type") == "label"]
    if not golds:
        return None
    first = golds[0][1].get("labels")
    named = [str(label) for label in first] if isinstance(first, list) else []
    return label_report([(row.label or "", row.prediction) for row, _ in golds], named)


def _cost(rows: Sequence[ResultRow]) -> MeanCost:
    n = len(rows)
    ledgers = [r.ledger for r in rows]
    prices = [r.timing.cost_usd for r in rows]
    return MeanCost(
        tokens=sum(x.completion_tokens for x in ledgers) / n,
        thinking_tokens=sum(x.thinking_tokens for x in ledgers) / n,
        prompt_tokens=sum(x.prompt_tokens for x in ledgers) / n,
        calls=sum(x.model_calls for x in ledgers) / n,
        total_tokens=sum(x.completion_tokens for x in ledgers),
        paid_tokens=sum(x.paid_tokens for x in ledgers),
        paid_responses=sum(x.paid_responses for x in ledgers),
        responses=sum(x.responses for x in ledgers),
        usd=None if any(p is None for p in prices) else sum(p or 0.0 for p in prices),
    )
