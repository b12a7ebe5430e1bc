r"""Records samples of a model once and keeps what a vote needs: the answer's class, probability and length.

    python benchmarks/sampling_pool.py record --model vllm/DIRECTORY --data DIRECTORY --dataset gsm8k --limit 60 \
        --samples 32 --out RUN [--without POOL]
    python benchmarks/sampling_pool.py summarise RUN... --pool benchmarks/pools/qwen2.5-coder-0.5b.jsonl

`record` is an evaluation of `self-consistency` and can be resumed; `--without` leaves out questions of a pool.
`summarise` writes a line for each complete question: its name; for each sample the number of its answer's class (null:
no answer), its mean token log-probability, its tokens and the number of its text; and the right classes. It has no
texts. Questions that are in the pool are kept, so that it can grow.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from reason.cli.render.evaluations import EvalView
from reason.core.settings import load_settings
from reason.evals.datasets.items import MathGold
from reason.evals.datasets.loading import open_dataset
from reason.evals.plan import DatasetSource
from reason.evals.results import ResultRow
from reason.evals.run_directory import read_manifest, read_rows
from reason.evals.runner import evaluate, make_plan
from reason.evals.scoring import compare_with_gold, is_same
from reason.reasoning.answers.equivalence import Equivalence


def main() -> int:
    """Record or summarise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    record = commands.add_parser("record")
    record.add_argument("--model", required=True)
    record.add_argument("--dataset", required=True)
    record.add_argument("--data", type=Path, default=None)
    record.add_argument("--limit", type=int, default=60)
    record.add_argument("--samples", type=int, default=32)
    record.add_argument("--max-tokens", type=int, default=400)
    record.add_argument("--temperature", type=float, default=0.7)
    record.add_argument("--concurrency", type=int, default=2)
    record.add_argument("--out", type=Path, required=True)
    record.add_argument("--without", type=Path, default=None, help="pool whose questions are left out")
    summarise = commands.add_parser("summarise")
    summarise.add_argument("runs", type=Path, nargs="+")
    summarise.add_argument("--pool", type=Path, required=True)
    args = parser.parse_args()
    if args.command == "record":
        record_samples(args)
    else:
        lines = asyncio.run(summaries(args.runs, read_pool(args.pool)))
        args.pool.parent.mkdir(parents=True, exist_ok=True)
        args.pool.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
        print(f"{len(lines) - 1} questions in {args.pool}", file=sys.stderr)
    return 0


def record_samples(options: argparse.Namespace) -> None:
    """Draw what is missing."""
    source = DatasetSource(dataset=options.dataset, data=options.data).absolute()
    dataset = open_dataset(source)
    if options.without is not None:
        known = {line.get("id") for line in read_pool(options.without)}
        expected = dataset.items[: options.limit]
        options.limit = None
        dataset = dataset.model_copy(update={"items": tuple(item for item in expected if item.id not in known)})
    settings = load_settings(strategy="self-consistency", model=options.model, reuse="store")
    sampled = {
        "n": options.samples,
        "max_tokens": options.max_tokens,
        "temperature": options.temperature,
    }
    plan = make_plan(dataset, settings, parameters=sampled, limit=options.limit, seeds=(0,))
    with EvalView() as view:
        asyncio.run(
            evaluate(
                plan,
                dataset,
                source,
                options.out,
                settings,
                resume=True,
                concurrency=options.concurrency,
                observer=view,
            )
        )


def read_pool(pool: Path) -> list[dict[str, Any]]:
    """The lines of a pool; none if it is not there."""
    return [json.loads(line) for line in pool.read_text().splitlines()] if pool.exists() else []


async def summaries(runs: list[Path], lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of a pool and those of the runs."""
    lines = list(lines)
    have = {line["id"] for line in lines if "id" in line}
    async with Equivalence() as equivalence:
        for directory in runs:
            manifest = read_manifest(directory)
            for row in read_rows(directory):
                if row.error is None and row.id not in have:
                    lines.append({"dataset": manifest.plan.dataset.name, **await summary(row, equivalence)})
                    have.add(row.id)
    if not lines or "setting" not in lines[0]:
        first = read_rows(runs[0])[0]
        made = {
            "model": Path(first.models["main"]).name,
            "engine": first.engines["main"],
            "sampling": first.sampling[0],
            "machine": f"{platform.machine()}, {os.cpu_count()} processors",
            "versions": read_manifest(runs[0]).environment,
        }
        lines.insert(0, {"setting": made})
    return lines


async def summary(row: ResultRow, equivalence: Equivalence) -> dict[str, Any]:
    """What a vote needs of one question's samples."""
    gold = MathGold.model_validate(row.gold)
    answers = [c.answer for c in row.candidates]
    classes = await equivalence.group(answers, gold.kind)
    number = {i: c for c, members in enumerate(classes) for i in members}
    right = [
        c
        for c, members in enumerate(classes)
        if is_same(await compare_with_gold(answers[members[0]], gold, equivalence))
    ]
    texts: dict[str, int] = {}
    return {
        "id": row.id,
        "right": right,
        "class": [number.get(i) for i in range(len(answers))],
        "logprob": [None if c.logprob is None else round(c.logprob / c.tokens, 7) for c in row.candidates],
        "tokens": [c.tokens for c in row.candidates],
        "text": [texts.setdefault(c.text, len(texts)) for c in row.candidates],
    }


if __name__ == "__main__":
    sys.exit(main())
