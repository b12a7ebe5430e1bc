"""A scripted model that blocks until it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from support.scripted_model import ScriptedModel


class Held(ScriptedModel):
    """A model that writes a few characters and then blocks until it is cancelled."""

    def __init__(self, *args, written=5, **options):
        self.left = self.written = written
        super().__init__(*args, step=self.hold, **options)

    def hold(self):
        self.left -= 1
        return None if self.left >= 0 else asyncio.get_running_loop().create_future()


async def cancel_while_it_writes(call: Awaitable[object], model: Held) -> None:
    """Cancel a client's call once the model writes, and wait until the model has stopped."""
    model.left = model.written
    task = asyncio.ensure_future(call)
    async with asyncio.timeout(60):
        while not model.running:
            await asyncio.sleep(0.005)
        while not task.done():
            task.cancel()  # again: `asyncio.wait_for` of Python 3.11, by which LangChain reads, loses one at a chunk
            await asyncio.wait([task], timeout=1)
        assert task.cancelled()
        while model.running:
            await asyncio.sleep(0.005)
