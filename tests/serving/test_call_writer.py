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


async def test_what_comes_last_is_written_once_and_needs_no_task():
    store = Store()
    store.open.set()
    before = asyncio.all_tasks()
    async with CallWriter(store, "run") as writer:
        writer.add(call("a"))
        writer.add(call("b"))
        assert asyncio.all_tasks() == before
    assert store.written == [["a", "b"]]


async def test_samples_are_written_while_others_are_made():
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


async def test_a_write_under_way_at_the_end_is_waited_for_and_not_done_again():
    store = Store()
    async with CallWriter(store, "run") as writer:
        writer.add(call("a"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.01, store.open.set)
    assert store.written == [["a"]]


async def test_a_store_that_fails_ends_the_work_inside():
    store = Store(fails=True)
    store.open.set()
    with pytest.raises(StoreError, match="disk is full"):
        async with CallWriter(store, "run") as writer:
            writer.add(call("a"))
            await asyncio.Event().wait()


async def test_whatever_ends_the_work_all_that_was_added_is_written():
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


async def test_it_can_be_used_again_after_it_was_left():
    store = Store()
    store.open.set()
    writer = CallWriter(store, "run")
    for key in "ab":
        async with writer:
            writer.add(call(key))
            await asyncio.sleep(0.01)
    assert store.written == [["a"], ["b"]]
