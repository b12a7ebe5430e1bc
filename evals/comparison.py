"""Comparison of runs: by how much the scores of two runs on the same items differ, and in what the runs differ.

A difference in accuracy is evidence about a method only if nothing else differs. One thing is compared: the strategy,
with the parameters that only one of the two has, and with the seeds if one of the two has a single one; or a single
setting (a parameter, a model with its identity, a budget, the seeds). What differs besides is listed: the difference in
score is then that of all these settings together.

A greedy run next to sampled runs of the same method shows what sampling could add, and how certain the greedy answer
is.
Source: Song et al. 2024 ("The Good, The Bad, and The Greedy", arXiv:2407.10457) and Joshi et al. 2026 ("Stochastic
CHAOS", arXiv:2601.07239): one deterministic run hides both what a model can do and how often it fails.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from pydantic import JsonValue

from ..core.errors import UserError
from ..core.messages import Frozen
from .results import ResultRow
from .run_directory import EvalRun, flat_settings
from .statistics.paired import PairedComparison, Status, compare_paired, holm
from .statistics.seeds import fragility, pass_at_k, sampling_gap
from .summary import outcomes_of

NOT_SETTINGS = frozenset(
    {"limit", "reuse", "calibration", "dataset.source", "dataset.licence", "dataset.warning", "dataset.sha256"}
)
"""What a plan notes that cannot move a score."""


class SettingDifference(Frozen):
    """A setting in which two runs differ.

    Attributes:
        name: Its dotted name, `parameters.temperature`.
        a: The first run's value; None also if it does not have the setting.
        b: The second run's value, likewise.
    """

    name: str
    a: JsonValue
    b: JsonValue

    def __str__(self) -> str:
        return f"{self.name}: {_shown(self.a)} and {_shown(self.b)}"


class RunComparison(Frozen):
    """Two runs compared on the same items; differences in score are the first's minus the second's.

    Attributes:
        a: Label of the first run.
        b: Label of the second run.
        compared: The one thing in which they differ; empty if they differ in several, or in none.
        besides: What differs besides; if anything does, the difference in score is not that of `compared` alone.
        missing: Rows that only one of the two has; they do not count.
        score: The paired comparison.
        p_adjusted: The p-value of `score`, corrected by Holm's method for the other comparisons of its table.
        status: Whether "the first is better" is shown, by `p_adjusted` and the interval.
        metrics: The same as `score` for the other scores that both have.
    """

    a: str
    b: str
    compared: tuple[SettingDifference, ...]
    besides: tuple[SettingDifference, ...]
    missing: int
    score: PairedComparison
    p_adjusted: float
    status: Status
    metrics: dict[str, PairedComparison]


def compare_all(pairs: Iterable[tuple[EvalRun, EvalRun]]) -> list[RunComparison]:
    """Compare the runs of each pair, with the p-values corrected for all pairs together; raises as `compare_runs`."""
    comparisons = [compare_runs(a, b) for a, b in pairs]
    adjusted = holm([c.score.p for c in comparisons])
    return [
        c.model_copy(update={"p_adjusted": p, "status": c.score.status(p)})
        for c, p in zip(comparisons, adjusted, strict=True)
    ]


def compare_runs(a: EvalRun, b: EvalRun) -> RunComparison:
    """Compare two runs on the rows that both have.

    Raises:
        UserError: They are of other data or other scorers, or have no item in common: they cannot be paired.
    """
    pair = f"{a.label} and {b.label} cannot be compared item by item"
    data, other_data = a.manifest.plan.dataset, b.manifest.plan.dataset
    if data.fingerprint != other_data.fingerprint:
        raise UserError(
            f"{pair}: they are of different data, {data.full_name} (fingerprint {data.fingerprint[:8]}) and "
            f"{other_data.full_name} ({other_data.fingerprint[:8]})",
            hint="run one of them again on the data of the other; `reason eval report` shows both without a test",
        )
    if data.scorer != other_data.scorer:
        raise UserError(
            f"{pair}: they are scored in different ways, {data.scorer or 'unnamed'} and "
            f"{other_data.scorer or 'unnamed'}",
            hint="run one of them again with the scorer of the other",
        )
    names = {r.id for r in a.rows} & {r.id for r in b.rows}
    keys = {r.key for r in a.rows} & {r.key for r in b.rows}
    same_seeds = a.manifest.plan.seeds == b.manifest.plan.seeds

    def of(run: EvalRun) -> list[ResultRow]:
        return [r for r in run.rows if (r.key in keys if same_seeds else r.id in names)]

    left, right = of(a), of(b)
    if not left or not right:
        raise UserError(
            f"{pair}: they have no item in common",
            hint="`--limit` takes the first items",
        )
    compared, besides = split_differences(run_settings(a), run_settings(b))
    # not every row has every metric: those count that some item has in both runs
    metrics = sorted({m for m, _ in _measured(left) & _measured(right)})
    score = compare_paired(outcomes_of(left), outcomes_of(right))
    return RunComparison(
        a=a.label,
        b=b.label,
        compared=tuple(compared),
        besides=tuple(besides),
        missing=len(a.rows) + len(b.rows) - len(left) - len(right),
        score=score,
        p_adjusted=score.p,
        status=score.status(),
        metrics={m: compare_paired(outcomes_of(left, m), outcomes_of(right, m)) for m in metrics},
    )


def _measured(rows: Sequence[ResultRow]) -> set[tuple[str, str]]:
    """(metric, item) of every score there is."""
    return {(m, r.id) for r in rows for m in r.metrics}


def run_settings(run: EvalRun) -> dict[str, JsonValue]:
    """What can move a run's score, by dotted name: the plan, the identity of each model, the version of `reason`.

    Sampling parameters that the plan leaves to the strategy and the model are those that the calls were sent with;
    several values of one are a list.
    """
    plan = {n: v for n, v in flat_settings(run.manifest.plan).items() if n not in NOT_SETTINGS}
    engines: dict[str, set[str]] = {}
    versions: set[str] = set()
    defaults = {f: set[str]() for f in ("temperature", "top_p", "top_k") if plan.get(f"parameters.{f}", 0) is None}
    for row in run.rows:
        versions.add(row.version)
        for field, used in defaults.items():
            used.update(json.dumps(sampling[field]) for sampling in row.sampling if field in sampling)
        for role, identity in row.engines.items():
            engines.setdefault(role, set()).add(identity)
    for field, used in defaults.items():
        values: list[JsonValue] = [json.loads(value) for value in sorted(used)]
        plan[f"parameters.{field}"] = values if len(values) > 1 else next(iter(values), None)
    # identities and versions of all rows: a run that was resumed on another version shows it here
    plan |= {f"engine.{role}": ", ".join(sorted(result)) for role, result in engines.items()}
    return plan | {"version": ", ".join(sorted(versions))}


def split_differences(
    left: dict[str, JsonValue], right: dict[str, JsonValue]
) -> tuple[list[SettingDifference], list[SettingDifference]]:
    """What a comparison of two runs is of, and in what they differ besides."""
    differences = [
        SettingDifference(name=n, a=left.get(n), b=right.get(n))
        for n in dict.fromkeys([*left, *right])
        if left.get(n) != right.get(n)
    ]
    names = {d.name for d in differences}

    def goes_with(name: str) -> bool:
        """Whether a difference is part of the one thing compared."""
        if name == "seeds":  # a strategy that does not sample needs one seed only
            lists = [side.get(name) for side in (left, right)]
            return "strategy" in names and any(isinstance(seeds, list) and len(seeds) == 1 for seeds in lists)
        if "strategy" in names:
            own = name.startswith("parameters.") and (name not in left or name not in right)
            return name == "strategy" or own
        role = name.removeprefix("engine.") if name.startswith("engine.") else name.removeprefix("models.")
        return f"models.{role}" in names and len([n for n in names if n.startswith("models.")]) == 1

    compared = [d for d in differences if goes_with(d.name)]
    besides = [d for d in differences if not goes_with(d.name)]
    if not compared and len(besides) == 1 and _may_be_compared(besides[0].name):
        compared, besides = besides, []
    return compared, besides


def _may_be_compared(name: str) -> bool:
    """Whether a lone difference can be what a comparison is of: never the data, nor what runs the model."""
    return name.split(".")[0] in ("parameters", "budget", "seeds", "verify", "local")


def _shown(value: JsonValue) -> str:
    text = "not set" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"


TEMPERATURE = "parameters.temperature"


class GreedyComparison(Frozen):
    """A greedy run and a sampled one of the same settings, on the items that both have.

    Attributes:
        greedy: What reports call the greedy run.
        sampled: What they call the sampled one.
        items: Items that both have.
        seeds: Seeds of the sampled run.
        greedy_accuracy: Accuracy of the greedy run.
        sampled_accuracy: Mean accuracy of the sampled one.
        best: pass@k for k = all seeds, which is the greatest; None if scores are shares or a seed is missing.
        sampling_gap: `best` less the greedy accuracy; None likewise.
        fragility: The greedy accuracy less the share of items that every sample gets right.
    """

    greedy: str
    sampled: str
    items: int
    seeds: int
    greedy_accuracy: float
    sampled_accuracy: float
    best: float | None
    sampling_gap: float | None
    fragility: float


def compare_greedy_with_sampled(runs: Sequence[EvalRun]) -> list[GreedyComparison]:
    """Every greedy run with every sampled run that differs from it in temperature and seeds only.

    A run is greedy if its temperature is 0. Sampled runs of one seed are left out: they say nothing of a spread.
    """
    alike: dict[str, tuple[list[EvalRun], list[EvalRun]]] = {}
    for run in runs:
        settings = run_settings(run)
        settings.pop("seeds", None)
        temperature = settings.pop(TEMPERATURE, None)
        # a setting without a value is as good as none
        key = json.dumps({n: v for n, v in settings.items() if v is not None}, sort_keys=True)
        greedy, sampled = alike.setdefault(key, ([], []))
        if temperature == 0:
            greedy.append(run)
        elif len(run.manifest.plan.seeds) > 1:
            sampled.append(run)
    pairs = (_beside(run, other) for greedy, sampled in alike.values() for run in greedy for other in sampled)
    return [pair for pair in pairs if pair is not None]


def _beside(run: EvalRun, other: EvalRun) -> GreedyComparison | None:
    shared = {r.id for r in run.rows} & {r.id for r in other.rows}
    ids = [i for i in dict.fromkeys(r.id for r in run.rows) if i in shared]
    if not ids:
        return None
    accuracy = float(outcomes_of(run.rows).only(ids).p.mean())
    sampled = outcomes_of(other.rows).only(ids)
    best = pass_at_k(sampled, sampled.scores.shape[1])
    return GreedyComparison(
        greedy=run.label,
        sampled=other.label,
        items=len(ids),
        seeds=sampled.scores.shape[1],
        greedy_accuracy=accuracy,
        sampled_accuracy=float(sampled.p.mean()),
        best=best,
        sampling_gap=None if best is None else sampling_gap(best, accuracy),
        fragility=fragility(sampled, accuracy),
    )
