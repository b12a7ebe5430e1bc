"""LangChain's tools in our loop."""

from __future__ import annotations

from typing import Annotated

from langchain_core.tools import InjectedToolArg, ToolException, tool
from reason.agents.loop.tool import tool_of, tool_spec
from support.agent_model import call


@tool
def look(x: int, user: Annotated[str, InjectedToolArg] = "u") -> str:
    """Look something up.

    Args:
        x: Where.
    """
    if x < 0:
        raise ToolException("there is nothing")
    return f"{user} sees {x}"


async def test_a_tool_of_langchain_is_executed(agent):
    look.metadata, look.handle_tool_error = {"effect": "read"}, True
    ours = tool_of(look)
    assert (ours.name, ours.effect, tool_spec(look)) == ("look", "read", "object:look")
    assert ours.declaration.description.startswith("Look something up.")
    assert list(ours.declaration.parameters["properties"]) == ["x"]
    turns = [[call("look", x=1)], [call("look", x=-1)], [call("look", x="one")], "The answer is done."]
    async with agent(turns, tools=[look]) as reasoner:
        answer = await reasoner.aask("Where?")
    results = [message.content for message in answer.messages if message.role == "tool"]
    assert results[:2] == ["u sees 1", "there is nothing"]
    assert results[2].startswith("Error: invalid arguments")
