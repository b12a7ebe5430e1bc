"""The body of `POST /v1/responses`: every field that OpenAI documents, and `reason`, our own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, JsonValue

from ...core.errors import UserError
from .chat_request import (
    CalledFunction,
    ChatMessage,
    ChatTool,
    ChatToolCall,
    ContentPart,
    Lenient,
    NamedFunction,
    NamedTool,
    ReasonOptions,
    ResponseFormat,
    SchemaFormat,
    Strict,
    ToolFunction,
)


class InputItem(Lenient):
    """An item of the conversation: a message, a function call, its output, or thoughts, which are not read again."""

    type: str = "message"
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | tuple[ContentPart, ...] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | tuple[ContentPart, ...] | None = None


class FunctionTool(Lenient):
    """A tool; of type `function`."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, JsonValue] | None = None
    strict: bool | None = None


class FunctionChoice(Lenient):
    """A tool choice that names a function."""

    type: str
    name: str | None = None


class TextFormat(Lenient):
    """What form the text has."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str = "answer"
    schema_: Annotated[dict[str, JsonValue], Field(alias="schema")] = Field(default_factory=dict)
    strict: bool | None = None


class TextOptions(Lenient):
    """How the text is written."""

    format: TextFormat = TextFormat()


class ResponsesRequest(Strict):
    """A request for a response. What becomes of each field is told in `fields.RESPONSES`."""

    model: Annotated[str, Field(min_length=1, max_length=500)]
    input: str | Annotated[tuple[InputItem, ...], Field(min_length=1, max_length=10_000)]
    reason: ReasonOptions = Field(default_factory=ReasonOptions)

    instructions: str | None = None
    previous_response_id: Annotated[str, Field(max_length=200)] | None = None
    stream: bool | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    text: TextOptions | None = None
    tools: tuple[FunctionTool, ...] | None = None
    tool_choice: Literal["auto", "none", "required"] | FunctionChoice | None = None
    parallel_tool_calls: bool | None = None
    user: str | None = None
    metadata: dict[str, JsonValue] | None = None
    safety_identifier: str | None = None

    store: bool | None = None
    include: JsonValue = None
    reasoning: JsonValue = None
    service_tier: str | None = None
    stream_options: JsonValue = None
    prompt_cache_key: str | None = None
    prompt_cache_options: JsonValue = None
    prompt_cache_retention: JsonValue = None

    access_programs: JsonValue = None
    background: JsonValue = None
    background_options: JsonValue = None
    context_management: JsonValue = None
    conversation: JsonValue = None
    image: JsonValue = None
    max_tool_calls: JsonValue = None
    moderation: JsonValue = None
    prompt: JsonValue = None
    top_logprobs: JsonValue = None
    truncation: JsonValue = None


def messages_of(given: str | Sequence[InputItem]) -> list[ChatMessage]:
    """The input as messages of a chat, calls with the turn of the assistant that made them.

    Raises:
        UserError: An item is of a type that cannot be read.
    """
    if isinstance(given, str):
        return [ChatMessage(role="user", content=given)]
    messages: list[ChatMessage] = []
    for i, item in enumerate(given):
        place = f"input.{i}"
        if item.type == "message" and item.role is not None:
            messages.append(ChatMessage(role=item.role, content=item.content))
        elif item.type == "function_call":
            _add_call(messages, item, place)
        elif item.type == "function_call_output":
            messages.append(ChatMessage(role="tool", content=item.output, tool_call_id=item.call_id))
        elif item.type != "reasoning":
            raise UserError(
                f"an item of type {item.type!r} cannot be read",
                hint="send messages with a role, function calls and their outputs",
                param=f"{place}.type",
            )
    return messages


def tools_of(given: Sequence[FunctionTool]) -> list[ChatTool]:
    """The tools as those of a chat."""
    return [
        ChatTool(
            type=tool.type,
            function=None
            if tool.name is None
            else ToolFunction(
                name=tool.name, description=tool.description, parameters=tool.parameters, strict=tool.strict
            ),
        )
        for tool in given
    ]


def choice_of(given: str | FunctionChoice | None) -> str | NamedTool | None:
    """The tool choice as that of a chat."""
    if not isinstance(given, FunctionChoice):
        return given
    return NamedTool(type=given.type, function=None if given.name is None else NamedFunction(name=given.name))


def form_of(text: TextOptions | None) -> ResponseFormat | None:
    """The form of the answer as that of a chat."""
    if text is None:
        return None
    wanted = text.format
    schema = SchemaFormat(name=wanted.name, schema=wanted.schema_, strict=wanted.strict)
    return ResponseFormat(type=wanted.type, json_schema=schema if wanted.type == "json_schema" else None)


def _add_call(messages: list[ChatMessage], item: InputItem, place: str) -> None:
    """Put a call to the assistant's turn before it, or into one of its own."""
    if not item.call_id or not item.name:
        raise UserError("a function call has a call_id and a name", param=place)
    call = ChatToolCall(id=item.call_id, function=CalledFunction(name=item.name, arguments=item.arguments or "{}"))
    last = messages[-1] if messages else None
    if last is not None and last.role == "assistant":
        messages[-1] = last.model_copy(update={"tool_calls": (*(last.tool_calls or ()), call)})
    else:
        messages.append(ChatMessage(role="assistant", tool_calls=(call,)))
