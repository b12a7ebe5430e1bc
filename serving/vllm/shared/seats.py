"""`Seats`: rows of vLLM's batch, which groups of workers take for as long as they live."""

from __future__ import annotations

import asyncio

from ....core.errors import UserError


class Seats:
    """Rows that are handed out to whole groups: two of which each has half of its own would wait for ever.

    Args:
        total: Rows there are; one less is handed out, so that ordinary requests go on beside the workers.
    """

    def __init__(self, total: int) -> None:
        self._most = max(1, total - 1)
        self._free = self._most
        self._changed = asyncio.Condition()

    async def take(self, count: int) -> None:
        """Wait for so many, and take them.

        Raises:
            UserError: There are not so many.
        """
        if count > self._most:
            raise UserError(
                f"{count} workers need as many rows of the engine's batch, of which they may have {self._most}",
                hint="fewer workers, or a greater setting vllm.max_num_seqs",
            )
        async with self._changed:
            await self._changed.wait_for(lambda: self._free >= count)
            self._free -= count

    async def give_back(self, count: int) -> None:
        """Give back what was taken."""
        async with self._changed:
            self._free += count
            self._changed.notify_all()
