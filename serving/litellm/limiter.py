"""Limits of concurrent requests, for each model of each endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ...core.clock import monotonic
from ...core.concurrency import PerLoop


class ConcurrencyLimiter:
    """Allows a limited number of concurrent requests; the others wait in order.

    Args:
        max_in_flight: Maximum number of concurrent requests, in each event loop.

    Attributes:
        busy: Requests that hold a slot or wait for one.
    """

    def __init__(self, max_in_flight: int) -> None:
        self.max_in_flight = max_in_flight
        self.busy = 0
        self._free = PerLoop(lambda: asyncio.Semaphore(max_in_flight))

    @property
    def full(self) -> bool:
        """Whether the next request would have to wait."""
        return self.busy >= self.max_in_flight

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[float]:
        """Hold a slot inside an `async with`, which gives the seconds waited for it."""
        started = monotonic()
        self.busy += 1
        try:
            async with self._free.get():
                yield monotonic() - started
        finally:
            self.busy -= 1


class LimiterRegistry:
    """The limiters of one owner; two models of the same endpoint and name share one limiter."""

    def __init__(self) -> None:
        self._by_place: dict[tuple[str, str], ConcurrencyLimiter] = {}

    def of(self, endpoint: str, model: str, max_in_flight: int) -> ConcurrencyLimiter:
        """The limiter of a model of an endpoint; its limit is that of the first request."""
        return self._by_place.setdefault((endpoint, model), ConcurrencyLimiter(max_in_flight))
