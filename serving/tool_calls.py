"""Tool calls: parsed from the text that a model writes, and requested of models that write plain text.

    <tool_call>                                       an object, or a list of objects (SmolLM2); any number of them,
    {"name": "add", "arguments": {"a": 1}}            with or without text around them
    </tool_call>

    [{"name": "add", "arguments": {"a": 1}}]          the complete response: a list, or a single object

These are the formats of the Qwen, Hermes and SmolLM2 families. Parsing is strict: a call is an object of exactly these
two fields, the name is that of an offered tool, the arguments are an object. Everything else is text. Only answers are
parsed: thoughts were separated from them before.

A call that is required ("required", or one tool by its name) is enforced by the beginning of the response and a JSON
schema for the rest of it: one call, whose arguments satisfy the tool's own schema. A sample that is truncated is no
call, but text.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ..core.errors import CapabilityMissing, UserError
from ..core.json_schema import JsonSchema
from ..core.messages import (
    TOOL_CHOICE_AUTO,
    TOOL_CHOICE_REQUIRED,
    Chunk,
    Completion,
    Request,
    Tool,
    ToolCall,
    parse_json,
)
from .model import Listener
from .output_schemas import enum_schema, object_schema

OPEN, CLOSE = "<tool_call>", "</tool_call>"
"""What is around calls."""
TRIAL_TOOL: Final = Tool(name="look_up", description="Looks a word up in a dictionary.")
"""Makes a prompt longer wherever tools are shown to the model."""


@dataclass(frozen=True, slots=True)
class ToolSupport:
    """What a chat template supports of tools.

    Attributes:
        renders_tools: Whether it lists the tools.
        renders_calls: Whether it renders calls and tool results in earlier messages.
        uses_tags: Whether it instructs the model to put its calls between `<tool_call>` and `</tool_call>`.
    """

    renders_tools: bool = False
    renders_calls: bool = False
    uses_tags: bool = False


class ToolCallParser:
    """Parses a response while it is streamed: text is returned as soon as it cannot be part of a call.

    The result does not depend on how the response is split into pieces.

    Args:
        names: Names of the tools that may be called.
        whole_response: Whether the response is one call or list of calls, without anything around it.

    Attributes:
        calls: The calls so far, in order.
    """

    def __init__(self, names: Collection[str], *, whole_response: bool = False) -> None:
        self.calls: list[ToolCall] = []
        self._names = names
        self._pending = ""
        self._state = "whole" if whole_response else "begin"

    def push(self, piece: str) -> str:
        """Add a piece; returns the text that cannot be part of a call."""
        self._pending += piece
        text = ""
        while (certain := self._step()) is not None:
            text += certain
        return text

    def finish(self) -> str:
        """The rest of the text, at the end of the response."""
        before = ""
        if self._state in ("whole", "plain"):
            calls = parse_call_json(self._pending, self._names)
            if calls is not None:
                self.calls += calls
                return ""
            if self._state == "plain":
                self._state = "free"
                before = self.push("")
        text, self._pending = self._pending, ""
        return before if self.calls and not text.strip() else before + text

    def _step(self) -> str | None:
        """Text that cannot be part of a call; None if more input is needed first."""
        pending = self._pending
        match self._state:
            case "begin":
                start = pending.lstrip()
                if not start:
                    return None
                self._state = "plain" if start[0] in "[{" else "free"
                return ""
            case "free":
                return self._free(pending)
        return None  # parsed in `finish`

    def _free(self, pending: str) -> str | None:
        start = pending.find(OPEN)
        if start < 0:
            return self._take_all_but(_held(pending))
        before = pending[:start].rstrip()
        if before:
            return self._take(len(before))
        end = pending.find(CLOSE, start)
        if end < 0:
            return None
        stop = end + len(CLOSE)
        calls = parse_call_json(pending[start + len(OPEN) : end], self._names)
        if calls is None:
            return self._take(stop)
        self.calls += calls
        self._take(stop)
        return ""

    def _take(self, count: int) -> str:
        taken, self._pending = self._pending[:count], self._pending[count:]
        return taken

    def _take_all_but(self, held: int) -> str | None:
        return self._take(len(self._pending) - held) or None


def parse_tool_calls(
    text: str, names: Collection[str], *, whole_response: bool = False
) -> tuple[str, tuple[ToolCall, ...]]:
    """A response's text without its calls, and the calls. Arguments as `ToolCallParser`."""
    reader = ToolCallParser(names, whole_response=whole_response)
    rest = reader.push(text)
    rest += reader.finish()
    return rest, tuple(reader.calls)


def parse_call_json(text: str, names: Collection[str]) -> list[ToolCall] | None:
    """The calls in a JSON object or list; None if it is anything else, or one element is no call."""
    try:
        read: Any = parse_json(text)
    except ValueError:
        return None
    listed = read if isinstance(read, list) else [read]
    if not listed or not all(_is_call(one, names) for one in listed):
        return None
    return [ToolCall(name=one["name"], arguments=json.dumps(one["arguments"], ensure_ascii=False)) for one in listed]


def with_call_ids(calls: Sequence[ToolCall], request: Request, index: int) -> tuple[ToolCall, ...]:
    """Calls with ids: the same ones whenever the sample is generated again, different ones in every turn."""
    if all(call.id for call in calls):
        return tuple(calls)
    adapted = request.prompt.model_dump_json()

    def name(position: int, call: ToolCall) -> str:
        text = json.dumps([adapted, request.sampling.seed, index, position, call.name, call.arguments])
        return f"call_{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"

    return tuple(call if call.id else call.model_copy(update={"id": name(i, call)}) for i, call in enumerate(calls))


_SHORT_ID = re.compile("[a-zA-Z0-9]{9}")


def shorten_call_ids(messages: Sequence[dict[str, Any]]) -> None:
    """Put ids in Mistral's form, of nine letters and digits, in place of others: those of an earlier model's calls.

    Args:
        messages: Messages in OpenAI's form, which are changed.
    """
    for message in messages:
        for call in message.get("tool_calls") or ():
            call["id"] = _short_id(call["id"])
        if "tool_call_id" in message:
            message["tool_call_id"] = _short_id(message["tool_call_id"])


def _short_id(call_id: str) -> str:
    digest = hashlib.sha256(call_id.encode("utf-8", "surrogatepass")).hexdigest()
    return call_id if _SHORT_ID.fullmatch(call_id) else digest[:9]


def with_tool_calls(completion: Completion, request: Request, *, whole_response: bool = False) -> Completion:
    """A sample with the calls parsed from its text."""
    text, calls = parse_tool_calls(
        completion.text, [tool.name for tool in request.prompt.tools], whole_response=whole_response
    )
    if not calls:
        return completion
    return completion.model_copy(
        update={"text": text, "tool_calls": with_call_ids(calls, request, completion.sample_index)}
    )


def _is_call(value: Any, names: Collection[str]) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"name", "arguments"}
        and isinstance(value["name"], str)
        and value["name"] in names
        and isinstance(value["arguments"], dict)
    )


def _held(text: str) -> int:
    """Length of a suffix that may be white space before a call and the beginning of its mark."""
    begun = _overlap(text, OPEN)
    before = text[: len(text) - begun]
    return begun + len(before) - len(before.rstrip())


def _overlap(text: str, mark: str) -> int:
    """Length of the longest suffix of a text that is a proper prefix of a mark."""
    return next((n for n in range(min(len(text), len(mark) - 1), 0, -1) if text.endswith(mark[:n])), 0)


_DEFINITIONS: Final = ("$defs", "definitions")
"""Where schemas keep what they refer to; references begin at a schema's root."""


class HasToolTemplate(Protocol):
    """A tokenizer whose chat template may support tools."""

    @property
    def tool_support(self) -> ToolSupport: ...


@dataclass(frozen=True, slots=True)
class _AdaptedRequest:
    """A request as it is sent to the model, and whether its response must be a call."""

    request: Request
    whole_response: bool


class ToolCallAdapter:
    """The requests of one `generate` call, some of which have tools.

    Args:
        requests: The caller's requests.
        tokenizer: The model's tokenizer.
        model: Its name, for messages.
        holds: Whether its texts can be constrained to a JSON schema.

    Raises:
        CapabilityMissing: The chat template has no tools; or a call is required, and texts cannot be constrained to a
            schema.
        UserError: Two tools' schemas have different definitions of one name.
    """

    def __init__(self, requests: Sequence[Request], tokenizer: HasToolTemplate, model: str, *, holds: bool) -> None:
        self._requests = requests
        self._adapted = [_adapt(request, tokenizer, model, holds=holds) for request in requests]

    @property
    def requests(self) -> list[Request]:
        """The requests as they are sent to the model."""
        return [adapted.request for adapted in self._adapted]

    def hearing(self, listener: Listener | None) -> Listener | None:
        """A listener that passes on the text without calls; the calls are in the completion."""
        if listener is None:
            return None
        readers: dict[tuple[int, int], ToolCallParser] = {}

        def on_chunk(chunk: Chunk) -> None:
            request = self._requests[chunk.request]
            if not request.prompt.tools:
                listener(chunk)
                return
            slot = chunk.request, chunk.sample_index
            reader = readers.get(slot)
            if reader is None:
                names = [tool.name for tool in request.prompt.tools]
                reader = readers[slot] = ToolCallParser(
                    names, whole_response=self._adapted[chunk.request].whole_response
                )
            text = reader.push(chunk.text)
            completion = chunk.completion
            if completion is not None:
                text += reader.finish()
                completion = self._read(chunk.request, completion)
                del readers[slot]
            listener(chunk.model_copy(update={"text": text, "completion": completion}))

        return on_chunk

    def read(self, completions: Sequence[Sequence[Completion]]) -> list[list[Completion]]:
        """The samples with their calls."""
        return [[self._read(i, completion) for completion in samples] for i, samples in enumerate(completions)]

    def _read(self, i: int, completion: Completion) -> Completion:
        request = self._requests[i]
        if not request.prompt.tools or not completion.ok:
            return completion
        return with_tool_calls(completion, request, whole_response=self._adapted[i].whole_response)


def call_schema(tools: Sequence[Tool]) -> JsonSchema:
    """The JSON schema of one call of one of the tools.

    Raises:
        UserError: Two tools' schemas have different definitions of one name.
    """
    shared: JsonSchema = {}
    calls: list[JsonSchema] = []
    for tool in tools:
        arguments = dict(tool.parameters) or {"type": "object", "additionalProperties": False}
        for keyword in _DEFINITIONS:
            definitions = arguments.pop(keyword, None)
            known = shared.setdefault(keyword, {}) if isinstance(definitions, dict) else None
            if isinstance(definitions, dict) and isinstance(known, dict):
                conflict = next((n for n in definitions if n in known and known[n] != definitions[n]), None)
                if conflict is not None:
                    raise UserError(
                        f"two tools define {conflict!r} differently in their parameters",
                        hint="give each tool's definitions names of their own",
                        param="tools",
                    )
                known.update(definitions)
        calls.append(object_schema({"name": enum_schema([tool.name]), "arguments": arguments}))
    schema: JsonSchema = calls[0] if len(calls) == 1 else {"anyOf": [*calls]}
    return {**schema, **shared}


def _adapt(request: Request, tokenizer: HasToolTemplate, model: str, *, holds: bool) -> _AdaptedRequest:
    prompt, sampling = request.prompt, request.sampling
    if not prompt.tools:
        return _AdaptedRequest(request, False)
    forms = tokenizer.tool_support
    if not forms.renders_tools:
        raise CapabilityMissing("tools", model, alternative="")
    if prompt.tool_choice == TOOL_CHOICE_AUTO:
        return _AdaptedRequest(request, False)
    if not holds:
        raise CapabilityMissing(f"tool_choice={prompt.tool_choice}", model, alternative="")
    allowed_tools = [tool for tool in prompt.tools if prompt.tool_choice in (TOOL_CHOICE_REQUIRED, tool.name)]
    begins = f"{OPEN}\n" if forms.uses_tags else ""
    is_open = prompt.thought is not None and not prompt.thought.closed  # then the schema alone makes it a call
    if begins and isinstance(prompt.prefix, str) and not is_open:
        prompt = prompt.with_prefix(prompt.prefix + begins)
    held = sampling.model_copy(update={"json_schema": call_schema(allowed_tools), "ignore_eos": False})
    return _AdaptedRequest(request.model_copy(update={"prompt": prompt, "sampling": held}), True)
