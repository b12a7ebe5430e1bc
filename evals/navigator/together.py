"""Works side by side, all of them or some at a time; the first error ends the others and is raised as it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")
S = TypeVar("S")


async def together(works: Sequence[Awaitable[T]]) -> list[T]:
    """The results of all works, in their order.

    Raises:
        BaseException: The first error; the other works are cancelled, and have ended.
    """

    async def one(work: Awaitable[T]) -> T:
        return await work

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(work)) for work in works]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


async def each(items: Iterable[S], work: Callable[[S], Awaitable[T]], most: int) -> list[T]:
    """The result of each item, in their order, at most so many under way at a time (raises as `together`)."""
    listed = list(items)
    results: dict[int, T] = {}
    waiting = iter(range(len(listed)))

    async def lane() -> None:
        for i in waiting:
            results[i] = await work(listed[i])

    await together([lane() for _ in range(min(most, len(listed)))])
    return [results[i] for i in range(len(listed))]
