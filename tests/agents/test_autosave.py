"""Events are written while a run goes on, whatever its stages do; and a run that was taken away stops."""

from __future__ import annotations

import asyncio

import pytest
from reason.agents.pipeline import autosave
from reason.core.errors import StoreError
from reason.core.events import StageStarted
from reason.core.run import Run, RunConfig
from reason.core.store.sqlite import SqliteStore
from reason.core.types import Question


@pytest.fixture
async def store(tmp_path):
    store = await SqliteStore.open(tmp_path / "runs.sqlite3")
    await store.create_run("r", {})
    yield store
    await store.aclose()


def run_of(store, **more):
    config = RunConfig(question=Question(text="?"), strategy="cot", parameters={}, models={"main": "m"}, seed=1)
    return Run("r", config, store, **more)


async def until_stored(store, count):
    while len(await store.list_events("r")) < count:
        await asyncio.sleep(0.005)


async def test_events_are_stored_while_the_work_runs(store):
    run = run_of(store)
    async with autosave(run, 0.01):
        for count in (1, 2, 3):
            run.emit(StageStarted(stage="solve"))
            await run.save_events()  # left to the pace
            await until_stored(store, count)
        run.emit(StageStarted(stage="verify"))
    assert [e.stage for e in run.drain_events()] in (["verify"], [])
    run.emit(StageStarted(stage="finish"))
    await run.save_events()  # nobody paces it any more
    assert (await store.list_events("r"))[-1].stage == "finish"


async def test_stages_do_not_save_events_while_autosave_does(store):
    run = run_of(store)
    async with autosave(run, 3600):
        run.emit(StageStarted(stage="solve"))
        before = store.transactions
        await run.save_events()
        assert store.transactions == before
    assert [e.stage for e in run.drain_events()] == ["solve"]


@pytest.mark.parametrize("error", [ValueError("own"), StoreError("own"), asyncio.CancelledError()])
async def test_errors_of_the_work_pass_through_unchanged(store, error):
    with pytest.raises(type(error)) as raised:
        async with autosave(run_of(store)):
            raise error
    assert raised.value is error


async def test_a_run_claimed_by_another_process_stops(store):
    run = run_of(store)
    await store.end_run("r", "finished")  # as one that was taken over and ended elsewhere
    with pytest.raises(StoreError, match="has no owner"):
        async with autosave(run, 0.01):
            run.emit(StageStarted(stage="solve"))
            await asyncio.Event().wait()
    assert len(run.drain_events()) == 1  # not lost: whoever can write them may


async def test_a_replay_saves_no_events(store):
    run = run_of(store, recording=False)
    async with autosave(run, 0.0):
        run.emit(StageStarted(stage="solve"))
        await asyncio.sleep(0.01)
    assert await store.list_events("r") == []


def test_a_resumed_run_reuses_no_event_numbers(store):
    first = run_of(store).emit(StageStarted(stage="solve"))
    assert first == 1
    assert run_of(store, has_started=True).emit(StageStarted(stage="solve")) > 100_000
    assert run_of(store, has_started=True).resumed
    assert not run_of(store).resumed


async def test_events_of_a_cancelled_write_are_written_again(store, monkeypatch):
    run, writing = run_of(store), asyncio.Event()
    run.emit(StageStarted(stage="solve"))

    async def away(run_id, events):
        writing.set()
        await asyncio.get_running_loop().create_future()

    with monkeypatch.context() as patch:
        patch.setattr(store, "add_events", away)
        task = asyncio.ensure_future(run.flush_events())
        await writing.wait()
        run.emit(StageStarted(stage="verify"))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await run.flush_events()
    assert [e.stage for e in await store.list_events("r")] == ["solve", "verify"]
