"""Turns of LangChain's `create_agent` by a strategy."""

from __future__ import annotations

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from reason.agents.reasoner import Reasoner
from reason.core.settings import Settings

create_agent = pytest.importorskip("langchain.agents", reason="langchain is not installed").create_agent


@tool
def search(query: str) -> str:
    """Search."""
    return f"found {query}"


class Scripted(BaseChatModel):
    """Samples of the first turn, then an answer."""

    calls: list[str]

    @property
    def _llm_type(self):
        return "scripted"

    def bind_tools(self, tools, tool_choice=None, **_):
        return self.bind(tool_choice=tool_choice)

    def _generate(self, messages, stop=None, run_manager=None, tool_choice=None, **_):
        self.calls.append("none" if tool_choice == "none" else messages[-1].type)
        usage = {"input_tokens": 1, "output_tokens": 10, "total_tokens": 11}
        if tool_choice == "none":
            message = AIMessage("Concluded.")
        elif messages[-1].type == "tool":
            message = AIMessage(f"The answer is {messages[-1].content}.")
        else:
            query = ["a", "b", "b"][(len(self.calls) - 1) % 3]
            message = AIMessage(
                "", tool_calls=[{"name": "search", "args": {"query": query}, "id": str(len(self.calls))}]
            )
        message.usage_metadata = usage
        return ChatResult(generations=[ChatGeneration(message=message)])


@pytest.fixture
async def reasoner(tmp_path):
    settings = Settings(model="scripted", store=tmp_path / "runs.sqlite3", cache_dir=tmp_path / "cache", seed=5)
    async with Reasoner(settings=settings) as reasoner:
        yield reasoner


def agent_of(reasoner, model, **options):
    from reason.integrations.langchain import StrategyMiddleware

    return create_agent(model, [search], middleware=[StrategyMiddleware(reasoner, "self-consistency", n=3)], **options)


WHAT = {"messages": [("user", "What?")]}


async def test_a_turn_is_the_vote_of_its_samples_and_the_turns_are_one_run(reasoner):
    model = Scripted(calls=[])
    done = await agent_of(reasoner, model).ainvoke(WHAT)
    (run,) = await (await reasoner.open_store()).list_runs()
    assert [message.content for message in done["messages"]] == ["What?", "", "found b", "The answer is found b."]
    assert model.calls == ["human"] * 3 + ["tool"] * 3
    assert (run.status, run.tokens) == ("finished", 60)


async def test_a_repeated_turn_of_a_thread_is_the_stored_one(reasoner):
    model = Scripted(calls=[])
    agent = agent_of(reasoner, model, checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "t"}}
    done = await agent.ainvoke(WHAT, thread)
    turns = [state async for state in agent.aget_state_history(thread) if state.next == ("model",)]
    for before in turns:
        again = await agent.ainvoke(None, before.config)
        assert [m.content for m in again["messages"]] == [m.content for m in done["messages"]]
    assert (len(turns), len(model.calls)) == (2, 6)
    await agent.ainvoke(WHAT, {"configurable": {"thread_id": "other"}})
    assert len(model.calls) == 12
    edited = [*turns[0].values["messages"][:-1], ToolMessage("other", tool_call_id="2", name="search")]
    done = await agent.ainvoke({"messages": edited}, {"configurable": {"thread_id": "t"}})
    assert done["messages"][-1].content == "The answer is other."
    assert len(await (await reasoner.open_store()).list_runs()) == 3


async def test_the_budget_is_of_all_turns(reasoner):
    model = Scripted(calls=[])
    limited = await reasoner.variant(budget={"turns": 1})
    done = await agent_of(limited, model).ainvoke(WHAT)
    assert done["messages"][-1].content == "Therefore, the answer is Concluded."
    (run,) = await (await reasoner.open_store()).list_runs()
    assert (run.status, run.stopped) == ("finished", "budget")
    assert model.calls == ["human"] * 3 + ["none"]
