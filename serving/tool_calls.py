"""`ToolCallParser`: calls of tools in what a model writes, piece by piece, as Qwen's, Hermes' and SmolLM2's families do.

    <tool_call>                                       an object, or a list of objects (SmolLM2); as many as it likes,
    {"name": "add", "arguments": {"a": 1}}            with or without text around them
    </tool_call>

    [{"name": "add", "arguments": {"a": 1}}]          the whole reply: a list, or a single object

Reading is strict: a call is an object of exactly these two fields, the name is that of an offered tool, the arguments
are an object. What is no call stays text, character by character. Thoughts (`<think>`) are never read for calls.

`ToolCallAdapter`: requests with tools, asked of a model that writes plain text: its calls are read out of what it writes.

A tool that is to be called ("required", or one by its name) is made sure of by the beginning of the reply and a JSON
schema for the rest of it: one call, whose arguments satisfy the tool's own schema. A sample that is cut before its end
is no call, and stays the text that it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..core.errors import CapabilityMissing, UserError
from ..core.json_schema import JsonSchema, enum_schema, object_schema
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

if TYPE_CHECKING:
    from .local.tokenizer import ToolSupport

OPEN, CLOSE = "<tool_call>", "</tool_call>"
"""What stands around calls."""
TRIAL_TOOL: Final = Tool(name="look_up", description="Looks a word up in a dictionary.")
"""Makes a prompt longer wherever tools are shown to the model."""
_THINK, _THOUGHT = "<think>", "</think>"


class ToolCallParser:
    """Takes a reply apart while it is written: its text, as soon as that can be no part of a call, and its calls.

    However the reply is cut into pieces, the same text and calls come of it.

    Args:
        names: Names of the tools that may be called.
        whole: Whether the whole reply is one call or list of calls, without anything around it.

    Attributes:
        calls: The calls so far, in order.
    """

    def __init__(self, names: Collection[str], *, whole: bool = False) -> None:
        self.calls: list[ToolCall] = []
        self._names = names
        self._pending = ""
        self._state = "whole" if whole else "begin"

    def push(self, piece: str) -> str:
        """Take a piece; returns the text that is now certain."""
        self._pending += piece
        told = ""
        while (certain := self._step()) is not None:
            told += certain
        return told

    def finish(self) -> str:
        """The rest of the text, at the end of the reply."""
        before = ""
        if self._state in ("whole", "plain"):
            found = parse_call_json(self._pending, self._names)
            if found is not None:
                self.calls += found
                return ""
            if self._state == "plain":
                self._state = "free"
                before = self.push("")
        told, self._pending = self._pending, ""
        return before if self.calls and not told.strip() else before + told

    def _step(self) -> str | None:
        """Text that has become certain; None if more has to come first."""
        pending = self._pending
        match self._state:
            case "begin":
                start = pending.lstrip()
                if not start or (_THINK.startswith(start) and start != _THINK):
                    return None
                self._state = "think" if start.startswith(_THINK) else "plain" if start[0] in "[{" else "free"
                return ""
            case "think":
                end = pending.find(_THOUGHT)
                if end >= 0:
                    self._state = "begin"
                    return self._take(end + len(_THOUGHT))
                return self._take_all_but(_overlap(pending, _THOUGHT))
            case "free":
                return self._free(pending)
        return None  # the whole of it is looked at in the end

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
        found = parse_call_json(pending[start + len(OPEN) : end], self._names)
        if found is None:
            return self._take(stop)
        self.calls += found
        self._take(stop)
        return ""

    def _take(self, count: int) -> str:
        taken, self._pending = self._pending[:count], self._pending[count:]
        return taken

    def _take_all_but(self, held: int) -> str | None:
        return self._take(len(self._pending) - held) or None


def parse_tool_calls(text: str, names: Collection[str], *, whole: bool = False) -> tuple[str, tuple[ToolCall, ...]]:
    """A reply's text without its calls, and the calls.

    Args:
        text: What was written.
        names: Names of the tools that may be called.
        whole: See `ToolCallParser`.
    """
    reader = ToolCallParser(names, whole=whole)
    rest = reader.push(text)
    rest += reader.finish()
    return rest, tuple(reader.calls)


def parse_call_json(text: str, names: Collection[str]) -> list[ToolCall] | None:
    """The calls of a JSON object or list; None if it is anything else, or one of them is none."""
    try:
        read: Any = parse_json(text)
    except ValueError:
        return None
    listed = read if isinstance(read, list) else [read]
    if not listed or not all(_is_call(one, names) for one in listed):
        return None
    return [ToolCall(name=one["name"], arguments=json.dumps(one["arguments"], ensure_ascii=False)) for one in listed]


def with_call_ids(calls: Sequence[ToolCall], request: Request, index: int) -> tuple[ToolCall, ...]:
    """Calls with names of their own: the same ones whenever the sample is made again, others in every turn.

    Args:
        calls: The calls of one sample.
        request: What was asked.
        index: Which sample.
    """
    if all(call.id for call in calls):
        return tuple(calls)
    asked = request.prompt.model_dump_json()

    def name(place: int, call: ToolCall) -> str:
        told = json.dumps([asked, request.sampling.seed, index, place, call.name, call.arguments])
        return f"call_{hashlib.sha256(told.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"

    return tuple(call if call.id else call.model_copy(update={"id": name(i, call)}) for i, call in enumerate(calls))


def with_tool_calls(completion: Completion, request: Request, *, whole: bool = False) -> Completion:
    """A sample as it was written, with its calls read out of its text.

    Args:
        completion: The sample.
        request: What was asked, with its tools.
        whole: See `ToolCallParser`.
    """
    text, calls = parse_tool_calls(completion.text, [tool.name for tool in request.prompt.tools], whole=whole)
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
    """Length of an end that may be blanks before a call, and the beginning of its mark."""
    begun = _overlap(text, OPEN)
    before = text[: len(text) - begun]
    return begun + len(before) - len(before.rstrip())


def _overlap(text: str, mark: str) -> int:
    """Length of the longest end of a text that begins a mark and is not all of it."""
    return next((n for n in range(min(len(text), len(mark) - 1), 0, -1) if text.endswith(mark[:n])), 0)


_DEFINITIONS: Final = ("$defs", "definitions")
"""Where schemas keep what they refer to; references begin at a schema's root."""


class HasToolTemplate(Protocol):
    """What is known of a model's tokenizer here."""

    @property
    def tool_support(self) -> ToolSupport:
        """What its chat template makes of tools."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request as the model gets it, and whether its whole reply is to be a call."""

    request: Request
    whole: bool


class ToolCallAdapter:
    """The requests of one call, some of which have tools.

    Args:
        requests: As they were asked.
        tokenizer: The model's.
        model: Its name, for messages.
        holds: Whether its texts can be held to a JSON schema.

    Raises:
        CapabilityMissing: The chat template shows no tools; or one is to be called, and texts cannot be held to a
            schema.
        UserError: Two tools' schemas have definitions of one name.
    """

    def __init__(self, requests: Sequence[Request], tokenizer: HasToolTemplate, model: str, *, holds: bool) -> None:
        self._requests = requests
        self._asked = [_asked(request, tokenizer, model, holds=holds) for request in requests]

    @property
    def requests(self) -> list[Request]:
        """As the model gets them."""
        return [asked.request for asked in self._asked]

    def hearing(self, listener: Listener | None) -> Listener | None:
        """A listener of the model that tells another one the text without calls; those come with the completion."""
        if listener is None:
            return None
        readers: dict[tuple[int, int], ToolCallParser] = {}

        def hear(chunk: Chunk) -> None:
            request = self._requests[chunk.request]
            if not request.prompt.tools:
                listener(chunk)
                return
            slot = chunk.request, chunk.sample_index
            reader = readers.get(slot)
            if reader is None:
                names = [tool.name for tool in request.prompt.tools]
                reader = readers[slot] = ToolCallParser(names, whole=self._asked[chunk.request].whole)
            text = reader.push(chunk.text)
            completion = chunk.completion
            if completion is not None:
                text += reader.finish()
                completion = self._read(chunk.request, completion)
                del readers[slot]
            listener(chunk.model_copy(update={"text": text, "completion": completion}))

        return hear

    def read(self, made: Sequence[Sequence[Completion]]) -> list[list[Completion]]:
        """The samples with their calls."""
        return [[self._read(i, completion) for completion in samples] for i, samples in enumerate(made)]

    def _read(self, i: int, completion: Completion) -> Completion:
        request = self._requests[i]
        if not request.prompt.tools or not completion.ok:
            return completion
        return with_tool_calls(completion, request, whole=self._asked[i].whole)


def call_schema(tools: Sequence[Tool]) -> JsonSchema:
    """The JSON schema of one call of one of the tools.

    Raises:
        UserError: Two tools' schemas have definitions of one name, which differ.
    """
    shared: JsonSchema = {}
    calls: list[JsonSchema] = []
    for tool in tools:
        arguments = dict(tool.parameters) or {"type": "object", "additionalProperties": False}
        for where in _DEFINITIONS:
            found = arguments.pop(where, None)
            known = shared.setdefault(where, {}) if isinstance(found, dict) else None
            if isinstance(found, dict) and isinstance(known, dict):
                clash = next((name for name in found if name in known and known[name] != found[name]), None)
                if clash is not None:
                    raise UserError(
                        f"two tools define {clash!r} differently in their parameters",
                        hint="give the definitions names of their own",
                        param="tools",
                    )
                known.update(found)
        calls.append(object_schema({"name": enum_schema([tool.name]), "arguments": arguments}))
    only: JsonSchema = calls[0] if len(calls) == 1 else {"anyOf": [*calls]}
    return {**only, **shared}


def _asked(request: Request, tokenizer: HasToolTemplate, model: str, *, holds: bool) -> _Asked:
    prompt, sampling = request.prompt, request.sampling
    if not prompt.tools:
        return _Asked(request, False)
    forms = tokenizer.tool_support
    if not forms.renders_tools:
        raise CapabilityMissing("tools", model, alternative="")
    if prompt.tool_choice == TOOL_CHOICE_AUTO:
        return _Asked(request, False)
    if not holds:
        raise CapabilityMissing(f"tool_choice={prompt.tool_choice}", model, alternative="")
    wanted = [tool for tool in prompt.tools if prompt.tool_choice in (TOOL_CHOICE_REQUIRED, tool.name)]
    begins = f"{OPEN}\n" if forms.uses_tags else ""
    if begins and isinstance(prompt.prefix, str):
        prompt = prompt.with_prefix(prompt.prefix + begins)
    held = sampling.model_copy(update={"json_schema": call_schema(wanted), "ignore_eos": False})
    return _Asked(request.model_copy(update={"prompt": prompt, "sampling": held}), True)
