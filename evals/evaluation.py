"""One evaluation from its plan to its finished folder, in this process; and the plan, from settings and a task."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..agents.calibrated import NO_MAP, chosen_map
from ..agents.chosen_models import models_of
from ..agents.knowledge import uses
from ..agents.reasoner import Reasoner
from ..core.errors import DataError, UserError
from ..core.model_roles import settings_of_roles
from ..core.settings import Settings
from ..core.sqlite_store import SqliteStore
from ..reasoning.strategy import make_strategy
from ..serving.pulling import Progress
from .environment import environment
from .folder import STORE, Manifest, RunFolder
from .plan import EvalPlan, TaskSource
from .rows import Row
from .runner import Nobody, Runner, Watcher
from .task import Task

CONCURRENCY = 16
"""Items under way at a time unless asked otherwise: enough rows to fill the embedded engine's batch."""


def make_plan(
    task: Task,
    settings: Settings,
    *,
    parameters: Mapping[str, Any] | None = None,
    limit: int | None = None,
    seeds: Sequence[int] = (0,),
) -> EvalPlan:
    """What is decided, from settings and a task.

    Args:
        task: The dataset.
        settings: Strategy, models, budget, engine, whose replies may be reused.
        parameters: Parameters of the strategy that differ from the settings.
        limit: Only that many items.
        seeds: The seeds.

    Raises:
        UserError: A parameter is not allowed, the calibration map is for another strategy, or there is nothing to ask.
        DataError: The settings' calibration map cannot be read.
    """
    if not task.items:
        raise UserError(f"the dataset {task.use.name} is empty")
    if len(set(seeds)) < len(seeds):
        raise UserError("a seed was named twice")
    chosen = {**settings.strategies.get(settings.strategy, {}), **(parameters or {})}
    _, complete = make_strategy(settings.strategy, chosen)
    return EvalPlan(
        dataset=task.use,
        limit=limit,
        strategy=settings.strategy,
        parameters=complete,
        models=models_of(settings),
        verify=settings.verify,
        budget=settings.budget,
        local=settings.local,
        seeds=tuple(seeds),
        reuse=settings.reuse,
        calibration=chosen_map(settings),
        context=settings.context if uses(settings.strategy, "brain") else (),
    )


def settings_for(plan: EvalPlan, settings: Settings, store: Path) -> Settings:
    """The settings under which the items of a plan are answered: the plan's, and of the rest those given."""
    return settings.model_copy(
        update={
            **settings_of_roles(plan.models),
            "strategy": plan.strategy,
            "strategies": {},  # the plan's parameters are complete
            "verify": plan.verify,
            "budget": plan.budget,
            "local": plan.local,
            "reuse": plan.reuse,
            "context": plan.context,
            "memory": "",  # what one item leaves behind must not answer another
            "seed": None,
            "store": store,
        }
    )


def keys_of(plan: EvalPlan, task: Task, shard: tuple[int, int] | None = None) -> tuple[tuple[str, int], ...]:
    """(item, seed) of every row, seed by seed; of one shard of n, every n-th item.

    Raises:
        UserError: The shard is none.
    """
    if shard is not None and not 0 <= shard[0] < shard[1]:
        raise UserError(f"shard {shard[0]} of {shard[1]} is none", hint="shards are numbered from 0")
    names = list(task.items)[: plan.limit]
    if shard is not None:
        names = names[shard[0] :: shard[1]]
    return tuple((name, seed) for seed in plan.seeds for name in names)


def label_of(plan: EvalPlan) -> str:
    """What reports call a run that was given no name: the strategy, with what makes its samples and its budget."""
    parts = [plan.strategy]
    for name in ("n", "max_rounds", "branches", "depth"):
        if plan.parameters.get(name) is not None:
            parts.append(f"{name}={plan.parameters[name]}")
    parts += [f"+ {name}" for name in plan.verify]
    if plan.budget.tokens is not None:
        parts.append(f"≤{plan.budget.tokens} tokens")
    return " ".join(parts)


def run_name(plan: EvalPlan) -> str:
    """Name of a run's folder: readable, and another for another plan."""
    data = plan.dataset.name + (f"-{plan.dataset.variant}" if plan.dataset.variant else "")
    said = f"{data}-{plan.models['main'].rpartition('/')[2]}-{label_of(plan)}"
    return f"{re.sub(r'[^A-Za-z0-9.=]+', '-', said).strip('-').lower()[:80]}-{plan.digest[:6]}"


@dataclass(frozen=True)
class Sharing:
    """What several evaluations of a sweep share.

    Attributes:
        reasoner: Holds the opened models and the store.
        store: The run store's file.
    """

    reasoner: Reasoner
    store: Path


async def evaluate(
    plan: EvalPlan,
    task: Task,
    source: TaskSource,
    out: Path,
    settings: Settings,
    *,
    label: str = "",
    resume: bool = False,
    shard: tuple[int, int] | None = None,
    concurrency: int = CONCURRENCY,
    store: Path | None = None,
    sharing: Sharing | None = None,
    watcher: Watcher | None = None,
    progress: Progress | None = None,
) -> list[Row]:
    """Run an evaluation, or go on with it.

    Cancelling saves what there is: the rows so far are in the folder and every reply is in the run store.

    Args:
        plan: What was decided.
        task: The dataset, the one that the plan was made for.
        source: Where it was opened from.
        out: The run's folder.
        settings: How backends are set up.
        label: What reports call the run.
        resume: Whether to go on with what the folder holds.
        shard: Only every n-th item.
        concurrency: Most items under way at a time.
        store: The run store; None is one in the folder.
        sharing: Models and store that are opened already.
        watcher: Hears how it goes on.
        progress: Told how far a model's files are.

    Returns:
        A row for every item and seed.

    Raises:
        UserError: The folder holds another run, or something of the plan cannot be.
        DataError: The folder is damaged, or the dataset is not the plan's.
        BackendError: The model failed altogether; what there is is saved.
    """
    if task.use.fingerprint != plan.dataset.fingerprint:
        raise DataError(
            f"the rows of {task.use.source} are not those that the run began with", hint="give the same data"
        )
    place = sharing.store if sharing is not None else store or out / STORE
    keys = keys_of(plan, task, shard)
    manifest = Manifest(
        plan=plan,
        task=source,
        label=label or label_of(plan),
        keys=keys,
        shard=shard,
        environment=environment(),
        store=STORE if place == out / STORE else str(place),
    )
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(RunFolder(out))
        rows = folder.begin(manifest, resume=resume)
        if sharing is None:
            reasoner = Reasoner(
                parameters=plan.parameters,
                calibration=plan.calibration or NO_MAP,
                settings=settings_for(plan, settings, place),
                progress=progress,
            )
            await stack.enter_async_context(reasoner)
        else:
            reasoner = await sharing.reasoner.variant(
                plan.strategy,
                parameters=plan.parameters,
                budget=plan.budget,
                calibration=plan.calibration or NO_MAP,
                verify=plan.verify,
                context=plan.context,
            )
        reading = await SqliteStore.open(place)
        stack.push_async_callback(reading.aclose)
        judge = await stack.enter_async_context(task.open_judge())
        runner = Runner(plan, task, judge, reasoner, reading, concurrency=concurrency, watcher=watcher or Nobody())
        made = await runner.run(keys, rows, folder.add)
        folder.finish(manifest, made)
    return made
