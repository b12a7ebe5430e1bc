"""Step-level searches on a real model: accuracy against tokens, next to best-of-N at equal tokens.

    python benchmarks/step_search_real.py sweep --model vllm/DIRECTORY --data DIRECTORY > sweep.toml
    reason eval sweep sweep.toml --out RUNS --concurrency 4
    python benchmarks/step_search_real.py table RUNS > table.md

All methods sample the same steps from the same model under the same instruction, score them by the same source, and
share one run store: equal prefixes get equal steps. Best-of-N is the degenerate beam, `width=N, k=1`, whose complete
chains are scored. A search is compared, question by question, with the best-of-N of the fewest chains that spends at
least as many tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
from collections import defaultdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from reason.core.store.sqlite import SqliteStore
from reason.core.types import Question
from reason.evals.run_directory import EvalRun, load_run
from reason.evals.statistics.paired import compare_paired, holm
from reason.evals.summary import outcomes_of
from reason.reasoning.prompts import steps_instruction
from reporting import paired_points, share, short_p, strategy_blocks

SIZES = (2, 4, 8)
CHAINS = (1, 2, 4, 8)

SWEEP = """seeds = [{seed}]

[[models]]
main = "{model}"

[[dataset]]
name = "gsm8k"
data = "{data}"
limit = {limit}
"""


def main() -> int:
    """Print a sweep, or the table of one that was run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    sweep = commands.add_parser("sweep")
    sweep.add_argument("--model", required=True)
    sweep.add_argument("--data", type=Path, required=True)
    sweep.add_argument("--limit", type=int, default=40)
    sweep.add_argument("--seed", type=int, default=0)
    sweep.add_argument("--score", default="judge+arithmetic")
    sweep.add_argument(
        "--gen-tokens", type=int, default=2048, help="the most that a search may generate for a question"
    )
    table = commands.add_parser("table")
    table.add_argument("--store", type=Path, help="their run store, for what the engine's cache had")
    table.add_argument("runs", type=Path, nargs="+", help="folders that `reason eval sweep` wrote")
    args = parser.parse_args()
    if args.command == "sweep":
        print(sweep_file(args.model, args.data, args.limit, args.seed, args.score, args.gen_tokens))
    else:
        print(asyncio.run(report(args.runs, args.store)))
    return 0


def sweep_file(model: str, data: Path, limit: int, seed: int, score: str, gen_tokens: int) -> str:
    """The sweep as TOML."""
    common = {
        "score": f'"{score}"',
        "instruction": f'"""{steps_instruction(Question(text="How many?", kind="number"))}"""',
        "temperature": "0.8",
        "max_step_tokens": "200",
        "max_depth": "16",
        "limits": f"{{gen_tokens = {gen_tokens}, finish_tokens = 128}}",
    }
    methods: list[tuple[str, dict[str, object]]] = [("beam", {"width": n, "k": 1}) for n in reversed(CHAINS)]
    for n in reversed(SIZES):
        methods += [
            ("particle-filter", {"n": n}),
            ("astar", {"k": n}),
            ("beam", {"width": n // 2, "k": 2}),
            ("beam", {"width": n // 2, "k": 2, "diverse": "true"}),
        ]
        if n > min(SIZES):
            methods.append(("particle-filter", {"n": n // 2, "iterations": 2}))
    parts = [SWEEP.format(model=model, data=data, limit=limit, seed=seed)]
    written = [(name, common | {key: str(value) for key, value in size.items()}) for name, size in methods]
    return "\n".join([*parts, *strategy_blocks(written)])


async def report(folders: list[Path], store: Path | None) -> str:
    """The table in Markdown."""
    runs = [
        load_run(path) for directory in folders for path in sorted(directory.iterdir()) if (path / "run.json").exists()
    ]
    runs = [run for run in runs if run.manifest.complete]
    chains = sorted((run for run in runs if is_best_of_n(run)), key=tokens_of)
    searches = sorted((run for run in runs if not is_best_of_n(run)), key=lambda run: (name_of(run), tokens_of(run)))
    plan = runs[0].manifest.plan
    lines = [
        f"{plan.dataset.name}, {len(chains[0].rows)} questions, {plan.models['main'].rpartition('/')[2]}; "
        f"steps scored by {plan.parameters['score']}. {os.cpu_count()} cores, {platform.machine()}, reason "
        f"{version('reason-orchestrator')}, {datetime.now(UTC):%Y-%m-%d}.",
        "",
        "| method | size | tokens a question | scored prefixes a question | accuracy % [95 %] | best-of-N beside it "
        "| difference in points [95 %] | won, lost | p | p (Holm) |",
        "| --- | --- | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for run in chains:
        lines.append(
            f"| best-of-N | {size_of(run)} | {tokens_of(run):,.0f} | {passes_of(run):.1f} | {accuracy(run)} | | | | | |"
        )
    besides = [next((c for c in chains if tokens_of(c) >= tokens_of(run)), chains[-1]) for run in searches]
    results = [
        compare_paired(outcomes_of(run.rows), outcomes_of(beside.rows))
        for run, beside in zip(searches, besides, strict=True)
    ]
    adjusted_ps = holm([result.p for result in results])
    for run, beside, result, adjusted in zip(searches, besides, results, adjusted_ps, strict=True):
        lines.append(
            f"| {name_of(run)} | {size_of(run)} | {tokens_of(run):,.0f} | {passes_of(run):.1f} | {accuracy(run)} "
            f"| {size_of(beside)}, {tokens_of(beside):,.0f} tokens | {paired_points(result)} "
            f"| {result.wins}, {result.losses} | {short_p(result.p)} | {short_p(adjusted)} |"
        )
    if store is not None:
        lines += ["", await reuse(store, runs)]
    return "\n".join(lines)


def is_best_of_n(run: EvalRun) -> bool:
    """Whether a run is the degenerate beam."""
    plan = run.manifest.plan
    return plan.strategy == "beam" and plan.parameters["k"] == 1


def name_of(run: EvalRun) -> str:
    """The method."""
    return run.manifest.plan.strategy


def size_of(run: EvalRun) -> str:
    """The parameters that say how much is sampled."""
    parameters = run.manifest.plan.parameters
    if is_best_of_n(run):
        return f"N={parameters['width']}"
    return ", ".join(f"{k}={parameters[k]}" for k in ("n", "iterations", "width", "subtrees", "k") if k in parameters)


def tokens_of(run: EvalRun) -> float:
    """Mean generated tokens a question, whether or not the store had them."""
    return float(np.mean([row.ledger.completion_tokens for row in run.rows]))


def passes_of(run: EvalRun) -> float:
    """Mean passes of what scores a question."""
    return float(np.mean([row.ledger.reward_calls for row in run.rows]))


def accuracy(run: EvalRun) -> str:
    """Share of right answers with its interval over questions."""
    return share([float(row.value or 0) for row in run.rows])


async def reuse(path: Path, runs: list[EvalRun]) -> str:
    """Share of prompt tokens that the engine had in its cache, over the calls that these runs have."""
    prompt: dict[str, int] = defaultdict(int)
    cached: dict[str, int] = defaultdict(int)
    seen: set[str] = set()
    store = await SqliteStore.open(path)
    try:
        for run in runs:
            for row in run.rows:
                for call in await store.list_calls(row.run_id):
                    usage = call.response.get("usage")
                    if isinstance(usage, dict) and call.key not in seen:  # recorded by one run, reused by others
                        seen.add(call.key)
                        kind = "scoring" if "reward" in call.request else "sampling"
                        prompt[kind] += int(str(usage.get("prompt_tokens", 0)))
                        cached[kind] += int(str(usage.get("cached_tokens", 0)))
    finally:
        await store.aclose()
    full = sum(cached.values()) / max(1, sum(prompt.values()))
    each = ", ".join(f"{kind} {100 * cached[kind] / max(1, prompt[kind]):.1f} %" for kind in sorted(prompt))
    return f"Prompt tokens found in the engine's cache: {100 * full:.1f} % ({each})."


if __name__ == "__main__":
    sys.exit(main())
