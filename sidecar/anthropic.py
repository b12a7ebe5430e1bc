"""Anthropic's Messages API, answered by reasoning strategies; the runs are those of `sidecar/openai`.

Request bodies of `/v1/messages`, their conversion to the chat messages and runs of OpenAI's interface, the routes, the
message and the stream events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, Self

from fastapi import APIRouter, Body, Depends, Request, Response
from fastapi.openapi.models import Example
from pydantic import Field, JsonValue, model_validator

from ..agents.reasoner import Reasoner
from ..core.errors import UserError
from ..core.messages import Tool, ToolCall
from ..core.types import Question
from ..reasoning.prompts import question_prompt
from ..reasoning.strategy import STRATEGIES
from .auth import Caller, authorised
from .errors import error_body, log_hidden_error
from .native.schemas import ErrorObject, ResponseBody
from .openai.models import resolve_model, strategy_of
from .openai.outcome import EndedRun, Outcome, RequestRunner, chat_usage, reason_report
from .openai.requests import (
    MAX_TOOLS,
    CalledFunction,
    ChatMessage,
    ChatToolCall,
    ContentPart,
    FileContent,
    ImageAddress,
    LenientModel,
    ReasoningEffort,
    ReasonOptions,
    Refusal,
    ResponseFormat,
    SchemaFormat,
    Stop,
    StrictModel,
    StrictRoute,
    ToolFunction,
    User,
    decrypted_thought,
    encrypted_thought,
)
from .openai.run_config import RunRequest, check_format, effort_of, plan_run, question_of, targets, tool_of
from .openai.streaming import Kind, Piece, stop_at
from .run_start import ERROR_RESPONSES, IdempotencyKey
from .sse import STREAMED, ServerSentEvents, encode_json, json_response, named_event, while_connected

MIN_THINKING_TOKENS = 1024
"""Minimum of `thinking.budget_tokens`, as in Anthropic's API."""
SIGNED = "reason:"
"""Prefix of the signatures of this server; others are a provider's."""
EFFORT_BUDGETS: dict[ReasoningEffort, int] = {"low": 4096, "medium": 8192}
"""Maximum of `thinking.budget_tokens` for an effort; a larger one is "high"."""


class Source(LenientModel):
    """The source of an image or a document."""

    type: str = ""
    media_type: str | None = None
    data: str | None = None
    url: str | None = None


class ContentBlock(LenientModel):
    """A content block. Which fields it has depends on its type; `cache_control` and citations are ignored."""

    type: str
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, JsonValue] | None = None
    tool_use_id: str | None = None
    content: str | tuple[ContentBlock, ...] | None = None
    source: Source | None = None
    title: str | None = None
    is_error: bool | None = None


class InputMessage(LenientModel):
    """A message of the conversation."""

    role: Literal["user", "assistant", "system"]
    content: str | tuple[ContentBlock, ...]


class MessageTool(LenientModel):
    """A tool of the client; Anthropic's own tools have other types."""

    type: str | None = None
    name: str = ""
    description: str | None = None
    input_schema: dict[str, JsonValue] | None = None
    strict: bool | None = None


class ToolChoice(LenientModel):
    """A tool choice."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False

    @model_validator(mode="after")
    def _names_its_tool(self) -> Self:
        if (self.type == "tool") != (self.name is not None):
            raise ValueError('a name is required for type "tool", and for no other')
        return self

    @property
    def chosen(self) -> str:
        """The tool, or the choice as OpenAI's API names it."""
        return self.name or {"any": "required"}.get(self.type, self.type)


class Thinking(StrictModel):
    """How much the model thinks first, and whether the response has the thoughts."""

    type: Literal["enabled", "adaptive", "disabled"]
    budget_tokens: Annotated[int, Field(ge=MIN_THINKING_TOKENS)] | None = None
    display: Literal["summarized", "omitted"] | None = None

    @model_validator(mode="after")
    def _has_a_budget(self) -> Self:
        if (self.type == "enabled") != (self.budget_tokens is not None):
            raise ValueError('budget_tokens is required for type "enabled", and for no other')
        return self


class JsonOutput(LenientModel):
    """A JSON Schema of the answer."""

    type: Literal["json_schema"]
    schema_: Annotated[dict[str, JsonValue], Field(alias="schema")]


class OutputConfig(StrictModel):
    """Effort and format of the answer."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: JsonOutput | None = None


class RequestMetadata(StrictModel):
    """Metadata of a request."""

    user_id: User | None = None


_CLIENT_TOOLS = Refusal("tools are called by the client")
BILLING_HEADER = "x-anthropic-billing-header:"
"""Beginning of a block that Claude Code puts before the system prompt, with a hash that changes with each request, so
that no two requests had a common prefix or were of one run (anthropics/claude-code#68900)."""

ERROR = "Error: "
"""Beginning of the result of a tool that failed."""
REMINDER = "<system-reminder>"
"""Beginning of a text that Claude Code adds to tool results: a part of the last one, and no message of the user."""


class ThreadUnsupported(UserError):
    """The code makes the tool runner of Anthropic's SDK send the conversation instead."""

    code = "thread_unsupported_request"


class MessagesInput(StrictModel):
    """Body of `POST /v1/messages/count_tokens`, and the part of `POST /v1/messages` that the model reads.

    `cache_control` and `context_management` are ignored.
    """

    refused: ClassVar[Mapping[str, Refusal]] = {
        "container": _CLIENT_TOOLS,
        "diagnostics": Refusal("the server does not compare prompts"),
        "inference_geo": Refusal("the server has no regions"),
        "mcp_servers": Refusal(_CLIENT_TOOLS.why, ([],), "send their tools as tools"),
        "speed": Refusal("there is one speed", ("standard",)),
        "thread": Refusal("conversations are not stored", (), "send the conversation as messages", ThreadUnsupported),
    }

    model: Annotated[str, Field(min_length=1, max_length=500)]
    messages: Annotated[tuple[InputMessage, ...], Field(min_length=1, max_length=10_000)]
    system: str | tuple[ContentBlock, ...] | None = None
    tools: Annotated[tuple[MessageTool, ...], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    reason: ReasonOptions = Field(default_factory=ReasonOptions)

    cache_control: JsonValue = None
    context_management: JsonValue = None


class MessagesRequest(MessagesInput):
    """Body of `POST /v1/messages`; `service_tier` is ignored."""

    max_tokens: Annotated[int, Field(ge=1)]
    stream: bool | None = None
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    stop_sequences: Annotated[tuple[Stop, ...], Field(max_length=16)] | None = None
    metadata: RequestMetadata | None = None

    service_tier: str | None = None


def signature_of(blocks: Sequence[dict[str, JsonValue]]) -> str:
    """The signature of a thinking block: the provider's form of the thought, perhaps none, as an opaque text."""
    return SIGNED + encrypted_thought(blocks)


def chat_messages(body: MessagesInput) -> tuple[list[ChatMessage], list[str]]:
    """The conversation as chat messages, and the location of each of them in the request.

    Adjacent messages of one role are one turn. A turn of the user is its tool results, then its text, unless that is
    only Claude Code's reminders.

    Raises:
        UserError: A block is not supported, or incomplete; names it.
    """
    converted: list[tuple[ChatMessage, str]] = []
    system = (ContentBlock(type="text", text=body.system),) if isinstance(body.system, str) else body.system or ()
    prompt = [(f"system.{i}", b) for i, b in enumerate(system) if not (b.text or "").startswith(BILLING_HEADER)]
    if body.system and prompt:
        converted += [(made, "system") for made in _system(prompt)]
    turns: list[tuple[str, str, list[tuple[str, ContentBlock]]]] = []
    for i, message in enumerate(body.messages):
        location = f"messages.{i}"
        content = message.content
        blocks = (ContentBlock(type="text", text=content),) if isinstance(content, str) else content
        located = [(f"{location}.content.{j}", block) for j, block in enumerate(blocks)]
        if turns and turns[-1][0] == message.role:
            turns[-1][2].extend(located)
        else:
            turns.append((message.role, location, located))
    for role, location, parts in turns:
        convert = {"assistant": _assistant, "system": _system, "user": _user}[role]
        converted += [(made, location) for made in convert(parts)]
    return [message for message, _ in converted], [location for _, location in converted]


def _system(blocks: Sequence[tuple[str, ContentBlock]]) -> list[ChatMessage]:
    text = "\n".join(_text_of(block, at, "a system message") for at, block in blocks)
    return [ChatMessage(role="system", content=text)]


def _user(blocks: Sequence[tuple[str, ContentBlock]]) -> list[ChatMessage]:
    results = [(at, block) for at, block in blocks if block.type == "tool_result"]
    rest = [(at, block) for at, block in blocks if block.type != "tool_result"]
    if results and rest and all((block.text or "").lstrip().startswith(REMINDER) for _, block in rest):
        at, last = results[-1]
        content = (
            last.content if isinstance(last.content, tuple) else (ContentBlock(type="text", text=last.content or ""),)
        )
        results[-1] = at, last.model_copy(update={"content": (*content, *(block for _, block in rest))})
        rest = []
    made = [
        ChatMessage(role="tool", content=_result(block, at), tool_call_id=block.tool_use_id) for at, block in results
    ]
    if rest or not results:
        made.append(ChatMessage(role="user", content=tuple(_part(block, at) for at, block in rest)))
    return made


def _part(block: ContentBlock, location: str, owner: str = "a message of the user") -> ContentPart:
    """A block of a user's message or of a tool result as a content part; images and documents as data URLs."""
    source = block.source
    if source is not None and source.type == "text":
        return ContentPart(type="text", text=source.data)
    if source is not None and source.type in ("base64", "url"):
        address = source.url or f"data:{source.media_type};base64,{source.data}"
        if block.type == "image":
            return ContentPart(type="image_url", image_url=ImageAddress(url=address))
        if block.type == "document" and source.type == "base64":
            return ContentPart(type="file", file=FileContent(file_data=address, filename=block.title))
    return ContentPart(type="text", text=_text_of(block, location, owner))


def _assistant(blocks: Sequence[tuple[str, ContentBlock]]) -> list[ChatMessage]:
    texts: list[str] = []
    thoughts: list[str] = []
    signed: list[dict[str, JsonValue]] = []
    calls: list[ChatToolCall] = []
    for at, block in blocks:
        match block.type:
            case "thinking":
                thoughts.append(block.thinking or "")
                signed += _signed_blocks(block, at)
            case "redacted_thinking":
                signed.append({"type": block.type, "data": block.data or ""})
            case "tool_use":
                if not block.id or not block.name:
                    raise UserError("a tool_use block requires an id and a name", param=at)
                arguments = encode_json(block.input or {}).decode()
                calls.append(ChatToolCall(id=block.id, function=CalledFunction(name=block.name, arguments=arguments)))
            case _:
                texts.append(_text_of(block, at, "a message of the assistant"))
    return [
        ChatMessage(
            role="assistant",
            content="\n".join(texts),
            tool_calls=tuple(calls) or None,
            reasoning_content="\n".join(t for t in thoughts if t) or None,
            thinking_blocks=tuple(signed) or None,
        )
    ]


def _signed_blocks(block: ContentBlock, location: str) -> list[dict[str, JsonValue]]:
    """The provider's form of a thinking block: what our signature has, or the block itself if a provider signed it."""
    signature = block.signature or ""
    if not signature:
        return []
    if not signature.startswith(SIGNED):
        return [{"type": "thinking", "thinking": block.thinking or "", "signature": signature}]
    blocks = decrypted_thought(signature.removeprefix(SIGNED))
    if blocks is None:
        raise UserError(
            "the signature is not that of a response of this server",
            hint="return thinking blocks unchanged, or leave them out",
            param=f"{location}.signature",
        )
    return list(blocks)


def _result(block: ContentBlock, location: str) -> str | tuple[ContentPart, ...]:
    content = block.content or ""
    if isinstance(content, str):
        # a message of another format has no flag
        return f"{ERROR}{content}" if block.is_error and not content.startswith(ERROR) else content
    return tuple(_part(one, f"{location}.content.{i}", "a tool_result") for i, one in enumerate(content))


def _text_of(block: ContentBlock, location: str, owner: str) -> str:
    """The text of a block."""
    if block.type != "text" or block.text is None:
        source = "" if block.source is None else f" with a source of type {block.source.type!r}"
        what = f"a block of type {block.type!r}{source}" if block.type != "text" else "a text block without text"
        raise UserError(f"{what} is not supported in {owner}", hint="send blocks of type text", param=location)
    return block.text


def _tool(tool: MessageTool, location: str) -> Tool:
    if tool.type not in (None, "custom"):
        raise UserError(
            f"a tool of type {tool.type!r} is not supported: tools are called by the client",
            hint="describe a tool of your own, with name, description and input_schema",
            param=f"{location}.type",
        )
    function = ToolFunction(
        name=tool.name, description=tool.description, parameters=tool.input_schema, strict=tool.strict
    )
    return tool_of("function", function, location)


def question_of_messages(body: MessagesInput, metadata: dict[str, JsonValue] | None = None) -> Question:
    """The question of a request (see `question_of`).

    Raises:
        UserError: The conversation or a tool is invalid; names the field.
    """
    chat, locations = chat_messages(body)
    try:
        return question_of(
            chat,
            tools=[_tool(tool, f"tools.{i}") for i, tool in enumerate(body.tools or ())],
            tool_choice=None if body.tool_choice is None else body.tool_choice.chosen,
            metadata=metadata,
        )
    except UserError as e:
        head, _, _ = (e.param or "").removeprefix("messages.").partition(".")
        if e.param is not None and e.param.startswith("messages.") and head.isdigit():
            e.param = locations[int(head)]
        elif e.param is not None and e.param.startswith("tools."):
            e.param = e.param.replace(".parameters", ".input_schema")
        raise


def response_format(body: MessagesInput) -> ResponseFormat | None:
    """The format of the answer as that of a chat request."""
    form = None if body.output_config is None else body.output_config.format
    return None if form is None else ResponseFormat(type=form.type, json_schema=SchemaFormat(schema=form.schema_))


def messages_run_request(body: MessagesRequest, reasoner: Reasoner, tenant: str) -> RunRequest:
    """Convert a request to a run configuration.

    Raises:
        UserError: A field is invalid or not supported; names the field.
        ModelNotFound: The model is not offered.
    """
    user_id = None if body.metadata is None else body.metadata.user_id
    question = question_of_messages(body, None if user_id is None else {"user": user_id})
    effort, effort_field = _effort(body)
    options, budget = body.reason, None if body.thinking is None else body.thinking.budget_tokens
    if budget is not None:
        if options.thinking_tokens not in (None, budget):
            raise UserError(
                f"thinking.budget_tokens is {budget}, but reason.thinking_tokens is {options.thinking_tokens}",
                hint="set only one of the two",
                param="thinking.budget_tokens",
            )
        if budget >= body.max_tokens:
            raise UserError(
                f"thinking.budget_tokens must be less than max_tokens = {body.max_tokens}, got {budget}",
                hint="raise max_tokens, which includes the thought, or lower the budget",
                param="thinking.budget_tokens",
            )
        options = options.model_copy(update={"thinking_tokens": budget})
    strategy = strategy_of(resolve_model(body.model, reasoner.settings), options.strategy, reasoner.settings)
    # a strategy's own limit is that of the answer; Anthropic's includes the thought
    has_limit = bool(targets(strategy, STRATEGIES.load(strategy).Config, "max_tokens"))
    config = plan_run(
        question,
        model=body.model,
        options=options,
        given={
            "temperature": body.temperature,
            "top_p": body.top_p,
            "top_k": body.top_k,
            "max_tokens": body.max_tokens - (budget or 0) if has_limit else body.max_tokens,
        },
        form=response_format(body),
        effort=effort_of(effort, options, effort_field),
        seed=options.seed,
        reasoner=reasoner,
        tenant=tenant,
        adaptive_thinking=body.thinking is not None and body.thinking.type == "adaptive",
        response_tokens=body.max_tokens,
        one_call=body.tool_choice is not None and body.tool_choice.disable_parallel_tool_use,
    )
    return RunRequest(
        model=body.model,
        config=config,
        stop=body.stop_sequences or (),
        field_names={
            "effort": effort_field if effort is not None else "reason.effort",
            "thinking_tokens": "reason.thinking_tokens" if budget is None else "thinking.budget_tokens",
        },
    )


def _effort(body: MessagesInput) -> tuple[ReasoningEffort | None, str]:
    """The effort of a request, and the field that sets it. "adaptive" alone is the model's own."""
    if body.thinking is not None and body.thinking.type == "disabled":
        return "none", "thinking"
    if body.output_config is not None and body.output_config.effort is not None:
        return body.output_config.effort, "output_config.effort"
    budget = None if body.thinking is None else body.thinking.budget_tokens
    if budget is None:
        return None, "thinking"
    return next((effort for effort, limit in EFFORT_BUDGETS.items() if budget <= limit), "high"), "thinking"


def shows_thoughts(body: MessagesInput) -> bool:
    """Whether the response has the thoughts: those of a request that asks for thinking, as in Anthropic's API."""
    thinking = body.thinking
    return thinking is not None and thinking.type != "disabled" and thinking.display != "omitted"


Event = dict[str, Any]

PING = b'event: ping\ndata: {"type":"ping"}\n\n'


class MessageError(ResponseBody):
    """The body of an error response in Anthropic's format."""

    type: Literal["error"]
    error: ErrorObject
    request_id: str | None = None


class CountReport(ResponseBody):
    """How tokens were counted, and why not exactly although the model could count them."""

    method: Literal["tokenizer", "provider", "estimate"]
    error: str = ""


class TokenCount(ResponseBody):
    """The number of tokens of a conversation."""

    input_tokens: int
    reason: CountReport


def content_blocks(outcome: Outcome, thoughts: str, *, shows: bool) -> list[dict[str, Any]]:
    """The content of a message that was not streamed: thoughts, text, tool calls."""
    blocks: list[dict[str, Any]] = []
    thought = thoughts if shows else _returned_thought(outcome)
    if thought or outcome.blocks:
        blocks.append(_thinking_block(thought, signature_of(outcome.blocks)))
    if outcome.content or not outcome.calls:
        blocks.append({"type": "text", "text": outcome.content})
    return [*blocks, *(_call_block(call, call.parsed_arguments or {}) for call in outcome.calls)]


def _returned_thought(outcome: Outcome) -> str:
    """The thought of a turn with tool calls, which the client returns with their results; empty if there is none."""
    return outcome.answer.thought if outcome.calls else ""


def _thinking_block(text: str, signature: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": text, "signature": signature}


def _call_block(call: ToolCall, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}


def usage(outcome: Outcome) -> dict[str, Any]:
    """The usage of a message: the numbers of `chat_usage`, with input tokens that no cache has to do with."""
    chat = chat_usage(outcome)
    cache = chat["prompt_tokens_details"]
    read, written = cache["cached_tokens"], cache["cache_write_tokens"]
    return {
        "input_tokens": chat["prompt_tokens"] - read - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": chat["completion_tokens"],
        "output_tokens_details": {"thinking_tokens": chat["completion_tokens_details"]["reasoning_tokens"]},
    }


def stop_fields(outcome: Outcome, stop: Sequence[str]) -> dict[str, Any]:
    """Why a message ended, and at which stop sequence."""
    if outcome.finish_reason != "stop":
        return {
            "stop_reason": "tool_use" if outcome.finish_reason == "tool_calls" else "max_tokens",
            "stop_sequence": None,
        }
    text = outcome.answer.text.strip()
    at = stop_at(text, stop)
    matched = None if at is None else min((s for s in stop if text.startswith(s, at)), key=len)
    return {"stop_reason": "end_turn" if matched is None else "stop_sequence", "stop_sequence": matched}


def message(
    run_id: str, model: str, content: list[dict[str, Any]], stopped: dict[str, Any], used: dict[str, Any]
) -> dict[str, Any]:
    """A message object."""
    return {
        "id": f"msg_{run_id}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        **stopped,
        "usage": used,
    }


class MessageEvents:
    """Builds the events of one stream.

    Thoughts and text are separate blocks, one open at a time. Text is never split: thoughts that arrive after its first
    piece become a block after it.

    Args:
        run_id: Run id.
        model: Model name in the request.
        stop: Stop sequences of the request.
        shows: Whether thoughts are sent.
    """

    def __init__(self, run_id: str, model: str, stop: Sequence[str], *, shows: bool) -> None:
        self._run_id, self._model, self._stop, self._shows = run_id, model, stop, shows
        self._index = -1
        self._open: Kind | None = None
        self._has_text = False
        self._later = ""

    def begin(self) -> list[Event]:
        """The first event; the usage is not known before the end."""
        none_yet = {"stop_reason": None, "stop_sequence": None}
        used = {"input_tokens": 0, "output_tokens": 0}
        return [{"type": "message_start", "message": message(self._run_id, self._model, [], none_yet, used)}]

    def piece(self, piece: Piece) -> list[Event]:
        """Events for a piece of thoughts or text."""
        if not piece.text or (piece.kind == "reasoning" and not self._shows):
            return []
        if piece.kind == "reasoning" and self._open == "content":
            self._later += piece.text
            return []
        events = [] if self._open == piece.kind else [*self._close(), *self._begin(piece.kind)]
        return [*events, self._delta(piece)]

    def end(self, ended: EndedRun) -> list[Event]:
        """Events that end the message."""
        events: list[Event] = []
        outcome = ended.outcome
        if not self._has_text and not outcome.calls:  # an empty answer also has a text block
            events += [*self._close(), *self._begin("content")]
        if self._open == "content":
            events += self._close()
        later = self._later if self._shows else _returned_thought(outcome)
        if later or (outcome.blocks and self._open is None):
            events += self._begin("reasoning")
            events += [self._delta(Piece("reasoning", later))] if later else []
        events += self._close(signature_of(outcome.blocks))
        for call in outcome.calls:
            events += self._call(call)
        delta = {
            "type": "message_delta",
            "delta": stop_fields(outcome, self._stop),
            "usage": usage(outcome),
            "reason": reason_report(outcome.answer),
        }
        return [*events, delta, {"type": "message_stop"}]

    def _begin(self, kind: Kind) -> list[Event]:
        """Open a block."""
        self._open = kind
        self._has_text |= kind == "content"
        return [self._start(_thinking_block("", "") if kind == "reasoning" else {"type": "text", "text": ""})]

    def _start(self, block: dict[str, Any]) -> Event:
        self._index += 1
        return {"type": "content_block_start", "index": self._index, "content_block": block}

    def _delta(self, piece: Piece) -> Event:
        name = "thinking" if piece.kind == "reasoning" else "text"
        return self._change({"type": f"{name}_delta", name: piece.text})

    def _change(self, delta: dict[str, Any]) -> Event:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}

    def _close(self, signature: str = "") -> list[Event]:
        """Close the open block, if any; one with thoughts is signed."""
        kind, self._open = self._open, None
        if kind is None:
            return []
        signed = {"type": "signature_delta", "signature": signature or signature_of(())}
        return [*([self._change(signed)] if kind == "reasoning" else []), self._stopped()]

    def _stopped(self) -> Event:
        return {"type": "content_block_stop", "index": self._index}

    def _call(self, call: ToolCall) -> list[Event]:
        arguments = call.arguments if call.parsed_arguments is not None else "{}"
        return [
            self._start(_call_block(call, {})),
            self._change({"type": "input_json_delta", "partial_json": arguments}),
            self._stopped(),
        ]


router = APIRouter(
    prefix="/v1/messages",
    tags=["Anthropic"],
    route_class=StrictRoute,
    responses={status: {**described, "model": MessageError} for status, described in ERROR_RESPONSES.items()},
)

EXAMPLES: dict[str, Example] = {
    "a chain of thought": {
        "value": {
            "model": "reason/cot",
            "max_tokens": 1000,
            "messages": [{"role": "user", "content": "What is 17 * 23?"}],
        }
    }
}


@router.post("", summary="Create a message", responses=STREAMED)
async def create_message(
    request: Request,
    body: Annotated[MessagesRequest, Body(openapi_examples=EXAMPLES)],
    caller: Annotated[Caller, Depends(authorised("ask"))],
    idempotency: IdempotencyKey = None,
) -> Response:
    """Answer a conversation with a reasoning strategy, as one message or as a stream of events.

    `model` is `reason/STRATEGY`, `reason/STRATEGY:MODEL`, an alias, or a model that the server offers. When the client
    disconnects, its run is cancelled, unless the request has an idempotency key.
    """
    app = request.app
    await asyncio.sleep(0)  # there may be 10,000 messages: others have the event loop
    await check_format(response_format(body))
    run_request = messages_run_request(body, app.state.reasoner, caller.tenant)
    runner = RequestRunner(request, body, caller, run_request, idempotency)
    shows = shows_thoughts(body)
    if not body.stream:
        ended = await while_connected(request.receive, runner.execute())
        return json_response(_message_body(ended, body, shows=shows))

    def failure(error: dict[str, Any]) -> bytes:
        return named_event(error_body(error, path=request.url.path, request_id=caller.request_id))

    return ServerSentEvents(
        partial(runner.stream, partial(MessageEvents, model=body.model, stop=run_request.stop, shows=shows)),
        runner.admitted,
        encode=named_event,
        failure=failure,
        ping=PING,
    )


def _message_body(ended: EndedRun, body: MessagesRequest, *, shows: bool) -> dict[str, Any]:
    outcome = ended.outcome
    content = content_blocks(outcome, ended.thoughts, shows=shows)
    made = message(ended.run_id, body.model, content, stop_fields(outcome, body.stop_sequences or ()), usage(outcome))
    return {**made, "reason": reason_report(outcome.answer)}


@router.post("/count_tokens", summary="Count the tokens of a message", response_model=TokenCount)
async def count_tokens(
    request: Request, body: MessagesInput, caller: Annotated[Caller, Depends(authorised("ask"))]
) -> TokenCount:
    """Count the tokens of a conversation in the chat template of its model, without what a strategy adds.

    By the model's tokenizer, by Anthropic for its Claude, else by an estimate.
    """
    app = request.app
    question = question_of_messages(body)
    model = resolve_model(body.model, app.state.settings).model
    counted = await app.state.reasoner.count_tokens(question_prompt(question), model)
    if counted.error:
        log_hidden_error("count_failed", counted.error, request_id=caller.request_id)
    error = "the model backend counted no tokens" if counted.error else ""
    return TokenCount(input_tokens=counted.tokens, reason=CountReport(method=counted.method, error=error))
