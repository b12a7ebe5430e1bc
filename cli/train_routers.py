"""`reason train auto`, `question-router` and `shadow`: routers of questions, from runs."""

from __future__ import annotations

import asyncio
import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .command import option_model
from .interrupts import EXIT_INTERRUPTED, run_interruptible
from .options import DATA, Json, MainModel, SmallModel, Store
from .render.console import say, write_json

if TYPE_CHECKING:
    from ..core.settings import LocalSettings
    from ..evals.run_directory import StoredRun
    from ..evals.training.routers.arm_table import ArmTable
    from ..evals.training.routers.fitting import QuestionSignals
    from ..evals.training.routers.stored_runs import LoggedRun

LEARNING = "Learning"

AUTO_EXAMPLES = """
[b]Examples[/b]

reason eval sweep sweep.toml --out runs/gsm8k
reason train auto runs/gsm8k/*/ --price 0.1
reason train auto runs/cot runs/votes --holdout 0.3 --no-entropy --out auto.json
reason train auto --from-store --data gsm8k
reason ask "…" -s auto

[b]Exit status[/b]

0 finished   1 internal error   2 usage error, or the runs allow no router   3 failure of a model or store
130 interrupted; the signals so far are in the run store, and the same command continues
"""

SHADOW_EXAMPLES = """
[b]Examples[/b]

reason ask "…" -s self-consistency --shadow
reason train shadow
reason train shadow --data gsm8k --json
"""

QUESTION_EXAMPLES = """
[b]Examples[/b]

reason eval gsm8k -s cot -m SMALL --out runs/small
reason eval gsm8k -s cot -m LARGE --out runs/large
reason train question-router runs/small runs/large --rate 0.3 --out router.json
reason ask "…" -s question-router --set router=router.json -m LARGE --small-model SMALL

[b]Exit status[/b]

0 finished   1 internal error   2 usage error, or the runs allow no router   3 failure of a model or store
130 interrupted; the signals so far are in the run store, and the same command continues
"""


GradingData = Annotated[
    list[str],
    typer.Option(
        "--data",
        metavar="NAME[=FILE]",
        help="Dataset that grades the answers to its questions, as in [b]reason eval[/b]. Repeatable.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]


@dataclass(frozen=True, kw_only=True)
class RouterTrainingOptions:
    """Options of both router trainings."""

    holdout: Annotated[
        float,
        typer.Option(
            min=0,
            max=0.9,
            metavar="SHARE",
            help="Share of the questions held out, by a digest of their text, and reported separately.",
            rich_help_panel=LEARNING,
        ),
    ] = 0.0
    folds: Annotated[
        int, typer.Option(min=2, max=20, metavar="N", help="Cross-validation folds.", rich_help_panel=LEARNING)
    ] = 5
    no_entropy: Annotated[
        bool,
        typer.Option(
            "--no-entropy",
            help="No first-token entropy, neither in training nor in routing; no model is loaded.",
            rich_help_panel=LEARNING,
        ),
    ] = False
    as_json: Json = False
    store: Store = None


@dataclass(frozen=True, kw_only=True)
class TrainAutoOptions:
    """Options of `reason train auto`."""

    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN...]", help="Directories of evaluation runs of the same questions."),
    ] = None
    from_store: Annotated[
        bool,
        typer.Option(
            "--from-store", help="The labelled runs of the run store instead of evaluation runs.", rich_help_panel=DATA
        ),
    ] = False
    data: GradingData = field(default_factory=list)
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File of the router. (default: that of the main model, which auto uses by itself)"
        ),
    ] = None
    training: RouterTrainingOptions
    price: Annotated[
        float,
        typer.Option(
            min=0,
            max=1000,
            metavar="X",
            help="Price of 1000 generated tokens, in probability of a right answer.",
            rich_help_panel=LEARNING,
        ),
    ] = 0.05
    small_cost: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="X",
            help="Cost of a token of the small model, relative to one of the main model.",
            rich_help_panel=LEARNING,
        ),
    ] = 1.0
    model: MainModel = None
    small_model: SmallModel = None


@option_model
def auto(options: TrainAutoOptions) -> None:
    """Train the router of auto, which chooses model, effort, strategy and samples for a question.

    An action is a strategy with its parameters, its effort and its model. Evaluation runs of different actions must
    share at least 40 questions; of the run store, each action needs 40 labelled ones. The value of routing is
    estimated by cross-validation, next to each action at equal average tokens and to what the runs did.
    """
    from ..core.errors import UserError
    from ..evals.training.routers.auto import train_auto
    from ..routers.router_files import router_path, save_router_file
    from .render.router_tables import print_auto

    training = options.training
    if bool(options.runs) == options.from_store:
        raise UserError(
            "--from-store and evaluation runs are both given" if options.runs else "no runs are given",
            hint="reason train auto RUN RUN…, or reason train auto --from-store",
        )
    if options.data and not options.from_store:
        raise UserError("--data grades the runs of the run store", hint="add --from-store; evaluation runs are graded")
    if options.out is not None:
        _check_writable(options.out)
    source = _stored(options) if options.from_store else _evaluated(options)
    table = source.table
    out = options.out or router_path(table.models["main"])
    _check_writable(out)
    gathered = _gather(training, source.local, table, "main")
    trained = train_auto(table, gathered, price=options.price, holdout=training.holdout, folds=training.folds)
    save_router_file(trained.file, out)
    if training.as_json:
        values = {name: getattr(trained, name) for name in ("logged", "crossed", "held")}
        write_json(
            {
                "file": str(out),
                "digest": trained.file.digest,
                "arms": [arm.label for arm in trained.file.arms],
                **{name: None if value is None else dataclasses.asdict(value) for name, value in values.items()},
                "questions_left_out": table.left_out,
                "labels": source.labels,
                "runs_left_out": source.left_out,
            }
        )
    else:
        print_auto(trained)
    _say_notes(source.num_runs, table, gathered, len(trained.file.trained.digests))
    for label, count in source.labels.items():
        say(f"{count} runs are {label}", label="note", style="cyan")
    for why, count in source.left_out.items():
        say(f"{count} runs are left out: {why}", label="note", style="cyan")
    if all(arm.right.constant for arm in trained.file.arms):
        say(
            "no signal predicts which questions an arm answers correctly: every question gets the same arm",
            label="warning",
            style="yellow",
        )
    models = ["-m", table.models["main"]]
    models += ["--small-model", table.models["small"]] if "small" in table.models else []
    router = [] if options.out is None else ["--set", f"router={out}"]
    say(f"the router is in {out}; {shlex.join(['reason', 'ask', 'QUESTION', '-s', 'auto', *router, *models])}")


@dataclass(frozen=True)
class _Source:
    """The runs that a router is trained on.

    Attributes:
        local: The embedded engine's settings of the main model's runs.
        labels: Stored runs by the source of their label.
        left_out: Stored runs by the reason why they are left out.
    """

    table: ArmTable
    local: LocalSettings
    num_runs: int
    labels: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)


def _evaluated(options: TrainAutoOptions) -> _Source:
    from ..evals.training.routers.arm_table import arm_table

    runs = _load_runs(options.runs or [])
    table = arm_table(runs, main=options.model, small=options.small_model, small_cost=options.small_cost)
    return _Source(table, _local(runs, table.models["main"]), len(runs))


def _stored(options: TrainAutoOptions) -> _Source:
    from ..evals.training.routers.stored_runs import stored_table

    runs = _read_store(options.data, options.training.store)
    found = stored_table(runs, main=options.model, small=options.small_model, small_cost=options.small_cost)
    main = found.table.models["main"]
    local = next(run.config.local for run in runs if run.config.models["main"] == main)
    labels = {str(label): count for label, count in found.labels.items()}
    return _Source(found.table, local, sum(labels.values()), labels, found.left_out)


def _read_store(data: Sequence[str], store: Path | str | None) -> list[LoggedRun]:
    from ..core.settings import load_settings
    from ..core.store import open_store
    from ..evals.task import open_task
    from ..evals.training.routers.stored_runs import read_runs
    from .inputs import parse_source

    tasks = [open_task(parse_source(text)) for text in data]

    async def read() -> list[LoggedRun]:
        opened = await open_store(load_settings(store=store).store)
        try:
            return await read_runs(opened, tasks)
        finally:
            await opened.aclose()

    return asyncio.run(read())


@dataclass(frozen=True, kw_only=True)
class ShadowOptions:
    """Options of `reason train shadow`."""

    data: GradingData = field(default_factory=list)
    as_json: Json = False
    store: Store = None


@option_model
def shadow(options: ShadowOptions) -> None:
    """Compare what auto would have chosen, as --shadow recorded it, with what was done.

    Tokens and scores of a choice that was not followed are the router's expectations.
    """
    from ..evals.training.routers.stored_runs import shadow_report
    from .render.router_tables import print_shadow

    report = shadow_report(_read_store(options.data, options.store))
    if options.as_json:
        write_json(dataclasses.asdict(report))
    else:
        print_shadow(report)


@dataclass(frozen=True, kw_only=True)
class TrainQuestionRouterOptions:
    """Options of `reason train question-router`."""

    small_run: Annotated[Path, typer.Argument(metavar="SMALL_RUN", help="Directory of a run of the small model.")]
    large_run: Annotated[
        Path, typer.Argument(metavar="LARGE_RUN", help="Directory of a run with the large model as main model.")
    ]
    out: Annotated[Path, typer.Option(metavar="FILE", help="File of the router.")]
    training: RouterTrainingOptions
    rate: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="X",
            help="Share of the questions routed to the large model.",
            rich_help_panel=LEARNING,
        ),
    ] = 0.3


@option_model
def question_router(options: TrainQuestionRouterOptions) -> None:
    """Train the router of question-router, which chooses the questions that need the large model.

    The value of routing is estimated by cross-validation, next to routing as many questions at random.
    """
    from ..core.errors import UserError
    from ..evals.training.routers.arm_table import arm_table
    from ..evals.training.routers.question_router import train_question_router
    from ..routers.router_files import save_router_file
    from .render.router_tables import print_question

    training = options.training
    _check_writable(options.out)
    runs = _load_runs([options.small_run, options.large_run])
    small, large = (run.manifest.plan.models["main"] for run in runs)
    if small == large:
        raise UserError(
            f"both runs use the model {small}", hint="reason train question-router SMALL_RUN LARGE_RUN --out FILE"
        )
    table = arm_table(runs, main=large, small=small)
    gathered = _gather(training, _local(runs, small), table, "small")
    trained = train_question_router(table, gathered, rate=options.rate, holdout=training.holdout, folds=training.folds)
    save_router_file(trained.file, options.out)
    file = trained.file
    if training.as_json:
        record = dataclasses.asdict(dataclasses.replace(trained, file=None))  # type: ignore[arg-type]
        rates = {"threshold": file.threshold, "rate": file.rate, "measured_rate": file.measured_rate}
        write_json({**record, "file": str(options.out), "digest": file.digest, **rates})
    else:
        print_question(trained)
    _say_notes(len(runs), table, gathered, len(file.trained.digests))
    if file.needed.constant:
        say(
            "no signal predicts which questions need the large model: at a rate above 0 all go there, at 0 none",
            label="warning",
            style="yellow",
        )
    use = ["reason", "ask", "QUESTION", "-s", "question-router", "--set", f"router={options.out}"]
    say(f"the router is in {options.out}; {shlex.join([*use, '-m', large, '--small-model', small])}")


def _check_writable(out: Path) -> None:
    from ..core.files import check_writable

    check_writable(out)


def _load_runs(paths: Sequence[Path]) -> list[StoredRun]:
    from ..evals.run_directory import load_runs

    runs = load_runs(list(paths))
    for run in runs:
        if not run.manifest.complete:
            say(f"the run in {run.path} is not finished", label="warning", style="yellow")
    return runs


def _local(runs: Sequence[StoredRun], model: str) -> LocalSettings:
    """The embedded engine's settings of a model's runs."""
    return next(run.manifest.plan.local for run in runs if run.manifest.plan.models["main"] == model)


def _gather(training: RouterTrainingOptions, recorded: LocalSettings, table: ArmTable, role: str) -> QuestionSignals:
    """Compute the signals of the questions with the model of a role, under the engine settings of its runs."""
    from ..core.settings import load_settings
    from ..evals.training.routers.fitting import compute_signals
    from .render.status import CountView

    model = table.models[role]
    settings = load_settings(model=model, store=training.store)
    settings = settings.model_copy(update={"local": recorded})
    view = CountView("signals of the questions", "question")
    work = compute_signals(
        table.questions,
        settings,
        model=None if training.no_entropy else model,
        identity=table.engines[role],
        watch=view.count,
        progress=view.pulled,
    )
    try:
        with view:
            return run_interruptible(work, on_first=lambda: view.note("stopping"))
    except asyncio.CancelledError:
        say("interrupted; the signals so far are in the run store, and the same command continues")
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _say_notes(num_runs: int, table: ArmTable, gathered: QuestionSignals, num_training: int) -> None:
    say(f"{num_training} questions of {', '.join(table.datasets)}, {num_runs} runs", label="note", style="cyan")
    if table.left_out:
        say(f"{table.left_out} questions that an arm lacks are left out", label="note", style="cyan")
    if gathered.missing:
        say(f"the questions have no embedding: {gathered.missing}", label="warning", style="yellow")
