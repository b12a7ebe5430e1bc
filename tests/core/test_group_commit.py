"""One transaction for all that waits, and each operation whole or not at all."""

import asyncio
import threading

import pytest
from reason.core.errors import StoreError, UserError
from reason.core.store.records import RunWrites, StoredCall
from reason.core.store.sqlite import SqliteStore


class Held:
    """Holds the store's thread until it is let go."""

    def __init__(self, store):
        self._go, self._begun = threading.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def hold(db):
            loop.call_soon_threadsafe(self._begun.set)
            self._go.wait(60)

        self._task = asyncio.ensure_future(store.commits.read(hold))

    async def __aenter__(self):
        await self._begun.wait()

    async def __aexit__(self, *_):
        self._go.set()
        await self._task


async def test_waiting_writes_are_one_transaction(store):
    async with Held(store):
        writes = [store.create_run(f"r{i}", {}) for i in range(100)]
        before = store.commits.transactions
    await asyncio.gather(*writes)
    assert store.commits.transactions - before == 1
    assert len(await store.list_runs(200)) == 100


async def failures(*writes):
    """The error of each write, or None."""
    return [type(o) if o else None for o in await asyncio.gather(*writes, return_exceptions=True)]


async def test_a_refused_write_does_not_roll_back_the_others(store):
    await store.create_run("taken", {})
    async with Held(store):
        writes = [store.create_run(n, {}) for n in ("a", "taken", "b")]
        before = store.commits.transactions
    assert await failures(*writes) == [None, UserError, None]
    assert store.commits.transactions - before == 1


async def test_an_operation_that_fails_halfway_is_rolled_back_by_itself(store):
    def half(db):
        db.execute("INSERT INTO meta VALUES ('half', '1')")
        db.execute("INSERT INTO nowhere VALUES (1)")

    async with Held(store):
        writes = (store.create_run("a", {}), store.commits.write(half), store.create_run("b", {}))
    assert await failures(*writes) == [None, StoreError, None]
    assert {r.id for r in await store.list_runs()} == {"a", "b"}
    assert await store.commits.read(lambda db: db.execute("SELECT * FROM meta WHERE key = 'half'")) == []


async def test_operations_of_cancelled_callers_are_executed(store):
    async with Held(store):
        store.create_run("r", {}).cancel()
    assert (await store.get_run("r")).status == "running"


async def test_waiting_reads_wait_for_an_unreachable_database_once(store, monkeypatch):
    looked = []

    def query(work):
        looked.append(work)
        raise StoreError("away")

    async with Held(store):
        looks = [asyncio.ensure_future(store.list_runs()) for _ in range(20)]
        await asyncio.sleep(0)
        monkeypatch.setattr(store.commits._database, "query", query)
    outcomes = await asyncio.gather(*looks, return_exceptions=True)
    assert {str(o) for o in outcomes} == {"away"}
    assert len(looked) == 1
    monkeypatch.undo()
    assert await store.list_runs() == []


async def test_closing_waits_for_submitted_operations(tmp_path):
    store = await SqliteStore.open(tmp_path / "runs.sqlite3")
    async with Held(store):
        writing = store.create_run("r", {})
        closing = asyncio.ensure_future(store.aclose())
        await asyncio.sleep(0)
        with pytest.raises(StoreError, match="is closed"):
            await store.create_run("late", {})
    await writing
    await closing
    again = await SqliteStore.open(tmp_path / "runs.sqlite3")
    assert [r.id for r in await again.list_runs()] == ["r"]
    await again.aclose()


async def test_a_store_serves_several_event_loops(store):
    async def create(name):
        await store.create_run(name, {})

    await asyncio.gather(asyncio.to_thread(lambda: asyncio.run(create("theirs"))), create("ours"))
    assert {r.id for r in await store.list_runs()} == {"ours", "theirs"}


async def test_a_full_disk_fails_only_the_writes_that_do_not_fit(store):
    def calls(size):
        return [StoredCall(key=f"k{size}", role="main", model="m", request={}, response={"text": "x" * size})]

    await store.create_run("r", {})
    ((pages,),) = await store.commits.read(lambda db: db.execute("PRAGMA page_count"))
    await store.commits.read(lambda db: db.execute(f"PRAGMA max_page_count = {pages + 4}"))
    async with Held(store):
        writes = [store.save("r", RunWrites(calls=calls(size))) for size in (10, 1_000_000, 20)]
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert [isinstance(o, StoreError) for o in outcomes] == [False, True, False]
    assert "no space left" in str(outcomes[1])
    await store.commits.read(lambda db: db.execute("PRAGMA max_page_count = 1000000"))  # somebody has made room
    await store.save("r", RunWrites(calls=calls(1_000_000)))
    assert {c.key for c in await store.list_calls("r")} == {"k10", "k20", "k1000000"}


async def test_only_durable_writes_wait_for_the_disk(tmp_path):
    store = await SqliteStore.open(tmp_path / "runs.sqlite3")
    normal, full = 1, 2
    levels = [
        (await store.commits.write(lambda db: db.execute("PRAGMA synchronous"), durable=durable))[0][0]
        for durable in (False, True, False)
    ]
    assert levels == [normal, full, normal]
    await store.aclose()
