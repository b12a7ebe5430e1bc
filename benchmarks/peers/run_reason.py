"""`reason` through its SDK, over the same server, scored by the shared judge.

best-of-n         `n` = size, scored by the judge over the complete solution
self-consistency  `n` = size
beam              `width` = size / 2, two continuations each
particle-filter   `n` = size, the heaviest particle
mcts              three thoughts an expansion, three expansions for every two of size

Steps are cut at blank lines. Prompts, system message, sampling and limits are those of all peers; `mcts` writes
thoughts as turns with its own prompt.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from peer_job import Job, MarkedQuestion, Solve, run
from reason import Question, Reasoner
from reason.core.settings import load_settings


def parameters_of(job: Job) -> dict[str, Any]:
    """The strategy's parameters."""
    common = {"temperature": job.temperature, "top_p": job.top_p, "system": job.system}
    chains = {**common, "n": job.size, "max_tokens": job.max_tokens, "instruction": job.chain}
    steps = {**common, "max_step_tokens": job.step_tokens, "instruction": job.steps, "score": "reward"}
    return {
        "best-of-n": {**chains, "score": "reward", "aggregate": "model"},
        "self-consistency": chains,
        "beam": {**steps, "width": max(1, job.size // 2), "k": 2},
        "particle-filter": {**steps, "n": job.size, "parity": "reference"},
        "mcts": {
            "temperature": job.temperature,
            "k": 3,
            "expansions": max(1, 3 * job.size // 2),
            "max_step_tokens": job.step_tokens,
            "judging": "reward",
            "association": "none",
        },
    }[job.method]


async def make(job: Job, model: str = "") -> Solve:
    """See `peer_job.run`."""
    model = model or os.environ.get("REASON_MODEL") or f"hosted_vllm/{job.model}"
    directory = Path(
        tempfile.mkdtemp(prefix="reason-", dir=Path.cwd())
    )  # removed with the working directory of the runners
    settings = load_settings(
        store=str(directory / "runs.sqlite3"),
        providers={model.partition("/")[0]: {"api_base": job.base_url, "concurrency": 64}},
    )
    scored = job.method != "self-consistency"
    reasoner = Reasoner(
        model,
        "coat" if job.method == "mcts" else job.method,
        reward_model=f"judge/{model}" if scored else None,
        parameters=parameters_of(job),
        seed=0,
        settings=settings,
    )
    await reasoner.load()

    async def solve(args: MarkedQuestion) -> str:
        return (await reasoner.aask(Question(text=args.marked, kind="number"))).text

    return solve


if __name__ == "__main__":
    run(make)
