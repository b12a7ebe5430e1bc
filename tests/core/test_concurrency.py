import asyncio
import gc
import threading

import pytest
from reason.core import concurrency
from reason.core.concurrency import MAX_SLICE_S, OneLoop, PerLoop, cancel_and_wait, off_loop, paced
from reason.core.errors import UserError
from support.loop_lag import LoopTurns
from support.waiting import wait_until


async def test_paced_work_leaves_the_event_loop_to_others(monkeypatch):
    seen, now = [], [0.0]
    monkeypatch.setattr(concurrency.time, "perf_counter", lambda: now[0])
    async with LoopTurns() as turns:
        async for item in paced(range(20)):
            seen.append(item)
            now[0] += MAX_SLICE_S
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


class Connection:
    """Something that belongs to a loop."""

    def __init__(self):
        self.loop = asyncio.get_running_loop()
        self.closed_on = None

    async def close(self):
        await asyncio.sleep(0)
        self.closed_on = asyncio.get_running_loop()


def test_each_loop_has_its_own_value_which_ends_with_it():
    connections = PerLoop(Connection, Connection.close)

    async def first():
        assert connections.get() is connections.get()
        return connections.get()

    one, other = asyncio.run(first()), asyncio.run(first())
    assert one is not other
    assert (one.closed_on, other.closed_on) == (one.loop, other.loop)


async def test_values_are_closed_on_their_own_loops():
    connections = PerLoop(Connection, Connection.close)
    here, elsewhere, ended = connections.get(), [], threading.Event()

    def run():
        async def work():
            elsewhere.append(connections.get())
            started.set()
            await wait_until(lambda: elsewhere[0].closed_on)

        asyncio.run(work())
        ended.set()

    started = threading.Event()
    thread = threading.Thread(target=run)
    thread.start()
    await asyncio.to_thread(started.wait)
    await connections.aclose()
    await asyncio.to_thread(ended.wait)
    thread.join()
    assert here.closed_on is here.loop
    assert elsewhere[0].closed_on is elsewhere[0].loop is not here.loop
    assert connections.get() is not here


async def test_a_value_that_is_garbage_is_closed(clock):
    connections = PerLoop(Connection, Connection.close)
    value = connections.get()
    del connections
    gc.collect()
    await clock.settle()
    assert value.closed_on is value.loop


def test_what_works_on_one_loop_refuses_another():
    owner = OneLoop("the engine of vllm/m")

    async def use():
        owner.check()
        owner.check()

    asyncio.run(use())
    with pytest.raises(UserError, match="the engine of vllm/m works on the event loop that used it first"):
        asyncio.run(use())


async def test_cancelled_tasks_are_waited_for_and_a_cancellation_of_the_caller_is_kept(clock):
    cancelled, may_end, ended = asyncio.Event(), asyncio.Event(), []

    async def slow():
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
            await may_end.wait()
            ended.append("slow")

    async def failing():
        raise ValueError("its own")

    tasks = [asyncio.ensure_future(slow()), asyncio.ensure_future(failing())]
    await clock.settle()
    waiting = asyncio.ensure_future(cancel_and_wait(*tasks))
    await cancelled.wait()
    waiting.cancel()
    await clock.settle()
    assert not waiting.done()
    may_end.set()
    await asyncio.wait([waiting])
    assert (waiting.cancelled(), tasks[0].cancelled(), ended) == (True, True, ["slow"])
    assert str(tasks[1].exception()) == "its own"
