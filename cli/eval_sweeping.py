"""A sweep on the terminal: run after run over shared models and one run store, a table of all of them in the end."""

from __future__ import annotations

import asyncio
import json
import shlex
from pathlib import Path

import typer

from ..core.errors import ReasonError
from ..core.settings import Settings
from ..evals.run_directory import STORE
from ..evals.runner import CONCURRENCY
from ..evals.summary import summarise
from ..evals.sweep import SweptDataset, SweptModels, plan_sweep, read_sweep, run_sweep
from ..evals.task import absolute, open_task
from .interrupts import EXIT_INTERRUPTED, run_interruptible
from .render.console import say, write_line
from .render.eval_tables import print_runs, say_alarms, say_data
from .render.sweep_view import SweepView


def sweep_here(
    file: Path,
    settings: Settings,
    *,
    model: str | None,
    data: Path | None,
    out: Path,
    resume: bool,
    concurrency: int | None,
    at_once: int,
    store: Path | None,
    as_json: bool,
) -> None:
    """Run a sweep and print its table.

    Args:
        file: What to run.
        settings: How backends are set up.
        model: Main model instead of the file's.
        data: Local data of the datasets for which the file names none.
        out: Folder of the runs.
        resume: Whether to go on with what it holds.
        concurrency: Most items of a dataset under way at a time; None is the default.
        at_once: Most datasets under way at a time.
        store: The run store; None is one in the folder.
        as_json: Whether to print JSON.

    Raises:
        typer.Exit: It was interrupted.
        ReasonError: It cannot be run, or ended early; what there is is saved.
    """
    sweep = read_sweep(file)
    if model is not None:
        sweep = sweep.model_copy(update={"models": [SweptModels(main=model)]})
    if data is not None:
        sweep = sweep.model_copy(update={"dataset": [_with_data(d, data) for d in sweep.dataset]})
    jobs = plan_sweep(sweep, settings, out, lambda source: open_task(absolute(source)))
    for task in {job.task.use.fingerprint: job.task for job in jobs}.values():
        say_data(task.use)
    again = ["reason", "eval", "sweep", str(file), "--resume", "--out", str(out)]
    for flag, value in (
        ("--model", model),
        ("--data", data),
        ("--concurrency", concurrency),
        ("--at-once", at_once if at_once > 1 else None),
        ("--store", store),
    ):
        if value is not None:
            again += [flag, str(value)]
    view = SweepView(len(jobs))
    work = run_sweep(
        jobs,
        settings,
        store or out / STORE,
        resume=resume,
        concurrency=concurrency or CONCURRENCY,
        watch=view.watch,
        at_once=at_once,
        progress=view.pulled,
    )
    try:
        with view:
            rows = run_interruptible(work, on_first=lambda: view.note("stopping"))
    except asyncio.CancelledError:
        say(f"interrupted; what there is is saved: {shlex.join(again)}")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except ReasonError:
        if view.answering:  # as in `run_here`
            say(f"what was done is saved: {shlex.join(again)}", label="note", style="cyan")
        raise
    found = [(job, summarise(made)) for job, made in zip(jobs, rows, strict=True)]
    if as_json:
        shown = [{"run": str(j.out), "label": j.label, "summary": s.model_dump(mode="json")} for j, s in found]
        write_line(json.dumps(shown, indent=2, ensure_ascii=False))
    else:
        print_runs([(job.label, summary) for job, summary in found])
    for job, summary in found:
        say_alarms(job.label, summary)
    say(f"{len(jobs)} runs in {out}; reason eval report {shlex.quote(str(out))} --out report.html")


def _with_data(dataset: SweptDataset, data: Path) -> SweptDataset:
    return dataset if dataset.data is not None else dataset.model_copy(update={"data": data})
