r"""RLoT: its policies next to `cot` and self-consistency at equal tokens, a table for each dataset.

    python benchmarks/rlot_table.py plan --models vllm/A vllm/B --data gsm8k=FILE gpqa=FILE --limit 200 --out plans \
        --navigator nav.safetensors
    reason eval sweep plans/gsm8k.toml --out runs/gsm8k --concurrency 16
    python benchmarks/rlot_table.py table runs/gsm8k runs/gpqa > table.md

Questions of several datasets may share a file, with the dataset as their `subject`, to fill the engine's batches;
`table --by-subject` separates them.

A row is a method of a model. It is compared with the model's learned navigator question by question, and with
self-consistency at equal generated tokens, interpolated between numbers of samples. Chain lengths and unreadable scores
come from the run store's notes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from reason.core.errors import UserError
from reason.core.events import Event, StrategyNote
from reason.core.store.sqlite import SqliteStore
from reason.evals.run_directory import STORE, EvalRun, load_run
from reason.evals.statistics.equal_tokens import MIN_VOTES, InterpolatedAccuracy, TokenCurve, difference_at
from reason.evals.statistics.outcomes import number_groups
from reason.evals.statistics.paired import PairedComparison, compare_paired
from reason.evals.summary import mean_of, outcomes_of
from reporting import difference_cells, made_here, strategy_blocks

POLICIES = ("learned", "fixed", "llm")
"""The policies of `rlot`, in the order of the tables."""


def sweep_files(options: argparse.Namespace) -> dict[Path, str]:
    """A sweep for each dataset as TOML, by its file."""
    models = "\n".join(f"[[models]]\nmain = {json.dumps(name)}\n" for name in options.models)
    files: dict[Path, str] = {}
    for word in options.data:
        name, _, file = word.partition("=")
        lines = ["[[dataset]]", f"name = {json.dumps(absolute_if_file(name))}"]
        lines += [f"data = {json.dumps(str(Path(file).absolute()))}"] if file else []
        lines += [f"limit = {options.limit}"] if options.limit else []
        own = name.endswith((".jsonl", ".csv"))
        lines += [f"options = {{kind = {json.dumps(options.kind)}}}"] if own and options.kind else []
        path = options.out / f"{Path(name).stem.replace(':', '-')}.toml"
        if path in files:
            raise SystemExit(f"two datasets would be written to {path}")
        parts = [f"seeds = {options.seeds}\n", models, "\n".join(lines) + "\n", *strategy_blocks(methods(options))]
        files[path] = "\n".join(parts)
    return files


def methods(options: argparse.Namespace) -> list[tuple[str, dict[str, object]]]:
    """Strategies with their parameters as TOML; self-consistency with more samples first."""
    chains: dict[str, object] = {"max_tokens": options.max_tokens}
    results: list[tuple[str, dict[str, object]]] = [
        ("self-consistency", {**chains, "n": n, "temperature": 0.7}) for n in sorted(options.samples, reverse=True)
    ]
    results.append(("cot", {**chains, "temperature": 0.0}))
    shared: dict[str, object] = dict(word.split("=", 1) for word in options.set)
    for policy in options.policies:
        navigators = options.navigator if policy == "learned" else [None]
        for navigator in navigators:
            own = {} if navigator is None else {"navigator": json.dumps(absolute_if_file(navigator))}
            for votes in options.votes if policy == "learned" else [1]:
                results.append(("rlot", {"policy": json.dumps(policy), **own, "n_votes": votes, **shared}))
    return results


def absolute_if_file(name: str) -> str:
    """A file's absolute path; any other name as it is."""
    return str(Path(name).absolute()) if name.endswith((".jsonl", ".csv", ".safetensors")) else name


TRAINED_ON = "the navigator was trained on this very question"
UNKNOWN = ""


@dataclass(frozen=True)
class Chains:
    """What the runs of one method noted of their chains.

    Attributes:
        lengths: Blocks before the answer, of each attempt.
        expected: Scores that self-assessments should have.
        missing: Those of them that could not be read.
    """

    lengths: tuple[int, ...] = ()
    expected: int = 0
    missing: int = 0


def main() -> int:
    """Write the sweeps, or print the tables of those that were run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    plan = commands.add_parser("plan", help="write a sweep for each dataset")
    plan.add_argument("--models", nargs="+", required=True)
    plan.add_argument("--data", nargs="+", required=True, metavar="NAME[=FILE]")
    plan.add_argument("--out", type=Path, required=True)
    plan.add_argument("--navigator", nargs="+", default=["default"])
    plan.add_argument("--policies", nargs="+", default=list(POLICIES), choices=POLICIES)
    plan.add_argument("--samples", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    plan.add_argument("--votes", type=int, nargs="+", default=[1])
    plan.add_argument("--limit", type=int)
    plan.add_argument("--seeds", type=int, nargs="+", default=[0])
    plan.add_argument("--max-tokens", type=int, default=512)
    plan.add_argument("--kind", default="", help="kind of answers of files of one's own, as number")
    plan.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="parameters of every rlot, in TOML")
    table = commands.add_parser("table", help="print a table for each dataset")
    table.add_argument("runs", type=Path, nargs="+", help="folders that `reason eval sweep` wrote")
    table.add_argument("--by-subject", action="store_true", help="a table for each subject of the questions as well")
    table.add_argument("--store", type=Path, help="the run store, where it is not where the runs say")
    args = parser.parse_args()
    if args.command == "plan":
        for path, text in sweep_files(args).items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(path)
    else:
        runs = [
            load_run(p) for directory in args.runs for p in sorted(directory.iterdir()) if (p / "run.json").exists()
        ]
        if args.by_subject:
            runs += [part for run in runs for part in by_subject(run)]
        print(report(runs, [asyncio.run(chains_of(run, args.store)) for run in runs]))
    return 0


def report(runs: Sequence[EvalRun], chains: Sequence[Chains]) -> str:
    """A table for each dataset, in the order of their names."""
    by_dataset: dict[tuple[str, str, str], list[tuple[EvalRun, Chains]]] = {}
    for run, noted in zip(runs, chains, strict=True):
        use = run.manifest.plan.dataset
        subjects = {row.subject for row in run.rows}
        subject = subjects.pop() if len(subjects) == 1 else ""
        by_dataset.setdefault((use.full_name, use.fingerprint, subject), []).append((run, noted))
    parts = [made_here()]
    for (name, _, subject), several in sorted(by_dataset.items(), key=lambda pair: pair[0]):
        parts.append(dataset_table(f"{name}, {subject}" if subject else name, several))
    return "\n\n".join(parts)


def by_subject(run: EvalRun) -> list[EvalRun]:
    """A run cut into the subjects of its questions; nothing if there is one only."""
    subjects = sorted({row.subject for row in run.rows})
    if len(subjects) == 1:
        return []
    return [replace(run, rows=[row for row in run.rows if row.subject == name]) for name in subjects]


def dataset_table(name: str, runs: Sequence[tuple[EvalRun, Chains]]) -> str:
    """One dataset: a row for each model and method."""
    rows = max(len(run.rows) for run, _ in runs)
    lines = [
        f"## {name}",
        "",
        f"{rows} rows each. Tokens, calls and blocks are means a question; differences are in points.",
        "",
        "| model | method | right % [95 %] | generated | prompt | calls | blocks | unread scores % "
        "| learned less it [95 %] | it less self-consistency at its tokens [95 %] |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    doubts: list[str] = []
    for model in dict.fromkeys(model_of(run) for run, _ in runs):
        mine = sorted(((r, c) for r, c in runs if model_of(r) == model), key=lambda pair: order_of(pair[0]))
        learned = next((r for r, _ in mine if policy_of(r) == "learned"), None)
        sampled = [r for r, _ in mine if r.manifest.plan.strategy == "self-consistency"]
        less = difference_cells([compared_runs(learned, run) for run, _ in mine], UNKNOWN)
        for (run, noted), difference in zip(mine, less, strict=True):
            cells = [
                model.rpartition("/")[2],
                method_of(run),
                accuracy(run),
                f"{mean_of_rows(run, 'completion_tokens'):,.0f}",
                f"{mean_of_rows(run, 'prompt_tokens'):,.0f}",
                f"{mean_of_rows(run, 'model_calls'):,.1f}",
                f"{np.mean(noted.lengths):.2f}" if noted.lengths else UNKNOWN,
                f"{100 * noted.missing / noted.expected:.1f}" if noted.expected else UNKNOWN,
                difference,
                UNKNOWN if run in sampled else sampling_cell(run, sampled),
            ]
            lines.append("| " + " | ".join(cells) + " |")
            known = sum(any(d.startswith(TRAINED_ON) for d in row.degraded) for row in run.rows)
            if known:
                doubts.append(f"{model.rpartition('/')[2]}, {method_of(run)}: trained on {known} of {len(run.rows)}.")
    return "\n".join([*lines, *(["", "Questions that a navigator was trained on:", "", *doubts] if doubts else [])])


def model_of(run: EvalRun) -> str:
    """The main model."""
    return run.manifest.plan.models["main"]


def policy_of(run: EvalRun) -> str:
    """The policy of `rlot`; empty for other strategies."""
    plan = run.manifest.plan
    return str(plan.parameters.get("policy", "")) if plan.strategy == "rlot" else ""


def order_of(run: EvalRun) -> tuple[int, int, str]:
    """Chains first by number of samples, then policies as listed, the single attempt before those that vote."""
    plan, policy = run.manifest.plan, policy_of(run)
    size = plan.parameters.get("n_votes", plan.parameters.get("n", 0))
    known = ["cot", "self-consistency", *POLICIES]
    name = policy or plan.strategy
    first = known.index(name) if name in known else len(known)
    return first, size if isinstance(size, int) else 0, str(plan.parameters.get("navigator", ""))


def method_of(run: EvalRun) -> str:
    """A short name of a method."""
    plan = run.manifest.plan
    args: Mapping[str, object] = plan.parameters
    if plan.strategy == "self-consistency":
        return f"self-consistency, n = {args['n']}"
    if plan.strategy != "rlot":
        return plan.strategy
    parts = [f"rlot, {args['policy']}"]
    if args["policy"] == "fixed":
        sequence = args["sequence"]
        parts.append("-".join(map(str, sequence)) if isinstance(sequence, list | tuple) else str(sequence))
    if args["policy"] == "learned" and args["navigator"] != "default":
        parts.append(Path(str(args["navigator"])).stem)
    if args["n_votes"] != 1:
        parts.append(f"{args['n_votes']} votes")
    return ", ".join(parts)


def accuracy(run: EvalRun) -> str:
    """Share of right answers in per cent, with its interval."""
    result = mean_of(outcomes_of(run.rows))
    ends = result.interval
    between = "" if ends is None else f" [{100 * ends.low:.1f}, {100 * ends.high:.1f}]"
    return f"{100 * result.value:.1f}{between}"


def mean_of_rows(run: EvalRun, name: str) -> float:
    """The mean of an entry of the rows' ledgers."""
    return float(np.mean([getattr(row.ledger, name) for row in run.rows]))


def compared_runs(run: EvalRun | None, other: EvalRun | None) -> PairedComparison | None:
    """Two runs compared on the questions of both; None if there are none, a run is missing, or both are the same."""
    if run is None or other is None or run is other:
        return None
    try:
        return compare_paired(outcomes_of(run.rows), outcomes_of(other.rows))
    except UserError:  # no question in common
        return None


def sampling_cell(run: EvalRun, sampled: Sequence[EvalRun]) -> str:
    """Accuracy less that of self-consistency at as many tokens; what is beyond its sizes is stored to be."""
    result = compare_to_curve([run], sampled)
    if isinstance(result, str):
        return result
    return f"{100 * result.value:+.1f} [{100 * result.low:+.1f}, {100 * result.high:+.1f}]"


def compare_to_curve(runs: Sequence[EvalRun], sampled: Sequence[EvalRun]) -> InterpolatedAccuracy | str:
    """One run next to the curve of others, on the questions that all have; a text states why that cannot be."""
    sampled = [run for run in sampled if int(str(run.manifest.plan.parameters["n"])) >= MIN_VOTES]
    if not sampled:
        return UNKNOWN
    tables = [by_item(run) for run in (*runs, *sampled)]
    shared = [name for name in tables[0] if all(name in table for table in tables)]
    if not shared:
        return UNKNOWN
    groups = {row.id: row.group or row.id for row in runs[0].rows}
    clusters = number_groups([groups[name] for name in shared])
    mine, theirs = (curve_of(some, shared) for some in (tables[: len(runs)], tables[len(runs) :]))
    tokens = float(mine.tokens.mean(axis=0)[0])
    reach = theirs.tokens.mean(axis=0)
    if tokens > reach.max():
        return "costs more than its largest number of samples"
    if tokens < reach.min():
        return "costs less than its fewest"
    result = difference_at(mine, theirs, clusters, tokens)
    return UNKNOWN if result is None else result


def by_item(run: EvalRun) -> dict[str, tuple[float, float]]:
    """Mean score and mean generated tokens of each question."""
    results: dict[str, list[tuple[float, float]]] = {}
    for row in run.rows:
        results.setdefault(row.id, []).append((row.value, float(row.ledger.completion_tokens)))
    means = {name: np.mean(rows, axis=0) for name, rows in results.items()}
    return {name: (float(score), float(tokens)) for name, (score, tokens) in means.items()}


def curve_of(tables: Sequence[Mapping[str, tuple[float, float]]], items: Sequence[str]) -> TokenCurve:
    """Runs as the points of one curve."""
    values = np.array([[table[name] for table in tables] for name in items], dtype=float)
    return TokenCurve("", values[:, :, 0], values[:, :, 1])


# -- what the run store knows


async def chains_of(run: EvalRun, store: Path | None = None) -> Chains:
    """What the runs of an evaluation noted of their chains; nothing for strategies without any, or without a store."""
    if run.manifest.plan.strategy != "rlot":
        return Chains()
    stored = run.manifest.store
    position = store or (run.path / STORE if stored == STORE else Path(stored))
    if not position.exists():
        return Chains()
    opened = await SqliteStore.open(position)
    try:
        notes = [chains_in(await opened.list_events(row.run_id)) for row in run.rows]
    finally:
        await opened.aclose()
    return Chains(
        tuple(length for noted in notes for length in noted.lengths),
        sum(noted.expected for noted in notes),
        sum(noted.missing for noted in notes),
    )


def chains_in(events: Iterable[Event]) -> Chains:
    """The chains of one run: a note for each attempt; of one that was made again after an interruption, the last."""
    last: dict[object, Mapping[str, object]] = {}
    for event in events:
        if isinstance(event, StrategyNote) and event.name == "navigated":
            last[event.data.get("vote")] = event.data
    lengths, requests, missing = [], 0, 0
    for data in last.values():
        chain = data.get("chain")
        lengths.append(sum(letter != "Ga" for letter in chain) if isinstance(chain, list | tuple) else 0)
        requests += _count(data.get("scores_requested"))
        missing += _count(data.get("scores_missing"))
    return Chains(tuple(lengths), requests, missing)


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0


if __name__ == "__main__":
    sys.exit(main())
