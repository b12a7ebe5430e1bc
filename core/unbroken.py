"""`to_its_end`: work that must not stop half-way, whoever is cancelled meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Do the work in a task of its own and wait for it, also when cancelled: the cancellation is passed on after it.

    For short work alone, such as giving back what would otherwise stay taken.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as e:
            cancelled = e
    result = task.result()
    if cancelled is not None:
        raise cancelled
    return result
