"""`Limiters`: how many requests may be under way at once to one model of one endpoint."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Limiter:
    """Lets a bounded number of requests through; the others wait their turn, first come, first served.

    Args:
        most: Requests at once.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._free = asyncio.Semaphore(most)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[float]:
        """Hold a place; gives the seconds waited for it."""
        asked = time.monotonic()
        async with self._free:
            yield time.monotonic() - asked


class Limiters:
    """The limiters of everything that shares one owner; two models that talk to the same place share one limiter."""

    def __init__(self) -> None:
        self._by_place: dict[tuple[str, str], Limiter] = {}

    def of(self, endpoint: str, model: str, most: int) -> Limiter:
        """The limiter of a model of an endpoint; `most` counts when it is asked for first."""
        return self._by_place.setdefault((endpoint, model), Limiter(most))
