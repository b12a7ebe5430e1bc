"""Tree searches on several vLLM servers behind one name, with prefix affinity and without.

    vllm serve MODEL --served-model-name small --enable-prompt-tokens-details    # on each host
    python benchmarks/vllm_servers.py http://HOST1:8000/v1 http://HOST2:8000/v1 [--trees 6] [--width 4] [--depth 4]

Every tree keeps one node a level and asks for `width` children of it, each a request of its own. All trees of a round
begin at once; the arms take turns on the same servers, with other questions, so no tree is in a cache before. Hits are
the servers' own: `vllm:prefix_cache_hits` and `vllm:prefix_cache_queries`, in tokens. The sign test is exact and
two-sided, over the rounds' hit rates.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import platform
import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from reason.core.settings import ProviderSettings, Settings
from reason.evals.statistics.paired import exact_sign_test
from reason.serving.litellm.factory import load_litellm_model
from reason.serving.servers.endpoints import LoadBalancedModel
from tree_searches import add_options, describe, search_tree, turns


@dataclass(frozen=True)
class Arm:
    """What the trees of one round did.

    Attributes:
        hits: Prompt tokens that the servers had in their prefix caches.
        queries: Prompt tokens that they looked for there.
        requests: Requests that each server answered, by its address.
        servers_of_tree: How many servers a tree used, on average.
        seconds: Time until the last tree ended.
    """

    hits: float
    queries: float
    requests: dict[str, int]
    servers_of_tree: float
    seconds: float

    @property
    def rate(self) -> float:
        """Share of prompt tokens that were in the caches."""
        return self.hits / self.queries


async def open_model(bases: Sequence[str], served: str, *, affinity: bool) -> LoadBalancedModel:
    """The servers behind one name."""
    endpoints = [{"api_base": base} for base in bases]
    provider = ProviderSettings.model_validate({"endpoints": endpoints, "affinity": affinity})
    model = await load_litellm_model(f"hosted_vllm/{served}", Settings(providers={"hosted_vllm": provider}))
    assert isinstance(model, LoadBalancedModel)
    return model


def cache_tokens(bases: Sequence[str]) -> tuple[float, float]:
    """Hits and queries of all servers' prefix caches since their start, in tokens."""
    pages = [httpx.get(base.removesuffix("/v1") + "/metrics", timeout=30).text for base in bases]

    def total(name: str) -> float:
        found = [re.findall(rf"^vllm:{name}_total(?:{{[^}}]*}})? (\S+)$", page, re.MULTILINE) for page in pages]
        return sum(float(value) for values in found for value in values)

    return total("prefix_cache_hits"), total("prefix_cache_queries")


async def measure(model: LoadBalancedModel, bases: Sequence[str], first: int, args: Any) -> Arm:
    """All trees of one round.

    Args:
        model: The model, with affinity or without.
        bases: The servers.
        first: Number of the first tree's question; no two rounds share one.
        args: Number of trees, their width and depth, and the tokens of a step.
    """
    before = cache_tokens(bases)
    began = time.perf_counter()
    trees = await asyncio.gather(*(search_tree(model.generate, first + tree, args) for tree in range(args.trees)))
    seconds = time.perf_counter() - began
    hits, queries = (now - then for now, then in zip(cache_tokens(bases), before, strict=True))
    used = [[str(node.extras["endpoint"]) for node in tree] for tree in trees]
    requests = {base: sum(servers.count(base) for servers in used) for base in bases}
    return Arm(hits, queries, requests, statistics.mean(len(set(servers)) for servers in used), seconds)


async def compare(args: Any) -> None:
    """Measure the arms in turn, and print a row for each."""
    models = {label: await open_model(args.bases, args.served, affinity=label == "on") for label in ("off", "on")}
    load = ", ".join(f"{x:.2f}" for x in os.getloadavg())
    print(
        f"{models['on'].identity}, {len(args.bases)} servers, {os.cpu_count()} cores, {platform.machine()}; "
        f"load before: {load}; {describe(args)}; {datetime.datetime.now().astimezone():%Y-%m-%d %H:%M %Z}\n"
    )
    arms: dict[str, list[Arm]] = {"off": [], "on": []}
    for turn, label in turns(args.rounds):
        first = args.first + (2 * turn + (label == "on")) * args.trees
        arms[label].append(await measure(models[label], args.bases, first, args))
    for model in models.values():
        await model.aclose()
    print(
        "| affinity | prompt tokens | hits | hit rate | computed | servers of a tree | requests by server | seconds |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- | ---: |")
    for label, rounds in arms.items():
        hits, queries = sum(arm.hits for arm in rounds), sum(arm.queries for arm in rounds)
        requests = ", ".join(str(sum(arm.requests[base] for arm in rounds)) for base in args.bases)
        print(
            f"| {label} | {queries:.0f} | {hits:.0f} | {hits / queries:.1%} | {queries - hits:.0f} "
            f"| {statistics.mean(arm.servers_of_tree for arm in rounds):.2f} | {requests} "
            f"| {statistics.mean(arm.seconds for arm in rounds):.2f} |"
        )
    pairs = list(zip(arms["off"], arms["on"], strict=True))
    higher = sum(on.rate > off.rate for off, on in pairs)
    lower = sum(on.rate < off.rate for off, on in pairs)
    computed = statistics.median((on.queries - on.hits) / (off.queries - off.hits) for off, on in pairs)
    seconds = statistics.median(on.seconds / off.seconds for off, on in pairs)
    print(
        f"\nhit rate higher with affinity in {higher} of {len(pairs)} rounds, p = {exact_sign_test(higher, lower):.4f}"
    )
    print(f"prompt tokens that were computed, on to off, median of the rounds: {computed:.2f}")
    print(f"seconds of a round, on to off, median of the rounds: {seconds:.2f}")


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bases", nargs="+", help="addresses ending in /v1")
    add_options(parser, rounds=6)
    parser.add_argument("--first", default=0, type=int, help="number of the first question; another one for each call")
    asyncio.run(compare(parser.parse_args()))


if __name__ == "__main__":
    main()
