"""The load benchmark's parts: the model server counts right, the generator measures what it says, ratios are right."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
from load_tables import ratio
from scipy import stats
from sidecar_backend import Connection, Pace, RequestCounter
from sidecar_load_client import Job, work
from sidecar_soak import flatness

MESSAGES = [{"role": "user", "content": "six times seven? (tag-x-1)"}]


@asynccontextmanager
async def served(desk: RequestCounter) -> AsyncIterator[str]:
    server = await asyncio.get_running_loop().create_server(lambda: Connection(desk), "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def body(**more: object) -> dict[str, object]:
    return {"model": "fake", "messages": MESSAGES, **more}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("pace", [Pace(tokens=3), Pace(tokens=3, token_s=0.001, jitter=0.5)])
async def test_generator_sends_its_jobs_and_the_server_counts_them(stream, pace):
    desk = RequestCounter(pace, None)
    async with served(desk) as root:
        metrics = await work(Job(f"{root}/v1/chat/completions", body(stream=stream), streams=3, requests=10))
    assert len(metrics.latencies) == 10
    assert len(metrics.firsts) == (10 if stream else 0)
    assert all(first <= whole for first, whole in zip(metrics.firsts, metrics.latencies, strict=False))
    assert metrics.failures == {}
    assert (desk.counts.received, desk.counts.completed, desk.counts.open) == (13, 13, 0)  # 3 opened the connections
    assert desk.stats()["tags"] == {"tag-x-1": 13}


def test_ratio_is_the_geometric_mean_with_its_interval():
    ours, theirs = [20.0, 36.0, 24.0], [10.0, 12.0, 12.0]
    mean, low, high = ratio(ours, theirs)
    logs = np.log([2.0, 3.0, 2.0])
    expected = stats.t.interval(0.95, 2, loc=logs.mean(), scale=stats.sem(logs))
    assert mean == pytest.approx(12 ** (1 / 3))
    assert (low, high) == pytest.approx(tuple(np.exp(expected)))
    back = ratio(theirs, ours)
    assert back == pytest.approx((1 / mean, 1 / high, 1 / low))
    assert ratio([4.0], [2.0])[0] == pytest.approx(2.0)
    assert math.isnan(ratio([4.0], [2.0])[1])


def test_memory_that_grows_is_not_flat():
    minutes = [float(n) for n in range(11)]
    assert flatness([(m, 300.0) for m in minutes]) == (0.0, pytest.approx(0.0, abs=1e-9))
    spread, slope = flatness([(m, 300.0 + 6.0 * m) for m in minutes])
    assert spread > 0.05
    assert slope == pytest.approx(360.0)
    assert flatness([(0.0, 100.0), *((m, 300.0) for m in minutes[2:])])[0] == 0.0  # what warms up does not count
