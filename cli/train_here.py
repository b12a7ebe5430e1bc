"""One training on the terminal: the data opened and told of, live view while it runs, its result after."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast, get_args

import typer
from pydantic import ValidationError

from ..core.errors import ReasonError, UserError
from ..core.settings import Settings, explain, load_settings
from ..evals.navigator.plan import RewardKind, Schedule, TrainingPlan, Which, make_training_plan
from ..evals.navigator.problems import Halves, halves_of
from ..evals.navigator.training import Trained, train
from ..evals.navigator.work_folder import CURVE, HELD_OUT, STORE, TrainingManifest, read_training
from ..evals.plan import TaskSource
from ..evals.task import Task, open_task
from ..reasoning.rlot.ballot import MISSING
from ..reasoning.rlot.learning.learner import Learning
from . import options
from .eval_inputs import parse_source, parse_texts
from .inputs import parse_parameters
from .interrupts import EXIT_INTERRUPTED, run_interruptible
from .render.console import out as standard_output
from .render.console import plain_table, say, write_json
from .render.eval_tables import say_data
from .render.train_view import TrainView

RUNS = Path("training-runs")
NAVIGATOR = "navigator.safetensors"


@dataclass(frozen=True)
class Asked:
    """What decides a training, as it was said on the command line; None and empty is not said."""

    data: tuple[str, ...] = ()
    map: str | None = None
    limit: int | None = None
    problems: str | None = None
    held_out: float | None = None
    model: str | None = None
    reward: str | None = None
    reward_model: str | None = None
    parameters: tuple[str, ...] = ()
    parallel: int | None = None
    seed: int | None = None
    learning: tuple[str, ...] = ()
    validation: int | None = None
    reuse: str | None = None
    weight_format: str | None = None
    threads: int | None = None

    @property
    def anything(self) -> bool:
        """Whether anything was said."""
        return any(getattr(self, field.name) not in (None, ()) for field in fields(self))


@dataclass(frozen=True)
class Prepared:
    """A training ready to run."""

    plan: TrainingPlan
    tasks: list[Task]
    sources: list[TaskSource]
    schedule: Schedule
    settings: Settings
    work: Path
    out: Path
    store: Path | None


def train_here(
    asked: Asked,
    *,
    schedule: Mapping[str, Any],
    out: Path | None,
    work: Path | None,
    resume: bool,
    store: Path | None,
    as_json: bool,
) -> None:
    """Train a navigator and print what came of it.

    Args:
        asked: What decides it.
        schedule: Fields of its `Schedule` that were said.
        out: The navigator's file.
        work: Its folder.
        resume: Whether to go on with what the folder holds.
        store: The run store.
        as_json: Whether to print one JSON object.

    Raises:
        typer.Exit: It was interrupted.
        ReasonError: It cannot be run, or ended early; what there is is saved.
    """
    ready = prepare(asked, schedule=schedule, out=out, work=work, resume=resume, store=store)
    for task in ready.tasks:
        say_data(task.use)
    halves = halves_of(ready.plan, ready.tasks)
    say(f"{len(halves.training)} questions to train on, {len(halves.held_out)} held out")
    again = shlex.join(["reason", "train", "navigator", "--resume", "--work", str(ready.work)])
    view = TrainView()
    try:
        with view:
            trained = run_interruptible(_work(ready, resume, view), on_first=lambda: view.note("stopping"))
    except asyncio.CancelledError:
        say(f"interrupted; what there is is saved: {again}")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except ReasonError:
        if view.begun:  # what is refused before has done nothing
            say(f"what was done is saved: {again}", label="note", style="cyan")
        raise
    if as_json:
        write_json(as_object(trained, ready.work))
    else:
        show(trained)
    _say_rest(trained, ready, halves, again)


def prepare(
    asked: Asked,
    *,
    schedule: Mapping[str, Any],
    out: Path | None,
    work: Path | None,
    resume: bool,
    store: Path | None,
) -> Prepared:
    """Open the data and decide the plan; of a training that goes on, what it had decided.

    What else is said when a training goes on must be what it began with: another plan is refused by its folder.

    Raises:
        UserError: There is no dataset and no training, or what is said cannot be.
        DataError: The data cannot be read, or the folder holds no training.
    """
    before: TrainingManifest | None = None
    if resume:
        if work is None:
            raise UserError("no training is named", hint="reason train navigator --resume --work DIR")
        before = read_training(work)
    if before is not None and not asked.anything:
        plan, sources = before.plan, list(before.sources)
        settings = load_settings(model=plan.model, reward_model=plan.reward_model, reuse=plan.reuse)
        tasks = [open_task(source) for source in sources]
    else:
        settings = load_settings(
            model=asked.model,
            reward_model=asked.reward_model,
            reuse=asked.reuse or "store",
            local=options.given(weight_format=asked.weight_format, threads=asked.threads),
        )
        given = [parse_source(text, asked.map) for text in asked.data]
        sources = list(before.sources) if before is not None and not given else given
        tasks = [open_task(source) for source in sources]
        plan = _plan(asked, tasks, settings)
    folder = work or RUNS / _name(plan)
    place = store
    if before is not None and store is None and before.store != STORE:
        place = Path(before.store)
    return Prepared(
        plan=plan,
        tasks=tasks,
        sources=sources,
        schedule=_schedule(schedule, before),
        settings=settings,
        work=folder,
        out=(out or (folder / NAVIGATOR if before is None else before.out)).absolute(),
        store=None if place is None else place.absolute(),
    )


def as_object(trained: Trained, work: Path) -> dict[str, Any]:
    """What came of a training, for JSON."""
    return {
        "navigator": str(trained.out),
        "digest": trained.navigator.digest,
        "work": str(work),
        "stopped": trained.stopped,
        "episodes": len(trained.records),
        "problems": trained.problems,
        "held_out": trained.held_out,
        "spent": vars(trained.spent),
        "validations": [found.model_dump(mode="json") for found in trained.validations],
        "card": trained.navigator.card.model_dump(mode="json", exclude={"trained_on"}),
    }


def show(trained: Trained) -> None:
    """Print the validations of a training, and the means of its last episodes."""
    table = plain_table("", "episodes", "right", "return", "blocks")
    last = trained.records[-100:]
    if last:
        right = sum(r.correct for r in last) / len(last)
        earned, length = sum(r.earned for r in last) / len(last), sum(r.length for r in last) / len(last)
        span = f"{last[0].episode} to {last[-1].episode}"
        table.add_row("training, exploring", span, f"{100 * right:.1f}%", f"{earned:.3f}", f"{length:.2f}")
    for found in trained.validations:
        table.add_row(
            "held out, greedy",
            str(found.episode),
            f"{100 * found.accuracy:.1f}% of {found.problems}",
            f"{found.earned:.3f}",
            f"{found.length:.2f}",
        )
    standard_output().print(table)


def _say_rest(trained: Trained, ready: Prepared, halves: Halves, again: str) -> None:
    spent = trained.spent
    say(
        f"{spent.tokens:,} tokens generated in {spent.replies:,} replies; {spent.reused_replies:,} replies "
        f"({spent.reused_tokens:,} tokens) found in the run store"
    )
    asked = sum(r.scores_asked for r in trained.records)
    missing = sum(r.scores_missing for r in trained.records)
    if asked and missing > MISSING * asked:
        say(
            f"{100 * missing / asked:.1f}% of the self-assessments' scores could not be read and count as 0: the "
            "navigator saw too little",
            label="warning",
            style="yellow",
        )
    if trained.stopped == "tokens":
        say(f"ended by --tokens after {len(trained.records)} episodes; go on: {again} --tokens N", label="note")
    say(f"the navigator is in {trained.out}, the learning curve in {ready.work / CURVE}")
    use = ["reason", "eval", str(ready.work / HELD_OUT), "-s", "rlot", "--set", f"navigator={trained.out}"]
    if halves.held_out:
        say(shlex.join([*use, "-m", ready.plan.model]))


def _plan(asked: Asked, tasks: Sequence[Task], settings: Settings) -> TrainingPlan:
    told: dict[str, Any] = (
        options.given(
            problems=_one_of(asked.problems, Which, "--problems"),
            held_out=asked.held_out,
            reward=_one_of(asked.reward, RewardKind, "--reward"),
            parallel=asked.parallel,
            validation=asked.validation,
            seed=asked.seed,
            limit=asked.limit,
        )
        or {}
    )
    return make_training_plan(
        tasks,
        settings,
        parameters=parse_parameters(asked.parameters),
        learning=_learning(asked.learning),
        **told,
    )


def _learning(given: Sequence[str]) -> Learning:
    """The numbers of the learning.

    Raises:
        UserError: One is unknown, said twice or not allowed.
    """
    try:
        return Learning.model_validate(parse_texts(given, "--learning"))
    except ValidationError as e:
        raise explain(e, "--learning", Learning.model_fields) from e


def _schedule(said: Mapping[str, Any], before: TrainingManifest | None) -> Schedule:
    """The schedule; where a training goes on, the one before but for what is said."""
    kept = {} if before is None else before.schedule.model_dump()
    return Schedule.model_validate({**kept, **said})


def _name(plan: TrainingPlan) -> str:
    data = "+".join(use.name for use in plan.datasets)
    return f"{data}-{plan.model.rpartition('/')[2]}-{plan.reward}-{plan.digest[:6]}".lower()


def _one_of(given: str | None, choices: Any, flag: str) -> Any:
    names = get_args(choices)
    if given is not None and given not in names:
        raise UserError(f"{flag} {given!r} is none of {', '.join(names)}")
    return cast("Any", given)


async def _work(ready: Prepared, resume: bool, view: TrainView) -> Trained:
    return await train(
        ready.plan,
        ready.tasks,
        ready.sources,
        ready.work,
        ready.out,
        ready.settings,
        schedule=ready.schedule,
        resume=resume,
        store=ready.store,
        watcher=view,
        progress=view.pulled,
    )
