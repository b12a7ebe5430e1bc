"""Waiting for what another thread or process does, where no event tells of it."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Iterator
from typing import Any

LIMIT_S = 120.0
"""Reached only by a fault, not by a busy machine."""
INTERVAL_S = 0.01


async def wait_until(condition: Callable[[], Any]) -> Any:
    """The condition's value once it is true; it may be a coroutine function. A held `clock` makes no difference."""
    for _ in _attempts(condition):
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        await asyncio.to_thread(time.sleep, INTERVAL_S)
    return None


def wait_blocking(condition: Callable[[], Any]) -> Any:
    """The same outside of an event loop."""
    for _ in _attempts(condition):
        if value := condition():
            return value
        time.sleep(INTERVAL_S)
    return None


def _attempts(condition: Callable[[], Any]) -> Iterator[None]:
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        yield
    raise AssertionError(f"not within {LIMIT_S:g} s: {inspect.getsource(condition).strip()}")
