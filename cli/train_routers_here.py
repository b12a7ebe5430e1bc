"""A router trained on the terminal: the runs read, their questions looked at, and what routing by it is worth."""

from __future__ import annotations

import asyncio
import dataclasses
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer
from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..core.errors import UserError
from ..core.settings import Settings, load_settings
from ..evals.navigator.work_folder import refuse_unwritable
from ..evals.routing.arm_table import ArmTable, arm_table
from ..evals.routing.gathering import Gathered, gather_signals
from ..evals.routing.question_training import train_question_router
from ..evals.routing.training import train_auto
from ..evals.run_directory import StoredRun, load_runs
from ..routers.router_files import save_trained
from .interrupts import EXIT_INTERRUPTED, run_interruptible
from .render.console import say, write_json
from .render.router_tables import print_auto, print_question
from .render.status import BAR_WIDTH, MovingView


@dataclass(frozen=True)
class Asked:
    """What was said on the command line.

    Attributes:
        runs: Folders of the runs.
        out: The router's file.
        holdout: Share of the questions to keep back.
        folds: Folds of the cross-validation.
        entropy: Whether a model's first token is looked at.
        model: The main model; None is what the runs say.
        small_model: The small one likewise.
        as_json: Whether to print one JSON object.
        store: The run store; None is the settings'.
        local: Settings of the embedded engine that were said.
    """

    runs: tuple[Path, ...]
    out: Path
    holdout: float
    folds: int
    entropy: bool
    model: str | None = None
    small_model: str | None = None
    as_json: bool = False
    store: str | None = None
    local: Mapping[str, Any] = field(default_factory=dict)


class LookingView(MovingView):
    """How many questions have been looked at."""

    def __init__(self) -> None:
        super().__init__()
        self._done, self._total = 0, 0

    def looked(self, done: int, total: int) -> None:
        """So many of so many questions are done."""
        self._note = ""
        self._done, self._total = done, total
        self._plain()

    def render(self) -> RenderableType:
        """See `MovingView`."""
        head = Table.grid(padding=(0, 1))
        head.add_row(self._spinner, Text.assemble(("looking at the questions", "bold"), (f"  {self._note}", "dim")))
        if not self._total:
            return head
        rows = Table.grid(padding=(0, 1))
        bar = Bar(size=self._total, begin=0, end=self._done, width=BAR_WIDTH, color="green", bgcolor="grey23")
        rows.add_row("questions", bar, f"{self._done}/{self._total}")
        return Group(head, rows)

    def line(self) -> str:
        """See `MovingView`."""
        return f"{self._done} of {self._total} questions looked at"


def auto_here(asked: Asked, *, price: float, small_cost: float) -> None:
    """Train an auto-router and print what it is worth.

    Raises:
        typer.Exit: It was interrupted.
        ReasonError: The runs allow no router, the model failed, or the file cannot be written.
    """
    refuse_unwritable(asked.out)
    runs = _load(asked)
    table = arm_table(runs, main=asked.model, small=asked.small_model, small_cost=small_cost)
    gathered = _gather(asked, runs, table, "main")
    trained = train_auto(table, gathered, price=price, holdout=asked.holdout, folds=asked.folds)
    save_trained(trained.file, asked.out)
    if asked.as_json:
        told = {
            "file": str(asked.out),
            "digest": trained.file.digest,
            "arms": [arm.label for arm in trained.file.arms],
            "crossed": dataclasses.asdict(trained.crossed),
            "held": None if trained.held is None else dataclasses.asdict(trained.held),
            "questions_left_out": table.left_out,
        }
        write_json(told)
    else:
        print_auto(trained)
    _say_doubts(runs, table, gathered, len(trained.file.trained.digests))
    if all(arm.right.constant for arm in trained.file.arms):
        say(
            "no signal tells which questions an arm gets right: every question will get the same arm",
            label="warning",
            style="yellow",
        )
    models = ["-m", table.models["main"]]
    models += ["--small-model", table.models["small"]] if "small" in table.models else []
    use = shlex.join(["reason", "ask", "QUESTION", "-s", "auto", "--set", f"router={asked.out}", *models])
    say(f"the router is in {asked.out}; {use}")


def question_here(asked: Asked, *, rate: float) -> None:
    """Train a question-router and print what it is worth.

    Raises:
        typer.Exit: It was interrupted.
        ReasonError: The runs allow no router, the model failed, or the file cannot be written.
    """
    refuse_unwritable(asked.out)
    runs = _load(asked)
    small, large = (run.manifest.plan.models["main"] for run in runs)
    if small == large:
        raise UserError(
            f"both runs are of the model {small}", hint="reason train question-router SMALL_RUN LARGE_RUN --out FILE"
        )
    table = arm_table(runs, main=large, small=small)
    gathered = _gather(asked, runs, table, "small")
    trained = train_question_router(table, gathered, rate=rate, holdout=asked.holdout, folds=asked.folds)
    save_trained(trained.file, asked.out)
    if asked.as_json:
        told = dataclasses.asdict(dataclasses.replace(trained, file=None))  # type: ignore[arg-type]
        file = trained.file
        own = {"threshold": file.threshold, "rate": file.rate, "measured_rate": file.measured_rate}
        write_json({**told, "file": str(asked.out), "digest": file.digest, **own})
    else:
        print_question(trained)
    _say_doubts(runs, table, gathered, len(trained.file.trained.digests))
    if trained.file.needed.constant:
        say(
            "no signal tells which questions need the large model: at a rate above 0 all go there, at 0 none",
            label="warning",
            style="yellow",
        )
    use = ["reason", "ask", "QUESTION", "-s", "question-router", "--set", f"router={asked.out}"]
    say(f"the router is in {asked.out}; {shlex.join([*use, '-m', large, '--small-model', small])}")


def _load(asked: Asked) -> list[StoredRun]:
    runs = load_runs(list(asked.runs))
    for run in runs:
        if not run.manifest.complete:
            say(f"the run in {run.path} is not finished", label="warning", style="yellow")
    return runs


def _gather(asked: Asked, runs: list[StoredRun], table: ArmTable, role: str) -> Gathered:
    """Look at the questions, with the model of a role; its engine is set up as in the runs unless said otherwise."""
    settings = _settings(asked, runs, table.models[role])
    view = LookingView()

    async def work() -> Gathered:
        return await gather_signals(
            table.questions,
            settings,
            model=table.models[role] if asked.entropy else None,
            identity=table.engines[role],
            watch=view.looked,
            progress=view.pulled,
        )

    return _interruptible(work, view)


def _interruptible(work: Callable[[], Any], view: LookingView) -> Gathered:
    try:
        with view:
            found: Gathered = run_interruptible(work(), on_first=lambda: view.note("stopping"))
    except asyncio.CancelledError:
        say("interrupted; what was looked at is in the run store, and the same command goes on")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    return found


def _settings(asked: Asked, runs: list[StoredRun], model: str) -> Settings:
    settings = load_settings(model=model, store=asked.store)
    then = next(run.manifest.plan.local for run in runs if run.manifest.plan.models["main"] == model)
    return settings.model_copy(update={"local": then.model_copy(update=dict(asked.local))})


def _say_doubts(runs: list[StoredRun], table: ArmTable, gathered: Gathered, training: int) -> None:
    """What a reader must know before using the router, on standard error."""
    say(f"{training} questions of {', '.join(table.datasets)}, {len(runs)} runs", label="note", style="cyan")
    if table.left_out:
        say(f"{table.left_out} questions that an arm lacks are left out", label="note", style="cyan")
    if gathered.missing:
        say(f"there is no embedding of the questions: {gathered.missing}", label="warning", style="yellow")
