"""`LanguageModel`: the one protocol behind which every backend stands, and what a backend says it can do.

`ExplainsTokens`: the protocol of models that can tell which parts of a prompt a continuation rests on, from inside.

It takes the weights, so few models have it: the embedded engine, for the families it computes itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Literal, Protocol, runtime_checkable

from ..core.messages import Chunk, Completion, Frozen, NextTokenDistribution, Prompt, Request, ScoredContinuation, Usage

Feature = Literal[
    "logprobs",
    "top_logprobs",
    "full_vocabulary",
    "scoring",
    "prefix",
    "seed",
    "logits_processors",
    "json_schema",
    "forks",
    "kv_sharing",
    "pins",
    "tools",
]


class Capabilities(Frozen):
    """What a model can do. Never optimistic: a feature is listed if it was measured or is documented for this backend.

    Attributes:
        logprobs: Log-probabilities of generated tokens.
        top_logprobs: Most alternatives per position; 0 if none.
        full_vocabulary: `next_token` covers the whole vocabulary, so its entropy is exact.
        scoring: `score` works.
        prefix: The reply's beginning can be given and is continued exactly.
        seed: A seeded sample is reproducible, whatever shares its batch.
        logits_processors: Names of the logits hooks that work here.
        json_schema: Texts can be held to a JSON Schema (`SamplingParams.json_schema`).
        forks: Prompts that share a prefix share its keys and values.
        kv_sharing: Several workers can read one another's cache while they generate (Hogwild).
        pins: Prefixes can be kept under names, in memory and on disk (`kv_store.KVStore`). A model without them gives
            the same results and computes more.
        tools: A prompt's tools are shown to the model in its own form, and its calls are read.
        context_tokens: Most tokens of prompt and completion together; None if unknown.
        max_batch: Requests that run together; None if the backend decides.
        usd_per_prompt_token: Price; 0 for models that run here, None if unknown.
        usd_per_completion_token: Likewise.
        prompt_per_sample: Every sample of a request pays for the prompt again; else the prompt is paid for once.
    """

    logprobs: bool = False
    top_logprobs: int = 0
    full_vocabulary: bool = False
    scoring: bool = False
    prefix: bool = False
    seed: bool = False
    logits_processors: frozenset[str] = frozenset()
    json_schema: bool = False
    forks: bool = False
    kv_sharing: bool = False
    pins: bool = False
    tools: bool = False
    context_tokens: int | None = None
    max_batch: int | None = None
    usd_per_prompt_token: float | None = 0.0
    usd_per_completion_token: float | None = 0.0
    prompt_per_sample: bool = False

    @property
    def price_known(self) -> bool:
        """Whether the price of a call can be told."""
        return self.usd_per_prompt_token is not None and self.usd_per_completion_token is not None

    def has(self, feature: Feature) -> bool:
        """Whether the feature is there at all."""
        return bool(getattr(self, feature))


class Listener(Protocol):
    """Hears of tokens and finished samples while `generate` is under way.

    Called on the event loop that awaits `generate`, in order per sample. It must be quick and must not raise.
    """

    def __call__(self, chunk: Chunk) -> None:
        """Take the next piece of a sample; the last piece carries the whole completion."""


@runtime_checkable
class LanguageModel(Protocol):
    """A language model, whatever runs it.

    All methods may be called concurrently from one event loop. Cancelling the awaiting task stops the work on the
    backend (at the next decode step, or by closing the connection) and frees what it held.

    Attributes:
        name: The model string, for example `local/smollm2-135m`.
        identity: What the run store keys on: changes whenever the same request could get another answer (weights,
            number format, quantisation), and not with the machine or path.
    """

    name: str
    identity: str

    @property
    def capabilities(self) -> Capabilities:
        """What this model can do."""

    async def generate(self, requests: Sequence[Request], listener: Listener | None = None) -> list[list[Completion]]:
        """Sample every request, all of them as one batch where the backend can.

        Args:
            requests: What to sample.
            listener: Told of tokens and finished samples as they come.

        Returns:
            Per request one completion for each of `request.indices`, in that order. A sample that failed alone is a
            completion with `failure` set.

        Raises:
            ContextTooLong: A request does not fit.
            CapabilityMissing: A request needs what this backend lacks (an unknown hook, a JSON schema, too many
                alternatives).
            UserError: A JSON schema is broken, or says what the backend cannot hold a text to.
            BackendError: Nothing could be generated at all.
        """

    def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """Like `generate` with one request, piece by piece; the last piece of each sample carries its completion."""

    async def score(self, prompt: Prompt, continuations: Sequence[str | tuple[int, ...]]) -> list[ScoredContinuation]:
        """Log-probabilities of given continuations of one prompt, whose prefix is computed once.

        A text continuation is tokenized together with the prompt where the seam matters (the tokens are those of the
        whole text, less the longest common run with the prompt's own).

        Raises:
            CapabilityMissing: The backend cannot score.
            ContextTooLong: Prompt and continuation do not fit.
        """

    async def next_token(self, prompts: Sequence[Prompt], top: int = 20) -> list[NextTokenDistribution]:
        """Distribution of the token after each prompt, with the `top` most likely ones listed.

        Raises:
            CapabilityMissing: The backend shows no distribution.
        """

    def count_tokens(self, prompt: Prompt) -> int | None:
        """Tokens of a prompt with its template; None if the backend cannot tell without a call."""

    async def aclose(self) -> None:
        """Release everything; idempotent. Requests under way are cancelled."""


class Relevance(Frozen):
    """What a continuation rests on.

    Attributes:
        relevance: For each part of the prompt what it adds to the continuation's log-probability by layer-wise
            relevance propagation (AttnLRP), summed over its tokens and over the continuation's, in nats. It may be
            negative: the part speaks against the continuation.
        gradient: Gradient times input, summed likewise: how much the log-probability changes with the length of the
            part's embeddings, to first order, in nats. Exact as a derivative; as a measure of what a continuation rests
            on it is weak in deep models.
        attention: For each part its share of the attention that the positions before the continuation's tokens pay,
            over all heads and layers, in [0, 1]. Attention shows where a model looks, not what moves it: not causal.
        tokens: Tokens of each part; one that lies across a part's end belongs to the part with more of it.
        rest: Relevance of all tokens that belong to no part.
        logprob: Summed log-probability of the continuation, in nats, in fp32 whatever the model's number format.
        usage: Tokens; `prompt_tokens` counts prompt and continuation.
    """

    relevance: tuple[float, ...]
    gradient: tuple[float, ...]
    attention: tuple[float, ...]
    tokens: tuple[int, ...]
    rest: float
    logprob: float
    usage: Usage = Usage()


@runtime_checkable
class ExplainsTokens(Protocol):
    """A model that can look into itself."""

    async def relevance(self, prompt: Prompt, parts: Sequence[str], continuation: str) -> Relevance:
        """How much each part of a prompt matters for a continuation, by passes forward and back.

        Args:
            prompt: The prompt; its prefix, if it has one, is text.
            parts: Pieces of the prompt, word for word, in the order in which they stand there; none overlaps another.
            continuation: What follows the prompt.

        Raises:
            CapabilityMissing: The model cannot.
            UserError: A part does not stand in the prompt, or not behind the part before it; or the continuation adds
                no token.
            ContextTooLong: Prompt and continuation do not fit.
        """
