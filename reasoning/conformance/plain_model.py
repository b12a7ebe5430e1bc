"""`PlainModel`: a language model that needs no weights, whose texts follow from prompt, seed and index alone."""

from __future__ import annotations

import asyncio
import math
import random
import re
import zlib
from collections.abc import AsyncIterator, Sequence

from ...core.errors import BackendUnavailable, CapabilityMissing
from ...core.messages import Chunk, Completion, NextToken, Prompt, Request, Scored, TopToken, Usage
from ...serving.model import Capabilities, Listener
from ...serving.pieces import stream_of

REPLIES = (
    "First I add the two numbers.\n\n2 + 3 = 5.\n\nThe answer is 5.",
    "Two and three are five.\n\nThe answer is 5.",
    "I count on my fingers.\n\nThe answer is 6.",
    "I do not know.",
)
"""What it says where it is given nothing else: right, wrong and useless texts, of several steps and lengths."""


class PlainModel:
    """A `LanguageModel` whose tokens are words.

    A text is drawn from `replies` by the prompt, the request's seed and the sample's index; at temperature 0 by the
    prompt alone. Log-probabilities are made up, and the same for the same word. It tells how many tokens it wrote, so
    that a strategy that goes around its budget is found out.

    Args:
        replies: The texts.
        name: Its name.
        hold_after: After so many tokens and measurements it does no more until it is cancelled; None never does so.
        silent: It refuses to write anything; for runs that must find everything in the store.

    Attributes:
        written: Tokens it wrote, whoever asked for them.
        measured: Prompts that it was asked about the next token of, and continuations that it scored.
        holding: Set once it holds.
    """

    def __init__(
        self,
        replies: Sequence[str] = REPLIES,
        *,
        name: str = "conformance/plain",
        hold_after: int | None = None,
        silent: bool = False,
    ) -> None:
        self.name = name
        self.identity = f"{name}@1"
        self.written = 0
        self.measured = 0
        self.holding = asyncio.Event()
        self._replies = tuple(replies)
        self._hold_after = hold_after
        self._silent = silent

    @property
    def capabilities(self) -> Capabilities:
        """All that words allow: no hooks, no schemas, no shared caches."""
        return Capabilities(
            logprobs=True, top_logprobs=20, full_vocabulary=True, scoring=True, prefix=True, seed=True, tools=True
        )

    def count_tokens(self, prompt: Prompt) -> int:
        """Words of the prompt."""
        return len(_words(_shown(prompt)))

    async def generate(self, requests: Sequence[Request], listener: Listener | None = None) -> list[list[Completion]]:
        """See `LanguageModel.generate`."""
        if self._silent:
            raise BackendUnavailable("a sample was asked for that the first run did not make")
        for request in requests:
            if request.sampling.hooks:
                raise CapabilityMissing("hooks", self.name)
            if request.sampling.json_schema is not None:
                raise CapabilityMissing("json_schema", self.name)
        writers = [_Writer(i, r, index, self._text_of(r, index)) for i, r in enumerate(requests) for index in r.indices]
        while under_way := [w for w in writers if w.completion is None]:
            await asyncio.sleep(0)
            for writer in under_way:
                await self._hold()
                self.written += 1
                chunk = writer.write(self.count_tokens(writer.request.prompt))
                if listener is not None:
                    listener(chunk)
        done = iter(writers)
        return [[next(done).finished() for _ in r.indices] for r in requests]

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """See `LanguageModel.stream`."""
        async for piece in stream_of(self.generate, request):
            yield piece

    async def score(self, prompt: Prompt, continuations: Sequence[str | tuple[int, ...]]) -> list[Scored]:
        """See `LanguageModel.score`."""
        if self._silent:
            raise BackendUnavailable("a score was asked for that the first run did not take")
        asked = self.count_tokens(prompt)
        scored = []
        for continuation in continuations:
            await self._hold()
            self.measured += 1
            words = _words(continuation) if isinstance(continuation, str) else [str(i) for i in continuation]
            scored.append(
                Scored(
                    token_ids=tuple(map(_id, words)),
                    logprobs=tuple(map(_logprob, words)),
                    greedy=False,
                    usage=Usage(prompt_tokens=asked + len(words)),
                )
            )
        return scored

    async def next_token(self, prompts: Sequence[Prompt], top: int = 20) -> list[NextToken]:
        """See `LanguageModel.next_token`; a yes and a no share most of the probability."""
        if self._silent:
            raise BackendUnavailable("a distribution was asked for that the first run did not take")
        found = []
        for prompt in prompts:
            await self._hold()
            self.measured += 1
            yes = 0.3 + 0.1 * (zlib.crc32(_shown(prompt).encode()) % 5)
            chances = {"Yes": yes, "No": 0.95 - yes, "So": 0.05}
            ranked = sorted(chances.items(), key=lambda pair: -pair[1])[:top]
            found.append(
                NextToken(
                    token_ids=tuple(_id(word) for word, _ in ranked),
                    tokens=tuple(word for word, _ in ranked),
                    logprobs=tuple(math.log(p) for _, p in ranked),
                    entropy=-sum(p * math.log(p) for p in chances.values()),
                    support="full",
                    usage=Usage(prompt_tokens=self.count_tokens(prompt)),
                )
            )
        return found

    async def aclose(self) -> None:
        """Hold nothing."""

    async def _hold(self) -> None:
        if self._hold_after is not None and self.written + self.measured >= self._hold_after:
            self.holding.set()
            await asyncio.Event().wait()

    def _text_of(self, request: Request, index: int) -> str:
        drawn = f"{request.sampling.seed}/{index}" if request.sampling.temperature > 0 else ""
        return random.Random(f"{_shown(request.prompt)}/{drawn}").choice(self._replies)  # noqa: S311 (no secret)


class _Writer:
    """One sample being written, a word at a time."""

    def __init__(self, position: int, request: Request, index: int, text: str) -> None:
        self.position = position
        self.request = request
        self.index = index
        self.completion: Completion | None = None
        self._left = _words(text)
        self._said: list[str] = []

    def write(self, prompt_tokens: int) -> Chunk:
        """The next word, or the end of the text."""
        sampling, before = self.request.sampling, "".join(self._said)
        word = self._left.pop(0) if self._left else ""
        self._said.append(word)
        text, stopped = before + word, None
        for stop in sampling.stop:
            if stop in text:
                text, stopped = text[: text.index(stop)], stop
        if stopped is not None or not word or len(self._said) >= sampling.max_tokens:
            first = self.index == self.request.indices[0]
            self.completion = Completion(
                text=text,
                token_ids=tuple(map(_id, self._said)),
                logprobs=tuple(map(_logprob, self._said)),
                top_logprobs=tuple(_likely(w, sampling.top_logprobs) for w in self._said)
                if sampling.top_logprobs
                else None,
                finish_reason="stop" if stopped is not None or not word else "length",
                stopped_by=stopped if stopped is not None else (None if word else ""),
                usage=Usage(prompt_tokens=prompt_tokens if first else 0, completion_tokens=len(self._said)),
                sample_index=self.index,
            )
        return Chunk(
            request=self.position,
            sample_index=self.index,
            text=text[len(before) :],
            token_ids=(_id(word),),
            logprobs=(_logprob(word),),
            completion=self.completion,
        )

    def finished(self) -> Completion:
        """What it came to."""
        assert self.completion is not None
        return self.completion


def _shown(prompt: Prompt) -> str:
    messages = "\n".join(f"{m.role}: {m.content}" for m in prompt.messages)
    return f"{prompt.text or messages}\n{prompt.prefix}"


def _words(text: str) -> list[str]:
    return re.findall(r"\s*\S+|\s+$", text)


def _id(word: str) -> int:
    return zlib.crc32(word.encode()) % 50_000


def _logprob(word: str) -> float:
    return -(1 + _id(word) % 10) / 10


def _likely(word: str, most: int) -> tuple[TopToken, ...]:
    return (TopToken(token_id=_id(word), token=word, logprob=_logprob(word)),)[:most]
