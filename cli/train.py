"""`reason train`: train navigators, routers and entailment models; show what a trained file contains."""

from __future__ import annotations

import asyncio
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, get_args

import typer

from .command import is_default, option_model
from .interrupts import EXIT_INTERRUPTED, run_interruptible
from .options import (
    DATA,
    ENGINE,
    EngineOptions,
    FieldMap,
    FileStore,
    Json,
    Limit,
    MainModel,
    Parameters,
    RewardModel,
    without_none,
)
from .render.console import out, plain_table, say, write_json
from .train_routers import AUTO_EXAMPLES, QUESTION_EXAMPLES, SHADOW_EXAMPLES, auto, question_router, shadow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..core.settings import Settings
    from ..evals.plan import DatasetSource
    from ..evals.task import Task
    from ..evals.training.navigator.plan import NavigatorPlan, NavigatorTrainerConfig, ProblemSplit
    from ..evals.training.navigator.training import NavigatorManifest, TrainedNavigator

LEARNING = "Learning"
RUN = "Training run"
RUNS = Path("training-runs")
NAVIGATOR = "navigator.safetensors"

EXAMPLES = """
[b]Examples[/b]

reason train navigator --data gsm8k -m local/smollm2-135m --episodes 300 --out nav.safetensors
reason train navigator --data gpqa=gpqa.csv --reward prm --reward-model local/DIR --run-dir runs/nav
reason train navigator --resume --run-dir runs/nav
reason train show nav.safetensors
reason eval runs/nav/held_out.jsonl -s rlot --set navigator=nav.safetensors

[b]Exit status[/b]

0 finished, or ended by --max-tokens   1 internal error   2 usage error   3 failure of a model or store
4 --max-tokens was exhausted before the first episode
130 interrupted; the training so far is saved, and the command that resumes is printed
"""

train_app = typer.Typer(
    help="Train navigators for rlot, and routers for auto and question-router.",
    no_args_is_help=True,
)
train_app.command("auto", epilog=AUTO_EXAMPLES)(auto)
train_app.command("shadow", epilog=SHADOW_EXAMPLES)(shadow)
train_app.command("question-router", epilog=QUESTION_EXAMPLES)(question_router)


@dataclass(frozen=True, kw_only=True)
class NavigatorOptions:
    """What decides the result of `reason train navigator`; a resumed training keeps its own."""

    data: Annotated[
        list[str],
        typer.Option(
            metavar="NAME[=FILE]",
            help="Training dataset: its name, optionally with a local file or directory, or a JSONL or CSV file. "
            "Repeatable.",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = field(default_factory=list)
    map: FieldMap = None
    limit: Limit = None
    problems: Annotated[
        str | None,
        typer.Option(
            metavar="hard|all",
            help="Training questions: those that a direct answer gets wrong, or all. (default: hard)",
            rich_help_panel=DATA,
        ),
    ] = None
    holdout: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=0.99,
            metavar="SHARE",
            help="Share of the questions held out from the training. (default: 0.5)",
            rich_help_panel=DATA,
        ),
    ] = None
    model: MainModel = None
    reward: Annotated[
        str | None,
        typer.Option(
            metavar="outcome|prm|potential",
            help="Reward of a block: nothing before the answer, the reward model's score of its step, or the increase "
            "of that score. (default: outcome)",
            rich_help_panel=LEARNING,
        ),
    ] = None
    reward_model: RewardModel = None
    parameters: Parameters = field(default_factory=list)
    parallel: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1024,
            metavar="K",
            help="Number of episodes in flight; affects the result. (default: 8)",
            rich_help_panel=LEARNING,
        ),
    ] = None
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="Seed of weights, exploration and order. (default: 0)", rich_help_panel=LEARNING
        ),
    ] = None
    learning: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=VALUE",
            help="Hyperparameter: lr=0.01, gamma=0.9, batch=64, capacity=500, learning_starts=500, gradient_steps=1, "
            "sync_every=50, eps_decay=0.9995, eps_min=0. Repeatable.",
            show_default=False,
            rich_help_panel=LEARNING,
        ),
    ] = field(default_factory=list)
    lr: Annotated[
        float | None,
        typer.Option(metavar="X", help="Learning rate: --learning lr=X. (default: 0.01)", rich_help_panel=LEARNING),
    ] = None
    gamma: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="Discount factor, short for --learning gamma=X. (default: 0.9)", rich_help_panel=LEARNING
        ),
    ] = None
    validation: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Number of held-out questions in each validation. (default: 32)",
            rich_help_panel=LEARNING,
        ),
    ] = None
    reuse: Annotated[
        str | None,
        typer.Option(
            metavar="run|store",
            help="Stored completions that may replace model calls: of the problem, or of any run. (default: store)",
            rich_help_panel=ENGINE,
        ),
    ] = None
    engine: EngineOptions

    @property
    def hyperparameters(self) -> list[str]:
        """The values of --learning, with --lr and --gamma."""
        short = (("lr", self.lr), ("gamma", self.gamma))
        return [*self.learning, *(f"{name}={value}" for name, value in short if value is not None)]


@dataclass(frozen=True, kw_only=True)
class TrainNavigatorOptions:
    """Options of `reason train navigator`."""

    plan: NavigatorOptions
    episodes: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Number of episodes. (default: 3000)", rich_help_panel=LEARNING),
    ] = None
    validate_every: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Number of episodes between validations; 0 for none. (default: 250)",
            rich_help_panel=LEARNING,
        ),
    ] = None
    max_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Maximum number of generated tokens; an ended training can be resumed with more.",
            rich_help_panel=RUN,
        ),
    ] = None
    checkpoint_every: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Number of episodes between checkpoints. (default: 10)", rich_help_panel=RUN
        ),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File of the navigator. (default: navigator.safetensors in --run-dir)",
            rich_help_panel=RUN,
        ),
    ] = None
    run_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Directory of checkpoints and logs. (default: training-runs/, under a name derived from the settings)",
            rich_help_panel=RUN,
        ),
    ] = None
    resume: Annotated[
        bool, typer.Option("--resume", help="Continuation of the training in --run-dir.", rich_help_panel=RUN)
    ] = False
    as_json: Json = False
    store: FileStore = None


@train_app.command(epilog=EXAMPLES)
@option_model
def navigator(options: TrainNavigatorOptions) -> None:
    """Train a navigator, which chooses the next block in rlot, on one model and its datasets.

    Questions are held out by a digest of their text; DIR/held_out.jsonl contains them, for the evaluation.
    """
    from ..core.errors import ReasonError
    from ..evals.training.navigator.plan import split_problems
    from ..evals.training.navigator.training import train_navigator
    from .render.eval_tables import say_data
    from .render.train_view import TrainView

    prepared = _prepare(options)
    for task in prepared.tasks:
        say_data(task.info)
    split = split_problems(prepared.plan, prepared.tasks)
    say(f"{len(split.train)} training questions, {len(split.held_out)} held out")
    resume = shlex.join(["reason", "train", "navigator", "--resume", "--run-dir", str(prepared.run_dir)])
    view = TrainView()

    async def run() -> TrainedNavigator:
        return await train_navigator(
            prepared.plan,
            prepared.tasks,
            prepared.sources,
            prepared.run_dir,
            prepared.out,
            prepared.settings,
            config=prepared.config,
            resume=options.resume,
            store=prepared.store,
            observer=view,
            progress=view.pulled,
        )

    try:
        with view:
            trained = run_interruptible(run(), on_first=lambda: view.note("stopping"))
    except asyncio.CancelledError:
        say(f"interrupted; the training so far is saved: {resume}")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except ReasonError:
        if view.has_started:  # an error before the first call leaves nothing to resume
            say(f"the training so far is saved: {resume}", label="note", style="cyan")
        raise
    if options.as_json:
        write_json(_record(trained, prepared.run_dir))
    else:
        _print_validations(trained)
    _say_summary(trained, prepared, split, resume)


class _Prepared(NamedTuple):
    plan: NavigatorPlan
    tasks: list[Task]
    sources: list[DatasetSource]
    config: NavigatorTrainerConfig
    settings: Settings
    run_dir: Path
    out: Path
    store: Path | None


def _prepare(options: TrainNavigatorOptions) -> _Prepared:
    """Load the data and make the plan; a resumed training keeps its own.

    Options that decide the result must equal those of the resumed training, or its directory refuses the plan.

    Raises:
        UserError: No dataset and no training is named, or an option is invalid.
        DataError: The data cannot be read, or the directory holds no training.
    """
    from ..core.errors import UserError
    from ..core.settings import load_settings
    from ..evals.task import open_task
    from ..evals.training.navigator.plan import NavigatorTrainerConfig
    from ..evals.training.navigator.training import STORE, read_navigator_manifest
    from .inputs import parse_source

    requested = options.plan
    before: NavigatorManifest | None = None
    if options.resume:
        if options.run_dir is None:
            raise UserError("no training is named", hint="reason train navigator --resume --run-dir DIR")
        before = read_navigator_manifest(options.run_dir)
    if before is not None and is_default(requested):
        plan, sources = before.plan, list(before.sources)
        settings = load_settings(model=plan.model, reward_model=plan.reward_model, reuse=plan.reuse)
        tasks = [open_task(source) for source in sources]
    else:
        settings = load_settings(
            model=requested.model,
            reward_model=requested.reward_model,
            reuse=requested.reuse or "store",
            local=requested.engine.local,
        )
        sources = [parse_source(text, requested.map) for text in requested.data]
        if before is not None and not sources:
            sources = list(before.sources)
        tasks = [open_task(source) for source in sources]
        plan = _plan(requested, tasks, settings)
    name = f"{'+'.join(info.name for info in plan.datasets)}-{plan.model.rpartition('/')[2]}-{plan.reward}"
    run_dir = options.run_dir or RUNS / f"{name}-{plan.digest[:6]}".lower()
    store = options.store
    if before is not None and store is None and before.store != STORE:
        store = Path(before.store)
    config = without_none(
        episodes=options.episodes,
        max_tokens=options.max_tokens,
        checkpoint_every=options.checkpoint_every,
        validate_every=options.validate_every,
    )
    previous = {} if before is None else before.config.model_dump()
    return _Prepared(
        plan=plan,
        tasks=tasks,
        sources=sources,
        config=NavigatorTrainerConfig.model_validate({**previous, **(config or {})}),
        settings=settings,
        run_dir=run_dir,
        out=(options.out or (run_dir / NAVIGATOR if before is None else before.out)).absolute(),
        store=None if store is None else store.absolute(),
    )


def _plan(requested: NavigatorOptions, tasks: Sequence[Task], settings: Settings) -> NavigatorPlan:
    from pydantic import ValidationError

    from ..core.settings import user_error_of
    from ..evals.training.navigator.plan import ProblemFilter, RewardKind, make_navigator_plan
    from ..reasoning.rlot.learner import LearningConfig
    from .inputs import parse_parameters, parse_texts

    fields = without_none(
        problems=_one_of(requested.problems, ProblemFilter, "--problems"),
        holdout=requested.holdout,
        reward=_one_of(requested.reward, RewardKind, "--reward"),
        parallel=requested.parallel,
        validation=requested.validation,
        seed=requested.seed,
        limit=requested.limit,
    )
    try:
        learning = LearningConfig.model_validate(parse_texts(requested.hyperparameters, "--learning"))
    except ValidationError as e:
        raise user_error_of(e, "--learning", LearningConfig.model_fields) from e
    parameters = parse_parameters(requested.parameters)
    return make_navigator_plan(tasks, settings, parameters=parameters, learning=learning, **(fields or {}))


def _one_of(value: str | None, choices: Any, option: str) -> Any:
    from ..core.errors import UserError

    names = get_args(choices)
    if value is not None and value not in names:
        raise UserError(f"{option} must be one of {', '.join(names)}, got {value!r}")
    return value


def _record(trained: TrainedNavigator, run_dir: Path) -> dict[str, Any]:
    return {
        "navigator": str(trained.out),
        "digest": trained.navigator.digest,
        "run_dir": str(run_dir),
        "stopped": trained.stopped,
        "episodes": len(trained.records),
        "problems": trained.problems,
        "held_out": trained.held_out,
        "usage": vars(trained.usage),
        "validations": [validation.model_dump(mode="json") for validation in trained.validations],
        "card": trained.navigator.card.model_dump(mode="json", exclude={"trained_on"}),
    }


def _print_validations(trained: TrainedNavigator) -> None:
    """Print the validations, and the means of the last episodes."""
    table = plain_table("", "episodes", "right", "return", "blocks")
    last = trained.records[-100:]
    if last:
        right = sum(r.correct for r in last) / len(last)
        mean_return, length = sum(r.episode_return for r in last) / len(last), sum(r.length for r in last) / len(last)
        span = f"{last[0].episode} to {last[-1].episode}"
        table.add_row("training, exploring", span, f"{100 * right:.1f}%", f"{mean_return:.3f}", f"{length:.2f}")
    for validation in trained.validations:
        table.add_row(
            "held out, greedy",
            str(validation.episode),
            f"{100 * validation.accuracy:.1f}% of {validation.problems}",
            f"{validation.episode_return:.3f}",
            f"{validation.length:.2f}",
        )
    out().print(table)


def _say_summary(trained: TrainedNavigator, prepared: _Prepared, split: ProblemSplit, resume: str) -> None:
    from ..evals.training.navigator.training import CURVE, HELD_OUT
    from ..reasoning.rlot.attempts import MAX_MISSING_SHARE

    usage = trained.usage
    say(
        f"{usage.tokens:,} tokens generated in {usage.completions:,} completions; {usage.reused_completions:,} "
        f"completions ({usage.reused_tokens:,} tokens) reused from the run store"
    )
    requested = sum(r.scores_requested for r in trained.records)
    missing = sum(r.scores_missing for r in trained.records)
    if requested and missing > MAX_MISSING_SHARE * requested:
        say(
            f"{100 * missing / requested:.1f}% of the self-assessment scores could not be parsed and count as 0: the "
            "navigator had too little information",
            label="warning",
            style="yellow",
        )
    if trained.stopped == "tokens":
        say(
            f"ended by --max-tokens after {len(trained.records)} episodes; resume: {resume} --max-tokens N",
            label="note",
        )
    say(f"the navigator is in {trained.out}, the learning curve in {prepared.run_dir / CURVE}")
    if split.held_out:
        held_out = str(prepared.run_dir / HELD_OUT)
        use = ["reason", "eval", held_out, "-s", "rlot", "--set", f"navigator={trained.out}", "-m", prepared.plan.model]
        say(shlex.join(use))


@dataclass(frozen=True, kw_only=True)
class ShowTrainedOptions:
    """Options of `reason train show`."""

    file: Annotated[
        str, typer.Argument(metavar="FILE", help="File of a navigator, or default for the shipped one; or of a router.")
    ]
    as_json: Json = False


@train_app.command()
@option_model
def show(options: ShowTrainedOptions) -> None:
    """Show a navigator (its card and its choices in common states) or a router (its arms, signals and origin)."""
    from .render.navigator_page import show_navigator
    from .render.router_tables import show_router

    if not show_router(options.file, as_json=options.as_json):
        show_navigator(options.file, as_json=options.as_json)
