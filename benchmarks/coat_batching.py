"""Batching in CoAT: three calls an expansion next to one call for every sample.

    python benchmarks/coat_batching.py --model local/smollm2-135m --data DIRECTORY --questions 4 --leaves 1 4

The same search (`coat` without knowledge sources) runs twice on each question, in alternating order: batched, and over
a model that makes all samples of a call one after the other. Samples depend on seed and index only, but sums in another
order differ in their last bits, so trees differ sooner or later: times are compared per token, and the table has the
number of questions with equal trees.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from reason.core.events import CallStarted, MemorySink, NodesSearched
from reason.core.messages import Completion, NextTokenDistribution, Prompt, Request
from reason.core.run import Run, RunConfig, new_run_id
from reason.core.settings import load_settings
from reason.core.store.sqlite import SqliteStore
from reason.core.types import Question
from reason.evals.datasets.loading import open_dataset
from reason.evals.plan import DatasetSource
from reason.evals.statistics.intervals import bootstrap_means, percentiles
from reason.reasoning.coat.coat import CoAT
from reason.reasoning.strategy import Models
from reason.serving.factory import load_model
from reason.serving.metered.model import MeteredModel
from reason.serving.model import Capabilities, LanguageModel, Listener


class OneByOne:
    """A model that makes one sample at a time, of whatever it is requested."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self.name, self.identity = model.name, model.identity

    def __getattr__(self, name: str) -> object:
        return getattr(self._model, name)

    @property
    def capabilities(self) -> Capabilities:
        """The model's own."""
        return self._model.capabilities

    async def generate(self, requests: Sequence[Request], listener: Listener | None = None) -> list[list[Completion]]:
        """Each sample by a call of its own."""
        made = []
        for request in requests:
            row = []
            for index in request.indices:
                ((completion,),) = await self._model.generate([request.model_copy(update={"samples": (index,)})])
                row.append(completion)
            made.append(row)
        return made

    async def next_token(self, prompts: Sequence[Prompt], top: int = 20) -> list[NextTokenDistribution]:
        """Each prompt by a call of its own."""
        return [(await self._model.next_token([prompt], top))[0] for prompt in prompts]


@dataclass(frozen=True)
class Cost:
    """What one search took."""

    seconds: float
    tokens: int
    calls: int
    expansions: int
    tree: tuple[str, ...]


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=4)
    parser.add_argument("--leaves", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--k", type=int, default=3)
    parser.add_argument("--expansions", type=int, default=8)
    print(asyncio.run(report(parser.parse_args())))
    return 0


async def report(args: argparse.Namespace) -> str:
    """Measure, and make the table."""
    dataset = open_dataset(DatasetSource(dataset="gsm8k", data=args.data).absolute())
    questions = [item.question for item in dataset.items[: args.questions]]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        settings = load_settings(store=Path(scratch) / "runs.sqlite3", model=args.model)
        store = await SqliteStore.open(settings.store)
        model = await load_model(args.model, settings)
        models: dict[str, LanguageModel] = {"batched": model, "one by one": OneByOne(model)}  # type: ignore[dict-item]
        try:
            await run(model, store, questions[0], args, leaves=1, seed=9)  # the engine's first calls are slower
            for leaves in args.leaves:
                pairs = []
                for i, question in enumerate(questions):
                    order = list(models) if i % 2 else list(models)[::-1]
                    made = {
                        name: await run(models[name], store, question, args, leaves=leaves, seed=i) for name in order
                    }
                    pairs.append((made["batched"], made["one by one"]))
                rows.append(row(leaves, pairs))
        finally:
            await model.aclose()
            await store.aclose()
    head = (
        f"{args.model.rpartition('/')[2]}, {len(questions)} GSM8K questions, k = {args.k}, {args.expansions} "
        f"expansions; {os.cpu_count()} cores, {platform.machine()}, reason {version('reason-orchestrator')}, "
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, load {os.getloadavg()[0]:.1f}\n\n"
        "| leaves | calls an expansion | batched: ms a token | one by one: ms a token | one by one takes [95 %] | "
        "equal trees |\n| ---: | ---: | ---: | ---: | ---: | ---: |"
    )
    return "\n".join([head, *rows])


async def run(
    model: LanguageModel, store: SqliteStore, question: Question, args: argparse.Namespace, *, leaves: int, seed: int
) -> Cost:
    """One search."""
    sink = MemorySink()
    config = RunConfig(
        question=question, strategy="coat", parameters={}, models={"main": args.model}, seed=seed, reuse="none"
    )
    name = new_run_id()
    await store.create_run(name, config.model_dump(mode="json"))
    running = Run(name, config, store, sinks=[sink])
    parameters = CoAT.Config(k=args.k, leaves=leaves, expansions=args.expansions, max_step_tokens=48)
    started = time.perf_counter()
    await CoAT(parameters).solve(question, Models({"main": MeteredModel(model, "main", running)}), running)
    seconds = time.perf_counter() - started
    calls = [e for e in sink.events if isinstance(e, CallStarted)]
    rounds = [e for e in sink.events if isinstance(e, NodesSearched)]
    nodes = {node.id: node.text for e in rounds for node in e.nodes}
    return Cost(
        seconds,
        running.ledger.usage().completion_tokens,
        len(calls),
        sum(len(e.expanded) for e in rounds),
        tuple(nodes.values()),
    )


def row(leaves: int, pairs: list[tuple[Cost, Cost]]) -> str:
    """A line of the table."""
    a = np.array([[c.seconds, c.tokens] for c, _ in pairs], dtype=float)
    b = np.array([[c.seconds, c.tokens] for _, c in pairs], dtype=float)
    times = a_token(b.mean(axis=0)) / a_token(a.mean(axis=0))
    again = bootstrap_means(np.hstack([a, b]), np.arange(len(pairs)))
    low, high = percentiles(a_token(again[:, 2:]) / a_token(again[:, :2]))
    calls = sum(c.calls for c, _ in pairs) / sum(c.expansions for c, _ in pairs)
    equal = sum(one.tree == other.tree for one, other in pairs)
    return (
        f"| {leaves} | {calls:.1f} | {1000 * a_token(a.mean(axis=0)):.1f} | {1000 * a_token(b.mean(axis=0)):.1f} "
        f"| {times:.2f} times [{low:.2f}, {high:.2f}] | {equal} of {len(pairs)} |"
    )


def a_token(cost: np.ndarray) -> np.ndarray:
    """Seconds a token."""
    return cost[..., 0] / cost[..., 1]


if __name__ == "__main__":
    sys.exit(main())
