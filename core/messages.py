"""What is said to a model and what comes back: `Message`, `Prompt`, `SamplingParams`, `Request`, `Completion`, `NextTokenDistribution`.

Plain frozen values with JSON forms; no tokenizer, no model. All log-probabilities are natural logarithms of the *raw*
distribution (before temperature, truncation or hooks); entropies are in nats.

`Frozen`: what every value of `reason` is made of.

Tools that a model may call, and its calls: `Tool`, `ToolCall`, `ToolChoice`, in the shapes of OpenAI's interface.

A tool is never run here: a call is handed to the caller, who answers it with a turn of the role "tool".
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, model_validator


class Frozen(BaseModel):
    """A value: immutable, compared by content, unknown fields refused. Its JSON keeps infinities, as strings."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


TOOL_CHOICE_AUTO, TOOL_CHOICE_NONE, TOOL_CHOICE_REQUIRED = "auto", "none", "required"
"""Choices that name no tool: the model decides, it calls none, it calls one of them at least."""

ToolName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_.:-]{1,128}$")]
"""Letters, digits, and the marks that servers of tools put into names."""

ToolChoice = Annotated[str, StringConstraints(min_length=1, max_length=128)]
"""`auto`, `none`, `required`, or the name of the tool that is to be called."""


class Tool(Frozen):
    """A function that a model may ask to be called.

    Attributes:
        name: Its name.
        description: What it does and when to use it, for the model.
        parameters: JSON Schema of its arguments, an object; empty takes none.
        strict: Whether the arguments must follow the schema, where a provider offers that; None leaves it to the
            provider.
    """

    name: ToolName
    description: str = ""
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    strict: bool | None = Field(default=None, exclude_if=lambda value: value is None)

    def as_openai(self) -> dict[str, Any]:
        """The tool in OpenAI's form, which chat templates take too."""
        function: dict[str, Any] = {"name": self.name, "description": self.description}
        function["parameters"] = self.parameters or {"type": "object", "properties": {}}
        if self.strict is not None:
            function["strict"] = self.strict
        return {"type": "function", "function": function}


class ToolCall(Frozen):
    """A model's wish that a tool be called.

    Attributes:
        name: The tool. Nothing says that there is one of that name: models invent some.
        arguments: Its arguments as the model wrote them: JSON of an object, unless the model wrote something else.
        id: Name of the call, to which the tool's turn answers.
    """

    name: str
    arguments: str = "{}"
    id: str = ""

    @property
    def parsed_arguments(self) -> dict[str, JsonValue] | None:
        """The arguments; None if what the model wrote is no JSON object (see `parse_json`)."""
        try:
            read = parse_json(self.arguments)
        except ValueError:
            return None
        return read if isinstance(read, dict) else None

    def as_openai(self) -> dict[str, Any]:
        """The call in OpenAI's form."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


def parse_json(text: str) -> JsonValue:
    """What a text of a model's says as JSON.

    Raises:
        ValueError: It is no JSON, nested too deep, or says what cannot be written down again: a number that no float
            holds, or half a surrogate pair.
    """
    try:
        read: JsonValue = json.loads(text, parse_constant=_no_number, parse_float=_finite)
        if "\\u" in text:
            json.dumps(read, ensure_ascii=False).encode()
    except RecursionError as e:
        raise ValueError("it is nested too deep") from e
    return read


def canonical_calls(calls: Iterable[ToolCall]) -> str:
    """Calls as one text: equal texts are equal calls, in the same order. Ids are left out, and so is spacing.

    Arguments that are no JSON object stay the text that they are.
    """
    told = [{"name": call.name, "arguments": arguments_or_text(call)} for call in calls]
    return json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def is_canonical_calls(text: str) -> bool:
    """Whether a text is one that `canonical` makes of one call or more."""
    if not text.startswith('[{"arguments":'):
        return False
    try:
        read = parse_json(text)
    except ValueError:
        return False
    return (
        isinstance(read, list)
        and all(isinstance(c, dict) and set(c) == {"name", "arguments"} and isinstance(c["name"], str) for c in read)
        and json.dumps(read, sort_keys=True, separators=(",", ":"), ensure_ascii=False) == text
    )


def validate_tool_choice(tools: Sequence[Tool], choice: str) -> None:
    """See that tools have names of their own and that the choice is one of them or a word.

    Raises:
        ValueError: They have not, or it is not.
    """
    names = [tool.name for tool in tools]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two tools are called {twice!r}")
    word = next((name for name in names if name in (TOOL_CHOICE_AUTO, TOOL_CHOICE_NONE, TOOL_CHOICE_REQUIRED)), None)
    if word is not None:
        raise ValueError(f"no tool may be called {word!r}: that is a choice")
    if choice in (TOOL_CHOICE_AUTO, TOOL_CHOICE_NONE):
        return
    if not tools:
        raise ValueError(f"tool_choice is {choice!r} and there are no tools")
    if choice != TOOL_CHOICE_REQUIRED and choice not in names:
        raise ValueError(f"tool_choice names {choice!r}, and there is no such tool: {', '.join(names)}")


def arguments_or_text(call: ToolCall) -> JsonValue:
    """A call's arguments; the text that they are where that is no JSON object."""
    values = call.parsed_arguments
    return call.arguments if values is None else values


def _no_number(name: str) -> JsonValue:
    """NaN and infinities are no JSON, whatever Python reads."""
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"no float holds {text[:24]}")
    return value


Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "budget", "cancelled", "error"]


class Message(Frozen):
    """One turn of a conversation.

    Attributes:
        role: Who speaks.
        content: What is said; may be empty where there are calls.
        tool_calls: Tools that the assistant asked to be called, with what it said.
        tool_call_id: Of a turn of the role "tool": the call that it answers.
        name: Of such a turn, the tool; of others, whatever the caller calls the speaker. Templates mostly ignore it.
    """

    role: Role
    content: str = ""
    # what is empty is in no dump: keys of stored samples that know nothing of tools stay as they were
    tool_calls: tuple[ToolCall, ...] = Field(default=(), exclude_if=lambda value: not value)
    tool_call_id: str = Field(default="", exclude_if=lambda value: not value)
    name: str = Field(default="", exclude_if=lambda value: not value)

    @model_validator(mode="after")
    def _calls_are_the_assistants(self) -> Self:
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"a turn of the role {self.role} calls no tools")
        if self.tool_call_id and self.role != "tool":
            raise ValueError(f"a turn of the role {self.role} answers no call")
        return self


class Prompt(Frozen):
    """What the model is to continue: a conversation or raw text, and optionally the beginning of the reply.

    Attributes:
        messages: The conversation; rendered with the model's chat template.
        text: Raw text instead of a conversation; no template is applied. Exactly one of the two is given.
        prefix: Beginning of the assistant's reply, which the model continues and which is not part of the completion:
            text, or token ids (exact: text may tokenize differently at the seam). With `text`, it follows the text.
        tools: Tools that the model may call; with messages alone.
        tool_choice: "auto", "required", or the name of the tool that is to be called. Never "none": then no tools are
            given.
        cache_salt: Requests with different salts share no keys and values, so that nobody can tell by the time a
            request takes what others have asked. It changes nothing that is said: it is in no dump, and so in no key of
            the run store.
    """

    messages: tuple[Message, ...] = ()
    text: str | None = None
    prefix: str | tuple[int, ...] = ""
    tools: tuple[Tool, ...] = Field(default=(), exclude_if=lambda value: not value)
    tool_choice: ToolChoice = Field(default=TOOL_CHOICE_AUTO, exclude_if=lambda value: value == TOOL_CHOICE_AUTO)
    cache_salt: str = Field(default="", exclude=True)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.messages) == (self.text is not None):
            raise ValueError("a prompt takes either messages or text")
        if self.tools or self.tool_choice != TOOL_CHOICE_AUTO:
            validate_tool_choice(self.tools, self.tool_choice)
        if self.text is not None and self.tools:
            raise ValueError("raw text shows no tools: give messages")
        if self.tool_choice == TOOL_CHOICE_NONE:
            raise ValueError("a prompt that is to call no tools is given none")
        return self

    @classmethod
    def user(cls, content: str, *, system: str = "", prefix: str | tuple[int, ...] = "") -> Prompt:
        """A one-turn conversation."""
        head = (Message(role="system", content=system),) if system else ()
        return cls(messages=(*head, Message(role="user", content=content)), prefix=prefix)

    def with_prefix(self, prefix: str | tuple[int, ...]) -> Prompt:
        """The same prompt with another beginning of the reply."""
        return self.model_copy(update={"prefix": prefix})

    def with_cache_salt(self, salt: str) -> Prompt:
        """The same prompt, sharing keys and values under a salt alone; an empty one leaves it as it is."""
        return self.model_copy(update={"cache_salt": salt}) if salt else self


class LogitsProcessorSpec(Frozen):
    """A logits hook by its registered name, with its arguments."""

    name: str
    args: dict[str, JsonValue] = Field(default_factory=dict)


class SamplingParams(Frozen):
    """How to sample.

    Attributes:
        temperature: 0 is greedy.
        top_p: Nucleus mass in (0, 1].
        top_k: Number of most likely tokens kept; 0 keeps all.
        max_tokens: Most tokens per sample.
        n: Samples per prompt.
        stop: Strings that end a sample; the text ends before the first of them.
        seed: Seed; sample `i` draws from a generator of its own made of (seed, i), whatever shares the batch.
        top_logprobs: Alternatives reported per position.
        logprobs: Whether log-probabilities of the chosen tokens are wanted.
        ignore_eos: Whether to go on after the end-of-text token until `max_tokens` (for measuring).
        logits_processors: Logits hooks, applied in order.
        json_schema: A JSON Schema that the completion's text satisfies, wherever it ends by itself; a stop string or
            `max_tokens` may still cut it. It says how the completion is written and nothing of what stands before it:
            the prompt's prefix stays outside. Greedy or drawn, tokens are chosen of those that the schema allows, and
            log-probabilities stay those of the raw distribution. The properties of an object come in the schema's
            order. A model without `Capabilities.json_schema` refuses it.
    """

    temperature: Annotated[float, Field(ge=0, le=100)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    max_tokens: Annotated[int, Field(ge=1)] = 512
    n: Annotated[int, Field(ge=1, le=4096)] = 1
    stop: tuple[str, ...] = ()
    seed: int | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=1000)] = 0
    logprobs: bool = True
    ignore_eos: bool = False
    logits_processors: tuple[LogitsProcessorSpec, ...] = ()
    json_schema: dict[str, JsonValue] | None = None

    @model_validator(mode="after")
    def _schema_ends_texts(self) -> Self:
        if self.json_schema is None:
            return self
        if self.ignore_eos:
            raise ValueError("a text that satisfies a JSON schema has an end: ignore_eos excludes json_schema")
        json.dumps(self.json_schema, allow_nan=False)  # a ValueError of its own for what is no JSON
        return self

    @model_validator(mode="after")
    def _stops_say_something(self) -> Self:
        if any(not s for s in self.stop):
            raise ValueError("a stop string must not be empty")
        return self


class Request(Frozen):
    """One prompt to be sampled `n` times: the unit that counts as one model call.

    Attributes:
        prompt: What to continue.
        sampling: How.
        sample_indices: Which sample indices are wanted; None means 0..n-1. A resumed run asks for the missing ones alone, and
            gets what it would have got, since the index picks the sample's generator.
    """

    prompt: Prompt
    sampling: SamplingParams = SamplingParams()
    sample_indices: tuple[int, ...] | None = None

    @property
    def indices(self) -> tuple[int, ...]:
        """The sample indices wanted, in order."""
        return tuple(range(self.sampling.n)) if self.sample_indices is None else self.sample_indices


class TopToken(Frozen):
    """One alternative at a position."""

    token_id: int
    token: str
    logprob: float


class Usage(Frozen):
    """Tokens of one sample or one call.

    Attributes:
        prompt_tokens: Tokens of the prompt, cached or not. Shared by the samples of a call: a call counts it once.
        cached_tokens: Part of `prompt_tokens` whose keys and values were reused.
        completion_tokens: Generated tokens.
        reasoning_tokens: Part of `completion_tokens` that the provider counts as thoughts.
        waited_s: Seconds spent in queues and on rate limits, not working.
        cost_usd: Price in US dollars; None if unknown, 0 for models that run here.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    waited_s: float = 0.0
    cost_usd: float | None = 0.0

    def __add__(self, other: Usage) -> Usage:
        known = self.cost_usd is not None and other.cost_usd is not None
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            waited_s=self.waited_s + other.waited_s,
            cost_usd=(self.cost_usd or 0.0) + (other.cost_usd or 0.0) if known else None,
        )


class Failure(Frozen):
    """Why a sample failed: the error's code and message."""

    code: str
    message: str


class Completion(Frozen):
    """One sample.

    Attributes:
        text: The text after the prompt's prefix; stop strings and end-of-text are not part of it.
        token_ids: Generated tokens, incl. those of a stop string or end-of-text; empty if the backend hides them.
        logprobs: Raw log-probability of each generated token, in nats; None if the backend hides them.
        top_logprobs: Per position the most likely tokens, best first; None unless asked for.
        finish_reason: "stop" (end of text or a stop string), "length" (`max_tokens`), "budget" (the run's budget cut it
            short), "cancelled", "error".
        stop_reason: The stop string at which it ended; "" if the model ended the text with an end-of-text token; None if
            the backend does not tell, and wherever `finish_reason` is not "stop".
        usage: Tokens; `prompt_tokens` and `cached_tokens` are given on the call's first sample alone.
        sample_index: Which sample of the request this is.
        reasoning: Thoughts that the backend returned apart from the text.
        extras: What hooks measured, by hook name.
        tool_calls: Tools that it asks to be called, in order; they are no part of the text. `finish_reason` is "stop"
            then, as of every sample that came to its own end.
        failure: Set if and only if `finish_reason` is "error". One failed sample never takes its siblings along.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] | None = None
    top_logprobs: tuple[tuple[TopToken, ...], ...] | None = None
    finish_reason: FinishReason
    stop_reason: str | None = None
    usage: Usage = Usage()
    sample_index: int = 0
    reasoning: str = ""
    extras: dict[str, JsonValue] = Field(default_factory=dict)
    tool_calls: tuple[ToolCall, ...] = Field(default=(), exclude_if=lambda value: not value)
    failure: Failure | None = None

    @property
    def ok(self) -> bool:
        """Whether the sample exists at all."""
        return self.failure is None

    @property
    def logprob(self) -> float | None:
        """Summed log-probability of the generated tokens, in nats; None if unknown."""
        return None if self.logprobs is None else float(sum(self.logprobs))


class Chunk(Frozen):
    """A piece of a sample that is being generated.

    Attributes:
        request: Position of the request in the batch.
        sample_index: Which sample of the request.
        text: New text; may be empty while a character or a stop string is incomplete.
        token_ids: New tokens.
        logprobs: Their raw log-probabilities; empty if hidden.
        reasoning: New text of the thoughts.
        completion: The finished sample, on its last chunk.
    """

    request: int = 0
    sample_index: int = 0
    text: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    reasoning: str = ""
    completion: Completion | None = None


class NextTokenDistribution(Frozen):
    """Distribution of the token after a prompt.

    Attributes:
        token_ids: Tokens, most likely first.
        tokens: Their texts.
        logprobs: Their raw log-probabilities, in nats.
        entropy: Entropy over the support, in nats: exact if `support` is "full", else a lower bound that puts the
            unseen mass into a single token.
        support: "full" (whole vocabulary; the lists may still be cut to the top k) or "top_k".
        usage: Tokens.
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
        logprobs: Raw log-probability of each token given all before it, in nats.
        is_greedy: Whether every token was the most likely one at its place.
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
