"""`ExplainsTokens`: the protocol of models that can tell which parts of a prompt a continuation rests on, from inside.

It takes the weights, so few models have it: the embedded engine, for the families it computes itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from ..core.messages import Frozen, Prompt, Usage


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
