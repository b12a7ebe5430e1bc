"""`LanguageModel`: the protocol of every backend, and its capabilities."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol, TypeGuard, runtime_checkable

from pydantic import Field

from ..core.messages import (
    AttachmentKind,
    Chunk,
    Completion,
    Frozen,
    NextTokenDistribution,
    Prompt,
    Request,
    ScoredContinuation,
    Usage,
)
from .profiles.profile import ModelProfile

UNCOUNTED = "uncounted_thought"
"""Set in the extras of a completion whose thought is hidden, where the provider sent no valid count of its tokens."""

Feature = Literal[
    "logprobs",
    "top_logprobs",
    "full_vocabulary",
    "scoring",
    "prefix",
    "seed",
    "logits_processors",
    "json_schema",
    "kv_sharing",
    "tools",
]


class Capabilities(Frozen):
    """What a model can do; a feature is listed only if it was measured or is documented for this backend.

    Attributes:
        logprobs: Log-probabilities of generated tokens.
        top_logprobs: Maximum alternatives per position; 0 if none.
        full_vocabulary: `next_token` covers the complete vocabulary, so its entropy is exact.
        scoring: `score` works.
        prefix: A prefix of the response can be given and is continued exactly.
        token_prompts: Prompts with a prefix, and scored ones, are sent as tokens: with neither attachments nor tools.
        seed: A seeded sample is reproducible, whatever else is in its batch.
        json_schema: Texts can be constrained to a JSON Schema (`SamplingParams.json_schema`).
        kv_sharing: Several workers can read one another's cache while they generate (Hogwild).
        tools: A prompt's tools are rendered in the model's own form, and its calls are parsed.
        context_tokens: Maximum tokens of prompt and completion together; None if unknown.
        usd_per_prompt_token: Price; 0 for local models, None if unknown.
        usd_per_completion_token: Price; 0 for local models, None if unknown.
        prompt_per_sample: Whether every sample of a request is charged for the prompt; otherwise it is charged once.
        profile: What it accepts, and how it thinks before it answers.
    """

    logprobs: bool = False
    top_logprobs: int = 0
    full_vocabulary: bool = False
    scoring: bool = False
    prefix: bool = False
    token_prompts: bool = Field(default=False, exclude_if=lambda value: not value)
    seed: bool = False
    logits_processors: frozenset[str] = frozenset()
    json_schema: bool = False
    kv_sharing: bool = False
    inputs: frozenset[AttachmentKind] = Field(default=frozenset(), exclude_if=lambda value: not value)
    tools: bool = False
    context_tokens: int | None = None
    usd_per_prompt_token: float | None = 0.0
    usd_per_completion_token: float | None = 0.0
    prompt_per_sample: bool = False
    profile: ModelProfile = ModelProfile()

    @property
    def price_known(self) -> bool:
        """Whether the price of a call is known."""
        return self.usd_per_prompt_token is not None and self.usd_per_completion_token is not None

    def accepted(self, *, thinking: bool, only_text: bool = True) -> Capabilities:
        """Those of a request in which the model thinks, or does not: without what its profile refuses there.

        `only_text` is whether the request has neither attachments nor tools.
        """
        changes: dict[str, object] = {}
        if self.token_prompts and not only_text:
            profile = self.profile.model_copy(update={"prefix": "none"})
            changes = {"prefix": False, "scoring": False, "profile": profile}
        if self.logprobs and self.profile.refused("logprobs", thinking=thinking):
            changes |= {"logprobs": False, "top_logprobs": 0}
        if self.json_schema and self.profile.refused("json_schema", thinking=thinking):
            changes["json_schema"] = False
        return self.model_copy(update=changes) if changes else self

    def has(self, feature: Feature) -> bool:
        """Whether a feature is supported at all."""
        return bool(getattr(self, feature))


class Listener(Protocol):
    """Receives tokens and finished samples during `generate`.

    Called on the event loop that awaits `generate`, in order per sample. It must be fast and must not raise.
    """

    def __call__(self, chunk: Chunk) -> bool | None:
        """Receive the next chunk of a sample; the last chunk has the completion.

        Returns:
            Whether a client has seen its text, which cannot be taken back: if the response breaks off, the sample is
            continued exactly or fails, and is not generated again. None is no.
        """


@runtime_checkable
class MeasuresAgain(Protocol):
    """A model whose capabilities may be remembered from an earlier measurement of its server."""

    async def measure_again(self) -> None:
        """Measure what is only remembered, and take it over; identity and capabilities may change.

        Raises:
            BackendError: The server cannot be reached.
        """


@runtime_checkable
class LanguageModel(Protocol):
    """A language model on any backend.

    All methods may be called concurrently from one event loop. Cancelling the awaiting task stops the work on the
    backend (at the next decode step, or by closing the connection) and frees its resources.

    Attributes:
        name: The model string, for example `local/smollm2-135m`.
        identity: Part of every key in the run store: changes whenever the same request could get another response
            (weights, number format, quantisation), and not with the machine or path.
    """

    name: str
    identity: str

    @property
    def capabilities(self) -> Capabilities: ...

    async def generate(self, requests: Sequence[Request], listener: Listener | None = None) -> list[list[Completion]]:
        """Sample every request, all of them as one batch where the backend can.

        Returns:
            Per request one completion for each of `request.indices`, in that order. A sample that failed is a
            completion with `failure` set.

        Raises:
            ContextTooLong: A request does not fit.
            CapabilityMissing: A request needs what this backend lacks (an unknown logits processor, a JSON schema, too
                many alternatives).
            UserError: A JSON schema is invalid or not supported.
            BackendError: Nothing could be generated at all.
        """

    async def score(self, prompt: Prompt, continuations: Sequence[str | tuple[int, ...]]) -> list[ScoredContinuation]:
        """Log-probabilities of given continuations of one prompt, whose prefix is computed once.

        A text continuation is tokenized together with the prompt where their boundary matters (its tokens are those of
        the complete text without the longest common prefix with the prompt's own).

        Raises:
            CapabilityMissing: The backend cannot score.
            ContextTooLong: Prompt and continuation do not fit.
        """

    async def next_token(self, prompts: Sequence[Prompt], top: int = 20) -> list[NextTokenDistribution]:
        """Distribution of the token after each prompt, with the `top` most likely ones listed.

        Raises:
            CapabilityMissing: The backend returns no distribution.
        """

    def count_tokens(self, prompt: Prompt) -> int | None:
        """Tokens of a prompt with its template; None if the backend needs a call to count them."""

    async def aclose(self) -> None:
        """Release everything; idempotent. Requests in flight are cancelled."""


class ReplaysSamples(Protocol):
    """A model that replays recorded samples on a clock of its own, which counts tokens instead of seconds."""

    def hold_replay(self, requests: Sequence[Request]) -> AbstractContextManager[None]:
        """Stop the clock of these requests' question, except while `generate` is awaited.

        What a caller does with a sample takes no tokens: no other sample advances meanwhile.
        """


def replays_samples(model: LanguageModel) -> TypeGuard[ReplaysSamples]:
    """Whether a model is one; `isinstance` takes ten times as long."""
    return hasattr(model, "hold_replay")


class Relevance(Frozen):
    """Attribution of a continuation to the parts of its prompt.

    Attributes:
        relevance: For each part its contribution to the continuation's log-probability by layer-wise relevance
            propagation (AttnLRP), summed over its tokens and over the continuation's, in nats. It may be negative: the
            part lowers the probability.
        tokens: Tokens of each part; one that crosses a part's boundary belongs to the part with more of it.
        rest: Relevance of all tokens that belong to no part.
        logprob: Summed log-probability of the continuation, in nats, in fp32 whatever the model's number format.
        usage: Tokens; `prompt_tokens` counts prompt and continuation.
    """

    relevance: tuple[float, ...]
    tokens: tuple[int, ...]
    rest: float
    logprob: float
    usage: Usage = Usage()


@runtime_checkable
class ExplainsTokens(Protocol):
    """A model whose weights are available for attribution: the embedded engine, for the families it computes itself."""

    async def relevance(self, prompt: Prompt, parts: Sequence[str], continuation: str) -> Relevance:
        """Attribution of a continuation to parts of a prompt, by forward and backward passes.

        Args:
            prompt: The prompt; its prefix, if it has one, is text.
            parts: Exact substrings of the prompt, in their order, without overlap.

        Raises:
            CapabilityMissing: The model does not support it.
            UserError: A part is not in the prompt after the previous one; or the continuation adds no token.
            ContextTooLong: Prompt and continuation do not fit.
        """
