"""`ModelThread`: one thread that owns a model, so that the event loop never waits for arithmetic."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ..core.errors import BackendUnavailable

T = TypeVar("T")


class ModelThread:
    """Runs pieces of work one after another.

    Work that was cancelled before it began is dropped; a piece under way runs to its end, so pieces should be short.

    Args:
        name: What the thread serves, for messages.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: ThreadPoolExecutor | None = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def run(self, work: Callable[[], T]) -> T:
        """Do a piece of work.

        Raises:
            BackendUnavailable: The thread has ended.
        """
        if self._thread is None:
            raise BackendUnavailable(f"{self._name} is closed")
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def aclose(self) -> None:
        """Drop what waits, let the piece under way end, and end the thread; idempotent."""
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.to_thread(thread.shutdown, wait=True, cancel_futures=True)


def length_batches(lengths: Sequence[int], most_rows: int, most_tokens: int | None = None) -> list[list[int]]:
    """Positions grouped into batches of like length, the longest first.

    Args:
        lengths: Length of each text, in any unit.
        most_rows: Most texts of a batch.
        most_tokens: Most of (texts x longest) of a batch; a longer text is a batch of its own. None is no limit.
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        batch = batches[-1] if batches else []
        wide = most_tokens is not None and batch and (len(batch) + 1) * lengths[batch[0]] > most_tokens
        if not batch or len(batch) >= most_rows or wide:
            batches.append([i])
        else:
            batch.append(i)
    return batches
