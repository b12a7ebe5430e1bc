"""Running a sweep: its plans made, its models opened once each, its samples recorded once for all runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..agents.chosen_models import VerifyParameters, asked_roles
from ..agents.reasoner import Reasoner
from ..core.errors import UserError
from ..core.model_roles import JURY, jurors_of, settings_of_roles
from ..core.settings import Settings
from ..core.together import together
from ..serving.pulling import Progress
from .evaluation import Sharing, evaluate, label_of, run_name, settings_for
from .folder import MANIFEST, read_manifest, read_rows
from .plan import EvalPlan, TaskSource
from .rows import Row
from .runner import Watcher
from .sweep import Sweep, SweptModels, plan_of, runs_of
from .task import Task


@dataclass(frozen=True)
class Job:
    """One run of a sweep, planned.

    Attributes:
        plan: What was decided.
        task: The dataset.
        source: Where it was opened from.
        out: The run's folder.
        label: What reports call it.
    """

    plan: EvalPlan
    task: Task
    source: TaskSource
    out: Path
    label: str


def plan_sweep(sweep: Sweep, settings: Settings, out: Path, open_task: Callable[[TaskSource], Task]) -> list[Job]:
    """Plan every run of a sweep before any is begun; a dataset is opened once.

    A run that would be the same with other models, because its strategy does not ask their roles, is planned once.

    Raises:
        UserError: Two runs are the same, or one cannot be.
        DataError: A dataset cannot be read.
    """
    tasks: dict[str, Task] = {}
    jobs: list[Job] = []
    planned: list[SweptModels | None] = []
    many = len(sweep.dataset) > 1
    if sweep.context:
        settings = settings.model_copy(update={"context": tuple(sweep.context)})
    for run in runs_of(sweep):
        source = run.dataset.source
        key = source.model_dump_json()
        if key not in tasks:
            tasks[key] = open_task(source)
        plan = plan_of(run, tasks[key], settings, sweep.seeds)
        if any(job.plan == plan and models != run.models for job, models in zip(jobs, planned, strict=True)):
            continue
        planned.append(run.models)
        label = f"{plan.dataset.whole_name} {label_of(plan)}" if many else label_of(plan)
        if len(sweep.models) > 1:
            label += f" {plan.models['main']}"
        jobs.append(Job(plan, tasks[key], source, out / run_name(plan), label))
    twice = [j for j in jobs if sum(j.plan == other.plan for other in jobs) > 1]
    if twice:
        raise UserError(f"the sweep has the run {twice[0].label!r} twice")
    return jobs


async def run_sweep(
    jobs: Sequence[Job],
    settings: Settings,
    store: Path,
    *,
    resume: bool,
    concurrency: int,
    watch: Callable[[str], Watcher],
    at_once: int = 1,
    progress: Progress | None = None,
) -> list[list[Row]]:
    """Run the jobs; jobs of the same models, one after the other, share them opened.

    Jobs on one dataset are run in their order, since the samples of one answer the next; several datasets can be asked
    side by side, which fills a model's batches where items are few or a strategy asks one call after the other. A
    finished run is read and not made again when the sweep goes on.

    Args:
        jobs: What is to be run.
        settings: How backends are set up.
        store: The run store of all of them.
        resume: Whether to go on with what the folders hold.
        concurrency: Most items of a dataset under way at a time.
        watch: Gives the watcher of a run that begins, by the run's name and place among all.
        at_once: Most datasets under way at a time.
        progress: Told how far a model's files are.

    Raises:
        ReasonError: As `evaluate`.
    """
    made: dict[Path, list[Row]] = {}
    for several in _groups(jobs, settings.verifiers):
        models = {role: name for job in several for role, name in job.plan.models.items()}
        async with Reasoner(
            parameters=several[0].plan.parameters,
            settings=settings_for(several[0].plan, settings, store).model_copy(update=settings_of_roles(models)),
            progress=progress,
        ) as reasoner:
            sharing, free = Sharing(reasoner, store), asyncio.Semaphore(at_once)

            async def ask(job: Job, sharing: Sharing = sharing) -> None:
                watcher = watch(f"{job.label} ({jobs.index(job) + 1} of {len(jobs)})")
                if resume and (finished := _finished(job)) is not None:
                    watcher.begin(len(finished), finished)
                    made[job.out] = finished
                    return
                made[job.out] = await evaluate(
                    job.plan,
                    job.task,
                    job.source,
                    job.out,
                    settings,
                    label=job.label,
                    resume=resume,
                    concurrency=concurrency,
                    sharing=sharing,
                    watcher=watcher,
                )

            async def ask_all_of(lane: Sequence[Job], free: asyncio.Semaphore = free) -> None:
                async with free:
                    for job in lane:
                        await ask(job)

            await together(map(ask_all_of, _by_dataset(several)))
    return [made[job.out] for job in jobs]


def _by_dataset(jobs: Sequence[Job]) -> list[list[Job]]:
    lanes: dict[str, list[Job]] = {}
    for job in jobs:
        lanes.setdefault(job.plan.dataset.fingerprint, []).append(job)
    return list(lanes.values())


def _groups(jobs: Sequence[Job], verifiers: VerifyParameters) -> list[list[Job]]:
    """Jobs one after the other that can share their models: whoever plays a role is the same for all that ask it."""
    groups: list[list[Job]] = []
    players: dict[str, object] = {}
    for job in jobs:
        plan = job.plan
        wanted: dict[str, object] = {"main": plan.models["main"]}
        for role in asked_roles(plan.strategy, plan.verify, verifiers):
            wanted[role] = jurors_of(plan.models) if role == JURY else plan.models.get(role)
        fits = bool(groups) and groups[-1][0].plan.local == plan.local
        if fits and all(players.get(role, name) == name for role, name in wanted.items()):
            groups[-1].append(job)
            players |= wanted
        else:
            groups.append([job])
            players = wanted
    return groups


def _finished(job: Job) -> list[Row] | None:
    """The rows of a run that is there whole; None if it is not."""
    if not (job.out / MANIFEST).exists():
        return None
    manifest = read_manifest(job.out)
    if not manifest.complete or manifest.plan.digest != job.plan.digest or manifest.plan.limit != job.plan.limit:
        return None
    rows = read_rows(job.out)
    return rows if all(row.error is None for row in rows) else None
