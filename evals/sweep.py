"""A sweep: every combination of strategies, parameters, budgets, models and datasets of a TOML file.

All runs of a model share its opened engine and one run store, and those with more samples run first: what they recorded
answers the runs with fewer.
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, JsonValue, ValidationError

from ..agents.planner import VerifyParameters, used_roles
from ..agents.reasoner import Reasoner
from ..core.budget import Budget
from ..core.errors import DataError, UserError
from ..core.files import Progress
from ..core.messages import Effort, Frozen
from ..core.settings import JURY, Settings, jurors_of, settings_for_models, user_error_of
from .datasets.items import Dataset
from .datasets.loading import open_dataset
from .plan import DatasetSource, EvalPlan
from .results import ResultRow
from .run_directory import MANIFEST, read_manifest, read_rows
from .runner import RunObserver, SharedResources, default_label, evaluate, make_plan, run_directory_name, settings_for

MAX_RUNS = 1000


class SweepStrategy(Frozen):
    """One strategy of a sweep.

    Attributes:
        name: Its name.
        parameters: Parameters that all its runs have.
        vary: Lists of values by parameter; every combination is a run.
        verify: Verifiers of its answers; empty for those of the settings.
        on: Its datasets, with the variant (`fever:claim-only`) if the file names one; empty for all of the file.
    """

    name: str
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    vary: dict[str, Annotated[list[JsonValue], Field(min_length=1)]] = Field(default_factory=dict)
    verify: tuple[str, ...] = ()
    on: tuple[str, ...] = ()


class SweepModels(Frozen):
    """The models of some runs by role; `jurors` has one for each juror."""

    main: str
    small: str | None = None
    judge: str | None = None
    reward: str | None = None
    jurors: tuple[str, ...] = ()


class SweepDataset(Frozen):
    """A dataset of a sweep, with the options of `reason eval`.

    Attributes:
        name: Its name, with its variant after a colon.
        context: Its knowledge sources; empty for the sweep's.
    """

    name: str
    data: Path | None = None
    map: dict[str, str] = Field(default_factory=dict)
    limit: Annotated[int, Field(ge=1)] | None = None
    choice_seed: int | None = 0
    options: dict[str, str] = Field(default_factory=dict)
    context: tuple[str, ...] = ()

    @property
    def source(self) -> DatasetSource:
        """Where its items come from."""
        return DatasetSource(
            dataset=self.name, data=self.data, map=self.map, choice_seed=self.choice_seed, options=self.options
        )


class Sweep(Frozen):
    """What a sweep's file holds.

    Attributes:
        dataset: Which questions are posed; several give every run on each.
        models: The models; several give every run on each. Empty is the settings' model.
        strategy: The strategies.
        budget: Limits of each item; several give every run under each. Empty is the settings' budget.
        effort: How much the models think; several give every run with each. Empty is the settings'.
        thinking_tokens: Limits of each thought; several give every run with each. Empty is the settings'.
        seeds: Seeds of every run; None is those of `default_seeds`.
        context: Where strategies that look things up do so. Empty is the settings'.
    """

    dataset: Annotated[list[SweepDataset], Field(min_length=1)]
    strategy: Annotated[list[SweepStrategy], Field(min_length=1)]
    models: list[SweepModels] = Field(default_factory=list)
    budget: list[Budget] = Field(default_factory=list)
    effort: list[Effort] = Field(default_factory=list)
    thinking_tokens: list[Annotated[int, Field(ge=1)]] = Field(default_factory=list)
    seeds: Annotated[list[int], Field(min_length=1)] | None = None
    context: list[str] = Field(default_factory=list)


class SweepRun(Frozen):
    """One run of a sweep before planning: its settings."""

    dataset: SweepDataset
    models: SweepModels | None
    strategy: str
    parameters: dict[str, JsonValue]
    budget: Budget | None
    verify: tuple[str, ...] = ()
    effort: Effort | None = None
    thinking_tokens: int | None = None


def read_sweep(path: Path) -> Sweep:
    """Read a sweep file. Paths in it are relative to the file.

    Raises:
        DataError: It cannot be read.
        UserError: A name or value in it is invalid.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as e:
        raise DataError(f"cannot read the sweep {path}: {e}") from e
    try:
        sweep = Sweep.model_validate(raw)
    except ValidationError as e:
        raise user_error_of(e, f"{path.name}:", Sweep.model_fields) from e
    names = {d.name for d in sweep.dataset}
    for strategy in sweep.strategy:
        for unknown in sorted({*strategy.on} - names):
            raise UserError(
                f"{path.name}: {strategy.name} names {unknown!r} in `on`, which is no dataset of the file",
                hint=f"its datasets: {', '.join(sorted(names))}",
            )
    located = [
        d.model_copy(
            update={
                "data": None if d.data is None else path.parent / d.data,
                "context": tuple(_resolve_context(path, d.context)),
            }
        )
        for d in sweep.dataset
    ]
    return sweep.model_copy(update={"dataset": located, "context": _resolve_context(path, sweep.context)})


def _resolve_context(path: Path, context: Sequence[str]) -> list[str]:
    return [str(path.parent / name) if (path.parent / name).is_dir() else name for name in context]


def expand_sweep(sweep: Sweep) -> list[SweepRun]:
    """Every run: models outermost, so that each is opened once, and runs with more samples first.

    Later runs reuse the samples of earlier ones.

    Raises:
        UserError: There are too many.
    """
    models_or_settings: list[SweepModels | None] = [*sweep.models] or [None]
    budgets: list[Budget | None] = [*sweep.budget] or [None]
    efforts: list[Effort | None] = [*sweep.effort] or [None]
    limits: list[int | None] = [*sweep.thinking_tokens] or [None]
    runs = [
        SweepRun(
            dataset=dataset,
            models=models,
            strategy=s.name,
            parameters={**s.parameters, **chosen},
            budget=budget,
            verify=s.verify,
            effort=effort,
            thinking_tokens=limit,
        )
        for models in models_or_settings
        for dataset in sweep.dataset
        for s in sweep.strategy
        if not s.on or dataset.name in s.on
        for chosen in _combinations(s.vary)
        for effort in efforts
        for limit in limits
        for budget in budgets
    ]
    if len(runs) > MAX_RUNS:
        raise UserError(f"the sweep has {len(runs)} runs, more than {MAX_RUNS}", hint="split it into several files")
    order = {id(run): i for i, run in enumerate(runs)}
    models_at = {str(m): i for i, m in enumerate(sweep.models)}
    return sorted(runs, key=lambda r: (models_at.get(str(r.models), 0), -_samples(r), order[id(r)]))


def plan_run(run: SweepRun, dataset: Dataset, settings: Settings, seeds: Sequence[int] | None) -> EvalPlan:
    """The plan of one run.

    Args:
        seeds: Its seeds; None is those of `default_seeds`.

    Raises:
        UserError: A strategy or parameter does not exist, or a value is not allowed.
    """
    changed: dict[str, Any] = {"strategy": run.strategy}
    if run.models is not None:
        changed |= {
            "model": run.models.main,
            "small_model": run.models.small,
            "judge_model": run.models.judge,
            "reward_model": run.models.reward,
            "jurors": run.models.jurors,
        }
    if run.budget is not None:
        changed["budget"] = run.budget
    if run.effort is not None:
        changed["effort"] = run.effort
    if run.thinking_tokens is not None:
        changed["thinking_tokens"] = run.thinking_tokens
    if run.verify:
        changed["verify"] = run.verify
    if run.dataset.context:
        changed["context"] = run.dataset.context
    return make_plan(
        dataset,
        settings.model_copy(update=changed),
        parameters=run.parameters,
        limit=run.dataset.limit,
        seeds=seeds,
    )


def _samples(run: SweepRun) -> int:
    n = run.parameters.get("n", 1)
    return n if isinstance(n, int) else 1


def _combinations(vary: dict[str, list[JsonValue]]) -> list[dict[str, JsonValue]]:
    return [dict(zip(vary, values, strict=True)) for values in itertools.product(*vary.values())]


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep, planned.

    Attributes:
        plan: The plan.
        source: Where it was loaded from.
        out: The run's directory.
        label: Its label in reports.
    """

    plan: EvalPlan
    dataset: Dataset
    source: DatasetSource
    out: Path
    label: str


def plan_sweep(
    sweep: Sweep, settings: Settings, out: Path, open_source: Callable[[DatasetSource], Dataset] = open_dataset
) -> list[PlannedRun]:
    """Plan every run of a sweep before any starts; a dataset is opened once.

    A run that is the same with other models, because its strategy does not use their roles, is planned once.

    Raises:
        UserError: Two runs are the same, or one is invalid.
        DataError: A dataset cannot be read.
    """
    datasets: dict[str, Dataset] = {}
    jobs: list[PlannedRun] = []
    planned: dict[str, SweepModels | None] = {}
    many = len(sweep.dataset) > 1
    if sweep.context:
        settings = settings.model_copy(update={"context": tuple(sweep.context)})
    for run in expand_sweep(sweep):
        source = run.dataset.source.absolute()
        key = source.model_dump_json()
        if key not in datasets:
            datasets[key] = open_source(source)
        plan = plan_run(run, datasets[key], settings, sweep.seeds)
        digest = plan.model_dump_json()
        if digest in planned and planned[digest] != run.models:
            continue
        is_duplicate = digest in planned
        planned[digest] = run.models
        label = f"{plan.dataset.full_name} {default_label(plan)}" if many else default_label(plan)
        if len(sweep.models) > 1:
            label += f" {plan.models['main']}"
        if is_duplicate:
            raise UserError(f"the sweep has the run {label!r} twice")
        jobs.append(PlannedRun(plan, datasets[key], source, out / run_directory_name(plan), label))
    return jobs


async def run_sweep(
    jobs: Sequence[PlannedRun],
    settings: Settings,
    store: Path,
    *,
    resume: bool,
    concurrency: int,
    watch: Callable[[str], RunObserver],
    progress: Progress | None = None,
) -> list[list[ResultRow]]:
    """Run the planned runs in order; consecutive ones of the same models share them.

    When a sweep is resumed, a finished run is only read.

    Args:
        watch: Gives the observer of a run that starts, by the run's title.

    Raises:
        ReasonError: As `evaluate`.
    """
    rows: list[list[ResultRow]] = []
    for group in _groups(jobs, settings.verifiers):
        models = {role: name for job in group for role, name in job.plan.models.items()}
        async with Reasoner(
            parameters=group[0].plan.parameters,
            settings=settings_for(group[0].plan, settings, store).model_copy(
                # what a plan leaves open, `Reasoner.variant` takes from here
                update={**settings_for_models(models), "effort": None, "thinking_tokens": None}
            ),
            progress=progress,
        ) as reasoner:
            for job in group:
                observer = watch(f"{job.label} ({len(rows) + 1} of {len(jobs)})")
                if resume and (finished := _finished(job)) is not None:
                    observer.begin(len(finished), finished)
                    rows.append(finished)
                    continue
                rows.append(
                    await evaluate(
                        job.plan,
                        job.dataset,
                        job.source,
                        job.out,
                        settings,
                        label=job.label,
                        resume=resume,
                        concurrency=concurrency,
                        shared=SharedResources(reasoner, store),
                        observer=observer,
                    )
                )
    return rows


def _groups(jobs: Sequence[PlannedRun], verifiers: VerifyParameters) -> list[list[PlannedRun]]:
    """Consecutive runs that can share their models: each role has the same model in all that use it."""
    groups: list[list[PlannedRun]] = []
    models_by_role: dict[str, object] = {}
    for job in jobs:
        plan = job.plan
        requested: dict[str, object] = {"main": plan.models["main"]}
        for role in used_roles(plan.strategy, plan.verify, verifiers):
            requested[role] = jurors_of(plan.models) if role == JURY else plan.models.get(role)
        fits = bool(groups) and groups[-1][0].plan.local == plan.local
        if fits and all(models_by_role.get(role, name) == name for role, name in requested.items()):
            groups[-1].append(job)
            models_by_role |= requested
        else:
            groups.append([job])
            models_by_role = requested
    return groups


def _finished(job: PlannedRun) -> list[ResultRow] | None:
    """The rows of a complete run; None if it is not complete."""
    if not (job.out / MANIFEST).exists():
        return None
    manifest = read_manifest(job.out)
    if not manifest.complete or manifest.plan.digest != job.plan.digest or manifest.plan.limit != job.plan.limit:
        return None
    rows = read_rows(job.out)
    return rows if all(row.error is None for row in rows) else None
