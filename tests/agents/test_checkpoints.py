"""Checkpoints in the run store read like LangGraph's own, and only those that save work are stored."""

import asyncio

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from reason.agents.graph import JsonSerializer, RunStoreSaver
from reason.core.errors import StoreError
from reason.core.store.sqlite import SqliteStore

CONFIG = {"configurable": {"thread_id": "r", "checkpoint_ns": "", "checkpoint_id": "0"}}


@pytest.fixture
async def store(tmp_path):
    store = await SqliteStore.open(tmp_path / "runs.sqlite3")
    await store.create_run("r", {})
    yield store
    await store.aclose()


def checkpoint(name, **values):
    return {**empty_checkpoint(), "id": name, "channel_values": values}


async def test_checkpoints_read_like_langgraphs_own(store):
    ours = RunStoreSaver(store)
    config = CONFIG
    for step, (name, solution) in enumerate((("1", {"x": "é\0"}), ("2", {"y": [1, None]}))):
        state = checkpoint(name, state={"node": "model", **solution})
        config = await ours.aput(config, state, {"source": "loop", "step": step, "parents": {}}, {})
    async with AsyncSqliteSaver.from_conn_string(str(store.path)) as theirs:
        theirs.serde = JsonSerializer()
        for named in (
            {"thread_id": "r", "checkpoint_ns": ""},
            {"thread_id": "r", "checkpoint_ns": "", "checkpoint_id": "1"},
        ):
            mine = await ours.aget_tuple({"configurable": named})
            assert mine is not None
            assert mine._replace(config=None) == (await theirs.aget_tuple({"configurable": named}))._replace(
                config=None
            )
    assert await ours.aget_tuple({"configurable": {"thread_id": "another"}}) is None


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ({"state": {}}, False),
        ({"state": {"node": "model"}}, True),
        ({"state": {"node": "verify", "solution": {}}}, True),
    ],
)
async def test_only_checkpoints_that_save_work_are_stored(store, values, kept):
    saver = RunStoreSaver(store)
    config = await saver.aput(CONFIG, checkpoint("1", **values), {}, {})
    assert config["configurable"]["checkpoint_id"] == "1"
    assert (await saver.aget_tuple({"configurable": {"thread_id": "r"}}) is not None) == kept


async def test_checkpoints_of_a_run_without_owner_are_refused(store):
    await store.end_run("r", "finished")
    with pytest.raises(StoreError, match="has no owner"):
        await RunStoreSaver(store).aput(CONFIG, checkpoint("1", state={"node": "model"}), {}, {})


async def test_a_cancelled_checkpoint_write_is_complete(store):
    writing = asyncio.ensure_future(RunStoreSaver(store).aput(CONFIG, checkpoint("1", state={"node": "model"}), {}, {}))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert (await store.get_checkpoint("r")).id == "1"
