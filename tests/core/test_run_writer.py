"""What a run writes is gathered, written in time, and never lost; and a run that was taken away stops."""

from __future__ import annotations

import asyncio

import pytest
from reason.core.errors import StoreError, UserError
from reason.core.events import StageStarted
from reason.core.run import Run, RunConfig
from reason.core.store.protocol import NewCall, NewRun
from reason.core.store.run_writer import CALL_DELAY_S, CREATION_DELAY_S, EVENTS_DELAY_S, RunWriter
from reason.core.store.sqlite import SqliteStore
from reason.core.types import Question, RunUsage
from support.answers import plain_answer


@pytest.fixture
async def store(tmp_path):
    store = await SqliteStore.open(tmp_path / "runs.sqlite3")
    yield store
    await store.aclose()


class Store:
    """Notes what is written together; waits for `open`, and fails if told so."""

    def __init__(self):
        self.written, self.error = [], None
        self.open = asyncio.Event()

    async def save(self, run_id, writes):
        await self.open.wait()
        if self.error is not None:
            raise self.error
        self.written.append([*(call.key for call in writes.calls), *(event.number for event in writes.events)])


def call(key):
    return NewCall(key, "main", "m", {}, {})


def stage(number=1):
    return StageStarted(number=number, stage="solve")


def answer(stopped="done"):
    return plain_answer(stopped=stopped, usage=RunUsage(completion_tokens=3))


def run_of(store, **more):
    config = RunConfig(question=Question(text="?"), strategy="cot", parameters={}, models={"main": "m"}, seed=1)
    return Run("r", config, store, **more)


# -- a short run


async def test_a_short_run_is_one_transaction(store, clock):
    run = run_of(store, is_new=True)
    run.writer.create(NewRun(run.config, "t"))
    run.writer.identify({"main": {"identity": "m@1"}})
    before, tasks = store.transactions, asyncio.all_tasks()
    async with run.writer.saving(then_flush=False):
        run.emit(stage(0))
        assert await run.lookup_calls(["k"]) == {}
        run.writer.add_calls([call("k")])
        await run.save()
        assert asyncio.all_tasks() == tasks
    assert not run.writer.is_created
    await run.writer.end("finished", answer())
    assert run.writer.is_created
    assert store.transactions == before + 1
    record = await store.get_run("r")
    assert (record.status, record.tenant, record.answer_text) == ("finished", "t", "42")
    assert record.config == run.config.model_dump(mode="json")
    assert record.answer == answer().model_dump(mode="json")
    assert await store.count_calls("r") == 1
    assert [e.number for e in await store.list_events("r")] == [1]


async def test_a_run_is_created_in_time(store, clock):
    writer = RunWriter(store, "r")
    writer.create(NewRun({}))
    async with writer.saving():
        await clock.advance(CREATION_DELAY_S)
        assert writer.is_created
        assert (await store.get_run("r")).status == "running"


async def test_a_run_whose_name_is_taken_stops(store, clock):
    await store.create_run("r", {})
    writer = RunWriter(store, "r")
    writer.create(NewRun({}))
    with pytest.raises(UserError, match="there is a run r already"):
        async with writer.saving(then_flush=False):
            await clock.advance(CREATION_DELAY_S)


async def test_a_response_is_looked_up_after_it_was_written(store, clock):
    run = run_of(store, is_new=True)
    run.writer.create(NewRun(run.config))
    async with run.writer.saving():
        assert await run.lookup_calls(["k"]) == {}
        run.writer.add_calls([call("k")])
        assert list(await run.lookup_calls(["k"])) == ["k"]


# -- a longer one


async def test_events_and_responses_are_stored_while_the_work_runs(store, clock):
    await store.create_run("r", {})
    run = run_of(store)
    async with run.writer.saving(then_flush=False):
        for count in (1, 2, 3):
            run.emit(stage(0))
            run.writer.add_calls([call(str(count))])
            await run.save()  # left to the writer
            await clock.advance(EVENTS_DELAY_S)
            assert len(await store.list_events("r")) == await store.count_calls("r") == count
    run.emit(stage(0))
    await run.save()  # now it is not
    assert len(await store.list_events("r")) == 4


async def test_responses_gather_while_one_is_written(clock):
    store = Store()
    writer = RunWriter(store, "run")
    async with writer.saving():
        writer.add_calls([call("a")])
        await clock.advance(CALL_DELAY_S)
        writer.add_calls([call("b")])
        writer.add_calls([call("c")])
        await clock.advance(2 * CALL_DELAY_S)
        assert writer.has_pending_calls
        store.open.set()
    assert store.written == [["a"], ["b", "c"]]
    assert not writer.has_pending_calls


async def test_everything_is_written_however_the_block_ends(clock):
    store = Store()
    store.open.set()
    writer = RunWriter(store, "run")
    with pytest.raises(ValueError, match="it failed"):
        async with writer.saving():
            writer.add_calls([call("a")])
            writer.add_event(stage())
            raise ValueError("it failed")
    assert store.written == [["a", 1]]


async def test_a_block_inside_another_one_has_no_effect(clock):
    store = Store()
    store.open.set()
    writer = RunWriter(store, "run")
    async with writer.saving(then_flush=False):
        async with writer.saving():
            writer.add_calls([call("a")])
        assert store.written == []
    await writer.save()
    assert store.written == [["a"]]


async def test_a_replay_writes_nothing(store, clock):
    await store.create_run("r", {})
    run = run_of(store, recording=False)
    async with run.writer.saving():
        run.emit(stage(0))
        run.writer.add_calls([call("a")])
        await clock.advance(EVENTS_DELAY_S)
    await run.writer.end("finished", answer())
    assert await store.list_events("r") == []
    assert (await store.get_run("r")).status == "running"


def test_a_resumed_run_reuses_no_event_numbers():
    first = run_of(None).emit(stage(0))
    assert first == 1
    assert run_of(None, has_started=True).emit(stage(0)) > 100_000
    assert run_of(None, has_started=True).resumed
    assert not run_of(None).resumed


# -- faults


@pytest.mark.parametrize("error", [ValueError("own"), StoreError("own"), asyncio.CancelledError()])
async def test_errors_of_the_work_pass_through_unchanged(error, clock):
    with pytest.raises(type(error)) as raised:
        async with RunWriter(Store(), "run").saving():
            raise error
    assert raised.value is error


async def test_a_run_claimed_by_another_process_stops(store, clock):
    await store.create_run("r", {})
    run = run_of(store)
    await store.end_run("r", "finished")  # as one that was taken over and ended elsewhere
    with pytest.raises(StoreError, match="has no owner"):
        async with run.writer.saving(then_flush=False):
            run.emit(stage(0))
            await clock.advance(EVENTS_DELAY_S)
    assert asyncio.current_task().cancelling() == 0
    assert len(run.writer.take().events) == 1  # not lost: whoever can write them may


async def test_a_cancellation_is_not_taken_for_a_fault_of_the_store(clock):
    store = Store()
    store.error = StoreError("the disk is full")
    writer = RunWriter(store, "run")

    async def work():
        async with writer.saving(then_flush=False):
            writer.add_calls([call("a")])
            await asyncio.Event().wait()

    task = asyncio.ensure_future(work())
    await clock.advance(CALL_DELAY_S)
    store.open.set()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_could_not_be_written_is_written_with_the_end(clock):
    store = Store()
    store.open.set()
    store.error = StoreError("the disk is full")
    writer = RunWriter(store, "run")
    with pytest.raises(StoreError, match="disk is full"):
        async with writer.saving(then_flush=False):
            writer.add_calls([call("a")])
            writer.add_event(stage(1))
            await clock.advance(EVENTS_DELAY_S)
    writer.add_event(stage(2))
    with pytest.raises(StoreError, match="disk is full"):
        await writer.end("failed", answer())
    store.error = None
    await writer.end("failed", answer())
    assert store.written == [["a", 1, 2]]


async def test_the_end_follows_a_write_in_flight(clock):
    store = Store()
    writer = RunWriter(store, "run")
    writer.add_calls([call("a")])
    flush = asyncio.ensure_future(writer.flush())
    await clock.settle()
    writer.add_event(stage())
    end = writer.end("finished", answer())
    await clock.settle()
    store.open.set()
    await end
    await flush
    assert [one for written in store.written for one in written] == ["a", 1]


async def test_a_write_whose_awaiter_is_cancelled_is_completed_once(clock):
    store = Store()
    writer = RunWriter(store, "run")
    writer.add_event(stage(1))
    task = asyncio.ensure_future(writer.flush())
    await clock.settle()
    writer.add_event(stage(2))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    store.open.set()
    await writer.flush()
    assert store.written == [[1], [2]]


async def test_a_flush_that_meets_a_write_that_is_done_leaves_the_event_loop_to_its_callback(clock):
    """It spun for ever: awaiting a future that is done gives no other callback a turn."""

    class Instant:
        """Its write is done as soon as it is requested; its callbacks run in the loop's next turn."""

        written = 0

        def save(self, run_id, writes):
            self.written += 1
            done = asyncio.get_running_loop().create_future()
            done.set_result(None)
            return done

    store = Instant()
    writer = RunWriter(store, "run")
    writer.add_calls([call("a")])
    async with asyncio.timeout(60):
        await asyncio.gather(writer.flush(), writer.flush())
    assert store.written == 1
