"""Limits that replicas share through a real Redis server, which is killed, paused and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
from limits import RateLimitItemPerMinute
from reason.core.budget import Budget
from reason.core.errors import KeyLimitExceeded, LimitsUnavailable, UserError
from reason.core.settings import ServeSettings, Settings, setting_sources
from reason.core.store.protocol import KeyLimits
from reason.sidecar.auth import Caller
from reason.sidecar.key_limits import KeyLimiter
from support.authenticated_app import guarded_app
from support.redis_server import CannotStart, RedisServer

redis_counts = pytest.importorskip("reason.sidecar.redis_counts")
RedisCounts = redis_counts.RedisCounts


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    try:
        server = RedisServer(password="p w")
    except CannotStart as e:
        pytest.skip(f"no Redis: {e}")
    server.url = server.url.replace("p w", "p%20w")
    yield server
    server.kill()


@pytest.fixture(autouse=True)
async def empty(request: pytest.FixtureRequest) -> None:
    if "server" in request.fixturenames:
        async with replica(request.getfixturevalue("server")) as limiter:
            await limiter._shared._redis.flushall()


@asynccontextmanager
async def replica(server: RedisServer, fail: str = "open", lease_s: float = 30.0) -> AsyncIterator[KeyLimiter]:
    """The limits of one replica, without a store: no key has daily limits."""
    counts = RedisCounts(server.url, fail=fail, lease_s=lease_s)
    try:
        yield KeyLimiter(None, counts)
    finally:
        await counts.aclose()


@asynccontextmanager
async def replicas(server: RedisServer, **options: object) -> AsyncIterator[list[KeyLimiter]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(replica(server, **options)) for _ in range(3)]


def caller(key: str = "k", **limits: int) -> Caller:
    return Caller(key_id=key, tenant="t", scopes={"ask"}, limits=KeyLimits(**limits))


async def admitted(limiter: KeyLimiter, mine: Caller) -> bool:
    """Whether a run is admitted that ends at once."""
    try:
        async with limiter.hold(mine, Budget()):
            return True
    except KeyLimitExceeded:
        return False


async def until_reached(limiter: KeyLimiter) -> None:
    """Wait until a replica has noticed that the server is back."""
    while not limiter._shared._is_reached:
        with suppress(LimitsUnavailable):
            await limiter.count(caller("probe", requests_per_minute=1_000_000))
        await asyncio.sleep(0.02)


async def test_requests_per_minute_hold_over_all_replicas(server):
    mine = caller(requests_per_minute=10)
    async with replicas(server) as all_of_them:
        states = await asyncio.gather(*(limiter.count(mine) for limiter in all_of_them for _ in range(10)))
        assert sum(state.refused is None for state in states) == 10
        assert {state.headers["x-ratelimit-limit-requests"] for state in states} == {"10"}
        assert all(1 <= state.refused.retry_after_s <= 60 for state in states if state.refused)
        assert (await all_of_them[0].count(caller("other", requests_per_minute=10))).refused is None


async def test_concurrent_runs_hold_over_all_replicas(server):
    mine = caller(concurrency=4)
    async with replicas(server) as all_of_them, AsyncExitStack() as held:

        async def hold(limiter: KeyLimiter) -> bool:
            try:
                await held.enter_async_context(limiter.hold(mine, Budget()))
            except KeyLimitExceeded:
                return False
            return True

        outcomes = await asyncio.gather(*(hold(limiter) for limiter in all_of_them for _ in range(4)))
        assert sum(outcomes) == 4
        assert not await admitted(all_of_them[0], mine)
        await held.aclose()
        assert await admitted(all_of_them[2], mine)
        assert await all_of_them[0]._shared._redis.zcard("reason:runs:k") == 0


async def test_place_of_a_cancelled_admission_comes_back(server):
    mine = caller(concurrency=1)
    async with replicas(server) as (one, two, _):
        server.pause()
        holding = asyncio.create_task(one.hold(mine, Budget()).__aenter__())
        await asyncio.sleep(0.05)
        holding.cancel()
        await asyncio.sleep(0.05)
        server.resume()
        with pytest.raises(asyncio.CancelledError):
            await holding
        while not await admitted(two, mine):  # the command may reach the server after its cancellation
            await asyncio.sleep(0.05)


async def test_leases_are_renewed_while_their_process_lives(server):
    mine = caller(concurrency=1)
    async with replicas(server, lease_s=2.4) as (one, two, _):
        async with one.hold(mine, Budget()):
            for _ in range(10):
                await asyncio.sleep(0.6)
                assert not await admitted(two, mine)
        assert await admitted(two, mine)


KILLED = """
import asyncio, sys
from reason.core.budget import Budget
from reason.core.store.protocol import KeyLimits
from reason.sidecar.auth import Caller
from reason.sidecar.key_limits import KeyLimiter
from reason.sidecar.redis_counts import RedisCounts

async def main():
    limiter = KeyLimiter(None, RedisCounts(sys.argv[1], fail="open", lease_s=5.0))
    mine = Caller(key_id="k", tenant="t", limits=KeyLimits(concurrency=2))
    async with limiter.hold(mine, Budget()), limiter.hold(mine, Budget()):
        print("held", flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_places_of_a_killed_replica_come_back_when_its_leases_expire(server):
    mine = caller(concurrency=2)
    with subprocess.Popen([sys.executable, "-c", KILLED, server.url], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert await asyncio.to_thread(process.stdout.readline) == "held\n"
            async with replica(server) as limiter:
                assert not await admitted(limiter, mine)
                os.kill(process.pid, signal.SIGKILL)
                assert not await admitted(limiter, mine)
                while not await admitted(limiter, mine):
                    await asyncio.sleep(0.05)
                async with limiter.hold(mine, Budget()):
                    assert await admitted(limiter, mine)  # both places
        finally:
            process.kill()


async def test_open_limits_are_counted_per_process_while_redis_is_gone(server):
    busy, frequent = caller(concurrency=1), caller("f", requests_per_minute=3)
    async with replicas(server) as (one, two, _):
        async with one.hold(busy, Budget()):
            server.kill()
            try:
                assert not await admitted(one, busy)  # a process knows its own runs
                async with two.hold(busy, Budget()):
                    states = [await limiter.count(frequent) for limiter in (one, two) for _ in range(4)]
                    assert [state.refused is None for state in states] == [True, True, True, False] * 2
            finally:
                server.start()
            await until_reached(one)
            while await admitted(two, busy):  # the run of `one` counts again, although Redis has lost it
                await asyncio.sleep(0.02)
        assert await admitted(two, busy)


async def test_run_admitted_without_redis_counts_once_it_is_back(server):
    mine = caller(concurrency=1)
    async with replicas(server) as (one, two, _):
        server.kill()
        try:
            async with one.hold(mine, Budget()):
                server.start()
                await until_reached(one)
                while await admitted(two, mine):
                    await asyncio.sleep(0.02)
                await until_reached(two)
                assert not await admitted(two, mine)
        finally:
            server.start()


def test_a_connection_that_uvloop_has_closed_is_made_again(server):
    async def count_twice() -> None:
        mine = caller(requests_per_minute=10)
        async with replica(server, "closed") as limiter:
            assert (await limiter.count(mine)).refused is None
            for connection in limiter._shared._redis.connection_pool._available_connections:
                connection._writer.transport.abort()  # as a server that is killed at this moment
            assert (await limiter.count(mine)).refused is None

    uvloop = pytest.importorskip("uvloop")
    uvloop.run(count_twice())


async def test_closed_limits_refuse_while_redis_is_gone(server):
    mine = caller(concurrency=1, requests_per_minute=10)
    async with replica(server, "closed") as limiter:
        assert (await limiter.count(mine)).refused is None
        server.kill()
        try:
            for _ in range(3):
                with pytest.raises(LimitsUnavailable):
                    await limiter.count(mine)
                with pytest.raises(LimitsUnavailable):
                    await admitted(limiter, mine)
            assert (await limiter.count(caller("unlimited"))).refused is None
            assert await admitted(limiter, caller("unlimited"))
            assert not limiter._running
        finally:
            server.start()
        await until_reached(limiter)
        assert await admitted(limiter, mine)


async def test_server_answers_503_where_limits_are_closed(server, tmp_path):
    settings = {"limits_url": server.url, "limits_fail": "closed"}
    async with guarded_app(tmp_path, serve=settings) as guarded:
        limited, unlimited = await guarded.key(requests_per_minute=2), await guarded.key()
        server.kill()
        try:
            refused = await guarded.ask(limited)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert refused.json()["error"]["code"] == "limits_unavailable"
            assert (await guarded.ask(unlimited)).status_code == 200
            assert (await guarded.client.get("/readyz")).status_code == 200
        finally:
            server.start()
        while (answered := await guarded.ask(limited)).status_code == 503:
            await asyncio.sleep(0.05)
        assert (answered.status_code, answered.headers["x-ratelimit-remaining-requests"]) == (200, "1")


async def test_run_in_flight_ends_normally_while_redis_is_gone(server):
    mine = caller(concurrency=1)
    async with replica(server, "closed") as limiter:
        try:
            async with limiter.hold(mine, Budget()):
                server.kill()
        finally:
            server.start()
        assert not limiter._running


@pytest.mark.parametrize("fail", ["open", "closed"])
async def test_server_that_does_not_answer_is_waited_for_once(server, fail, monkeypatch):
    monkeypatch.setattr(redis_counts, "RETRY_S", 3600.0)
    async with replica(server, fail) as limiter:
        server.pause()
        try:
            tries = 0
            reach = limiter._shared._requests.hit

            async def counted(*args: object) -> bool:
                nonlocal tries
                tries += 1
                return await reach(*args)

            limiter._shared._requests.hit = counted
            for _ in range(50):
                with suppress(LimitsUnavailable):
                    await limiter.count(caller(requests_per_minute=100))
            assert tries == 1
        finally:
            server.resume()


async def test_keys_without_limits_ask_redis_nothing(server):
    async with replica(server) as limiter:
        assert (await limiter.count(caller())).headers == {}
        async with limiter.hold(caller(), Budget()):
            pass
        assert await limiter._shared._redis.keys() == []


async def test_window_is_that_of_the_shared_count(server):
    async with replicas(server) as (one, two, _):
        limit = RateLimitItemPerMinute(5)
        assert (await one._shared.hit(limit, "w"))[0]
        taken, window = await two._shared.hit(limit, "w")
        assert (taken, window.remaining) == (True, 3)


@pytest.mark.parametrize("url", ["http://h", "memcached://h", "redis:h", "reason:secret@h"])
def test_url_of_another_kind_is_refused_without_showing_it(url):
    with pytest.raises(UserError, match="is not the URL of a Redis server") as refused:
        ServeSettings(limits_url=url)
    assert "secret" not in str(refused.value)


def test_settings_are_shown_without_the_password(tmp_path: Path):
    settings = Settings(serve={"limits_url": "rediss://me:secret@h:6380/2"}, store=tmp_path / "runs.sqlite3")
    shown = setting_sources(settings, {})["serve.limits_url"][0]
    assert shown == "rediss://me:***@h:6380/2"
    assert setting_sources(Settings(store=tmp_path / "runs.sqlite3"), {})["serve.limits_url"][0] is None
