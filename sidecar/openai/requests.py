"""Request bodies of `/v1/chat/completions` and `/v1/responses`: every field that OpenAI documents, and `reason`."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Discriminator, Field, JsonValue, Tag, model_validator

from ...core.budget import Budget
from ...core.errors import UserError
from ...core.messages import Effort, Frozen, Thought
from ...core.registry import nearest
from ...core.run import ToolFilter, ToolRule
from ..errors import fault_detail
from ..native.schemas import ConversationId, ConversationIn, FewFaults, Metadata

Seed = Annotated[int, Field(ge=0, lt=2**63)]
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
"""OpenAI's efforts, and ours: "xhigh" is our "max"."""
Stop = Annotated[str, Field(min_length=1, max_length=1000)]
MAX_TOOLS = 1024
"""Maximum number of tools; OpenAI's API takes 128."""
User = Annotated[str, Field(max_length=512)]
SafetyIdentifier = Annotated[str, Field(max_length=64)]


class ReasonOptions(Frozen):
    """The `reason` object, an extension of OpenAI's API; OpenAI's clients send it in `extra_body`.

    Attributes:
        strategy: Strategy name, if the model name does not include it.
        parameters: Strategy parameters that override the server's settings.
        budget: Limits of the run, within the limits of the server.
        verify: Names of verifiers; an empty list disables verification, null uses the server's.
        verify_parameters: Verifier parameters, by verifier.
        effort: How much the model thinks before it answers; alias of `reasoning_effort` and `reasoning.effort`.
        thinking_tokens: Maximum number of tokens of each thought.
        seed: Alias of `seed`.
    """

    strategy: str | None = None
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    budget: Budget = Budget()
    verify: tuple[str, ...] | None = None
    verify_parameters: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)
    effort: Effort | None = None
    thinking_tokens: Annotated[int, Field(ge=1)] | None = None
    seed: Seed | None = None


class LenientModel(BaseModel):
    """A part of a conversation; unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


@dataclass(frozen=True)
class Refusal:
    """Why a field of the format is refused.

    Attributes:
        why: The reason.
        neutral: Values without effect, which clients send by default; they are accepted, and so is null.
        instead: The alternative.
        error: Class of the error.
    """

    why: str
    neutral: tuple[Any, ...] = ()
    instead: str = "leave it out"
    error: type[UserError] = UserError

    def accepts(self, value: Any) -> bool:
        """Whether a value has no effect."""
        # True == 1 and False == 0 in Python, but not in JSON
        return value is None or any(value == n and isinstance(value, bool) == isinstance(n, bool) for n in self.neutral)


class StrictModel(FewFaults):
    """A part of a request; unknown fields are rejected, and so are the `refused` ones unless they have no effect."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    refused: ClassVar[Mapping[str, Refusal]] = {}

    @model_validator(mode="before")
    @classmethod
    def _without_neutral(cls, value: Any) -> Any:
        if not cls.refused or not isinstance(value, dict):
            return value
        return {n: v for n, v in value.items() if n not in cls.refused or not cls.refused[n].accepts(v)}


class ImageAddress(LenientModel):
    """The address of an image; its content, as a data URL."""

    url: str = ""
    detail: str | None = None


class FileContent(LenientModel):
    """The content of a file in base64 or as a data URL, or its id."""

    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class ContentPart(LenientModel):
    """A content part: a text, an image or a file of the user; assistant messages may also have type `refusal`."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | ImageAddress | None = None
    detail: str | None = None
    file: FileContent | None = None
    file_data: str | None = None
    file_id: str | None = None
    file_url: str | None = None
    filename: str | None = None


class CalledFunction(LenientModel):
    """The function of a tool call, with its arguments as JSON text."""

    name: str
    arguments: str = "{}"


class ChatToolCall(LenientModel):
    """A tool call in an assistant message."""

    id: str
    type: str = "function"
    function: CalledFunction | None = None


class ChatMessage(LenientModel):
    """A message of the conversation.

    Thoughts of the assistant (`reasoning_content` or `reasoning`, and a provider's own `thinking_blocks`) are sent to
    models that require those of earlier turns, and to no others.
    """

    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: str | tuple[ContentPart, ...] | None = None
    name: Annotated[str, Field(max_length=256)] | None = None
    tool_calls: tuple[ChatToolCall, ...] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: JsonValue = None
    thinking_blocks: tuple[dict[str, JsonValue], ...] | None = None

    @property
    def thought(self) -> Thought | None:
        """The thought of an assistant message; None if it has none."""
        text = self.reasoning_content or (self.reasoning if isinstance(self.reasoning, str) else "")
        blocks = self.thinking_blocks or ()
        return Thought(text=text, blocks=blocks) if self.role == "assistant" and (text or blocks) else None


class ToolFunction(LenientModel):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: dict[str, JsonValue] | None = None
    strict: bool | None = None


class ChatTool(LenientModel):
    """A tool of type `function`."""

    type: str
    function: ToolFunction | None = None


class NamedFunction(LenientModel):
    """The function of a tool choice."""

    name: str


class NamedTool(LenientModel):
    """A tool choice that names a function."""

    type: str
    function: NamedFunction | None = None


class SchemaFormat(LenientModel):
    """A JSON Schema with a name."""

    name: str = "answer"
    description: str | None = None
    schema_: Annotated[dict[str, JsonValue], Field(alias="schema")] = Field(default_factory=dict)
    strict: bool | None = None


class ResponseFormat(LenientModel):
    """The format of `content`."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaFormat | None = None


class StreamOptions(StrictModel):
    """Options of a stream."""

    include_usage: bool = False
    include_obfuscation: bool | None = None


_TEXT_ONLY = Refusal("strategies read and write text")
_NO_PARAMETER = "no strategy has a parameter of that meaning"
_NOT_MODERATED = Refusal("the server does not moderate")

CHAT_REFUSED = {
    "n": Refusal("a request is one run", (1,), "send several requests, or use a strategy that samples"),
    "logprobs": Refusal("an answer takes many model calls", (False,)),
    "top_logprobs": Refusal("an answer takes many model calls", (0,)),
    "logit_bias": Refusal("an answer takes many model calls, and tokens differ from model to model", ({},)),
    "frequency_penalty": Refusal(_NO_PARAMETER, (0,)),
    "presence_penalty": Refusal(_NO_PARAMETER, (0,)),
    "audio": _TEXT_ONLY,
    "modalities": Refusal(_TEXT_ONLY.why, (["text"],)),
    "prediction": Refusal("predicted outputs are not used"),
    "functions": Refusal("the form that preceded tools", ([],), "use tools"),
    "function_call": Refusal("the form that preceded tools", ("none",), "use tool_choice"),
    "moderation": _NOT_MODERATED,
    "verbosity": Refusal(_NO_PARAMETER, ("medium",), "ask for it in the prompt"),
    "web_search_options": Refusal("there is no web search", (), "use a strategy with knowledge sources"),
}

RESPONSES_REFUSED = {
    "top_logprobs": CHAT_REFUSED["top_logprobs"],
    "truncation": Refusal("a conversation that does not fit is an error", ("disabled",)),
    "background_options": Refusal("a background response has no options"),
    "context_management": Refusal("conversations are not compacted"),
    "prompt": Refusal("prompts are not stored", (), "send the text as input"),
    "image": _TEXT_ONLY,
    "moderation": _NOT_MODERATED,
    "access_programs": Refusal("there are none"),
}


class ChatRequest(StrictModel):
    """Body of `POST /v1/chat/completions`; the fields from `store` on are ignored."""

    refused = CHAT_REFUSED

    model: Annotated[str, Field(min_length=1, max_length=500)]
    messages: Annotated[tuple[ChatMessage, ...], Field(min_length=1, max_length=10_000)]
    reason: ReasonOptions = Field(default_factory=ReasonOptions)  # pydantic would deep-copy a default

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: Stop | Annotated[tuple[Stop, ...], Field(max_length=16)] | None = None
    seed: Seed | None = None
    tools: Annotated[tuple[ChatTool, ...], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["auto", "none", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    user: User | None = None
    metadata: Metadata | None = None
    safety_identifier: SafetyIdentifier | None = None

    reasoning_effort: ReasoningEffort | None = None

    store: bool | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: JsonValue = None
    prompt_cache_retention: JsonValue = None

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        both = self.max_tokens, self.max_completion_tokens
        if None not in both and both[0] != both[1]:
            raise ValueError("max_tokens and max_completion_tokens are the same field: set only one")
        if None not in (self.seed, self.reason.seed) and self.seed != self.reason.seed:
            raise ValueError("seed and reason.seed are the same field: set only one")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options requires stream=true")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings as a tuple."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else self.stop


class SummaryPart(LenientModel):
    """A part of the text of thoughts."""

    text: str = ""


class InputItem(LenientModel):
    """An input item: a message, thoughts, a call of a function or of a tool of the server, an output, an approval."""

    type: str = "message"
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | tuple[ContentPart, ...] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | tuple[ContentPart, ...] | None = None
    id: str | None = None
    error: JsonValue = None
    approval_request_id: str | None = None
    approve: bool | None = None
    reason: str | None = None
    summary: tuple[SummaryPart, ...] = ()
    encrypted_content: str | None = None


class ApprovalFilter(Frozen):
    """The tools whose calls need an approval: those of `always`, and with `never` all others than those."""

    always: ToolFilter | None = None
    never: ToolFilter | None = None


class ServerTool(LenientModel):
    """A tool of type `mcp`: the tools of a server that the operator has configured."""

    type: Literal["mcp"]
    server_label: Annotated[str, Field(min_length=1, max_length=200)]
    server_url: Annotated[str, Field(max_length=2000)] | None = None
    allowed_tools: ToolFilter | Annotated[tuple[str, ...], Field(max_length=MAX_TOOLS)] | None = None
    require_approval: ApprovalFilter | Literal["always", "never"] | None = None
    authorization: JsonValue = None
    connector_id: JsonValue = None
    headers: JsonValue = None
    tunnel_id: JsonValue = None

    @property
    def rule(self) -> ToolRule:
        """What the request makes of the server's tools. As in OpenAI's API, every call needs an approval by default."""
        names = self.allowed_tools
        allow = ToolFilter(tool_names=names) if isinstance(names, tuple) else names or ToolFilter()
        asked = self.require_approval
        if isinstance(asked, ApprovalFilter) and (asked.always or asked.never):
            return ToolRule(allow=allow, ask=asked.always, skip=asked.never)
        return ToolRule(allow=allow, ask=None if asked == "never" else ToolFilter())


class FunctionTool(ToolFunction):
    """A tool of type `function`."""

    type: str
    name: str = ""


TYPE = "type="
"""Beginning of the part of a fault's location that is no field, but the type of a tool."""


def _type_of_tool(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return f"{TYPE}mcp" if kind == "mcp" else f"{TYPE}function"


AnyTool = Annotated[
    Annotated[ServerTool, Tag(f"{TYPE}mcp")] | Annotated[FunctionTool, Tag(f"{TYPE}function")],
    Discriminator(_type_of_tool),
]


class FunctionChoice(NamedFunction):
    """A tool choice that names a function."""

    type: str
    name: str = ""


class TextFormat(LenientModel):
    """The format of the text."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str = "answer"
    schema_: Annotated[dict[str, JsonValue], Field(alias="schema")] = Field(default_factory=dict)
    strict: bool | None = None


class TextOptions(LenientModel):
    """Options of the output text."""

    format: TextFormat = TextFormat()


class ReasoningOptions(LenientModel):
    """How much the model thinks; other fields ask for summaries, which are always returned."""

    effort: ReasoningEffort | None = None
    summary: JsonValue = None


class ResponsesRequest(StrictModel):
    """Body of `POST /v1/responses`."""

    refused = RESPONSES_REFUSED

    model: Annotated[str, Field(min_length=1, max_length=500)]
    input: str | Annotated[tuple[InputItem, ...], Field(min_length=1, max_length=10_000)]
    reason: ReasonOptions = Field(default_factory=ReasonOptions)

    instructions: str | None = None
    previous_response_id: Annotated[str, Field(max_length=200)] | None = None
    conversation: ConversationId | ConversationIn | None = None
    stream: bool | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    text: TextOptions | None = None
    tools: Annotated[tuple[AnyTool, ...], Field(max_length=MAX_TOOLS)] | None = None
    max_tool_calls: Annotated[int, Field(ge=1)] | None = None
    tool_choice: Literal["auto", "none", "required"] | FunctionChoice | None = None
    parallel_tool_calls: bool | None = None
    user: User | None = None
    metadata: Metadata | None = None
    safety_identifier: SafetyIdentifier | None = None

    reasoning: ReasoningOptions | None = None

    store: bool | None = None
    include: tuple[str, ...] | None = None
    service_tier: str | None = None
    stream_options: JsonValue = None
    prompt_cache_key: str | None = None
    prompt_cache_options: JsonValue = None
    prompt_cache_retention: JsonValue = None

    background: bool | None = None

    @model_validator(mode="after")
    def _one_history(self) -> Self:
        if self.previous_response_id is not None and self.conversation is not None:
            raise ValueError("previous_response_id and conversation are two histories: set only one")
        return self


def encrypted_thought(blocks: Sequence[Mapping[str, JsonValue]]) -> str:
    """A provider's signed blocks as `encrypted_content`, which clients return unchanged."""
    return base64.b64encode(json.dumps(blocks, separators=(",", ":")).encode()).decode()


def decrypted_thought(text: str) -> tuple[dict[str, JsonValue], ...] | None:
    """The blocks that `encrypted_thought` made a text of; None if it did not make it."""
    try:
        blocks = json.loads(base64.b64decode(text, validate=True))
    except ValueError:
        return None
    return tuple(blocks) if isinstance(blocks, list) and all(isinstance(block, dict) for block in blocks) else None


def _thought_of(item: InputItem, location: str) -> ChatMessage:
    """An assistant message with the thoughts of an item, which the following items of the turn complete."""
    text = "\n".join(part.text for part in item.summary)
    blocks = decrypted_thought(item.encrypted_content) if item.encrypted_content else None
    if item.encrypted_content and blocks is None:
        raise UserError(
            "encrypted_content is not that of a response of this server",
            hint="return reasoning items unchanged, or leave them out",
            param=f"{location}.encrypted_content",
        )
    return ChatMessage(role="assistant", reasoning_content=text or None, thinking_blocks=blocks)


_TAGGED = re.compile(r"<think>\n?(.*?)\n?</think>", re.DOTALL)
"""A message that is a thought: how pydantic-ai returns a reasoning item of a model that it does not know."""


def _with_thought(message: ChatMessage, thought: ChatMessage | None) -> ChatMessage:
    if thought is None or message.role != "assistant":
        return message
    changes = {"reasoning_content": thought.reasoning_content, "thinking_blocks": thought.thinking_blocks}
    return message.model_copy(update=changes)


def input_messages(value: str | Sequence[InputItem]) -> list[ChatMessage]:
    """Convert the input to chat messages. Thoughts and function calls are merged into an assistant message.

    Raises:
        UserError: An item has an unsupported type.
    """
    if isinstance(value, str):
        return [ChatMessage(role="user", content=value)]
    messages: list[tuple[ChatMessage, list[ChatToolCall]]] = []
    thought: ChatMessage | None = None
    for i, item in enumerate(value):
        location = f"input.{i}"
        if item.type == "reasoning":
            thought = _thought_of(item, location)
            continue
        if item.role == "assistant" and isinstance(item.content, str) and (tagged := _TAGGED.fullmatch(item.content)):
            thought = ChatMessage(role="assistant", reasoning_content=tagged[1])
            continue
        if item.type in ("mcp_list_tools", "mcp_approval_request", "mcp_approval_response"):
            continue  # the calls that were made follow
        if item.type == "message" and item.role is not None:
            messages.append((_with_thought(ChatMessage(role=item.role, content=item.content), thought), []))
        elif item.type in ("function_call", "mcp_call"):
            if thought is not None or not messages or messages[-1][0].role != "assistant":
                messages.append((_with_thought(ChatMessage(role="assistant"), thought), []))
            call = _call_of(item, location)
            messages[-1][1].append(call)
            if item.type == "mcp_call":
                output = item.output if item.error is None else json.dumps(item.error)
                messages.append((ChatMessage(role="tool", content=output, tool_call_id=call.id), []))
        elif item.type == "function_call_output":
            messages.append((ChatMessage(role="tool", content=item.output, tool_call_id=item.call_id), []))
        else:
            raise UserError(
                f"an item of type {item.type!r} is not supported",
                hint="send messages with a role, function calls and function call outputs",
                param=f"{location}.type",
            )
        thought = None
    return [
        message.model_copy(update={"tool_calls": tuple(calls)}) if calls else message for message, calls in messages
    ]


def input_format(text: TextOptions | None) -> ResponseFormat | None:
    """Convert the text format to the `response_format` of a chat request."""
    if text is None:
        return None
    requested = text.format
    schema = SchemaFormat(name=requested.name, schema=requested.schema_, strict=requested.strict)
    return ResponseFormat(type=requested.type, json_schema=schema if requested.type == "json_schema" else None)


def _call_of(item: InputItem, location: str) -> ChatToolCall:
    call_id = item.call_id if item.type == "function_call" else item.id
    if not call_id or not item.name:
        raise UserError("a call requires an id and a name", param=location)
    return ChatToolCall(id=call_id, function=CalledFunction(name=item.name, arguments=item.arguments or "{}"))


class StrictRoute(APIRoute):
    """A route that reports validation errors as `UserError` with the field, and suggests names for unknown fields."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        body = self.body_field.field_info.annotation if self.body_field else None

        async def strictly(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as e:
                raise _user_error(dict(e.errors()[0]), body) from e

        return strictly


def _user_error(fault: dict[str, Any], body: Any) -> UserError:
    """Convert a validation error to a `UserError` that names the field."""
    if fault["type"] == "json_invalid":
        return UserError("the body is not valid JSON", hint=str(fault.get("ctx", {}).get("error", "")))
    parts = (str(part) for part in fault["loc"] if part not in ("body", "header"))
    location = ".".join(part for part in parts if not part.startswith(TYPE))
    if fault["type"] == "extra_forbidden":
        refusal: Refusal | None = body.refused.get(location)
        if refusal is not None:
            return refusal.error(f"{location} is not supported: {refusal.why}", hint=refusal.instead, param=location)
        near = nearest(location, tuple(body.model_fields))
        meant = f"did you mean {near[0]!r}? " if near else ""
        hint = f"{meant}strategy parameters belong in reason.parameters"
        return UserError(f"unknown field {location!r}", hint=hint, param=location)
    detail = fault_detail(fault)
    return UserError(f"{location}: {detail}" if location else detail, param=location or None)
