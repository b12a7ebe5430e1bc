"""The clock that intervals are measured on, and its counterpart for tests."""

import asyncio
import time

from reason.core.budget import Budget, Ledger
from reason.core.clock import monotonic


async def test_sleeps_timeouts_and_intervals_follow_the_clock_of_the_event_loop(clock):
    began, order = monotonic(), []

    async def sleep(seconds):
        await asyncio.sleep(seconds)
        order.append((seconds, monotonic() - began))

    tasks = [asyncio.create_task(sleep(seconds)) for seconds in (3600, 0.25, 2)]
    ledger = Ledger(Budget(seconds=10))
    await clock.settle()
    assert order == []
    await clock.advance(2)
    assert order == [(0.25, 0.25), (2, 2)]
    assert ledger.remaining_seconds() == 8
    try:
        async with asyncio.timeout(30):
            await clock.run(tasks[0])
    except TimeoutError:
        order.append("timeout")
    assert order[2:] == ["timeout"]
    assert clock.elapsed == 32


async def test_no_time_passes_while_a_thread_works(clock):
    work = asyncio.create_task(asyncio.to_thread(time.sleep, 0.05))
    late = asyncio.create_task(asyncio.sleep(0.001))
    await clock.timer(0.001)
    await clock.settle()
    assert work.done()
    assert not late.done()
    await clock.run(late)
    assert clock.elapsed == 0.001


def test_outside_of_an_event_loop_it_is_the_process_clock():
    before = time.monotonic()
    assert before <= monotonic() <= time.monotonic()
