"""A small language model whose every probability is known, for exact tests.

A token is one character of `ALPHABET` or the end of text. The distribution after a text is given by a function of that
text; sampling, log-probabilities, stop strings, seeds and streaming follow from it exactly, without a network.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import jsonschema
from reason.core.errors import CapabilityMissing, ContextTooLong
from reason.core.messages import (
    Chunk,
    Completion,
    Failure,
    NextTokenDistribution,
    Prompt,
    Request,
    ScoredContinuation,
    TopToken,
    Usage,
)
from reason.serving.model import Capabilities, Listener

END = "\x03"
Distribution = Mapping[str, float]
Script = Callable[[str], Distribution]


def replies(*texts: str, weights: Sequence[float] | None = None) -> Script:
    """A script that answers any prompt with one of the given texts, each with its weight, character by character."""
    weight = list(weights or [1.0] * len(texts))

    def script(text: str) -> Distribution:
        written = text.rpartition("assistant: ")[2]
        left = [(t + END, w) for t, w in zip(texts, weight, strict=True) if (t + END).startswith(written)]
        total = sum(w for _, w in left)
        chances: dict[str, float] = {}
        for t, w in left:
            chances[t[len(written)]] = chances.get(t[len(written)], 0.0) + w / total
        return chances or {END: 1.0}

    return script


class ScriptedModel:
    """A `LanguageModel` over a script.

    Args:
        script: Distribution of the next character after a text; the characters' probabilities sum to 1.
        context_tokens: Most characters of prompt and completion.
        step: Awaited before each character of a batch; lets a test hold or slow the model.
        failing: Sample indices that fail.
        price: US dollars per token, of prompt and completion alike; None is unknown.
        json_schema: Whether it takes JSON schemas. Its script must write what satisfies them, which is asserted.
    """

    def __init__(
        self,
        script: Script,
        *,
        name: str = "scripted",
        context_tokens: int = 100_000,
        step: Callable[[], object] | None = None,
        failing: frozenset[int] = frozenset(),
        price: float | None = 0.0,
        json_schema: bool = False,
    ) -> None:
        self.name = name
        self.identity = f"{name}@1"
        self._script = script
        self._context = context_tokens
        self._step = step
        self._failing = failing
        self._price = price
        self._json_schema = json_schema
        self.generate_calls: list[list[Request]] = []
        self.made: list[tuple[str, int]] = []
        """(prompt, sample index) of every sample begun."""
        self.running = 0
        self.closed = False

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            logprobs=True,
            top_logprobs=20,
            full_vocabulary=True,
            scoring=True,
            prefix=True,
            seed=True,
            json_schema=self._json_schema,
            context_tokens=self._context,
            usd_per_prompt_token=self._price,
            usd_per_completion_token=self._price,
        )

    def render(self, prompt: Prompt) -> str:
        prefix = prompt.prefix if isinstance(prompt.prefix, str) else "".join(map(chr, prompt.prefix))
        if prompt.text is not None:
            return prompt.text + prefix
        return "".join(f"{m.role}: {m.content}\n" for m in prompt.messages) + "assistant: " + prefix

    def count_tokens(self, prompt: Prompt) -> int:
        return len(self.render(prompt))

    async def generate(self, requests: Sequence[Request], listener: Listener | None = None) -> list[list[Completion]]:
        self.generate_calls.append(list(requests))
        for request in requests:
            if request.prompt.tools and not self.capabilities.tools:
                raise CapabilityMissing("tools", self.name)
            if request.sampling.json_schema is not None and not self._json_schema:
                raise CapabilityMissing("json_schema", self.name)
            need = self.count_tokens(request.prompt) + request.sampling.max_tokens
            if need > self._context:
                raise ContextTooLong("too long", tokens=need, limit=self._context)
        slots = [(i, r, index) for i, r in enumerate(requests) for index in r.indices]
        self.made += [(self.render(r.prompt), index) for _, r, index in slots]
        writers = [_Writer(self, i, r, index) for i, r, index in slots]
        self.running += 1
        try:
            while any(w.completion is None for w in writers):
                await asyncio.sleep(0)
                if self._step is not None:
                    held = self._step()
                    if asyncio.iscoroutine(held) or isinstance(held, asyncio.Future):
                        await held
                for writer in writers:
                    if writer.completion is None:
                        chunk = writer.write()
                        if listener is not None:
                            listener(chunk)
        finally:
            self.running -= 1
        done = iter(writers)
        return [[_completion(next(done)) for _ in r.indices] for r in requests]

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        chunks: list[Chunk] = []
        await self.generate([request], chunks.append)
        for chunk in chunks:
            yield chunk

    async def score(self, prompt: Prompt, continuations: Sequence[str | tuple[int, ...]]) -> list[ScoredContinuation]:
        scored = []
        for continuation in continuations:
            text = continuation if isinstance(continuation, str) else "".join(map(chr, continuation))
            before = self.render(prompt)
            logprobs, greedy = [], True
            for i, character in enumerate(text):
                chances = self._script(before + text[:i])
                logprobs.append(math.log(chances[character]) if chances.get(character) else -math.inf)
                greedy = greedy and character == max(chances, key=lambda c: chances[c])
            scored.append(
                ScoredContinuation(
                    token_ids=tuple(map(ord, text)),
                    logprobs=tuple(logprobs),
                    is_greedy=greedy,
                    usage=Usage(prompt_tokens=len(before) + len(text)),
                )
            )
        return scored

    async def next_token(self, prompts: Sequence[Prompt], top: int = 20) -> list[NextTokenDistribution]:
        tokens = []
        for prompt in prompts:
            ranked = sorted(self._script(self.render(prompt)).items(), key=lambda cp: -cp[1])
            tokens.append(
                NextTokenDistribution(
                    token_ids=tuple(ord(c) for c, _ in ranked[:top]),
                    tokens=tuple(c for c, _ in ranked[:top]),
                    logprobs=tuple(math.log(p) for _, p in ranked[:top]),
                    entropy=-sum(p * math.log(p) for _, p in ranked if p > 0),
                    support="full",
                    usage=Usage(prompt_tokens=self.count_tokens(prompt)),
                )
            )
        return tokens

    async def aclose(self) -> None:
        self.closed = True


class _Writer:
    """One sample being written."""

    def __init__(self, model: ScriptedModel, request_index: int, request: Request, index: int) -> None:
        self.model = model
        self.request_index = request_index
        self.request = request
        self.index = index
        self.rng = random.Random(f"{request.sampling.seed}/{index}")
        self.text = ""
        self.tokens: list[str] = []
        self.logprobs: list[float] = []
        self.top: list[tuple[TopToken, ...]] = []
        self.completion: Completion | None = None

    def write(self) -> Chunk:
        model, sampling = self.model, self.request.sampling
        if self.index in model._failing:
            self._end("error")
            return self._chunk("", ())
        chances = model._script(model.render(self.request.prompt) + self.text)
        ranked = sorted(chances.items(), key=lambda cp: (-cp[1], cp[0]))
        if sampling.temperature == 0:
            token = ranked[0][0]
        else:
            weights = [p ** (1 / sampling.temperature) for _, p in ranked]
            token = self.rng.choices([c for c, _ in ranked], weights)[0]
        self.tokens.append(token)
        self.logprobs.append(math.log(chances[token]))
        self.top.append(
            tuple(TopToken(token_id=ord(c), token=c, logprob=math.log(p)) for c, p in ranked[: sampling.top_logprobs])
        )
        before = self.text
        if token == END:
            self._end("stop", "")
        else:
            self.text += token
            stop = next((s for s in sampling.stop if self.text.endswith(s)), None)
            if stop is not None:
                self.text = self.text[: -len(stop)]
                self._end("stop", stop)
            elif len(self.tokens) >= sampling.max_tokens:
                self._end("length")
        return self._chunk(self.text[len(before) :], (token,))

    def _end(self, reason: str, stopped_by: str | None = None) -> None:
        asked = self.request.sampling
        if asked.json_schema is not None and reason == "stop" and not stopped_by:
            jsonschema.validate(json.loads(self.text), asked.json_schema)
        first = self.index == self.request.indices[0]
        prompt_tokens = self.model.count_tokens(self.request.prompt) if first else 0
        price = self.model._price
        self.completion = Completion(
            text=self.text,
            token_ids=tuple(map(ord, self.tokens)),
            logprobs=tuple(self.logprobs),
            top_logprobs=tuple(self.top) if asked.top_logprobs else None,
            finish_reason=reason,
            stop_reason=stopped_by,
            usage=Usage(
                prompt_tokens=prompt_tokens,
                completion_tokens=len(self.tokens),
                cost_usd=None if price is None else price * (prompt_tokens + len(self.tokens)),
            ),
            sample_index=self.index,
            failure=Failure(code="backend_error", message="scripted to fail") if reason == "error" else None,
        )

    def _chunk(self, text: str, tokens: tuple[str, ...]) -> Chunk:
        return Chunk(
            request=self.request_index,
            sample_index=self.index,
            text=text,
            token_ids=tuple(map(ord, tokens)),
            logprobs=tuple(self.logprobs[-1:]) if tokens else (),
            completion=self.completion,
        )


def _completion(writer: _Writer) -> Completion:
    assert writer.completion is not None
    return writer.completion
