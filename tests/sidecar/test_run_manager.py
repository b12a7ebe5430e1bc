from __future__ import annotations

import asyncio
import gc
import sqlite3
import weakref

import pytest
from reason.core.errors import (
    BackendUnavailable,
    Cancelled,
    DuplicateRequest,
    InvalidResponse,
    RunQuarantined,
    ServerBusy,
    ShuttingDown,
    StoreError,
    UnknownName,
    UserError,
)
from reason.core.events import RunFailed, RunFinished, TextDelta
from reason.sidecar.runs import LiveRun
from support.run_manager import (
    ANNE,
    BEN,
    FullStore,
    Gate,
    abandoned_run,
    config_of,
    held_run,
    running_manager,
    start,
    status_of,
)
from support.scripted_model import ScriptedModel, replies
from support.waiting import wait_until


async def test_a_run_is_answered_followed_and_found_again(path, models):
    async with running_manager(path, models) as run_manager:
        run = await start(run_manager)
        seen = [e async for e in run.events()]
        answer = await run.result()
        assert (answer.answer, answer.run_id, run.status) == ("42", run.id, "finished")
        assert [e.number for e in seen] == list(range(1, len(seen) + 1))
        assert isinstance(seen[-1], RunFinished)
        assert run_manager.in_flight == 0
        again = await run_manager.attach(run.id, ANNE)
        assert [e.number async for e in again.events(after=2)] == [e.number for e in seen][2:]
        assert await again.result() == answer
        record = await run_manager.record(run.id, ANNE)
        assert (record.tenant, record.background, record.status) == ("anne", False, "finished")


async def test_what_has_ended_leaves_nothing_for_the_garbage_collector(path, models):
    """Garbage collections of a large heap delay all requests."""
    async with running_manager(path, models) as run_manager:
        gc.collect()
        gc.disable()
        try:
            waiting = LiveRun("waiting", config_of(run_manager), run_manager.store)
            kept = [weakref.ref(waiting), weakref.ref(waiting.buffer)]
            del waiting
            run = await start(run_manager)
            kept.append(weakref.ref(run._run))
            await run.result()
            while run_manager.in_flight:
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert [one() for one in kept] == [None, None, None]
        finally:
            gc.enable()


async def test_text_is_told_from_its_beginning_to_who_starts_the_run(path, models):
    async with running_manager(path, models) as run_manager:
        run = await start(run_manager, text=True)
        text = "".join([e.text async for e in run.events(text=True) if isinstance(e, TextDelta)])
        assert text == "The answer is 42."
        quiet = await start(run_manager)
        assert not [e async for e in quiet.events() if isinstance(e, TextDelta)]


async def test_a_run_is_cancelled_with_whoever_holds_it(path, models):
    async with running_manager(path, models, step=(gate := Gate())) as run_manager:
        run = await start(run_manager)

        async def request():
            async with run.held():
                await run.result()

        task = asyncio.ensure_future(request())
        await asyncio.sleep(0)  # the request holds the run
        await gate.reached.wait()
        assert models["scripted"].running == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(Cancelled) as caught:
            await run.result()
        stored = await status_of(run_manager, run)
        stopped = caught.value.partial.stopped
        assert (models["scripted"].running, stopped, stored, run.ended) == (0, "cancelled", "interrupted", True)


async def test_a_run_that_is_cancelled_before_it_began_ends_as_well(path, models):
    async with running_manager(path, models) as run_manager:
        starting = asyncio.ensure_future(start(run_manager))
        await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        while run_manager.in_flight:
            await asyncio.sleep(0)
        assert {r.status for r in await run_manager.store.list_runs()} <= {"interrupted"}


async def test_cancelling_by_name_stops_the_engine_and_is_idempotent(path, models):
    async with held_run(path, models, background=True) as (run_manager, run, _):
        first = await run_manager.cancel(run.id, ANNE)
        assert (first.status, models["scripted"].running) == ("interrupted", 0)
        assert await run_manager.cancel(run.id, ANNE) == first
        last = [e async for e in run.events()][-1]
        assert isinstance(last, RunFinished)
        assert last.answer.stopped == "cancelled"
        assert not await run_manager.adopt()  # a cancelled run is not adopted


async def test_a_run_of_another_process_is_cancelled_through_the_store(path, models):
    async with held_run(path, models, background=True) as (run_manager, run, _):
        await run_manager.others.request_cancel(run.id)  # as another process does
        with pytest.raises(Cancelled):
            await run.result()
        assert models["scripted"].running == 0


NAMED = {"idempotency": "k", "digest": "d"}
CONCLUSION = "Therefore, the answer is 42."
"""Begins as the request for the answer now."""


async def test_an_answer_is_given_now_and_asked_for_once(path, models):
    async with held_run(path, models, script=replies(CONCLUSION)) as (run_manager, run, gate):
        for _ in range(2):
            record = await run_manager.conclude(run.id, ANNE)
            assert (record.status, record.answer_requested) == ("running", True)
        with pytest.raises(UnknownName):
            await run_manager.conclude(run.id, BEN)
        gate.open.set()  # of the short call that concludes
        answer = await run.result()
        assert (answer.answer, answer.stopped, run.status) == ("42", "user", "finished")
        assert answer.based_on == "no sample: the question was answered at once"
        assert answer.usage.completion_tokens < len(CONCLUSION)
        record = await run_manager.conclude(run.id, ANNE)  # no effect on a run that has ended
        assert (record.status, record.answer_requested) == ("finished", False)
        assert (await run_manager.attach(run.id, ANNE)).record.answer == record.answer


async def test_a_waiting_run_answers_now_when_it_begins(path, models):
    async with held_run(path, models, script=replies(CONCLUSION), max_runs=1) as (run_manager, first, gate):
        second = await start(run_manager, background=True)
        assert (await run_manager.conclude(second.id, ANNE)).status == "queued"
        gate.open.set()
        assert (await first.result()).stopped == "done"
        answer = await second.result()
        assert (answer.answer, answer.stopped, answer.usage.model_calls) == ("42", "user", 1)


async def test_an_adopted_run_answers_as_its_killed_process_was_asked(path, models):
    async with running_manager(path, models, script=replies(CONCLUSION)) as run_manager:
        run_manager.draining = True  # adopts no runs
        run_id = await abandoned_run(path, run_manager)
        assert (await run_manager.conclude(run_id, ANNE)).answer_requested
        run_manager.draining = False
        await run_manager.adopt()
        answer = await (await run_manager.attach(run_id, ANNE)).result()
        assert (answer.answer, answer.stopped) == ("42", "user")


async def test_the_same_request_sent_again_gets_the_same_run(path, models):
    async with running_manager(path, models, step=(gate := Gate())) as run_manager:
        first = await start(run_manager, **NAMED)
        second = await start(run_manager, **NAMED)
        assert (second.id, first.replayed, second.replayed) == (first.id, False, True)
        async with second.held():
            pass  # releasing the replay does not stop the run
        async with first.held():
            pass  # nor does releasing the first, which may reconnect
        gate.open.set()
        assert await first.result() == await second.result()
        third = await start(run_manager, **NAMED)
        assert third.replayed
        assert await third.result() == await first.result()
        assert len(models["scripted"].generate_calls) == 1
        with pytest.raises(DuplicateRequest):
            await start(run_manager, **{**NAMED, "digest": "another"})
        other = await start(run_manager, BEN, **{**NAMED, "digest": "another"})
        assert other.id != first.id  # idempotency keys are separate for each tenant


async def test_a_request_that_failed_on_the_models_side_is_tried_again_where_it_was(path, models):
    async with running_manager(path, models) as run_manager:
        models["other"] = BackendUnavailable("away")
        config = config_of(run_manager, model="other")
        run = await run_manager.start(config, ANNE, **NAMED)
        with pytest.raises(BackendUnavailable):
            await run.result()
        models["other"] = ScriptedModel(replies("The answer is 7."), name="other")
        again = await run_manager.start(config, ANNE, **NAMED)
        assert again.id == run.id
        assert (await again.result()).answer == "7"


async def test_a_request_that_was_wrong_fails_the_same_way_again(path, models):
    async with running_manager(path, models) as run_manager:
        models["other"] = UserError("no such thing")
        config = config_of(run_manager, model="other")
        for _ in range(2):
            run = await run_manager.start(config, ANNE, **NAMED)
            with pytest.raises(UserError, match="no such thing"):
                await run.result()
            events = [e async for e in run.events()]
            assert [type(e) for e in events] == [RunFailed]
            assert events[0].code == "user_error"
        assert await status_of(run_manager, run) == "failed"


async def test_turns_are_waited_for_in_bounds(path, models, monkeypatch):
    monkeypatch.setattr("reason.core.settings.QUEUED_PER_RUN", 0)
    async with held_run(path, models, max_runs=1) as (run_manager, first, gate):
        with pytest.raises(ServerBusy):
            await start(run_manager)
        with pytest.raises(ServerBusy):
            await start(run_manager, **NAMED)
        await first.saved()
        assert [r.id for r in await run_manager.store.list_runs()] == [first.id]  # a rejected run is not stored
        gate.open.set()
        await first.result()
        again = await start(run_manager, **NAMED)
        assert not again.replayed
        assert (await again.result()).answer == "42"


async def test_a_queued_run_that_is_cancelled_never_begins(path, models):
    async with held_run(path, models, max_runs=1) as (run_manager, first, gate):
        second = await start(run_manager, background=True)
        assert (await run_manager.cancel(second.id, ANNE)).status == "interrupted"
        gate.open.set()
        await first.result()
        with pytest.raises(Cancelled):
            await second.result()
        assert len(models["scripted"].generate_calls) == 1


async def test_a_drain_lets_runs_end(path, models):
    async with held_run(path, models) as (run_manager, run, gate):
        draining = asyncio.ensure_future(run_manager.drain(60))
        await asyncio.sleep(0)
        with pytest.raises(ShuttingDown):
            await start(run_manager)
        gate.open.set()
        await draining
        assert (await run.result()).answer == "42"


async def test_what_a_drain_stops_is_saved_and_background_runs_go_on_in_the_next_process(path, models):
    async with running_manager(path, models, step=(gate := Gate())) as run_manager:
        waited = await start(run_manager)
        behind = await start(run_manager, background=True)
        await gate.reached.wait()
        await run_manager.drain(0)
        with pytest.raises(ShuttingDown) as caught:
            await waited.result()
        assert caught.value.partial.stopped == "cancelled"
        told = [e.type async for e in behind.events()]
        assert "run.finished" not in told  # the run has not ended
        assert await status_of(run_manager, waited) == "interrupted"
        assert await status_of(run_manager, behind) == "queued"
    async with running_manager(path, models) as run_manager:
        run = await run_manager.attach(behind.id, ANNE)
        assert (await run.result()).answer == "42"
        numbers = [e.number async for e in run.events()]
        assert numbers == sorted(set(numbers))
        assert await status_of(run_manager, waited) == "interrupted"  # no client waits for it


async def test_a_drain_leaves_queued_background_runs_to_the_next_process(path, models):
    async with held_run(path, models, max_runs=1) as (run_manager, *_):
        waiting = await start(run_manager, background=True)
        await run_manager.drain(0)
        assert await status_of(run_manager, waiting) == "queued"
    async with running_manager(path, models) as run_manager:
        assert (await (await run_manager.attach(waiting.id, ANNE)).result()).answer == "42"


async def test_a_drain_that_is_hurried_stops_what_goes_on(path, models):
    async with held_run(path, models) as (run_manager, run, _):
        draining = asyncio.ensure_future(run_manager.drain(3600))
        await asyncio.sleep(0)
        run_manager.stop_now()
        await draining
        with pytest.raises(ShuttingDown):
            await run.result()


async def test_of_two_processes_one_takes_a_run_and_the_other_follows_it(path, models):
    async with held_run(path, models, max_runs=1) as (first, _, gate):
        queued = await start(first, background=True)
        async with running_manager(path, models) as second:  # has a free slot, and adopts runs when it starts
            answer = await (await second.attach(queued.id, ANNE)).result()
            assert answer.answer == "42"
        gate.open.set()
        assert await queued.result() == answer  # the first one follows the run in the other process
        numbers = [e.number async for e in queued.events()]
        assert numbers == sorted(set(numbers))
        assert [e.answer async for e in queued.events() if isinstance(e, RunFinished)] == [answer]


async def test_a_model_that_fails_ends_the_run_and_frees_its_turn(path, models):
    async with running_manager(path, models, max_runs=1) as run_manager:

        async def broken(requests, listener=None):
            raise InvalidResponse("nonsense")

        models["scripted"].generate = broken
        for _ in range(3):
            run = await start(run_manager)
            with pytest.raises(InvalidResponse):
                await run.result()
        assert {r.status for r in await run_manager.store.list_runs()} == {"failed"}


async def test_what_a_killed_process_left_is_taken_up_and_followed_meanwhile(path, models):
    async with running_manager(path, models) as run_manager:
        run_id = await abandoned_run(path, run_manager)
        run = await run_manager.attach(run_id, ANNE)
        assert run.status == "interrupted"
        assert (await run.result()).answer == "42"  # waits until a process has adopted and finished it


async def test_what_a_killed_process_left_can_be_cancelled_before_it_is_taken_up(path, models):
    async with running_manager(path, models) as run_manager:
        run_manager.draining = True  # adopts no runs
        run_id = await abandoned_run(path, run_manager)
        assert (await run_manager.cancel(run_id, ANNE)).status == "interrupted"
        run_manager.draining = False
        assert not await run_manager.adopt()
        assert not models["scripted"].generate_calls


async def test_a_run_that_three_processes_died_with_is_quarantined(path, models):
    async with running_manager(path, models) as run_manager:
        run_id = await abandoned_run(path, run_manager, adoptions=3)
        assert await run_manager.adopt() == 0
        record = await run_manager.record(run_id, ANNE)
        assert (record.status, record.error["code"], record.owner) == ("failed", "run_quarantined", None)
        assert record.error["message"] == (
            "run left is quarantined: 3 processes adopted it, and each of them died with it "
            "(find out what ends them (memory, the model's backend), then resume the run)"
        )
        run = await run_manager.attach(run_id, ANNE)
        assert [e async for e in run.events()][-1].code == "run_quarantined"
        with pytest.raises(RunQuarantined, match="is quarantined"):
            await run.result()
        assert await run_manager.adopt() == 0
        assert not models["scripted"].generate_calls
        resumed = await run_manager.resume(run_id, ANNE)  # the operator has mended the cause
        assert (await resumed.result()).answer == "42"
        assert (await run_manager.record(run_id, ANNE)).adoptions == 0


async def test_of_the_runs_that_a_process_died_with_one_at_a_time_gets_its_last_chance(path, models):
    async with running_manager(path, models, step=(gate := Gate())) as run_manager:
        names = [await abandoned_run(path, run_manager, name, None, n) for name, n in (("a", 2), ("b", 2), ("new", 0))]
        assert await run_manager.adopt() == 2
        assert set(run_manager._live) == {"new", "a"}
        assert await run_manager.adopt() == 0
        gate.open.set()
        await wait_until(lambda: not run_manager.in_flight)
        assert await run_manager.adopt() == 1
        await wait_until(lambda: not run_manager.in_flight)
        assert [(await run_manager.record(name, ANNE)).status for name in names] == ["finished"] * 3


async def test_a_drained_run_may_be_handed_over_any_number_of_times(path, models):
    async with running_manager(path, models) as run_manager:
        run_id = await abandoned_run(path, run_manager, adoptions=3)
        with sqlite3.connect(path) as db:
            db.execute("UPDATE runs SET owner = NULL, status = 'queued' WHERE id = ?", (run_id,))
        assert await run_manager.adopt() == 1
        await wait_until(lambda: not run_manager.in_flight)
        assert (await run_manager.record(run_id, ANNE)).status == "finished"


async def test_an_ending_that_the_store_could_not_take_is_stored_later(path, models):
    async with running_manager(path, models) as run_manager:
        store = FullStore(run_manager.store)
        run = await start(run_manager)
        with pytest.raises(StoreError):
            await run.result()
        assert await status_of(run_manager, run) == "running"
        store.has_space = True

        async def ended():
            record = await run_manager.record(run.id, ANNE)
            return record if record.status != "running" else None

        record = await wait_until(ended)
        assert (record.status, record.answer["answer"]) == ("finished", "42")
