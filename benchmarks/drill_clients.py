"""Clients go away in every phase of a request; the model server must be idle soon after, and the run ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
from drill_ledger import Outcome, snapshot
from drill_requests import question, wait_until
from sidecar_backend import Pace
from sidecar_load_servers import started, write_settings
from sidecar_processes import Backend, free_port

PACE = Pace(tokens=120, first_s=1.0, token_s=0.5)
"""A minute for a reply: a model server that is idle before has been told to stop, and has not just ended."""
QUICK = Pace(tokens=4, first_s=0.05, token_s=0.05)
IDLE_S = 1.0
"""How soon the model server must be idle, in seconds."""
LONGEST_S = 20.0
PHASES = ("before the first token", "in mid stream", "waiting for a whole reply", "queued", "verifying")


def drill(folder: Path, number: int) -> Outcome:
    """One drill: each phase once, on a sidecar that has one turn, so that a second request waits."""
    outcome = Outcome()
    with Backend(folder, QUICK) as backend:  # the sidecar asks it what it can do first
        write_settings(folder, backend.root, turns=1)
        server = started(folder, free_port())
        with server.process:
            for place, phase in enumerate(PHASES):
                backend.set_pace(PACE)
                tag = f"tag-clients-{number}-{place}"
                asyncio.run(_phase(phase, tag, server.url, backend, outcome))
            outcome.demand(server.process.end() == 0, f"the sidecar ended badly\n{server.process.tail()}")
    runs = snapshot(folder / "runs.sqlite3", {}).runs
    for place, phase in enumerate(PHASES):
        statuses = [run.status for run in runs.get(f"tag-clients-{number}-{place}", [])]
        # a request that never had a turn may have left no run
        allowed = ([], ["interrupted"]) if phase == "queued" else (["interrupted"],)
        outcome.demand(statuses in allowed, f"{phase}: the run is {statuses}")
    outcome.runs = len(PHASES)
    return outcome


async def _phase(phase: str, tag: str, url: str, backend: Backend, outcome: Outcome) -> None:
    """One phase: come to it, go away, and see how long the model server goes on."""
    async with aiohttp.ClientSession() as session:
        if phase == "queued":
            first = asyncio.create_task(_ask(session, url, f"{tag}-first", stream=True))
            await _until(lambda: backend.stats()["open"] == 1, outcome, phase)
            second = asyncio.create_task(_ask(session, url, tag, stream=True))
            await asyncio.sleep(0.5)  # nobody can see from outside that it waits
            await _leave(second)
            await _leave(first)
        else:
            verify = phase == "verifying"
            if verify:
                backend.set_pace(QUICK)
            before = backend.stats()
            asked = asyncio.create_task(_ask(session, url, tag, stream=phase != PHASES[2], verify=verify))
            if verify:  # the answer is there, and the jurors are asked: they take their time
                await _until(lambda: backend.stats()["received"] > before["received"], outcome, phase)
                backend.set_pace(PACE)
                await _until(
                    lambda: backend.stats()["completed"] > before["completed"] and backend.stats()["open"] > 0,
                    outcome,
                    phase,
                )
            else:
                await _until(lambda: backend.stats()["open"] == 1, outcome, phase)
                await asyncio.sleep(2.5 if phase == "in mid stream" else 0.2)
            await _leave(asked)
        began = time.monotonic()
        idle = await asyncio.to_thread(wait_until, lambda: backend.stats()["open"] == 0, LONGEST_S)
        outcome.notes[f"{phase}: idle after s"] = time.monotonic() - began
        outcome.demand(idle, f"{phase}: the model server still worked {LONGEST_S:.0f} s later")
        began_anyway = phase == "queued" and tag in backend.stats()["started"]
        outcome.demand(not began_anyway, "a queued run began without a client")


async def _until(happened: Callable[[], bool], outcome: Outcome, phase: str) -> None:
    there = await asyncio.to_thread(wait_until, happened, LONGEST_S)
    outcome.demand(there, f"{phase}: it was not reached")


async def _ask(session: aiohttp.ClientSession, url: str, tag: str, *, stream: bool, verify: bool = False) -> None:
    body: dict[str, Any] = {"model": "reason/cot", "messages": [{"role": "user", "content": question(tag)}]}
    body |= {"stream": stream}
    if verify:
        body["reason"] = {"verify": ["edgejury"]}
    async with session.post(url, json=body) as reply:
        async for _ in reply.content.iter_any():
            pass


async def _leave(asked: asyncio.Task[None]) -> None:
    """Close the connection of a request."""
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
