"""The LangGraph example on the default model: events, state and cancellation of its graph."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from reason import Reasoner
from support.example_modules import wait_until_idle, wait_until_running

THREAD: Any = {"configurable": {"thread_id": "one"}}
pytestmark = pytest.mark.real


@pytest.mark.parametrize(("chains", "goes_to"), [(1, "reply"), pytest.param(4, None, marks=pytest.mark.nightly)])
async def test_graph_answers_a_question(example, chains, goes_to):
    question = {"question": "What is the capital of France? Answer with one word."}
    parameters = {"n": chains, "max_tokens": 32}
    async with Reasoner(strategy="self-consistency", parameters=parameters, seed=1) as reasoner:
        graph = example("langgraph_node").build(reasoner)
        payload = [part async for part in graph.astream(question, THREAD, stream_mode=["custom", "updates"])]
        received = [part for kind, part in payload if kind == "custom"]
        (reasoned, ended) = [part for kind, part in payload if kind == "updates"]
        ((_, results),), ((where, message),) = reasoned.items(), ended.items()
        assert sorted(part["chain"] for part in received) == list(range(chains))
        assert {part["run_id"] for part in received} == {results["run_id"]}
        agreeing = sum(part["answer"] == results["answer"] for part in received) / chains
        assert results["confidence"] >= agreeing  # equal answers need not be equal texts
        assert where == ("reply" if results["confidence"] >= 0.5 else "ask_a_person") == (goes_to or where)
        assert (results["answer"] if where == "reply" else results["run_id"]) in message["reply"]
        state = (await graph.aget_state(THREAD)).values
        assert state == {**question, **results, **message}
        assert [s.metadata["step"] async for s in graph.aget_state_history(THREAD)] == [2, 1, 0, -1]
        record = await (await reasoner.open_store()).get_run(results["run_id"], exact=True)
        assert record.status == "finished"


@pytest.mark.nightly
async def test_cancelling_the_graph_cancels_the_run_which_can_be_resumed(example, opened):
    question = {"question": "Why is the sky blue? Explain it at length."}
    async with Reasoner(parameters={"max_tokens": 100}, seed=1) as reasoner:
        graph = example("langgraph_node").build(reasoner)
        work = asyncio.create_task(graph.ainvoke(question, THREAD))
        await wait_until_running(opened)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        await wait_until_idle(opened)
        ((record),) = await (await reasoner.open_store()).list_runs()
        assert record.status == "interrupted"
        answer = await reasoner.aresume(record.id)
        assert answer.run_id == record.id
        assert answer.usage.completion_tokens == 100
        reached = await graph.ainvoke(None, THREAD)  # their graph goes on with the node that was cancelled
        assert reached["answer"] == answer.answer
        assert reached["run_id"] != record.id


@pytest.mark.nightly
async def test_it_runs_as_its_docstring_says(example, capsys):
    await example("langgraph_node").main()
    message = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in message] == ["custom"] * 4 + ["updates"] * 2
