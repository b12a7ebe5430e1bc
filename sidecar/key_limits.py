"""`KeyLimiter`: enforces the rate, concurrency and daily spending limits of API keys."""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import StorageError
from limits.util import WindowStats

from ..core.budget import Budget
from ..core.clock import monotonic
from ..core.concurrency import shielded
from ..core.errors import KeyLimitExceeded, StoreError
from .auth import Caller
from .key_store import KeyLimits, KeyStore, Spending
from .logs import log_event, log_fault

DAY_S = 86_400
BUSY_RETRY_S = 1.0


@dataclass
class RateLimitState:
    """The state of a key's rate limits after a request was counted.

    Attributes:
        headers: The `x-ratelimit-*` response headers, in the format of OpenAI's API.
        refused: The error to raise; None if the request is within the limits.
    """

    headers: dict[str, str] = field(default_factory=dict)
    refused: KeyLimitExceeded | None = None


REDIS_TIMEOUT_S = 0.5
"""Maximum time of an attempt to connect to Redis, and of a command, in seconds."""
REDIS_CONNECTIONS = 64
"""Maximum number of connections to Redis of a process; further requests wait for one."""
REDIS_RETRY_S = 1.0
"""Interval of attempts to reach Redis while it is unreachable, in seconds."""


class RequestCounter:
    """Counts requests per minute in a sliding window, per process or in the Redis that replicas share.

    While Redis is unreachable, each process counts for itself. `aclose` it.

    Args:
        url: `redis://HOST:PORT/DATABASE` or `rediss://…`; None counts per process.

    Raises:
        ValueError: The URL is invalid.
        ModuleNotFoundError: The extra `redis` is not installed.
    """

    def __init__(self, url: str | None = None) -> None:
        self._local = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._shared: SlidingWindowCounterRateLimiter | None = None
        self._is_reached, self._retry_at = True, 0.0
        self._pool: Any = None
        if url is not None:
            from redis.asyncio import BlockingConnectionPool
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff

            self._pool = BlockingConnectionPool.from_url(
                url,
                max_connections=REDIS_CONNECTIONS,
                timeout=REDIS_TIMEOUT_S,
                socket_timeout=REDIS_TIMEOUT_S,
                socket_connect_timeout=REDIS_TIMEOUT_S,
                retry=Retry(NoBackoff(), 1),  # a connection that the server has closed is made again
            )
            options: dict[str, Any] = {"connection_pool": self._pool}
            storage: Storage = RedisStorage(
                f"async+{url}", implementation="redispy", key_prefix="reason", wrap_exceptions=True, **options
            )
            self._shared = SlidingWindowCounterRateLimiter(storage)

    async def aclose(self) -> None:
        """Close the connections to Redis."""
        if self._pool is not None:
            await self._pool.aclose()

    async def hit(self, limit: RateLimitItem, key_id: str) -> tuple[bool, WindowStats]:
        """Count a request; returns whether it is within the limit, and the state of the window."""
        if self._shared is None:
            return await _hit(self._local, limit, key_id)
        if self._is_reached or monotonic() >= self._retry_at:
            self._retry_at = monotonic() + REDIS_RETRY_S  # one request tries it, and the others do not wait
            try:
                counted = await _hit(self._shared, limit, key_id)
            except (StorageError, OSError, RuntimeError) as e:  # uvloop's error of a closed transport is a RuntimeError
                if self._is_reached:
                    log_event("limits.unreachable", logging.WARNING, error=type(e).__name__)
                self._is_reached, self._retry_at = False, monotonic() + REDIS_RETRY_S
            else:
                self._is_reached = True
                return counted
        return await _hit(self._local, limit, key_id)


async def _hit(limiter: SlidingWindowCounterRateLimiter, limit: RateLimitItem, key_id: str) -> tuple[bool, WindowStats]:
    return await limiter.hit(limit, key_id), await limiter.get_window_stats(limit, key_id)


class KeyLimiter:
    """Counts requests, concurrent runs and spending against the limits of keys.

    Concurrent runs are counted per process: with n server processes a key gets up to n times that limit. Daily spending
    and its reservations are the store's: a run of a key with daily limits reserves its complete budget when it is
    admitted, and returns what is left at its end.

    Args:
        store: Spending and reservations of tenants.
        requests: Counts requests; by default per process.
        now: Wall clock in seconds since the epoch.
    """

    def __init__(
        self, store: KeyStore, requests: RequestCounter | None = None, *, now: Callable[[], float] = time.time
    ) -> None:
        self._store, self._requests, self._now = store, requests or RequestCounter(), now
        self._running: Counter[str] = Counter()
        self._unreleased: set[str] = set()
        """Reservations that the store could not release yet."""

    async def count(self, caller: Caller) -> RateLimitState:
        """Count a request and return the state of the key's rate limits."""
        standing = RateLimitState()
        limits = caller.limits
        if limits.requests_per_minute is not None:
            per_minute = RateLimitItemPerMinute(limits.requests_per_minute)
            taken, stats = await self._requests.hit(per_minute, caller.key_id)
            reset = max(0.0, stats.reset_time - time.time())
            standing.headers |= _headers("requests", limits.requests_per_minute, stats.remaining, reset)
            if not taken:
                standing.refused = KeyLimitExceeded(
                    f"the key has reached its limit of {limits.requests_per_minute} requests per minute",
                    retry_after_s=max(1.0, reset),
                    hint="send requests at a lower rate",
                )
        if limits.tokens_per_day is not None:
            spent = await self._store.get_spending(caller.tenant, self._now())
            left = limits.tokens_per_day - spent.tokens - spent.reserved_tokens
            standing.headers |= _headers("tokens", limits.tokens_per_day, max(0, left), self._rest_of_day())
        return standing

    @asynccontextmanager
    async def hold(self, caller: Caller, budget: Budget) -> AsyncIterator[Budget]:
        """Reserve a run's spending while it is in flight, inside an `async with`; gives the budget that is left for it.

        Args:
            caller: The caller that starts the run.
            budget: The run's own budget.

        Raises:
            KeyLimitExceeded: The key has reached its limit of concurrent runs, or of tokens or dollars per day.
        """
        async with AsyncExitStack() as stack:
            yield await self._admitted(caller, budget, stack)

    async def _admitted(self, caller: Caller, budget: Budget, stack: AsyncExitStack) -> Budget:
        limits = caller.limits
        if limits.concurrency is not None and self._running[caller.key_id] >= limits.concurrency:
            raise KeyLimitExceeded(
                f"{limits.concurrency} runs of the key are in flight",
                retry_after_s=BUSY_RETRY_S,
                hint="wait until a run ends",
            )
        self._running[caller.key_id] += 1
        stack.callback(self._running.subtract, (caller.key_id,))
        if limits.tokens_per_day is not None or limits.usd_per_day is not None:
            return await stack.enter_async_context(self._held_in_store(caller, budget))
        return budget

    @asynccontextmanager
    async def _held_in_store(self, caller: Caller, budget: Budget) -> AsyncIterator[Budget]:
        name = secrets.token_hex(8)
        is_reserved = True  # also if this task is cancelled before it knows
        try:
            reserved, before = await self._store.reserve_spending(
                name, caller.tenant, budget, caller.limits, self._now()
            )
            if reserved is None:
                is_reserved = False
                raise self._exhausted(caller.limits, before)
            yield reserved
        finally:
            if is_reserved:
                self._unreleased.add(name)
                await shielded(self._release())

    async def _release(self) -> None:
        """Release what is no longer used; what the store cannot release now is released with the next one."""
        for name in list(self._unreleased):
            try:
                await self._store.release_spending(name)
            except StoreError as e:
                log_fault("spending.not_released", e)
                return
            self._unreleased.discard(name)

    def _exhausted(self, limits: KeyLimits, spending: Spending) -> KeyLimitExceeded:
        """The error for a run for which nothing is left; it may be tried again soon if runs in flight reserve it."""
        tokens, usd = limits.tokens_per_day, limits.usd_per_day
        texts: list[str] = []
        for limit, spent, reserved, text in (
            (tokens, spending.tokens, spending.reserved_tokens, f"{tokens} tokens"),
            (usd, spending.usd, spending.reserved_usd, f"{usd or 0:g} USD"),
        ):
            if limit is not None and spent >= limit:
                return KeyLimitExceeded(
                    f"the key's limit of {text} per day is spent",
                    retry_after_s=max(1.0, self._rest_of_day()),
                    hint="the next day begins at 00:00 UTC",
                )
            if limit is not None and spent + reserved >= limit:
                texts.append(text)
        return KeyLimitExceeded(
            f"the key's limit of {' and of '.join(texts)} per day is reserved by runs in flight",
            retry_after_s=BUSY_RETRY_S,
            hint="wait until a run ends, and give runs a budget: one without reserves the server's maximum",
        )

    def _rest_of_day(self) -> float:
        return DAY_S - self._now() % DAY_S


def _headers(kind: str, limit: int, remaining: int, reset_s: float) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{kind}": str(limit),
        f"x-ratelimit-remaining-{kind}": str(remaining),
        f"x-ratelimit-reset-{kind}": _format_seconds(reset_s),
    }


def _format_seconds(seconds: float) -> str:
    """A duration in the format of OpenAI's API: `120ms`, `7s`, `6m0s`, `3h20m0s`."""
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))}ms"
    total = math.ceil(seconds)
    hours, minutes, rest = total // 3600, total // 60 % 60, total % 60
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if total >= 60 else "") + f"{rest}s"
