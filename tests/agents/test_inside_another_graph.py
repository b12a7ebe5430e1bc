"""A question asked in a node of somebody else's LangGraph graph: their graph and ours know nothing of each other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypedDict

import pytest
import reason.agents.reasoner as reasoner_module
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from reason.agents.reasoner import Reasoner
from reason.core.settings import Settings
from reason.core.types import Document
from support.scripted_model import ScriptedModel, replies

THREAD: Any = {"configurable": {"thread_id": "theirs"}}
NOTES = [Document(name="notes", text="Paris is the capital of France.")]


class Theirs(TypedDict, total=False):
    question: str
    answers: list[str | None]
    runs: list[str]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> ScriptedModel:
    model = ScriptedModel(replies("It is in France. The answer is Paris."))

    async def load_model(*_: object) -> ScriptedModel:
        return model

    monkeypatch.setattr(reasoner_module, "load_model", load_model)
    return model


@pytest.fixture(params=[(), ("davinci",)], ids=["brief", "with checkpoints"])
def reasoner(request: pytest.FixtureRequest, model: ScriptedModel, tmp_path: Any) -> Reasoner:
    settings = Settings(model="scripted", store=tmp_path / "runs.sqlite3", cache_dir=tmp_path / "cache", seed=5)
    lexical = {"davinci": {"judge": "lexical"}} if request.param else None
    return Reasoner(settings=settings, verify=request.param, verify_parameters=lexical)


def their_graph(node: Callable[[Theirs], Awaitable[Theirs]], saver: InMemorySaver) -> Any:
    graph = StateGraph(Theirs)
    graph.add_node("reason", node)
    graph.add_edge(START, "reason")
    graph.add_edge("reason", END)
    return graph.compile(checkpointer=saver)


async def test_an_outer_graph_gets_none_of_our_stages(reasoner: Reasoner) -> None:
    saver = InMemorySaver()

    async def two_at_once(state: Theirs) -> Theirs:
        found = await asyncio.gather(*(reasoner.aask(state["question"], documents=NOTES) for _ in range(2)))
        return {"answers": [a.answer for a in found], "runs": [a.run_id for a in found]}

    graph = their_graph(two_at_once, saver)
    async with reasoner:
        told = [part async for part in graph.astream({"question": "Where?"}, THREAD, subgraphs=True)]
        ((path, update),) = told
        assert (path, update["reason"]["answers"]) == ((), ["Paris", "Paris"])
        assert set(saver.storage) == {"theirs"}
        assert set(saver.storage["theirs"]) == {""}
        store = await reasoner.open_store()
        for run_id in update["reason"]["runs"]:
            kept = await store.commits.read(
                lambda db, run_id=run_id: db.execute("SELECT 1 FROM loop_states WHERE run_id = ?", (run_id,))
            )
            assert bool(kept) == bool(reasoner.settings.verify)  # ours are in our store


async def test_listeners_of_an_outer_graph_get_only_its_own_nodes(reasoner: Reasoner) -> None:
    async def once(state: Theirs) -> Theirs:
        answer = await reasoner.aask(state["question"], documents=NOTES)
        return {"answers": [answer.answer]}

    graph = their_graph(once, InMemorySaver())
    async with reasoner:
        heard = [event async for event in graph.astream_events({"question": "Where?"}, THREAD, version="v2")]
    assert {event["name"] for event in heard} == {"LangGraph", "reason"}


async def test_a_repeated_outer_node_asks_again(reasoner: Reasoner) -> None:
    asked: list[str] = []

    async def fails_once(state: Theirs) -> Theirs:
        answer = await reasoner.aask(state["question"], documents=NOTES)
        asked.append(answer.run_id)
        if len(asked) == 1:
            raise RuntimeError("power cut")
        return {"answers": [answer.answer], "runs": [answer.run_id]}

    graph = their_graph(fails_once, InMemorySaver())
    async with reasoner:
        with pytest.raises(RuntimeError, match="power cut"):
            await graph.ainvoke({"question": "Where?"}, THREAD)
        reached = await graph.ainvoke(None, THREAD)
        assert reached["runs"] == [asked[1]] != [asked[0]]
        store = await reasoner.open_store()
        for run_id in asked:
            assert (await store.get_run(run_id)).status == "finished"
            assert len(await store.list_calls(run_id)) > 0  # each was asked of the model
