"""Runs inside graphs of users: interrupts, another process, streams, subgraph state, forks."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command
from reason.agents.loop.saver import RunStoreSaver
from reason.agents.loop.tool import tool_of
from reason.core.errors import UserError
from support.agent_model import call

THREAD: Any = {"configurable": {"thread_id": "t"}}
HI = {"messages": [HumanMessage("hi", id="1")]}
TURNS = [[call("look", x=1)], [call("change", x=2)], "The answer is done."]


@pytest.fixture
def effects():
    return []


@pytest.fixture
def tools(effects):
    def look(x: int) -> str:
        effects.append(f"look {x}")
        return f"look {x}"

    def change(x: int) -> str:
        effects.append(f"change {x}")
        return f"change {x}"

    return [tool_of(look, effect="read"), tool_of(change, effect="write")]


def outer(inner, checkpointer):
    graph = StateGraph(MessagesState)
    graph.add_node("before", lambda _: {"messages": [HumanMessage("please", id="2")]})
    graph.add_node("agent", inner)
    graph.add_node("after", lambda _: {"messages": [AIMessage("after")]})
    graph.add_edge(START, "before")
    graph.add_edge("before", "agent")
    graph.add_edge("agent", "after")
    return graph.compile(checkpointer=checkpointer)


async def test_an_interrupt_is_resumed_by_another_process(agent, tools, effects):
    async with agent(TURNS, tools=tools) as reasoner:
        graph = outer(reasoner.graph(), RunStoreSaver(await reasoner.open_store()))
        paused = await graph.ainvoke(HI, THREAD)
        (request,) = paused["__interrupt__"][0].value["action_requests"]
        assert (request["name"], request["args"], request["description"]) == ("change", {"x": 2}, "")
        assert effects == ["look 1"]
        state = await graph.aget_state(THREAD, subgraphs=True)
        assert state.tasks[0].state.next == ("approve",)
    async with agent(TURNS, tools=tools) as reasoner:  # nothing is kept in memory
        graph = outer(reasoner.graph(), RunStoreSaver(await reasoner.open_store()))
        done = await graph.ainvoke(Command(resume={"decisions": [{"type": "approve"}]}), THREAD)
        texts = [message.content for message in done["messages"]]
        assert texts == ["hi", "please", "", "look 1", "", "change 2", "The answer is done.", "after"]
        run = await (await reasoner.open_store()).get_run(done["messages"][-2].response_metadata["run_id"])
        assert (run.status, run.answer["usage"]["tool_calls"]) == ("finished", 2)
    assert effects == ["look 1", "change 2"]


@pytest.mark.parametrize(
    ("decision", "result"),
    [
        ({"type": "reject", "message": "no"}, "Error: the call was rejected: no"),
        ({"type": "edit", "edited_action": {"name": "change", "args": {"x": 7}}}, "change 7"),
    ],
)
async def test_rejections_and_edits(agent, tools, decision, result):
    async with agent([[call("change", x=2)], "The answer is done."], tools=tools) as reasoner:
        graph = outer(reasoner.graph(), InMemorySaver())
        await graph.ainvoke(HI, THREAD)
        asked = await graph.ainvoke(Command(resume="yes"), THREAD)
        assert "was resumed without decisions" in asked["__interrupt__"][0].value["error"]
        done = await graph.ainvoke(Command(resume={"decisions": [decision]}), THREAD)
        assert done["messages"][-3].content == result


async def test_an_approval_is_for_one_turn(agent, tools, effects):
    turns = [[call("change", x=1)], [call("change", x=2)], "The answer is done."]
    async with agent(turns, tools=tools) as reasoner:
        graph = outer(reasoner.graph(), RunStoreSaver(await reasoner.open_store()))
        await graph.ainvoke(HI, THREAD)
        approval = Command(resume={"decisions": [{"type": "approve"}]})
        paused = await graph.ainvoke(approval, THREAD)
        assert paused["__interrupt__"][0].value["action_requests"][0]["args"] == {"x": 2}
        assert effects == ["change 1"]
        await graph.ainvoke(approval, THREAD)
        assert effects == ["change 1", "change 2"]


async def test_text_and_events_are_streamed(agent, tools):
    async with agent(TURNS, tools=tools) as reasoner:
        graph = outer(reasoner.graph(approve="never"), InMemorySaver())
        messages, events = [], []
        modes = ["messages", "custom", "updates", "values"]
        async for _, mode, part in graph.astream(HI, THREAD, stream_mode=modes, subgraphs=True):
            if mode == "messages":
                messages.append(part[0])
            elif mode == "custom":
                events.append(part["type"])
        assert [e for e in events if e.startswith("tool.") or e == "run.finished"] == [
            "tool.started", "tool.finished", "tool.started", "tool.finished", "run.finished",
        ]  # fmt: skip
        answers = [m for m in messages if "done" in m.content]
        assert "".join(m.content for m in answers) == "The answer is done."
        assert [m.content for m in messages if m.type == "tool"] == ["look 1", "change 2"]


async def test_an_older_checkpoint_repeats_no_effect_and_edited_messages_are_a_new_run(agent, tools, effects):
    async with agent(TURNS, tools=tools) as reasoner:
        graph = outer(reasoner.graph(approve="never"), RunStoreSaver(await reasoner.open_store()))
        await graph.ainvoke(HI, THREAD)
        older = [s async for s in graph.aget_state_history(THREAD) if s.next == ("agent",)][0]
        done = await graph.ainvoke(None, older.config)
        assert done["messages"][-2].content == "The answer is done."
        assert effects == ["look 1", "change 2"]
        fork = await graph.aupdate_state(older.config, {"messages": [HumanMessage("other", id="2")]}, as_node="before")
        await graph.ainvoke(None, fork)
        assert effects == ["look 1", "change 2"] * 2


async def test_a_runnable_without_a_thread(agent):
    async with agent(["The answer is done."]) as reasoner:
        done = await reasoner.graph().ainvoke(HI)
        assert [message.content for message in done["messages"]] == ["hi", "concluded"]
        for messages, fault in (([AIMessage("I")], "of the role 'assistant'"), ([], "there are no messages")):
            with pytest.raises(UserError, match=fault):
                await reasoner.graph().ainvoke({"messages": messages})
