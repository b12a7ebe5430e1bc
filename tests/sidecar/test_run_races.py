"""Races between the end of a run and cancel, resume or adopt: the store and the waiting clients agree."""

import asyncio

import pytest
from reason.core.errors import Cancelled
from reason.core.events import RunStarted
from reason.core.store.records import RunRecord
from reason.sidecar.native.schemas import summary_of
from reason.sidecar.runs import POLL_INTERVAL_S
from support.run_manager import (
    ANNE,
    FullStore,
    Gate,
    abandoned_run,
    config_of,
    held_run,
    running_manager,
    start,
    status_of,
)


async def test_a_run_that_is_cancelled_at_any_moment_ends_the_same_for_the_store_and_for_whoever_waits(path, models):
    met = set()
    async with running_manager(path, models) as run_manager:
        for moment in (*range(0, 160, 2), None):
            run = await start(run_manager, background=True)
            for _ in range(moment or 0):
                await asyncio.sleep(0)
            if moment is None:  # however long a run takes here, one is cancelled when it has ended
                await run.result()
            record = await run_manager.cancel(run.id, ANNE)
            try:
                told = (await run.result()).answer
            except Cancelled:
                told = None
            stored = record.answer["answer"] if record.status == "finished" else None
            assert (told, run.status) == (stored, record.status)
            met.add(record.status)
    assert met == {"interrupted", "finished"}


async def test_a_run_whose_ending_is_being_stored_when_it_is_cancelled_has_ended(path, models, monkeypatch):
    async with running_manager(path, models) as run_manager:
        save, writing, go_on = run_manager.store.save, asyncio.Event(), asyncio.Event()

        async def slow(run_id, writes):
            if writes.end is not None:
                writing.set()
                await go_on.wait()
            await save(run_id, writes)

        monkeypatch.setattr(run_manager.store, "save", slow)
        run = await start(run_manager)
        await writing.wait()
        run.cancel()
        go_on.set()
        assert (await run.result()).answer == "42"
        assert (run.status, await status_of(run_manager, run)) == ("finished", "finished")


async def test_what_was_said_of_a_run_before_it_is_resumed_does_not_stop_it(path, models, clock):
    gate = Gate()
    async with running_manager(path, models, step=gate, max_runs=1) as run_manager:
        run_id = await abandoned_run(path, run_manager)
        await run_manager.others.request_cancel(run_id)
        assert (await run_manager.record(run_id, ANNE)).cancel_requested
        first = await start(run_manager)
        await gate.reached.wait()
        asked, ask = [], run_manager.others.requested

        async def noted(run_ids):
            asked.append(run_ids)
            return await ask(run_ids)

        run_manager.others.requested = noted
        resuming = asyncio.ensure_future(run_manager.resume(run_id, ANNE))
        await clock.advance(2 * POLL_INTERVAL_S)  # the run manager has read the cancel requests
        assert len(asked) >= 2
        gate.open.set()
        assert (await (await resuming).result()).answer == "42"
        await first.result()


async def test_a_run_that_was_to_stop_when_its_process_was_killed_is_not_taken_up(path, models):
    async with running_manager(path, models) as run_manager:
        run_id = await abandoned_run(path, run_manager)
        await run_manager.store.commits.write(
            lambda db: db.write("UPDATE runs SET cancel_requested = 1 WHERE id = ?", (run_id,))
        )
        assert await run_manager.adopt() == 0
        record = await run_manager.record(run_id, ANNE)
        assert (record.status, record.owner) == ("interrupted", None)
        assert not models["scripted"].generate_calls


async def test_a_run_that_nobody_can_read_keeps_no_other_from_being_taken_up(path, models):
    async with running_manager(path, models) as run_manager:
        run_manager.draining = True
        options = {"tenant": "anne", "background": True, "status": "queued"}
        await run_manager.store.create_run("a", {"of": "another version"}, **options)
        await run_manager.store.create_run("b", config_of(run_manager).model_dump(mode="json"), **options)
        run_manager.draining = False
        assert await run_manager.adopt() == 1
        assert (await (await run_manager.attach("b", ANNE)).result()).answer == "42"
        unread = await run_manager.record("a", ANNE)
        assert (unread.status, unread.error["code"]) == ("failed", "data_error")


async def test_a_fault_of_the_keeper_ends_no_run(path, models, monkeypatch):
    gate, faults = Gate(), asyncio.Event()
    async with running_manager(path, models, step=gate) as run_manager:

        async def broken(run_ids):
            faults.set()
            raise ZeroDivisionError

        monkeypatch.setattr(run_manager.others, "requested", broken)
        run = await start(run_manager)
        await faults.wait()
        gate.open.set()
        assert (await run.result()).answer == "42"


async def test_an_ending_that_is_owed_to_the_store_is_forgotten_when_the_run_goes_on(path, models):
    async with held_run(path, models) as (run_manager, run, gate):
        store = FullStore(run_manager.store)
        await run_manager.cancel(run.id, ANNE)
        assert run.status == "interrupted"
        gate.reached.clear()
        again = await run_manager.resume(run.id, ANNE)
        await gate.reached.wait()
        store.has_space = True
        await run_manager.endings.retry_pending()
        assert await status_of(run_manager, run) == "running"
        gate.open.set()
        assert (await again.result()).answer == "42"


async def test_an_ending_that_the_store_keeps_refusing_is_given_up(path, models, monkeypatch):
    monkeypatch.setattr("reason.sidecar.run_manager.MAX_ATTEMPTS", 2)
    async with held_run(path, models) as (run_manager, run, _):
        store = FullStore(run_manager.store)
        await run_manager.cancel(run.id, ANNE)
        for store.has_space in (False, False, True):
            await run_manager.endings.retry_pending()
        assert await status_of(run_manager, run) == "running"


async def test_an_ending_with_a_fault_of_ours_ends_no_other_run(path, models, monkeypatch):
    async with held_run(path, models) as (run_manager, other, gate):

        async def broken(live, error, stopped):
            raise ZeroDivisionError

        monkeypatch.setattr(run_manager.endings, "_record", broken)
        run = await start(run_manager)
        run.cancel()
        with pytest.raises(Cancelled):
            await run.result()
        gate.open.set()
        assert (await other.result()).answer == "42"


async def test_a_run_that_goes_on_is_known_to_have_begun_at_once(path, models):
    async with held_run(path, models) as (run_manager, run, gate):
        await run_manager.cancel(run.id, ANNE)
        gate.reached.clear()
        await run_manager.resume(run.id, ANNE)
        await gate.reached.wait()
        begun = [e for e in await run_manager.store.list_events(run.id) if isinstance(e, RunStarted)]
        assert [e.resumed for e in begun] == [False, True]


async def test_a_run_that_is_about_to_stop_is_resumed_after_it_has(path, models):
    async with held_run(path, models) as (run_manager, run, gate):
        run.cancel()
        again = await run_manager.resume(run.id, ANNE)
        assert again is not run
        gate.open.set()
        assert (await again.result()).answer == "42"


async def test_whether_the_store_answers_is_asked_once_at_a_time(path, models, monkeypatch):
    async with running_manager(path, models) as run_manager:
        away, asked = asyncio.Event(), []
        ask = run_manager.others.check_writable

        async def silent():
            asked.append(None)
            await away.wait()
            await ask()

        monkeypatch.setattr(run_manager.others, "check_writable", silent)
        assert not any([await run_manager.reaches_store(0.01) for _ in range(3)])
        assert len(asked) == 1
        away.set()
        assert await run_manager.reaches_store(60)
        monkeypatch.setattr("reason.sidecar.run_manager.PROBE_INTERVAL_S", 60.0)
        assert await run_manager.reaches_store(60)
        assert len(asked) == 1
        monkeypatch.setattr("reason.sidecar.run_manager.PROBE_INTERVAL_S", 0.0)
        assert await run_manager.reaches_store(60)
        assert len(asked) == 2


def test_a_run_whose_process_was_killed_is_shown_as_queued_where_the_next_one_takes_it_up():
    config = {"question": {"text": "?"}, "strategy": "cot", "parameters": {}, "models": {}, "seed": 1}
    left = RunRecord(
        id="r", created=0, updated=0, status="interrupted", config=config, identities={}, owner="gone", background=True
    )
    assert summary_of(left).status == "queued"
    assert summary_of(left.model_copy(update={"background": False})).status == "interrupted"
    assert summary_of(left.model_copy(update={"owner": None})).status == "interrupted"
