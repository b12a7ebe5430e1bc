"""Runs inside graphs of users: interrupts, another process, streams, subgraph state, forks."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command
from reason.agents.loop.state import NODES
from reason.agents.loop.tool import tool_of
from reason.core.errors import UserError
from reason.integrations.checkpoints import RunStoreSaver
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
        usage = run.answer["usage"]
        assert (run.status, usage["tool_calls"], usage["turns"]) == ("finished", 2, 3)
        assert (usage["model_calls"], usage["replayed_calls"]) == (3, 0)
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


async def test_the_nodes_of_the_loop_are_streamed_and_in_the_history(agent, tools):
    async with agent(TURNS, tools=tools) as reasoner:
        graph = outer(reasoner.graph(), RunStoreSaver(await reasoner.open_store()))
        steps = []
        async for path, update in graph.astream(HI, THREAD, stream_mode="updates", subgraphs=True):
            steps += [
                (name, [m.content for m in update[name]["messages"]]) for name in update if path and name in NODES
            ]
        assert steps == [
            ("model", [""]), ("approve", []), ("tools", ["look 1"]), ("model", [""]),
        ]  # fmt: skip
        inner = (await graph.aget_state(THREAD, subgraphs=True)).tasks[0].state
        assert [m.content for m in inner.values["messages"]] == ["hi", "please", "", "look 1", ""]
        place = {key: inner.config["configurable"][key] for key in ("thread_id", "checkpoint_ns")}
        assert [s.next async for s in graph.aget_state_history({"configurable": place})] == [
            ("approve",), ("model",), ("tools",), ("approve",), ("model",), ("__start__",),
        ]  # fmt: skip


async def test_an_earlier_turn_repeats_nothing_and_an_edited_one_is_a_new_run(agent, tools, effects):
    async with agent(TURNS, tools=tools) as reasoner:
        graph = reasoner.graph(approve="never").copy({"checkpointer": RunStoreSaver(await reasoner.open_store())})
        done = await graph.ainvoke(HI, THREAD)
        history = [state async for state in graph.aget_state_history(THREAD)]
        after_look = next(state for state in history if state.values["messages"][-1].content == "look 1")
        before_look = next(state for state in reversed(history) if state.next == ("approve",))
        store = await reasoner.open_store()
        num_calls = len(await store.list_calls(done["messages"][-1].response_metadata["run_id"]))
        again = await graph.ainvoke(None, after_look.config)
        assert again["messages"] == done["messages"]
        assert effects == ["look 1", "change 2"]
        assert [len(await store.list_calls(run.id)) for run in await store.list_runs()] == [num_calls]

        result = after_look.values["messages"][-1]
        edited = ToolMessage("other", tool_call_id=result.tool_call_id, name="look", id=result.id)
        fork = await graph.aupdate_state(after_look.config, {"messages": [edited]})
        done = await graph.ainvoke(None, fork)
        assert [m.content for m in done["messages"]] == ["hi", "", "other", "", "change 2", "The answer is done."]
        assert effects == ["look 1", "change 2", "change 2"]

        turn = before_look.values["messages"][-1]
        other = AIMessage("", tool_calls=[{"name": "look", "args": {"x": 5}, "id": "call_1"}], id=turn.id)
        fork = await graph.aupdate_state(before_look.config, {"messages": [other]})
        done = await graph.ainvoke(None, fork)
        assert [m.content for m in done["messages"]][2:] == ["look 5", "", "change 2", "The answer is done."]
        assert len(await store.list_runs()) == 3


async def test_the_budget_is_of_all_nodes_together(agent, tools, effects):
    turns = [[call("look", x=i)] for i in range(5)]
    async with agent(turns, tools=tools) as reasoner:
        done = await reasoner.graph(budget={"tool_calls": 2}).ainvoke(HI)
        assert done["messages"][-1].response_metadata["stopped"] == "budget"
        assert effects == ["look 0", "look 1"]


async def test_the_answer_now_ends_the_run_in_its_node(agent, tools):
    async with agent(TURNS, tools=tools) as reasoner:

        def look(x: int) -> str:
            assert reasoner.conclude(next(iter(reasoner._in_flight)))
            return "looked"

        done = await reasoner.graph(tools=[tool_of(look, effect="read")]).ainvoke(HI)
        assert done["messages"][-1].response_metadata["stopped"] == "user"


async def test_a_repaired_answer_is_the_message(agent):
    async with agent([], verify=["davinci"], verify_parameters={"davinci": {"judge": "lexical"}}) as reasoner:
        updates = [update async for update in reasoner.graph().astream(HI, stream_mode="updates")]
        assert [name for update in updates for name in update] == ["model", "verify"]
        (message,) = updates[1]["verify"]["messages"]
        assert (message.content, message.response_metadata["stopped"]) == ("concluded", "done")


async def test_a_runnable_without_a_thread(agent):
    async with agent(["The answer is done."]) as reasoner:
        done = await reasoner.graph().ainvoke(HI)
        assert [message.content for message in done["messages"]] == ["hi", "concluded"]
        for messages, fault in (([AIMessage("I")], "of the role 'assistant'"), ([], "there are no messages")):
            with pytest.raises(UserError, match=fault):
                await reasoner.graph().ainvoke({"messages": messages})
