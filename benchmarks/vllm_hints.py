"""Many tree searches at once on a vLLM server, with the priority of each run's requests and without.

    vllm serve MODEL --served-model-name small --scheduling-policy priority --enable-prompt-tokens-details
    python benchmarks/vllm_hints.py http://localhost:8000/v1 [--trees 6] [--width 4] [--depth 4] [--rounds 7]

Every tree keeps one node a level and asks for `width` children of it, each a request of its own, through a metered
model. All trees of a round begin at once; the arms take turns on the same server, with other seeds, so no tree is in
the prefix cache before. Without priorities the server serves in the order of arrival. The sign test is exact and
two-sided, over the rounds' mean times of a tree.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import platform
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reason.core.run import Run, RunConfig
from reason.core.settings import ProviderSettings, Settings
from reason.core.store.sqlite import SqliteStore
from reason.core.types import Question
from reason.evals.statistics.paired import exact_sign_test
from reason.serving.litellm.factory import load_litellm_model
from reason.serving.litellm.model import LiteLLMModel
from reason.serving.metered.model import MeteredModel
from tree_searches import QUESTION, add_options, describe, search_tree, turns


@dataclass(frozen=True)
class Arm:
    """What the trees of one round did.

    Attributes:
        ended: Seconds from the start of the round to the end of each tree.
        tokens: Generated tokens.
        cached: Share of prompt tokens that the server had in its cache.
    """

    ended: list[float]
    tokens: int
    cached: float


async def search(model: LiteLLMModel, store: SqliteStore, name: str, seed: int, args: Any) -> tuple[int, int, int]:
    """Search one tree; returns generated, prompt and cached tokens."""
    config = RunConfig(
        question=Question(text=QUESTION), strategy="beam", parameters={}, models={"main": model.name}, seed=seed
    )
    await store.create_run(name, config)
    run = Run(name, config, store)
    metered = MeteredModel(model, "main", run)
    await search_tree(metered.generate, seed, args)
    usage = run.ledger.usage()
    return usage.completion_tokens, usage.prompt_tokens, usage.cached_tokens


async def measure(model: LiteLLMModel, store: SqliteStore, label: str, turn: int, args: Any) -> Arm:
    """All trees of one round."""
    model.traits = model.traits.model_copy(update={"priorities": label == "on"})
    began = time.perf_counter()
    ended: list[float] = []

    async def one(tree: int) -> tuple[int, int, int]:
        seed = 1000 * turn + 500 * (label == "on") + tree
        counts = await search(model, store, f"{label}-{turn}-{tree}", seed, args)
        ended.append(time.perf_counter() - began)
        return counts

    counts = await asyncio.gather(*(one(tree) for tree in range(args.trees)))
    tokens, prompt, cached = (sum(column) for column in zip(*counts, strict=True))
    return Arm(ended, tokens, cached / prompt)


async def compare(args: Any) -> None:
    """Measure the arms in turn, and print a row for each."""
    provider = ProviderSettings(api_base=args.base, concurrency=1000)
    model = await load_litellm_model(f"hosted_vllm/{args.served}", Settings(providers={"hosted_vllm": provider}))
    if not model.traits.priorities:
        raise SystemExit("the server takes no priorities: start it with --scheduling-policy priority")
    load = ", ".join(f"{x:.2f}" for x in os.getloadavg())
    print(
        f"{model.identity}, {os.cpu_count()} cores, {platform.machine()}; load before: {load}; {describe(args)}; "
        f"{datetime.datetime.now().astimezone():%Y-%m-%d %H:%M %Z}\n"
    )
    arms: dict[str, list[Arm]] = {"off": [], "on": []}
    with tempfile.TemporaryDirectory() as directory:
        store = await SqliteStore.open(Path(directory) / "runs.sqlite3")
        await measure(model, store, "off", 99, args)  # the server's first requests are slow
        for turn, label in turns(args.rounds):
            arms[label].append(await measure(model, store, label, turn, args))
        await store.aclose()
    await model.aclose()
    print("| priorities | mean time of a tree, by round | first tree | last tree | tokens | cached |")
    print("| --- | --- | --- | --- | --- | --- |")
    for label, rounds in arms.items():
        means = ", ".join(f"{statistics.mean(arm.ended):.2f} s" for arm in rounds)
        first, last = (statistics.median(edge(arm.ended) for arm in rounds) for edge in (min, max))
        tokens = statistics.mean(arm.tokens for arm in rounds)
        cached = statistics.mean(arm.cached for arm in rounds)
        print(f"| {label} | {means} | {first:.2f} s | {last:.2f} s | {tokens:.0f} | {cached:.1%} |")
    pairs = [tuple(statistics.mean(arm.ended) for arm in pair) for pair in zip(arms["off"], arms["on"], strict=True)]
    faster = sum(on < off for off, on in pairs)
    ratio = statistics.median(on / off for off, on in pairs)
    p = exact_sign_test(faster, len(pairs) - faster)
    print(f"\nfaster with priorities in {faster} of {len(pairs)} rounds, p = {p:.4f}; ")
    print(f"mean time of a tree, on to off, median of the rounds: {ratio:.2f}")


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="address ending in /v1")
    add_options(parser, rounds=7)
    asyncio.run(compare(parser.parse_args()))


if __name__ == "__main__":
    main()
