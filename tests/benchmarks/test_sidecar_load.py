"""The load benchmark's parts: the model server counts right, the generator measures what it says, ratios are right."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from load_tables import DIRECT, OURS, Cell, added, cell_table, ratio, round_of
from scipy import stats
from sidecar_backend import Connection, Pace, RequestCounter
from sidecar_load_client import Job, LoadMetrics, work
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
async def test_generator_sends_its_jobs_and_the_server_counts_them(stream: bool, pace: Pace) -> None:
    desk = RequestCounter(pace, None)
    async with served(desk) as root:
        metrics = await work(Job(f"{root}/v1/chat/completions", body(stream=stream), streams=3, requests=10))
    assert len(metrics.latencies) == 10
    assert len(metrics.firsts) == (10 if stream else 0)
    assert all(first <= whole for first, whole in zip(metrics.firsts, metrics.latencies, strict=False))
    assert metrics.failures == {}
    assert (desk.counts.received, desk.counts.completed, desk.counts.open) == (13, 13, 0)  # 3 opened the connections
    assert desk.stats()["tags"] == {"tag-x-1": 13}


async def test_numbered_requests_have_their_own_tags() -> None:
    desk = RequestCounter(Pace(tokens=2), None)
    async with served(desk) as root:
        job = Job(f"{root}/v1/chat/completions", body(), streams=2, requests=5, numbered="tag-x-1")
        await work(job)
    assert desk.tags == {"tag-x-1": 2, **{f"tag-x-1-{n}": 1 for n in range(5)}}


async def test_server_without_n_returns_one_choice() -> None:
    async with served(RequestCounter(Pace(tokens=2, single=True), None)) as root, aiohttp.ClientSession() as session:
        whole = await (await session.post(f"{root}/v1/chat/completions", json=body(n=5))).json()
    assert len(whole["choices"]) == 1


def test_journal_has_a_line_for_each_completed_tag(tmp_path: Path) -> None:
    for _ in range(2):  # the second process goes on with it
        desk = RequestCounter(Pace(), tmp_path / "journal")
        desk.complete("tag-a")
        desk.complete("")
    assert (tmp_path / "journal").read_text().split() == ["tag-a", "tag-a"]


def test_jitter_is_even_and_bounded() -> None:
    factors = [Pace(jitter=0.5).factor(n) for n in range(1000)]
    assert 0.5 <= min(factors) < 0.51
    assert 1.49 < max(factors) < 1.5
    assert abs(np.mean(factors) - 1.0) < 0.005


def test_ratio_is_the_geometric_mean_with_its_interval() -> None:
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


def test_table_has_every_server_and_its_failures() -> None:
    cell = Cell(streams=2, requests=4, streamed=True)
    direct = round_of(LoadMetrics(1.0, [0.01] * 4, [0.005] * 4, {}, 0.5), 6, 6, 0.0)
    ours = round_of(LoadMetrics(1.0, [0.03] * 4, [0.02] * 4, {}, 0.5), 6, 6, 0.06)
    other = round_of(LoadMetrics(2.0, [0.09] * 3, [0.09] * 3, {"status 500": 1}, 0.5), 6, 12, 0.6)
    assert added([ours], [direct], lambda r: r.p99) == pytest.approx(20.0)
    reported = cell_table(cell, {DIRECT: [direct], OURS: [ours], "other": [other]})
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in reported.splitlines() if line.startswith("|")]
    assert [row[0] for row in rows[2:]] == [DIRECT, OURS, "other"]
    result = dict(zip(rows[0], rows[4], strict=True))
    assert result["failed"] == "1"
    assert result["calls each"] == "2.00"
    assert result["server's CPU ms each"] == "100.00"
    assert result["reason is … times as fast"] == "2.67"
    assert dict(zip(rows[0], rows[3], strict=True))["added p50 ms"] == "+20.0"


def test_memory_that_grows_is_not_flat() -> None:
    minutes = [float(n) for n in range(11)]
    assert flatness([(m, 300.0) for m in minutes]) == (0.0, pytest.approx(0.0, abs=1e-9))
    spread, slope = flatness([(m, 300.0 + 6.0 * m) for m in minutes])
    assert spread > 0.05
    assert slope == pytest.approx(360.0)
    assert flatness([(0.0, 100.0), *((m, 300.0) for m in minutes[2:])])[0] == 0.0  # what warms up does not count
