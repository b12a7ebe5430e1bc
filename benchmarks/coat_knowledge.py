"""`coat`, `rag` and `cot` on multi-hop questions, at equal tokens.

    python benchmarks/multihop_questions.py … (see there)
    python benchmarks/coat_knowledge.py sweep --model vllm/DIRECTORY --questions FILE --documents DIR > sweep.toml
    reason eval sweep sweep.toml --out RUNS --concurrency 16
    python benchmarks/coat_knowledge.py table RUNS > table.md

`coat` queries the documents during the search; `association=none` searches without them; `rag` retrieves once with the
question and lets as many chains vote as reach `coat`'s tokens; `cot` is as many chains without documents. Each is
compared with `coat` question by question: exact match and F1 after SQuAD's normalization.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from reason.evals.results import ResultRow
from reason.evals.run_directory import EvalRun, load_run
from reason.evals.statistics.paired import compare_paired, holm
from reason.evals.summary import outcomes_of
from reporting import paired_points, share, short_p, strategy_blocks

INSTRUCTION = (
    'Think step by step, briefly. End with a last line "The answer is" and the answer alone: a name, a date, a number '
    "or yes or no, as short as possible."
)

SWEEP = """seeds = [{seed}]
context = ["{documents}"]

[[models]]
main = "{model}"

[[dataset]]
name = "{questions}"
limit = {limit}
options = {{kind = "text"}}
"""


def main() -> int:
    """Print a sweep, or the table of one that was run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    sweep = commands.add_parser("sweep")
    sweep.add_argument("--model", required=True)
    sweep.add_argument("--questions", type=Path, required=True)
    sweep.add_argument("--documents", type=Path, required=True)
    sweep.add_argument("--limit", type=int, default=60)
    sweep.add_argument("--seed", type=int, default=0)
    sweep.add_argument("--k", type=int, default=2)
    sweep.add_argument("--expansions", type=int, default=4)
    sweep.add_argument("--depth", type=int, default=4)
    sweep.add_argument("--judging", default="merged")
    sweep.add_argument("--associations", nargs="+", default=["written", "quoted"])
    sweep.add_argument("--chains", type=int, nargs="+", default=[1, 8])
    table = commands.add_parser("table")
    table.add_argument("runs", type=Path, nargs="+", help="folders that `reason eval sweep` wrote")
    args = parser.parse_args()
    print(sweep_file(args) if args.command == "sweep" else report(args.runs))
    return 0


def sweep_file(options: argparse.Namespace) -> str:
    """The sweep as TOML."""
    tree: dict[str, object] = {
        "k": options.k,
        "expansions": options.expansions,
        "max_depth": options.depth,
        "max_step_tokens": 80,
        "judging": f'"{options.judging}"',
        "limits": "{finish_tokens = 48}",
    }
    chains: dict[str, object] = {"max_tokens": 256, "instruction": f'"""{INSTRUCTION}"""'}
    methods: list[tuple[str, dict[str, object]]] = []
    for n in sorted(options.chains, reverse=True):
        warm = 0.0 if n == 1 else 0.7
        methods += [
            ("rag", {**chains, "n": n, "temperature": warm, "snippets": 5}),
            ("self-consistency", {**chains, "n": n, "temperature": warm}),
        ]
    methods += [("coat", {**tree, "association": f'"{how}"'}) for how in options.associations]
    methods.append(("coat", {**tree, "association": '"none"'}))
    parts = [
        SWEEP.format(
            seed=options.seed,
            documents=options.documents.absolute(),
            model=options.model,
            questions=options.questions.absolute(),
            limit=options.limit,
        )
    ]
    return "\n".join([*parts, *strategy_blocks(methods)])


def report(folders: list[Path]) -> str:
    """The table in Markdown."""
    runs = [
        load_run(path) for directory in folders for path in sorted(directory.iterdir()) if (path / "run.json").exists()
    ]
    short = [run.label for run in runs if not run.manifest.complete]
    if not runs or short:
        raise SystemExit(f"not finished: {', '.join(short)}" if short else "there are no runs in these folders")
    runs.sort(key=lambda run: (run.manifest.plan.strategy, tokens_of(run)))
    plan = runs[0].manifest.plan
    lines = [
        f"{len(runs[0].rows)} questions, {plan.models['main'].rpartition('/')[2]}. {os.cpu_count()} cores, "
        f"{platform.machine()}, reason {version('reason-orchestrator')}, {datetime.now(UTC):%Y-%m-%d}.",
        "",
        "| method | tokens a question | prompt tokens, cached | seconds | exact match % [95 %] | F1 % [95 %] |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for run in runs:
        lines.append(
            f"| {name_of(run)} | {tokens_of(run):,.0f} | {prompt_of(run)} | {seconds_of(run):.0f} "
            f"| {share([float(r.value or 0) for r in run.rows])} | {share([f1_of(r) for r in run.rows])} |"
        )
    lines += [
        "",
        "Paired, the first less the second, in points:",
        "",
        "| first | second | tokens | exact match [95 %] | won, lost | p | p (Holm) | F1 [95 %] | F1: p |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    coats = [run for run in runs if run.manifest.plan.strategy == "coat"]
    pairs = [
        (run, other)
        for at, run in enumerate(coats)
        for other in (*coats[at + 1 :], *(other for other in runs if other.manifest.plan.strategy != "coat"))
    ]
    results = [compare_paired(outcomes_of(run.rows), outcomes_of(other.rows)) for run, other in pairs]
    for (run, other), result, adjusted in zip(pairs, results, holm([r.p for r in results]), strict=True):
        f1 = compare_paired(outcomes_of(run.rows, "f1"), outcomes_of(other.rows, "f1"))
        lines.append(
            f"| {name_of(run)} | {name_of(other)} | {tokens_of(run):,.0f}, {tokens_of(other):,.0f} "
            f"| {paired_points(result)} | {result.wins}, {result.losses} | {short_p(result.p)} | {short_p(adjusted)} "
            f"| {paired_points(f1)} | {short_p(f1.p)} |"
        )
    lines += ["", "By kind of question, exact match:", "", *by_kind(runs)]
    return "\n".join(lines)


def name_of(run: EvalRun) -> str:
    """Method and size."""
    plan = run.manifest.plan
    size = f"n={plan.parameters['n']}" if "n" in plan.parameters else f"k={plan.parameters['k']}"
    if plan.strategy == "coat":
        size += f", {plan.parameters['expansions']} expansions"
    how = f", {plan.parameters['association']}" if plan.strategy == "coat" else ""
    return f"{'cot' if plan.strategy == 'self-consistency' else plan.strategy} {size}{how}"


def tokens_of(run: EvalRun) -> float:
    """Mean generated tokens a question."""
    return float(np.mean([row.ledger.completion_tokens for row in run.rows]))


def prompt_of(run: EvalRun) -> str:
    """Mean prompt tokens a question and the share of them that the engine had."""
    full = sum(row.ledger.prompt_tokens for row in run.rows)
    cached = sum(row.timing.cached_tokens for row in run.rows)
    return f"{full / len(run.rows):,.0f}, {100 * cached / max(1, full):.0f} %"


def seconds_of(run: EvalRun) -> float:
    """Mean seconds a question next to the others that were in flight."""
    return float(np.mean([row.timing.wall_s for row in run.rows]))


def f1_of(row: ResultRow) -> float:
    """F1 of an answer."""
    return float(row.metrics.get("f1") or 0.0)


def by_kind(runs: list[EvalRun]) -> list[str]:
    """Exact match by kind of question."""
    kinds = Counter(kind_of(row) for row in runs[0].rows)
    names = [name for name, _ in kinds.most_common()]
    lines = ["| method | " + " | ".join(f"{name} ({kinds[name]})" for name in names) + " |"]
    lines.append("| --- |" + " ---: |" * len(names))
    for run in runs:
        cells = []
        for name in names:
            right = [float(row.value or 0) for row in run.rows if kind_of(row) == name]
            cells.append(f"{100 * np.mean(right):.0f}")
        lines.append(f"| {name_of(run)} | " + " | ".join(cells) + " |")
    return lines


def kind_of(row: ResultRow) -> str:
    """What kind of question a row is: a comparison, or a bridge."""
    return "comparison" if row.subject.startswith("compare") else "bridge"


if __name__ == "__main__":
    sys.exit(main())
