"""`CallReader`: calls of tools in what a model writes, piece by piece, as Qwen's, Hermes' and SmolLM2's families do.

    <tool_call>                                       an object, or a list of objects (SmolLM2); as many as it likes,
    {"name": "add", "arguments": {"a": 1}}            with or without text around them
    </tool_call>

    [{"name": "add", "arguments": {"a": 1}}]          the whole reply: a list, or a single object

Reading is strict: a call is an object of exactly these two fields, the name is that of an offered tool, the arguments
are an object. What is no call stays text, character by character. Thoughts (`<think>`) are never read for calls.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from typing import Any, Final

from ..core.messages import Completion, Request
from ..core.tools import Tool, ToolCall, read_json

OPEN, CLOSE = "<tool_call>", "</tool_call>"
"""What stands around calls."""
TRIAL_TOOL: Final = Tool(name="look_up", description="Looks a word up in a dictionary.")
"""Makes a prompt longer wherever tools are shown to the model."""
_THINK, _THOUGHT = "<think>", "</think>"


class CallReader:
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
            found = read_object(self._pending, self._names)
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
        found = read_object(pending[start + len(OPEN) : end], self._names)
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


def read_calls(text: str, names: Collection[str], *, whole: bool = False) -> tuple[str, tuple[ToolCall, ...]]:
    """A reply's text without its calls, and the calls.

    Args:
        text: What was written.
        names: Names of the tools that may be called.
        whole: See `CallReader`.
    """
    reader = CallReader(names, whole=whole)
    rest = reader.push(text)
    rest += reader.finish()
    return rest, tuple(reader.calls)


def read_object(text: str, names: Collection[str]) -> list[ToolCall] | None:
    """The calls of a JSON object or list; None if it is anything else, or one of them is none."""
    try:
        read: Any = read_json(text)
    except ValueError:
        return None
    listed = read if isinstance(read, list) else [read]
    if not listed or not all(_is_call(one, names) for one in listed):
        return None
    return [ToolCall(name=one["name"], arguments=json.dumps(one["arguments"], ensure_ascii=False)) for one in listed]


def with_ids(calls: Sequence[ToolCall], request: Request, index: int) -> tuple[ToolCall, ...]:
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


def with_calls(completion: Completion, request: Request, *, whole: bool = False) -> Completion:
    """A sample as it was written, with its calls read out of its text.

    Args:
        completion: The sample.
        request: What was asked, with its tools.
        whole: See `CallReader`.
    """
    text, calls = read_calls(completion.text, [tool.name for tool in request.prompt.tools], whole=whole)
    if not calls:
        return completion
    return completion.model_copy(update={"text": text, "tool_calls": with_ids(calls, request, completion.sample_index)})


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
