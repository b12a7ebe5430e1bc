"""One evaluation on the terminal: the data opened and told of, live view while it runs, its result after."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from ..core.errors import ReasonError, UserError
from ..core.settings import Settings
from ..evals.datasets.own import parse_map
from ..evals.plan import IN_SAMPLE, EvalPlan, TaskSource
from ..evals.results import Row
from ..evals.run_directory import read_manifest
from ..evals.runner import CONCURRENCY, evaluate, make_plan, run_name
from ..evals.summary import summarise
from ..evals.task import Task, absolute, open_task
from .interrupts import EXIT_INTERRUPTED, run_interruptible
from .render.console import say, write_line
from .render.eval_tables import print_details, print_runs, say_alarms, say_data
from .render.eval_view import EvalView

RUNS = Path("eval-runs")


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line; `fresh_flags` tells whether it says more than a bare --resume."""

    dataset: str | None
    data: Path | None
    map: str
    variant: str
    split: str
    revision: str
    options: dict[str, str]
    choice_seed: int | None
    limit: int | None
    parameters: dict[str, Any]
    seeds: int
    first_seed: int
    settings: Settings
    label: str
    out: Path | None
    resume: bool
    store: Path | None
    as_json: bool
    fresh_flags: bool


@dataclass(frozen=True)
class Scale:
    """How it is to be run."""

    concurrency: int | None = None
    shard: tuple[int, int] | None = None
    executor: str = "local"
    workers: int = 2
    endpoints: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Prepared:
    """An evaluation ready to run."""

    plan: EvalPlan
    task: Task
    source: TaskSource
    out: Path
    label: str
    shard: tuple[int, int] | None


def run_here(request: Request, scale: Scale) -> None:
    """Run an evaluation and print its result.

    Raises:
        typer.Exit: It was interrupted.
        ReasonError: It cannot be run, or ended early; what there is is saved.
    """
    if scale.executor not in ("local", "ray"):
        raise UserError(f"there is no executor {scale.executor!r}", hint="local or ray")
    if scale.executor == "ray" and scale.shard is not None:
        raise UserError("--executor ray makes shards of its own", hint="leave --shard away")
    ready = prepare(request, scale)
    say_data(ready.task.use)
    if greedy(ready.plan) and len(ready.plan.seeds) > 1:
        say(
            "the strategy samples nothing at temperature 0: every seed will give the same answer",
            label="note",
            style="cyan",
        )
    resume = shlex.join(
        ["reason", "eval", "--resume", "--out", str(ready.out)]
        + (["--store", str(request.store)] if request.store is not None else [])
        + (["--executor", "ray", "--workers", str(scale.workers)] if scale.executor == "ray" else [])
    )
    view = EvalView()
    view.run(ready.label or f"{ready.task.use.name} {ready.plan.strategy}")
    try:
        with view:
            rows = run_interruptible(_work(ready, request, scale, view), on_first=lambda: view.note("stopping"))
    except asyncio.CancelledError:
        say(f"interrupted; what there is is saved: {resume}")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except ReasonError:
        if view.progress.total:  # it began: what is refused before has done nothing
            say(f"what was done is saved: {resume}", label="note", style="cyan")
        raise
    show(ready.out, ready.label, rows, as_json=request.as_json)


def prepare(request: Request, scale: Scale) -> Prepared:
    """Open the data and decide the plan; of a run that is to go on, what it had decided.

    Raises:
        UserError: There is no dataset and no run, or what is asked contradicts the run.
        DataError: The data cannot be read, or the folder holds no run.
    """
    if request.dataset is None:
        if not request.resume or request.out is None:
            raise UserError("no dataset is named", hint="reason eval DATASET; or --resume --out DIR")
        if request.fresh_flags:
            raise UserError("a run goes on with what it began with", hint="leave all but --resume and --out away")
        manifest = read_manifest(request.out)
        task = open_task(manifest.task)
        return Prepared(manifest.plan, task, manifest.task, request.out, manifest.label, manifest.shard)
    source = absolute(
        TaskSource(
            dataset=request.dataset,
            data=request.data,
            map=parse_map(request.map),
            variant=request.variant,
            split=request.split,
            revision=request.revision,
            choice_seed=request.choice_seed,
            options=request.options,
        )
    )
    task = open_task(source)
    plan = make_plan(
        task,
        request.settings,
        parameters=request.parameters,
        limit=request.limit,
        seeds=range(request.first_seed, request.first_seed + request.seeds),
    )
    name = run_name(plan)
    if scale.shard is not None:
        name += f"-shard-{scale.shard[0] + 1}-of-{scale.shard[1]}"
    return Prepared(plan, task, source, request.out or RUNS / name, request.label, scale.shard)


def greedy(plan: EvalPlan) -> bool:
    """Whether the plan's strategy has a temperature and it is 0."""
    return plan.parameters.get("temperature") == 0


def show(out: Path, label: str, rows: Sequence[Row], *, as_json: bool) -> None:
    """Print the result of a run."""
    found = summarise(rows)
    named = label or read_manifest(out).label
    if as_json:
        write_line(found.model_dump_json(indent=2))
    else:
        print_runs([(named, found)])
        print_details(found)
    say_alarms(named, found)
    plan = read_manifest(out).plan
    if plan.in_sample:
        say(f"{named}: {IN_SAMPLE.format(plan.calibration)}", label="warning", style="yellow")
    say(f"{found.rows} rows in {out}; reason eval report {shlex.quote(str(out))} --out report.html")


async def _work(ready: Prepared, request: Request, scale: Scale, view: EvalView) -> list[Row]:
    concurrency = scale.concurrency or CONCURRENCY
    if scale.executor == "ray":
        from ..evals.ray_executor import evaluate_on_ray

        return await evaluate_on_ray(
            ready.plan,
            ready.task,
            ready.source,
            ready.out,
            request.settings,
            label=ready.label,
            resume=request.resume,
            workers=scale.workers,
            endpoints=scale.endpoints,
            concurrency=concurrency,
            watcher=view,
        )
    return await evaluate(
        ready.plan,
        ready.task,
        ready.source,
        ready.out,
        request.settings,
        label=ready.label,
        resume=request.resume,
        shard=ready.shard,
        concurrency=concurrency,
        store=request.store,
        watcher=view,
        progress=view.pulled,
    )
