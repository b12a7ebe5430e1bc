"""`with_store`: run a coroutine on the opened run store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from ..core.store.sql import RunStore

T = TypeVar("T")


def with_store(location: str | None, work: Callable[[RunStore], Awaitable[T]]) -> T:
    """Open the run store, run `work` on it, close it.

    Args:
        location: The value of --store; None is the setting.
        work: Called with the store.
    """
    from ..core.settings import load_settings
    from ..core.store import open_store

    async def run() -> T:
        store = await open_store(load_settings(store=location).store)
        try:
            return await work(store)
        finally:
            await store.aclose()

    return asyncio.run(run())
