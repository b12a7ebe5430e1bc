"""`reason calibrate router`: fit the threshold of glimprouter on development data."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .command import option_model
from .interrupts import run_interruptible
from .options import Json
from .render.console import out, plain_table, printable, say, write_json

if TYPE_CHECKING:
    from ..evals.training.routers.glimprouter import PooledEntropies
    from ..routers.router_files import GlimpRouterFile

RUNS = Path("calibration-runs")
RATES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 0.9)
"""Rates whose thresholds are printed in addition to the requested one."""
MAX_RATE_ERROR = 0.02
"""Difference between the requested and the measured rate above which a warning is printed."""

EXAMPLES = """
[b]Examples[/b]

reason eval gsm8k --limit 50 -s glimprouter --set threshold=100 --set answer=writer -m LARGE \\
  --small-model SMALL --out runs/dev
reason calibrate router runs/dev --rate 0.3 --out pair.json
reason ask "…" -s glimprouter --set router=pair.json -m LARGE --small-model SMALL

[b]Exit status[/b]

0 finished   1 internal error   2 usage error   3 failure of a store
"""

calibrate_app = typer.Typer(help="Fit thresholds on development data.", no_args_is_help=True)


@dataclass(frozen=True, kw_only=True)
class CalibrateRouterOptions:
    """Options of `reason calibrate router`."""

    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="Directory of an evaluation of glimprouter on other data than the router is evaluated on; with "
            "[b]--set threshold=100 --set answer=writer[/b] the small model writes everything.",
        ),
    ]
    out: Annotated[Path, typer.Option(metavar="FILE", help="File of the router.")]
    rate: Annotated[
        float,
        typer.Option(min=0, max=1, metavar="SHARE", help="Share of the steps routed to the large model, above 0."),
    ] = 0.25
    as_json: Json = False


@calibrate_app.command(epilog=EXAMPLES)
@option_model
def router(options: CalibrateRouterOptions) -> None:
    """Find the entropy above which glimprouter routes a step to the large model, for a given share of steps.

    The entropies of the first tokens of the run's steps are pooled. The file is valid for this pair of models and this
    kind of entropy; it has the thresholds of other rates, too.
    """
    from ..core.errors import UserError
    from ..core.files import check_writable
    from ..evals.run_directory import load_run, read_solution_notes, run_store_path
    from ..evals.training.routers.glimprouter import fit_router, save_router

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
        _print(fitted)
    _say_warnings(fitted, pooled)
    use = ["reason", "ask", "QUESTION", "-s", "glimprouter", "--set", f"router={options.out}"]
    models = ["-m", fitted.large, "--small-model", fitted.small]
    say(f"the router is in {options.out}; {shlex.join([*use, *models])}")


def _print(fitted: GlimpRouterFile) -> None:
    """Print the thresholds of several rates, including the requested one."""
    from rich.text import Text

    from ..routers.router_files import scale

    table = plain_table("share of steps", "threshold in nats", "measured share")
    for rate in sorted({*RATES, fitted.rate}):
        threshold = fitted.threshold_for(rate)
        requested = rate == fitted.rate
        share = fitted.measured_rate if requested else fitted.rate_at(threshold)
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
