"""A load generator in a process of its own: streams that send the next request when the last has ended.

Jobs are lines of JSON on its input; a line of metrics is written for each (see `Job` and `LoadMetrics`). Every
stream first sends one uncounted request, which opens connections. A response counts if its status is 200 and it has the
expected content; all others are failures, by kind. `LoadGenerator` starts the process and sends it jobs.
"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from sidecar_backend import END

SILENCE_S = 120.0
"""Longest time for a request, in seconds."""


@dataclass(frozen=True)
class Job:
    """What to send.

    Attributes:
        url: Where to.
        body: The request, the same every time.
        headers: Its headers.
        streams: Requests in flight at once.
        requests: Requests in all, without those that warm up.
        spread_s: The streams begin spread over so many seconds, so that paced responses do not come in lock-step.
        numbered: A text in the body that becomes another for each request that counts, by a number after it.
    """

    url: str
    body: Mapping[str, Any]
    streams: int
    requests: int
    headers: Mapping[str, str] = field(default_factory=dict)
    spread_s: float = 0.0
    numbered: str = ""


@dataclass
class LoadMetrics:
    """What came of a job.

    Attributes:
        seconds: From the first request to the last response.
        latencies: Of each good response, in seconds.
        firsts: To the first event with text of each streamed response, in seconds.
        failures: How many failed, by what it was.
        cpu: Processor time of the generator, in seconds.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    cpu: float = 0.0


async def work(job: Job) -> LoadMetrics:
    """Do a job."""
    body = json.dumps(job.body)
    data = body.encode()
    streamed = bool(job.body.get("stream"))
    end = END.rpartition(" ")[2].encode()  # the last word: pieces of text end at words
    failures: Counter[str] = Counter()
    metrics = LoadMetrics()
    headers = {"Content-Type": "application/json", **job.headers}

    async def ask(session: aiohttp.ClientSession, into: LoadMetrics, data: bytes = data) -> None:
        began = time.perf_counter()
        first = 0.0
        reply = bytearray()
        try:
            async with session.post(job.url, data=data) as response:
                async for piece in response.content.iter_any():
                    reply += piece
                    if not first and b'"content"' in reply:
                        first = time.perf_counter()
                status = response.status
        except (aiohttp.ClientError, TimeoutError) as e:
            failures[type(e).__name__] += 1
            return
        now = time.perf_counter()
        if status != 200:
            failures[f"status {status}"] += 1
        elif end not in reply or (streamed and b"data: [DONE]" not in reply):
            failures["another reply"] += 1
        else:
            into.latencies.append(now - began)
            if streamed:
                into.firsts.append(first - began)

    async def stream(session: aiohttp.ClientSession, position: int, left: list[int], into: LoadMetrics) -> None:
        await asyncio.sleep(job.spread_s * position / job.streams)
        while left[0] > 0:
            left[0] -= 1
            if job.numbered:
                await ask(session, into, body.replace(job.numbered, f"{job.numbered}-{left[0]}").encode())
            else:
                await ask(session, into)

    limit = aiohttp.TCPConnector(limit=job.streams, force_close=False)
    timeout = aiohttp.ClientTimeout(total=SILENCE_S)
    async with aiohttp.ClientSession(connector=limit, timeout=timeout, headers=headers) as session:
        await asyncio.gather(*(ask(session, LoadMetrics()) for _ in range(job.streams)))
        failures.clear()
        gc.collect()
        left = [job.requests]
        began, worked = time.perf_counter(), time.process_time()
        await asyncio.gather(*(stream(session, position, left, metrics) for position in range(job.streams)))
        metrics.seconds = time.perf_counter() - began
        metrics.cpu = time.process_time() - worked
    metrics.failures = dict(failures)
    return metrics


class LoadGenerator:
    """The generator as a child process."""

    def __init__(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, job: Job) -> LoadMetrics:
        """Have a job done."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps(asdict(job)) + "\n")
        self._child.stdin.flush()
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError("the load generator ended")
        return LoadMetrics(**json.loads(line))

    def close(self) -> None:
        """End it; in the middle of a job, which an interrupted benchmark leaves it with, it is killed."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        try:
            self._child.wait(10)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def main() -> None:
    """Do the jobs that come."""
    for line in sys.stdin:
        print(json.dumps(asdict(asyncio.run(work(Job(**json.loads(line)))))), flush=True)


if __name__ == "__main__":
    main()
