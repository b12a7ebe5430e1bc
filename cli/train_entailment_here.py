"""A training of the embedded judge on the terminal: the data told of, steps shown while it runs, its scores after."""

from __future__ import annotations

import asyncio
import shlex
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from pydantic import JsonValue
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ..core.errors import Cancelled, UserError
from ..core.settings import load_settings
from ..evals.entailment.scoring import Score
from ..evals.entailment.training import Trained, gather, train
from .interrupts import EXIT_INTERRUPTED, run_interruptible
from .render.console import out as standard_output
from .render.console import say, write_json
from .render.status import MovingView


class StepView(MovingView):
    """The last point of the learning curve."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self._epochs = epochs
        self._point: Mapping[str, JsonValue] = {}

    def noted(self, point: Mapping[str, JsonValue]) -> None:
        """Another point; called from the training's thread."""
        self._point, self._note = dict(point), ""
        self._plain()

    def line(self) -> str:
        """See `MovingView`."""
        if not self._point:
            return self._note or "training"
        told = ", ".join(f"{name} {value}" for name, value in self._point.items() if name not in ("epoch", "step"))
        return f"step {self._point['step']}, epoch {self._point['epoch']} of {self._epochs}: {told}"

    def render(self) -> RenderableType:
        """See `MovingView`."""
        grid = Table.grid(padding=(0, 1))
        grid.add_row(self._spinner, Text.assemble(("reason train entailment", "bold"), (f"  {self._note}", "dim")))
        if self._point:
            grid.add_row("", self.line())
        return grid


def named_paths(option: str, given: Sequence[str]) -> dict[str, Path]:
    """Datasets by name.

    Raises:
        UserError: One is not NAME=PATH, or named twice.
    """
    found: dict[str, Path] = {}
    for one in given:
        name, equals, path = one.partition("=")
        if not equals or not name or not path:
            raise UserError(f"{option} {one!r} is not NAME=PATH", hint=f"for example {option} fever=data/fever")
        if name in found:
            raise UserError(f"{option} names {name} twice")
        found[name] = Path(path).expanduser()
    return found


def entailment_here(
    *,
    data: Mapping[str, Path],
    stress: Mapping[str, Path],
    corpus: Path,
    out: Path,
    card: Path | None,
    work: Path | None,
    resume: bool,
    minutes: float | None,
    note_every: int,
    held: float,
    choices: Mapping[str, Any],
    threads: int | None,
    as_json: bool,
) -> None:
    """Train the judge and print its scores.

    Raises:
        typer.Exit: It was interrupted, or its minutes are over.
        ReasonError: See `evals.entailment.training`.
    """
    from ..evals.entailment.rhythm import Rhythm

    settings = load_settings()
    gathered = gather(data, corpus.expanduser(), stress=stress, held=held)
    sides = gathered.sides
    say(f"{len(sides.training):,} claims to train on, {len(sides.watched):,} watched, {len(sides.held):,} kept back")
    folder = work or out.with_suffix(".work")
    rhythm = Rhythm(note_every=note_every, most_seconds=None if minutes is None else 60 * minutes)
    stop = threading.Event()
    view = StepView(int(choices["epochs"]))

    def work_on() -> Trained | None:
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        return train(
            gathered,
            settings,
            out,
            folder,
            rhythm=rhythm,
            choices=choices,
            resume=resume,
            card=card,
            cancel=stop,
            watch=view.noted,
            progress=view.pulled,
        )

    def first_signal() -> None:
        stop.set()
        view.note("stopping after this step")

    async def whole() -> Trained | None:
        running = asyncio.ensure_future(asyncio.to_thread(work_on))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait([running])
            if not running.cancelled() and isinstance(running.exception(), Cancelled):
                raise
            return running.result()  # it ended, or failed, before it heard of the signal

    again = shlex.join(["--resume", "--work", str(folder)])
    try:
        with view:
            trained = run_interruptible(whole(), on_first=first_signal)
    except asyncio.CancelledError:
        say(f"interrupted; the training is saved, and the same command with {again} goes on")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if trained is None:
        say(f"the minutes are over; the training is saved, and the same command with {again} goes on")
        raise typer.Exit(EXIT_INTERRUPTED)
    if as_json:
        write_json(
            {
                "file": str(out),
                "digest": trained.delta.digest,
                "bytes": trained.size,
                "scores": [one.model_dump(mode="json") for one in trained.scores],
                "unrounded": [one.model_dump(mode="json") for one in trained.unrounded],
                "curve": list(trained.curve),
            }
        )
    else:
        standard_output().print(_table(trained.scores))
    say(f"the judge is in {out} ({trained.size / 1e6:.2f} MB)")


def _table(scores: Sequence[Score]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("kept back", "claims", "right", "95 %", "macro F1", "ECE"):
        table.add_column(name, justify="left" if name == "kept back" else "right", overflow="fold")
    for one in scores:
        between = f"{100 * one.low:.1f} to {100 * one.high:.1f}"
        figures = (f"{100 * one.accuracy:.1f}%", between, f"{one.macro_f1:.3f}", f"{one.ece:.3f}")
        table.add_row(one.name, f"{one.claims:,}", *figures)
    return table
