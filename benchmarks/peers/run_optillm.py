"""A client of OptiLLM's proxy, its one documented interface. Only the standard library.

best-of-n         approach `bon`; the server is started with `--best-of-n SIZE`
self-consistency  plug-in `majority_voting`, k = size (its approach `self_consistency` always takes five samples)
mcts              approach `mcts` with one simulation for every eight of size, at least one

It scores by requests of its own, which cannot be replaced, and samples at temperature 1 except for `majority_voting`.
The question's mark is in the system message, since its `mcts` does not carry the question into deeper prompts.
"""

from __future__ import annotations

import asyncio
from typing import Any

from peer_job import Job, MarkedQuestion, Solve, run
from peer_judge import post

APPROACHES = {"best-of-n": "bon", "self-consistency": "majority_voting", "mcts": "mcts"}


def body_of(job: Job, args: MarkedQuestion) -> dict[str, Any]:
    """The request."""
    system = {"role": "system", "content": f"{args.mark}{job.system}"}
    user = {"role": "user", "content": f"{args.text}\n\n{job.chain}"}
    body: dict[str, Any] = {"model": job.model, "messages": [system, user], "max_tokens": job.max_tokens}
    body |= {"optillm_approach": APPROACHES[job.method]}
    if job.method == "self-consistency":
        body |= {"k": job.size, "temperature": job.temperature}
    if job.method == "mcts":
        body |= {"mcts_simulations": max(1, job.size // 8)}
    return body


async def make(job: Job) -> Solve:
    """See `peer_job.run`."""

    async def solve(args: MarkedQuestion) -> str:
        reply = await asyncio.to_thread(post, f"{job.base_url}/chat/completions", body_of(job, args))
        return str(reply["choices"][0]["message"]["content"])

    return solve


if __name__ == "__main__":
    run(make)
