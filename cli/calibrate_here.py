"""A router calibrated on the terminal: the run that is made for it, or one that is there, and the file it gives."""

from __future__ import annotations

import asyncio
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import typer
from rich.text import Text

from ..core.errors import ReasonError, UserError
from ..core.settings import load_settings
from ..evals.navigator.work_folder import refuse_unwritable
from ..evals.plan import EvalPlan
from ..evals.results import Row
from ..evals.routing.calibrating import FEW_STEPS, Pooled, calibration_plan, fit_router, save_router
from ..evals.run_directory import (
    MANIFEST,
    STORE,
    Notes,
    load_run,
    read_manifest,
    solution_notes,
    store_of,
    what_differs,
)
from ..evals.runner import CONCURRENCY, evaluate, run_name
from ..evals.task import open_task
from ..routers.router_files import RouterFile, scale
from . import options
from .eval_inputs import parse_source
from .inputs import parse_parameters
from .interrupts import EXIT_INTERRUPTED, run_interruptible
from .render.console import out as standard_output
from .render.console import plain_table, printable, say, write_json
from .render.eval_tables import say_data
from .render.eval_view import EvalView

RUNS = Path("calibration-runs")
RATES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 0.9)
"""Rates whose thresholds are printed beside the wanted one."""
MUCH_OFF = 0.02
"""How far the rate that a threshold really gives may be from the wanted one before it is said."""


@dataclass(frozen=True)
class Asked:
    """What decides the run, as it was said on the command line; None and empty is not said."""

    data: str | None = None
    map: str | None = None
    limit: int | None = None
    model: str | None = None
    small_model: str | None = None
    parameters: tuple[str, ...] = ()
    seed: int | None = None
    weight_format: str | None = None
    threads: int | None = None

    @property
    def anything(self) -> bool:
        """Whether anything was said."""
        return any(getattr(self, field.name) not in (None, ()) for field in fields(self))


def calibrate_router_here(
    asked: Asked,
    *,
    run: Path | None,
    rate: float,
    out: Path,
    work: Path | None,
    store: Path | None,
    concurrency: int | None,
    as_json: bool,
) -> None:
    """Calibrate a router, write its file, and print what is in it.

    Args:
        asked: What decides the run that is made.
        run: A run that is there, instead.
        rate: The share of steps for the large model.
        out: The router file.
        work: Folder of the run that is made.
        store: The run store.
        concurrency: Most items under way at a time.
        as_json: Whether to print one JSON object.

    Raises:
        typer.Exit: It was interrupted.
        ReasonError: It cannot be done, or ended early; what there is is saved.
    """
    if rate == 0:
        raise UserError("at a rate of 0 no step goes to the large model", hint="--set policy=small needs no router")
    refuse_unwritable(out)
    if run is not None:
        if asked.anything or work is not None:
            raise UserError("--run takes a run as it is", hint="leave all but --rate, --out and --store away")
        plan, rows, notes = _stored(run, store)
        folder = run
    else:
        plan, rows, notes, folder = _made(asked, work, store, concurrency)
    router, pooled = fit_router(plan, rows, notes, rate)
    save_router(router, out)
    named = router.model_copy(update={"name": out.stem})
    if as_json:
        write_json(as_object(named, pooled, out, folder))
    else:
        show(named)
    _say_doubts(named, pooled)
    use = ["reason", "ask", "QUESTION", "-s", "glimp", "--set", f"router={out}"]
    say(f"the router is in {out}; {shlex.join([*use, '-m', named.large, '--small-model', named.small])}")


def as_object(router: RouterFile, pooled: Pooled, out: Path, folder: Path) -> dict[str, Any]:
    """What came of it, for JSON."""
    return {
        "file": str(out),
        "digest": router.digest,
        "run": str(folder),
        "rows_without_entropies": pooled.without,
        "steps_by_large_model": pooled.by_large,
        "router": router.model_dump(mode="json"),
    }


def show(router: RouterFile) -> None:
    """Print the thresholds of several rates, the wanted one among them."""
    table = plain_table("share of steps", "threshold in nats", "share at it here")
    rates = sorted({*RATES, router.rate})
    for rate in rates:
        threshold = router.threshold_for(rate)
        wanted = rate == router.rate
        share = router.measured_rate if wanted else router.rate_at(threshold, strict=router.strict)
        cells = (f"{100 * rate:.4g}%", f"{threshold:.4f}", f"{100 * share:.1f}%")
        table.add_row(*(Text(cell, "bold" if wanted else "") for cell in cells))
    standard_output().print(table)
    standard_output().print()
    q = router.quantiles
    spread = f"least {q[0]:.3f}, quartiles {q[25]:.3f} {q[50]:.3f} {q[75]:.3f}, largest {q[-1]:.3f}"
    told = f"{scale(router.entropy, router.k)} entropies of {router.steps:,} steps of {router.questions} questions"
    standard_output().print(Text(printable(f"{told} of {router.dataset}: {spread}")))


def _say_doubts(router: RouterFile, pooled: Pooled) -> None:
    """What a reader must know before using the file, on standard error."""
    if pooled.without:
        say(f"{pooled.without} rows noted no entropy and are left out", label="note", style="cyan")
    if pooled.by_large:
        say(
            f"{pooled.by_large} of {router.steps} steps were written by the large model: these are not the steps of "
            "the small model alone",
            label="note",
            style="cyan",
        )
    if router.steps < FEW_STEPS:
        error = 100 * math.sqrt(router.rate * (1 - router.rate) / router.steps)
        say(
            f"{router.steps} steps are few: the rate on other problems may well be {error:.0f} points off, if steps "
            "were independent; take more items",
            label="warning",
            style="yellow",
        )
    if abs(router.measured_rate - router.rate) > MUCH_OFF:
        say(
            f"the threshold sends {100 * router.measured_rate:.1f}% of these steps, not {100 * router.rate:.1f}%: many "
            "steps have the same entropy",
            label="warning",
            style="yellow",
        )


def _stored(run: Path, store: Path | None) -> tuple[EvalPlan, Sequence[Row], Sequence[Notes | None]]:
    found = load_run(run)
    if not found.manifest.complete:
        say(f"the run is not finished: {len(found.rows)} rows so far", label="warning", style="yellow")
    notes = run_interruptible(solution_notes(found.rows, store_of(found, store)))
    return found.manifest.plan, found.rows, notes


def _made(
    asked: Asked, work: Path | None, store: Path | None, concurrency: int | None
) -> tuple[EvalPlan, Sequence[Row], Sequence[Notes | None], Path]:
    """Run the small model over the items, or go on with it."""
    if asked.data is None:
        raise UserError(
            "there is nothing to calibrate on", hint="--data NAME[=FILE] runs the models, --run DIR takes a run"
        )
    settings = load_settings(
        model=asked.model,
        small_model=asked.small_model,
        reuse="store",
        local=options.given(weight_format=asked.weight_format, threads=asked.threads),
    )
    source = parse_source(asked.data, asked.map)
    task = open_task(source)
    plan = calibration_plan(
        task, settings, parameters=parse_parameters(asked.parameters), limit=asked.limit, seed=asked.seed or 0
    )
    folder = work or RUNS / run_name(plan)
    _refuse_other(folder, plan)
    say_data(task.use)
    view = EvalView()
    view.run(f"{task.use.name} by the small model alone")

    async def go() -> tuple[list[Row], list[Notes | None]]:
        rows = await evaluate(
            plan,
            task,
            source,
            folder,
            settings,
            label=f"calibration of glimp, {plan.models['small']}",
            resume=True,
            concurrency=concurrency or CONCURRENCY,
            store=store,
            watcher=view,
            progress=view.pulled,
        )
        return rows, await solution_notes(rows, store or folder / STORE)

    try:
        with view:
            rows, notes = run_interruptible(go(), on_first=lambda: view.note("stopping"))
    except asyncio.CancelledError:
        say(f"interrupted; what there is is saved in {folder}: the same command goes on")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except ReasonError:
        if view.progress.total:  # it began: what is refused before has done nothing
            say(f"what was done is saved in {folder}: the same command goes on", label="note", style="cyan")
        raise
    return plan, rows, notes, folder


def _refuse_other(folder: Path, plan: EvalPlan) -> None:
    """Refuse a folder that holds another run; the same one is gone on with.

    Raises:
        UserError: It does; names what differs.
    """
    if not (folder / MANIFEST).exists():
        return
    before = read_manifest(folder).plan
    if before.digest != plan.digest:
        raise UserError(
            f"{folder} holds another run: {what_differs(before, plan)}", hint="choose another --work, or leave it away"
        )
