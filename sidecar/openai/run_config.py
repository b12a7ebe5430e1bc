"""From a request in OpenAI's format to run configurations: question, conversation, tools, parameters, schema, seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue, ValidationError

from ...agents.reasoner import Reasoner
from ...core.budget import Budget
from ...core.errors import UnknownName, UserError
from ...core.messages import TOOL_CHOICE_AUTO, Message, Tool, ToolCall
from ...core.run import RunConfig
from ...core.types import Question
from ...reasoning.strategy import STRATEGIES, Parameters
from ..policy import apply_ceilings, reject_paths
from .models import resolve_model, strategy_of
from .requests import CHAT, ChatMessage, ChatRequest, ChatTool, NamedTool, ReasonOptions, ResponseFormat, reject_fields


def question_of(
    messages: Sequence[ChatMessage],
    *,
    tools: Sequence[ChatTool] = (),
    tool_choice: str | NamedTool | None = None,
    metadata: dict[str, JsonValue] | None = None,
    before: Sequence[Message] = (),
    field: str = "messages",
) -> Question:
    """The question that a chat asks: the last turn of the user, with what came before it and since.

    Turns of the system and the developer stand at the head, wherever they were.

    Args:
        messages: The chat.
        tools: What the model may ask to be called.
        tool_choice: Which of them; None is "auto".
        metadata: Kept with the question.
        before: Turns that stand before the chat.
        field: What the chat is called in the request, for errors.

    Raises:
        UserError: The chat asks nothing that can be answered; names the message.
    """
    turns = [*before, *(_message(m, f"{field}.{i}") for i, m in enumerate(messages))]
    turns = _with_names(turns, field, -len(before))
    last_user = max((i for i, turn in enumerate(turns) if turn.role == "user"), default=None)
    if last_user is None:
        raise UserError("there is no message of the user", hint="a chat needs a question", param=field)
    if not turns[last_user].content.strip():
        location = f"{field}.{last_user - len(before)}"
        raise UserError("the last message of the user is empty", hint="ask something", param=location)
    last = next(turn for turn in reversed(turns) if turn.role != "system")
    if last.role == "assistant":
        raise UserError(
            "the last message is the assistant's" + (", whose calls have no results" if last.tool_calls else ""),
            hint="end with a message of the user, or with the results of the tools",
            param=field,
        )
    offered = tuple(_tool(tool, f"tools.{i}") for i, tool in enumerate(tools))
    try:
        return Question(
            text=turns[last_user].content,
            conversation=tuple(turn for i, turn in enumerate(turns) if i < last_user or turn.role == "system"),
            continuation=tuple(turn for turn in turns[last_user + 1 :] if turn.role != "system"),
            tools=offered,
            tool_choice=_choice(tool_choice),
            metadata=metadata or {},
        )
    except ValidationError as e:
        said = str(e.errors()[0]["msg"]).removeprefix("Value error, ")
        raise UserError(said, param="tool_choice" if "tool_choice" in said else "tools") from e


def text_of(content: str | Sequence[object] | None, location: str) -> str:
    """The text of a message, whose parts stand on lines of their own.

    Raises:
        UserError: A part is no text.
    """
    if content is None or isinstance(content, str):
        return content or ""
    texts: list[str] = []
    for i, part in enumerate(content):
        kind = getattr(part, "type", "")
        text = getattr(part, "refusal" if kind == "refusal" else "text", None)
        if kind not in ("text", "refusal", "input_text", "output_text") or text is None:
            raise UserError(
                f"a content part of type {kind!r} cannot be read: strategies read text",
                hint="send parts of type text",
                param=f"{location}.content.{i}",
            )
        texts.append(text)
    return "\n".join(texts)


def _message(message: ChatMessage, location: str) -> Message:
    if message.role == "function":
        raise UserError(
            "the role function is the form before tools", hint="use the role tool", param=f"{location}.role"
        )
    if message.role == "tool" and not message.tool_call_id:
        raise UserError("a message of the role tool says which call it answers", param=f"{location}.tool_call_id")
    calls = message.tool_calls or ()
    for i, call in enumerate(calls):
        if call.function is None:
            raise UserError(f"a call of type {call.type!r} is not supported", param=f"{location}.tool_calls.{i}")
    if calls and message.role != "assistant":
        raise UserError(f"a message of the role {message.role} calls no tools", param=f"{location}.tool_calls")
    return Message(
        role="system" if message.role == "developer" else message.role,
        content=text_of(message.content, location),
        tool_calls=tuple(
            ToolCall(name=c.function.name, arguments=c.function.arguments, id=c.id) for c in calls if c.function
        ),
        tool_call_id=(message.tool_call_id or "") if message.role == "tool" else "",
        name=message.name or "",
    )


def _with_names(turns: Sequence[Message], field: str, first: int) -> list[Message]:
    """The turns, those of tools with the tool's name, which chat templates want and OpenAI's format leaves out."""
    called: dict[str, str] = {}
    found: list[Message] = []
    for i, turn in enumerate(turns, first):
        called |= {call.id: call.name for call in turn.tool_calls}
        if turn.role == "tool":
            if turn.tool_call_id not in called:
                raise UserError(
                    f"no message before it made the call {turn.tool_call_id!r}", param=f"{field}.{i}.tool_call_id"
                )
            turn = turn.model_copy(update={"name": called[turn.tool_call_id]})
        found.append(turn)
    return found


def _tool(tool: ChatTool, location: str) -> Tool:
    if tool.type != "function" or tool.function is None:
        raise UserError(
            f"a tool of type {tool.type!r} is not supported", hint="give functions", param=f"{location}.type"
        )
    function = tool.function
    try:
        return Tool(
            name=function.name,
            description=function.description or "",
            parameters=function.parameters or {},
            strict=function.strict,
        )
    except ValidationError as e:
        first = e.errors()[0]
        at = ".".join(str(part) for part in first["loc"])
        raise UserError(f"tool {function.name!r}: {first['msg']}", param=f"{location}.function.{at}") from e


def _choice(choice: str | NamedTool | None) -> str:
    if choice is None or isinstance(choice, str):
        return choice or TOOL_CHOICE_AUTO
    if choice.type != "function" or choice.function is None:
        raise UserError(f"a tool choice of type {choice.type!r} is not supported", param="tool_choice")
    return choice.function.name


SamplingField = Literal["temperature", "top_p", "max_tokens", "json_schema"]

PARAMETER_NAMES: dict[str, dict[SamplingField, tuple[str, ...]]] = {
    "edgejury": {"temperature": ("answer_temperature",), "max_tokens": ("answer_tokens", "chair_tokens")},
}
"""The parameters that a field sets where they are called otherwise; of any other strategy, the one of its own name."""


def targets(strategy: str, config: type[Parameters], knob: SamplingField) -> tuple[str, ...]:
    """The parameters of a strategy that a field sets; none if it has none of that meaning."""
    names = PARAMETER_NAMES.get(strategy, {}).get(knob, (knob,))
    return tuple(name for name in names if name in config.model_fields)


def sampling_parameters(
    strategy: str, given: Mapping[SamplingField, JsonValue], parameters: Mapping[str, JsonValue]
) -> tuple[dict[str, JsonValue], int | None]:
    """What fields of a request make of a strategy's parameters.

    `max_tokens` bounds the response that becomes the answer, where the strategy has a parameter for that; all other
    branches have the same bound each. Of a strategy without one it bounds all generated tokens of the run together.

    Args:
        strategy: The strategy.
        given: The fields; None was not given.
        parameters: What the request gave as `reason.parameters`.

    Returns:
        The parameters; and a token budget, or None.

    Raises:
        UserError: The strategy has nothing of that meaning, or a parameter is given in both ways and differently.
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
                    f"{knob} is {value}, and reason.parameters.{name} is {parameters[name]}",
                    hint="give one of the two",
                    param=knob,
                )
            found[name] = value
        if names:
            continue
        if knob == "max_tokens" and isinstance(value, int):
            tokens = value
        elif knob == "json_schema":
            raise UserError(
                f"the strategy {strategy!r} cannot write its answer as JSON of a schema",
                hint="take reason/cot, or ask for the form in words",
                param="response_format",
            )
        elif not (knob == "top_p" and value == 1):  # which cuts nothing off
            raise UserError(
                f"the strategy {strategy!r} has no {knob}",
                hint=f"leave it out; `reason strategies show {strategy}` lists the strategy's parameters",
                param=knob,
            )
    return found, tokens


def parameter_table() -> str:
    """Which parameters of each strategy the fields set, as it is in the documentation (Markdown)."""
    rows = ["| strategy | `temperature` | `top_p` | `max_tokens` |", "| --- | --- | --- | --- |"]
    without: dict[SamplingField, str] = {"temperature": "refused", "top_p": "1 alone", "max_tokens": "the run's budget"}
    for strategy in STRATEGIES.names():
        config = STRATEGIES.load(strategy).Config
        cells = [
            ", ".join(f"`{name}`" for name in targets(strategy, config, knob)) or otherwise
            for knob, otherwise in without.items()
        ]
        rows.append(f"| `{strategy}` | {' | '.join(cells)} |")
    return "\n".join(rows)


@dataclass(frozen=True)
class RunRequest:
    """What a request comes to.

    Attributes:
        model: The model name as it was given, which the response repeats.
        configs: A run for each answer requested.
        stop: Strings before the first of which the answer's text ends.
        one_call: Whether of several tool calls the first only is returned.
        stream_events: Whether a stream carries the runs' events.
    """

    model: str
    configs: tuple[RunConfig, ...]
    stop: tuple[str, ...] = ()
    one_call: bool = False
    stream_events: bool = False


def chat_run_request(request: ChatRequest, reasoner: Reasoner, tenant: str) -> RunRequest:
    """What a chat request comes to.

    Raises:
        UserError: It asks for something that it would not get; names the field.
        ModelNotFound: The model is not offered.
    """
    reject_fields(request.model_dump(exclude_unset=True), CHAT)
    most = reasoner.settings.serve.max_samples
    if request.n is not None and request.n > most:
        raise UserError(f"n is {request.n}, and the server gives at most {most} answers to a request", param="n")
    kept = {"metadata": request.metadata, "user": request.user, "safety_identifier": request.safety_identifier}
    question = question_of(
        request.messages,
        tools=request.tools or (),
        tool_choice=request.tool_choice,
        metadata={name: value for name, value in kept.items() if value is not None},
    )
    limit = request.max_tokens if request.max_completion_tokens is None else request.max_completion_tokens
    config = plan_run(
        question,
        model=request.model,
        options=request.reason,
        given={"temperature": request.temperature, "top_p": request.top_p, "max_tokens": limit},
        form=request.response_format,
        seed=request.reason.seed if request.seed is None else request.seed,
        reasoner=reasoner,
        tenant=tenant,
    )
    return RunRequest(
        model=request.model,
        configs=with_seeds(config, request.n or 1),
        stop=request.stops,
        one_call=request.parallel_tool_calls is False,
        stream_events=request.reason.stream_events,
    )


def plan_run(
    question: Question,
    *,
    model: str,
    options: ReasonOptions,
    given: Mapping[SamplingField, JsonValue],
    form: ResponseFormat | None,
    seed: int | None,
    reasoner: Reasoner,
    tenant: str,
) -> RunConfig:
    """The configuration of one run.

    What a model name brings along (an alias does) gives way to the request; limits of both hold.

    Args:
        question: The question.
        model: The model name as it was given.
        options: The request's `reason` object.
        given: The fields of OpenAI's format that become parameters.
        form: The form of the answer.
        seed: The run's seed; None is the settings', else a new one.
        reasoner: Who plans.
        tenant: Whose run it is.

    Raises:
        UserError: It asks for something that it would not get; names the field.
        ModelNotFound: The model is not offered.
    """
    settings = reasoner.settings
    name = resolve_model(model, settings)
    strategy = strategy_of(name, options.strategy, settings)
    reject_paths(options.parameters, settings.strategies.get(strategy), param="reason.parameters")
    for verifier, given_to_it in options.verify_parameters.items():
        reject_paths(given_to_it, settings.verifiers.get(verifier), param=f"reason.verify_parameters.{verifier}")
    from_fields, tokens = sampling_parameters(strategy, {**given, "json_schema": schema_of(form)}, options.parameters)
    own: dict[str, JsonValue] = {**name.parameters, **from_fields, **options.parameters}
    verify = name.verify or None if options.verify is None else options.verify
    try:
        return reasoner.plan(
            question,
            strategy=strategy,
            model=name.model,
            parameters=own,
            verify=verify,
            verify_parameters=options.verify_parameters or None,
            budget=apply_ceilings(options.budget, settings.serve, settings.budget, name.budget, Budget(tokens=tokens)),
            seed=seed,
            tenant=tenant,
        )
    except UserError as e:
        # a wrong name in a body is a bad request; that a path or model does not exist is something else
        raise UserError(e.message, hint=e.hint, param=_param_of(e, options)) from e


def _param_of(error: UserError, options: ReasonOptions) -> str | None:
    """Which field of a request a refusal is about."""
    if error.param is not None and error.param.partition(".")[0] in options.parameters:
        return f"reason.parameters.{error.param}"
    if isinstance(error, UnknownName) and error.kind == "verifier":
        return "reason.verify"
    return error.param


def schema_of(form: ResponseFormat | None) -> dict[str, JsonValue] | None:
    """The JSON Schema that the answer is to satisfy; None leaves it free.

    Raises:
        UserError: JSON is requested without a schema.
    """
    if form is None or form.type == "text":
        return None
    if form.json_schema is None or not form.json_schema.schema_:
        raise UserError(
            f"{form.type} without a schema is not supported", hint="give a json_schema", param="response_format"
        )
    return form.json_schema.schema_


def with_seeds(config: RunConfig, n: int) -> tuple[RunConfig, ...]:
    """A run and n - 1 more like it, whose seeds follow from its own: the same request gives the same answers."""
    return (config, *(config.model_copy(update={"seed": _seed(config.seed, i)}) for i in range(1, n)))


def _seed(seed: int, index: int) -> int:
    digest = hashlib.sha256(f"{seed}\x1fanswer\x1f{index}".encode()).digest()
    return int.from_bytes(digest[:4], "big") & 0x7FFFFFFF
