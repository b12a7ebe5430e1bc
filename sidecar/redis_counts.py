"""`RedisCounts`: counts the requests and the concurrent runs of keys over all replicas, in Redis (or Valkey).

Requests are counted by the sliding window of the library `limits`. A run holds a lease: a member of a sorted set of its
key, with the time at which it expires. The process renews the leases of its runs, so that those of a killed process
expire. All times are those of Redis.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal, TypeVar

from limits import RateLimitItem
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.util import WindowStats
from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ..core.concurrency import shielded
from ..core.errors import LimitsUnavailable
from .logs import log_event

T = TypeVar("T")

PREFIX = "reason"
LEASE_S = 30.0
"""How long a run counts after its process last renewed its lease, in seconds; renewed three times as often."""
TIMEOUT_S = 0.5
"""Maximum time of an attempt to connect, and of a command, in seconds."""
RETRY_S = 1.0
"""Interval of attempts to reach Redis while it is unreachable, in seconds."""
MAX_CONNECTIONS = 64
_BROKEN: Any = (exceptions.ConnectionError, exceptions.TimeoutError, OSError, RuntimeError)
"""Errors of a connection: uvloop's is a RuntimeError if its transport was closed at this moment."""

_NOW = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
"""
_ACQUIRE = f"""{_NOW}
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then
    return 0
end
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[2] * 1000))
return 1
"""
_RENEW = f"""{_NOW}
for i = 2, #ARGV do
    redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[i])
end
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[1] * 1000))
"""


class RedisCounts:
    """Counts shared by all processes that use one Redis; `aclose` it.

    While Redis is unreachable, the methods return None, so that each process counts for itself, or raise, as `fail`
    tells. Afterwards the leases of all runs that are still in flight are renewed at once, also those of runs that began
    in the meantime and those that Redis has lost.

    Args:
        url: `redis://HOST:PORT/DATABASE` or `rediss://…`; may have a user and a password.
        fail: "open" returns None while Redis is unreachable, "closed" raises.
        lease_s: How long a run counts after its lease was last renewed, in seconds.
    """

    def __init__(self, url: str, *, fail: Literal["open", "closed"], lease_s: float = LEASE_S) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=TIMEOUT_S,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 1, _BROKEN),  # a connection that the server has closed
        )
        self._fail, self._lease_s = fail, lease_s
        self._redis: Redis = Redis.from_pool(pool)
        options: dict[str, Any] = {"connection_pool": pool}
        self._requests = SlidingWindowCounterRateLimiter(
            RedisStorage(f"async+{url}", implementation="redispy", key_prefix=PREFIX, **options)
        )
        self._acquire, self._renew = self._redis.register_script(_ACQUIRE), self._redis.register_script(_RENEW)
        self._leases: dict[str, str] = {}
        """Keys in Redis by lease."""
        self._renewal: asyncio.Task[None] | None = None
        self._reconnected = asyncio.Event()
        self._is_reached, self._retry_at = True, 0.0

    async def aclose(self) -> None:
        """Stop renewing leases and close the connections."""
        if self._renewal is not None:
            self._renewal.cancel()
        await self._redis.aclose()

    async def hit(self, limit: RateLimitItem, key_id: str) -> tuple[bool, WindowStats] | None:
        """Count a request; returns whether it is within the limit, and the state of the window.

        Raises:
            LimitsUnavailable: Redis is unreachable.
        """

        async def count() -> tuple[bool, WindowStats]:
            is_within = await self._requests.hit(limit, key_id)
            return is_within, await self._requests.get_window_stats(limit, key_id)

        return await self._reach(count)

    @asynccontextmanager
    async def lease(self, key_id: str, limit: int) -> AsyncIterator[bool | None]:
        """Hold a lease for a run; yields whether the key has fewer than `limit` others.

        Raises:
            LimitsUnavailable: Redis is unreachable.
        """
        lease, key = secrets.token_hex(8), f"{PREFIX}:runs:{key_id}"
        is_held = True  # also if this task is cancelled before it knows
        try:
            answer = await self._reach(lambda: self._acquire([key], [lease, self._lease_s, limit]))
            is_held = answer != 0
            if is_held:
                self._leases[lease] = key
                self._renewal = self._renewal or asyncio.create_task(self._renew_leases())
            yield None if answer is None else is_held
        finally:
            self._leases.pop(lease, None)
            if is_held:
                await shielded(self._release(key, lease))

    async def _release(self, key: str, *leases: str) -> None:
        with suppress(LimitsUnavailable):  # they expire by themselves
            await self._reach(lambda: self._redis.zrem(key, *leases))

    async def _renew_leases(self) -> None:
        """Renew the leases of this process until it ends, and at once when Redis is reachable again."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._lease_s / 3):
                    await self._reconnected.wait()
            self._reconnected.clear()
            by_key: dict[str, list[str]] = {}
            for lease, key in self._leases.items():
                by_key.setdefault(key, []).append(lease)
            for key, leases in by_key.items():
                await self._renew_leases_of(key, leases)

    async def _renew_leases_of(self, key: str, leases: list[str]) -> None:
        with suppress(LimitsUnavailable):
            await self._reach(lambda: self._renew([key], [self._lease_s, *leases]))
        ended = [lease for lease in leases if lease not in self._leases]  # released before the renewal was executed
        if ended:
            await self._release(key, *ended)

    async def _reach(self, request: Callable[[], Awaitable[T]]) -> T | None:
        """Return Redis' answer; None if Redis is unreachable and `fail` is "open".

        While Redis is unreachable, one request each `RETRY_S` tries it, so that the others do not wait.
        """
        if self._is_reached or time.monotonic() >= self._retry_at:
            self._retry_at = time.monotonic() + RETRY_S
            try:
                answer = await request()
            except (exceptions.RedisError, *_BROKEN) as e:
                if self._is_reached:
                    log_event("limits.unreachable", logging.WARNING, error=type(e).__name__, fail=self._fail)
                self._is_reached, self._retry_at = False, time.monotonic() + RETRY_S
            else:
                if not self._is_reached:
                    log_event("limits.reached_again")
                    self._is_reached = True
                    self._reconnected.set()
                return answer
        if self._fail == "closed":
            raise LimitsUnavailable
        return None
