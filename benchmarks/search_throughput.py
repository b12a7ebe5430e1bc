"""Seconds per generated token of A* next to plain batched sampling of equal batch size.

    python benchmarks/search_throughput.py --model local/smollm2-135m --data DIRECTORY --questions 8 --k 4 8
    python benchmarks/search_throughput.py --model vllm/DIRECTORY --data DIRECTORY --questions 8 --k 4 8

For each question A* continues one prefix at a time by k steps; plain sampling draws k chains under the same instruction
in one call. The two alternate. Steps are scored by their arithmetic, without a model, and again by the model's own
judgement, whose time is included. The cached share is that of the prompt tokens of all calls, from the ledger.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from reason import Reasoner
from reason.core.settings import load_settings
from reason.core.types import Answer, Question
from reason.evals.datasets.loading import open_dataset
from reason.evals.plan import DatasetSource
from reason.evals.statistics.intervals import bootstrap_means, percentiles
from reason.reasoning.prompts import steps_instruction


@dataclass(frozen=True)
class Cost:
    """What one answer took."""

    seconds: float
    tokens: int
    prompt: int
    cached: int

    @classmethod
    def of(cls, answer: Answer) -> Cost:
        """Read it."""
        usage = answer.usage
        return cls(usage.wall_seconds, usage.completion_tokens, usage.prompt_tokens, usage.cached_tokens)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--k", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--score", nargs="+", default=["arithmetic", "judge"])
    args = parser.parse_args()
    print(asyncio.run(report(args)))
    return 0


async def report(options: argparse.Namespace) -> str:
    """Measure, and make the table."""
    dataset = open_dataset(DatasetSource(dataset="gsm8k", data=options.data).absolute())
    questions = [item.question for item in dataset.items[: options.questions]]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        settings = load_settings(store=Path(scratch) / "runs.sqlite3", model=options.model)
        async with Reasoner(settings=settings) as reasoner:
            await run(
                "self-consistency", reasoner, questions[0], options, k=2, seed=1
            )  # the engine's first call is slower
            for k in options.k:
                for score in options.score:
                    pairs = []
                    for i, question in enumerate(questions):
                        order = ("astar", "self-consistency") if i % 2 else ("self-consistency", "astar")
                        made = {
                            s: await run(s, reasoner, question, options, k=k, seed=100 * k + i, score=score)
                            for s in order
                        }
                        pairs.append((made["astar"], made["self-consistency"]))
                    rows.append(row(k, score, pairs))
    head = (
        f"{options.model.rpartition('/')[2]}, {len(questions)} GSM8K questions; {os.cpu_count()} cores, "
        f"{platform.machine()}, reason {version('reason-orchestrator')}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, load "
        f"{os.getloadavg()[0]:.1f}\n\n"
        "| k | steps scored by | A*: tokens a question | A*: ms a token | plain: ms a token | ratio [95 %] | cached |\n"
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: |"
    )
    return "\n".join([head, *rows])


async def run(
    strategy: str,
    reasoner: Reasoner,
    question: Question,
    options: argparse.Namespace,
    *,
    k: int,
    seed: int,
    score: str = "",
) -> Cost:
    """One answer of one method."""
    instruction = steps_instruction(question)
    if strategy == "astar":
        parameters = {
            "k": k,
            "score": score,
            "instruction": instruction,
            "max_step_tokens": 128,
            "max_depth": 12,
            # as many tokens as the k chains may take: on a weak judge's word a search may continue for long
            "limits": {"finish_tokens": 64, "gen_tokens": k * options.max_tokens},
        }
    else:
        parameters = {"n": k, "temperature": 0.8, "instruction": instruction, "max_tokens": options.max_tokens}
    variant = await reasoner.variant(strategy, parameters=parameters)
    return Cost.of(await variant.aask(question, seed=seed))


def row(k: int, score: str, pairs: list[tuple[Cost, Cost]]) -> str:
    """A line of the table."""
    a = np.array([[c.seconds, c.tokens] for c, _ in pairs], dtype=float)
    b = np.array([[c.seconds, c.tokens] for _, c in pairs], dtype=float)
    ratio = ratio_of(a.mean(axis=0), b.mean(axis=0))
    again = bootstrap_means(np.hstack([a, b]), np.arange(len(pairs)))
    low, high = percentiles(ratio_of(again[:, :2], again[:, 2:]))
    searched = [c for c, _ in pairs]
    cached = sum(c.cached for c in searched) / max(1, sum(c.prompt for c in searched))
    return (
        f"| {k} | {score} | {a[:, 1].mean():,.0f} | {1000 * a[:, 0].sum() / a[:, 1].sum():.1f} "
        f"| {1000 * b[:, 0].sum() / b[:, 1].sum():.1f} | {ratio:.2f} [{low:.2f}, {high:.2f}] | {100 * cached:.1f} % |"
    )


def ratio_of(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Seconds a token of the one over those of the other."""
    return (a[..., 0] / a[..., 1]) / (b[..., 0] / b[..., 1])


if __name__ == "__main__":
    sys.exit(main())
