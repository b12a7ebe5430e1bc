"""`ReportContent`: everything a report shows, built once. Its JSON is the JSON report."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import combinations, islice

import numpy as np
from pydantic import Field, JsonValue

from ...core.budget import Budget
from ...core.errors import UserError
from ...core.messages import Frozen
from ...core.version import __version__
from ..comparison import GreedyComparison, RunComparison, compare_all, compare_greedy_with_sampled, run_settings
from ..plan import IN_SAMPLE_WARNING, DatasetInfo
from ..results import ResultRow
from ..run_directory import STORE, EvalRun
from ..runner import default_label
from ..statistics.equal_tokens import MIN_VOTES, InterpolatedAccuracy, TokenCurve, accuracy_at, shared_tokens
from ..statistics.outcomes import number_groups
from ..summary import EvalSummary, outcomes_of, summarize

SAMPLING = frozenset({"parameters.temperature", "parameters.top_p", "parameters.top_k", "parameters.min_p"})
"""Numbers that shape samples without changing what they cost."""


def method_families(runs: Sequence[EvalRun]) -> list[str]:
    """A name for each run, the same for runs that may be on one curve.

    They share dataset, strategy and models, and differ only in budgets and in the strategy's numbers (samples, rounds,
    tokens, thresholds). Runs that differ in sampling, in a text parameter, a switch or the seeds are different methods,
    and their names state the difference.
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


def _family_name(run: EvalRun) -> str:
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


class Grid(Frozen):
    """All methods under one budget; `methods` has each one's position in `ReportContent.runs` for each dataset."""

    budget: str
    datasets: tuple[str, ...]
    methods: dict[str, tuple[int | None, ...]]


def build_grids(runs: Sequence[EvalRun]) -> tuple[Grid, ...]:
    """A grid for each budget, in the order of the runs; none if all runs are on one dataset.

    A method is a strategy with the number of its samples, its verifiers and, if they differ, its main model. If several
    runs share even these, the later ones get rows of their own, numbered.
    """
    plans = [run.manifest.plan for run in runs]
    datasets = tuple(dict.fromkeys(plan.dataset.full_name for plan in plans))
    if len(datasets) < 2:
        return ()
    several_models = len({plan.models.get("main") for plan in plans}) > 1
    positions: dict[str, dict[str, dict[str, int]]] = {}
    seen: Counter[tuple[str, str, str]] = Counter()
    for position, plan in enumerate(plans):
        budget, data = budget_text(plan.budget), plan.dataset.full_name
        name = default_label(plan.model_copy(update={"budget": Budget()}))
        if several_models:
            name += f", {plan.models['main'].rpartition('/')[2]}"
        seen[budget, name, data] += 1
        if (number := seen[budget, name, data]) > 1:
            name += f" ({number})"
        positions.setdefault(budget, {}).setdefault(name, {})[data] = position
    return tuple(
        Grid(
            budget=budget,
            datasets=datasets,
            methods={name: tuple(own.get(data) for data in datasets) for name, own in methods.items()},
        )
        for budget, methods in positions.items()
    )


def budget_text(budget: Budget) -> str:
    """A budget as text."""
    limits = budget.model_dump(exclude_none=True)
    units = {kind: kind.replace("_", " ") for kind in limits} | {"usd": "US dollars"}
    return " and ".join(f"{value:,g} {units[kind]}" for kind, value in limits.items()) or "no limit"


VOTES = frozenset({"rpc", "self-consistency"})
"""Strategies whose samples vote."""
MAX_DISPUTED = 200
"""Maximum number of disputed items whose traces a report contains."""
MAX_SIDES = 32
"""Maximum number of runs whose answers to such an item are shown."""
MAX_PAIRS = 28
"""Maximum number of comparisons of the runs on one dataset: eight runs with one another."""
MAX_NAMED = 3
"""Maximum number of runs that a warning names."""
MAX_TRACE_CHARS = 6000
"""Maximum characters of a trace in a report."""


class RunSection(Frozen):
    """One run.

    Attributes:
        label: Its name.
        family: Name of its method, shared by the runs of one method at several budgets, which form a curve.
        settings: Everything that can affect its score.
        environment: The software and hardware it ran on.
        complete: Whether every row is finished.
        calibration: Its calibration map; empty if it used none.
        in_sample: Whether that map was fitted on this very dataset.
        summary: Its metrics.
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


class EqualTokensRow(Frozen):
    """One method's accuracy at the same numbers of tokens as the others', None beyond its ends.

    `dataset` is the dataset's fingerprint: two variants share its name.
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


class DisputedItem(Frozen):
    """An item that some runs got right and others wrong; `sides` are the answers of up to `MAX_SIDES` of them."""

    id: str
    subject: str
    question: str
    choices: tuple[str, ...]
    gold: str
    sides: tuple[RunAnswer, ...]


class ReportContent(Frozen):
    """A report's content.

    Attributes:
        made_with: Version of `reason`.
        runs: The runs, in the order given.
        grids: Every method on every dataset, one for each budget; none if all runs are on one dataset.
        pairs: Comparisons of every two runs of a dataset, up to a bound.
        equal_tokens: Accuracy at the same tokens, where curves overlap.
        greedy: Greedy runs next to sampled ones of the same method.
        disputed: Items on which runs of a dataset disagree, up to a bound.
        num_disputed: How many there are.
        warnings: What a reader must know before the numbers.
    """

    title: str
    made_with: str
    runs: tuple[RunSection, ...]
    grids: tuple[Grid, ...] = ()
    pairs: tuple[RunComparison, ...]
    equal_tokens: tuple[EqualTokensRow, ...]
    greedy: tuple[GreedyComparison, ...] = ()
    disputed: tuple[DisputedItem, ...]
    num_disputed: int
    warnings: tuple[str, ...]


def build_content(runs: Sequence[EvalRun], title: str) -> ReportContent:
    """Gather a report.

    Raises:
        UserError: There is no run.
    """
    if not runs:
        raise UserError("there is no run to report")
    families = method_families(runs)
    sections = tuple(_section(run, family) for run, family in zip(runs, families, strict=True))
    by_data: dict[tuple[str, str], list[tuple[EvalRun, str]]] = {}
    for run, family in zip(runs, families, strict=True):
        data = run.manifest.plan.dataset
        by_data.setdefault((data.fingerprint, data.scorer), []).append((run, family))
    pairs: list[RunComparison] = []
    curves: list[EqualTokensRow] = []
    greedy: list[GreedyComparison] = []
    disputed: list[DisputedItem] = []
    num_disputed = 0
    for members in by_data.values():
        same = [run for run, _ in members]
        pairs += compare_all(
            (b, a)
            for a, b in islice(combinations(same, 2), MAX_PAIRS)
            if not {r.id for r in a.rows}.isdisjoint(r.id for r in b.rows)
        )
        curves += _equal_tokens(same, [family for _, family in members])
        greedy += compare_greedy_with_sampled(same)
        number, items = _disputed(same, MAX_DISPUTED - len(disputed))
        disputed += items
        num_disputed += number
    return ReportContent(
        title=title,
        made_with=__version__,
        runs=sections,
        grids=build_grids(runs),
        pairs=tuple(pairs),
        equal_tokens=tuple(curves),
        greedy=tuple(greedy),
        disputed=tuple(disputed),
        num_disputed=num_disputed,
        warnings=tuple(_warnings(sections)),
    )


def _section(run: EvalRun, family: str) -> RunSection:
    plan = run.manifest.plan
    return RunSection(
        label=run.label,
        family=family,
        settings=run_settings(run),
        environment=run.manifest.environment,
        dataset=plan.dataset,
        complete=run.manifest.complete,
        calibration="" if plan.calibration is None else str(plan.calibration),
        in_sample=plan.in_sample,
        summary=summarize(run.rows),
    )


def _warnings(runs: Sequence[RunSection]) -> list[str]:
    results = [f"{r.dataset.name}: {r.dataset.warning}" for r in runs if r.dataset.warning]
    results += [f"{r.label} is not finished: {r.summary.rows} rows so far" for r in runs if not r.complete]
    results += [f"{r.label}: {r.summary.failed} rows failed and count as wrong" for r in runs if r.summary.failed]
    results += [f"{r.label}: {IN_SAMPLE_WARNING.format(r.calibration)}" for r in runs if r.in_sample]
    unparsed = [r for r in runs if r.summary.alarming]
    if unparsed:
        most = max(r.summary.unparsed for r in unparsed)
        results.append(f"{_names(unparsed)}: up to {100 * most:.1f}% of the answers could not be parsed")
    for note in dict.fromkeys(note for r in runs for note in r.summary.degraded):
        degraded = [r for r in runs if note in r.summary.degraded]
        results.append(f"{_names(degraded)}: {note} ({sum(r.summary.degraded[note] for r in degraded)} rows)")
    return list(dict.fromkeys(results))


def _names(runs: Sequence[RunSection]) -> str:
    labels = ", ".join(run.label for run in runs[:MAX_NAMED])
    return labels if len(runs) <= MAX_NAMED else f"{len(runs)} runs ({labels}, …)"


def _equal_tokens(runs: Sequence[EvalRun], names: Sequence[str]) -> list[EqualTokensRow]:
    """Every family's accuracy at the same tokens, over the items that all its runs and all others have.

    Votes of fewer than three samples are no point of a curve: they cannot outvote the first sample.
    """
    families: dict[str, list[EvalRun]] = {}
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


def _is_small_vote(run: EvalRun) -> bool:
    n = run.manifest.plan.parameters.get("n")
    return run.manifest.plan.strategy in VOTES and isinstance(n, int) and n < MIN_VOTES


def _mean_tokens(rows: Sequence[ResultRow], ids: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    by_item: dict[str, list[int]] = {}
    for row in rows:
        by_item.setdefault(row.id, []).append(row.ledger.completion_tokens)
    return np.array([sum(by_item[i]) / len(by_item[i]) for i in ids], dtype=np.float64)


def _disputed(runs: Sequence[EvalRun], room: int) -> tuple[int, list[DisputedItem]]:
    """Items whose rows of the runs' first common seed differ in score: their number, and the first `room` of them."""
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
            # if not all runs can be shown, one run for each score comes first
            shown = sorted([*values.values(), *(i for i in range(len(sides)) if i not in values.values())][:MAX_SIDES])
            results.append(
                DisputedItem(
                    id=row.id,
                    subject=row.subject,
                    question=_cut(row.question),
                    choices=row.choices,
                    gold=row.label or "",
                    sides=tuple(_side(runs[i], sides[i]) for i in shown),
                )
            )
    return number, results


def _side(run: EvalRun, row: ResultRow) -> RunAnswer:
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


def _store_of(run: EvalRun) -> str:
    store = run.manifest.store
    return str(run.path / store) if store == STORE else store


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TRACE_CHARS else f"{text[:MAX_TRACE_CHARS]} … ({len(text):,} characters)"
