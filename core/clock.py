"""The clock: every interval in a run or the server is measured on the event loop's.

`asyncio.sleep`, `asyncio.timeout` and `call_later` follow `loop.time()`. With `monotonic` the ledger, retries, limits
and caches do too, so whoever provides the loop provides the time, and no object has a clock of its own: the tests run
on a loop whose time they advance. Dates, which outlive the process, are `time.time()`; threads outside the event loop
(the embedded engine, database connections, the sandbox) use the process' clock.
"""

from __future__ import annotations

import asyncio
import time


def monotonic() -> float:
    """Seconds on the running event loop's clock; the process' outside of one, as for a run that only displays."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return time.monotonic()
