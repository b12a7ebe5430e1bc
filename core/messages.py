"""What is said to a model and what comes back: `Message`, `Prompt`, `Sampling`, `Request`, `Completion`, `NextToken`.

Plain frozen values with JSON forms; no tokenizer, no model. All log-probabilities are natural logarithms of the *raw*
distribution (before temperature, truncation or hooks); entropies are in nats.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from .frozen import Frozen as Frozen
from .tools import FREE, NEVER, Tool, ToolCall, ToolChoice, check_choice

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
    tool_choice: ToolChoice = Field(default=FREE, exclude_if=lambda value: value == FREE)
    cache_salt: str = Field(default="", exclude=True)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.messages) == (self.text is not None):
            raise ValueError("a prompt takes either messages or text")
        if self.tools or self.tool_choice != FREE:
            check_choice(self.tools, self.tool_choice)
        if self.text is not None and self.tools:
            raise ValueError("raw text shows no tools: give messages")
        if self.tool_choice == NEVER:
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

    def salted(self, salt: str) -> Prompt:
        """The same prompt, sharing keys and values under a salt alone; an empty one leaves it as it is."""
        return self.model_copy(update={"cache_salt": salt}) if salt else self


class HookCall(Frozen):
    """A logits hook by its registered name, with its arguments."""

    name: str
    args: dict[str, JsonValue] = Field(default_factory=dict)


class Sampling(Frozen):
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
        hooks: Logits hooks, applied in order.
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
    hooks: tuple[HookCall, ...] = ()
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
        samples: Which sample indices are wanted; None means 0..n-1. A resumed run asks for the missing ones alone, and
            gets what it would have got, since the index picks the sample's generator.
    """

    prompt: Prompt
    sampling: Sampling = Sampling()
    samples: tuple[int, ...] | None = None

    @property
    def indices(self) -> tuple[int, ...]:
        """The sample indices wanted, in order."""
        return tuple(range(self.sampling.n)) if self.samples is None else self.samples


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
        stopped_by: The stop string at which it ended; "" if the model ended the text with an end-of-text token; None if
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
    stopped_by: str | None = None
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


class NextToken(Frozen):
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


class Scored(Frozen):
    """Log-probabilities of a given continuation.

    Attributes:
        token_ids: The continuation's tokens.
        logprobs: Raw log-probability of each token given all before it, in nats.
        greedy: Whether every token was the most likely one at its place.
        usage: Tokens; `prompt_tokens` counts prompt and continuation.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    greedy: bool
    usage: Usage = Usage()

    @property
    def logprob(self) -> float:
        """Summed log-probability, in nats."""
        return float(sum(self.logprobs))
