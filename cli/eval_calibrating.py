"""A calibration map fitted to a run on the terminal, and what it is worth."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import cast, get_args

from rich.table import Table
from rich.text import Text

from ..core.calibration import CalibrationMap, CalibrationMethod
from ..core.errors import UserError
from ..evals.calibration import Calibrating, fit_map, save_map
from ..evals.run_directory import load_run
from .render.console import out, printable, say, write_line

NAMES = {"ece": "ECE", "brier": "Brier", "nll": "NLL"}


def calibrate_here(run: Path, method: str, to: Path, *, folds: int, as_json: bool) -> None:
    """Fit a map to a run, write it, and print its scores before and after.

    Raises:
        UserError: There is no such method, or the run's rows allow no map.
        DataError: The folder holds no run, or it is damaged.
        StoreError: The map cannot be written.
    """
    methods = get_args(CalibrationMethod)
    if method not in methods:
        raise UserError(f"there is no method {method!r}", hint=f"one of {' '.join(methods)}")
    stored = load_run(run)
    found, answers = fit_map(stored, cast(CalibrationMethod, method), folds=folds)
    save_map(found, to)
    named = found.model_copy(update={"name": to.stem})
    if as_json:
        told = {"file": str(to), "worse": list(found.worse), "map": named.model_dump(mode="json")}
        left = {"rows_without_confidence": answers.unstated, "rows_neither_right_nor_wrong": answers.undecided}
        write_line(json.dumps({**told, **left}, indent=2, ensure_ascii=False))
    else:
        _print(named)
    _say_doubts(named, answers, complete=stored.manifest.complete)
    use = shlex.join(["reason", "ask", "QUESTION", "-s", found.strategy, "--calibration", str(to)])
    say(f"the map is in {to}; {use}")


def _print(found: CalibrationMap) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("score")
    for head in ("stated", f"calibrated, out of sample ({found.folds} folds)"):
        table.add_column(head, justify="right")
    for name, title in NAMES.items():
        table.add_row(title, f"{getattr(found.before, name):.4f}", f"{getattr(found.after, name):.4f}")
    out().print(table)
    out().print()
    out().print(Text(printable(_curve(found))))


def _curve(found: CalibrationMap) -> str:
    curve = found.curve
    if curve.method == "isotonic":
        shape = f"isotonic, {len(curve.knots)} knots"
    else:
        shape = f"{curve.method}: sigmoid({curve.intercept:.4f} + {curve.slope:.4f} * logit(c))"
    return f"{shape}; {found.strategy}, {found.answers} answers to {found.items} items of {found.dataset}"


def _say_doubts(found: CalibrationMap, answers: Calibrating, *, complete: bool) -> None:
    """What a reader must know before using the map, on standard error."""
    if not complete:
        say(f"the run is not finished: the map knows {found.answers} answers so far", label="warning", style="yellow")
    if answers.unstated:
        say(f"{answers.unstated} rows without a confidence are left out", label="note", style="cyan")
    if answers.undecided:
        say(f"{answers.undecided} rows that are neither right nor wrong are left out", label="note", style="cyan")
    if found.worse:
        names = ", ".join(NAMES[name] for name in found.worse)
        say(
            f"out of sample the map made {names} worse; the stated confidence may be the better one",
            label="warning",
            style="bold red" if "ece" in found.worse else "yellow",
        )
    if found.curve.constant:
        say(
            "the map gives every confidence the same value: the stated ones did not tell right from wrong",
            label="warning",
            style="yellow",
        )
