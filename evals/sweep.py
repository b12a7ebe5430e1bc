"""A sweep: strategies by parameters by budgets by models on datasets, from a TOML file, as runs beside one another.

All runs of a model share its opened engine and one run store, and those with more samples go first: what they recorded
answers the runs with fewer.
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, JsonValue, ValidationError

from ..core.budget import Budget
from ..core.errors import DataError, UserError
from ..core.messages import Frozen
from ..core.settings import Settings, explain
from .evaluation import make_plan
from .plan import EvalPlan, TaskSource
from .task import Task

MOST_RUNS = 1000


class SweptStrategy(Frozen):
    """One strategy of a sweep.

    Attributes:
        name: Its name.
        parameters: Parameters that all its runs have.
        vary: Lists of values by parameter; every combination is a run.
        verify: Verifiers that look at its answers. Empty are the settings'.
        on: Names of the datasets on which it is run, with the variant (`fever:claim-only`) where the file names one;
            empty is all of the file's.
    """

    name: str
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    vary: dict[str, Annotated[list[JsonValue], Field(min_length=1)]] = Field(default_factory=dict)
    verify: tuple[str, ...] = ()
    on: tuple[str, ...] = ()


class SweptModels(Frozen):
    """The models of some runs by role; `jurors` has one for each juror."""

    main: str
    small: str | None = None
    judge: str | None = None
    reward: str | None = None
    jurors: tuple[str, ...] = ()
    chair: str | None = None


class SweptDataset(Frozen):
    """A dataset of a sweep; the fields are what `reason eval` takes as flags.

    `context` says where strategies that look things up do so for its questions; empty is the sweep's.
    """

    name: str
    data: Path | None = None
    map: dict[str, str] = Field(default_factory=dict)
    variant: str = ""
    limit: Annotated[int, Field(ge=1)] | None = None
    choice_seed: int | None = 0
    split: str = ""
    revision: str = ""
    options: dict[str, str] = Field(default_factory=dict)
    context: tuple[str, ...] = ()

    @property
    def whole_name(self) -> str:
        """The name with the variant behind it, as users name the dataset."""
        return self.name + (f":{self.variant}" if self.variant else "")

    @property
    def source(self) -> TaskSource:
        """Where its questions come from."""
        return TaskSource(
            dataset=self.name,
            data=self.data,
            map=self.map,
            variant=self.variant,
            choice_seed=self.choice_seed,
            split=self.split,
            revision=self.revision,
            options=self.options,
        )


class Sweep(Frozen):
    """What a sweep's file holds.

    Attributes:
        dataset: Which questions are asked; several give every run on each.
        models: The models; several give every run on each. Empty is the settings' model.
        strategy: The strategies.
        budget: Limits of each item; several give every run under each. Empty is the settings' budget.
        seeds: Seeds of every run.
        context: Where strategies that look things up do so. Empty is the settings'.
    """

    dataset: Annotated[list[SweptDataset], Field(min_length=1)]
    strategy: Annotated[list[SweptStrategy], Field(min_length=1)]
    models: list[SweptModels] = Field(default_factory=list)
    budget: list[Budget] = Field(default_factory=list)
    seeds: Annotated[list[int], Field(min_length=1)] = Field(default_factory=lambda: [0])
    context: list[str] = Field(default_factory=list)


class SweptRun(Frozen):
    """One run of a sweep, not yet planned: its place in the file and its settings."""

    dataset: SweptDataset
    models: SweptModels | None
    strategy: str
    parameters: dict[str, JsonValue]
    budget: Budget | None
    verify: tuple[str, ...] = ()


def read_sweep(path: Path) -> Sweep:
    """Read a sweep's file. Paths in it are relative to the file.

    Raises:
        DataError: It cannot be read.
        UserError: It names something that does not exist, or a value that is not allowed.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as e:
        raise DataError(f"cannot read the sweep {path}: {e}") from e
    try:
        sweep = Sweep.model_validate(raw)
    except ValidationError as e:
        raise explain(e, f"{path.name}:", Sweep.model_fields) from e
    names = {d.whole_name for d in sweep.dataset}
    for strategy in sweep.strategy:
        for unknown in sorted({*strategy.on} - names):
            raise UserError(
                f"{path.name}: {strategy.name} is to be run on {unknown!r}, which is no dataset of the file",
                hint=f"there are {', '.join(sorted(names))}",
            )
    located = [
        d.model_copy(
            update={
                "data": None if d.data is None else path.parent / d.data,  # an absolute one stays what it is
                "context": tuple(_beside(path, d.context)),
            }
        )
        for d in sweep.dataset
    ]
    return sweep.model_copy(update={"dataset": located, "context": _beside(path, sweep.context)})


def _beside(path: Path, context: Sequence[str]) -> list[str]:
    return [str(path.parent / name) if (path.parent / name).is_dir() else name for name in context]


def runs_of(sweep: Sweep) -> list[SweptRun]:
    """Every run: models outermost, so that each is opened once; and what may answer others before what it may answer.

    Raises:
        UserError: There are too many.
    """
    models_or_settings: list[SweptModels | None] = [*sweep.models] or [None]
    budgets: list[Budget | None] = [*sweep.budget] or [None]
    runs = [
        SweptRun(
            dataset=dataset,
            models=models,
            strategy=s.name,
            parameters={**s.parameters, **chosen},
            budget=budget,
            verify=s.verify,
        )
        for models in models_or_settings
        for dataset in sweep.dataset
        for s in sweep.strategy
        if not s.on or dataset.whole_name in s.on
        for chosen in _combinations(s.vary)
        for budget in budgets
    ]
    if len(runs) > MOST_RUNS:
        raise UserError(f"the sweep has {len(runs)} runs, more than {MOST_RUNS}", hint="cut it into several files")
    order = {id(run): i for i, run in enumerate(runs)}
    models_at = {str(m): i for i, m in enumerate(sweep.models)}
    return sorted(runs, key=lambda r: (models_at.get(str(r.models), 0), -_samples(r), order[id(r)]))


def plan_of(run: SweptRun, task: Task, settings: Settings, seeds: list[int]) -> EvalPlan:
    """The plan of one run.

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
            "chair_model": run.models.chair,
        }
    if run.budget is not None:
        changed["budget"] = run.budget
    if run.verify:
        changed["verify"] = run.verify
    if run.dataset.context:
        changed["context"] = run.dataset.context
    return make_plan(
        task,
        settings.model_copy(update=changed),
        parameters=run.parameters,
        limit=run.dataset.limit,
        seeds=seeds,
    )


def _samples(run: SweptRun) -> int:
    n = run.parameters.get("n", 1)
    return n if isinstance(n, int) else 1


def _combinations(vary: dict[str, list[JsonValue]]) -> list[dict[str, JsonValue]]:
    return [dict(zip(vary, values, strict=True)) for values in itertools.product(*vary.values())]
