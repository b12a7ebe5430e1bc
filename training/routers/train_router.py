"""Train routers for `auto` and `glimprouter`, and show trained files.

See docs/choosing-a-strategy.md and docs/routers.md.
"""

from __future__ import annotations

import asyncio
import math
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from reason.cli.command import option_model
from reason.cli.interrupts import EXIT_INTERRUPTED, run_interruptible
from reason.cli.main import main
from reason.cli.options import (
    Json,
    MainModel,
    SmallModel,
    Store,
)
from reason.cli.render.console import print_facts, say, write_json

if TYPE_CHECKING:
    from arm_table import ArmTable
    from fitting import QuestionSignals
    from glimprouter_training import PooledEntropies
    from reason.core.settings import LocalSettings
    from reason.routers.router_files import GlimpRouterFile

LEARNING = "Learning"

AUTO_EXAMPLES = """
[b]Examples[/b]

reason eval sweep sweep.toml --out runs/gsm8k
python training/routers/train_router.py auto runs/gsm8k/*/ --price 0.1
python training/routers/train_router.py auto runs/cot runs/votes --holdout 0.3 --no-entropy --out auto.json
reason ask "…" -s auto

[b]Exit status[/b]

0 finished   1 internal error   2 usage error, or the runs allow no router   3 failure of a model or store
130 interrupted; the signals so far are in the run store, and the same command continues
"""

GLIMPROUTER_EXAMPLES = """
[b]Examples[/b]

reason eval gsm8k --limit 50 -s glimprouter --set threshold=100 --set answer=writer -m LARGE \\
  --small-model SMALL --out runs/dev
python training/routers/train_router.py glimprouter runs/dev --rate 0.3 --out pair.json
reason ask "…" -s glimprouter --set router=pair.json -m LARGE --small-model SMALL

[b]Exit status[/b]

0 finished   1 internal error   2 usage error   3 failure of a store
"""

MAX_RATE_ERROR = 0.02
"""Difference between the requested and the measured rate above which a warning is printed."""

app = typer.Typer(
    name="train_router.py",
    help="Train routers for auto and glimprouter; show trained files.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


@dataclass(frozen=True, kw_only=True)
class TrainAutoOptions:
    """Options of `train_router.py auto`."""

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


@app.command(epilog=AUTO_EXAMPLES)
@option_model
def auto(options: TrainAutoOptions) -> None:
    """Train the router of auto, which chooses model, effort, strategy and samples for a question.

    An action is a strategy with its parameters, its effort and its model. Evaluation runs of different actions must
    share at least 40 questions. The value of routing is estimated by cross-validation, next to each action at equal
    average tokens.
    """
    from arm_table import arm_table
    from auto_training import train_auto
    from reason.core.files import check_writable
    from reason.evals.run_directory import load_runs
    from reason.routers.router_files import router_path, save_router_file
    from router_tables import print_auto

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
    from fitting import compute_signals
    from reason.cli.render.status import CountView
    from reason.core.settings import load_settings

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
    """Options of `train_router.py glimprouter`."""

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


@app.command(epilog=GLIMPROUTER_EXAMPLES)
@option_model
def glimprouter(options: TrainGlimpRouterOptions) -> None:
    """Find the entropy above which glimprouter routes a step to the large model, for a given share of steps.

    The entropies of the first tokens of the run's steps are pooled. The file is valid for this pair of models and this
    kind of entropy; it has the thresholds of other rates, too.
    """
    from glimprouter_training import fit_router, save_router
    from reason.core.errors import UserError
    from reason.core.files import check_writable
    from reason.evals.run_directory import load_run, read_solution_notes, run_store_path
    from reason.routers.router_files import scale

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
    from glimprouter_training import MIN_RELIABLE_STEPS

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
    """Options of `train_router.py show`."""

    file: Annotated[
        str, typer.Argument(metavar="FILE", help="File of a navigator, or default for the shipped one; or of a router.")
    ]
    as_json: Json = False


@app.command()
@option_model
def show(options: ShowTrainedOptions) -> None:
    """Show a navigator (its card and its choices in typical states) or a router (its arms, signals and origin)."""
    from router_tables import show_navigator, show_router

    if not show_router(options.file, as_json=options.as_json):
        show_navigator(options.file, as_json=options.as_json)


if __name__ == "__main__":
    sys.exit(main(app=app))
