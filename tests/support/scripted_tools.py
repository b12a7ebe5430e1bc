"""A scripted model that takes tools, and writes its calls as Qwen's family does."""

from __future__ import annotations

import json

from reason.core.messages import Tool
from reason.serving.tool_calls import ToolCallAdapter, ToolSupport

from support.scripted_model import ScriptedModel

WEATHER = Tool(
    name="weather",
    description="Tells the weather.",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


def calling(name: str = "weather", **arguments: object) -> str:
    """A reply that calls a tool."""
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


class Shows:
    """A tokenizer whose template shows tools."""

    tool_support = ToolSupport(renders_tools=True, renders_calls=True, uses_tags=True)


class ToolModel(ScriptedModel, changed={"tools": True}):
    """A `ScriptedModel` whose calls are read."""

    async def generate(self, requests, listener=None):
        asked = ToolCallAdapter(requests, Shows(), self.name, holds=False)
        return asked.read(await super().generate(asked.requests, asked.hearing(listener)))
