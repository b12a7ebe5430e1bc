"""No peer: `size` concurrent calls for each question. Time beyond this is a peer's own work."""

from __future__ import annotations

import asyncio

import aiohttp
from peer_job import Job, MarkedQuestion, Solve, run


async def make(job: Job) -> Solve:
    """See `peer_job.run`."""
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def call(args: MarkedQuestion) -> str:
        turns = [("system", job.system), ("user", job.chain_prompt(args))]
        body = {"model": job.model, "messages": [{"role": role, "content": content} for role, content in turns]}
        async with session.post(f"{job.base_url}/chat/completions", json={**body, "max_tokens": job.max_tokens}) as got:
            return str((await got.json())["choices"][0]["message"]["content"])

    async def solve(args: MarkedQuestion) -> str:
        texts = await asyncio.gather(*(call(args) for _ in range(job.size)))
        if args is job.questions[-1] and job.concurrency == 1:
            await session.close()
        return texts[0]

    return solve


if __name__ == "__main__":
    run(make)
