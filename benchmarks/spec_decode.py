"""Speculative decoding by n-grams in the embedded engine: speed with and without, and equality of the tokens.

    python benchmarks/spec_decode.py --model local/smollm2-135m --gsm8k GSM8K.jsonl --fever FEVER.jsonl --questions 12

    single stream       a chain of thought for each question, one after the other
    tree search         `coat` without association on each question
    self-consistency    eight samples for each question
    verification        a claim and a document; the answer quotes the document, as verifiers and citing answers do

Every workload runs interleaved, item by item, on two engines of one model: with speculation by default and without.
Both start with empty tries and caches, which later items reuse ("cold" is the first item only). Seeds are the same, and
so must be the tokens: the table has how many samples were equal.

The ratio is of seconds a token, without over with, with a bootstrap interval over items; above 1 speculation is faster.
A pass is a row and step of the engine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from reason.core.messages import Completion, Prompt, Request, SamplingParams
from reason.core.run import Run, RunConfig, new_run_id
from reason.core.settings import load_settings
from reason.core.store.sqlite import SqliteStore
from reason.core.types import Question
from reason.evals.statistics.intervals import bootstrap_means, percentiles
from reason.reasoning.strategy import Models, create_strategy
from reason.serving.local.engine import LocalModel
from reason.serving.metered.model import MeteredModel
from reason.serving.model_files.find import find_model
from reporting import made_here, table

Tokens = list[tuple[int, ...]]
Item = Callable[[LocalModel, SqliteStore], Awaitable[Tokens]]


@dataclass
class Comparison:
    """One workload: for each item tokens and seconds, with and without, and what the engine counted.

    Attributes:
        seconds: `[items, 2]`: without, with.
        tokens: Generated tokens of each item, `[items, 2]`.
        same: Samples with the same tokens.
        samples: Samples in all.
        passes: Rows and steps with speculation.
        decoded: Tokens of these passes.
        drafted: Drafted tokens.
        accepted: Drafted tokens that were right.
        cold: Tokens a pass in the first item.
    """

    seconds: list[tuple[float, float]] = field(default_factory=list)
    tokens: list[tuple[int, int]] = field(default_factory=list)
    same: int = 0
    samples: int = 0
    passes: int = 0
    decoded: int = 0
    drafted: int = 0
    accepted: int = 0
    cold: float = 1.0


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="local/smollm2-135m")
    parser.add_argument("--format", default="auto", choices=("auto", "fp32", "bf16", "int4"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gsm8k", type=Path, required=True, help="rows with `question`")
    parser.add_argument("--fever", type=Path, required=True, help="rows with `claim` and `evidence`")
    parser.add_argument("--questions", type=int, default=12, help="items of each workload; for the search a third")
    parser.add_argument("--tokens", type=int, default=200, help="limit of a sample")
    print(asyncio.run(report(parser.parse_args())))
    return 0


async def report(args: argparse.Namespace) -> str:
    """Measure, and make the table."""
    loads: dict[str, Comparison] = {}
    for name, items in workloads(args).items():
        loads[name] = await measure(args, items)
    loaded = " ".join(f"{x:.2f}" for x in os.getloadavg())
    head = (
        f"{args.model}, {args.format}, {args.threads} thread(s); torch {torch.__version__}; {made_here()} "
        f"Load at the end: {loaded}."
    )
    rows = [row(name, comparison) for name, comparison in loads.items()]
    columns = (
        "workload",
        "items",
        "tokens",
        "tokens a pass",
        "cold",
        "drafted",
        "right",
        "same tokens",
        "ratio of seconds a token",
    )
    return f"{head}\n\n{table(columns, rows)}"


def row(name: str, comparison: Comparison) -> list[str]:
    """A line of the table."""
    seconds, tokens = np.array(comparison.seconds), np.array(comparison.tokens, dtype=float)
    means = bootstrap_means(np.concatenate([seconds, tokens], 1), np.arange(len(seconds)))

    def ratio(m: np.ndarray) -> np.ndarray:
        return (m[..., 0] / m[..., 2]) / (m[..., 1] / m[..., 3])

    low, high = percentiles(ratio(means), 0.95)
    point = float(ratio(np.concatenate([seconds, tokens], 1).mean(0)))
    return [
        name,
        str(len(seconds)),
        f"{int(tokens[:, 1].sum()):,}",
        f"{comparison.decoded / max(1, comparison.passes):.2f}",
        f"{comparison.cold:.2f}",
        f"{comparison.drafted:,}",
        f"{comparison.accepted / max(1, comparison.drafted):.0%}",
        f"{comparison.same} of {comparison.samples}",
        f"{point:.2f} [{low:.2f}, {high:.2f}]",
    ]


async def measure(args: argparse.Namespace, items: Sequence[Item]) -> Comparison:
    """One workload on two fresh engines, in turns."""
    comparison = Comparison()
    files = find_model(args.model, cache_dir=load_settings().cache_dir)

    def load(mode: Literal["off", "auto"]) -> LocalModel:
        return LocalModel.load(files, weight_format=args.format, threads=args.threads, speculative_decoding=mode)

    without, ahead = load("off"), load("auto")
    warm = Request(prompt=Prompt.user("Hello"), sampling=SamplingParams(max_tokens=8, ignore_eos=True))
    for model in (without, ahead):  # memory and kernels are made ready by the first tokens
        await model.generate([warm])
    with tempfile.TemporaryDirectory() as scratch:
        store = await SqliteStore.open(Path(scratch) / "runs.sqlite3")
        for number, item in enumerate(items):
            taken: dict[bool, tuple[float, Tokens]] = {}
            was = ahead.spec_decode
            for looks in (False, True) if number % 2 else (True, False):
                began = time.perf_counter()
                tokens_out = await item(ahead if looks else without, store)
                taken[looks] = time.perf_counter() - began, tokens_out
            now = ahead.spec_decode
            if number == 0:
                comparison.cold = (now.tokens - was.tokens) / max(1, now.passes - was.passes)
            comparison.passes += now.passes - was.passes
            comparison.decoded += now.tokens - was.tokens
            comparison.drafted += now.drafted - was.drafted
            comparison.accepted += now.accepted - was.accepted
            comparison.seconds.append((taken[False][0], taken[True][0]))
            comparison.tokens.append((sum(map(len, taken[False][1])), sum(map(len, taken[True][1]))))
            comparison.samples += len(taken[False][1])
            comparison.same += sum(a == b for a, b in zip(taken[False][1], taken[True][1], strict=False))
        await store.aclose()
    await without.aclose()
    await ahead.aclose()
    return comparison


def workloads(args: argparse.Namespace) -> dict[str, list[Item]]:
    """The items of each workload."""
    questions = [row["question"] for row in rows_of(args.gsm8k, args.questions)]
    claims = [row for row in rows_of(args.fever, 10 * args.questions) if row.get("evidence")][: args.questions]
    think = "Think step by step, and end with the answer.\n\n"
    return {
        "single stream": [sampled(think + q, args.tokens, seed, temperature=0.7) for seed, q in enumerate(questions)],
        "tree search": [searched(q, seed) for seed, q in enumerate(questions[: -(-args.questions // 3)])],
        "self-consistency": [
            sampled(think + q, args.tokens, seed, temperature=0.7, n=8) for seed, q in enumerate(questions)
        ],
        "verification": [sampled(quoting(row), args.tokens, 0, temperature=0.0) for row in claims],
    }


def quoting(row: dict[str, object]) -> str:
    """A request to judge a claim by a document, quoting it."""
    document = " ".join(dict.fromkeys(str(e["text"]) for e in row["evidence"]))  # type: ignore[attr-defined, index]
    return (
        f"Document:\n{document}\n\nClaim: {row['claim']}\n\nCopy, word for word, the sentence of the document that "
        "decides whether the claim is true. Then say in one word whether the claim is true or false."
    )


def sampled(text: str, tokens: int, seed: int, *, temperature: float, n: int = 1) -> Item:
    """An item that is one request."""
    sampling = SamplingParams(temperature=temperature, n=n, max_tokens=tokens, seed=seed)
    request = Request(prompt=Prompt.user(text), sampling=sampling)

    async def run(model: LocalModel, store: SqliteStore) -> Tokens:
        (tokens_out,) = await model.generate([request])
        return [sample.token_ids for sample in tokens_out]

    return run


def searched(text: str, seed: int) -> Item:
    """An item that is a run of `coat` without association."""

    async def run(model: LocalModel, store: SqliteStore) -> Tokens:
        strategy, parameters = create_strategy("coat", {"association": "none", "expansions": 4, "max_step_tokens": 64})
        config = RunConfig(
            question=Question(text=text),
            strategy="coat",
            parameters=parameters,
            models={"main": model.name},
            seed=seed,
            reuse="none",
        )
        run = Run(new_run_id(), config, store)
        await store.create_run(run.id, config.model_dump(mode="json"))
        metered = MeteredModel(model, "main", run)
        await strategy.solve(config.question, Models({"main": metered}), run)
        jury_run = [
            Completion.model_validate(c.response) for c in await store.list_calls(run.id) if "token_ids" in c.response
        ]
        return [sample.token_ids for sample in jury_run]

    return run


def rows_of(path: Path, count: int) -> list[dict[str, object]]:
    """The first rows of a file of JSON lines."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line, _ in zip(file, range(count), strict=False)]


if __name__ == "__main__":
    raise SystemExit(main())
