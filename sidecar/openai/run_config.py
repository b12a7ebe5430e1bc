"""Converts requests in OpenAI's format to run configurations: question, tools, parameters and schema."""

from __future__ import annotations

import asyncio
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from pydantic import JsonValue, ValidationError

from ...agents.reasoner import Reasoner
from ...core.budget import Budget
from ...core.errors import UnknownName, UserError
from ...core.json_schema import OBJECT_SCHEMA, check_schema
from ...core.messages import (
    TOOL_CHOICE_AUTO,
    Attachment,
    AttachmentKind,
    Effort,
    Message,
    Tool,
    ToolCall,
)
from ...core.run import RunConfig, ToolRule
from ...core.types import Question
from ...reasoning.strategy import STRATEGIES, Parameters
from ..policy import (
    allowed_approval,
    allowed_tools,
    apply_ceilings,
    check_code_execution,
    check_samples,
    reject_paths,
)
from ..run_manager import CallAnswers
from .models import resolve_model, strategy_of
from .requests import (
    ChatMessage,
    ChatRequest,
    ContentPart,
    NamedFunction,
    NamedTool,
    ReasoningEffort,
    ReasonOptions,
    ResponseFormat,
    ToolFunction,
)


def question_of(
    messages: Sequence[ChatMessage],
    *,
    tools: Sequence[Tool] = (),
    tool_choice: str | None = None,
    metadata: dict[str, JsonValue] | None = None,
    before: Sequence[Message] = (),
    field: str = "messages",
) -> Question:
    """Convert a chat to a question: the last user message, the conversation before it and the messages after it.

    System and developer messages are moved into the conversation before the user message.

    Args:
        messages: Messages of the chat.
        tools: Tools that the model may call.
        tool_choice: Tool choice; None means "auto".
        metadata: Metadata stored with the question.
        before: Messages that precede the chat.
        field: Name of the request field that has the chat, for errors.

    Raises:
        UserError: The chat has no user message to answer, or a message or tool is invalid; names the field.
    """
    turns = [*before, *(_message(m, f"{field}.{i}") for i, m in enumerate(messages))]
    turns = _with_names(turns, field, -len(before))
    last_user = max((i for i, turn in enumerate(turns) if turn.role == "user"), default=None)
    if last_user is None:
        raise UserError("there is no user message", hint="add a message with the role user", param=field)
    if not turns[last_user].content.strip():
        location = f"{field}.{last_user - len(before)}"
        raise UserError("the last user message is empty", hint="send a message with text", param=location)
    last = next(turn for turn in reversed(turns) if turn.role != "system")
    if last.role == "assistant":
        raise UserError(
            "the last message has the role assistant" + (" and tool calls without results" if last.tool_calls else ""),
            hint="end with a user message or with the tool results",
            param=field,
        )
    try:
        return Question(
            text=turns[last_user].content,
            attachments=turns[last_user].attachments,
            conversation=tuple(turn for i, turn in enumerate(turns) if i < last_user or turn.role == "system"),
            continuation=tuple(turn for turn in turns[last_user + 1 :] if turn.role != "system"),
            tools=tuple(tools),
            tool_choice=tool_choice or TOOL_CHOICE_AUTO,
            metadata=metadata or {},
        )
    except ValidationError as e:
        said = str(e.errors()[0]["msg"]).removeprefix("Value error, ")
        raise UserError(said, param="tool_choice" if "tool_choice" in said else "tools") from e


_KINDS: dict[str, AttachmentKind] = {"image_url": "image", "input_image": "image", "file": "file", "input_file": "file"}
"""What a part has, by its type."""
_DATA_URL = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+)?(?:;[\w-]+=[^;,]*)*;base64,", re.ASCII | re.IGNORECASE)


def _read_attachment(part: ContentPart, location: str) -> Attachment:
    """The attachment of a content part.

    The server opens no address: an `https` one is passed on to the provider.
    """
    kind = _KINDS[part.type]
    named = part.file or part
    address = (part.image_url if isinstance(part.image_url, str) else getattr(part.image_url, "url", "")) or ""
    if kind == "file":
        if named.file_id:
            raise UserError(
                "the server keeps no files", hint="send the content as file_data", param=f"{location}.file_id"
            )
        address = named.file_data or part.file_url or ""
    detail = (part.detail if isinstance(part.image_url, str) else getattr(part.image_url, "detail", None)) or ""
    is_data = _DATA_URL.match(address)
    if address.startswith("https://") and kind == "image":
        return Attachment.at(address, kind, detail=detail[:20])
    if not is_data and not (kind == "file" and named.file_data):
        raise UserError(
            f"a content part of type {part.type} needs its content"
            if not address
            else f"the address of a {kind} is "
            f"neither a data URL{' nor https' if kind == 'image' else ''}: {address[:60]!r}",
            hint="send it as data:MEDIA_TYPE;base64,…",
            param=location,
        )
    try:
        content = binascii.a2b_base64(address[is_data.end() if is_data else 0 :].encode("ascii"), strict_mode=True)
        return Attachment.of(
            content,
            name=(named.filename or "")[:255],
            media_type=(is_data["type"] or "") if is_data else "",
            detail=detail[:20],
        )
    except (ValueError, UnicodeEncodeError) as e:
        said = "its content is no base64" if isinstance(e, binascii.Error | UnicodeEncodeError) else str(e)
        raise UserError(f"the {kind} cannot be read: {said}", param=location) from e


def _content_of(message: ChatMessage, location: str) -> tuple[str, tuple[Attachment, ...]]:
    """The texts of a message, joined with newlines, and its images and files with their positions in it."""
    if message.content is None or isinstance(message.content, str):
        return message.content or "", ()
    texts: list[str] = []
    attachments: list[Attachment] = []
    for i, part in enumerate(message.content):
        at = f"{location}.content.{i}"
        if part.type in _KINDS:
            if message.role not in ("user", "tool"):
                raise UserError(
                    f"a message of the role {message.role} has a content part of type {part.type}",
                    hint="only messages of the roles user and tool can have images and files",
                    param=at,
                )
            position = len("\n".join(texts))
            attachments.append(_read_attachment(part, at).model_copy(update={"position": position}))
            continue
        text = part.refusal if part.type == "refusal" else part.text
        if part.type not in ("text", "refusal", "input_text", "output_text") or text is None:
            raise UserError(
                f"a content part of type {part.type!r} is not supported",
                hint="send texts, images (image_url) or PDFs (file)",
                param=at,
            )
        texts.append(text)
    content = "\n".join(texts)
    return content, tuple(
        a if a.position != len(content) else a.model_copy(update={"position": None}) for a in attachments
    )


def _message(message: ChatMessage, location: str) -> Message:
    if message.role == "function":
        raise UserError(
            "the role function is not supported: tools replaced it", hint="use the role tool", param=f"{location}.role"
        )
    if message.role == "tool" and not message.tool_call_id:
        raise UserError("a message with the role tool requires a tool_call_id", param=f"{location}.tool_call_id")
    calls = message.tool_calls or ()
    for i, call in enumerate(calls):
        if call.function is None:
            raise UserError(f"a call of type {call.type!r} is not supported", param=f"{location}.tool_calls.{i}")
    if calls and message.role != "assistant":
        raise UserError(f"a message with the role {message.role} has tool_calls", param=f"{location}.tool_calls")
    content, attachments = _content_of(message, location)
    return Message(
        role="system" if message.role == "developer" else message.role,
        content=content,
        attachments=attachments,
        tool_calls=tuple(
            ToolCall(name=c.function.name, arguments=c.function.arguments, id=c.id) for c in calls if c.function
        ),
        tool_call_id=(message.tool_call_id or "") if message.role == "tool" else "",
        name=message.name or "",
        thought=message.thought,
    )


def _with_names(turns: Sequence[Message], field: str, first: int) -> list[Message]:
    """Add the tool name to tool messages: chat templates require it, and OpenAI's format omits it."""
    called: dict[str, str] = {}
    found: list[Message] = []
    for i, turn in enumerate(turns, first):
        called |= {call.id: call.name for call in turn.tool_calls}
        if turn.role == "tool":
            if turn.tool_call_id not in called:
                raise UserError(
                    f"no preceding message has the tool call {turn.tool_call_id!r}", param=f"{field}.{i}.tool_call_id"
                )
            turn = turn.model_copy(update={"name": called[turn.tool_call_id]})
        found.append(turn)
    return found


def tool_of(kind: str, function: ToolFunction | None, location: str, at: str = "") -> Tool:
    """A tool of a request.

    Args:
        kind: Its type.
        function: Its function.
        location: Its location in the request.
        at: Location of the function within the tool.

    Raises:
        UserError: It is no function, or an invalid one; names the field.
    """
    if kind != "function" or function is None:
        raise UserError(f"a tool of type {kind!r} is not supported", hint="use type function", param=f"{location}.type")
    try:
        return Tool(
            name=function.name,
            description=function.description or "",
            parameters=function.parameters or {},
            strict=function.strict,
        )
    except ValidationError as e:
        first = e.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(f"tool {function.name!r}: {first['msg']}", param=f"{location}{at}.{field}") from e


def choice_of(kind: str, function: NamedFunction | None) -> str:
    """The name of the function that a tool choice names.

    Raises:
        UserError: It names none.
    """
    if kind != "function":
        raise UserError(f"a tool choice of type {kind!r} is not supported", param="tool_choice")
    if function is None or not function.name:
        raise UserError("a tool choice of type 'function' requires its name", param="tool_choice")
    return function.name


SamplingField = Literal["temperature", "top_p", "top_k", "max_tokens"]

PARAMETER_NAMES: dict[str, dict[SamplingField, tuple[str, ...]]] = {
    "fusion": {"max_tokens": ("max_tokens", "synthesis_tokens")},
}
"""Strategy parameters that a field sets, by strategy, where their names differ from the field's name."""


@lru_cache
def targets(strategy: str, config: type[Parameters], knob: SamplingField) -> tuple[str, ...]:
    """The strategy parameters that a field sets; empty if the strategy does not support the field."""
    names = PARAMETER_NAMES.get(strategy, {}).get(knob, (knob,))
    return tuple(name for name in names if name in config.model_fields)


def sampling_parameters(
    strategy: str, given: Mapping[SamplingField, JsonValue], parameters: Mapping[str, JsonValue]
) -> tuple[dict[str, JsonValue], int | None]:
    """Map sampling fields of a request to strategy parameters.

    If the strategy has a parameter for `max_tokens`, it limits each branch, including the one that becomes the answer.
    Otherwise `max_tokens` is the token budget of the complete run.

    Args:
        strategy: Strategy name.
        given: Request fields; None means not set.
        parameters: The request's `reason.parameters`.

    Returns:
        The parameters, and a token budget or None.

    Raises:
        UserError: The strategy does not support a field, or `parameters` has a different value for it.
    """
    config = STRATEGIES.load(strategy).Config
    found: dict[str, JsonValue] = {}
    tokens: int | None = None
    for knob, value in given.items():
        if value is None:
            continue
        names = targets(strategy, config, knob)
        for name in names:
            if parameters.get(name, value) != value:
                raise UserError(
                    f"{knob} is {value}, but reason.parameters.{name} is {parameters[name]}",
                    hint="set only one of the two",
                    param=knob,
                )
            found[name] = value
        if names:
            continue
        if knob == "max_tokens" and isinstance(value, int):
            tokens = value
        elif not (knob == "top_p" and value == 1):  # 1 disables top-p sampling
            raise UserError(
                f"the strategy {strategy!r} has no parameter {knob}",
                hint=f"leave it out; `reason strategies show {strategy}` lists the strategy's parameters",
                param=knob,
            )
    return found, tokens


@dataclass(frozen=True)
class RunRequest:
    """The run of a request, and how to return its answer.

    Attributes:
        model: Model name in the request, repeated in the response.
        config: The run's configuration.
        stop: Stop strings; the answer text ends before the first one.
        field_names: Fields of the request by the names that errors of a run give them.
        answers: What the request answers to a waiting run, which continues; None begins a run.
    """

    model: str
    config: RunConfig
    stop: tuple[str, ...] = ()
    field_names: Mapping[str, str] = field(default_factory=dict)
    answers: CallAnswers | None = None


def chat_run_request(request: ChatRequest, reasoner: Reasoner, tenant: str) -> RunRequest:
    """Convert a chat request to a run configuration.

    Raises:
        UserError: A field is invalid or not supported; names the field.
        ModelNotFound: The model is not offered.
    """
    kept: dict[str, Any] = {
        "metadata": request.metadata,
        "user": request.user,
        "safety_identifier": request.safety_identifier,
    }
    question = question_of(
        request.messages,
        tools=[tool_of(t.type, t.function, f"tools.{i}", ".function") for i, t in enumerate(request.tools or ())],
        tool_choice=request.tool_choice
        if not isinstance(request.tool_choice, NamedTool)
        else choice_of(request.tool_choice.type, request.tool_choice.function),
        metadata={name: value for name, value in kept.items() if value is not None},
    )
    limit = request.max_tokens if request.max_completion_tokens is None else request.max_completion_tokens
    config = plan_run(
        question,
        model=request.model,
        options=request.reason,
        given={"temperature": request.temperature, "top_p": request.top_p, "max_tokens": limit},
        form=request.response_format,
        effort=effort_of(request.reasoning_effort, request.reason, "reasoning_effort"),
        seed=request.reason.seed if request.seed is None else request.seed,
        reasoner=reasoner,
        tenant=tenant,
        one_call=request.parallel_tool_calls is False,
    )
    return RunRequest(
        model=request.model,
        config=config,
        stop=request.stops,
        field_names=field_names(request.reasoning_effort, "reasoning_effort"),
    )


def effort_of(requested: ReasoningEffort | None, options: ReasonOptions, param: str) -> Effort | None:
    """The effort of a request; None if it sets none.

    Args:
        requested: OpenAI's field.
        options: The request's `reason` object.
        param: Name of OpenAI's field.

    Raises:
        UserError: `reason.effort` has a different value.
    """
    effort: Effort | None = "max" if requested == "xhigh" else requested
    if effort is not None and options.effort not in (None, effort):
        raise UserError(
            f"{param} is {requested}, but reason.effort is {options.effort}",
            hint="set only one of the two",
            param=param,
        )
    return effort or options.effort


def field_names(requested: ReasoningEffort | None, param: str) -> dict[str, str]:
    """The names of the request's fields for errors that a run raises, given OpenAI's field of the effort."""
    effort = "reason.effort" if requested is None else param
    return {"effort": effort, "thinking_tokens": "reason.thinking_tokens"}


def plan_run(
    question: Question,
    *,
    model: str,
    options: ReasonOptions,
    given: Mapping[SamplingField, JsonValue],
    form: ResponseFormat | None,
    effort: Effort | None,
    seed: int | None,
    reasoner: Reasoner,
    tenant: str,
    adaptive_thinking: bool = False,
    response_tokens: int | None = None,
    one_call: bool = False,
    tool_rules: Mapping[str, ToolRule] | None = None,
    limits: Sequence[Budget] = (),
) -> RunConfig:
    """Build the configuration of one run.

    Parameters and verifiers of the request override those of an alias. The limits of both apply.

    Args:
        question: Question to answer.
        model: Model name in the request.
        options: The request's `reason` object.
        given: Sampling fields of the request; None means not set.
        form: Response format.
        effort: How much the model thinks.
        seed: Seed of the run; None uses the one in the settings, else a new one.
        reasoner: Reasoner that resolves the configuration.
        tenant: Tenant that owns the run.
        adaptive_thinking: Whether a model that thinks only if it is asked to is asked.
        response_tokens: Maximum tokens of a complete response, thought included; None is `max_tokens` of `given`.
        one_call: See `RunConfig.one_call`.
        tool_rules: Tools that the run executes besides those of every question.
        limits: Further limits of the run.

    Raises:
        UserError: A field is invalid or not supported; names the field.
        ModelNotFound: The model is not offered.
    """
    settings = reasoner.settings
    question = question.model_copy(update={"answer_schema": schema_of(form)})
    name = resolve_model(model, settings)
    strategy = strategy_of(name, options.strategy, settings)
    reject_paths(options.parameters, settings.strategies.get(strategy), param="reason.parameters")
    for verifier, given_to_it in options.verify_parameters.items():
        reject_paths(given_to_it, settings.verifiers.get(verifier), param=f"reason.verify_parameters.{verifier}")
    from_fields, tokens = sampling_parameters(strategy, given, options.parameters)
    own: dict[str, JsonValue] = {**name.parameters, **from_fields, **options.parameters}
    verify = name.verify or None if options.verify is None else options.verify
    try:
        config = reasoner.plan(
            question,
            strategy=strategy,
            model=name.model,
            parameters=own,
            verify=verify,
            verify_parameters=options.verify_parameters or None,
            budget=apply_ceilings(
                options.budget,
                settings.serve,
                settings.budget,
                name.budget,
                Budget(tokens=tokens),
                *limits,
            ),
            effort=effort,
            thinking_tokens=options.thinking_tokens,
            seed=seed,
            tenant=tenant,
            tools=allowed_tools(settings, (*settings.tools.use, *tool_rules) if tool_rules else None),
            approve=allowed_approval(settings, None),
        )
    except UserError as e:
        # an unknown name in the body is a bad request (400); 404 is for unknown paths and models
        raise UserError(e.message, hint=e.hint, param=_param_of(e, options)) from e
    check_samples(config, param="reason.parameters")
    check_code_execution(config, settings.serve)
    limit = response_tokens or given.get("max_tokens")
    update = {"adaptive_thinking": adaptive_thinking, "sample_tokens": limit, "one_call": one_call}
    config = config.model_copy(update={**update, "tool_rules": dict(tool_rules or {})})
    return config.for_client_loop() if question.offered_tools else config


def _param_of(error: UserError, options: ReasonOptions) -> str | None:
    """The request field that an error refers to."""
    if error.param is not None and error.param.partition(".")[0] in options.parameters:
        return f"reason.parameters.{error.param}"
    if error.param in ("effort", "thinking_tokens"):
        return f"reason.{error.param}"
    if isinstance(error, UnknownName) and error.kind == "verifier":
        return "reason.verify"
    return error.param


def schema_of(form: ResponseFormat | None) -> dict[str, JsonValue] | None:
    """The JSON Schema of the answer, which `check_format` has checked; None for free text.

    Raises:
        UserError: The format has no schema.
    """
    if form is None or form.type == "text":
        return None
    if form.type == "json_object":
        return dict(OBJECT_SCHEMA)
    if form.json_schema is None or not form.json_schema.schema_:
        raise UserError(
            "json_schema without a schema is not supported",
            hint="send the schema, or use type json_object",
            param="response_format",
        )
    return form.json_schema.schema_


async def check_format(form: ResponseFormat | None) -> None:
    """Refuse a format with a schema that is not valid; a large one is checked while others have the event loop.

    Raises:
        UserError: The schema is not valid.
    """
    if form is not None and form.type == "json_schema" and form.json_schema is not None:
        await asyncio.to_thread(check_schema, form.json_schema.schema_, "response_format")
