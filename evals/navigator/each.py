"""`each`: a work for every item, at most so many under way at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from ...core.together import together

T = TypeVar("T")
S = TypeVar("S")


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
