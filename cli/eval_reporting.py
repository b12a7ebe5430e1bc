"""Runs compared and reported on the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter

from ..core.errors import UserError
from ..evals.comparison import compare_runs
from ..evals.report.content import PairContent, gather
from ..evals.report.writing import FORMS, run_folders, write_report
from ..evals.run_directory import load_runs
from ..evals.summary import summarise
from .render.console import out, say, write_line
from .render.eval_tables import print_comparison, print_runs, say_alarms


def compare_here(paths: Sequence[Path], allow: Sequence[str], *, force: bool, as_json: bool) -> None:
    """Compare every run with the first one.

    Raises:
        UserError: There are not two, or they differ in more than one thing.
        DataError: A folder holds no run, or it is damaged.
    """
    runs = load_runs(run_folders(list(paths)))
    if len(runs) < 2:
        raise UserError("a comparison needs two runs", hint="reason eval compare RUN RUN")
    found = [compare_runs(run, runs[0], allow, force=force) for run in runs[1:]]
    if as_json:
        pairs = [
            PairContent(
                a=c.a.label,
                b=c.b.label,
                compared=tuple(map(str, c.compared)),
                besides=tuple(map(str, c.allowed)),
                score=c.score,
                metrics=c.by_metric,
            )
            for c in found
        ]
        plain = TypeAdapter(list[PairContent]).dump_python(pairs, mode="json")
        write_line(json.dumps(plain, indent=2, ensure_ascii=False))
        return
    for c in found:
        print_comparison(c)
        out().print()


def report_here(paths: Sequence[Path], to: Path | None, title: str) -> None:
    """Write a report; without a file to write, print the table of the runs.

    Raises:
        UserError: The file's name asks for a form that there is not.
        DataError: A folder holds no run, or it is damaged.
    """
    if to is not None and to.suffix.lower() not in FORMS:
        raise UserError(f"--out {to} is not a form of a report", hint="name it .html, .md or .json")
    runs = load_runs(run_folders(list(paths)))
    if to is None:
        found = [(run.label, summarise(run.rows)) for run in runs]
        print_runs(found)
        for label, summary in found:
            say_alarms(label, summary)
        return
    write_report(gather(runs, title), to)
    say(f"{len(runs)} run{'s' if len(runs) != 1 else ''} reported in {to}")
