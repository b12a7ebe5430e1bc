"""A small language model whose every probability is known, for exact tests.

A token is one character, a tag of a thought, or the end of text. The distribution after a text is given by a function
of that text; sampling, log-probabilities, thoughts, caps, stop strings, seeds and streaming follow from it exactly,
without a network.

    model = ScriptedModel(thinking("2 and 2 is 4.", "The answer is 4."), profile=THINKS)

thinks by default, 15 tokens with both tags (one token each), and then answers in 16 and the end of text.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import jsonschema
from reason.core.errors import CapabilityMissing, ContextTooLong, UserError
from reason.core.messages import (
    Chunk,
    Completion,
    Effort,
    Failure,
    NextTokenDistribution,
    Prompt,
    Request,
    ScoredContinuation,
    Thought,
    TopToken,
    Usage,
)
from reason.serving.model import Capabilities, Listener
from reason.serving.profiles.profile import ModelProfile, check_sampling

END = "\x03"
OPEN, CLOSE = "<think>", "</think>"
"""Tokens around a thought, in the text that a script sees and in the distributions that it returns."""
_TAG_IDS = {OPEN: 1, CLOSE: 2}
_TAG_TEXTS = {i: text for text, i in _TAG_IDS.items()}
_TOKEN = re.compile(f"{OPEN}|{CLOSE}|.", re.DOTALL)

Distribution = Mapping[str, float]
Script = Callable[[str], Distribution]

THINKS = ModelProfile(
    thinks="default",
    efforts={"none": {}, "low": {}, "medium": {}, "high": {}},
    prefix="thought",
    sources={"thinks": "scripted"},
)
"""A model that thinks unless told otherwise, whose thoughts can be given and continued."""
ALWAYS_THINKS = ModelProfile(thinks="always", efforts={"low": {}, "medium": {}, "high": {}}, thought="field")
"""A model behind a server that shows its thoughts in a field: it always thinks, and continues nothing."""
HIDES_THOUGHTS = ALWAYS_THINKS.model_copy(update={"thought": "hidden"})
"""The same with thoughts that are counted but not shown."""


def token_ids(text: str) -> tuple[int, ...]:
    """The tokens of a text: one a character, one a tag."""
    return tuple(_token_id(token) for token in _TOKEN.findall(text))


def _token_id(token: str) -> int:
    return _TAG_IDS[token] if token in _TAG_IDS else ord(token)


def _text_of(ids: Sequence[int]) -> str:
    return "".join(_TAG_TEXTS.get(i) or chr(i) for i in ids)


def replies(*texts: str, weights: Sequence[float] | None = None) -> Script:
    """A script that answers any prompt with one of the given texts, each with its weight, character by character.

    A thought that the prompt gives is closed at once.
    """
    weight = list(weights or [1.0] * len(texts))

    def script(text: str) -> Distribution:
        written = text.rpartition("assistant: ")[2]
        if OPEN in written and CLOSE not in written:
            return {CLOSE: 1.0}
        written = written.rpartition(CLOSE)[2]
        left = [(t + END, w) for t, w in zip(texts, weight, strict=True) if (t + END).startswith(written)]
        total = sum(w for _, w in left)
        chances: dict[str, float] = {}
        for t, w in left:
            chances[t[len(written)]] = chances.get(t[len(written)], 0.0) + w / total
        return chances or {END: 1.0}

    return script


def echoing(*texts: str) -> Script:
    """A script that answers "echo X" with X, and all else with one of the texts."""
    others = replies(*texts)

    def script(text: str) -> Distribution:
        _, is_echo, asked = text.partition("user: echo ")
        said, _, written = asked.partition("\nassistant: ")
        return replies(said)(f"assistant: {written}") if is_echo else others(text)

    return script


def answering(reply: Callable[[str], str]) -> Script:
    """A script that answers with a function of the prompt, after the thought if there is one."""

    def script(text: str) -> Distribution:
        prompt, _, written = text.rpartition("assistant: ")
        written = written.rpartition(CLOSE)[2]
        whole = reply(prompt) + END
        return {whole[len(written)] if whole.startswith(written) and len(written) < len(whole) else END: 1.0}

    return script


def thinking(thought: str | Sequence[str], answer: str | Script, weights: Sequence[float] | None = None) -> Script:
    """A script that thinks and then answers.

    Args:
        thought: The thought, or several, each with its weight.
        answer: The answer after any thought, or the script that continues the text after the closed thought.
    """
    thoughts = [thought] if isinstance(thought, str) else list(thought)
    writes = replies(answer) if isinstance(answer, str) else answer
    thinks = replies(*thoughts, weights=weights)

    def script(text: str) -> Distribution:
        head, _, written = text.rpartition("assistant: ")
        if not written:
            return {OPEN: 1.0}
        if written.startswith(OPEN) and CLOSE not in written:
            chances = thinks(f"{head}assistant: {written.removeprefix(OPEN)}")
            return {CLOSE if token == END else token: p for token, p in chances.items()}
        return writes(text)

    return script


def held_after(steps: int) -> tuple[Callable[[], object], asyncio.Event]:
    """A step that holds a model for ever after some tokens, and an event that is set then."""
    numbers, is_held = itertools.count(), asyncio.Event()

    async def forever() -> None:
        is_held.set()
        await asyncio.Event().wait()

    return (lambda: forever() if next(numbers) == steps else None), is_held


class ScriptedModel:
    """A `LanguageModel` over a script.

    Args:
        script: Distribution of the next character after a text; the characters' probabilities sum to 1.
        context_tokens: Most characters of prompt and completion.
        step: Awaited before each character of a batch; lets a test hold or slow the model.
        failing: Sample indices that fail.
        price: US dollars per token, of prompt and completion alike; None is unknown.
        json_schema: Whether it takes JSON schemas. Its script must write what satisfies them, which is asserted.
        profile: How it thinks. The script then writes the tags of a thought; where the model is told not to think, or
            a prefix of the answer is given, the rendered prompt ends with an empty thought, as Qwen3's template has it.
            A request that the profile forbids fails an assertion.
        changed: Capabilities that differ, besides those of the class.
    """

    changed: Mapping[str, object] = MappingProxyType({})

    def __init_subclass__(cls, *, changed: Mapping[str, object] | None = None) -> None:
        cls.changed = {**cls.changed, **(changed or {})}

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
        profile: ModelProfile | None = None,
        changed: Mapping[str, object] | None = None,
    ) -> None:
        self.name = name
        self.changed = {**self.changed, **(changed or {})}
        self.profile = profile or ModelProfile()
        self.identity = f"{name}@1{self.profile.digest}"
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
    def last_request(self) -> Request:
        """The first request of the last call."""
        return self.generate_calls[-1][0]

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            inputs=self.profile.inputs,
            logprobs=True,
            top_logprobs=20,
            full_vocabulary=True,
            scoring=True,
            prefix=not self.profile.can_think or self.profile.prefix != "none",
            seed=True,
            json_schema=self._json_schema,
            context_tokens=self._context,
            usd_per_prompt_token=self._price,
            usd_per_completion_token=self._price,
            profile=self.profile,
        ).model_copy(update=self.changed)

    def render(self, prompt: Prompt, effort: Effort | None = None) -> str:
        prefix = prompt.prefix if isinstance(prompt.prefix, str) else _text_of(prompt.prefix)
        if prompt.text is not None:
            return prompt.text + prefix
        head = "".join(f"{m.role}: {m.content}\n" for m in prompt.messages) + "assistant: "
        if prompt.thought is not None:
            thought = prompt.thought
            text = _text_of(thought.token_ids) if thought.token_ids else thought.text
            return f"{head}{OPEN}{text}" + (CLOSE + prefix if thought.closed else "")
        if not self.profile.can_think:
            return head + prefix
        if not self.profile.starts_thinking(prompt, effort):
            return f"{head}{OPEN}{CLOSE}{prefix}"
        return head + (OPEN if self.profile.opened_by_template else "")

    def count_tokens(self, prompt: Prompt) -> int:
        return len(token_ids(self.render(prompt)))

    def _check(self, request: Request) -> None:
        """Refuse what a server would refuse."""
        prompt, profile = request.prompt, self.profile
        if prompt.tools and not self.capabilities.tools:
            raise CapabilityMissing("tools", self.name)
        if request.sampling.json_schema is not None and not self._json_schema:
            raise CapabilityMissing("json_schema", self.name)
        if prompt.prefix and not self.capabilities.prefix:
            raise CapabilityMissing("prefix", self.name)
        if prompt.thought is not None and profile.can_think and profile.prefix != "thought":
            raise CapabilityMissing("prefix", self.name)
        try:
            thinking = profile.starts_thinking(prompt, request.sampling.effort)
            check_sampling(profile, self.name, request.sampling, thinking=thinking)
        except UserError as e:
            raise AssertionError(f"a request that the profile forbids was sent: {e}") from e
        need = self.count_tokens(prompt) + request.sampling.max_tokens
        if need > self._context:
            raise ContextTooLong("too long", tokens=need, limit=self._context)

    async def generate(self, requests: Sequence[Request], listener: Listener | None = None) -> list[list[Completion]]:
        self.generate_calls.append(list(requests))
        for request in requests:
            self._check(request)
        slots = [(i, r, index) for i, r in enumerate(requests) for index in r.indices]
        self.made += [(self.render(r.prompt, r.sampling.effort), index) for _, r, index in slots]
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

    async def score(self, prompt: Prompt, continuations: Sequence[str | tuple[int, ...]]) -> list[ScoredContinuation]:
        scored = []
        for continuation in continuations:
            text = continuation if isinstance(continuation, str) else _text_of(continuation)
            before = self.render(prompt, "none")
            logprobs, greedy = [], True
            tokens = _TOKEN.findall(text)
            for i, character in enumerate(tokens):
                chances = self._script(before + "".join(tokens[:i]))
                logprobs.append(math.log(chances[character]) if chances.get(character) else -math.inf)
                greedy = greedy and character == max(chances, key=lambda c: chances[c])
            scored.append(
                ScoredContinuation(
                    token_ids=token_ids(text),
                    logprobs=tuple(logprobs),
                    is_greedy=greedy,
                    usage=Usage(prompt_tokens=len(token_ids(before)) + len(tokens)),
                )
            )
        return scored

    async def next_token(self, prompts: Sequence[Prompt], top: int = 20) -> list[NextTokenDistribution]:
        tokens = []
        for prompt in prompts:
            ranked = sorted(self._script(self.render(prompt, "none")).items(), key=lambda cp: -cp[1])
            tokens.append(
                NextTokenDistribution(
                    token_ids=tuple(_token_id(c) for c, _ in ranked[:top]),
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
        sampling, profile = request.sampling, model.profile
        self.is_thinking = self.has_thought = profile.starts_thinking(request.prompt, sampling.effort)
        temperature = profile.temperature(sampling, thinking=self.is_thinking)
        self.temperature = 1.0 if temperature is None else temperature
        limit = sampling.thinking_tokens
        self.max_thinking = profile.thinking_tokens(sampling.effort) if limit is None else limit
        self.written = model.render(request.prompt, sampling.effort)
        self.thought = self.text = ""
        self.tokens: list[str] = []
        self.logprobs: list[float] = []
        self.top: list[tuple[TopToken, ...]] = []
        self.thinking_tokens = 0
        self.completion: Completion | None = None

    def write(self) -> Chunk:
        if self.index in self.model._failing:
            self._end("error")
            return self._chunk("", "", ())
        chances = self.model._script(self.written)
        ranked = sorted(chances.items(), key=lambda cp: (-cp[1], cp[0]))
        if self.temperature == 0:
            token = ranked[0][0]
        else:
            weights = [p ** (1 / self.temperature) for _, p in ranked]
            token = self.rng.choices([c for c, _ in ranked], weights)[0]
        self.tokens.append(token)
        self.logprobs.append(math.log(chances[token]))
        count = self.request.sampling.top_logprobs
        self.top.append(tuple(TopToken(token_id=_token_id(c), token=c, logprob=math.log(p)) for c, p in ranked[:count]))
        before = len(self.thought), len(self.text)
        self.written += "" if token == END else token
        if self.is_thinking:
            self._think(token)
        else:
            self._answer(token)
        return self._chunk(self.thought[before[0] :], self.text[before[1] :], (token,))

    def _think(self, token: str) -> None:
        sampling, prompt = self.request.sampling, self.request.prompt
        self.thinking_tokens += 1
        if token == CLOSE:
            self.is_thinking = False
            return
        if token == END and prompt.thought is None:
            self._end("thinking")
            return
        if token == END:
            self._end("stop", "")
            return
        self.thought += "" if token == OPEN else token
        if prompt.thought is not None:
            stop = next((s for s in sampling.stop if self.thought.endswith(s)), None)
            if stop is not None:
                self.thought = self.thought[: -len(stop)]
                self._end("stop", stop)
                return
        if self.thinking_tokens >= self.max_thinking:
            self._end("thinking")

    def _answer(self, token: str) -> None:
        sampling = self.request.sampling
        if token == END:
            self._end("stop", "")
            return
        self.text += token
        stop = next((s for s in sampling.stop if self.text.endswith(s)), None)
        if stop is not None:
            self.text = self.text[: -len(stop)]
            self._end("stop", stop)
        elif len(self.tokens) - self.thinking_tokens >= sampling.max_tokens:
            self._end("length")

    @property
    def _shown_from(self) -> int:
        """Index of the first token that is shown."""
        return self.thinking_tokens if self.model.profile.thought == "hidden" else 0

    def _end(self, reason: str, stopped_by: str | None = None) -> None:
        sampling, shown = self.request.sampling, self._shown_from
        if sampling.json_schema is not None and reason == "stop" and not stopped_by:
            jsonschema.validate(json.loads(self.text), sampling.json_schema)
        first = self.index == self.request.indices[0]
        prompt_tokens = self.model.count_tokens(self.request.prompt) if first else 0
        price = self.model._price
        thought = Thought(text="" if shown else self.thought, tokens=self.thinking_tokens, closed=not self.is_thinking)
        self.completion = Completion(
            text=self.text,
            token_ids=tuple(map(_token_id, self.tokens[shown:])),
            logprobs=tuple(self.logprobs[shown:]) if sampling.logprobs or sampling.top_logprobs else None,
            top_logprobs=tuple(self.top[shown:]) if sampling.top_logprobs else None,
            finish_reason=reason,
            stop_reason=stopped_by,
            usage=Usage(
                prompt_tokens=prompt_tokens,
                completion_tokens=len(self.tokens),
                thinking_tokens=self.thinking_tokens,
                cost_usd=None if price is None else price * (prompt_tokens + len(self.tokens)),
            ),
            sample_index=self.index,
            thought=thought if self.has_thought else None,
            answer_from=self.thinking_tokens - shown,
            failure=Failure(code="backend_error", message="scripted to fail") if reason == "error" else None,
        )

    def _chunk(self, thought: str, text: str, tokens: tuple[str, ...]) -> Chunk:
        sampling = self.request.sampling
        was_thinking = len(self.tokens) <= self.thinking_tokens
        if was_thinking and self.model.profile.thought == "hidden":
            thought, tokens = "", ()
        has_logprobs = bool(tokens) and (sampling.logprobs or sampling.top_logprobs > 0)
        return Chunk(
            request=self.request_index,
            sample_index=self.index,
            text=text,
            token_ids=tuple(map(_token_id, tokens)),
            logprobs=tuple(self.logprobs[-1:]) if has_logprobs else (),
            thought=thought,
            completion=self.completion,
        )


def _completion(writer: _Writer) -> Completion:
    assert writer.completion is not None
    return writer.completion
