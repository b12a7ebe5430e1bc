"""Limits that replicas share through a real Redis server, which is killed, paused and started again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from reason.core.errors import UserError
from reason.core.settings import ServeSettings, Settings, setting_sources
from reason.sidecar import key_limits
from reason.sidecar.auth import Caller
from reason.sidecar.key_limits import KeyLimiter, RequestCounter
from reason.sidecar.key_store import KeyLimits
from support.redis_server import CannotStart, RedisServer
from support.waiting import wait_until

pytest.importorskip("redis")


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
            await redis_of(limiter).flushall()


def redis_of(limiter: KeyLimiter) -> Any:
    """The client of the storage of `limits`."""
    return limiter._requests._shared.storage.bridge.get_connection()


@asynccontextmanager
async def replica(server: RedisServer) -> AsyncIterator[KeyLimiter]:
    """The limits of one replica, without a store: no key has daily limits."""
    limiter = KeyLimiter(None, RequestCounter(server.url))
    try:
        yield limiter
    finally:
        await limiter._requests.aclose()


@asynccontextmanager
async def replicas(server: RedisServer) -> AsyncIterator[list[KeyLimiter]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(replica(server)) for _ in range(3)]


def caller(key: str = "k", **limits: int) -> Caller:
    return Caller(key_id=key, tenant="t", scopes={"ask"}, limits=KeyLimits(**limits))


async def until_reached(limiter: KeyLimiter) -> None:
    """Wait until a replica has noticed that the server is back."""

    async def is_reached() -> bool:
        await limiter.count(caller("probe", requests_per_minute=1_000_000))
        return limiter._requests._is_reached

    await wait_until(is_reached)


async def test_requests_per_minute_hold_over_all_replicas(server):
    mine = caller(requests_per_minute=10)
    async with replicas(server) as all_of_them:
        states = await asyncio.gather(*(limiter.count(mine) for limiter in all_of_them for _ in range(10)))
        assert sum(state.refused is None for state in states) == 10
        assert {state.headers["x-ratelimit-limit-requests"] for state in states} == {"10"}
        assert all(1 <= state.refused.retry_after_s <= 60 for state in states if state.refused)
        assert (await all_of_them[0].count(caller("other", requests_per_minute=10))).refused is None


async def test_open_limits_are_counted_per_process_while_redis_is_gone(server):
    mine = caller("f", requests_per_minute=3)
    async with replicas(server) as (one, two, _):
        server.kill()
        try:
            states = [await limiter.count(mine) for limiter in (one, two) for _ in range(4)]
            assert [state.refused is None for state in states] == [True, True, True, False] * 2
        finally:
            server.start()
        await until_reached(one)


def test_a_connection_that_uvloop_has_closed_is_made_again(server):
    async def count_twice() -> None:
        mine = caller(requests_per_minute=10)
        async with replica(server) as limiter:
            assert (await limiter.count(mine)).refused is None
            for connection in redis_of(limiter).connection_pool._available_connections:
                connection._writer.transport.abort()  # as a server that is killed at this moment
            assert (await limiter.count(mine)).refused is None
            await until_reached(limiter)

    uvloop = pytest.importorskip("uvloop")
    uvloop.run(count_twice())


async def test_server_that_does_not_answer_is_waited_for_once(server, monkeypatch):
    monkeypatch.setattr(key_limits, "REDIS_RETRY_S", 3600.0)
    async with replica(server) as limiter:
        server.pause()
        try:
            tries = 0
            reach = limiter._requests._shared.hit

            async def counted(*args: object) -> bool:
                nonlocal tries
                tries += 1
                return await reach(*args)

            limiter._requests._shared.hit = counted
            for _ in range(50):
                await limiter.count(caller(requests_per_minute=100))
            assert tries == 1
        finally:
            server.resume()


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
