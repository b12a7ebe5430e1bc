"""`together`: works side by side, of which the first error ends the others and is raised as it is.

`shielded`: work that must not stop half-way, whoever is cancelled meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def gather(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all works, in their order.

    Raises:
        BaseException: The first error; the other works are cancelled, and have ended. That of the work itself: the
            group is no more than how the works were run.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


async def shielded(work: Coroutine[Any, Any, T]) -> T:
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
