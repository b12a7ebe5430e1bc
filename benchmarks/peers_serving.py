"""Time to the first streamed text, and how long the model still works for a client that has gone away.

The servers are those of `sidecar_load_servers`, before the same model that takes its time (`sidecar_backend`), one
request at a time, for one sample and for a vote. `first` is the time to the first event with text, thought or answer.
A client that leaves does so `LEAVES` of a reply's time after the model began; `idle` is how long after that the
model still has a request open; told beside it is how many it answered to their end, or was sent, for nobody.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from sidecar_backend import Pace
from sidecar_load_servers import PEERS, QUESTION, Server, start_all
from sidecar_load_table import spread, table
from sidecar_processes import Backend, Failed

VOTE = 4
LEAVES = 0.3
QUIET_S = 1.0
"""So long the model must have nothing to do before it counts as idle."""
MOST_S = 60.0
_TEXT = re.compile(rb'"(?:content|reasoning|reasoning_content)" *: *"[^"]')

Body = Callable[[str, int], dict[str, Any]]


def _reason(model: str, samples: int) -> dict[str, Any]:
    strategy = "cot" if samples == 1 else "self-consistency"
    return {"model": f"reason/{strategy}"} | (
        {} if samples == 1 else {"reason": {"parameters": {"n": samples, "max_tokens": 64}}}
    )


def _optillm(model: str, samples: int) -> dict[str, Any]:
    return {"model": model} | ({} if samples == 1 else {"optillm_approach": "majority_voting", "k": samples})


BODIES: Mapping[str, Body] = {
    "reason": _reason,
    "optillm": _optillm,
    "its_hub": lambda model, samples: {"model": model, "budget": samples},
    "litellm": lambda model, samples: {"model": model, "n": samples},
}
"""What a request says beside question and stream, by server; LiteLLM has no vote and passes `n` on."""


@dataclass(frozen=True)
class Asked:
    """One request. Times are in seconds.

    Attributes:
        first: To the first text; NaN if none came.
        whole: To the end.
    """

    first: float
    whole: float


@dataclass(frozen=True)
class Left:
    """One request that its client left.

    Attributes:
        idle: Seconds from closing to the last moment at which the model had a request open; at most `MOST_S`.
        completed: Requests that the model answered to their end after that.
        begun: Requests that it was sent after that.
    """

    idle: float
    completed: int
    begun: int


async def ask(server: Server, body: Mapping[str, Any]) -> Asked:
    """Send a request and read its whole stream."""
    async with aiohttp.ClientSession(headers=dict(server.headers)) as session:
        began, first, read = time.perf_counter(), math.nan, b""
        async with session.post(server.url, data=json.dumps(body), headers=_JSON) as reply:
            async for piece in reply.content.iter_any():
                read += piece
                if math.isnan(first) and _TEXT.search(read):
                    first = time.perf_counter() - began
            if reply.status != 200:
                raise Failed(f"{server.name} answered {reply.status}: {read[:300]!r}")
        return Asked(first, time.perf_counter() - began)


async def leave(server: Server, body: Mapping[str, Any], after_s: float, backend: Backend) -> Left:
    """Send a request, close the connection a while after the model has begun, and watch the model until it is idle.

    Raises:
        Failed: The model was not asked.
    """
    session = aiohttp.ClientSession(headers=dict(server.headers))
    asked = asyncio.create_task(_read(session, server.url, body))
    ends = time.perf_counter() + MOST_S
    while not (await asyncio.to_thread(backend.stats))["open"]:
        if asked.done() or time.perf_counter() > ends:
            asked.cancel()
            await session.close()
            raise Failed(f"{server.name} did not ask the model")
        await asyncio.sleep(0.005)
    await asyncio.sleep(after_s)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    await session.close()
    closed = last = time.perf_counter()
    before = await asyncio.to_thread(backend.stats)
    while True:
        told = await asyncio.to_thread(backend.stats)
        now = time.perf_counter()
        if told["open"]:
            last = now
        if now - last > QUIET_S or now - closed > MOST_S:
            break
        await asyncio.sleep(0.005)
    return Left(last - closed, told["completed"] - before["completed"], told["received"] - before["received"])


async def _read(session: aiohttp.ClientSession, url: str, body: Mapping[str, Any]) -> None:
    async with session.post(url, data=json.dumps(body), headers=_JSON) as reply:
        async for _ in reply.content.iter_any():
            pass


_JSON = {"Content-Type": "application/json"}
Round = tuple[Asked, Left, Left]
"""A request that was read to its end as a stream, one that was left as a stream, and one as a whole reply."""
Found = dict[tuple[str, int], list[Round]]
"""By server and samples, an entry a round."""


def measure(peers: Path, folder: Path, pace: Pace, rounds: int, only: str = "") -> tuple[Found, list[str]]:
    """All rounds, in turns, and what could not be measured.

    Args:
        peers: Folder of the virtual environments.
        folder: Where servers run.
        pace: How the model's replies come.
        rounds: Rounds, after one that is not counted.
        only: Names of servers, with commas; empty is all.
    """
    found: Found = {}
    with ExitStack() as stack:
        backend = stack.enter_context(Backend(folder, pace))
        names = [name for name in ("reason", *PEERS) if not only or name in only.split(",")]
        running, missing = start_all(folder, backend, peers, names, stack)
        servers = list(running.items())
        for number in range(rounds + 1):  # the first is for warming up
            for name, server in servers:
                for samples in (1, VOTE):
                    try:
                        made = asyncio.run(_round(name, server, samples, pace, backend))
                    except (Failed, aiohttp.ClientError) as e:
                        missing.append(f"{server.name}, {samples} samples: {e}")
                        continue
                    if number:
                        found.setdefault((server.name, samples), []).append(made)
            servers.append(servers.pop(0))
    return found, missing


async def _round(name: str, server: Server, samples: int, pace: Pace, backend: Backend) -> Round:
    messages = [{"role": "user", "content": QUESTION}]
    body = {**BODIES[name](server.model, samples), "messages": messages}
    streamed, after = {**body, "stream": True}, LEAVES * pace.seconds
    asked = await ask(server, streamed)
    return asked, await leave(server, streamed, after, backend), await leave(server, body, after, backend)


def serving_table(found: Found) -> str:
    """A row for each server and number of samples: medians over the rounds, and the range."""
    head = ["server", "samples", "first text, s", "range", "whole reply, s"]
    head += ["idle after leaving a stream, s", "range", "answered, begun for nobody"]
    head += ["idle after leaving a whole reply, s", "range", "answered, begun for nobody"]
    lines = []
    for (name, samples), rounds in found.items():
        line = [name, str(samples), *spread([asked.first for asked, _, _ in rounds], 3)]
        line += [f"{statistics.median(asked.whole for asked, _, _ in rounds):.2f}"]
        for left in ([stream for _, stream, _ in rounds], [whole for _, _, whole in rounds]):
            line += spread([one.idle for one in left], 3)
            counts = (statistics.mean(one.completed for one in left), statistics.mean(one.begun for one in left))
            line += [f"{counts[0]:.1f}, {counts[1]:.1f}"]
        lines.append(line)
    return table(head, lines)
