import asyncio
import threading
import time

import pytest
from reason.core.concurrency import MAX_SLICE_S, off_loop, paced
from support.loop_lag import LoopTurns


async def test_paced_work_leaves_the_event_loop_to_others():
    seen = []
    async with LoopTurns() as turns:
        async for item in paced(range(20)):
            seen.append(item)
            time.sleep(MAX_SLICE_S)  # noqa: ASYNC251 (synchronous work)
    assert seen == list(range(20))
    assert turns.count >= 10


async def test_paced_work_can_be_cancelled():
    async def work():
        async for _ in paced(iter(int, 1)):  # without an end
            pass

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_short_work_is_done_at_once_and_long_work_in_a_thread():
    here = threading.get_ident()
    assert await off_loop(threading.get_ident, is_long=False) == here
    assert await off_loop(threading.get_ident, is_long=True) != here


async def test_a_cancellation_waits_for_the_end_of_work_in_a_thread():
    started, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work():
        started.set()
        go_on.wait()
        ended.set()

    task = asyncio.ensure_future(off_loop(work, is_long=True))
    await asyncio.to_thread(started.wait)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
