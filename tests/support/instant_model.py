"""A language model that answers at once: the time of a run on it is that of the code around the model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from reason.core.messages import Chunk, Completion, NextTokenDistribution, Prompt, Request, ScoredContinuation, Usage
from reason.serving.model import Capabilities, Listener
from reason.serving.profiles.profile import ModelProfile

BATCH = 16
"""Samples between two turns of the event loop, as a network would deliver them."""


class InstantModel:
    """A `LanguageModel` that gives each sample the text of a function, as a server does: without tokens, but with exact
    continuation, and letting the event loop go on between the samples.

    Args:
        text: The text of a sample, by its prompt and index.
        stop_reason: What ended each sample: a stop string, or "" for the end of the text.
        logprobs: Whether samples have log-probabilities.
    """

    name = "instant"
    identity = "instant@1"

    def __init__(
        self, text: Callable[[Prompt, int], str], *, stop_reason: str | None = "", logprobs: bool = False
    ) -> None:
        self._text, self._stop_reason = text, stop_reason
        self.capabilities = Capabilities(
            seed=True,
            prefix=True,
            logprobs=logprobs,
            top_logprobs=20 if logprobs else 0,
            context_tokens=1 << 20,
            usd_per_prompt_token=0.0,
            usd_per_completion_token=0.0,
            profile=ModelProfile(),
        )
        self.num_samples = 0

    def count_tokens(self, prompt: Prompt) -> int:
        return 1

    async def generate(self, requests: Sequence[Request], listener: Listener | None = None) -> list[list[Completion]]:
        completions: list[list[Completion]] = []
        for i, request in enumerate(requests):
            completions.append([])
            for index in request.indices:
                if self.num_samples % BATCH == 0:
                    await asyncio.sleep(0)
                self.num_samples += 1
                done = self._completion(request, index)
                if listener is not None:
                    listener(Chunk(request=i, sample_index=index, text=done.text, completion=done))
                completions[-1].append(done)
        return completions

    def _completion(self, request: Request, index: int) -> Completion:
        text = self._text(request.prompt, index)
        words = text.split()
        return Completion(
            text=text,
            token_ids=tuple(range(len(words))) if self.capabilities.logprobs else (),
            logprobs=(-0.1,) * len(words) if self.capabilities.logprobs else None,
            finish_reason="stop",
            stop_reason=self._stop_reason,
            usage=Usage(prompt_tokens=1, completion_tokens=max(1, len(words)), cost_usd=0.0),
            sample_index=index,
        )

    async def score(self, prompt: Prompt, continuations: Sequence[str | tuple[int, ...]]) -> list[ScoredContinuation]:
        raise NotImplementedError

    async def next_token(self, prompts: Sequence[Prompt], top: int = 20) -> list[NextTokenDistribution]:
        raise NotImplementedError

    async def aclose(self) -> None:
        pass
