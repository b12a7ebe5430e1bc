"""`reason train auto-router` and `reason train question-router`: routers of questions, from evaluation runs."""

from __future__ import annotations

import asyncio
import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .command import option_model
from .interrupts import EXIT_INTERRUPTED, run_interruptible
from .options import EngineOptions, Json, MainModel, SmallModel, Store
from .render.console import say, write_json

if TYPE_CHECKING:
    from ..evals.run_directory import StoredRun
    from ..evals.training.routers.arm_table import ArmTable
    from ..evals.training.routers.fitting import QuestionSignals

LEARNING = "Learning"

AUTO_EXAMPLES = """
[b]Examples[/b]

reason eval sweep sweep.toml --out runs/gsm8k
reason train auto-router runs/gsm8k/*/ --price 0.1 --out auto.json
reason train auto-router runs/cot runs/votes --holdout 0.3 --no-entropy --out auto.json
reason ask "…" -s auto --set router=auto.json

[b]Exit status[/b]

0 finished   1 internal error   2 usage error, or the runs allow no router   3 model failure
130 interrupted; the signals so far are in the run store, and the same command continues
"""

QUESTION_EXAMPLES = """
[b]Examples[/b]

reason eval gsm8k -s cot -m SMALL --out runs/small
reason eval gsm8k -s cot -m LARGE --out runs/large
reason train question-router runs/small runs/large --rate 0.3 --out router.json
reason ask "…" -s question-router --set router=router.json -m LARGE --small-model SMALL

[b]Exit status[/b]

0 finished   1 internal error   2 usage error, or the runs allow no router   3 model failure
130 interrupted; the signals so far are in the run store, and the same command continues
"""


@dataclass(frozen=True, kw_only=True)
class RouterTrainingOptions:
    """Options of both router trainings."""

    out: Annotated[Path, typer.Option(metavar="FILE", help="File of the router.")]
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
    engine: EngineOptions


@dataclass(frozen=True, kw_only=True)
class TrainAutoRouterOptions:
    """Options of `reason train auto-router`."""

    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Directories of evaluation runs of the same questions.")
    ]
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
def auto_router(options: TrainAutoRouterOptions) -> None:
    """Train the router of auto, which chooses the strategy that is worth most for a question.

    Each strategy with its parameters is an arm; the runs of different arms must share at least 40 questions. The value
    of routing is estimated by cross-validation, next to each arm at equal average tokens.
    """
    from ..evals.training.routers.arm_table import arm_table
    from ..evals.training.routers.auto import train_auto
    from ..routers.router_files import save_router_file
    from .render.router_tables import print_auto

    training = options.training
    runs = _load_runs(options.runs, training)
    table = arm_table(runs, main=options.model, small=options.small_model, small_cost=options.small_cost)
    gathered = _gather(training, runs, table, "main")
    trained = train_auto(table, gathered, price=options.price, holdout=training.holdout, folds=training.folds)
    save_router_file(trained.file, training.out)
    if training.as_json:
        write_json(
            {
                "file": str(training.out),
                "digest": trained.file.digest,
                "arms": [arm.label for arm in trained.file.arms],
                "crossed": dataclasses.asdict(trained.crossed),
                "held": None if trained.held is None else dataclasses.asdict(trained.held),
                "questions_left_out": table.left_out,
            }
        )
    else:
        print_auto(trained)
    _say_notes(runs, table, gathered, len(trained.file.trained.digests))
    if all(arm.right.constant for arm in trained.file.arms):
        say(
            "no signal predicts which questions an arm answers correctly: every question gets the same arm",
            label="warning",
            style="yellow",
        )
    models = ["-m", table.models["main"]]
    models += ["--small-model", table.models["small"]] if "small" in table.models else []
    use = shlex.join(["reason", "ask", "QUESTION", "-s", "auto", "--set", f"router={training.out}", *models])
    say(f"the router is in {training.out}; {use}")


@dataclass(frozen=True, kw_only=True)
class TrainQuestionRouterOptions:
    """Options of `reason train question-router`."""

    small_run: Annotated[Path, typer.Argument(metavar="SMALL_RUN", help="Directory of a run of the small model.")]
    large_run: Annotated[
        Path, typer.Argument(metavar="LARGE_RUN", help="Directory of a run with the large model as main model.")
    ]
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
    runs = _load_runs([options.small_run, options.large_run], training)
    small, large = (run.manifest.plan.models["main"] for run in runs)
    if small == large:
        raise UserError(
            f"both runs use the model {small}", hint="reason train question-router SMALL_RUN LARGE_RUN --out FILE"
        )
    table = arm_table(runs, main=large, small=small)
    gathered = _gather(training, runs, table, "small")
    trained = train_question_router(table, gathered, rate=options.rate, holdout=training.holdout, folds=training.folds)
    save_router_file(trained.file, training.out)
    file = trained.file
    if training.as_json:
        record = dataclasses.asdict(dataclasses.replace(trained, file=None))  # type: ignore[arg-type]
        rates = {"threshold": file.threshold, "rate": file.rate, "measured_rate": file.measured_rate}
        write_json({**record, "file": str(training.out), "digest": file.digest, **rates})
    else:
        print_question(trained)
    _say_notes(runs, table, gathered, len(file.trained.digests))
    if file.needed.constant:
        say(
            "no signal predicts which questions need the large model: at a rate above 0 all go there, at 0 none",
            label="warning",
            style="yellow",
        )
    use = ["reason", "ask", "QUESTION", "-s", "question-router", "--set", f"router={training.out}"]
    say(f"the router is in {training.out}; {shlex.join([*use, '-m', large, '--small-model', small])}")


def _load_runs(paths: Sequence[Path], training: RouterTrainingOptions) -> list[StoredRun]:
    from ..evals.run_directory import load_runs
    from ..evals.training.run_directory import check_writable

    check_writable(training.out)
    runs = load_runs(list(paths))
    for run in runs:
        if not run.manifest.complete:
            say(f"the run in {run.path} is not finished", label="warning", style="yellow")
    return runs


def _gather(training: RouterTrainingOptions, runs: list[StoredRun], table: ArmTable, role: str) -> QuestionSignals:
    """Compute the signals of the questions with the model of a role, under the engine settings of its runs."""
    from ..core.settings import load_settings
    from ..evals.training.routers.fitting import compute_signals
    from .render.train_view import CountView

    model = table.models[role]
    settings = load_settings(model=model, store=training.store)
    recorded = next(run.manifest.plan.local for run in runs if run.manifest.plan.models["main"] == model)
    local = recorded.model_copy(update=training.engine.local or {})
    settings = settings.model_copy(update={"local": local})
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


def _say_notes(runs: list[StoredRun], table: ArmTable, gathered: QuestionSignals, num_training: int) -> None:
    say(f"{num_training} questions of {', '.join(table.datasets)}, {len(runs)} runs", label="note", style="cyan")
    if table.left_out:
        say(f"{table.left_out} questions that an arm lacks are left out", label="note", style="cyan")
    if gathered.missing:
        say(f"the questions have no embedding: {gathered.missing}", label="warning", style="yellow")
