"""Tools that a run executes: `ExecutableTool`, made from a function by `tool_of`, and the results that models see."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Annotated, Any, Final, Literal, Protocol, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PydanticSchemaGenerationError,
    TypeAdapter,
    ValidationError,
    create_model,
)
from pydantic.errors import PydanticUserError

from ...core.errors import UserError
from ...core.json_schema import check_schema, schema_fault
from ...core.messages import Effect, Frozen, Tool

CALL_S: Final = 60.0
"""Default time limit of one call, in seconds."""
RESULT_CHARS: Final = 20_000
"""Default length of a result that the model sees, in characters."""
MAX_STORED_CHARS: Final = 4_000_000
"""Maximum length of a result that is stored; a longer one is cut in the middle there too."""
READ_RESULT: Final = "read_result"
"""Name of the tool that reads results which were cut in the prompt; models see it once one was."""
KEY_PARAMETER: Final = "idempotency_key"
"""A parameter of this name receives the key of the call's intent and is not in the schema."""


def valid_text(text: str) -> str:
    """The text with "?" for lone surrogates, which JSON may contain and UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode()


class ToolResult(Frozen):
    """The result of a call.

    Attributes:
        text: The text for the model, complete up to `MAX_STORED_CHARS`.
        is_error: Whether the call failed; the text then gives the reason.
    """

    text: Annotated[str, AfterValidator(valid_text)]
    is_error: bool = False


@dataclass(frozen=True)
class ToolCallContext:
    """The call that a tool executes.

    Attributes:
        intent: ID of the call's intent, which stays the same when the run is resumed.
        attempt: 1 for the first execution; higher after a resume that repeats it.
        progress: Reports a line of progress, which becomes an event of the run.
        stored_result: Reads the complete result of an earlier call of the run by the beginning of its ID; None if there
            is none.
    """

    run_id: str
    intent: str
    attempt: int = 1
    progress: Callable[[str], None] = lambda _: None
    stored_result: Callable[[str], Awaitable[str | None]] | None = None

    @property
    def idempotency_key(self) -> str:
        """Key for services that deduplicate requests: the same for all attempts of this call, and for no other call."""
        return f"{self.run_id}:{self.intent}"


Call = Callable[[Mapping[str, JsonValue], ToolCallContext], Awaitable[object]]


class World(Protocol):
    """What some tools read and change, such as a directory; a fork is an independent copy.

    Attributes:
        tools: The tools that act on it, by name.
        is_new: Whether it is a fork that the call of `fork` made; else an earlier call had made it.
    """

    tools: Mapping[str, ExecutableTool]
    is_new: bool

    async def fork(self, name: str) -> World:
        """A copy; equal names give the same one, also in another process. A fork's fork has the same origin."""

    async def changes(self) -> list[str]:
        """Lines that show a person how it differs from the origin as that was when it was forked."""

    async def details(self) -> str:
        """The changes as a person who approves them sees them: sizes, and differences of texts, shortened."""

    async def commit(self, *, outward_links: bool = False) -> None:
        """Make the origin equal to this fork; may be repeated, also after a kill.

        Args:
            outward_links: Whether links that lead out of it are made, too: a person has seen and approved them.

        Raises:
            UserError: Something else has changed the origin meanwhile, or a link leads out of it.
        """

    async def close(self) -> None:
        """Stop what runs in it; a fork is removed."""


@dataclass(frozen=True, kw_only=True)
class ExecutableTool:
    """A tool that a run executes.

    Attributes:
        declaration: Name, description and parameters, as the model sees them.
        call: Executes a call; its value becomes the result (`result_of`), an exception an error result.
        seconds: Time limit of one call.
        result_chars: Maximum length of the result in the prompt; the complete result stays in the store.
        status: Looks up the outcome of a call whose process was killed: its result, or None if it never took effect.
        is_thread: Whether a call runs in a thread, which goes on when the call is cancelled.
        asks: Whether each call needs an approval, whatever the run's mode is.
        source: Origin, for lists and the run's configuration: `python:module:function`, `mcp:NAME`.
        world: What it reads and changes, if that can be forked.
    """

    declaration: Tool
    call: Call
    effect: Effect = "write"
    seconds: float = CALL_S
    result_chars: int = RESULT_CHARS
    concurrency: int = 8
    status: Callable[[ToolCallContext], Awaitable[object | None]] | None = None
    is_thread: bool = False
    asks: bool = False
    source: str = ""
    world: World | None = None

    @property
    def name(self) -> str:
        """The name by which the model calls it."""
        return self.declaration.name

    def fault(self, arguments: str) -> str:
        """The reason why arguments, as the model wrote them, are invalid; empty if they are valid."""
        schema = self.declaration.parameters or {"type": "object"}
        return schema_fault(arguments or "{}", schema)


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    effect: Effect | None = None,
    **options: Any,
) -> Any:
    """Make a tool from a function, as a call or as a decorator, with options or without (`tool_of`).

    Args:
        effect: "read", "idempotent" or "write", which is the default: a write is never repeated, and needs an approval.
        options: Further fields of `ExecutableTool`, such as `seconds`.

    Raises:
        UserError: The signature has no schema; the message names the parameter.
    """

    def made(function: Callable[..., Any]) -> ExecutableTool:
        return tool_of(function, name=name, description=description, effect=effect, **options)

    return made if function is None else made(function)


def tool_of(
    function: Callable[..., Any],
    *,
    name: str | None = None,
    description: str | None = None,
    effect: Effect | None = None,
    **options: Any,
) -> ExecutableTool:
    """Make a tool from a function: its schema from the signature, its descriptions from the docstring (Google style).

    A tool of LangChain keeps its schema; its effect may be in its `metadata`: `{"effect": "read"}`. A synchronous
    function runs in a thread. A parameter annotated `ToolCallContext` receives the context, one named
    `idempotency_key` the key; neither is in the schema.

    Args:
        effect: Default: the function's attribute `effect`, else "write".
        options: Further fields of `ExecutableTool`.

    Raises:
        UserError: The signature has no schema; the message names the parameter.
    """
    if _is_of_langchain(function):
        return _from_langchain(function, name=name, description=description, effect=effect, **options)
    label = name or str(getattr(function, "__name__", type(function).__name__))
    if not callable(function):
        raise UserError(f"{label!r} is not callable", hint="pass a function")
    summary, documented = _docstring(function)
    model, hidden = _arguments_model(function, label, documented)
    schema = _clean(model.model_json_schema())
    adapter = TypeAdapter(model)
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)

    async def call(arguments: Mapping[str, JsonValue], context: ToolCallContext) -> object:
        try:
            parsed = adapter.validate_python(dict(arguments))
        except ValidationError as e:
            raise InvalidArguments(
                "; ".join(f"{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in e.errors()[:3])
            ) from e
        values = {n: getattr(parsed, n) for n in type(parsed).model_fields}
        values |= {n: context if kind == "context" else context.idempotency_key for n, kind in hidden.items()}
        if is_async:
            return await function(**values)
        value = await asyncio.to_thread(function, **values)
        return await value if inspect.isawaitable(value) else value

    try:
        declaration = Tool(name=label, description=description or summary, parameters=schema)
    except ValidationError as e:
        raise UserError(
            f"{label!r} cannot be the name of a tool", hint="use letters, digits, _ . : -, at most 128"
        ) from e
    module = getattr(function, "__module__", "")
    return ExecutableTool(
        declaration=declaration,
        call=call,
        is_thread=not is_async,
        effect=effect or getattr(function, "effect", None) or "write",
        source=options.pop("source", f"python:{module}:{getattr(function, '__qualname__', label)}"),
        **options,
    )


def schema_tool(
    name: str, description: str, parameters: dict[str, JsonValue], call: Callable[..., object], **options: Any
) -> ExecutableTool:
    """Make a tool from a JSON Schema and a function, which gets the arguments by name and must not block."""
    check_schema(parameters)

    async def execute(arguments: Mapping[str, JsonValue], _context: ToolCallContext) -> object:
        value = call(**arguments)
        return await value if inspect.isawaitable(value) else value

    return ExecutableTool(
        declaration=Tool(name=name, description=description, parameters=parameters), call=execute, **options
    )


def tool_spec(tool: object) -> str:
    """The string by which a run's configuration names a tool of this process."""
    if isinstance(tool, str):
        return tool
    if isinstance(tool, ExecutableTool):
        return tool.source or f"object:{tool.name}"
    if _is_of_langchain(tool):
        return f"object:{getattr(tool, 'name', '')}"
    return f"python:{getattr(tool, '__module__', '')}:{getattr(tool, '__qualname__', type(tool).__qualname__)}"


def _is_of_langchain(tool: object) -> bool:
    return hasattr(type(tool), "tool_call_schema") and hasattr(tool, "ainvoke")


def _from_langchain(
    tool: Any, *, name: str | None, description: str | None, effect: Effect | None, **options: Any
) -> ExecutableTool:
    schema = tool.tool_call_schema  # without what LangChain injects
    parameters = schema if isinstance(schema, dict) else schema.model_json_schema()

    async def call(arguments: Mapping[str, JsonValue], context: ToolCallContext) -> ToolResult:
        request = {"type": "tool_call", "name": tool.name, "args": dict(arguments), "id": context.intent}
        message = await tool.ainvoke(request)
        return result_of(ToolResult(text=str(message.text), is_error=message.status == "error"))

    return ExecutableTool(
        declaration=Tool(
            name=name or tool.name, description=description or tool.description, parameters=_clean(parameters)
        ),
        call=call,
        effect=effect or (tool.metadata or {}).get("effect") or "write",
        source=options.pop("source", f"object:{tool.name}"),
        **options,
    )


class InvalidArguments(Exception):
    """The arguments are invalid; the text is for the model."""


class OutcomeUnknown(Exception):
    """Raised by a tool whose call may or may not have taken effect, such as after a lost connection."""


# -- results


def result_of(value: object) -> ToolResult:
    """The result for a tool's return value: text unchanged, everything else as JSON.

    Bytes and values without a JSON form become an error that names the type.
    """
    if isinstance(value, ToolResult):
        return value.model_copy(update={"text": cut(value.text, MAX_STORED_CHARS)})
    if isinstance(value, str):
        return ToolResult(text=cut(value, MAX_STORED_CHARS))
    if isinstance(value, bytes | bytearray | memoryview):
        return ToolResult(text=f"Error: the tool returned {len(value):,} bytes, not text", is_error=True)
    try:
        dumped = TypeAdapter(Any).dump_python(value, mode="json") if _has_model(value) else value
        text = json.dumps(dumped, ensure_ascii=False, allow_nan=False)
    except Exception:  # noqa: BLE001 - any type may be returned, and raise anything when it is serialized
        return ToolResult(
            text=f"Error: the tool returned a {type(value).__name__}, which has no JSON form", is_error=True
        )
    return ToolResult(text=cut(text, MAX_STORED_CHARS))


def error_result(error: BaseException | str) -> ToolResult:
    """The result of a call that failed."""
    text = error if isinstance(error, str) else (str(error).strip() or type(error).__name__)
    return ToolResult(text=f"Error: {cut(text, 2_000)}", is_error=True)


def cut(text: str, limit: int, *, call: str = "") -> str:
    """Shorten a text to about `limit` characters: its beginning and end, with a line that states what is left out.

    Args:
        call: ID with which `read_result` reads the rest; empty if the tool is not offered.
    """
    if len(text) <= limit:
        return text
    head, tail = (limit + 1) // 2, limit // 2
    rest = f"; {READ_RESULT}(call={call!r}, start={head}) returns more" if call else ""
    left_out = f"[… {len(text) - limit:,} of {len(text):,} characters left out{rest} …]"
    return f"{text[:head]}\n{left_out}\n{text[len(text) - tail :]}"


def _has_model(value: object) -> bool:
    if isinstance(value, BaseModel) or is_dataclass(value):
        return True
    if isinstance(value, Mapping):
        return any(map(_has_model, value.values()))
    return (isinstance(value, list | tuple | set | frozenset) and any(map(_has_model, value))) or isinstance(
        value, set | frozenset
    )


# -- schemas from signatures


def _arguments_model(
    function: Callable[..., Any], label: str, documented: Mapping[str, str]
) -> tuple[type[BaseModel], dict[str, Literal["context", "key"]]]:
    """A model of the arguments, and the parameters that are not in the schema."""
    try:
        signature = inspect.signature(function)
        target = function if inspect.isroutine(function) else type(function).__call__
        hints = get_type_hints(target, include_extras=True)
    except (TypeError, ValueError, NameError) as e:
        raise UserError(f"the signature of {label!r} cannot be read: {e}", hint="annotate its parameters") from e
    fields: dict[str, Any] = {}
    hidden: dict[str, Literal["context", "key"]] = {}
    for name, parameter in signature.parameters.items():
        kind = hints.get(name, Any)
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise UserError(
                f"parameter {name!r} of the tool {label!r} cannot be passed by name",
                hint="use ordinary parameters only",
            )
        if kind is ToolCallContext:
            hidden[name] = "context"
        elif name == KEY_PARAMETER:
            hidden[name] = "key"
        else:
            default = ... if parameter.default is parameter.empty else parameter.default
            described = Field(default=default, description=documented.get(name))
            fields[name] = (kind, described)
    try:
        config = ConfigDict(extra="forbid")
        return create_model(f"{label}_arguments", __config__=config, **fields), hidden
    except (PydanticSchemaGenerationError, PydanticUserError, NameError) as e:
        first = str(e).splitlines()[0]
        raise UserError(
            f"the tool {label!r} has a parameter without a JSON form: {first}",
            hint="annotate it with a type that pydantic has a schema for",
        ) from e


_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns|Raises|Yields|Examples?|Note)s?:\s*$")
_ARGUMENT = re.compile(r"^(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")


def _docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """The description of the function, and of each parameter."""
    lines = (inspect.getdoc(function) or "").splitlines()
    description: list[str] = []
    arguments: dict[str, str] = {}
    section, last = "", ""
    for line in lines:
        if match := _SECTION.match(line):
            section = match[1]
        elif not section:
            description.append(line)
        elif section in ("Args", "Arguments", "Parameters") and line.strip():
            indent = len(line) - len(line.lstrip())
            named = _ARGUMENT.match(line.strip())
            if named and indent <= 4:
                last, arguments[named[1]] = named[1], named[2]
            elif last:
                arguments[last] = f"{arguments[last]} {line.strip()}".strip()
    return "\n".join(description).strip(), arguments


def _clean(schema: JsonValue) -> Any:
    """The schema without the titles that pydantic derives from names."""
    if isinstance(schema, list):
        return [_clean(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {n: _clean(s) for n, s in value.items()}
        if key in ("properties", "$defs") and isinstance(value, dict)
        else _clean(value)
        for key, value in schema.items()
        if key != "title"
    }
