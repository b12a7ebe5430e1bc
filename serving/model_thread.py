"""`ModelThread`: one thread that owns a model, so that the event loop never waits for its computation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ..core.errors import BackendUnavailable

T = TypeVar("T")


class ModelThread:
    """Runs functions one after another in a thread.

    What is cancelled before it starts is dropped; a function that runs is not interrupted, so it should be short.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: ThreadPoolExecutor | None = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def run(self, work: Callable[[], T]) -> T:
        """Run a function.

        Raises:
            BackendUnavailable: The thread has ended.
        """
        if self._thread is None:
            raise BackendUnavailable(f"{self._name} is closed")
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def aclose(self) -> None:
        """Drop what waits, wait for the function that runs, and end the thread; idempotent."""
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.to_thread(thread.shutdown, wait=True, cancel_futures=True)


def length_batches(lengths: Sequence[int], max_rows: int, max_tokens: int | None = None) -> list[list[int]]:
    """Indices grouped into batches of similar lengths, the longest first.

    Args:
        lengths: Length of each text, in any unit.
        max_rows: Maximum texts of a batch.
        max_tokens: Maximum of (texts x longest) of a batch; a longer text is a batch of its own.
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        batch = batches[-1] if batches else []
        wide = max_tokens is not None and batch and (len(batch) + 1) * lengths[batch[0]] > max_tokens
        if not batch or len(batch) >= max_rows or wide:
            batches.append([i])
        else:
            batch.append(i)
    return batches
