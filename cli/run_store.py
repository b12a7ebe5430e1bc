"""`with_store`: what a command does with the run store alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from ..core.store import RunStore

T = TypeVar("T")


def with_store(place: str | None, work: Callable[[RunStore], Awaitable[T]]) -> T:
    """Open the run store, do something with it, close it.

    Args:
        place: Where it is; None is the setting.
        work: What is done with it.
    """
    from ..core.open_store import open_store
    from ..core.settings import load_settings

    async def inside() -> T:
        store = await open_store(load_settings(store=place).store)
        try:
            return await work(store)
        finally:
            await store.aclose()

    return asyncio.run(inside())
