import asyncio
import gc
import weakref

import pytest
import reason.agents.reasoner as reasoner_module
from reason.core.errors import (
    BackendError,
    BackendUnavailable,
    Cancelled,
    DuplicateRequest,
    InvalidResponse,
    RunConflict,
    ServerBusy,
    ShuttingDown,
    StoreError,
    UnknownName,
    UserError,
)
from reason.core.events import RunFailed, RunFinished, TextDelta
from reason.sidecar.auth import ANONYMOUS
from reason.sidecar.runs import LiveRun
from support.run_manager import ANNE, BEN, Gate, config_of, desk_on, left_behind
from support.scripted_model import ScriptedModel, replies


@pytest.fixture
def models(monkeypatch):
    """The models that reasoners open, by name; what is no model is raised."""
    models = {}

    async def load_model(name, settings, *_):
        found = models[name]
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(reasoner_module, "load_model", load_model)
    return models


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.sqlite3"


async def test_a_run_is_answered_followed_and_found_again(path, models):
    async with desk_on(path, models) as desk:
        run = await desk.start(config_of(desk), ANNE)
        seen = [e async for e in run.events()]
        answer = await run.result()
        assert (answer.answer, answer.run_id, run.status) == ("42", run.id, "finished")
        assert [e.number for e in seen] == list(range(1, len(seen) + 1))
        assert isinstance(seen[-1], RunFinished)
        assert desk.in_flight == 0
        again = await desk.attach(run.id, ANNE)
        assert [e.number async for e in again.events(after=2)] == [e.number for e in seen][2:]
        assert await again.result() == answer
        record = await desk.record(run.id, ANNE)
        assert (record.tenant, record.background, record.status) == ("anne", False, "finished")


async def test_what_has_ended_leaves_nothing_for_the_garbage_collector(path, models):
    """Its looks at a busy server's memory hold up all requests."""
    async with desk_on(path, models) as desk:
        gc.collect()
        gc.disable()
        try:
            waiting = LiveRun("waiting", config_of(desk), desk.store)
            kept = [weakref.ref(waiting), weakref.ref(waiting.board)]
            del waiting
            run = await desk.start(config_of(desk), ANNE)
            kept.append(weakref.ref(run._run))
            await run.result()
            while desk.in_flight:
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert [one() for one in kept] == [None, None, None]
        finally:
            gc.enable()


async def test_tenants_do_not_see_one_another(path, models):
    async with desk_on(path, models, step=(gate := Gate())) as desk:
        run = await desk.start(config_of(desk), ANNE)
        await gate.reached.wait()
        for look in (desk.attach, desk.record, desk.cancel, desk.resume):
            with pytest.raises(UnknownName):
                await look(run.id, BEN)
        assert (await desk.attach(run.id, ANONYMOUS)) is run  # who may see all
        gate.open.set()
        await run.result()
        with pytest.raises(UnknownName):
            await desk.attach(run.id, BEN)


async def test_text_is_told_from_its_beginning_to_who_starts_the_run(path, models):
    async with desk_on(path, models) as desk:
        run = await desk.start(config_of(desk), ANNE, text=True)
        text = "".join([e.text async for e in run.events(text=True) if isinstance(e, TextDelta)])
        assert text == "The answer is 42."
        quiet = await desk.start(config_of(desk), ANNE)
        assert not [e async for e in quiet.events() if isinstance(e, TextDelta)]


async def test_a_run_is_cancelled_with_whoever_holds_it(path, models):
    async with desk_on(path, models, step=(gate := Gate())) as desk:
        run = await desk.start(config_of(desk), ANNE)

        async def request():
            async with run.held():
                await run.result()

        task = asyncio.ensure_future(request())
        await gate.reached.wait()
        assert models["scripted"].running == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert models["scripted"].running == 0
        with pytest.raises(Cancelled) as caught:
            await run.result()
        assert caught.value.partial.stopped == "cancelled"
        assert (await desk.record(run.id, ANNE)).status == "interrupted"
        assert run.ended


async def test_a_run_that_is_cancelled_before_it_began_ends_as_well(path, models):
    async with desk_on(path, models) as desk:
        starting = asyncio.ensure_future(desk.start(config_of(desk), ANNE))
        await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        while desk.in_flight:
            await asyncio.sleep(0)
        assert {r.status for r in await desk.store.list_runs()} <= {"interrupted"}


async def test_cancelling_by_name_stops_the_engine_and_is_idempotent(path, models):
    async with desk_on(path, models, step=(gate := Gate())) as desk:
        run = await desk.start(config_of(desk), ANNE, background=True)
        await gate.reached.wait()
        first = await desk.cancel(run.id, ANNE)
        assert (first.status, models["scripted"].running) == ("interrupted", 0)
        assert await desk.cancel(run.id, ANNE) == first
        last = [e async for e in run.events()][-1]
        assert isinstance(last, RunFinished)
        assert last.answer.stopped == "cancelled"
        assert not await desk.adopt()  # nobody takes up what was cancelled


async def test_a_run_of_another_process_is_cancelled_through_the_store(path, models):
    async with desk_on(path, models, step=(gate := Gate())) as desk:
        run = await desk.start(config_of(desk), ANNE, background=True)
        await gate.reached.wait()
        await desk.store.request_cancel(run.id)  # what the other process does
        with pytest.raises(Cancelled):
            await run.result()
        assert models["scripted"].running == 0


async def test_a_cancelled_run_is_resumed_and_its_events_go_on(path, models):
    async with desk_on(path, models, step=(gate := Gate())) as desk:
        run = await desk.start(config_of(desk), ANNE)
        await gate.reached.wait()
        await desk.cancel(run.id, ANNE)
        before = [e async for e in (await desk.attach(run.id, ANNE)).events()]
        gate.open.set()
        resumed = await desk.resume(run.id, ANNE)
        assert isinstance(resumed, LiveRun)
        after = [e async for e in resumed.events(after=before[-1].number)]
        assert (await resumed.result()).answer == "42"
        numbers = [e.number for e in [*before, *after]]
        assert numbers == sorted(set(numbers))
        assert [e.number async for e in (await desk.attach(run.id, ANNE)).events()] == numbers
        with pytest.raises(RunConflict, match="finished"):
            await desk.resume(run.id, ANNE)


async def test_the_same_request_sent_again_gets_the_same_run(path, models):
    async with desk_on(path, models, step=(gate := Gate())) as desk:
        first = await desk.start(config_of(desk), ANNE, idempotency="k", digest="d")
        second = await desk.start(config_of(desk), ANNE, idempotency="k", digest="d")
        assert (second.id, first.replayed, second.replayed) == (first.id, False, True)
        async with second.held():
            pass  # whoever leaves it does not stop it
        async with first.held():
            pass  # nor the first, who may come again
        gate.open.set()
        assert await first.result() == await second.result()
        third = await desk.start(config_of(desk), ANNE, idempotency="k", digest="d")
        assert third.replayed
        assert await third.result() == await first.result()
        assert len(models["scripted"].generate_calls) == 1
        with pytest.raises(DuplicateRequest):
            await desk.start(config_of(desk), ANNE, idempotency="k", digest="another")
        other = await desk.start(config_of(desk), BEN, idempotency="k", digest="another")
        assert other.id != first.id  # each tenant has names of its own


async def test_a_request_that_failed_on_the_models_side_is_tried_again_where_it_was(path, models):
    async with desk_on(path, models) as desk:
        models["other"] = BackendUnavailable("away")
        config = config_of(desk, model="other")
        run = await desk.start(config, ANNE, idempotency="k", digest="d")
        with pytest.raises(BackendUnavailable):
            await run.result()
        models["other"] = ScriptedModel(replies("The answer is 7."), name="other")
        again = await desk.start(config, ANNE, idempotency="k", digest="d")
        assert again.id == run.id
        assert (await again.result()).answer == "7"


async def test_a_request_that_was_wrong_fails_the_same_way_again(path, models):
    async with desk_on(path, models) as desk:
        models["other"] = UserError("no such thing")
        config = config_of(desk, model="other")
        for _ in range(2):
            run = await desk.start(config, ANNE, idempotency="k", digest="d")
            with pytest.raises(UserError, match="no such thing"):
                await run.result()
            events = [e async for e in run.events()]
            assert [type(e) for e in events] == [RunFailed]
            assert events[0].code == "user_error"
        assert (await desk.record(run.id, ANNE)).status == "failed"


async def test_faults_of_ours_tell_callers_nothing(path, models):
    async with desk_on(path, models) as desk:
        models["other"] = ZeroDivisionError("secret detail")
        run = await desk.start(config_of(desk, model="other"), ANNE)
        with pytest.raises(Exception, match="inside the server") as caught:
            await run.result()
        assert caught.value.http_status == 500
        record = await desk.record(run.id, ANNE)
        assert "secret" not in str(record.error)


async def test_turns_are_waited_for_in_bounds(path, models):
    gate = Gate()
    async with desk_on(path, models, step=gate, max_runs=1, max_waiting=0, max_wait_s=0.05) as desk:
        first = await desk.start(config_of(desk), ANNE)
        await gate.reached.wait()
        with pytest.raises(ServerBusy):
            await desk.start(config_of(desk), ANNE)
        with pytest.raises(ServerBusy):
            await desk.start(config_of(desk), ANNE, idempotency="k", digest="d")
        assert [r.id for r in await desk.store.list_runs()] == [first.id]  # what was refused leaves nothing
        gate.open.set()
        await first.result()
        again = await desk.start(config_of(desk), ANNE, idempotency="k", digest="d")
        assert not again.replayed
        assert (await again.result()).answer == "42"


async def test_background_runs_wait_in_the_store_for_a_turn(path, models):
    gate = Gate()
    async with desk_on(path, models, step=gate, max_runs=1) as desk:
        first = await desk.start(config_of(desk), ANNE)
        await gate.reached.wait()
        second = await desk.start(config_of(desk), ANNE, background=True)
        assert (await desk.record(second.id, ANNE)).status == "queued"
        gate.open.set()
        assert (await second.result()).answer == "42"
        await first.result()


async def test_a_queued_run_that_is_cancelled_never_begins(path, models):
    gate = Gate()
    async with desk_on(path, models, step=gate, max_runs=1) as desk:
        first = await desk.start(config_of(desk), ANNE)
        await gate.reached.wait()
        second = await desk.start(config_of(desk), ANNE, background=True)
        assert (await desk.cancel(second.id, ANNE)).status == "interrupted"
        gate.open.set()
        await first.result()
        with pytest.raises(Cancelled):
            await second.result()
        assert len(models["scripted"].generate_calls) == 1


async def test_a_drain_lets_runs_end(path, models):
    gate = Gate()
    async with desk_on(path, models, step=gate) as desk:
        run = await desk.start(config_of(desk), ANNE)
        await gate.reached.wait()
        draining = asyncio.ensure_future(desk.drain(60))
        await asyncio.sleep(0)
        with pytest.raises(ShuttingDown):
            await desk.start(config_of(desk), ANNE)
        gate.open.set()
        await draining
        assert (await run.result()).answer == "42"


async def test_what_a_drain_stops_is_saved_and_background_runs_go_on_in_the_next_process(path, models):
    gate = Gate()
    async with desk_on(path, models, step=gate) as desk:
        waited = await desk.start(config_of(desk), ANNE)
        behind = await desk.start(config_of(desk), ANNE, background=True)
        await gate.reached.wait()
        await desk.drain(0)
        with pytest.raises(ShuttingDown) as caught:
            await waited.result()
        assert caught.value.partial.stopped == "cancelled"
        told = [e.type async for e in behind.events()]
        assert "run.finished" not in told  # it has not ended
        assert (await desk.record(waited.id, ANNE)).status == "interrupted"
        assert (await desk.record(behind.id, ANNE)).status == "queued"
    async with desk_on(path, models) as desk:
        run = await desk.attach(behind.id, ANNE)
        assert (await run.result()).answer == "42"
        numbers = [e.number async for e in run.events()]
        assert numbers == sorted(set(numbers))
        assert (await desk.record(waited.id, ANNE)).status == "interrupted"  # nobody waits for it


async def test_a_drain_leaves_queued_background_runs_to_the_next_process(path, models):
    gate = Gate()
    async with desk_on(path, models, step=gate, max_runs=1) as desk:
        await desk.start(config_of(desk), ANNE)
        await gate.reached.wait()
        waiting = await desk.start(config_of(desk), ANNE, background=True)
        await desk.drain(0)
        assert (await desk.record(waiting.id, ANNE)).status == "queued"
    async with desk_on(path, models) as desk:
        assert (await (await desk.attach(waiting.id, ANNE)).result()).answer == "42"


async def test_a_drain_that_is_hurried_stops_what_goes_on(path, models):
    gate = Gate()
    async with desk_on(path, models, step=gate) as desk:
        run = await desk.start(config_of(desk), ANNE)
        await gate.reached.wait()
        draining = asyncio.ensure_future(desk.drain(3600))
        await asyncio.sleep(0)
        desk.hurry()
        await draining
        with pytest.raises(ShuttingDown):
            await run.result()


async def test_of_two_processes_one_takes_a_run_and_the_other_follows_it(path, models):
    gate = Gate()
    async with desk_on(path, models, step=gate, max_runs=1) as first:
        await first.start(config_of(first), ANNE)
        await gate.reached.wait()
        queued = await first.start(config_of(first), ANNE, background=True)
        async with desk_on(path, models) as second:  # has a turn, and looks for work when it starts
            answer = await (await second.attach(queued.id, ANNE)).result()
            assert answer.answer == "42"
        gate.open.set()
        assert await queued.result() == answer  # the first one finds out that it went on elsewhere
        numbers = [e.number async for e in queued.events()]
        assert numbers == sorted(set(numbers))
        assert [e.answer async for e in queued.events() if isinstance(e, RunFinished)] == [answer]


async def test_a_model_that_fails_ends_the_run_and_frees_its_turn(path, models):
    async with desk_on(path, models, max_runs=1) as desk:

        async def broken(requests, listener=None):
            raise InvalidResponse("nonsense")

        models["scripted"].generate = broken
        for _ in range(3):
            run = await desk.start(config_of(desk), ANNE)
            with pytest.raises(InvalidResponse):
                await run.result()
        assert {r.status for r in await desk.store.list_runs()} == {"failed"}


async def test_what_a_killed_process_left_is_taken_up_and_followed_meanwhile(path, models):
    async with desk_on(path, models) as desk:
        run_id = await left_behind(path, desk)
        run = await desk.attach(run_id, ANNE)
        assert run.status == "interrupted"
        assert (await run.result()).answer == "42"  # waits until somebody has taken it up and ended it


async def test_what_a_killed_process_left_can_be_cancelled_before_it_is_taken_up(path, models):
    async with desk_on(path, models) as desk:
        desk.draining = True  # takes up nothing
        run_id = await left_behind(path, desk)
        assert (await desk.cancel(run_id, ANNE)).status == "interrupted"
        desk.draining = False
        assert not await desk.adopt()
        assert not models["scripted"].generate_calls


async def test_a_run_that_kills_whoever_takes_it_up_is_given_up_in_the_end(path, models, monkeypatch):
    monkeypatch.setattr("reason.sidecar.runs.MAX_STARTS", 2)
    async with desk_on(path, models, step=(gate := Gate())) as desk:
        run = await desk.start(config_of(desk), ANNE)
        for _ in range(2):
            await gate.reached.wait()
            gate.reached.clear()
            await desk.cancel(run.id, ANNE)
            run = await desk.resume(run.id, ANNE)
        with pytest.raises(BackendError, match="begun 2 times"):
            await run.result()
        assert (await desk.record(run.id, ANNE)).status == "failed"


async def test_an_ending_that_the_store_could_not_take_is_stored_later(path, models, monkeypatch):
    async with desk_on(path, models) as desk:
        broken = True
        end_run = desk.store.end_run

        async def full(*arguments, **options):
            if broken:
                raise StoreError("no space left")
            await end_run(*arguments, **options)

        monkeypatch.setattr(desk.store, "end_run", full)
        run = await desk.start(config_of(desk), ANNE)
        with pytest.raises(StoreError):
            await run.result()
        assert (await desk.record(run.id, ANNE)).status == "running"
        broken = False
        while (record := await desk.record(run.id, ANNE)).status == "running":
            await asyncio.sleep(0.02)
        assert (record.status, record.answer["answer"]) == ("finished", "42")
