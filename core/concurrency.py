"""Coroutines run together, work that a cancellation must not interrupt, and long work that leaves the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import Any, Generic, TypeVar

T = TypeVar("T")

MAX_SLICE_S = 0.005
"""How long one coroutine works on `paced` items before others have the event loop, in seconds. With 40 of them at work,
a request still waits no longer than 0.2 s."""


async def gather(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all coroutines, in order, run concurrently.

    Raises:
        BaseException: The first error, as it was raised; the other coroutines are cancelled and have ended.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


async def shielded(work: Awaitable[T]) -> T:
    """Run short work, such as releasing a resource, to its end even if the caller is cancelled; then re-raise that.

    A future needs no task of its own.
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


class paced(Generic[T]):  # noqa: N801 (used as a function)
    """The items, to be iterated with `async for`: after `MAX_SLICE_S` of work on them others have the event loop.

    So long synchronous work can be cancelled too, between two items.
    """

    def __init__(self, items: Iterable[T]) -> None:
        self._items = iter(items)
        self._until = time.perf_counter() + MAX_SLICE_S

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        if time.perf_counter() > self._until:
            await asyncio.sleep(0)
            self._until = time.perf_counter() + MAX_SLICE_S
        for item in self._items:
            return item
        raise StopAsyncIteration


LONG_CHARS = 50_000
"""Length of texts from which on taking them apart is long work."""


async def off_loop(work: Callable[[], T], *, is_long: bool) -> T:
    """The result of synchronous work: long work in a thread, while others have the event loop.

    A cancellation waits for its end, so that it never works on data that others have again.
    """
    return await shielded(asyncio.to_thread(work)) if is_long else work()
