"""What a model's judgement of its own samples is worth, on the terminal."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path

from rich.table import Table

from ..evals.calibration import Signal, measure_signal
from ..evals.run_directory import load_run
from .render.console import out, say, write_line

USEFUL = 0.6
"""Area under the ROC curve within questions below which selecting and pruning are hardly better than chance."""


def signal_here(run: Path, *, as_json: bool) -> None:
    """Measure the signal of a run and print it.

    Raises:
        UserError: The run holds no signal that could be measured.
        DataError: The folder holds no run, or it is damaged.
    """
    found = asyncio.run(measure_signal(load_run(run)))
    if as_json:
        write_line(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        _print(found)
    if found.within is None or found.within < USEFUL:
        say(
            "within a question the signal hardly tells right from wrong samples: do not select or prune by it",
            label="warning",
            style="yellow",
        )
    say(f"use it with --set alpha={found.alpha:.4g} --set beta={found.beta:.4g}")


def _print(found: Signal) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column()
    ends = found.within_interval
    span = "" if ends is None else f" [{ends.low:.3f}, {ends.high:.3f}]"
    rows = {
        "questions, samples": f"{found.items}, {found.samples} ({found.silent} without a signal left out)",
        "AUROC within questions": f"{_number(found.within)}{span}, {found.within_pairs} pairs",
        "AUROC across questions": _number(found.across),
        "rank correlation with length": _number(found.length),
        "Brier against the target": f"{found.brier[0]:.4f} plain, {found.brier[1]:.4f} calibrated (in sample)",
        "calibration": f"q = sigmoid({found.alpha:.4f} + {found.beta:.4f} v)",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    out().print(table)


def _number(value: float | None) -> str:
    return "not estimable" if value is None else f"{value:.3f}"
