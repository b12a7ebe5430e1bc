"""`Content`: everything a report shows, gathered once and rendered in several forms. Its JSON is the JSON report."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, islice

import numpy as np
from pydantic import Field, JsonValue

from ...core.errors import UserError
from ...core.messages import Frozen
from ...core.version import __version__
from ..comparison import StoredRun, compare_runs, settings_of
from ..folder import STORE
from ..greedy import Greedy, greedy_beside_sampled
from ..plan import IN_SAMPLE, DatasetUse
from ..rows import Row
from ..statistics.calibration import Kept, risk_coverage
from ..statistics.equal_tokens import At, Curve, accuracy_at, shared_tokens
from ..statistics.outcomes import number_groups
from ..statistics.paired import Paired
from ..summary import Summary, outcomes_of, summarise
from .families import families_of
from .grid import Grid, grids_of

MOST_DISAGREEMENTS = 200
"""Most items on which runs disagree whose traces a report carries."""
MOST_PAIRS = 28
"""Most comparisons of the runs on one dataset: eight runs with one another."""
SPELLED = 3
"""Most runs that are warned of one by one where the same is to be said of each."""
LONGEST_TEXT = 6000
"""Characters of a trace that a report carries."""


class RunContent(Frozen):
    """One run.

    Attributes:
        label: What it is called.
        family: The runs of one method at several budgets share it: a curve is drawn through them.
        settings: Everything that can move its score.
        environment: What it ran on.
        dataset: What was asked.
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
    dataset: DatasetUse
    complete: bool
    calibration: str = ""
    in_sample: bool = False
    summary: Summary
    risk_coverage: tuple[Kept, ...] = ()


class PairContent(Frozen):
    """Two runs compared.

    Attributes:
        compared: The one thing in which they differ.
        besides: What differs besides; a reader must know.
        score: The difference, the first's less the second's.
        metrics: The same for each other score that both have.
    """

    a: str
    b: str
    compared: tuple[str, ...]
    besides: tuple[str, ...]
    score: Paired
    metrics: dict[str, Paired] = Field(default_factory=dict)


class CurveContent(Frozen):
    """One method at the same tokens as the others: at each number of tokens its accuracy, None beyond its ends.

    `dataset` is the fingerprint of what was asked: two variants of a dataset share its name.
    """

    dataset: str
    family: str
    at: tuple[At | None, ...]


class Side(Frozen):
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
    """An item that some runs got right and others wrong."""

    id: str
    subject: str
    question: str
    choices: tuple[str, ...]
    gold: str
    sides: tuple[Side, ...]


class Content(Frozen):
    """A report's content.

    Attributes:
        title: Its title.
        made_with: Version of `reason`.
        runs: The runs, in the order given.
        grids: Every method on every dataset, one for each budget; none where all runs are on one dataset.
        pairs: Comparisons of every two runs of a dataset, up to a bound.
        equal_tokens: Accuracy at the same tokens, where curves overlap.
        greedy: Greedy runs beside sampled ones of the same method.
        disagreements: Items on which runs of a dataset disagree, up to a bound.
        disagreeing: How many there are.
        warnings: What a reader must know before the numbers.
    """

    title: str
    made_with: str
    runs: tuple[RunContent, ...]
    grids: tuple[Grid, ...] = ()
    pairs: tuple[PairContent, ...]
    equal_tokens: tuple[CurveContent, ...]
    greedy: tuple[Greedy, ...] = ()
    disagreements: tuple[Disagreement, ...]
    disagreeing: int
    warnings: tuple[str, ...]


def gather(runs: Sequence[StoredRun], title: str) -> Content:
    """Gather a report.

    Raises:
        UserError: There is no run.
    """
    if not runs:
        raise UserError("there is no run to report")
    families = families_of(runs)
    contents = tuple(_run(run, family) for run, family in zip(runs, families, strict=True))
    by_data: dict[str, list[tuple[StoredRun, str]]] = {}
    for run, family in zip(runs, families, strict=True):
        by_data.setdefault(run.manifest.plan.dataset.fingerprint, []).append((run, family))
    pairs: list[PairContent] = []
    curves: list[CurveContent] = []
    greedy: list[Greedy] = []
    disagreements: list[Disagreement] = []
    for members in by_data.values():
        same = [run for run, _ in members]
        for a, b in islice(combinations(same, 2), MOST_PAIRS):
            found = compare_runs(b, a, force=True)
            pairs.append(
                PairContent(
                    a=b.label,
                    b=a.label,
                    compared=tuple(map(str, found.compared)),
                    besides=tuple(map(str, found.allowed)),
                    score=found.score,
                    metrics=found.by_metric,
                )
            )
        curves += _equal_tokens(same, [family for _, family in members])
        greedy += greedy_beside_sampled(same)
        disagreements += _disagreements(same)
    return Content(
        title=title,
        made_with=__version__,
        runs=contents,
        grids=grids_of(runs, [run.summary for run in contents]),
        pairs=tuple(pairs),
        equal_tokens=tuple(curves),
        greedy=tuple(greedy),
        disagreements=tuple(disagreements[:MOST_DISAGREEMENTS]),
        disagreeing=len(disagreements),
        warnings=tuple(_warnings(contents)),
    )


def _run(run: StoredRun, family: str) -> RunContent:
    stated = [(r.confidence, r.correct) for r in run.rows if r.confidence is not None and r.correct is not None]
    return RunContent(
        label=run.label,
        family=family,
        settings=settings_of(run),
        environment=run.manifest.environment,
        dataset=run.manifest.plan.dataset,
        complete=run.manifest.complete,
        calibration="" if run.manifest.plan.calibration is None else str(run.manifest.plan.calibration),
        in_sample=run.manifest.plan.in_sample,
        summary=summarise(run.rows),
        risk_coverage=risk_coverage(*np.array(stated, dtype=float).T) if stated else (),
    )


def _warnings(runs: Sequence[RunContent]) -> list[str]:
    found = [f"{r.dataset.name}: {r.dataset.warning}" for r in runs if r.dataset.warning]
    unread: list[tuple[str, float]] = []
    degraded: dict[str, list[tuple[str, int]]] = {}
    for run in runs:
        s = run.summary
        if not run.complete:
            found.append(f"{run.label} is not finished: {s.rows} rows so far")
        if s.alarming:
            unread.append((run.label, s.unparsed))
        if s.failed:
            found.append(f"{run.label}: {s.failed} rows failed and count as wrong")
        if run.in_sample:
            found.append(f"{run.label}: {IN_SAMPLE.format(run.calibration)}")
        for what, n in s.degraded.items():
            degraded.setdefault(what, []).append((run.label, n))
    if len(unread) > SPELLED:
        most = max(share for _, share in unread)
        found.append(f"up to {100 * most:.1f}% of the answers could not be read in {_some(unread)}")
    else:
        found += [f"{label}: {100 * share:.1f}% of the answers could not be read" for label, share in unread]
    for what, where in degraded.items():
        if len(where) > SPELLED:
            found.append(f"{what} ({sum(n for _, n in where)} rows of {_some(where)})")
        else:
            found += [f"{label}: {what} ({n} rows)" for label, n in where]
    return list(dict.fromkeys(found))


def _some(where: Sequence[tuple[str, float]]) -> str:
    """So many runs, the first few by name."""
    return f"{len(where)} runs: {', '.join(label for label, _ in where[:SPELLED])}, …"


def _equal_tokens(runs: Sequence[StoredRun], names: Sequence[str]) -> list[CurveContent]:
    """Every family's accuracy at the same tokens, over the items that all its runs and all others have."""
    families: dict[str, list[StoredRun]] = {}
    for run, name in zip(runs, names, strict=True):
        families.setdefault(name, []).append(run)
    shared = set.intersection(*({r.id for r in run.rows} for run in runs))
    ids = [i for i in dict.fromkeys(r.id for r in runs[0].rows) if i in shared]
    if len(families) < 2 or not ids:
        return []
    curves = [
        Curve(
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
    return [CurveContent(dataset=dataset, family=c.name, at=tuple(row)) for c, row in zip(curves, values, strict=True)]


def _mean_tokens(rows: Sequence[Row], ids: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    by_item: dict[str, list[int]] = {}
    for row in rows:
        by_item.setdefault(row.id, []).append(row.ledger.completion_tokens)
    return np.array([sum(by_item[i]) / len(by_item[i]) for i in ids], dtype=np.float64)


def _disagreements(runs: Sequence[StoredRun]) -> list[Disagreement]:
    """Items whose rows of the runs' first common seed do not all have the same score."""
    if len(runs) < 2:
        return []
    by_run = [{r.key: r for r in run.rows} for run in runs]
    seeds = [s for s in runs[0].manifest.plan.seeds if all(any(k[1] == s for k in rows) for rows in by_run)]
    if not seeds:
        return []
    found = []
    for key, row in by_run[0].items():
        if key[1] != seeds[0] or not all(key in rows for rows in by_run):
            continue
        sides = [rows[key] for rows in by_run]
        if len({s.value for s in sides}) > 1:
            found.append(
                Disagreement(
                    id=row.id,
                    subject=row.subject,
                    question=_cut(row.question),
                    choices=row.choices,
                    gold=row.label or "",
                    sides=tuple(_side(run, s) for run, s in zip(runs, sides, strict=True)),
                )
            )
    return found


def _side(run: StoredRun, row: Row) -> Side:
    votes: dict[str, int] = {}
    if len(row.candidates) > 1:
        for candidate in row.candidates:
            name = "none" if candidate.answer is None else candidate.answer
            votes[name] = votes.get(name, 0) + 1
    return Side(
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
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]} … ({len(text):,} characters)"
