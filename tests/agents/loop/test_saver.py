"""LangGraph's checkpoints in the run store: LangGraph's conformance tests, and what they leave out."""

from __future__ import annotations

import asyncio
import operator
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt
from reason.core.errors import StoreError
from reason.core.store.sqlite import SqliteStore
from reason.core.sync_bridge import SyncBridge
from reason.integrations.checkpoints import PAGE, RunStoreSaver

THREAD: Any = {"configurable": {"thread_id": "t"}}
PUT: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


@pytest.fixture
def saver(any_store: Any) -> RunStoreSaver:
    return RunStoreSaver(any_store)


async def test_langgraphs_conformance_tests_pass(stores: Any) -> None:
    conformance = pytest.importorskip(
        "langgraph.checkpoint.conformance", reason="langgraph-checkpoint-conformance is not installed"
    )

    @conformance.checkpointer_test(name="RunStoreSaver")
    async def ours() -> Any:
        store = await stores.open()
        yield RunStoreSaver(store)
        await store.aclose()

    report = await conformance.validate(ours)
    failed = {name: result.failures for name, result in report.results.items() if not result.passed}
    assert (failed, sum(result.tests_passed for result in report.results.values())) == ({}, 81)


def asking_graph(saver: RunStoreSaver) -> Any:
    def ask(_: State) -> State:
        return {"log": [interrupt("first?"), interrupt("second?")]}

    graph = StateGraph(State)
    graph.add_node("ask", ask)
    graph.add_node("after", lambda _: {"log": ["after"]})
    graph.add_edge(START, "ask")
    graph.add_edge("ask", "after")
    return graph.compile(checkpointer=saver)


async def test_two_interrupts_in_one_node_and_the_history_of_the_thread(saver: RunStoreSaver) -> None:
    graph = asking_graph(saver)
    paused = await graph.ainvoke({"log": []}, THREAD)
    assert [i.value for i in paused["__interrupt__"]] == ["first?"]
    assert [i.value for i in (await graph.aget_state(THREAD)).interrupts] == ["first?"]
    paused = await graph.ainvoke(Command(resume="a"), THREAD)
    assert [i.value for i in paused["__interrupt__"]] == ["second?"]
    assert (await graph.ainvoke(Command(resume="b"), THREAD))["log"] == ["a", "b", "after"]
    history = [(s.next, s.values.get("log")) async for s in graph.aget_state_history(THREAD)]
    assert history == [((), ["a", "b", "after"]), (("after",), ["a", "b"]), (("ask",), []), (("__start__",), [])]


async def test_a_fork_runs_from_an_older_checkpoint(saver: RunStoreSaver) -> None:
    graph = asking_graph(saver)
    for value in ({"log": []}, Command(resume="a"), Command(resume="b")):
        await graph.ainvoke(value, THREAD)
    states = [s async for s in graph.aget_state_history(THREAD)]
    older = next(s for s in states if s.next == ("after",))
    forked = await graph.aupdate_state(older.config, {"log": ["edited"]})
    assert (await graph.ainvoke(None, forked))["log"] == ["a", "b", "edited", "after"]
    assert len([s async for s in graph.aget_state_history(THREAD)]) > len(states)


async def test_the_state_of_a_subgraph_that_is_interrupted(saver: RunStoreSaver) -> None:
    inner = StateGraph(MessagesState)
    inner.add_node("say", lambda s: {"messages": [AIMessage(f"you said {s['messages'][-1].content}")]})
    inner.add_node("pause", lambda _: {"messages": [AIMessage(interrupt("ok?"))]})
    inner.add_edge(START, "say")
    inner.add_edge("say", "pause")
    outer = StateGraph(MessagesState)
    outer.add_node("sub", inner.compile())
    outer.add_edge(START, "sub")
    graph = outer.compile(checkpointer=saver)
    await graph.ainvoke({"messages": [HumanMessage("hi")]}, THREAD)
    state = await graph.aget_state(THREAD, subgraphs=True)
    assert [m.content for m in state.tasks[0].state.values["messages"]] == ["hi", "you said hi"]
    done = await graph.ainvoke(Command(resume="yes"), THREAD)
    assert [m.content for m in done["messages"]] == ["hi", "you said hi", "yes"]


@pytest.mark.parametrize("durability", ["sync", "async"])
async def test_the_writes_of_a_step_are_committed_before_the_checkpoint_that_follows(
    saver: RunStoreSaver, monkeypatch: pytest.MonkeyPatch, durability: Any
) -> None:
    missing: list[str] = []
    write = saver._store.commits.write

    def checked(operation: Any, run: str | None = None) -> Any:
        def execute(db: Any) -> Any:
            result = operation(db)
            rows = db.execute(
                "SELECT parent_checkpoint_id FROM checkpoints AS c WHERE parent_checkpoint_id IS NOT NULL "
                "AND NOT EXISTS (SELECT 1 FROM checkpoint_writes AS w WHERE w.checkpoint_id = c.parent_checkpoint_id)"
            )
            missing.extend(row[0] for row in rows)
            return result

        return write(execute, run)

    monkeypatch.setattr(saver._store.commits, "write", checked)
    graph = StateGraph(State)
    for i in range(5):
        graph.add_node(f"n{i}", lambda _, i=i: {"log": [str(i)]})
        graph.add_edge(f"n{i - 1}" if i else START, f"n{i}")
    done = await graph.compile(checkpointer=saver).ainvoke({"log": []}, THREAD, durability=durability)
    assert (done["log"], missing) == (list("01234"), [])


async def test_checkpoints_of_all_threads_are_listed_beyond_a_page(saver: RunStoreSaver) -> None:
    config = PUT
    for step in range(PAGE + 1):
        config = await saver.aput(config, {**empty_checkpoint(), "id": f"{step:03}"}, {"step": step}, {})
    await saver.acopy_thread("t", "copy")
    listed = [(c.config["configurable"]["thread_id"], c.metadata["step"]) async for c in saver.alist(None)]
    assert listed == [(thread, step) for step in reversed(range(PAGE + 1)) for thread in ("t", "copy")]
    odd = [c.metadata["step"] async for c in saver.alist(THREAD, filter={"step": 1}, before=config, limit=3)]
    assert odd == [1]


async def test_a_run_of_another_process_is_not_written(stores: Any) -> None:
    store, other = await stores.open(), await stores.open_other()
    await other.create_run("t", {})
    with pytest.raises(StoreError, match="was claimed by"):
        await asking_graph(RunStoreSaver(store)).ainvoke({"log": []}, THREAD)
    await other.end_run("t", "finished")
    with pytest.raises(StoreError, match="has no owner"):
        await RunStoreSaver(store).aput(PUT, empty_checkpoint(), {}, {})
    assert await RunStoreSaver(store).aget_tuple(THREAD) is None


async def test_a_cancelled_write_is_complete(saver: RunStoreSaver) -> None:
    writing = asyncio.ensure_future(saver.aput(PUT, {**empty_checkpoint(), "id": "1"}, {}, {}))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    kept = await saver.aget_tuple(THREAD)
    assert kept is not None
    assert kept.checkpoint["id"] == "1"


class Unknown:
    """A class that no serializer was told of."""


async def test_objects_are_never_pickled(saver: RunStoreSaver) -> None:
    with pytest.raises(TypeError, match="not msgpack serializable"):
        await saver.aput_writes({"configurable": {"thread_id": "t", "checkpoint_id": "1"}}, [("x", Unknown())], "task")


def test_a_synchronous_graph_also_inside_an_event_loop(tmp_path: Any) -> None:
    bridge = SyncBridge()
    store = bridge.call(lambda: SqliteStore.open(tmp_path / "runs.sqlite3"))
    graph = asking_graph(RunStoreSaver(store))
    for value in ({"log": []}, Command(resume="a"), Command(resume="b")):
        done = graph.invoke(value, THREAD)
    assert done["log"] == ["a", "b", "after"]

    async def inside_a_loop() -> int:
        return len(list(graph.get_state_history(THREAD)))

    assert asyncio.run(inside_a_loop()) == len(list(graph.get_state_history(THREAD))) == 4
    bridge.call(store.aclose)
    bridge.close()
