"""`Calling`: requests with tools, asked of a model that writes plain text: its calls are read out of what it writes.

A tool that is to be called ("required", or one by its name) is made sure of by the beginning of the reply and a JSON
schema for the rest of it: one call, whose arguments satisfy the tool's own schema. A sample that is cut before its end
is no call, and stays the text that it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from ..core.errors import CapabilityMissing, UserError
from ..core.json_schemas import Schema, object_of, one_of
from ..core.messages import Chunk, Completion, Request
from ..core.tools import ALWAYS, FREE, Tool
from .local.chat_turns import ToolForms
from .model import Listener
from .tool_calls import OPEN, CallReader, with_calls

_DEFINITIONS: Final = ("$defs", "definitions")
"""Where schemas keep what they refer to; references begin at a schema's root."""


class ShowsTools(Protocol):
    """What is known of a model's tokenizer here."""

    @property
    def tool_forms(self) -> ToolForms:
        """What its chat template makes of tools."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request as the model gets it, and whether its whole reply is to be a call."""

    request: Request
    whole: bool


class Calling:
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

    def __init__(self, requests: Sequence[Request], tokenizer: ShowsTools, model: str, *, holds: bool) -> None:
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
        readers: dict[tuple[int, int], CallReader] = {}

        def hear(chunk: Chunk) -> None:
            request = self._requests[chunk.request]
            if not request.prompt.tools:
                listener(chunk)
                return
            slot = chunk.request, chunk.sample_index
            reader = readers.get(slot)
            if reader is None:
                names = [tool.name for tool in request.prompt.tools]
                reader = readers[slot] = CallReader(names, whole=self._asked[chunk.request].whole)
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
        return with_calls(completion, request, whole=self._asked[i].whole)


def call_schema(tools: Sequence[Tool]) -> Schema:
    """The JSON schema of one call of one of the tools.

    Raises:
        UserError: Two tools' schemas have definitions of one name, which differ.
    """
    shared: Schema = {}
    calls: list[Schema] = []
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
        calls.append(object_of({"name": one_of([tool.name]), "arguments": arguments}))
    only: Schema = calls[0] if len(calls) == 1 else {"anyOf": [*calls]}
    return {**only, **shared}


def _asked(request: Request, tokenizer: ShowsTools, model: str, *, holds: bool) -> _Asked:
    prompt, sampling = request.prompt, request.sampling
    if not prompt.tools:
        return _Asked(request, False)
    forms = tokenizer.tool_forms
    if not forms.shows_tools:
        raise CapabilityMissing("tools", model, alternative="")
    if prompt.tool_choice == FREE:
        return _Asked(request, False)
    if not holds:
        raise CapabilityMissing(f"tool_choice={prompt.tool_choice}", model, alternative="")
    wanted = [tool for tool in prompt.tools if prompt.tool_choice in (ALWAYS, tool.name)]
    begins = f"{OPEN}\n" if forms.tagged else ""
    if begins and isinstance(prompt.prefix, str):
        prompt = prompt.with_prefix(prompt.prefix + begins)
    held = sampling.model_copy(update={"json_schema": call_schema(wanted), "ignore_eos": False})
    return _Asked(request.model_copy(update={"prompt": prompt, "sampling": held}), True)
