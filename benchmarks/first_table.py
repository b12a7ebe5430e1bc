r"""`cot` and `self-consistency` at 1, 2, 4, 8 and 16 samples on GSM8K and MATH-500.

    python benchmarks/first_table.py --model vllm/MODEL --data DIRECTORY --out RUNS \
        [--gsm8k 60] [--math500 40] [--max-tokens 400] [--concurrency 16] > table.md

Sixteen samples of each item are recorded once; runs with fewer reuse them from the run store, and their tokens count as
if generated. A stopped run continues with the same arguments. DIRECTORY has gsm8k/ and math500/.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from reason.cli.render.evaluations import EvalView
from reason.core.settings import load_settings
from reason.evals.results import ResultRow
from reason.evals.run_directory import STORE, read_manifest
from reason.evals.statistics.equal_tokens import MIN_VOTES, TokenCurve, accuracy_at
from reason.evals.statistics.paired import compare_paired, holm
from reason.evals.summary import outcomes_of, summarize
from reason.evals.sweep import PlannedRun, Sweep, SweepDataset, SweepModels, SweepStrategy, plan_sweep, run_sweep
from reporting import p_value, paired_points

SAMPLES = [16, 8, 4, 2, 1]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--gsm8k", type=int, default=60)
    parser.add_argument("--math500", type=int, default=40)
    parser.add_argument("--max-tokens", type=int, default=400)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--concurrency", type=int, default=16)
    return parser.parse_args()


def sweep_of(options: argparse.Namespace) -> Sweep:
    """What is run."""
    limits = {"gsm8k": options.gsm8k, "math500": options.math500}
    voting = {"max_tokens": options.max_tokens, "temperature": options.temperature}
    return Sweep(
        dataset=[SweepDataset(name=name, data=options.data, limit=n) for name, n in limits.items() if n],
        models=[SweepModels(main=options.model)],
        strategy=[
            SweepStrategy(name="self-consistency", parameters=voting, vary={"n": list(SAMPLES)}),
            SweepStrategy(name="cot", parameters={"max_tokens": options.max_tokens}),
        ],
    )


def per_cent(value: float) -> str:
    """A share as per cent."""
    return f"{100 * value:.1f}"


def table(jobs: Sequence[PlannedRun], made: Sequence[list[ResultRow]]) -> str:
    """The table as Markdown."""
    lines: list[str] = []
    for name in dict.fromkeys(job.plan.dataset.name for job in jobs):
        runs = [(j, rows) for j, rows in zip(jobs, made, strict=True) if j.plan.dataset.name == name]
        votes = sorted(
            (r for r in runs if r[0].plan.strategy != "cot"), key=lambda r: str(r[0].plan.parameters["n"]).zfill(4)
        )
        cot = next(r for r in runs if r[0].plan.strategy == "cot")
        items = summarize(cot[1]).items
        lines += [
            f"### {name}, {items} items",
            "",
            "| method | accuracy % | 95% interval | less `cot`, points (95%) | tokens/item | paid here | unread % |",
            "| --- | ---: | --- | --- | ---: | ---: | ---: |",
        ]
        against_cot = {job.plan.digest: compare_paired(outcomes_of(rows), outcomes_of(cot[1])) for job, rows in votes}
        adjusted = dict(zip(against_cot, holm([d.p for d in against_cot.values()]), strict=True))
        for job, rows in (cot, *votes):
            s = summarize(rows)
            ends = s.accuracy.interval
            shown = "n/e" if ends is None else f"{per_cent(ends.low)} - {per_cent(ends.high)} ({ends.method})"
            against = "-"
            if job is not cot[0]:
                d = against_cot[job.plan.digest]
                against = f"{paired_points(d)}, {p_value(d.p)}, {p_value(adjusted[job.plan.digest])} (Holm)"
            method = (
                "`cot`, greedy" if job.plan.strategy == "cot" else f"`self-consistency`, n = {job.plan.parameters['n']}"
            )
            lines.append(
                f"| {method} | {per_cent(s.accuracy.value)} | {shown} | {against} | {s.cost.tokens:,.0f} | "
                f"{s.cost.paid_tokens / s.rows:,.0f} | {per_cent(s.unparsed)} |"
            )
        lines += ["", *equal_tokens([v for v in votes if v[0].plan.parameters["n"] >= MIN_VOTES], cot[1]), ""]
    return "\n".join(lines)


def equal_tokens(votes: Sequence[tuple[PlannedRun, list[ResultRow]]], cot: list[ResultRow]) -> list[str]:
    """How self-consistency is at the tokens that `cot` takes."""
    outcomes = [outcomes_of(rows) for _, rows in votes]
    import numpy as np

    tokens = [{r.id: float(r.ledger.completion_tokens) for r in rows} for _, rows in votes]
    ids = outcomes[0].ids
    curve = TokenCurve(
        "self-consistency",
        np.stack([o.only(ids).p for o in outcomes], axis=1),
        np.array([[t[i] for t in tokens] for i in ids]),
    )
    at = summarize(cot).cost.tokens
    ((result,),) = accuracy_at([curve], outcomes[0].clusters, [at])
    if result is None:
        return [f"At the {at:,.0f} tokens an item of `cot`, self-consistency has no measured budget on both sides."]
    return [
        f"At the {at:,.0f} tokens an item of `cot`, self-consistency stands at {per_cent(result.value)}% "
        f"(95% band {per_cent(result.low)} - {per_cent(result.high)})."
    ]


def main() -> int:
    """Run what is missing and print the table."""
    args = arguments()
    settings = load_settings(reuse="store")
    jobs = plan_sweep(sweep_of(args), settings, args.out)
    with EvalView("first table") as view:
        made = asyncio.run(
            run_sweep(
                jobs,
                settings,
                args.out / STORE,
                resume=True,
                concurrency=args.concurrency,
                watch=view.watch,
                progress=view.pulled,
            )
        )
    facts = read_manifest(jobs[0].out).environment
    engines = sorted({identity for rows in made for row in rows for identity in row.engines.values()})
    seconds = sum(row.timing.working_s for rows in made for row in rows)
    print(table(jobs, made))
    print(f"- model: `{Path(args.model).name}`; engine: {', '.join(engines)}")
    print(f"- samples at temperature {args.temperature}, `cot` greedy, at most {args.max_tokens} tokens, seed 0")
    print(
        f"- {platform.processor() or platform.machine()}, {os.cpu_count()} processors; "
        + ", ".join(f"{k} {v}" for k, v in facts.items())
    )
    print(
        f"- {sum(r.ledger.paid_tokens for rows in made for r in rows):,} tokens generated in all; "
        f"summed time in the engine {seconds / 3600:.1f} h, items overlapping"
    )
    for use in {job.dataset.name: job.dataset for job in jobs}.values():
        print(f"- {use.name}: the first items of {Path(use.source).name}, licence {use.licence}. {use.warning}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
