"""`Turn`: one at a time, over threads and event loops."""

from __future__ import annotations

import asyncio
import threading


class Turn:
    """Waits for a thread lock without blocking the event loop; cancelling the wait leaves the lock alone.

    An asyncio lock belongs to one loop, and the synchronous methods run on another than the caller's own.
    """

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock

    async def __aenter__(self) -> None:
        while not self._lock.acquire(blocking=False):  # noqa: ASYNC110 (the holder may be on another loop)
            await asyncio.sleep(0.01)

    async def __aexit__(self, *error: object) -> None:
        self._lock.release()
