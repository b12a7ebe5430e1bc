"""Turns of LangChain's `create_agent` by a strategy."""

from __future__ import annotations

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
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

    def bind_tools(self, tools, **_):
        return self

    def _generate(self, messages, stop=None, run_manager=None, **_):
        self.calls.append(messages[-1].type)
        if messages[-1].type == "tool":
            message = AIMessage(f"The answer is {messages[-1].content}.")
        else:
            query = ["a", "b", "b"][len(self.calls) - 1]
            message = AIMessage(
                "", tool_calls=[{"name": "search", "args": {"query": query}, "id": str(len(self.calls))}]
            )
        return ChatResult(generations=[ChatGeneration(message=message)])


async def test_a_turn_is_the_vote_of_its_samples(tmp_path):
    from reason.integrations.langchain import StrategyMiddleware

    model = Scripted(calls=[])
    settings = Settings(model="scripted", store=tmp_path / "runs.sqlite3", cache_dir=tmp_path / "cache", seed=5)
    async with Reasoner(settings=settings) as reasoner:
        agent = create_agent(model, [search], middleware=[StrategyMiddleware(reasoner, "self-consistency", n=3)])
        done = await agent.ainvoke({"messages": [("user", "What?")]})
        runs = await (await reasoner.open_store()).list_runs()
    assert [message.content for message in done["messages"]] == ["What?", "", "found b", "The answer is found b."]
    assert model.calls == ["human"] * 3 + ["tool"] * 3
    assert [run.status for run in runs] == ["finished"] * 2
