"""The workload of `vllm_hints.py` and `vllm_servers.py`: greedy tree searches over prompts that begin alike."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from reason.core.messages import Completion, Prompt, Request, SamplingParams

QUESTION = (
    "A farmer keeps hens and rabbits. Together they have 35 heads and 94 feet. Think step by step, one short step a "
    "paragraph, and name the numbers. "
)

Generate = Callable[[Sequence[Request]], Awaitable[Sequence[Sequence[Completion]]]]
"""Makes the samples of requests, as `LanguageModel.generate` does."""


async def search_tree(generate: Generate, number: int, args: Any) -> list[Completion]:
    """Search one tree: one node a level is kept, and its children are requests of their own; returns all nodes.

    Args:
        number: Number of the tree's question; trees with the same number have the same prompts.
        args: `width` and `depth` of the tree, and `step`, the tokens of a node.
    """
    root = Prompt.user(f"Problem {number}. " + QUESTION * 4)
    kept: tuple[int, ...] = ()
    nodes: list[Completion] = []
    for depth in range(args.depth):
        sampling = SamplingParams(temperature=0.8, n=args.width, max_tokens=args.step, seed=depth, ignore_eos=True)
        requests = [
            Request(prompt=root.with_prefix(kept), sampling=sampling, sample_indices=(child,))
            for child in range(args.width)
        ]
        made = [completions[0] for completions in await generate(requests)]
        kept += max(made, key=lambda completion: completion.logprob or 0.0).token_ids
        nodes += made
    return nodes


def turns(rounds: int) -> Iterator[tuple[int, str]]:
    """The rounds, each with both arms, which take turns in beginning."""
    for turn in range(rounds):
        for label in ("off", "on") if turn % 2 == 0 else ("on", "off"):
            yield turn, label


def describe(args: Any) -> str:
    """The workload in words."""
    return (
        f"{args.trees} trees, width {args.width}, depth {args.depth}, steps of {args.step} tokens, {args.rounds} rounds"
    )


def add_options(parser: argparse.ArgumentParser, *, rounds: int) -> None:
    """Add the options of the workload.

    Args:
        rounds: Default number of rounds.
    """
    parser.add_argument("--served", default="small")
    parser.add_argument("--trees", default=6, type=int)
    parser.add_argument("--width", default=4, type=int)
    parser.add_argument("--depth", default=4, type=int)
    parser.add_argument("--step", default=24, type=int)
    parser.add_argument("--rounds", default=rounds, type=int)
