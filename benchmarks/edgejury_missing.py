"""What of the sweeps is not finished, so that no table drops it silently."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from edgejury_cells import method_of
from edgejury_sittings import JURY
from reason.core.model_roles import CHAIR, jurors_of
from reason.evals.comparison import StoredRun
from reason.evals.sweep import SweptRun, read_sweep, runs_of
from reason.reasoning.strategy import make_strategy


def missing_lines(runs: Sequence[StoredRun], plans: Path | None = None) -> list[str]:
    """A line for each run that has not all its rows, or rows that ended with an error, and for each that was not begun.

    Args:
        runs: All runs that have a row.
        plans: Folder of the sweeps; without it nobody knows what was not begun.
    """
    lines = []
    for run in runs:
        wanted, failed = len(run.manifest.keys), sum(row.error is not None for row in run.rows)
        if len(run.rows) < wanted:
            lines.append(f"{method_of(run)} ({run.path.name}): {len(run.rows)} of {wanted} rows.")
        if failed:
            lines.append(f"{method_of(run)} ({run.path.name}): {failed} rows ended with an error and count as wrong.")
    if plans is None:
        return [*lines, "What was planned and not begun is not known: no --plans."]
    begun = {identity(run) for run in runs}
    for path in sorted(plans.glob("*.toml")):
        sweep = read_sweep(path)
        lines += [
            f"{path.name}: {told(one)}: no row."
            for one in runs_of(sweep)
            if planned_identity(one, sweep.seeds) not in begun
        ]
    return lines


def identity(run: StoredRun) -> str:
    """What tells a run from others: method, models, seeds, and how many questions."""
    plan = run.manifest.plan
    jury = (jurors_of(plan.models), plan.models.get(CHAIR)) if plan.strategy == JURY else ()
    return json.dumps(
        [plan.strategy, plan.parameters, plan.models["main"], jury, plan.limit, plan.seeds], sort_keys=True
    )


def planned_identity(planned: SweptRun, seeds: Sequence[int]) -> str:
    """The same of a run that a sweep plans."""
    models = planned.models
    if models is None:
        raise SystemExit("the sweep names no models, so nobody knows whose runs it plans")
    complete = make_strategy(planned.strategy, planned.parameters)[1]
    jury = (models.jurors, models.chair) if planned.strategy == JURY else ()
    known = [planned.strategy, complete, models.main, jury, planned.dataset.limit, tuple(seeds)]
    return json.dumps(known, sort_keys=True)


def told(planned: SweptRun) -> str:
    """A planned run in a few words."""
    main = "" if planned.models is None else planned.models.main
    said = ", ".join(f"{key} = {value}" for key, value in planned.parameters.items() if key != "instruction")
    return f"{planned.strategy} of {main}" + (f" ({said})" if said else "")
