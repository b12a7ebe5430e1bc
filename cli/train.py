"""`reason train`: train navigators for `rlot` and routers for `auto` and `glimprouter`; show a trained file."""

from __future__ import annotations

import asyncio
import math
import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .command import option_model
from .interrupts import EXIT_INTERRUPTED, run_interruptible
from .options import (
    DATA,
    FieldMap,
    Json,
    Limit,
    MainModel,
    Parameters,
    RewardModel,
    SmallModel,
    Store,
)
from .render.console import out, plain_table, print_facts, say, write_json

if TYPE_CHECKING:
    from ..core.settings import LocalSettings
    from ..evals.training.navigator import EpisodeRecord, TrainedNavigator, TrainingPlan, ValidationResult
    from ..evals.training.routers.arm_table import ArmTable
    from ..evals.training.routers.fitting import QuestionSignals
    from ..evals.training.routers.glimprouter import PooledEntropies
    from ..routers.router_files import GlimpRouterFile

LEARNING = "Learning"
RUN = "Training run"

EXAMPLES = """
[b]Examples[/b]

reason train navigator --data gsm8k -m local/smollm2-135m --episodes 300 --out nav.safetensors
reason train navigator --data gpqa=gpqa.csv --reward prm --reward-model local/DIR --run-dir runs/nav
reason train show nav.safetensors
reason eval runs/nav/held_out.jsonl -s rlot --set navigator=nav.safetensors

An interrupted training continues when the same command is run again.

[b]Exit status[/b]

0 finished, or ended by --max-tokens   1 internal error   2 usage error   3 failure of a model or store
4 --max-tokens was exhausted before the first episode
130 interrupted
"""

AUTO_EXAMPLES = """
[b]Examples[/b]

reason eval sweep sweep.toml --out runs/gsm8k
reason train auto runs/gsm8k/*/ --price 0.1
reason train auto runs/cot runs/votes --holdout 0.3 --no-entropy --out auto.json
reason ask "…" -s auto

[b]Exit status[/b]

0 finished   1 internal error   2 usage error, or the runs allow no router   3 failure of a model or store
130 interrupted; the signals so far are in the run store, and the same command continues
"""

GLIMPROUTER_EXAMPLES = """
[b]Examples[/b]

reason eval gsm8k --limit 50 -s glimprouter --set threshold=100 --set answer=writer -m LARGE \\
  --small-model SMALL --out runs/dev
reason train glimprouter runs/dev --rate 0.3 --out pair.json
reason ask "…" -s glimprouter --set router=pair.json -m LARGE --small-model SMALL

[b]Exit status[/b]

0 finished   1 internal error   2 usage error   3 failure of a store
"""

MAX_RATE_ERROR = 0.02
"""Difference between the requested and the measured rate above which a warning is printed."""

train_app = typer.Typer(
    help="Train navigators for rlot and routers for auto and glimprouter.",
    no_args_is_help=True,
)


@dataclass(frozen=True, kw_only=True)
class TrainNavigatorOptions:
    """Options of `reason train navigator`."""

    data: Annotated[
        list[str],
        typer.Option(
            metavar="NAME[=FILE]",
            help="Train on this dataset: its name, optionally with a local file or directory, or a JSONL or CSV file. "
            "Repeatable.",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = field(default_factory=list)
    map: FieldMap = None
    limit: Limit = None
    problems: Annotated[
        Literal["hard", "all"],
        typer.Option(help="Train on the questions that a direct answer gets wrong, or on all.", rich_help_panel=DATA),
    ] = "hard"
    holdout: Annotated[
        float,
        typer.Option(
            metavar="SHARE", help="Hold this share of the questions out of the training.", rich_help_panel=DATA
        ),
    ] = 0.5
    model: MainModel = None
    reward: Annotated[
        Literal["outcome", "prm", "potential"],
        typer.Option(
            help="Reward a block with nothing before the answer, the reward model's score of its step, or the increase "
            "of that score.",
            rich_help_panel=LEARNING,
        ),
    ] = "outcome"
    reward_model: RewardModel = None
    parameters: Parameters = field(default_factory=list)
    episodes: Annotated[int, typer.Option(metavar="N", help="Run this many episodes.", rich_help_panel=LEARNING)] = 3000
    parallel: Annotated[
        int,
        typer.Option(
            metavar="K", help="Run this many episodes at a time; affects the result.", rich_help_panel=LEARNING
        ),
    ] = 8
    seed: Annotated[
        int, typer.Option(metavar="N", help="Seed weights, exploration and order.", rich_help_panel=LEARNING)
    ] = 0
    learning: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=VALUE",
            help="Set a hyperparameter: lr=0.01, gamma=0.9, batch=64, capacity=500, learning_starts=500, "
            "gradient_steps=1, sync_every=50, eps_decay=0.9995, eps_min=0. Repeatable.",
            show_default=False,
            rich_help_panel=LEARNING,
        ),
    ] = field(default_factory=list)
    validation: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Validate on this many held-out questions, every 250 episodes; 0 for none.",
            rich_help_panel=LEARNING,
        ),
    ] = 32
    max_tokens: Annotated[
        int | None,
        typer.Option(metavar="N", help="Stop once this many tokens are generated.", rich_help_panel=RUN),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the navigator to this file. (default: navigator.safetensors in --run-dir)",
            rich_help_panel=RUN,
        ),
    ] = None
    run_dir: Annotated[
        Path, typer.Option(metavar="DIR", help="Keep completions and logs in this directory.", rich_help_panel=RUN)
    ] = Path("navigator-training")
    as_json: Json = False


@train_app.command(epilog=EXAMPLES)
@option_model
def navigator(options: TrainNavigatorOptions) -> None:
    """Train a navigator, which chooses the next block in rlot, on one model and its datasets.

    Questions are held out by a digest of their text; DIR/held_out.jsonl contains them, for the evaluation.
    """
    from ..core.errors import UserError
    from ..core.settings import load_settings
    from ..evals.datasets.loading import open_dataset, parse_source
    from ..evals.training.navigator import HELD_OUT, ValidationResult, split_problems, train_navigator
    from .render.evaluations import say_data
    from .render.status import CountView

    if not options.data:
        raise UserError("no dataset to train on is named", hint="name one with --data, for example --data gsm8k")
    plan = _plan(options)
    settings = load_settings(model=options.model, reward_model=options.reward_model)
    datasets = [open_dataset(parse_source(text, options.map)) for text in options.data]
    for dataset in datasets:
        say_data(dataset)
    train, held_out = split_problems(datasets, plan)
    say(f"{len(train)} training questions, {len(held_out)} held out")
    out_file = options.out or options.run_dir / "navigator.safetensors"
    view = CountView("reason train navigator", "episode")

    def on_progress(result: EpisodeRecord | ValidationResult) -> None:
        if isinstance(result, ValidationResult):
            say(
                f"after {result.episode} episodes: {result.correct} of {result.problems} held-out answers right, "
                f"{result.length:.2f} blocks each"
            )
        else:
            view.count(result.episode, plan.episodes)

    work = train_navigator(plan, datasets, settings, options.run_dir, out_file, on_progress=on_progress)
    try:
        with view:
            trained = run_interruptible(work, on_first=lambda: view.note("stopping"))
    except asyncio.CancelledError:
        say("interrupted; run the same command again to continue")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if options.as_json:
        write_json(
            {
                "navigator": str(out_file.absolute()),
                "digest": trained.navigator.digest,
                "episodes": len(trained.records),
                "problems": trained.num_problems,
                "held_out": trained.num_held_out,
                "complete": trained.is_complete,
                "usage": vars(trained.usage),
                "validations": [validation.model_dump(mode="json") for validation in trained.validations],
                "card": trained.navigator.card.model_dump(mode="json", exclude={"trained_on"}),
            }
        )
    else:
        _print_validations(trained)
    _say_summary(trained)
    say(f"the navigator is in {out_file}")
    if held_out:
        use = ["reason", "eval", str(options.run_dir / HELD_OUT), "-s", "rlot"]
        say(shlex.join([*use, "--set", f"navigator={out_file}", "-m", settings.model]))


def _plan(options: TrainNavigatorOptions) -> TrainingPlan:
    from pydantic import ValidationError

    from ..core.settings import user_error_of
    from ..evals.training.navigator import TrainingPlan
    from .inputs import parse_parameters, parse_texts

    names = ("episodes", "problems", "limit", "holdout", "reward", "parallel", "validation", "max_tokens", "seed")
    values = {name: getattr(options, name) for name in names}
    learning = parse_texts(options.learning, "--learning")
    try:
        return TrainingPlan.model_validate(
            {**values, "learning": learning, "parameters": parse_parameters(options.parameters)}
        )
    except ValidationError as e:
        raise user_error_of(e, "option", TrainingPlan.model_fields) from e


def _print_validations(trained: TrainedNavigator) -> None:
    """Print the validations, and the means of the last episodes."""
    table = plain_table("", "episodes", "right", "return", "blocks")
    last = trained.records[-100:]
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


def _say_summary(trained: TrainedNavigator) -> None:
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
    if not trained.is_complete:
        say(f"ended by --max-tokens after {len(trained.records)} episodes; run it again to continue", label="note")


@dataclass(frozen=True, kw_only=True)
class TrainAutoOptions:
    """Options of `reason train auto`."""

    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Directories of runs of the same questions.")]
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the router to this file. (default: that of the main model, which auto finds)"
        ),
    ] = None
    price: Annotated[
        float,
        typer.Option(
            min=0,
            max=1000,
            metavar="X",
            help="Price 1000 generated tokens at this probability of a right answer.",
            rich_help_panel=LEARNING,
        ),
    ] = 0.05
    small_cost: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="X",
            help="Weigh a token of the small model by this, relative to one of the main model.",
            rich_help_panel=LEARNING,
        ),
    ] = 1.0
    holdout: Annotated[
        float,
        typer.Option(
            min=0,
            max=0.9,
            metavar="SHARE",
            help="Hold out this share of the questions, and report it separately.",
            rich_help_panel=LEARNING,
        ),
    ] = 0.0
    no_entropy: Annotated[
        bool,
        typer.Option(
            "--no-entropy",
            help="Leave out the first-token entropy, in training and in routing; load no model.",
            rich_help_panel=LEARNING,
        ),
    ] = False
    model: MainModel = None
    small_model: SmallModel = None
    as_json: Json = False
    store: Store = None


@train_app.command(epilog=AUTO_EXAMPLES)
@option_model
def auto(options: TrainAutoOptions) -> None:
    """Train the router of auto, which chooses model, effort, strategy and samples for a question.

    An action is a strategy with its parameters, its effort and its model. Evaluation runs of different actions must
    share at least 40 questions. The value of routing is estimated by cross-validation, next to each action at equal
    average tokens.
    """
    from ..core.files import check_writable
    from ..evals.run_directory import load_runs
    from ..evals.training.routers.arm_table import arm_table
    from ..evals.training.routers.auto import train_auto
    from ..routers.router_files import router_path, save_router_file
    from .render.trained_files import print_auto

    if options.out is not None:
        check_writable(options.out)
    runs = load_runs(options.runs)
    for run in runs:
        if not run.manifest.complete:
            say(f"the run in {run.path} is not finished", label="warning", style="yellow")
    table = arm_table(runs, main=options.model, small=options.small_model, small_cost=options.small_cost)
    main = table.models["main"]
    out = options.out or router_path(main)
    check_writable(out)
    local = next(run.manifest.plan.local for run in runs if run.manifest.plan.models["main"] == main)
    gathered = _gather(options, local, table)
    trained = train_auto(table, gathered, price=options.price, holdout=options.holdout)
    save_router_file(trained.file, out)
    if options.as_json:
        values = {"crossed": trained.crossed, "held": trained.held}
        write_json(
            {
                "file": str(out),
                "digest": trained.file.digest,
                "arms": [arm.label for arm in trained.file.arms],
                **{name: None if value is None else asdict(value) for name, value in values.items()},
                "questions_left_out": table.left_out,
            }
        )
    else:
        print_auto(trained)
    questions = len(trained.file.trained.digests)
    say(f"{questions} questions of {', '.join(table.datasets)}, {len(runs)} runs", label="note", style="cyan")
    if table.left_out:
        say(f"{table.left_out} questions that an arm lacks are left out", label="note", style="cyan")
    if gathered.missing:
        say(f"the questions have no embedding: {gathered.missing}", label="warning", style="yellow")
    if all(arm.right.constant for arm in trained.file.arms):
        say(
            "no signal predicts which questions an arm answers correctly: every question gets the same arm",
            label="warning",
            style="yellow",
        )
    models = ["-m", main, *(["--small-model", table.models["small"]] if "small" in table.models else [])]
    router = [] if options.out is None else ["--set", f"router={out}"]
    say(f"the router is in {out}; {shlex.join(['reason', 'ask', 'QUESTION', '-s', 'auto', *router, *models])}")


def _gather(options: TrainAutoOptions, recorded: LocalSettings, table: ArmTable) -> QuestionSignals:
    """Compute the signals of the questions with the main model, under the engine settings of its runs."""
    from ..core.settings import load_settings
    from ..evals.training.routers.fitting import compute_signals
    from .render.status import CountView

    model = table.models["main"]
    settings = load_settings(model=model, store=options.store)
    settings = settings.model_copy(update={"local": recorded})
    view = CountView("signals of the questions", "question")
    work = compute_signals(
        table.questions,
        settings,
        model=None if options.no_entropy else model,
        identity=table.engines["main"],
        watch=view.count,
        progress=view.pulled,
    )
    try:
        with view:
            return run_interruptible(work, on_first=lambda: view.note("stopping"))
    except asyncio.CancelledError:
        say("interrupted; the signals so far are in the run store, and the same command continues")
        raise typer.Exit(EXIT_INTERRUPTED) from None


@dataclass(frozen=True, kw_only=True)
class TrainGlimpRouterOptions:
    """Options of `reason train glimprouter`."""

    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="Directory of an evaluation of glimprouter on other data than the router is evaluated on; with "
            "[b]--set threshold=100 --set answer=writer[/b] the small model writes everything.",
        ),
    ]
    out: Annotated[Path, typer.Option(metavar="FILE", help="Write the router to this file.")]
    rate: Annotated[
        float,
        typer.Option(min=0, max=1, metavar="SHARE", help="Route this share of the steps to the large model."),
    ] = 0.25
    as_json: Json = False


@train_app.command(epilog=GLIMPROUTER_EXAMPLES)
@option_model
def glimprouter(options: TrainGlimpRouterOptions) -> None:
    """Find the entropy above which glimprouter routes a step to the large model, for a given share of steps.

    The entropies of the first tokens of the run's steps are pooled. The file is valid for this pair of models and this
    kind of entropy; it has the thresholds of other rates, too.
    """
    from ..core.errors import UserError
    from ..core.files import check_writable
    from ..evals.run_directory import load_run, read_solution_notes, run_store_path
    from ..evals.training.routers.glimprouter import fit_router, save_router
    from ..routers.router_files import scale

    if options.rate == 0:
        raise UserError("--rate 0 routes no step to the large model", hint="--set policy=small needs no router")
    check_writable(options.out)
    run = load_run(options.run)
    if not run.manifest.complete:
        say(f"the run is not finished: {len(run.rows)} rows so far", label="warning", style="yellow")
    notes = run_interruptible(read_solution_notes(run.rows, run_store_path(run)))
    fitted, pooled = fit_router(run.manifest.plan, run.rows, notes, options.rate)
    save_router(fitted, options.out)
    fitted = fitted.model_copy(update={"name": options.out.stem})
    if options.as_json:
        write_json(
            {
                "file": str(options.out),
                "digest": fitted.digest,
                "rows_without_entropies": pooled.without,
                "steps_by_large_model": pooled.by_large,
                "router": fitted.model_dump(mode="json"),
            }
        )
    else:
        q = fitted.quantiles
        facts = {
            "threshold": f"{fitted.threshold:.4f} nats, routes {100 * fitted.measured_rate:.1f}% of these steps",
            "entropies": f"{scale(fitted.entropy, fitted.k)} entropies of {fitted.steps:,} steps of {fitted.questions} "
            f"questions of {fitted.dataset}",
            "quantiles": f"minimum {q[0]:.3f}, quartiles {q[25]:.3f} {q[50]:.3f} {q[75]:.3f}, maximum {q[-1]:.3f}",
        }
        print_facts(facts)
    _say_calibration_warnings(fitted, pooled)
    use = ["reason", "ask", "QUESTION", "-s", "glimprouter", "--set", f"router={options.out}"]
    models = ["-m", fitted.large, "--small-model", fitted.small]
    say(f"the router is in {options.out}; {shlex.join([*use, *models])}")


def _say_calibration_warnings(fitted: GlimpRouterFile, pooled: PooledEntropies) -> None:
    from ..evals.training.routers.glimprouter import MIN_RELIABLE_STEPS

    if pooled.without:
        say(f"{pooled.without} rows have no entropies and are left out", label="note", style="cyan")
    if pooled.by_large:
        say(
            f"{pooled.by_large} of {fitted.steps} steps were generated by the large model, so the entropies are not "
            "those of the small model only",
            label="note",
            style="cyan",
        )
    if fitted.steps < MIN_RELIABLE_STEPS:
        error = 100 * math.sqrt(fitted.rate * (1 - fitted.rate) / fitted.steps)
        say(
            f"{fitted.steps} steps are few: the rate on other problems may be {error:.0f} points off even if steps are "
            "independent; use more items",
            label="warning",
            style="yellow",
        )
    if abs(fitted.measured_rate - fitted.rate) > MAX_RATE_ERROR:
        say(
            f"the threshold routes {100 * fitted.measured_rate:.1f}% of these steps instead of "
            f"{100 * fitted.rate:.1f}%: many steps have the same entropy",
            label="warning",
            style="yellow",
        )


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
    """Show a navigator (its card and its choices in typical states) or a router (its arms, signals and origin)."""
    from .render.trained_files import show_navigator, show_router

    if not show_router(options.file, as_json=options.as_json):
        show_navigator(options.file, as_json=options.as_json)
