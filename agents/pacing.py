"""`paced`: a run's events are written to the store every second, however long a stage takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..core.run import Run

PACE_S = 1.0
"""Seconds between two times; a process that is killed loses the events of at most these."""


@asynccontextmanager
async def paced(run: Run, pace_s: float = PACE_S) -> AsyncIterator[None]:
    """Write the run's events to the store while the work inside goes on.

    What is left at its end is the caller's to write, together with the run's end.

    Args:
        run: The run; one that is not recorded has none to write.
        pace_s: Seconds between two times.

    Raises:
        StoreError: The store failed, or another process has taken the run; the work inside is cancelled then.
    """
    if not run.recording:
        yield
        return
    run.paced = True
    try:
        async with asyncio.TaskGroup() as group:
            writer = group.create_task(_write(run, pace_s))
            try:
                yield
            finally:
                writer.cancel()
    except BaseExceptionGroup as e:
        # the work's own error or the store's: the group is no more than how they were run
        raise e.exceptions[0] from None
    finally:
        run.paced = False


async def _write(run: Run, pace_s: float) -> None:
    while True:
        await asyncio.sleep(pace_s)
        await run.write_events()
