"""`ServerModel`: a model at a server of one's own, with what vLLM's pages allow in addition to chat.

Where the server renders its template for us, prompts with a prefix or a thought are sent as tokens, a response that
broke off is continued after the tokens received, continuations are scored, and a request that does not fit the context
is refused before it is sent.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ...core.errors import CapabilityMissing, ContextTooLong, InvalidResponse
from ...core.messages import Chunk, Completion, Failure, Prompt, Request, SamplingParams, ScoredContinuation, Usage
from ..litellm.errors import readable_response
from ..litellm.model import AttemptResult, LiteLLMModel, SampleBatch
from ..litellm.requests import by_tokens, max_response_tokens, measuring_params, sample_seed, thinking_of
from ..litellm.responses import HIDDEN, SampleCollector, StreamedSample, token_id
from ..model import Listener
from .pages import detokenize, prompt_ids, take_processor_report, tokenize_text
from .requests import (
    completion_body,
    may_not_fit,
    rendering_of,
    salt_fields,
    server_chat_body,
    session_headers,
    template_arguments,
)


class ServerModel(LiteLLMModel):
    """A language model at a server of one's own.

    Attributes:
        probe_usage: What the requests used that measured the server; charged to the first sample that is generated.
        remeasure: Measures the server, if what it supports is only remembered; else None.
    """

    probe_usage: Usage | None = None
    remeasure: Callable[[], Awaitable[ServerModel]] | None = None
    _is_measuring: asyncio.Lock | None = None

    async def measure_again(self) -> None:
        """See `MeasuresAgain`."""
        self._is_measuring = self._is_measuring or asyncio.Lock()
        async with self._is_measuring:
            if self.remeasure is None:
                return
            fresh = await self.remeasure()
            self._can, self.traits, self.identity = fresh.capabilities, fresh.traits, fresh.identity
            self.probe_usage, self.remeasure = fresh.probe_usage, None

    async def attempt(
        self, part: SampleBatch, run: tuple[int, ...], waited: float, listener: Listener | None
    ) -> AttemptResult:
        if self.probe_usage is not None and listener is not None:
            listener(Chunk(request=part.position, sample_index=run[0], lost=self.probe_usage))
            self.probe_usage = None
        return await super().attempt(part, run, waited, listener)

    def _is_continuable(self, request: Request, sample: StreamedSample) -> bool:
        """Whether a sample whose response broke off can be continued exactly.

        Not under a grammar or a logits processor, whose state would begin again, and not inside a tool call.
        """
        sampling, prompt = request.sampling, request.prompt
        if not self._can.prefix or sample.finish is not None or sample.calls or prompt.tools:
            return False
        if sampling.json_schema is not None or sampling.logits_processors:
            return False
        is_possible = not sample.is_thinking or self._can.profile.prefix == "thought"
        stops_thought = bool(sampling.stop) and prompt.thought is not None and not prompt.thought.closed
        return self.traits.tokenizer and bool(sample.token_ids) and is_possible and not stops_thought

    async def _read(self, part: SampleBatch, reading: SampleCollector) -> None:
        request = await self._fitted(part.request)
        sample = reading.samples[0]
        if sample.index in part.broken:
            sending = await self._send_rest(part, request, sample, reading)
        else:
            if request is not part.request:
                reading.restart(self._rules(request))
            if request.sampling.logits_processors and self.traits.reports:
                sample.report = uuid.uuid4().hex
            sending = await self._send(request, [s.index for s in reading.samples], sample.report)
        if sending is not None:
            async with sending as chunks:
                await reading.read(chunks)
        await self._locate_answers(reading.samples)

    async def _send(self, request: Request, run: Sequence[int], report: str = "") -> Any:
        target, can, traits = self.target, self._can, self.traits
        if by_tokens(request, can.profile, traits):
            ids = await self.ids_of(request.prompt, request.sampling)
            self._check_length(request, len(ids))
            return self.wire.complete(completion_body(request, run, ids, target, can.profile, traits, report))
        if may_not_fit(request, can, traits):
            self._check_length(request, len(await self.ids_of(request.prompt, request.sampling)))
        return self.wire.chat(server_chat_body(request, run, target, can, traits, report))

    async def _send_rest(
        self, part: SampleBatch, request: Request, sample: StreamedSample, reading: SampleCollector
    ) -> Any | None:
        """Request the rest of a sample whose response broke off; None if it needs none.

        The rest has a seed of its own: the generator of the sample's seed would repeat the numbers of its first tokens.
        """
        sampling, profile = request.sampling, self._can.profile
        held = await self._held_text(sample)
        if held is None:
            part.inexact.add(sample.index)
            raise InvalidResponse(f"{self.target.endpoint} does not detokenize a response as it was streamed")
        reading.resume(held, sampling.stop)
        received = len(sample.token_ids)
        left = max_response_tokens(request, profile) - received
        if sample.finish is None and left <= 0:
            sample.finish = "length"
        if sample.finish is not None:
            return None
        ids = [*await self.ids_of(request.prompt, sampling), *sample.token_ids]
        body = completion_body(request, [sample.index], ids, self.target, profile, self.traits)
        body.pop("stop", None)  # applied here, since one may have begun before
        body["max_tokens"] = left
        if "seed" in body:
            body["seed"] = sample_seed(body["seed"], received)
        return self.wire.complete(body)

    async def _held_text(self, sample: StreamedSample) -> str | None:
        """Text of a sample's received tokens that the server had not sent, without that of an incomplete character.

        None if their text is not what was received.
        """
        for _ in range(4):  # bytes of a character
            text = await detokenize(self.wire.http, self.target.served, sample.token_ids)
            if not text.endswith("\ufffd"):
                break
            sample.drop_last_token()
        start = text.rfind(sample.received_text)
        return None if start < 0 else text[start + len(sample.received_text) :]

    # -- what a request needs

    async def _fitted(self, request: Request) -> Request:
        """The request with its thought limited to what the context leaves after prompt and answer."""
        thinking = thinking_of(request, self._can.profile)
        limit = self._can.context_tokens
        if limit is None or not thinking.is_on or not may_not_fit(request, self._can, self.traits):
            return request
        room = limit - len(await self.ids_of(request.prompt, request.sampling)) - request.sampling.max_tokens
        if room >= thinking.max_tokens:
            return request
        sampling = request.sampling.model_copy(update={"thinking_tokens": max(1, room)})
        return request.model_copy(update={"sampling": sampling})

    def _check_length(self, request: Request, tokens: int) -> None:
        """Refuse a request that does not fit: a vLLM server would reduce `max_tokens` silently."""
        limit, max_tokens = self._can.context_tokens, max_response_tokens(request, self._can.profile)
        if limit is not None and tokens + max_tokens > limit:
            raise ContextTooLong(
                f"prompt ({tokens}) and max_tokens ({max_tokens}) need {tokens + max_tokens} tokens; "
                f"{self.name} holds {limit}",
                tokens=tokens + max_tokens,
                limit=limit,
                hint="shorten the prompt or lower max_tokens",
            )

    async def _locate_answers(self, samples: Sequence[StreamedSample]) -> None:
        """Find the first token of each answer that came together with others, by the tokens' texts."""
        for sample in samples:
            start = sample.start
            if start is None or start.size < 2 or not sample.token_ids or not self.traits.tokenizer:
                continue
            words = [await self._word(i) for i in sample.token_ids[start.first : start.first + start.size]]
            text = start.text.strip()
            at = next((j for j in range(len(words) - 1, 0, -1) if text in "".join(words[j:])), 0)
            sample.start = start._replace(first=start.first + at, size=1)

    async def _completed(self, sample: StreamedSample, usage: Usage, request: Request) -> Completion:
        k = request.sampling.top_logprobs
        if k and sample.top and self.traits.tokenizer:
            names = [*sample.names, *(name for row in sample.top for name, _ in row[:k])]
            for i in sorted({token_id(name) for name in names} - {HIDDEN}):
                await self._word(i)
        completion = await super()._completed(sample, usage, request)
        if not sample.report:
            return completion
        headers = session_headers(self.target, request.prompt)
        return _with_report(completion, await take_processor_report(self.wire.http, sample.report, headers))

    # -- tokens

    async def ids_of(self, prompt: Prompt, sampling: SamplingParams | None = None) -> list[int]:
        """Tokens of a prompt with its thought and prefix, by the server's tokenizer.

        `sampling` decides whether the model thinks after it; None is not, unless the prompt has an open thought.
        """
        profile = self._can.profile
        request = Request(prompt=prompt, sampling=sampling or measuring_params(profile, max_tokens=1))
        rendering = rendering_of(request, profile)
        return await prompt_ids(
            self.wire.http,
            self.target.served,
            prompt,
            profile,
            template_arguments(profile, rendering),
            thinking=rendering.is_on,
        )

    async def _word(self, token: int) -> str:
        """Text of a token by the server's tokenizer, requested once."""
        if token not in self._texts:
            self._texts[token] = await detokenize(self.wire.http, self.target.served, [token])
        return self._texts[token]

    async def raw_sample(self, request: Request) -> tuple[StreamedSample, Any]:
        """The first sample of a request as the server sends it, nothing split; and the usage that it reports."""

        async def call() -> tuple[StreamedSample, Any]:
            reading = SampleCollector((0,), lambda *_: None, self.target.endpoint)
            async with await self._send(request, (0,)) as chunks:
                await reading.read(chunks)
            return reading.samples[0], reading.usage

        result, _ = await self.retried(call)
        return result

    async def score(self, prompt: Prompt, continuations: Sequence[str | tuple[int, ...]]) -> list[ScoredContinuation]:
        """Score continuations by the server's `prompt_logprobs`, one request for each."""
        if not self._can.scoring:
            raise CapabilityMissing("scoring", self.name)
        if not continuations:
            return []
        before, waited = await self.retried(lambda: self.ids_of(prompt))
        scored = await self.gather([partial(self._score_one, prompt, before, c) for c in continuations])
        first = scored[0]
        usage = first.usage.model_copy(update={"waited_s": first.usage.waited_s + waited})
        return [first.model_copy(update={"usage": usage}), *scored[1:]]

    async def _score_one(
        self, prompt: Prompt, before: list[int], continuation: str | tuple[int, ...]
    ) -> ScoredContinuation:
        context, scored = await self._split_continuation(prompt, before, continuation)
        if not scored:
            return ScoredContinuation(token_ids=(), logprobs=(), is_greedy=True)
        ids = [*context, *scored]
        body = {"model": self.target.served, "prompt": ids, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
        body |= salt_fields(self.target, prompt.cache_salt)

        async def call() -> tuple[list[tuple[float, int]], dict[str, Any]]:
            response = await self.wire.http.post_json("/completions", body)
            with readable_response(self.target.endpoint):
                return _prompt_rows(response, ids, len(context)), response.get("usage") or {}

        (rows, usage), waited = await self.retried(call)
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        cost = self.prices.cost(len(ids), 0, 1)
        return ScoredContinuation(
            token_ids=tuple(scored),
            logprobs=tuple(value for value, _ in rows),
            is_greedy=all(rank == 1 for _, rank in rows),
            usage=Usage(
                prompt_tokens=len(ids), cached_tokens=cached, completion_tokens=1, waited_s=waited, cost_usd=cost
            ),
        )

    async def _split_continuation(
        self, prompt: Prompt, before: list[int], continuation: str | tuple[int, ...]
    ) -> tuple[list[int], list[int]]:
        """The tokens before a continuation, and its own; a text is tokenized together with a text before it."""
        if not isinstance(continuation, str):
            return before, list(continuation)
        if not isinstance(prompt.prefix, str):
            client, served = self.wire.http, self.target.served
            tail, _ = await self.retried(lambda: tokenize_text(client, served, continuation, special=False))
            return before, tail
        ids, _ = await self.retried(lambda: self.ids_of(prompt.with_prefix(f"{prompt.prefix}{continuation}")))
        shared = next(
            (i for i, (a, b) in enumerate(zip(before, ids, strict=False)) if a != b), min(len(before), len(ids))
        )
        return ids[:shared], ids[shared:]


def _with_report(completion: Completion, report: Mapping[str, Any]) -> Completion:
    """The sample with the report of its logits processors; it is a failed one if a processor failed.

    The report has `extras` by processor, and `failure` as (code, message) or None.
    """
    failed = report["failure"]
    updates: dict[str, Any] = {"extras": {**completion.extras, **report["extras"]}}
    if failed is not None:
        failure = Failure(code=failed[0], message=failed[1])
        updates |= {"finish_reason": "error", "stop_reason": None, "failure": failure}
    return completion.model_copy(update=updates)


def _prompt_rows(response: Any, ids: list[int], start: int) -> list[tuple[float, int]]:
    """(log-probability, rank) of the tokens from `start` on; the first token of a text has neither."""
    listed = response["choices"][0].get("prompt_logprobs") or response.get("prompt_logprobs")
    if not isinstance(listed, list) or len(listed) != len(ids):
        raise InvalidResponse("the server sent no log-probabilities of the prompt")
    rows = []
    for i in range(start, len(ids)):
        entry = (listed[i] or {}).get(str(ids[i]))
        if entry is None:
            raise InvalidResponse(f"the server sent no log-probability of token {i} of the prompt")
        rows.append((float(entry["logprob"]), int(entry["rank"])))
    return rows
