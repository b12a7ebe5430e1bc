"""Coroutines run together, tasks ended, work that no cancellation may interrupt, and long work that leaves the loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from .errors import UserError

T = TypeVar("T")

MAX_SLICE_S = 0.005
"""How long one coroutine works on `paced` items before others have the event loop, in seconds. With 40 of them at work,
a request still waits no longer than 0.2 s."""


async def gather(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all coroutines, in order, run concurrently."""
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
            await asyncio.shield(task)
        except asyncio.CancelledError as e:
            if not task.cancelled():
                cancelled = e
        except Exception:  # noqa: BLE001 (its result raises it)
            break
    result = task.result()
    if cancelled is not None:
        raise cancelled
    return result


async def cancel_and_wait(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks and wait until they have ended; a cancellation of the caller meanwhile is raised after that.

    To await the tasks themselves would take that cancellation for theirs. Their results and errors are left in them.
    """
    for task in tasks:
        task.cancel()
    await shielded(asyncio.wait(tasks))


class PerLoop(Generic[T]):
    """A value for each event loop, made at its first use: connections and semaphores belong to one loop.

    A `Reasoner` may work on several: those of its asynchronous callers, and that of its synchronous methods. A value is
    closed with `aclose`, and else when its loop ends (`shutdown_asyncgens`, as `asyncio.run` does) or it is garbage.
    """

    def __init__(self, make: Callable[[], T], close: Callable[[T], Awaitable[object]] | None = None) -> None:
        self._make, self._close = make, close
        self._values: dict[asyncio.AbstractEventLoop, tuple[T, AsyncGenerator[None, None]]] = {}

    def get(self) -> T:
        """The running loop's value."""
        loop = asyncio.get_running_loop()
        held = self._values.get(loop)
        if held is None:
            for ended in [other for other in self._values if other.is_closed()]:
                del self._values[ended]
            value = self._make()
            holder = _hold(value, self._close)
            with suppress(StopIteration):  # up to its `yield`: from now on the loop closes it
                holder.__anext__().send(None)
            held = self._values[loop] = value, holder
        return held[0]

    async def aclose(self) -> None:
        """Drop the values and close them: the running loop's now; others' on their own loops, which is not awaited.

        The caller may be holding one of them up, as a synchronous method does in a notebook.
        """
        values, self._values = self._values, {}
        for loop, (_, holder) in values.items():
            if loop is asyncio.get_running_loop():
                await holder.aclose()
            elif loop.is_running():
                asyncio.run_coroutine_threadsafe(holder.aclose(), loop)


async def _hold(value: T, close: Callable[[T], Awaitable[object]] | None) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        if close is not None:
            await close(value)


class CrossLoopLock:
    """Waits for a thread lock without blocking the event loop; a cancelled wait does not take the lock.

    An asyncio lock belongs to one loop, and the synchronous methods run on another loop than the caller's own.
    """

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock

    async def __aenter__(self) -> None:
        while not self._lock.acquire(blocking=False):  # noqa: ASYNC110 (the holder may be on another loop)
            await asyncio.sleep(0.01)

    async def __aexit__(self, *error: object) -> None:
        self._lock.release()


class OneLoop:
    """The event loop of what works on one only, the first that uses it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None

    def check(self) -> None:
        """Refuse another loop, on which the work would never end."""
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise UserError(
                f"{self._name} works on the event loop that used it first, and this is another one",
                hint="use the synchronous methods only, or the asynchronous ones within one asyncio.run",
            )


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
