"""`claims_scored`: log-probabilities of claims behind several prompts, as far as the run's budget goes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import NamedTuple

from ...core.errors import LimitExceeded
from ...core.messages import Prompt, Scored
from ...core.together import together
from ...serving.model import LanguageModel
from .surrogate import logit_of

ABREAST = 8
"""Most prompts that are asked for at once."""
LEAST_LOGPROB = -100.0
"""What a token's log-probability is taken for where it is smaller: differences of infinities say nothing."""


class ClaimScore(NamedTuple):
    """How likely a claim is behind a prompt, in nats per token.

    Attributes:
        mean: Mean log-probability of its tokens.
        logit: Log-odds of the claim as a whole, divided by the number of its tokens.
        tokens: Their number.
    """

    mean: float
    logit: float
    tokens: int


class ScoredPrompts(NamedTuple):
    """Claims behind prompts.

    Attributes:
        scores: For each prompt the scores of all claims; None for one that the budget did not reach.
        stopped: The limit that was met, in words; empty if none was.
    """

    scores: list[tuple[ClaimScore, ...] | None]
    stopped: str


async def claims_scored(model: LanguageModel, claims: Sequence[str], prompts: Sequence[Prompt]) -> ScoredPrompts:
    """Score every claim behind every prompt, one call a prompt.

    The first prompt is scored alone, so that the others find the keys and values of what they share with it; they
    follow some at a time, in order. A metered model fits each call into the budget before it is made: the first that
    does not fit ends the work, and what is there by then is returned.

    Args:
        model: Must be able to score.
        claims: The continuations.
        prompts: What they stand behind.

    Raises:
        ReasonError: The model failed, cannot score, or a prompt does not fit it.
    """
    scores: list[tuple[ClaimScore, ...] | None] = [None] * len(prompts)
    stopped: list[str] = []
    abreast = asyncio.Semaphore(ABREAST)

    async def one(i: int) -> None:
        async with abreast:
            if stopped:
                return
            try:
                scores[i] = tuple(_score(s) for s in await model.score(prompts[i], claims))
            except LimitExceeded as limit:
                stopped.append(limit.message)

    if claims and prompts:
        await one(0)
        await together(one(i) for i in range(1, len(prompts)))
    return ScoredPrompts(scores, stopped[0] if stopped else "")


def _score(scored: Scored) -> ClaimScore:
    logprobs = [max(logprob, LEAST_LOGPROB) for logprob in scored.logprobs]
    tokens = max(1, len(logprobs))
    total = math.fsum(logprobs)
    return ClaimScore(total / tokens, logit_of(total) / tokens, tokens)
