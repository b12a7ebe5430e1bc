"""`Limiters`: how many requests may be under way at once to one model of one endpoint."""

from __future__ import annotations

import asyncio
import time


class Limiter:
    """Lets a bounded number of requests through; the others wait their turn, first come, first served.

    Args:
        most: Requests at once.

    Attributes:
        busy: Requests that hold a place or wait for one.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.busy = 0
        self._free = asyncio.Semaphore(most)

    @property
    def full(self) -> bool:
        """Whether the next request would have to wait."""
        return self.busy >= self.most

    def turn(self) -> Turn:
        """Hold a place: `async with` gives the seconds waited for it."""
        return Turn(self, self._free)


class Turn:
    """A place among the requests under way, held inside an `async with`."""

    def __init__(self, limiter: Limiter, free: asyncio.Semaphore) -> None:
        self._limiter, self._free = limiter, free

    async def __aenter__(self) -> float:
        asked = time.monotonic()
        self._limiter.busy += 1
        try:
            await self._free.acquire()
        except BaseException:
            self._limiter.busy -= 1
            raise
        return time.monotonic() - asked

    async def __aexit__(self, *exc: object) -> None:
        self._free.release()
        self._limiter.busy -= 1


class Limiters:
    """The limiters of everything that shares one owner; two models that talk to the same place share one limiter."""

    def __init__(self) -> None:
        self._by_place: dict[tuple[str, str], Limiter] = {}

    def of(self, endpoint: str, model: str, most: int) -> Limiter:
        """The limiter of a model of an endpoint; `most` counts when it is asked for first."""
        return self._by_place.setdefault((endpoint, model), Limiter(most))
