"""The body of `POST /v1/chat/completions`: every field that OpenAI documents, and `reason`, our own."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from ...core.budget import Budget
from ...core.messages import Frozen

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Stop = Annotated[str, Field(min_length=1, max_length=1000)]


class ReasonOptions(Frozen):
    """What only this server understands; in OpenAI's clients a part of `extra_body`.

    Attributes:
        strategy: Name of the strategy, where the model name does not say it.
        parameters: Parameters of the strategy that differ from the server's settings.
        budget: Limits of each run; they narrow the server's own.
        verify: Names of verifiers; an empty list is none, null are the server's.
        verify_parameters: Parameters of verifiers, by verifier.
        seed: The same as `seed`.
        stream_events: Whether a stream carries the run's events too, each as `reason.event` of a chunk of its own.
    """

    strategy: str | None = None
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    budget: Budget = Budget()
    verify: tuple[str, ...] | None = None
    verify_parameters: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)
    seed: Seed | None = None
    stream_events: bool = False


class Lenient(BaseModel):
    """A part of a conversation: what clients put there beyond what is read is left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Strict(BaseModel):
    """A part of a request in which nothing unknown may stand."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ContentPart(Lenient):
    """A part of a message; of type `text` (of the assistant also `refusal`)."""

    type: str
    text: str | None = None
    refusal: str | None = None


class CalledFunction(Lenient):
    """The function of a tool call, its arguments as JSON text."""

    name: str
    arguments: str = "{}"


class ChatToolCall(Lenient):
    """A tool call that the assistant made."""

    id: str
    type: str = "function"
    function: CalledFunction | None = None


class ChatMessage(Lenient):
    """A turn of the conversation. Thoughts that come back (`reasoning`, `reasoning_content`) are not read again."""

    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: str | tuple[ContentPart, ...] | None = None
    name: Annotated[str, Field(max_length=256)] | None = None
    tool_calls: tuple[ChatToolCall, ...] | None = None
    tool_call_id: str | None = None


class ToolFunction(Lenient):
    """A function that the model may ask to be called."""

    name: str
    description: str | None = None
    parameters: dict[str, JsonValue] | None = None
    strict: bool | None = None


class ChatTool(Lenient):
    """A tool; of type `function`."""

    type: str
    function: ToolFunction | None = None


class NamedFunction(Lenient):
    """The function of a tool choice."""

    name: str


class NamedTool(Lenient):
    """A tool choice that names a function."""

    type: str
    function: NamedFunction | None = None


class SchemaFormat(Lenient):
    """A JSON Schema with a name."""

    name: str = "answer"
    description: str | None = None
    schema_: Annotated[dict[str, JsonValue], Field(alias="schema")] = Field(default_factory=dict)
    strict: bool | None = None


class ResponseFormat(Lenient):
    """What form `content` has."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaFormat | None = None


class StreamOptions(Strict):
    """How a stream is sent."""

    include_usage: bool = False
    include_obfuscation: bool | None = None


class ChatRequest(Strict):
    """A request for a chat completion. What becomes of each field is told in `fields.CHAT`."""

    model: Annotated[str, Field(min_length=1, max_length=500)]
    messages: Annotated[tuple[ChatMessage, ...], Field(min_length=1, max_length=10_000)]
    reason: ReasonOptions = Field(default_factory=ReasonOptions)  # a default would be copied deeply each time

    n: Annotated[int, Field(ge=1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: Stop | Annotated[tuple[Stop, ...], Field(max_length=16)] | None = None
    seed: Seed | None = None
    tools: tuple[ChatTool, ...] | None = None
    tool_choice: Literal["auto", "none", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    user: str | None = None
    metadata: dict[str, JsonValue] | None = None
    safety_identifier: str | None = None

    store: bool | None = None
    reasoning_effort: str | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: JsonValue = None
    prompt_cache_retention: JsonValue = None

    logprobs: JsonValue = None
    top_logprobs: JsonValue = None
    logit_bias: JsonValue = None
    frequency_penalty: JsonValue = None
    presence_penalty: JsonValue = None
    audio: JsonValue = None
    modalities: JsonValue = None
    prediction: JsonValue = None
    functions: JsonValue = None
    function_call: JsonValue = None
    moderation: JsonValue = None
    verbosity: JsonValue = None
    web_search_options: JsonValue = None

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        both = self.max_tokens, self.max_completion_tokens
        if None not in both and both[0] != both[1]:
            raise ValueError("max_tokens and max_completion_tokens are two names of one field: give one")
        if None not in (self.seed, self.reason.seed) and self.seed != self.reason.seed:
            raise ValueError("seed and reason.seed are two names of one field: give one")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options are for streams")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else self.stop
