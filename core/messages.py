"""What is sent to a model and what it returns: `Prompt`, `SamplingParams`, `Request`, `Completion`, tools and calls.

Plain frozen values with JSON forms; no tokenizer, no model. All log-probabilities are natural logarithms of the *raw*
distribution (before temperature, truncation or logits processors); entropies are in nats.

Tools have the shapes of OpenAI's API. They are never executed here: a call is returned to the caller, who answers it
with a message of the role "tool".
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, model_validator


class Frozen(BaseModel):
    """Base of all values: immutable, compared by content, no unknown fields. Infinities are strings in its JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings", defer_build=True)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other values of some fields, which are not validated.

        Equal to pydantic's, in half of its time: a run does few things as often.
        """
        if deep or self.__pydantic_private__:
            return super().model_copy(update=update, deep=deep)
        copied = self.__class__.__new__(self.__class__)
        changes = update or {}
        _set(copied, "__dict__", {**self.__dict__, **changes})
        _set(copied, "__pydantic_fields_set__", self.__pydantic_fields_set__.union(changes))
        _set(copied, "__pydantic_extra__", None)
        _set(copied, "__pydantic_private__", None)
        return copied


_set = object.__setattr__


class EncodedOnce(Frozen):
    """A value whose JSON is needed in several places, such as the run store and the wire: it is made once and kept."""

    __slots__ = ("_encoded",)  # no field: neither compared nor copied

    def encoded(self) -> bytes:
        """Its JSON."""
        known = self.known_encoding
        if known is None:
            known = self._encode()
            _set(self, "_encoded", known)
        return known

    @property
    def known_encoding(self) -> bytes | None:
        """Its JSON, if it was made."""
        try:
            return cast(bytes, _ENCODED.__get__(self))
        except AttributeError:  # not by way of `__getattr__`, which pydantic has for private attributes
            return None

    def _encode(self) -> bytes:
        try:
            return self.__pydantic_serializer__.to_json(self)
        except ValueError:  # a lone surrogate, which JSON can escape and UTF-8 cannot encode
            return json.dumps(self.model_dump(mode="json"), separators=(",", ":")).encode()


_ENCODED: Any = EncodedOnce.__dict__["_encoded"]


TOOL_CHOICE_AUTO, TOOL_CHOICE_NONE, TOOL_CHOICE_REQUIRED = "auto", "none", "required"
"""Choices that name no tool: the model decides, it calls none, it calls at least one."""

ToolName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_.:-]{1,128}$")]
"""Letters, digits, and the punctuation that tool servers use in names."""

ToolChoice = Annotated[str, StringConstraints(min_length=1, max_length=128)]
"""`auto`, `none`, `required`, or the name of the tool to call."""


Effect = Literal["read", "idempotent", "write"]
"""What a call changes. "read": nothing, so it may be repeated and shared. "idempotent": something, but a repetition
with the same arguments changes nothing more. "write": something, each time; the default."""
ApprovalMode = Literal["never", "guard", "writes", "all"]
"""Which tool calls need an approval: none; changes that the user's own words do not name, once a result has been read;
all changes; all."""


class Tool(Frozen):
    """A function that a model may call.

    Attributes:
        parameters: JSON Schema of its arguments, an object; empty for no arguments.
        strict: Whether the arguments must follow the schema, if the provider supports that; None is the provider's
            default.
        effect: What a call changes, which the model is not shown; None if a client executes it and has not said.
    """

    name: ToolName
    description: str = ""
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    strict: bool | None = Field(default=None, exclude_if=lambda value: value is None)
    effect: Effect | None = Field(default=None, exclude_if=lambda value: value is None)

    def as_openai(self) -> dict[str, Any]:
        """The tool in OpenAI's format, which chat templates take too."""
        function: dict[str, Any] = {"name": self.name, "description": self.description}
        function["parameters"] = self.parameters or {"type": "object", "properties": {}}
        if self.strict is not None:
            function["strict"] = self.strict
        return {"type": "function", "function": function}


class ToolCall(Frozen):
    """A tool call of a model.

    Attributes:
        name: The tool. It may not exist: models invent names.
        arguments: The arguments as the model wrote them: JSON of an object, unless the model wrote something else.
        id: Id of the call, which the tool's message refers to.
    """

    name: str
    arguments: str = "{}"
    id: str = ""

    @property
    def parsed_arguments(self) -> dict[str, JsonValue] | None:
        """The arguments; None if they are not a JSON object (see `parse_json`)."""
        try:
            read = parse_json(self.arguments)
        except ValueError:
            return None
        return read if isinstance(read, dict) else None

    @property
    def text(self) -> str:
        """The call as people read it: `search(query="moon", k=3)`."""
        values = self.parsed_arguments
        pairs = (f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in (values or {}).items())
        return f"{self.name}({self.arguments if values is None else ', '.join(pairs)})"

    def as_openai(self) -> dict[str, Any]:
        """The call in OpenAI's format."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


def parse_json(text: str) -> JsonValue:
    """Parse JSON that a model wrote.

    Raises:
        ValueError: It is not JSON, nested too deep, or cannot be serialized again: a number that no float holds, or a
            lone surrogate.
    """
    try:
        value: JsonValue = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as e:
        raise ValueError("it is nested too deep") from e
    return value


def canonical_calls(calls: Iterable[ToolCall]) -> str:
    """Calls as one text: equal texts are equal calls, in the same order. Ids and spacing are left out.

    Arguments that are not a JSON object stay text.
    """
    values = [{"name": call.name, "arguments": arguments_or_text(call)} for call in calls]
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def is_canonical_calls(text: str) -> bool:
    """Whether a text is the canonical form of at least one call."""
    if not text.startswith('[{"arguments":'):
        return False
    try:
        value = parse_json(text)
    except ValueError:
        return False
    return (
        isinstance(value, list)
        and all(isinstance(c, dict) and set(c) == {"name", "arguments"} and isinstance(c["name"], str) for c in value)
        and json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False) == text
    )


def validate_tool_choice(tools: Sequence[Tool], choice: str) -> None:
    """Check that tools have unique names and that the choice is valid for them.

    Raises:
        ValueError: They have not, or it is not.
    """
    names: dict[str, None] = {}
    for tool in tools:
        if tool.name in names:
            raise ValueError(f"two tools are called {tool.name!r}")
        names[tool.name] = None
    for reserved in (TOOL_CHOICE_AUTO, TOOL_CHOICE_NONE, TOOL_CHOICE_REQUIRED):
        if reserved in names:
            raise ValueError(f"no tool may be called {reserved!r}: that is a choice")
    if choice in (TOOL_CHOICE_AUTO, TOOL_CHOICE_NONE):
        return
    if not tools:
        raise ValueError(f"tool_choice is {choice!r} and there are no tools")
    if choice != TOOL_CHOICE_REQUIRED and choice not in names:
        known = [*islice(names, 8), *(["…"] if len(names) > 8 else [])]
        raise ValueError(f"tool_choice names {choice!r}, and there is no such tool: {', '.join(known)}")


def arguments_or_text(call: ToolCall) -> JsonValue:
    """A call's arguments; their text if it is not a JSON object."""
    values = call.parsed_arguments
    return call.arguments if values is None else values


def _refuse_constant(name: str) -> JsonValue:
    """Refuse NaN and infinities, which Python reads and JSON does not have."""
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"no float holds {text[:24]}")
    return value


Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "thinking", "budget", "cancelled", "error"]

Effort = Literal["none", "minimal", "low", "medium", "high", "max"]
"""How much a model thinks before it answers; "none" is not at all."""
EFFORTS: tuple[Effort, ...] = ("none", "minimal", "low", "medium", "high", "max")
"""All efforts, the least first."""


class Thought(Frozen):
    """What a model thinks before it answers, apart from its answer.

    Attributes:
        text: The text without its tags; empty if the provider hides it.
        tokens: Its tokens, by the provider's count where there is one.
        closed: Whether the thought has ended and the answer follows.
        token_ids: Of a prompt's thought, its exact tokens, which take precedence over the text; empty if unknown.
        blocks: The provider's own form of it, signed perhaps, to be returned unchanged in a later turn.
    """

    text: str = ""
    tokens: int = 0
    closed: bool = True
    token_ids: tuple[int, ...] = Field(default=(), exclude_if=lambda value: not value)
    blocks: tuple[dict[str, JsonValue], ...] = Field(default=(), exclude_if=lambda value: not value)


AttachmentKind = Literal["image", "file"]

_SIGNATURES: dict[str, tuple[bytes, ...]] = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
    "image/webp": (b"RIFF",),
    "application/pdf": (b"%PDF-",),
}
"""Media types that are taken, with the first bytes of their content."""


class Attachment(Frozen):
    """An image or a PDF that comes with a message of the user or a tool, with its content or without (`reference`).

    Attributes:
        media_type: Media type; empty if only the address is known.
        sha256: SHA-256 of the content, or of the address.
        detail: How closely a model looks at an image ("low", "high", "auto"); empty is the model's default.
        data: The content in base64; empty in a reference.
        url: Address from which the provider reads it, instead of the content.
        position: Number of characters of the message's text that precede it; None is all of them.
    """

    kind: AttachmentKind
    media_type: str = ""
    sha256: str
    name: Annotated[str, StringConstraints(max_length=255)] = ""
    detail: Annotated[str, StringConstraints(max_length=20)] = Field(default="", exclude_if=lambda value: not value)
    data: str = Field(default="", exclude_if=lambda value: not value)
    url: str = Field(default="", exclude_if=lambda value: not value)
    position: Annotated[int, Field(ge=0)] | None = Field(default=None, exclude_if=lambda value: value is None)

    @classmethod
    def of(cls, content: bytes, *, name: str = "", media_type: str = "", detail: str = "") -> Attachment:
        """An attachment with its content; its type is read from the first bytes.

        Raises:
            ValueError: It is no PNG, JPEG, GIF, WebP or PDF, or not of the media type that is given.
        """
        found = next((t for t, starts in _SIGNATURES.items() if content.startswith(starts)), None)
        if found is None or (found == "image/webp" and content[8:12] != b"WEBP"):
            raise ValueError("it is no PNG, JPEG, GIF, WebP or PDF")
        if media_type and media_type.lower() not in (found, found.replace("jpeg", "jpg")):
            raise ValueError(f"its media type is {found}, not {media_type[:100]}")
        return cls(
            kind="file" if found == "application/pdf" else "image",
            media_type=found,
            sha256=hashlib.sha256(content).hexdigest(),
            name=name,
            detail=detail,
            data=base64.b64encode(content).decode(),
        )

    @classmethod
    def at(cls, url: str, kind: AttachmentKind, *, detail: str = "") -> Attachment:
        """An attachment that the provider reads from an address."""
        return cls(kind=kind, sha256=hashlib.sha256(url.encode()).hexdigest(), detail=detail, url=url)

    @property
    def reference(self) -> Attachment:
        """It without its content, as prompts, events and stored calls have it."""
        return self.model_copy(update={"data": ""}) if self.data else self

    @property
    def label(self) -> str:
        """What errors call it."""
        return f"{self.kind} {self.name!r}" if self.name else self.media_type or self.kind

    def as_openai(self) -> dict[str, Any]:
        """The content part of a chat in OpenAI's format."""
        address = self.url or f"data:{self.media_type};base64,{self.data}"
        if self.kind == "image":
            detail = {"detail": self.detail} if self.detail else {}
            return {"type": "image_url", "image_url": {"url": address, **detail}}
        return {"type": "file", "file": {"file_data": address, "filename": self.name or "document.pdf"}}


class Message(Frozen):
    """One message of a conversation.

    Attributes:
        content: The text; may be empty if there are tool calls.
        attachments: Images and PDFs of the user or a tool; within a run without their contents (`Run.attachments`).
        thought: Of the assistant, what it thought before; sent only to providers that require it
            (`ModelProfile.return_thoughts`).
        tool_calls: Tool calls of the assistant.
        tool_call_id: Of a message of the role "tool": the call that it answers.
        name: Of a message of the role "tool", the tool; of others, the caller's name for the speaker, which most chat
            templates ignore.
    """

    role: Role
    content: str = ""
    # empty fields are in no dump: keys of stored samples without tools do not depend on them
    tool_calls: tuple[ToolCall, ...] = Field(default=(), exclude_if=lambda value: not value)
    tool_call_id: str = Field(default="", exclude_if=lambda value: not value)
    name: str = Field(default="", exclude_if=lambda value: not value)
    thought: Thought | None = Field(default=None, exclude_if=lambda value: value is None)
    attachments: tuple[Attachment, ...] = Field(default=(), exclude_if=lambda value: not value)

    @model_validator(mode="after")
    def _only_the_assistant_calls_tools(self) -> Self:
        if self.attachments and self.role not in ("user", "tool"):
            raise ValueError(f"a message of the role {self.role} cannot have attachments")
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"a message of the role {self.role} cannot have tool calls")
        if self.tool_call_id and self.role != "tool":
            raise ValueError(f"a message of the role {self.role} cannot have a tool_call_id")
        return self


class Prompt(Frozen):
    """What the model continues: a conversation or raw text, and optionally the beginning of its response.

    Attributes:
        messages: The conversation; rendered with the model's chat template.
        text: Raw text instead of a conversation; no template is applied. Exactly one of the two is set.
        prefix: Beginning of the assistant's response, which the model continues and which is not part of the
            completion: text, or token ids (exact: text may tokenize differently at the boundary). With `text`, it
                follows the text.
        thought: Beginning of the assistant's response that comes before the prefix: an open thought, which the model
            continues, or a closed one, after which it answers. None, with a prefix: the model does not think. Only with
            messages; an open thought has no prefix.
        tools: Tools that the model may call; only with messages.
        tool_choice: "auto", "required", or the name of the tool to call. Not "none": then a prompt has no tools.
        cache_salt: Requests with different salts share no KV cache, so that the latency of a request does not reveal
            the prompts of others. It does not affect the completion: it is in no dump, and so in no key of the run
            store.
    """

    messages: tuple[Message, ...] = ()
    text: str | None = None
    prefix: str | tuple[int, ...] = ""
    thought: Thought | None = Field(default=None, exclude_if=lambda value: value is None)
    tools: tuple[Tool, ...] = Field(default=(), exclude_if=lambda value: not value)
    tool_choice: ToolChoice = Field(default=TOOL_CHOICE_AUTO, exclude_if=lambda value: value == TOOL_CHOICE_AUTO)
    cache_salt: str = Field(default="", exclude=True)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.messages) == (self.text is not None):
            raise ValueError("a prompt has either messages or text")
        if self.tools or self.tool_choice != TOOL_CHOICE_AUTO:
            validate_tool_choice(self.tools, self.tool_choice)
        if self.thought is not None and self.text is not None:
            raise ValueError("a prompt of raw text cannot have a thought: write its tags into the text")
        if self.thought is not None and not self.thought.closed and self.prefix:
            raise ValueError("a prompt with an open thought cannot have a prefix of the answer: close the thought")
        if self.text is not None and self.tools:
            raise ValueError("a prompt of raw text cannot have tools: give messages")
        if self.tool_choice == TOOL_CHOICE_NONE:
            raise ValueError("a prompt with the tool choice 'none' must have no tools")
        return self

    @classmethod
    def user(cls, content: str, *, system: str = "", prefix: str | tuple[int, ...] = "") -> Prompt:
        """A conversation of one user message."""
        head = (Message(role="system", content=system),) if system else ()
        return cls(messages=(*head, Message(role="user", content=content)), prefix=prefix)

    def with_prefix(self, prefix: str | tuple[int, ...]) -> Prompt:
        """The same prompt with another beginning of the response."""
        return self.model_copy(update={"prefix": prefix})

    def with_thought(self, thought: Thought, prefix: str | tuple[int, ...] = "") -> Prompt:
        """The same prompt with another thought, and the beginning of the answer after it."""
        return self.model_copy(update={"thought": thought, "prefix": prefix})

    def with_cache_salt(self, salt: str) -> Prompt:
        """The same prompt with a cache salt; an empty salt changes nothing."""
        return self.model_copy(update={"cache_salt": salt}) if salt else self


class LogitsProcessorSpec(Frozen):
    """A logits processor by its registered name, with its arguments."""

    name: str
    args: dict[str, JsonValue] = Field(default_factory=dict)


class SamplingParams(Frozen):
    """Sampling parameters.

    Attributes:
        temperature: 0 is greedy; None leaves it to `default_temperature`. A model that takes none refuses the request.
        default_temperature: Temperature that suits the request, used if the caller set none, the model takes one and
            does not think before the answer; a model that thinks samples as its makers recommend. None is the model's
            own.
        top_p: Nucleus mass in (0, 1]; None is the model's own.
        top_k: Number of most likely tokens kept; 0 keeps all.
        max_tokens: Maximum tokens of the answer per sample. A thought before it has its own limit.
        effort: How much the model thinks first; None is the model's default.
        thinking_tokens: Maximum tokens of the thought per sample; None is the effort's
            (`ModelProfile.thinking_tokens`).
        stop: Strings that end a sample; the text ends before the first of them. They apply to the answer, and to the
            thought only if the prompt has an open one.
        seed: Sample `i` has a generator of its own made from (seed, i), whatever shares the batch.
        top_logprobs: Alternatives reported per position.
        logprobs: Whether log-probabilities of the sampled tokens are returned.
        ignore_eos: Whether to continue after the end-of-text token until `max_tokens` (for measuring).
        logits_processors: Applied in order.
        json_schema: A JSON Schema that the answer satisfies if it ends by itself; a stop string or `max_tokens` may
            still cut it. It does not apply to a thought or to the prompt's prefix. Tokens are chosen among those that
            the schema allows, and log-probabilities stay those of the raw distribution. The properties of an object
            come in the schema's order. A model without `Capabilities.json_schema` refuses it.
    """

    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    default_temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] = 0
    max_tokens: Annotated[int, Field(ge=1)] = 512
    effort: Effort | None = None
    thinking_tokens: Annotated[int, Field(ge=0)] | None = None
    n: Annotated[int, Field(ge=1, le=4096)] = 1
    stop: tuple[str, ...] = ()
    seed: int | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=1000)] = 0
    logprobs: bool = False
    ignore_eos: bool = False
    logits_processors: tuple[LogitsProcessorSpec, ...] = ()
    json_schema: dict[str, JsonValue] | None = None

    @property
    def total_tokens(self) -> int:
        """Maximum tokens of a sample, thought and answer together."""
        return self.max_tokens + (self.thinking_tokens or 0)

    @model_validator(mode="after")
    def _json_schema_excludes_ignore_eos(self) -> Self:
        if self.json_schema is None:
            return self
        if self.ignore_eos:
            raise ValueError("ignore_eos excludes json_schema: a text that satisfies a schema has an end")
        json.dumps(self.json_schema, allow_nan=False)  # raises ValueError for invalid JSON
        return self

    @model_validator(mode="after")
    def _stop_strings_are_not_empty(self) -> Self:
        if any(not s for s in self.stop):
            raise ValueError("a stop string must not be empty")
        return self


class Request(Frozen):
    """One prompt to be sampled `n` times: the unit that counts as one model call.

    Attributes:
        sample_indices: Indices of the requested samples; None is 0..n-1. A resumed run requests the missing ones, and
            gets the same samples, since the index selects the sample's generator.
        is_attempt: Whether its samples are attempts at the question, which an answer that is wanted now may continue;
            verdicts, scores and choices are not. It does not affect the samples.
        priority: Of requests that wait in a server, those with a lower number come first, if the server takes
            priorities. It does not affect the samples.
    """

    prompt: Prompt
    sampling: SamplingParams = SamplingParams()
    sample_indices: tuple[int, ...] | None = None
    is_attempt: bool = True
    priority: int = 0

    @property
    def indices(self) -> tuple[int, ...]:
        """Indices of the requested samples, in order."""
        return tuple(range(self.sampling.n)) if self.sample_indices is None else self.sample_indices


class TopToken(Frozen):
    """One alternative at a position."""

    token_id: int
    token: str
    logprob: float


class Usage(Frozen):
    """Tokens of one sample or one call.

    Attributes:
        prompt_tokens: Tokens of the prompt, cached or not. The samples of a call share them: a call counts them once.
        cached_tokens: Part of `prompt_tokens` whose keys and values were reused.
        cache_write_tokens: Part of `prompt_tokens` that a provider wrote to its cache at a price of their own.
        completion_tokens: Generated tokens, those of thoughts included.
        thinking_tokens: Part of `completion_tokens` that are thoughts.
        waited_s: Seconds spent in queues and on rate limits.
        cost_usd: Price in US dollars; None if unknown, 0 for models that run locally.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = Field(default=0, exclude_if=lambda value: value == 0)
    completion_tokens: int = 0
    thinking_tokens: int = 0
    waited_s: float = 0.0
    cost_usd: float | None = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage.total((self, other))

    @classmethod
    def total(cls, usages: Iterable[Usage]) -> Usage:
        """The sum of many."""
        prompt = cached = written = completion = thinking = 0
        waited, cost = 0.0, 0.0
        is_priced = True
        for usage in usages:
            prompt += usage.prompt_tokens
            cached += usage.cached_tokens
            written += usage.cache_write_tokens
            completion += usage.completion_tokens
            thinking += usage.thinking_tokens
            waited += usage.waited_s
            is_priced = is_priced and usage.cost_usd is not None
            cost += usage.cost_usd or 0.0
        return cls(
            prompt_tokens=prompt,
            cached_tokens=cached,
            cache_write_tokens=written,
            completion_tokens=completion,
            thinking_tokens=thinking,
            waited_s=waited,
            cost_usd=cost if is_priced else None,
        )


class Failure(Frozen):
    """Code and message of the error that failed a sample."""

    code: str
    message: str


class Completion(EncodedOnce):
    """One sample.

    Attributes:
        text: The answer alone: the text after the prompt's prefix, without thought, stop strings and end-of-text.
        thought: What the model thought before the answer; None if it did not think. It is open in a sample that ended
            while thinking, and in one that continues a prompt's open thought and did not close it.
        token_ids: Generated tokens, with those of the thought, its tags, a stop string or end-of-text; empty if the
            backend does not return them.
        answer_from: Index of the answer's first token in `token_ids`, `logprobs` and `top_logprobs`; their length if
            there is no answer.
        logprobs: Raw log-probability of each generated token, in nats; None if the backend does not return them.
        top_logprobs: Per position the most likely tokens, best first; None unless requested.
        finish_reason: "stop" (end of text or a stop string), "length" (the answer reached `max_tokens`), "thinking" (it
            was cut while it thought: there is no answer), "budget" (the run's budget cut it short), "cancelled",
            "error".
        stop_reason: The stop string at which it ended; "" if the model ended the text with an end-of-text token; None
            if unknown, and if `finish_reason` is not "stop".
        usage: Tokens; `prompt_tokens` and `cached_tokens` are set on the call's first sample only.
        sample_index: Index of the sample in the request.
        extras: Measurements of logits processors, by name.
        tool_calls: Tool calls, in order; they are no part of the text. `finish_reason` is "stop" then, as for every
            sample that ended by itself.
        failure: Set if and only if `finish_reason` is "error". A failed sample does not fail its siblings.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] | None = None
    top_logprobs: tuple[tuple[TopToken, ...], ...] | None = None
    finish_reason: FinishReason
    stop_reason: str | None = None
    usage: Usage = Usage()
    sample_index: int = 0
    thought: Thought | None = Field(default=None, exclude_if=lambda value: value is None)
    answer_from: int = Field(default=0, exclude_if=lambda value: value == 0)
    extras: dict[str, JsonValue] = Field(default_factory=dict)
    tool_calls: tuple[ToolCall, ...] = Field(default=(), exclude_if=lambda value: not value)
    failure: Failure | None = None

    @property
    def ok(self) -> bool:
        """Whether the sample did not fail."""
        return self.failure is None

    @property
    def answer_logprobs(self) -> tuple[float, ...] | None:
        """Log-probabilities of the answer's tokens, in nats; None if unknown."""
        return None if self.logprobs is None else self.logprobs[self.answer_from :]

    @property
    def answer_top_logprobs(self) -> tuple[tuple[TopToken, ...], ...]:
        """The most likely tokens at each of the answer's positions; empty if unknown."""
        return (self.top_logprobs or ())[self.answer_from :]

    @property
    def answer_tokens(self) -> int:
        """Generated tokens of the answer."""
        return self.usage.completion_tokens - self.usage.thinking_tokens

    @property
    def logprob(self) -> float | None:
        """Summed log-probability of the answer's tokens, in nats; None if unknown."""
        return None if self.logprobs is None else float(sum(self.logprobs[self.answer_from :]))


class Chunk(Frozen):
    """A part of a sample that is being generated.

    Attributes:
        request: Index of the request in the batch.
        sample_index: Index of the sample in the request.
        text: New text; may be empty while a character or a stop string is incomplete.
        logprobs: Their raw log-probabilities; empty if the backend does not return them.
        tokens: Number of new tokens, where the backend counts them and shows no ids.
        lost: Usage of a response to the sample that broke off, as far as the completion's does not include it.
        restarts: Whether the sample is generated again from its beginning, since its response broke off: what was
            reported of it before is void.
        completion: The finished sample, on its last chunk.
    """

    request: int = 0
    sample_index: int = 0
    text: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    tokens: int = 0
    thought: str = ""
    lost: Usage | None = None
    restarts: bool = False
    completion: Completion | None = None


class NextTokenDistribution(Frozen):
    """Distribution of the token after a prompt.

    Attributes:
        token_ids: Tokens, most likely first.
        logprobs: Their raw log-probabilities, in nats.
        entropy: Entropy over the support, in nats: exact if `support` is "full", else a lower bound that assigns the
            unseen mass to one token.
        support: "full" (complete vocabulary; the lists may still be cut to the top k) or "top_k".
    """

    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    logprobs: tuple[float, ...]
    entropy: float
    support: Literal["full", "top_k"]
    usage: Usage = Usage()


class ScoredContinuation(Frozen):
    """Log-probabilities of a given continuation.

    Attributes:
        token_ids: The continuation's tokens.
        logprobs: Raw log-probability of each token given all preceding ones, in nats.
        is_greedy: Whether every token was the most likely one at its position.
        usage: Tokens; `prompt_tokens` counts prompt and continuation.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    is_greedy: bool
    usage: Usage = Usage()

    @property
    def logprob(self) -> float:
        """Summed log-probability, in nats."""
        return float(sum(self.logprobs))
