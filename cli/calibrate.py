"""`reason calibrate`: fit thresholds on development data; `router` for glimprouter, `verdicts` for verification."""

from __future__ import annotations

import asyncio
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from .command import is_default, option_model
from .interrupts import EXIT_INTERRUPTED, run_interruptible
from .options import (
    DATA,
    REASONING,
    Concurrency,
    FieldMap,
    FileStore,
    Json,
    Limit,
    MainModel,
    Parameters,
    SmallModel,
)
from .render.console import out, plain_table, printable, say, write_json

if TYPE_CHECKING:
    from ..evals.plan import EvalPlan
    from ..evals.results import ResultRow
    from ..evals.run_directory import SolutionNotes
    from ..evals.training.routers.glimprouter import PooledEntropies
    from ..routers.router_files import GlimpRouterFile

RUNS = Path("calibration-runs")
RATES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 0.9)
"""Rates whose thresholds are printed in addition to the requested one."""
MAX_RATE_ERROR = 0.02
"""Difference between the requested and the measured rate above which a warning is printed."""

EXAMPLES = """
[b]Examples[/b]

reason calibrate router --data gsm8k --limit 50 -m LARGE --small-model SMALL --out pair.json
reason calibrate router --data gsm8k=gsm8k.jsonl --limit 50 -m LARGE --small-model SMALL --rate 0.3 --out pair.json
reason calibrate router --from-run runs/glimprouter-dev --rate 0.2 --out pair.json
reason ask "…" -s glimprouter --set router=pair.json -m LARGE --small-model SMALL

[b]Exit status[/b]

0 finished   1 internal error   2 usage error   3 failure of a model or store
130 interrupted; finished items are saved, and the same command continues
"""

calibrate_app = typer.Typer(help="Fit thresholds on development data.", no_args_is_help=True)


@dataclass(frozen=True, kw_only=True)
class CalibrationRunOptions:
    """What decides the results of the run of `reason calibrate router`."""

    data: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[=FILE]",
            help="Calibration dataset: its name, optionally with a local file or directory, or a JSONL or CSV file; "
            "not the one on which the router is evaluated.",
            rich_help_panel=DATA,
        ),
    ] = None
    map: FieldMap = None
    limit: Limit = None
    model: MainModel = None
    small_model: SmallModel = None
    parameters: Parameters = field(default_factory=list)
    seed: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Seed of the run. (default: 0)", rich_help_panel=REASONING),
    ] = None


@dataclass(frozen=True, kw_only=True)
class CalibrateRouterOptions:
    """Options of `reason calibrate router`."""

    out: Annotated[Path, typer.Option(metavar="FILE", help="File of the router.")]
    rate: Annotated[
        float,
        typer.Option(min=0, max=1, metavar="SHARE", help="Share of the steps routed to the large model, above 0."),
    ] = 0.25
    run: CalibrationRunOptions
    from_run: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Directory of a finished evaluation of glimprouter, instead of --data; no model is called.",
            rich_help_panel=DATA,
        ),
    ] = None
    concurrency: Concurrency = None
    run_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Directory of the run. (default: calibration-runs/, under a name derived from the settings)",
            rich_help_panel="Scale",
        ),
    ] = None
    as_json: Json = False
    store: FileStore = None


class _Steps(NamedTuple):
    """A run whose steps are pooled."""

    plan: EvalPlan
    rows: Sequence[ResultRow]
    notes: Sequence[SolutionNotes | None]
    directory: Path


@calibrate_app.command(epilog=EXAMPLES)
@option_model
def router(options: CalibrateRouterOptions) -> None:
    """Find the entropy above which glimprouter routes a step to the large model, for a given share of steps.

    The small model answers the items, and the entropies of its steps' first tokens are pooled. The file is valid for
    this pair of models and this kind of entropy; it has the thresholds of other rates, too.
    """
    from ..core.errors import UserError
    from ..core.files import check_writable
    from ..evals.training.routers.glimprouter import fit_router, save_router

    if options.rate == 0:
        raise UserError("--rate 0 routes no step to the large model", hint="--set policy=small needs no router")
    check_writable(options.out)
    if options.from_run is not None:
        if not is_default(options.run) or options.run_dir is not None:
            raise UserError(
                "--from-run uses the run as it is", hint="leave out everything but --rate, --out and --store"
            )
        steps = _load_steps(options.from_run, options.store)
    else:
        steps = _run_small_model(options)
    fitted, pooled = fit_router(steps.plan, steps.rows, steps.notes, options.rate)
    save_router(fitted, options.out)
    fitted = fitted.model_copy(update={"name": options.out.stem})
    if options.as_json:
        write_json(
            {
                "file": str(options.out),
                "digest": fitted.digest,
                "run": str(steps.directory),
                "rows_without_entropies": pooled.without,
                "steps_by_large_model": pooled.by_large,
                "router": fitted.model_dump(mode="json"),
            }
        )
    else:
        _print(fitted)
    _say_warnings(fitted, pooled)
    use = ["reason", "ask", "QUESTION", "-s", "glimprouter", "--set", f"router={options.out}"]
    models = ["-m", fitted.large, "--small-model", fitted.small]
    say(f"the router is in {options.out}; {shlex.join([*use, *models])}")


def _load_steps(directory: Path, store: Path | None) -> _Steps:
    from ..evals.run_directory import load_run, read_solution_notes, run_store_path

    run = load_run(directory)
    if not run.manifest.complete:
        say(f"the run is not finished: {len(run.rows)} rows so far", label="warning", style="yellow")
    notes = run_interruptible(read_solution_notes(run.rows, run_store_path(run, store)))
    return _Steps(run.manifest.plan, run.rows, notes, directory)


def _run_small_model(options: CalibrateRouterOptions) -> _Steps:
    """Answer the items with the small model, or resume that run."""
    from ..core.errors import ReasonError, UserError
    from ..core.settings import load_settings
    from ..evals.run_directory import MANIFEST, STORE, plan_differences, read_manifest, read_solution_notes
    from ..evals.runner import DEFAULT_CONCURRENCY, evaluate, run_directory_name
    from ..evals.task import open_task
    from ..evals.training.routers.glimprouter import calibration_plan
    from .inputs import parse_parameters, parse_source
    from .render.eval_tables import say_data
    from .render.eval_view import EvalView

    requested = options.run
    if requested.data is None:
        raise UserError("there is no calibration data", hint="pass --data NAME[=FILE], or --from-run DIR")
    settings = load_settings(model=requested.model, small_model=requested.small_model, reuse="store")
    source = parse_source(requested.data, requested.map)
    task = open_task(source)
    parameters = parse_parameters(requested.parameters)
    plan = calibration_plan(task, settings, parameters=parameters, limit=requested.limit, seed=requested.seed or 0)
    directory = options.run_dir or RUNS / run_directory_name(plan)
    if (directory / MANIFEST).exists():
        before = read_manifest(directory).plan
        if before.digest != plan.digest:
            raise UserError(
                f"{directory} holds another run: {plan_differences(before, plan)}",
                hint="choose another --run-dir, or leave it out",
            )
    say_data(task.info)
    view = EvalView(f"{task.info.name}, small model only")

    async def run() -> tuple[list[ResultRow], list[SolutionNotes | None]]:
        rows = await evaluate(
            plan,
            task,
            source,
            directory,
            settings,
            label=f"calibration of glimprouter, {plan.models['small']}",
            resume=True,
            concurrency=options.concurrency or DEFAULT_CONCURRENCY,
            store=options.store,
            observer=view,
            progress=view.pulled,
        )
        return rows, await read_solution_notes(rows, options.store or directory / STORE)

    try:
        with view:
            rows, notes = run_interruptible(run(), on_first=lambda: view.note("stopping"))
    except asyncio.CancelledError:
        saved = f"; the finished items are saved in {directory}" if view.progress.has_stored else ""
        say(f"interrupted{saved}; the same command continues")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except ReasonError:
        if view.progress.has_stored:
            say(f"the work so far is saved in {directory}; the same command continues", label="note", style="cyan")
        raise
    return _Steps(plan, rows, notes, directory)


def _print(fitted: GlimpRouterFile) -> None:
    """Print the thresholds of several rates, including the requested one."""
    from rich.text import Text

    from ..routers.router_files import scale

    table = plain_table("share of steps", "threshold in nats", "measured share")
    for rate in sorted({*RATES, fitted.rate}):
        threshold = fitted.threshold_for(rate)
        requested = rate == fitted.rate
        share = fitted.measured_rate if requested else fitted.rate_at(threshold, strict=fitted.strict)
        cells = (f"{100 * rate:.4g}%", f"{threshold:.4f}", f"{100 * share:.1f}%")
        table.add_row(*(Text(cell, "bold" if requested else "") for cell in cells))
    out().print(table)
    out().print()
    q = fitted.quantiles
    spread = f"minimum {q[0]:.3f}, quartiles {q[25]:.3f} {q[50]:.3f} {q[75]:.3f}, maximum {q[-1]:.3f}"
    entropies = f"{scale(fitted.entropy, fitted.k)} entropies of {fitted.steps:,} steps of {fitted.questions} questions"
    out().print(Text(printable(f"{entropies} of {fitted.dataset}: {spread}")))


def _say_warnings(fitted: GlimpRouterFile, pooled: PooledEntropies) -> None:
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
