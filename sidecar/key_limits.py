"""`KeyLimiter`: what each key has used, and what it may still use."""

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
    """What is needed of the run store."""

    async def get_spending(self, tenant: str, since: float) -> Spending:
        """What a tenant has paid for since the beginning of a day."""


@dataclass
class RateLimitState:
    """How a key is after a request was counted.

    Attributes:
        headers: The same for the caller, as OpenAI's API reports it.
        refused: Why the request goes no further; None if it does.
    """

    headers: dict[str, str] = field(default_factory=dict)
    refused: KeyLimitExceeded | None = None


class SpendingReservation:
    """What one run in flight holds of its tenant's day; it receives the run's events.

    Attributes:
        budget: What the run may spend: its own limits, and no more than is left of the day.
    """

    def __init__(self, budget: Budget, tokens: int | None, usd: float | None) -> None:
        self.budget = budget
        # a run with limits of its own may go up to them; one without holds what it has spent so far
        self.tokens, self.usd = tokens or 0, usd or 0.0

    def __call__(self, event: Event) -> None:
        """Take note of what the run has spent."""
        if isinstance(event, BudgetCharged):
            self.tokens = max(self.tokens, event.total_tokens)
            self.usd = max(self.usd, event.total_usd or 0.0)


class KeyLimiter:
    """What the keys of a server use.

    Requests and runs are counted by this process only: after n processes a key may have up to n times as many. What
    a tenant has spent in a day is the store's, so it holds for all processes, but for what their runs in flight are
    about to spend.

    Args:
        store: Knows what was spent.
        now: Seconds since the epoch; replaced in tests.
    """

    def __init__(self, store: SpendingStore, *, now: Callable[[], float] = time.time) -> None:
        self._store, self._now = store, now
        self._requests = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._running: Counter[str] = Counter()
        self._holdings: dict[str, list[SpendingReservation]] = {}

    async def count(self, caller: Caller) -> RateLimitState:
        """Count a request that starts, cancels or resumes a run."""
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
                    f"the key has sent {limits.requests_per_minute} requests within a minute",
                    retry_after_s=max(1.0, reset),
                    hint="send fewer",
                )
        if limits.tokens_per_day is not None:
            left = limits.tokens_per_day - await self._tokens(caller.tenant)
            standing.headers |= _headers("tokens", limits.tokens_per_day, max(0, left), self._rest_of_day())
        return standing

    @asynccontextmanager
    async def hold(self, caller: Caller, budget: Budget) -> AsyncIterator[SpendingReservation]:
        """Hold what a run may spend while it is in flight.

        Args:
            caller: Who starts it.
            budget: Its own limits.

        Raises:
            KeyLimitExceeded: As many runs of the key are in flight as it may have, or its day's tokens or dollars are
                spent.
        """
        limits, tenant = caller.limits, caller.tenant
        if limits.concurrency is not None and self._running[caller.key_id] >= limits.concurrency:
            raise KeyLimitExceeded(
                f"{limits.concurrency} runs of the key are under way",
                retry_after_s=BUSY_RETRY_S,
                hint="wait until one ends",
            )
        self._running[caller.key_id] += 1
        try:
            holding = await self._within_day(caller, budget)
            self._holdings.setdefault(tenant, []).append(holding)  # nothing is awaited since it was worked out
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
        """The budget, bounded by what is left of the tenant's day."""
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
            f"the {what} that the key may spend in a day are spent, or held by runs under way",
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
    """A time as OpenAI's API reports it: `120ms`, `7s`, `6m0s`, `3h20m0s`."""
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))}ms"
    total = math.ceil(seconds)
    hours, minutes, rest = total // 3600, total // 60 % 60, total % 60
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if total >= 60 else "") + f"{rest}s"
