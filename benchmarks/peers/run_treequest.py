"""treequest: its trees over a generator of ours, since it has no model of its own.

mcts    `StandardMCTS`, two samples of a node, as many nodes as the size
ab-mcts `ABMCTSA`, as many nodes as the size

A node is a complete solution: below the root a new one is requested, below a solution a better one. The score is that
of the shared judge (`peer_judge`), and the answer is the node of the highest score.
"""

from __future__ import annotations

import asyncio
from typing import Any

import treequest
from peer_job import Job, MarkedQuestion, Solve, run
from peer_judge import Judge, post

BETTER = "Look for mistakes in your solution above, and write a better one out in full."


def messages_of(job: Job, args: MarkedQuestion, before: str | None) -> list[dict[str, str]]:
    """What is posed below the root (`before` is None), or below a solution."""
    turns = [("system", job.system), ("user", job.chain_prompt(args))]
    turns += [] if before is None else [("assistant", before), ("user", f"{BETTER} {job.chain}")]
    return [{"role": role, "content": content} for role, content in turns]


async def make(job: Job) -> Solve:
    """See `peer_job.run`."""
    judge = Judge(job.base_url, job.model)

    def written(args: MarkedQuestion, before: str | None) -> tuple[str, float]:
        body: dict[str, Any] = {"model": job.model, "messages": messages_of(job, args, before)}
        body |= {"max_tokens": job.max_tokens, "temperature": job.temperature, "top_p": job.top_p}
        text = str(post(f"{job.base_url}/chat/completions", body)["choices"][0]["message"]["content"])
        return text, judge.score_now(job.chain_prompt(args), text)

    def search(args: MarkedQuestion) -> str:
        algorithm = treequest.ABMCTSA() if job.method == "ab-mcts" else treequest.StandardMCTS()
        state = algorithm.init_tree()
        for _ in range(job.size):
            state = algorithm.step(state, {"write": lambda before: written(args, before)}, inplace=True)
        return str(treequest.top_k(state, algorithm, k=1)[0][0])

    async def solve(args: MarkedQuestion) -> str:
        return await asyncio.to_thread(search, args)

    return solve


if __name__ == "__main__":
    run(make)
