from __future__ import annotations

import asyncio

import pytest
from reason.core.errors import StoreError
from reason.core.store.protocol import StoredCall
from reason.serving.metered.calls import CallWriter


class Store:
    """Notes what is written at once; waits for `open`, and fails if told so."""

    def __init__(self, fails=False):
        self.written, self.fails = [], fails
        self.open = asyncio.Event()

    async def add_calls(self, run_id, calls):
        await self.open.wait()
        if self.fails:
            raise StoreError("the disk is full")
        self.written.append([call.key for call in calls])


def call(key):
    return StoredCall(key=key, role="main", model="m", request={}, response={})


async def test_last_call_is_written_once_without_a_task():
    store = Store()
    store.open.set()
    before = asyncio.all_tasks()
    async with CallWriter(store, "run") as writer:
        writer.add(call("a"))
        writer.add(call("b"))
        assert asyncio.all_tasks() == before
    assert store.written == [["a", "b"]]


async def test_samples_are_written_while_others_are_generated():
    store = Store()
    async with CallWriter(store, "run") as writer:
        for key in "abc":
            writer.add(call(key))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        store.open.set()
        while len(store.written) < 2:
            await asyncio.sleep(0)
        assert store.written == [["a"], ["b", "c"]]  # the first went off alone, the others gathered meanwhile
        writer.add(call("d"))
        while len(store.written) < 3:
            await asyncio.sleep(0)
        writer.add(call("e"))
    assert store.written == [["a"], ["b", "c"], ["d"], ["e"]]


async def test_write_in_flight_at_the_end_is_awaited_once():
    store = Store()
    async with CallWriter(store, "run") as writer:
        writer.add(call("a"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.01, store.open.set)
    assert store.written == [["a"]]


async def test_failing_store_cancels_the_body():
    store = Store(fails=True)
    store.open.set()
    with pytest.raises(StoreError, match="disk is full"):
        async with CallWriter(store, "run") as writer:
            writer.add(call("a"))
            await asyncio.Event().wait()


async def test_all_added_calls_are_written_however_the_body_ends():
    store = Store()
    store.open.set()

    async def work():
        async with CallWriter(store, "run") as writer:
            writer.add(call("a"))
            await asyncio.sleep(0.01)
            writer.add(call("b"))
            raise ValueError("it failed")

    with pytest.raises(ValueError, match="it failed"):
        await work()
    assert store.written == [["a"], ["b"]]


async def test_writer_can_be_reused():
    store = Store()
    store.open.set()
    writer = CallWriter(store, "run")
    for key in "ab":
        async with writer:
            writer.add(call(key))
            await asyncio.sleep(0.01)
    assert store.written == [["a"], ["b"]]
