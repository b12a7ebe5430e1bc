"""Hogwild on real questions: passes until there is an answer, tokens and accuracy.

    python benchmarks/hogwild_answers.py plan --model vllm/DIRECTORY --data FILE --workers 1 2 4 > plan.toml
    REASON_VLLM__SHARED_WORKERS=true reason eval sweep plan.toml --out runs --concurrency 40
    python benchmarks/hogwild_answers.py table runs > table.md

A pass is one forward pass of the model, in which each worker writes a token. Passes and tokens less those of one worker
are differences on the same questions, with bootstrap intervals.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from reason.evals.run_directory import EvalRun, SolutionNotes, load_run, read_solution_notes, run_store_path
from reporting import difference_cells, processor
from rlot_table import accuracy, compared_runs

DRAWS = 10_000


def main() -> int:
    """Print a sweep, or the table of one that was run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    plan = commands.add_parser("plan", help="print a sweep")
    plan.add_argument("--model", required=True)
    plan.add_argument("--data", type=Path, required=True)
    plan.add_argument("--limit", type=int, default=40)
    plan.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    plan.add_argument("--passes", type=int, default=320, help="limit of passes")
    plan.add_argument("--layouts", nargs="+", default=["combined"])
    plan.add_argument("--separator", default="\n\n", help="what stands between steps; \\n is a line break")
    table = commands.add_parser("table", help="print the table of a sweep")
    table.add_argument("runs", type=Path, help="the directory that `reason eval sweep` wrote")
    table.add_argument("--store", type=Path, help="the run store, where it is not where the runs say")
    args = parser.parse_args()
    if args.command == "plan":
        print(sweep(args))
        return 0
    runs = [load_run(p) for p in sorted(args.runs.iterdir()) if (p / "run.json").exists()]
    print(asyncio.run(report(sorted(runs, key=order_of), args.store)))
    return 0


def sweep(options: argparse.Namespace) -> str:
    """A sweep over numbers of workers and layouts; one worker has no layout to choose."""
    lines = ["seeds = [0]", "", "[[models]]", f'main = "{options.model}"', ""]
    lines += ["[[dataset]]", f'name = "{options.data.resolve()}"', f"limit = {options.limit}"]
    separator = options.separator.replace("\\n", "\n").replace("\n", "\\n")
    for layout in options.layouts:
        for workers in options.workers:
            if workers == 1 and layout != options.layouts[0]:
                continue
            lines += ["", "[[strategy]]", 'name = "hogwild"', "[strategy.parameters]", f"workers = {workers}"]
            lines += [f'layout = "{layout}"', f"max_passes = {options.passes}", "any_model = true"]
            lines.append(f'separator = "{separator}"')
    return "\n".join(lines)


def order_of(run: EvalRun) -> tuple[str, int]:
    """One worker first, then by layout and number."""
    workers = int(str(run.manifest.plan.parameters["workers"]))
    return "" if workers == 1 else str(run.manifest.plan.parameters["layout"]), workers


async def report(runs: Sequence[EvalRun], store: Path | None) -> str:
    """The table, and under what it was made."""
    notes = [await read_solution_notes(run.rows, run_store_path(run, store)) for run in runs]
    plan = runs[0].manifest.plan
    lines = [
        f"{plan.models['main']}, {processor()}, reason {version('reason-orchestrator')}, {datetime.now(UTC):%Y-%m-%d}. "
        f"{len(runs[0].rows)} questions each; seed {', '.join(map(str, sorted({row.seed for row in runs[0].rows})))}; "
        f"at most {plan.parameters['max_passes']} passes. Means for a question, with 95 % intervals; differences "
        "are to one worker, on the same questions.",
        "",
        "| layout | workers | right % | less one worker, points | passes | passes less one worker | tokens "
        "| tokens less one worker | answered while working % | steps of each worker |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    first = row_values(runs[0], notes[0])
    less = difference_cells([compared_runs(run, runs[0]) for run in runs])
    for run, noted, difference in zip(runs, notes, less, strict=True):
        mine = row_values(run, noted)
        single = run is runs[0]
        lines.append(
            "| "
            + " | ".join(
                [
                    "" if single else str(run.manifest.plan.parameters["layout"]),
                    str(run.manifest.plan.parameters["workers"]),
                    accuracy(run),
                    difference,
                    mean(mine["passes"]),
                    "" if single else difference_of(mine["passes"], first["passes"]),
                    mean(mine["tokens"]),
                    "" if single else difference_of(mine["tokens"], first["tokens"]),
                    f"{100 * np.mean([one['finisher'] is False for one in noted if one]):.0f}",
                    " / ".join(f"{s:.1f}" for s in steps(noted)),
                ]
            )
            + " |"
        )
    return "\n".join(lines)


def row_values(run: EvalRun, noted: Sequence[SolutionNotes | None]) -> dict[str, dict[str, float]]:
    """Passes and tokens of each question, by its name and seed."""
    results: dict[str, dict[str, float]] = {"passes": {}, "tokens": {}}
    for row, one in zip(run.rows, noted, strict=True):
        if one is not None:
            key = f"{row.id}/{row.seed}"
            results["passes"][key] = float(str(one["passes"]))
            results["tokens"][key] = float(row.ledger.completion_tokens)
    return results


def steps(noted: Sequence[SolutionNotes | None]) -> list[float]:
    """Mean number of finished steps of each worker."""
    counts = [one["steps"] for one in noted if one]
    return [float(v) for v in np.mean(np.array(counts, dtype=float), axis=0)]


def mean(values: dict[str, float]) -> str:
    """A mean with its interval."""
    result = np.array(list(values.values()))
    low, high = interval(result)
    return f"{result.mean():.0f} [{low:.0f}, {high:.0f}]"


def difference_of(mine: dict[str, float], other: dict[str, float]) -> str:
    """A mean paired difference with its interval."""
    both = [key for key in mine if key in other]
    result = np.array([mine[key] - other[key] for key in both])
    low, high = interval(result)
    return f"{result.mean():+.0f} [{low:+.0f}, {high:+.0f}]"


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 % of the means of samples with replacement."""
    sampled = np.random.default_rng(0).choice(values, (DRAWS, len(values))).mean(1)
    return float(np.quantile(sampled, 0.025)), float(np.quantile(sampled, 0.975))


if __name__ == "__main__":
    sys.exit(main())
