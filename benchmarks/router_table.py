r"""What does it bring to share a chain of thought between two models? A table per dataset, and what probing costs.

    reason calibrate router --data gsm8k=TRAIN.jsonl --limit 50 -m LARGE --small-model SMALL --out pair.json
    python benchmarks/router_table.py plan --large LARGE --small SMALL --data gsm8k=FILE math500=FILE --limit 100 \
        --routers pair.json --rates 0.1 0.5 --out plans
    reason eval sweep plans/gsm8k.toml --out runs/gsm8k --concurrency 1 --reuse none
    reason eval sweep plans/gsm8k-small.toml --out runs/gsm8k-small --concurrency 1 --reuse none
    python benchmarks/router_table.py table runs/gsm8k runs/gsm8k-small > table.md

Seconds are those of rows that were answered in one go, with nothing from the run store; they are latencies only if one
row at a time was under way (`--concurrency 1`): `table --batched` prints none for rows that were answered side by side.
A machine is not always as fast. Cut the questions into files of one, and a sweep asks every method a question before it
goes on to the next; `table --pool` puts them together again.
Step counts and shares are those that the runs noted in the run store.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from machine import made_here
from reason.evals.comparison import StoredRun, load_run
from rlot_table import accuracy, difference
from router_cells import (
    UNKNOWN,
    Watched,
    is_baseline,
    method_of,
    order_of,
    probe_rows,
    seconds,
    share_cells,
    speeds,
    tokens_of,
    watch,
)
from router_sweeps import add_plan, sweep_files

BASELINES = (("cot", "large, one request"), ("large", "large, step by step"))
"""Two ways of leaving everything to the large model, with which every method is compared."""


def main() -> int:
    """Write the sweeps, or print the tables of those that were run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    add_plan(commands.add_parser("plan", help="write two sweeps for each dataset"))
    table = commands.add_parser("table", help="print a table for each dataset")
    table.add_argument("runs", type=Path, nargs="+", help="folders that `reason eval sweep` wrote")
    table.add_argument("--store", type=Path, help="the run store, where it is not where the runs say")
    table.add_argument("--batched", action="store_true", help="rows were answered side by side: print no seconds")
    table.add_argument("--pool", action="store_true", help="all datasets are pieces of one")
    given = parser.parse_args()
    if given.command == "plan":
        measured = [measured_rate(folder) for folder in given.random_like]
        for path, text in sweep_files(given, measured).items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(path)
    else:
        runs = [load_run(p) for folder in given.runs for p in sorted(folder.iterdir()) if (p / "run.json").exists()]
        watched = asyncio.run(watch(runs, given.store))
        print(report(pooled(watched) if given.pool else watched, timed=not given.batched))
    return 0


def measured_rate(folder: Path) -> float:
    """The share of steps that a run of `glimp` sent to the large model, to a thousandth."""
    (watched,) = asyncio.run(watch([load_run(folder)], None))
    rate = watched.intervention_rate
    if rate is None:
        raise SystemExit(f"{folder} is no run whose steps were routed")
    return round(rate, 3)


def pooled(runs: Sequence[Watched]) -> list[Watched]:
    """Runs of the same method on the pieces of a dataset as one run each; the first piece lends its name."""
    first = runs[0].run.manifest.plan.dataset
    by_method: dict[str, tuple[StoredRun, list[Watched]]] = {}
    for watched in runs:
        run = watched.run
        plan = run.manifest.plan.model_copy(update={"dataset": first})
        named = replace(run, manifest=run.manifest.model_copy(update={"plan": plan}))
        by_method.setdefault(plan.model_dump_json(), (named, []))[1].append(watched)
    found: list[Watched] = []
    for named, pieces in by_method.values():
        whole = replace(named, rows=[row for piece in pieces for row in piece.rows])
        notes = tuple(noted for piece in pieces for noted in piece.notes)
        found.append(Watched(whole, notes, tuple(one for piece in pieces for one in piece.timed)))
    return found


def report(runs: Sequence[Watched], *, timed: bool) -> str:
    """A table for each dataset, in the order of their names; with seconds, or without."""
    by_dataset: dict[tuple[str, str], list[Watched]] = {}
    for run in runs:
        use = run.run.manifest.plan.dataset
        by_dataset.setdefault((use.whole_name, use.fingerprint), []).append(run)
    parts = [made_here()]
    for (name, _), several in sorted(by_dataset.items(), key=lambda pair: pair[0]):
        parts.append(dataset_table(name, several, timed=timed))
        parts += [*probing(several), *timing(several)] if timed else []
    return "\n\n".join(parts)


def dataset_table(name: str, runs: Sequence[Watched], *, timed: bool) -> str:
    """One dataset: a row for each method, by pair of models."""
    rows = max(len(run.rows) for run in runs)
    heads = [
        "method",
        "right % [95 %]",
        *(["s p50 / p95 (n)"] if timed else []),
        "tokens large",
        "tokens small",
        "thrown away",
        "steps",
        "to large %",
        "large's share of the text %",
        *(f"less {words} [95 %]" for _, words in BASELINES),
    ]
    lines = [
        f"## {name}",
        "",
        f"{rows} rows each. Tokens are generated ones; tokens and steps are means a question; differences are in "
        "points. To large: share of the steps that it wrote; of a cascade or question router, share of the questions "
        "that it was asked.",
        "",
        "| " + " | ".join(heads) + " |",
        "| --- | " + " | ".join(["---:"] * (len(heads) - 1)) + " |",
    ]
    ordered = sorted(runs, key=lambda run: order_of(run.run))
    large = next(
        (run.run.manifest.plan.models["main"] for run in ordered if "small" in run.run.manifest.plan.models), ""
    )
    baselines = [baseline(ordered, kind, large) for kind, _ in BASELINES]
    for run in ordered:
        cells = [
            method_of(run.run, large),
            accuracy(run.run),
            *([seconds(run.rows)] if timed else []),
            tokens_of(run, "large", large),
            tokens_of(run, "small", large),
            *share_cells(run),
            *(UNKNOWN if base is None or base is run.run else difference(run.run, base) for base in baselines),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def baseline(runs: Sequence[Watched], kind: str, large: str) -> StoredRun | None:
    """The run in which the large model did everything; None if there is none."""
    return next((run.run for run in runs if is_baseline(run.run, kind, large)), None)


def probing(runs: Sequence[Watched]) -> list[str]:
    """Speculative against separate probes, where both were run with all else alike."""
    rows = probe_rows(runs)
    if not rows:
        return []
    head = (
        "| threshold | speculative s p50 | separate s p50 | speculative less separate, s a question [95 %] | n "
        "| thrown away, speculative | thrown away, separate | calls, speculative | calls, separate |"
    )
    explained = (
        "Speculative: probe and step in one call, the step broken off where the large model is to write it. Separate: "
        "a round trip for the probe first. Thrown away: probes, and steps broken off; tokens and calls a question."
    )
    lines = ["### Speculative and separate probes", "", explained, "", head, "| ---: " * 9 + "|", *rows]
    return ["\n".join(lines)]


def timing(runs: Sequence[Watched]) -> list[str]:
    """Seconds for each token of the two models, from the calls that were timed."""
    rows = speeds(runs)
    if not rows:
        return []
    head = "| model | calls | ms a computed prompt token | ms a generated token |"
    explained = (
        "Least squares over the calls of step loops with separate probes that the run store did not answer; a latency "
        "model only if one row at a time was under way."
    )
    return ["\n".join(["### Seconds by token", "", explained, "", head, "| --- | ---: | ---: | ---: |", *rows])]


if __name__ == "__main__":
    sys.exit(main())
