"""A conversation in the form that chat templates take; and what a template makes of tools, seen by trying it.

Templates are programs that ignore what they do not know. So whether one shows tools, calls and what tools gave is seen
by what it makes of a small conversation that has them. Calls that a template would drop are written into the turn's
text as Hermes' and Qwen's families write them, and what a tool gave is told as a turn of the user.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...core.messages import Message
from ...core.tools import Tool, ToolCall, values_or_text
from ..tool_calls import CLOSE, OPEN

Render = Callable[[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]], str]
"""Gives the text of turns and tools; raises what the template does."""

_TOOL = Tool(name="zq7_lookup", description="Looks up.")
_GAVE = "zq8 was found"
_ASKED = Message(role="user", content="Hello.")
_TURNS = (
    _ASKED,
    Message(role="assistant", content="", tool_calls=(ToolCall(name=_TOOL.name, arguments="{}", id="callzq0001"),)),
    Message(role="tool", content=_GAVE, tool_call_id="callzq0001", name=_TOOL.name),
)


@dataclass(frozen=True, slots=True)
class ToolForms:
    """What a chat template makes of tools.

    Attributes:
        shows_tools: Whether it tells the model which tools there are.
        shows_calls: Whether it tells of calls in earlier turns, and of what the tools gave.
        tagged: Whether it tells the model to put its calls between `<tool_call>` and `</tool_call>`.
    """

    shows_tools: bool = False
    shows_calls: bool = False
    tagged: bool = False


def tool_forms(render: Render) -> ToolForms:
    """Try a template.

    Args:
        render: The template; whatever it raises means that it cannot.
    """
    shown = _tried(render, turns((_ASKED,), True), [_TOOL.as_openai()])
    told = _tried(render, turns(_TURNS, True), [])
    return ToolForms(
        shows_tools=_TOOL.name in shown,
        shows_calls=_TOOL.name in told and _GAVE in told,
        tagged=OPEN in shown,
    )


def turns(messages: Sequence[Message], shows_calls: bool) -> list[dict[str, Any]]:
    """A conversation as a template takes it.

    Args:
        messages: The conversation.
        shows_calls: Whether the template tells of calls and of what tools gave (`ToolForms`).
    """
    return [_turn(message) if shows_calls else _plain_turn(message) for message in messages]


def _turn(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        # templates write arguments as JSON themselves; those that are none are told as the text that they are
        turn["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": values_or_text(c)}}
            for c in message.tool_calls
        ]
    if message.tool_call_id:
        turn["tool_call_id"] = message.tool_call_id
    if message.name:
        turn["name"] = message.name
    return turn


def _plain_turn(message: Message) -> dict[str, Any]:
    if message.role == "tool":
        return {"role": "user", "content": f"<tool_response>\n{message.content}\n</tool_response>"}
    written = [
        json.dumps({"name": c.name, "arguments": values_or_text(c)}, ensure_ascii=False) for c in message.tool_calls
    ]
    parts = [*([message.content] if message.content else []), *(f"{OPEN}\n{call}\n{CLOSE}" for call in written)]
    return {"role": message.role, "content": "\n".join(parts)}


def _tried(render: Render, asked: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> str:
    try:
        return render(asked, tools)
    except Exception:  # noqa: BLE001 (a template may fail in any way on what it does not know)
        return ""
