"""What a run writes is gathered, written in time, and never lost; and a run that was taken away stops."""

import asyncio

import pytest
from reason.core.errors import StoreError, UserError
from reason.core.events import StageStarted
from reason.core.run import Run
from reason.core.store.records import NewCall, NewRun
from reason.core.store.run_writer import CALL_DELAY_S, CREATION_DELAY_S, EVENTS_DELAY_S, RunWriter
from reason.core.types import RunUsage
from support.answers import plain_answer
from support.stored_runs import run_config


class Store:
    """Notes what is written together, which waits for `open`; fails with `error`."""

    def __init__(self, *, is_open=True, error=None):
        self.written, self.error = [], error
        self.open = asyncio.Event()
        if is_open:
            self.open.set()

    async def save(self, run_id, writes):
        await self.open.wait()
        if self.error is not None:
            raise self.error
        self.written.append([*(call.key for call in writes.calls), *(event.number for event in writes.events)])


def writer_on(**options):
    """A store, and the writer of a run on it."""
    store = Store(**options)
    return store, RunWriter(store, "run")


def call(key):
    return NewCall(key, "main", "m", {}, {})


def stage(number=1):
    return StageStarted(number=number, stage="solve")


def answer(stopped="done"):
    return plain_answer(stopped=stopped, usage=RunUsage(completion_tokens=3))


def run_of(store, **more):
    return Run("r", run_config(), store, **more)


# -- a short run


async def test_a_short_run_is_one_transaction(store, clock):
    run = run_of(store, is_new=True)
    run.writer.create(NewRun(run.config, "t"))
    run.writer.identify({"main": {"identity": "m@1"}})
    before, tasks = store.commits.transactions, asyncio.all_tasks()
    async with run.writer.saving():
        run.emit(stage(0))
        assert await run.lookup_calls(["k"]) == {}
        run.writer.add_calls([call("k")])
        await run.save()
        assert asyncio.all_tasks() == tasks
    assert not run.writer.is_created
    await run.writer.end("finished", answer())
    assert run.writer.is_created
    assert store.commits.transactions == before + 1
    record = await store.get_run("r")
    assert (record.status, record.tenant, record.answer_text) == ("finished", "t", "42")
    assert record.config == run.config.model_dump(mode="json")
    assert record.answer == answer().model_dump(mode="json")
    assert [c.key for c in await store.list_calls("r")] == ["k"]
    assert [e.number for e in await store.list_events("r")] == [1]


async def test_a_response_is_looked_up_after_it_was_written(store, clock):
    run = run_of(store, is_new=True)
    run.writer.create(NewRun(run.config))
    async with run.writer.saving():
        assert await run.lookup_calls(["k"]) == {}
        run.writer.add_calls([call("k")])
        assert list(await run.lookup_calls(["k"])) == ["k"]


# -- a longer one


@pytest.mark.parametrize(
    ("add", "delay_s"),
    [
        (lambda writer: writer.create(NewRun({})), CREATION_DELAY_S),
        (lambda writer: writer.add_calls([call("a")]), CALL_DELAY_S),
        (lambda writer: writer.add_event(stage(1)), EVENTS_DELAY_S),
    ],
)
async def test_what_is_added_is_written_in_time(clock, add, delay_s):
    store, writer = writer_on()
    if delay_s == CREATION_DELAY_S:  # before the work begins
        add(writer)
    async with writer.saving():
        if delay_s != CREATION_DELAY_S:
            writer.add_event(stage(2))
            add(writer)
        await writer.save()  # leaves it to the writer
        await clock.advance(delay_s - 0.001)
        assert store.written == []
        await clock.advance(0.001)
        assert len(store.written) == 1
    writer.add_event(stage(3))
    await writer.save()  # outside it does not
    assert store.written[1:] == [[3]]


async def test_responses_are_written_in_time_outside_of_a_block_too(clock):
    store, writer = writer_on()
    writer.add_calls([call("a")])
    await clock.advance(CALL_DELAY_S)
    assert store.written == [["a"]]
    store.error = StoreError("the disk is full")
    writer.add_calls([call("b")])
    await clock.advance(CALL_DELAY_S)
    with pytest.raises(StoreError, match="disk is full"):
        await writer.save()
    store.error = None
    await writer.save()
    assert store.written == [["a"], ["b"]]


async def test_responses_gather_while_one_is_written(clock):
    store, writer = writer_on(is_open=False)
    async with writer.saving():
        writer.add_calls([call("a")])
        await clock.advance(CALL_DELAY_S)
        for key in "bc":
            writer.add_calls([call(key)])
        await clock.advance(2 * CALL_DELAY_S)
        assert writer.has_pending_calls
        store.open.set()
        await clock.advance(CALL_DELAY_S)
    assert store.written == [["a"], ["b", "c"]]
    assert not writer.has_pending_calls


async def test_events_that_come_during_a_write_are_written_in_time(clock):
    store, writer = writer_on(is_open=False)
    async with writer.saving():
        writer.add_event(stage(1))
        await clock.advance(EVENTS_DELAY_S)
        writer.add_event(stage(2))
        await clock.advance(2 * EVENTS_DELAY_S)
        store.open.set()
        await clock.advance(EVENTS_DELAY_S)
        assert store.written == [[1], [2]]


async def test_a_replay_writes_nothing(clock):
    store = Store()
    run = run_of(store, recording=False)
    async with run.writer.saving():
        run.emit(stage(0))
        run.writer.add_calls([call("a")])
        await clock.advance(EVENTS_DELAY_S)
    await run.writer.end("finished", answer())
    assert store.written == []


def test_a_resumed_run_reuses_no_event_numbers():
    new, resumed = run_of(None), run_of(None, has_started=True)
    assert (new.emit(stage(0)), new.resumed, resumed.resumed) == (1, False, True)
    assert resumed.emit(stage(0)) > 100_000


# -- faults


@pytest.mark.parametrize("error", [ValueError("own"), StoreError("own"), asyncio.CancelledError()])
async def test_errors_of_the_work_pass_through_unchanged(error, clock):
    with pytest.raises(type(error)) as raised:
        async with RunWriter(Store(), "run").saving():
            raise error
    assert raised.value is error


async def test_a_run_whose_name_is_taken_stops(store, clock):
    await store.create_run("r", {})
    writer = RunWriter(store, "r")
    writer.create(NewRun({}))
    with pytest.raises(UserError, match="there is a run r already"):
        async with writer.saving():
            await clock.advance(CREATION_DELAY_S)


async def test_a_run_claimed_by_another_process_stops(store, clock):
    await store.create_run("r", {})
    run = run_of(store)
    await store.end_run("r", "finished")  # as one that was taken over and ended elsewhere
    with pytest.raises(StoreError, match="has no owner"):
        async with run.writer.saving():
            run.emit(stage(0))
            await clock.advance(EVENTS_DELAY_S)
    assert asyncio.current_task().cancelling() == 0
    assert len(run.writer.take().events) == 1  # not lost: whoever can write them may


async def test_a_cancellation_is_not_taken_for_a_fault_of_the_store(clock):
    store, writer = writer_on(is_open=False, error=StoreError("the disk is full"))

    async def work():
        async with writer.saving():
            writer.add_calls([call("a")])
            await asyncio.Event().wait()

    task = asyncio.ensure_future(work())
    await clock.advance(CALL_DELAY_S)
    store.open.set()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_could_not_be_written_is_written_with_the_end(clock):
    store, writer = writer_on(error=StoreError("the disk is full"))
    with pytest.raises(StoreError, match="disk is full"):
        async with writer.saving():
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
    store, writer = writer_on(is_open=False)
    writer.add_calls([call("a")])
    flush = asyncio.ensure_future(writer.flush())
    await clock.settle()
    writer.add_event(stage())
    end = asyncio.ensure_future(writer.end("finished", answer()))
    store.open.set()
    await asyncio.gather(end, flush)
    assert [one for written in store.written for one in written] == ["a", 1]


async def test_a_write_whose_awaiter_is_cancelled_is_completed_once(clock):
    store, writer = writer_on(is_open=False)
    writer.add_event(stage(1))
    task = asyncio.ensure_future(writer.flush())
    await clock.settle()
    writer.add_event(stage(2))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    store.open.set()
    await writer.flush()
    assert store.written == [[1], [2]]


async def test_concurrent_flushes_share_a_write_that_is_done_at_once():
    """One spun for ever: awaiting a future that is done gives no other callback a turn."""

    class Instant:
        num_written = 0

        def save(self, run_id, writes):
            self.num_written += 1
            done = asyncio.get_running_loop().create_future()
            done.set_result(None)
            return done

    store = Instant()
    writer = RunWriter(store, "run")
    writer.add_calls([call("a")])
    await asyncio.gather(writer.flush(), writer.flush())
    assert store.num_written == 1


# -- operations


async def test_an_operation_is_in_the_transaction_of_what_was_added_before(store):
    run = run_of(store)
    run.writer.create(NewRun(run.config, "t"))
    run.writer.add_calls([call("k")])
    before = store.commits.transactions
    found = run.writer.execute(lambda db: db.execute("SELECT key FROM calls WHERE run_id = ?", ("r",)))
    assert await found == [("k",)]
    assert store.commits.transactions == before + 1


async def test_operations_during_a_write_are_one_transaction_at_its_end(store):
    run = run_of(store)
    run.writer.create(NewRun(run.config))
    before = store.commits.transactions
    assert await asyncio.gather(*(run.writer.execute(lambda db, n=n: n) for n in range(3))) == [0, 1, 2]
    assert store.commits.transactions == before + 2


async def test_an_operation_that_fails_is_not_executed_again(store):
    run, executed = run_of(store), []
    run.writer.create(NewRun(run.config))

    def fail(db):
        executed.append(1)
        raise ZeroDivisionError

    run.writer.add_calls([call("k")])
    with pytest.raises(ZeroDivisionError):
        await run.writer.execute(fail)
    await run.writer.flush()
    assert executed == [1]
    assert [c.key for c in await store.list_calls("r")] == ["k"]  # what it was to be written with is not lost
