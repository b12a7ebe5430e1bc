"""`pruning` deletes old runs in the background, so that the run store does not fill its disk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..core.concurrency import cancel_and_wait
from ..core.errors import ReasonError
from ..core.settings import ServeSettings
from ..core.store.sql import RunStore
from .logs import log_event, log_fault

INTERVAL_S = 60.0
"""Time between two searches for runs to delete, in seconds."""
PAUSE_S = 1.0
"""Pause between the transactions of one search, in which others write."""
DAY_S = 86_400


@asynccontextmanager
async def pruning(store: RunStore, serve: ServeSettings) -> AsyncIterator[None]:
    """Delete runs in the background by the setting `retention_days`; runs in flight are kept.

    Raises:
        StoreError: The store failed.
    """
    if serve.retention_days is None:
        yield
        return
    days = serve.retention_days
    await _prune(store, days)
    task = asyncio.create_task(_prune_for_ever(store, days), name="retention")
    try:
        yield
    finally:
        await cancel_and_wait(task)


async def _prune_for_ever(store: RunStore, days: float) -> None:
    while True:
        pruned = 0
        try:
            pruned = await _prune(store, days)
        except ReasonError as e:  # the store is unreachable for now
            log_fault("store.not_pruned", e)
        except Exception as e:  # noqa: BLE001 (the store must not fill for a fault here)
            log_fault("retention.fault", e)
        await asyncio.sleep(PAUSE_S if pruned else INTERVAL_S)


async def _prune(store: RunStore, days: float) -> int:
    """Delete some runs, in one short transaction; returns how many."""
    pruned = await store.prune_runs(before=time.time() - days * DAY_S)
    if pruned:
        log_event("store.pruned", runs=pruned)
    return pruned
