"""`KeyLimiter`: enforces the rate, concurrency and daily spending limits of API keys."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from ..core.budget import Budget
from ..core.errors import KeyLimitExceeded
from ..core.events import BudgetCharged, Event
from ..core.store.protocol import Spending
from .auth import Caller

DAY_S = 86_400
BUSY_RETRY_S = 1.0


class SpendingStore(Protocol):
    """The part of the run store that `KeyLimiter` uses."""

    async def get_spending(self, tenant: str, since: float) -> Spending:
        """Tokens and dollars that a tenant has spent on the UTC day of `since` (seconds since the epoch)."""


@dataclass
class RateLimitState:
    """The state of a key's rate limits after a request was counted.

    Attributes:
        headers: The `x-ratelimit-*` response headers, in the format of OpenAI's API.
        refused: The error to raise; None if the request is within the limits.
    """

    headers: dict[str, str] = field(default_factory=dict)
    refused: KeyLimitExceeded | None = None


class SpendingReservation:
    """The share of a tenant's daily limits that a run in flight reserves; an event sink of that run.

    Attributes:
        budget: The run's budget, capped by what is left of the daily limits.
        tokens: Reserved tokens.
        usd: Reserved US dollars.
    """

    def __init__(self, budget: Budget, tokens: int | None, usd: float | None) -> None:
        self.budget = budget
        # a run with limits reserves them in full; a run without limits reserves what it has spent so far
        self.tokens, self.usd = tokens or 0, usd or 0.0

    def __call__(self, event: Event) -> None:
        """Update the reservation with the run's spending."""
        if isinstance(event, BudgetCharged):
            self.tokens = max(self.tokens, event.total_tokens)
            self.usd = max(self.usd, event.total_usd or 0.0)


class KeyLimiter:
    """Counts requests, concurrent runs and spending against the limits of keys.

    Requests and concurrent runs are counted per process: with n server processes a key gets up to n times its limits.
    Daily spending comes from the store and covers all processes, except for reservations of runs in other processes.

    Args:
        store: Provides the spending of tenants.
        now: Wall clock in seconds since the epoch.
    """

    def __init__(self, store: SpendingStore, *, now: Callable[[], float] = time.time) -> None:
        self._store, self._now = store, now
        self._requests = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._running: Counter[str] = Counter()
        self._holdings: dict[str, list[SpendingReservation]] = {}

    async def count(self, caller: Caller) -> RateLimitState:
        """Count a request and return the state of the key's rate limits."""
        standing = RateLimitState()
        limits = caller.limits
        if limits.requests_per_minute is not None:
            per_minute = RateLimitItemPerMinute(limits.requests_per_minute)
            taken = await self._requests.hit(per_minute, caller.key_id)
            stats = await self._requests.get_window_stats(per_minute, caller.key_id)
            reset = max(0.0, stats.reset_time - time.time())
            standing.headers |= _headers("requests", limits.requests_per_minute, stats.remaining, reset)
            if not taken:
                standing.refused = KeyLimitExceeded(
                    f"the key has reached its limit of {limits.requests_per_minute} requests per minute",
                    retry_after_s=max(1.0, reset),
                    hint="send requests at a lower rate",
                )
        if limits.tokens_per_day is not None:
            left = limits.tokens_per_day - await self._tokens(caller.tenant)
            standing.headers |= _headers("tokens", limits.tokens_per_day, max(0, left), self._rest_of_day())
        return standing

    @asynccontextmanager
    async def hold(self, caller: Caller, budget: Budget) -> AsyncIterator[SpendingReservation]:
        """Reserve a run's spending while it is in flight.

        Args:
            caller: The caller that starts the run.
            budget: The run's own budget.

        Raises:
            KeyLimitExceeded: The key has reached its limit of concurrent runs, or of tokens or dollars per day.
        """
        limits, tenant = caller.limits, caller.tenant
        if limits.concurrency is not None and self._running[caller.key_id] >= limits.concurrency:
            raise KeyLimitExceeded(
                f"{limits.concurrency} runs of the key are in flight",
                retry_after_s=BUSY_RETRY_S,
                hint="wait until a run ends",
            )
        self._running[caller.key_id] += 1
        try:
            holding = await self._within_day(caller, budget)
            self._holdings.setdefault(tenant, []).append(holding)  # no await since its computation
            try:
                yield holding
            finally:
                self._holdings[tenant].remove(holding)
                if not self._holdings[tenant]:
                    del self._holdings[tenant]
        finally:
            self._running[caller.key_id] -= 1
            if not self._running[caller.key_id]:
                del self._running[caller.key_id]

    async def _within_day(self, caller: Caller, budget: Budget) -> SpendingReservation:
        """The budget, capped by what is left of the tenant's daily limits."""
        limits, tenant = caller.limits, caller.tenant
        tokens, usd = budget.tokens, budget.usd
        if limits.tokens_per_day is None and limits.usd_per_day is None:
            return SpendingReservation(budget, tokens, usd)
        spent = await self._store.get_spending(tenant, self._now())
        under_way = self._holdings.get(tenant, [])
        if limits.tokens_per_day is not None:
            left = limits.tokens_per_day - spent.tokens - sum(one.tokens for one in under_way)
            if left < 1:
                raise self._day_is_spent(f"{limits.tokens_per_day} tokens")
            tokens = left if tokens is None else min(tokens, left)
        if limits.usd_per_day is not None:
            left_usd = limits.usd_per_day - spent.usd - math.fsum(one.usd for one in under_way)
            if left_usd <= 0:
                raise self._day_is_spent(f"{limits.usd_per_day:g} USD")
            usd = left_usd if usd is None else min(usd, left_usd)
        bounded = budget.model_copy(update={"tokens": tokens, "usd": usd})
        return SpendingReservation(bounded, budget.tokens and tokens, budget.usd and usd)

    async def _tokens(self, tenant: str) -> int:
        spent = await self._store.get_spending(tenant, self._now())
        return spent.tokens + sum(one.tokens for one in self._holdings.get(tenant, []))

    def _day_is_spent(self, what: str) -> KeyLimitExceeded:
        return KeyLimitExceeded(
            f"the key's limit of {what} per day is spent or reserved by runs in flight",
            retry_after_s=max(1.0, self._rest_of_day()),
            hint="the next day begins at 00:00 UTC",
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
