"""Tools that a model may call, and its calls: `Tool`, `ToolCall`, `ToolChoice`, in the shapes of OpenAI's interface.

A tool is never run here: a call is handed to the caller, who answers it with a turn of the role "tool".
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from pydantic import Field, JsonValue, StringConstraints

from .frozen import Frozen

FREE, NEVER, ALWAYS = "auto", "none", "required"
"""Choices that name no tool: the model decides, it calls none, it calls one of them at least."""

ToolName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_.:-]{1,128}$")]
"""Letters, digits, and the marks that servers of tools put into names."""

ToolChoice = Annotated[str, StringConstraints(min_length=1, max_length=128)]
"""`auto`, `none`, `required`, or the name of the tool that is to be called."""


class Tool(Frozen):
    """A function that a model may ask to be called.

    Attributes:
        name: Its name.
        description: What it does and when to use it, for the model.
        parameters: JSON Schema of its arguments, an object; empty takes none.
        strict: Whether the arguments must follow the schema, where a provider offers that; None leaves it to the
            provider.
    """

    name: ToolName
    description: str = ""
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    strict: bool | None = Field(default=None, exclude_if=lambda value: value is None)

    def as_openai(self) -> dict[str, Any]:
        """The tool in OpenAI's form, which chat templates take too."""
        function: dict[str, Any] = {"name": self.name, "description": self.description}
        function["parameters"] = self.parameters or {"type": "object", "properties": {}}
        if self.strict is not None:
            function["strict"] = self.strict
        return {"type": "function", "function": function}


class ToolCall(Frozen):
    """A model's wish that a tool be called.

    Attributes:
        name: The tool. Nothing says that there is one of that name: models invent some.
        arguments: Its arguments as the model wrote them: JSON of an object, unless the model wrote something else.
        id: Name of the call, to which the tool's turn answers.
    """

    name: str
    arguments: str = "{}"
    id: str = ""

    @property
    def values(self) -> dict[str, JsonValue] | None:
        """The arguments; None if what the model wrote is no JSON object (see `read_json`)."""
        try:
            read = read_json(self.arguments)
        except ValueError:
            return None
        return read if isinstance(read, dict) else None

    def as_openai(self) -> dict[str, Any]:
        """The call in OpenAI's form."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


def read_json(text: str) -> JsonValue:
    """What a text of a model's says as JSON.

    Raises:
        ValueError: It is no JSON, nested too deep, or says what cannot be written down again: a number that no float
            holds, or half a surrogate pair.
    """
    try:
        read: JsonValue = json.loads(text, parse_constant=_no_number, parse_float=_finite)
        if "\\u" in text:
            json.dumps(read, ensure_ascii=False).encode()
    except RecursionError as e:
        raise ValueError("it is nested too deep") from e
    return read


def canonical(calls: Iterable[ToolCall]) -> str:
    """Calls as one text: equal texts are equal calls, in the same order. Ids are left out, and so is spacing.

    Arguments that are no JSON object stay the text that they are.
    """
    told = [{"name": call.name, "arguments": values_or_text(call)} for call in calls]
    return json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def is_canonical(text: str) -> bool:
    """Whether a text is one that `canonical` makes of one call or more."""
    if not text.startswith('[{"arguments":'):
        return False
    try:
        read = read_json(text)
    except ValueError:
        return False
    return (
        isinstance(read, list)
        and all(isinstance(c, dict) and set(c) == {"name", "arguments"} and isinstance(c["name"], str) for c in read)
        and json.dumps(read, sort_keys=True, separators=(",", ":"), ensure_ascii=False) == text
    )


def check_choice(tools: Sequence[Tool], choice: str) -> None:
    """See that tools have names of their own and that the choice is one of them or a word.

    Raises:
        ValueError: They have not, or it is not.
    """
    names = [tool.name for tool in tools]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two tools are called {twice!r}")
    word = next((name for name in names if name in (FREE, NEVER, ALWAYS)), None)
    if word is not None:
        raise ValueError(f"no tool may be called {word!r}: that is a choice")
    if choice in (FREE, NEVER):
        return
    if not tools:
        raise ValueError(f"tool_choice is {choice!r} and there are no tools")
    if choice != ALWAYS and choice not in names:
        raise ValueError(f"tool_choice names {choice!r}, and there is no such tool: {', '.join(names)}")


def values_or_text(call: ToolCall) -> JsonValue:
    """A call's arguments; the text that they are where that is no JSON object."""
    values = call.values
    return call.arguments if values is None else values


def _no_number(name: str) -> JsonValue:
    """NaN and infinities are no JSON, whatever Python reads."""
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"no float holds {text[:24]}")
    return value
