"""Stage states in the run store: they read like LangGraph's own, and only those that are worth it are kept."""

import asyncio
from typing import TypedDict

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, StateGraph
from reason.agents.checkpoints import JsonSerializer, RunStoreSaver
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


async def test_what_is_kept_reads_as_langgraph_itself_reads_it(store):
    ours = RunStoreSaver(store)
    config = CONFIG
    for step, (name, solution) in enumerate((("1", {"x": "é\0"}), ("2", {"y": [1, None]}))):
        state = checkpoint(name, question={}, solution=solution)
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


async def test_what_langgraph_itself_kept_is_read(store):
    state = checkpoint("1", solution={"x": 1})
    async with AsyncSqliteSaver.from_conn_string(str(store.path)) as theirs:
        theirs.serde = JsonSerializer()
        await theirs.aput(CONFIG, state, {"source": "loop", "step": 1, "parents": {}}, {})
    found = await RunStoreSaver(store).aget_tuple({"configurable": {"thread_id": "r"}})
    assert found.checkpoint == state
    assert found.metadata["step"] == 1


class State(TypedDict, total=False):
    question: str
    solution: str
    answer: str


@pytest.mark.parametrize("broken", ["solve", "finish"])
async def test_a_graph_that_langgraph_itself_kept_goes_on(store, broken):
    done = []

    def stage(name, field):
        async def work(state):
            done.append(name)
            if name == broken and done.count(name) == 1:
                raise ValueError("killed")
            return {field: f"{name} of {state['question']}"}

        return work

    graph = StateGraph(State)
    graph.add_node("solve", stage("solve", "solution"))
    graph.add_node("finish", stage("finish", "answer"))
    graph.add_edge(START, "solve")
    graph.add_edge("solve", "finish")
    thread = {"configurable": {"thread_id": "r"}}
    async with AsyncSqliteSaver.from_conn_string(str(store.path)) as theirs:
        theirs.serde = JsonSerializer()
        with pytest.raises(ValueError, match="killed"):
            await graph.compile(checkpointer=theirs).ainvoke({"question": "q"}, thread, durability="sync")
    reached = await graph.compile(checkpointer=RunStoreSaver(store)).ainvoke(None, thread, durability="sync")
    assert reached == {"question": "q", "solution": "solve of q", "answer": "finish of q"}
    assert done == (["solve", "solve", "finish"] if broken == "solve" else ["solve", "finish", "finish"])


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ({"question": {}}, False),
        ({"question": {}, "strategy": "cot"}, False),
        ({"solution": {}}, True),
        ({"solution": {}, "verification": None}, False),
        ({"solution": {}, "verification": {"verdict": "refuted"}}, True),
        ({"solution": {}, "verification": None, "repairs": 1}, True),
        ({"solution": {}, "verification": {}, "answer": {}}, False),
    ],
)
async def test_a_state_is_kept_where_it_saves_work(store, values, kept):
    saver = RunStoreSaver(store)
    config = await saver.aput(CONFIG, checkpoint("1", **values), {}, {})
    assert config["configurable"]["checkpoint_id"] == "1"
    assert (await saver.aget_tuple({"configurable": {"thread_id": "r"}}) is not None) == kept


async def test_a_state_of_a_run_that_is_not_ours_is_refused(store):
    await store.end_run("r", "finished")
    with pytest.raises(StoreError, match="has no owner"):
        await RunStoreSaver(store).aput(CONFIG, checkpoint("1", solution={}), {}, {})


async def test_a_cancelled_write_is_whole_all_the_same(store):
    writing = asyncio.ensure_future(RunStoreSaver(store).aput(CONFIG, checkpoint("1", solution={}), {}, {}))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert (await store.get_checkpoint("r")).id == "1"
