"""`ReportContent`: everything a report shows, built once and rendered in several formats.

Its JSON is the JSON report.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations, islice

import numpy as np
from pydantic import Field, JsonValue

from ...core.budget import Budget
from ...core.errors import UserError
from ...core.messages import Frozen
from ...core.version import __version__
from ..comparison import (
    GreedyComparison,
    RunComparison,
    SettingDifference,
    compare_greedy_with_sampled,
    compare_runs,
    run_settings,
)
from ..plan import IN_SAMPLE_WARNING, DatasetInfo, EvalPlan
from ..results import ResultRow
from ..run_directory import STORE, StoredRun
from ..runner import default_label
from ..statistics.calibration import RiskCoveragePoint, risk_coverage
from ..statistics.equal_tokens import MIN_VOTES, InterpolatedAccuracy, TokenCurve, accuracy_at, shared_tokens
from ..statistics.intervals import Interval
from ..statistics.multiple import holm
from ..statistics.outcomes import number_groups
from ..statistics.paired import PairedComparison, Status
from ..summary import EvalSummary, outcomes_of, summarize

SAMPLING = frozenset({"parameters.temperature", "parameters.top_p", "parameters.top_k", "parameters.min_p"})
"""Numbers that shape a sample and buy nothing."""


def method_families(runs: Sequence[StoredRun]) -> list[str]:
    """A name for each run, the same for runs that may be on one curve.

    They share dataset, strategy and models, and differ in budgets and in the strategy's numbers only (samples, rounds,
    tokens, thresholds): what an effort is made of. Runs that differ in how they sample, in a word, a switch or their
    seeds are different methods, and their names say in what.
    """
    groups = [(_family_name(run), run.manifest.plan.dataset.fingerprint) for run in runs]
    settings = [{n: v for n, v in run_settings(run).items() if not _may_differ(n, v)} for run in runs]
    firsts: dict[tuple[str, str], dict[str, JsonValue]] = {}
    differing: dict[tuple[str, str], set[str]] = {}
    for group, mine in zip(groups, settings, strict=True):
        first = firsts.setdefault(group, mine)
        differing.setdefault(group, set()).update(n for n in {*first, *mine} if first.get(n) != mine.get(n))
    return [
        ", ".join(
            [group[0], *(f"{n.rpartition('.')[2]} {_shown(v)}" for n, v in mine.items() if n in differing[group])]
        )
        for group, mine in zip(groups, settings, strict=True)
    ]


def _family_name(run: StoredRun) -> str:
    plan = run.manifest.plan
    return f"{plan.strategy}, " + " + ".join(re.sub(r"^.*/", "", name) for name in plan.models.values())


def _may_differ(name: str, value: JsonValue) -> bool:
    """Whether runs that differ in a setting can still be one method."""
    if name in SAMPLING or name in ("seeds", "local.weight_format"):
        return False
    if name.startswith("parameters."):
        return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    return not name.startswith("verify")


def _shown(value: JsonValue) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 24 else text[:23] + "…"


COSTS = ("tokens", "prompt tokens", "calls", "median s", "USD", "ended by the budget %")
"""Columns of `costs`."""


class GridCell(Frozen):
    """A run in a grid.

    Attributes:
        accuracy: Of the main score, in [0, 1].
        interval: Its 95% interval; None if not estimable.
        items: Number of items.
        tokens: Generated tokens of an item.
        prompt_tokens: Prompt tokens of an item.
        calls: Model calls of an item.
        seconds: Median seconds of an item; None where the run store answered.
        usd: US dollars that an item cost; None if a price is unknown.
        cut: Share of the rows that the budget stopped, in [0, 1].
    """

    accuracy: float
    interval: Interval | None
    items: int
    tokens: float
    prompt_tokens: float
    calls: float
    seconds: float | None
    usd: float | None
    cut: float


class GridRow(Frozen):
    """A method: its cell for each of the grid's datasets, None where it was not run."""

    method: str
    cells: tuple[GridCell | None, ...]

    @property
    def ran(self) -> Iterator[GridCell]:
        """The cells that there are."""
        return (cell for cell in self.cells if cell is not None)


class Grid(Frozen):
    """All methods under one budget."""

    budget: str
    datasets: tuple[str, ...]
    rows: tuple[GridRow, ...]


def build_grids(runs: Sequence[StoredRun], summaries: Sequence[EvalSummary]) -> tuple[Grid, ...]:
    """A grid for each budget, as the runs come; none where all runs are on one dataset.

    A method is a strategy with the number of its samples, its verifiers and, where they differ, its main model. Of two
    runs that share even these, the later one takes a row of its own under its number.
    """
    plans = [run.manifest.plan for run in runs]
    datasets = tuple(dict.fromkeys(plan.dataset.full_name for plan in plans))
    if len(datasets) < 2:
        return ()
    many = len({plan.models.get("main") for plan in plans}) > 1
    results: dict[str, dict[str, dict[str, GridCell]]] = {}
    seen: Counter[tuple[str, str, str]] = Counter()
    for plan, summary in zip(plans, summaries, strict=True):
        budget, name, data = shown(plan.budget), _method(plan, named=many), plan.dataset.full_name
        seen[budget, name, data] += 1
        number = seen[budget, name, data]
        row = name if number == 1 else f"{name} ({number})"
        results.setdefault(budget, {}).setdefault(row, {})[data] = _cell(summary)
    return tuple(
        Grid(
            budget=budget,
            datasets=datasets,
            rows=tuple(
                GridRow(method=name, cells=tuple(cells.get(data) for data in datasets))
                for name, cells in methods.items()
            ),
        )
        for budget, methods in results.items()
    )


def shown(budget: Budget) -> str:
    """A budget as text."""
    limits = budget.model_dump(exclude_none=True)
    units = {kind: kind.replace("_", " ") for kind in limits} | {"usd": "US dollars"}
    return " and ".join(f"{value:,g} {units[kind]}" for kind, value in limits.items()) or "no limit"


def _method(plan: EvalPlan, *, named: bool) -> str:
    label = default_label(plan.model_copy(update={"budget": Budget()}))
    return f"{label}, {plan.models['main'].rpartition('/')[2]}" if named else label


def _cell(summary: EvalSummary) -> GridCell:
    cost = summary.cost
    return GridCell(
        accuracy=summary.accuracy.value,
        interval=summary.accuracy.interval,
        items=summary.items,
        tokens=cost.tokens,
        prompt_tokens=cost.prompt_tokens,
        calls=cost.calls,
        seconds=None if summary.latency is None else summary.latency.p50,
        usd=None if cost.usd is None else cost.usd / summary.rows,
        cut=summary.out_of_budget / summary.rows,
    )


def costs(row: GridRow) -> tuple[str, ...]:
    """Cost of a method per question, means over its datasets, formatted in the order of `COSTS`."""
    cells = list(row.ran)

    def mean(values: Sequence[float | None], form: str) -> str:
        known = [value for value in values if value is not None]
        return format(sum(known) / len(known), form) if known and len(known) == len(values) else "-"

    return (
        mean([cell.tokens for cell in cells], ",.0f"),
        mean([cell.prompt_tokens for cell in cells], ",.0f"),
        mean([cell.calls for cell in cells], ".1f"),
        mean([cell.seconds for cell in cells], ".1f"),
        mean([cell.usd for cell in cells], ".4f"),
        mean([100 * cell.cut for cell in cells], ".0f"),
    )


VOTES = frozenset({"rpc", "self-consistency"})
"""Strategies whose samples vote."""
MAX_DISAGREEMENTS = 200
"""Maximum number of items on which runs disagree whose traces a report carries."""
MAX_SIDES = 32
"""Maximum number of runs whose answers to such an item are shown."""
MAX_PAIRS = 28
"""Maximum number of comparisons of the runs on one dataset: eight runs with one another."""
SPELLED = 3
"""Maximum number of runs that a warning names one by one."""
MAX_TRACE_CHARS = 6000
"""Characters of a trace that a report carries."""


class RunSection(Frozen):
    """One run.

    Attributes:
        label: What it is called.
        family: The runs of one method at several budgets share it: a curve is sampled through them.
        settings: Everything that can move its score.
        environment: What it ran on.
        dataset: What was posed.
        complete: Whether every row is there.
        calibration: Its calibration map; empty if it used none.
        in_sample: Whether that map was fitted on this very dataset.
        summary: Its numbers.
        risk_coverage: Error among the most confident answers; empty without confidences.
    """

    label: str
    family: str
    settings: dict[str, JsonValue]
    environment: dict[str, str]
    dataset: DatasetInfo
    complete: bool
    calibration: str = ""
    in_sample: bool = False
    summary: EvalSummary
    risk_coverage: tuple[RiskCoveragePoint, ...] = ()


class PairSection(Frozen):
    """Two runs compared.

    Attributes:
        compared: The one thing in which they differ; empty if they differ in several, or in none.
        besides: What differs besides; if anything does, the difference is not that of `compared` alone.
        missing: Rows that only one of them has; they do not count.
        score: The difference, the first's less the second's.
        p_adjusted: The p-value of `score`, corrected for the other comparisons of the table by Holm's method.
        status: Whether "the first is better" is shown.
        metrics: The same as `score` for each other score that both have.
    """

    a: str
    b: str
    compared: tuple[SettingDifference, ...]
    besides: tuple[SettingDifference, ...]
    missing: int
    score: PairedComparison
    p_adjusted: float
    status: Status
    metrics: dict[str, PairedComparison] = Field(default_factory=dict)


def pair_sections(comparisons: Sequence[RunComparison]) -> list[PairSection]:
    """The comparisons of one table, with their p-values adjusted together."""
    adjusted = holm([c.score.p for c in comparisons])
    return [
        PairSection(
            a=c.a.label,
            b=c.b.label,
            compared=c.compared,
            besides=c.besides,
            missing=c.missing,
            score=c.score,
            p_adjusted=p,
            status=c.score.status(p),
            metrics=c.by_metric,
        )
        for c, p in zip(comparisons, adjusted, strict=True)
    ]


class EqualTokensRow(Frozen):
    """One method at the same tokens as the others: at each number of tokens its accuracy, None beyond its ends.

    `dataset` is the fingerprint of what was posed: two variants of a dataset share its name.
    """

    dataset: str
    family: str
    at: tuple[InterpolatedAccuracy | None, ...]


class RunAnswer(Frozen):
    """One run's answer to an item; `store` is the run store's file, empty where the run has several."""

    run: str
    value: float
    prediction: str | None
    confidence: float | None
    tokens: int
    votes: dict[str, int] = Field(default_factory=dict)
    text: str
    run_id: str
    store: str = ""
    error: str = ""


class Disagreement(Frozen):
    """An item that some runs got right and others wrong; `sides` are the answers of `MAX_SIDES` of them."""

    id: str
    subject: str
    question: str
    choices: tuple[str, ...]
    gold: str
    sides: tuple[RunAnswer, ...]


class ReportContent(Frozen):
    """A report's content.

    Attributes:
        title: Its title.
        made_with: Version of `reason`.
        runs: The runs, in the order given.
        grids: Every method on every dataset, one for each budget; none where all runs are on one dataset.
        pairs: Comparisons of every two runs of a dataset, up to a bound.
        equal_tokens: Accuracy at the same tokens, where curves overlap.
        greedy: Greedy runs next to sampled ones of the same method.
        disagreements: Items on which runs of a dataset disagree, up to a bound.
        disagreeing: How many there are.
        warnings: What a reader must know before the numbers.
    """

    title: str
    made_with: str
    runs: tuple[RunSection, ...]
    grids: tuple[Grid, ...] = ()
    pairs: tuple[PairSection, ...]
    equal_tokens: tuple[EqualTokensRow, ...]
    greedy: tuple[GreedyComparison, ...] = ()
    disagreements: tuple[Disagreement, ...]
    disagreeing: int
    warnings: tuple[str, ...]


def build_content(runs: Sequence[StoredRun], title: str) -> ReportContent:
    """Gather a report.

    Raises:
        UserError: There is no run.
    """
    if not runs:
        raise UserError("there is no run to report")
    families = method_families(runs)
    contents = tuple(_run(run, family) for run, family in zip(runs, families, strict=True))
    by_data: dict[tuple[str, str], list[tuple[StoredRun, str]]] = {}
    for run, family in zip(runs, families, strict=True):
        data = run.manifest.plan.dataset
        by_data.setdefault((data.fingerprint, data.scorer), []).append((run, family))
    pairs: list[PairSection] = []
    curves: list[EqualTokensRow] = []
    greedy: list[GreedyComparison] = []
    disagreements: list[Disagreement] = []
    disagreeing = 0
    for members in by_data.values():
        same = [run for run, _ in members]
        pairs += pair_sections(
            [
                compare_runs(b, a)
                for a, b in islice(combinations(same, 2), MAX_PAIRS)
                if not {r.id for r in a.rows}.isdisjoint(r.id for r in b.rows)  # shards of one run
            ]
        )
        curves += _equal_tokens(same, [family for _, family in members])
        greedy += compare_greedy_with_sampled(same)
        number, shown_items = _disagreements(same, MAX_DISAGREEMENTS - len(disagreements))
        disagreements += shown_items
        disagreeing += number
    return ReportContent(
        title=title,
        made_with=__version__,
        runs=contents,
        grids=build_grids(runs, [run.summary for run in contents]),
        pairs=tuple(pairs),
        equal_tokens=tuple(curves),
        greedy=tuple(greedy),
        disagreements=tuple(disagreements),
        disagreeing=disagreeing,
        warnings=tuple(_warnings(contents)),
    )


def _run(run: StoredRun, family: str) -> RunSection:
    stated = [(r.confidence, r.correct) for r in run.rows if r.confidence is not None and r.correct is not None]
    return RunSection(
        label=run.label,
        family=family,
        settings=run_settings(run),
        environment=run.manifest.environment,
        dataset=run.manifest.plan.dataset,
        complete=run.manifest.complete,
        calibration="" if run.manifest.plan.calibration is None else str(run.manifest.plan.calibration),
        in_sample=run.manifest.plan.in_sample,
        summary=summarize(run.rows),
        risk_coverage=risk_coverage(*np.array(stated, dtype=float).T) if stated else (),
    )


def _warnings(runs: Sequence[RunSection]) -> list[str]:
    results = [f"{r.dataset.name}: {r.dataset.warning}" for r in runs if r.dataset.warning]
    unread: list[tuple[str, float]] = []
    degraded: dict[str, list[tuple[str, int]]] = {}
    for run in runs:
        s = run.summary
        if not run.complete:
            results.append(f"{run.label} is not finished: {s.rows} rows so far")
        if s.alarming:
            unread.append((run.label, s.unparsed))
        if s.failed:
            results.append(f"{run.label}: {s.failed} rows failed and count as wrong")
        if run.in_sample:
            results.append(f"{run.label}: {IN_SAMPLE_WARNING.format(run.calibration)}")
        for what, n in s.degraded.items():
            degraded.setdefault(what, []).append((run.label, n))
    if len(unread) > SPELLED:
        most = max(share for _, share in unread)
        results.append(f"up to {100 * most:.1f}% of the answers could not be read in {_some(unread)}")
    else:
        results += [f"{label}: {100 * share:.1f}% of the answers could not be read" for label, share in unread]
    for what, where in degraded.items():
        if len(where) > SPELLED:
            results.append(f"{what} ({sum(n for _, n in where)} rows of {_some(where)})")
        else:
            results += [f"{label}: {what} ({n} rows)" for label, n in where]
    return list(dict.fromkeys(results))


def _some(where: Sequence[tuple[str, float]]) -> str:
    """So many runs, the first few by name."""
    return f"{len(where)} runs: {', '.join(label for label, _ in where[:SPELLED])}, …"


def _equal_tokens(runs: Sequence[StoredRun], names: Sequence[str]) -> list[EqualTokensRow]:
    """Every family's accuracy at the same tokens, over the items that all its runs and all others have.

    Votes of fewer than three samples are no point of a curve: they cannot outvote the first sample.
    """
    families: dict[str, list[StoredRun]] = {}
    for run, name in zip(runs, names, strict=True):
        if not _is_small_vote(run):
            families.setdefault(name, []).append(run)
    if len(families) < 2:
        return []
    shared = set.intersection(*({r.id for r in run.rows} for members in families.values() for run in members))
    ids = [i for i in dict.fromkeys(r.id for r in runs[0].rows) if i in shared]
    if not ids:
        return []
    curves = [
        TokenCurve(
            name,
            np.stack([outcomes_of(r.rows).only(ids).p for r in members], axis=1),
            np.stack([_mean_tokens(r.rows, ids) for r in members], axis=1),
        )
        for name, members in families.items()
    ]
    if any((c.tokens.mean(axis=0) <= 0).any() for c in curves):
        return []
    # one curve that is a single point can be met by another curve there
    meeting = shared_tokens(curves)
    if not meeting:
        return []
    groups = {r.id: r.group or r.id for r in runs[0].rows}
    values = accuracy_at(curves, number_groups([groups[i] for i in ids]), meeting)
    dataset = runs[0].manifest.plan.dataset.fingerprint
    return [
        EqualTokensRow(dataset=dataset, family=c.name, at=tuple(row)) for c, row in zip(curves, values, strict=True)
    ]


def _is_small_vote(run: StoredRun) -> bool:
    n = run.manifest.plan.parameters.get("n")
    return run.manifest.plan.strategy in VOTES and isinstance(n, int) and n < MIN_VOTES


def _mean_tokens(rows: Sequence[ResultRow], ids: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    by_item: dict[str, list[int]] = {}
    for row in rows:
        by_item.setdefault(row.id, []).append(row.ledger.completion_tokens)
    return np.array([sum(by_item[i]) / len(by_item[i]) for i in ids], dtype=np.float64)


def _disagreements(runs: Sequence[StoredRun], room: int) -> tuple[int, list[Disagreement]]:
    """Items whose rows of the runs' first common seed do not all have the same score: their number, and the first ones.

    Args:
        room: Maximum number of items whose traces are wanted.
    """
    if len(runs) < 2:
        return 0, []
    by_run = [{r.key: r for r in run.rows} for run in runs]
    common = set.intersection(*({seed for _, seed in rows} for rows in by_run))
    seed = next((s for s in runs[0].manifest.plan.seeds if s in common), None)
    number, results = 0, []
    for key, row in by_run[0].items():
        if key[1] != seed or not all(key in rows for rows in by_run):
            continue
        sides = [rows[key] for rows in by_run]
        values = {s.value: i for i, s in reversed(list(enumerate(sides)))}
        if len(values) == 1:
            continue
        number += 1
        if number <= room:
            # a run for each score that there is comes first where not all runs can be shown
            shown = sorted([*values.values(), *(i for i in range(len(sides)) if i not in values.values())][:MAX_SIDES])
            results.append(
                Disagreement(
                    id=row.id,
                    subject=row.subject,
                    question=_cut(row.question),
                    choices=row.choices,
                    gold=row.label or "",
                    sides=tuple(_side(runs[i], sides[i]) for i in shown),
                )
            )
    return number, results


def _side(run: StoredRun, row: ResultRow) -> RunAnswer:
    votes: dict[str, int] = {}
    if len(row.candidates) > 1:
        for candidate in row.candidates:
            name = "none" if candidate.answer is None else candidate.answer
            votes[name] = votes.get(name, 0) + 1
    return RunAnswer(
        run=run.label,
        value=row.value,
        prediction=row.prediction if row.prediction is not None else row.answer,
        confidence=row.confidence,
        tokens=row.ledger.completion_tokens,
        votes=dict(sorted(votes.items(), key=lambda kv: -kv[1])),
        text=_cut(row.text),
        run_id=row.run_id,
        store=_store_of(run),
        error="" if row.error is None else row.error.message,
    )


def _store_of(run: StoredRun) -> str:
    store = run.manifest.store
    if run.manifest.merged:
        return ""
    return str(run.path / store) if store == STORE else store


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TRACE_CHARS else f"{text[:MAX_TRACE_CHARS]} … ({len(text):,} characters)"
