"""`LiteLLMModel`: a `LanguageModel` at any provider.

Every request is streamed, so that cancelling closes its connection at once, which is how a server learns to stop. A
sample is reported as finished when the stream of its request ends, since the usage comes last. Where a stream breaks
off, finished samples are kept and the others are requested again; if the new text of such a sample differs from what
was already streamed, its last chunk has the new completion without further text, otherwise the rest of the text. Where
stop strings or the limit of a thought are applied here, the connection is closed once they have ended every sample.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from ...core.errors import ContextTooLong, ReasonError
from ...core.messages import (
    Chunk,
    Completion,
    Failure,
    NextTokenDistribution,
    Prompt,
    Request,
    SamplingParams,
    ScoredContinuation,
    TopToken,
    Usage,
)
from ..model import Capabilities, Listener
from ..streaming import stream_of
from ..tool_calls import with_call_ids
from .errors import ContextExceeded, FailedAttempt, RetryPolicy, classify_error
from .limiter import ConcurrencyLimiter
from .providers import Prices, Target, split_usage
from .requests import (
    RequestTraits,
    Thinking,
    applied_stops,
    by_tokens,
    chat_body,
    check_request,
    completion_body,
    consecutive,
    max_response_tokens,
    may_not_fit,
    measuring_params,
    rendering_of,
    shows_logprobs,
    template_arguments,
    thinking_of,
)
from .responses import (
    ReadingRules,
    SampleCollector,
    StreamedSample,
    final_chunk,
    to_completion,
    token_id,
    with_processor_report,
)
from .scoring import next_token, score
from .transport import Transport
from .vllm_server import detokenize, prompt_ids, take_processor_report

CHARS_PER_TOKEN = 4
"""Characters of a token in the chunks of providers, which show no tokens: about those of English text."""


@dataclass(slots=True)
class StreamedText:
    """What was streamed of a sample: its texts, and the number of token ids and log-probabilities."""

    text: str = ""
    thought: str = ""
    ids: int = 0
    logprobs: int = 0

    def rest(self, completion: Completion) -> tuple[str, tuple[int, ...], tuple[float, ...], str]:
        """The part of a sample that was not streamed yet; nothing if it is another text."""
        thought = "" if completion.thought is None else completion.thought.text
        if not (completion.text.startswith(self.text) and thought.startswith(self.thought)):
            return "", (), (), ""
        return (
            completion.text[len(self.text) :],
            completion.token_ids[self.ids :],
            (completion.logprobs or ())[self.logprobs :],
            thought[len(self.thought) :],
        )


@dataclass
class SampleBatch:
    """Samples of one request that are requested together.

    Attributes:
        position: Position of the request in the call.
        request: The request.
        indices: Indices of the samples.
        streamed: What was streamed of each sample, so that a second attempt does not stream it again.
    """

    position: int
    request: Request
    indices: tuple[int, ...]
    streamed: dict[int, StreamedText] = field(default_factory=dict)

    def keep(self, finished: Sequence[Completion], done: dict[tuple[int, int], Completion]) -> tuple[int, ...]:
        """Store finished samples; returns the indices that are not finished yet."""
        done.update({(self.position, c.sample_index): c for c in finished})
        return tuple(i for i in self.indices if (self.position, i) not in done)


class AttemptResult(NamedTuple):
    """Result of one request for some samples.

    Attributes:
        finished: The finished samples.
        fault: Why the others are not finished; None where the response was complete.
        short: Whether the response was complete but lacks samples: many servers ignore `n`.
    """

    finished: Sequence[Completion]
    fault: FailedAttempt | None
    short: bool = False


class LiteLLMModel:
    """A language model at a provider.

    Args:
        target: The provider's endpoint and model.
        wire: The connection.
        capabilities: What it can do, declared or measured.
        traits: How it takes requests.
        prices: Prices of its tokens.
        limiter: Limit of concurrent requests; may be shared with other models.
        identity: Part of every key in the run store.
        draw: Uniform numbers in [0, 1) for the jitter of the backoff.

    Attributes:
        endpoint_label: The extra `endpoint` of its completions; empty if there is only one.
    """

    def __init__(
        self,
        target: Target,
        wire: Transport,
        capabilities: Capabilities,
        traits: RequestTraits,
        prices: Prices,
        limiter: ConcurrencyLimiter,
        identity: str,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.name = target.name
        self.identity = identity
        self.target, self.wire, self.traits, self.prices = target, wire, traits, prices
        self._can = capabilities
        self.limiter = limiter
        self._draw = draw
        settings = target.settings
        self._retrying = RetryPolicy(max_retries=settings.max_retries, max_seconds=settings.retry_s)
        self.endpoint_label = ""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._callers: dict[asyncio.Task[Any], asyncio.Event] = {}
        self._words: dict[int, str] = {}

    @property
    def capabilities(self) -> Capabilities:
        return self._can

    def count_tokens(self, prompt: Prompt) -> int | None:
        """None: only the provider knows, and that takes a call."""
        return None

    # -- sampling

    async def generate(self, requests: Sequence[Request], listener: Listener | None = None) -> list[list[Completion]]:
        for request in requests:
            check_request(request, self.target, self._can, self.traits)
        parts = iter(self._parts(requests))
        done: dict[tuple[int, int], Completion] = {}
        errors: list[ReasonError] = []

        async def work() -> None:
            for part in parts:
                error = await self._make(part, done, listener)
                if error is not None:
                    errors.append(error)

        wanted = sum(len(r.indices) for r in requests)
        workers = min(wanted, self.limiter.max_in_flight)
        await self._together([work] * workers)
        if errors and all(not c.ok for c in done.values()):
            raise errors[0]
        return [[done[i, index] for index in request.indices] for i, request in enumerate(requests)]

    def stream(self, request: Request) -> AsyncGenerator[Chunk, None]:
        return stream_of(self.generate, request)

    def _parts(self, requests: Sequence[Request]) -> Iterator[SampleBatch]:
        for i, request in enumerate(requests):
            # a logits processor's state belongs to one sample, and vLLM reports only one for all of a request
            many = self.traits.multi_sample and not request.sampling.logits_processors
            many = many and not self._can.profile.refused("n", thinking=thinking_of(request, self._can.profile).is_on)
            runs = consecutive(request.indices) if many else [(x,) for x in request.indices]
            yield from (SampleBatch(i, request, run) for run in runs)

    async def _make(
        self, part: SampleBatch, done: dict[tuple[int, int], Completion], listener: Listener | None
    ) -> ReasonError | None:
        """Generate the samples of a batch; a sample that fails becomes a failed completion, and its error is returned.

        Raises:
            ReasonError: Every other request would fail in the same way.
        """
        began = time.monotonic()
        waited, retries = 0.0, 0
        left = part.indices
        while True:
            run = consecutive(left)[0]
            async with self.limiter.slot() as queued:
                outcome = await self.attempt(part, run, waited + queued, listener)
            waited = 0.0 if outcome.finished else waited + queued  # it was reported with them
            left = part.keep(outcome.finished, done)
            if not left:
                return None
            if outcome.short:
                return await self._one_by_one(part, left, done, listener)
            if outcome.fault is None:
                continue
            wait = self._retrying.wait(outcome.fault, retries, time.monotonic() - began, self._draw)
            if wait is None:
                return await self._give_up(part, left, outcome.fault, done, listener)
            retries += 1
            await asyncio.sleep(wait)
            waited += wait

    async def _one_by_one(
        self,
        part: SampleBatch,
        left: tuple[int, ...],
        done: dict[tuple[int, int], Completion],
        listener: Listener | None,
    ) -> ReasonError | None:
        """Request the missing samples one by one, and all later ones, from a server that ignores `n`."""
        self.traits = self.traits.model_copy(update={"multi_sample": False})
        self._can = self._can.model_copy(update={"prompt_per_sample": True})
        alone = [SampleBatch(part.position, part.request, (index,), part.streamed) for index in left]
        errors = await self.gather([partial(self._make, one, done, listener) for one in alone])
        return next((error for error in errors if error is not None), None)

    async def attempt(
        self, part: SampleBatch, run: tuple[int, ...], waited: float, listener: Listener | None
    ) -> AttemptResult:
        """One request for some samples."""
        again = any(i in part.streamed for i in run)

        def emit(
            index: int, text: str, ids: tuple[int, ...], logprobs: tuple[float, ...], thought: str, tokens: int
        ) -> None:
            if again:
                return
            streamed = part.streamed.get(index)
            if streamed is None:
                streamed = part.streamed[index] = StreamedText()
            streamed.text += text
            streamed.thought += thought
            streamed.ids += len(ids)
            streamed.logprobs += len(logprobs)
            if listener is not None:
                listener(
                    Chunk(
                        request=part.position,
                        sample_index=index,
                        text=text,
                        token_ids=ids,
                        logprobs=logprobs,
                        thought=thought,
                        tokens=tokens,
                    )
                )

        request = part.request
        reading = SampleCollector(run, emit, self.target.endpoint, self._rules(request))
        fault: FailedAttempt | None = None
        report = uuid.uuid4().hex if part.request.sampling.logits_processors and self.traits.reports else ""
        try:
            request = await self._fitted(request)
            reading = SampleCollector(run, emit, self.target.endpoint, self._rules(request))
            async with await self._send(request, run, report) as chunks:
                async for events in chunks:
                    reading.take(events)
                    if reading.is_complete:
                        break
            await self._locate_answers(reading.samples)
        except Exception as e:  # noqa: BLE001 (whatever a provider's client raises is explained by its class)
            fault = classify_error(e, self.target)
        prompt_tokens = reading.prompt_tokens
        if reading.usage is None and reading.is_complete and not prompt_tokens:
            prompt_tokens = int(self.wire.count(_prompt_text(part.request.prompt)))
        usages = split_usage(reading.usage, reading.samples, self.prices, self.target, waited, prompt_tokens)
        finished = []
        some = any(sample.finish is not None for sample in reading.samples)
        for sample, usage in zip(reading.samples, usages, strict=True):
            if sample.finish is None and (fault is not None or (some and not sample.pieces)):
                continue
            try:
                completion = await self._completed(sample, usage, part.request, report)
            except Exception as e:  # noqa: BLE001 (asking for the tokens' texts may fail like any request)
                fault = fault or classify_error(e, self.target)
                continue
            finished.append(completion)
            if listener is not None:
                streamed = part.streamed.get(sample.index, StreamedText())
                listener(final_chunk(part.position, completion, *streamed.rest(completion)))
        return AttemptResult(finished, fault, short=fault is None and len(finished) < len(run))

    def _rules(self, request: Request) -> ReadingRules:
        """How the samples of a request are read."""
        profile = self._can.profile
        if not profile.can_think or request.prompt.text is not None:
            tokens = request.sampling.max_tokens
            return ReadingRules(stops=applied_stops(request, profile, Thinking()), max_tokens=tokens)
        thinking, is_exact = thinking_of(request, profile), by_tokens(request, profile, self.traits)
        continues = thinking.is_on and request.prompt.thought is not None
        needs_usage = thinking.is_on and (profile.thought == "hidden" or not self.target.is_own_server)
        return ReadingRules(
            profile=profile,
            thinks=thinking.is_on,
            opened=continues or (thinking.is_on and profile.opened_by_template and profile.thought == "tags"),
            is_exact=is_exact,
            continues=continues,
            stops=applied_stops(request, profile, thinking),
            max_thinking_tokens=thinking.max_tokens if thinking.is_on else 0,
            max_tokens=max_response_tokens(request, profile),
            chars_per_token=0 if self.target.is_own_server else CHARS_PER_TOKEN,
            needs_usage=needs_usage,
        )

    async def _fitted(self, request: Request) -> Request:
        """The request with its thought limited to what the context has room for beside prompt and answer."""
        thinking = thinking_of(request, self._can.profile)
        limit = self._can.context_tokens
        if limit is None or not thinking.is_on or not may_not_fit(request, self._can, self.traits):
            return request
        room = limit - len(await self.ids_of(request.prompt, request.sampling)) - request.sampling.max_tokens
        if room >= thinking.max_tokens:
            return request
        sampling = request.sampling.model_copy(update={"thinking_tokens": max(1, room)})
        return request.model_copy(update={"sampling": sampling})

    async def _send(self, request: Request, run: tuple[int, ...], report: str) -> Any:
        profile = self._can.profile
        if by_tokens(request, profile, self.traits):
            ids = await self.ids_of(request.prompt, request.sampling)
            self._check_length(request, len(ids))
            return self.wire.complete(completion_body(request, run, ids, self.target, profile, self.traits, report))
        if may_not_fit(request, self._can, self.traits):
            self._check_length(request, len(await self.ids_of(request.prompt, request.sampling)))
        body = chat_body(request, run, self.target, self._can, self.traits, report)
        return self.wire.chat(body)

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

    async def _completed(self, sample: StreamedSample, usage: Usage, request: Request, report: str) -> Completion:
        k = request.sampling.top_logprobs
        top = await self.top_tokens([row[:k] for row in sample.top]) if k and sample.top else None
        completion = to_completion(
            sample,
            usage,
            top,
            wants_logprobs=shows_logprobs(request.sampling),
            reports_stop=self.target.vllm,
            endpoint=self.target.endpoint,
        )
        if completion.tool_calls:  # not every provider names them
            completion = completion.model_copy(
                update={"tool_calls": with_call_ids(completion.tool_calls, request, completion.sample_index)}
            )
        if self.endpoint_label:
            completion = completion.model_copy(
                update={"extras": {**completion.extras, "endpoint": self.endpoint_label}}
            )
        return (
            with_processor_report(completion, await take_processor_report(self.wire.client, report))
            if report
            else completion
        )

    async def _give_up(
        self,
        part: SampleBatch,
        left: tuple[int, ...],
        fault: FailedAttempt,
        done: dict[tuple[int, int], Completion],
        listener: Listener | None,
    ) -> ReasonError:
        error = fault.error
        if isinstance(error, ContextExceeded):
            error = await self._too_long(part.request, error)
        if not isinstance(error, ReasonError) or fault.fatal:
            raise error
        for index in left:
            failed = Completion(
                text="",
                finish_reason="error",
                sample_index=index,
                usage=Usage(cost_usd=self.prices.cost(0, 0, 0)),
                failure=Failure(code=error.code, message=str(error)),
            )
            done[part.position, index] = failed
            if listener is not None:
                listener(final_chunk(part.position, failed))
        return error

    def _check_length(self, request: Request, tokens: int) -> None:
        """Refuse a request that does not fit: a vLLM server would reduce `max_tokens` silently.

        Raises:
            ContextTooLong: Prompt and `max_tokens` exceed the context.
        """
        limit, max_tokens = self._can.context_tokens, max_response_tokens(request, self._can.profile)
        if limit is not None and tokens + max_tokens > limit:
            raise ContextTooLong(
                f"prompt ({tokens}) and max_tokens ({max_tokens}) need {tokens + max_tokens} tokens; "
                f"{self.name} holds {limit}",
                tokens=tokens + max_tokens,
                limit=limit,
                hint="shorten the prompt or lower max_tokens",
            )

    async def _too_long(self, request: Request, error: ContextExceeded) -> ContextTooLong:
        """The error with its numbers: the prompt's tokens by the server's count, or else by LiteLLM's."""
        try:
            tokens = len(await self.ids_of(request.prompt, request.sampling)) if self.traits.tokenizer else None
        except Exception:  # noqa: BLE001 (the count is only for the message)
            tokens = None
        if tokens is None:
            tokens = int(self.wire.count(_prompt_text(request.prompt)))
        return ContextTooLong(
            f"model {self.name!r}: {error}",
            tokens=tokens + max_response_tokens(request, self._can.profile),
            limit=self._can.context_tokens or 0,
            hint="shorten the prompt or lower max_tokens",
        )

    # -- tokens

    async def ids_of(self, prompt: Prompt, sampling: SamplingParams | None = None) -> list[int]:
        """Tokens of a prompt with its thought and prefix, by the server's tokenizer.

        Args:
            prompt: The prompt.
            sampling: Decides whether the model thinks after it; None is not, unless the prompt has an open thought.
        """
        profile = self._can.profile
        request = Request(prompt=prompt, sampling=sampling or measuring_params(profile, max_tokens=1))
        rendering = rendering_of(request, profile)
        return await prompt_ids(
            self.wire.client,
            self.target.served,
            prompt,
            profile,
            template_arguments(profile, rendering),
            thinking=rendering.is_on,
        )

    async def _word(self, token: int) -> str:
        """Text of a token by the server's tokenizer, requested once."""
        if token not in self._words:
            self._words[token] = await detokenize(self.wire.client, self.target.served, [token])
        return self._words[token]

    async def top_tokens(self, rows: Sequence[Sequence[tuple[str, float]]]) -> tuple[tuple[TopToken, ...], ...]:
        """Alternatives with ids and texts; if a server names tokens by id, the text of each id is requested once."""
        ids = {token_id(name) for row in rows for name, _ in row} - {-1} - self._words.keys()
        if ids and self.traits.tokenizer:
            for i in sorted(ids):
                await self._word(i)
        return tuple(
            tuple(
                TopToken(token_id=token_id(n), token=self._words.get(token_id(n), n), logprob=v)
                for n, v in sorted(row, key=lambda pair: -pair[1])
            )
            for row in rows
        )

    # -- measuring

    async def raw_sample(self, request: Request) -> tuple[StreamedSample, Any]:
        """The first sample of a request as the server sends it, nothing split; and the usage that it reports.

        Raises:
            ReasonError: The request failed.
        """

        async def call() -> tuple[StreamedSample, Any]:
            reading = SampleCollector((0,), lambda *_: None, self.target.endpoint)
            async with await self._send(request, (0,), "") as chunks:
                async for events in chunks:
                    reading.take(events)
            return reading.samples[0], reading.usage

        result, _ = await self.retried(call)
        sample, usage = result
        return sample, usage

    async def score(self, prompt: Prompt, continuations: Sequence[str | tuple[int, ...]]) -> list[ScoredContinuation]:
        return await score(self, prompt, continuations)

    async def next_token(self, prompts: Sequence[Prompt], top: int = 20) -> list[NextTokenDistribution]:
        return await next_token(self, prompts, top)

    async def retried(self, call: Callable[[], Any]) -> tuple[Any, float]:
        """The result of a call with the retries of a request, and the seconds waited.

        Raises:
            ReasonError: It failed finally.
        """
        began, waited, retries = time.monotonic(), 0.0, 0
        while True:
            try:
                async with self.limiter.slot() as queued:
                    waited += queued
                    return await call(), waited
            except Exception as e:
                fault = classify_error(e, self.target)
                wait = self._retrying.wait(fault, retries, time.monotonic() - began, self._draw)
                if wait is None:
                    if isinstance(fault.error, ContextExceeded):
                        limit = self._can.context_tokens or 0
                        raise ContextTooLong(str(fault.error), tokens=limit + 1, limit=limit) from e
                    raise fault.error from e
            retries += 1
            await asyncio.sleep(wait)
            waited += wait

    async def gather(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """Results of calls, run concurrently as far as the limiter allows; the first failure cancels the others."""
        results: list[Any] = [None] * len(calls)
        numbered = iter(enumerate(calls))

        async def work() -> None:
            for i, call in numbered:
                results[i] = await call()

        await self._together([work] * min(len(calls), self.limiter.max_in_flight))
        return results

    async def _together(self, works: Sequence[Callable[[], Any]]) -> None:
        """Run workers concurrently; the first failure, or a cancellation, ends all of them."""
        if len(works) == 1:
            await self._alone(works[0])
            return
        tasks = [asyncio.ensure_future(work()) for work in works]
        self._tasks.update(tasks)
        try:
            if tasks:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
                for task in done:
                    task.result()
        finally:
            left = [task for task in tasks if not task.done()]
            for task in left:
                task.cancel()
            if left:
                await asyncio.gather(*left, return_exceptions=True)
            self._tasks.difference_update(tasks)

    async def _alone(self, work: Callable[[], Any]) -> None:
        """Run a single worker in the caller's own task, which saves a task for each call.

        `aclose` cancels this call as if it were a task of its own: the caller's task is not left in a cancelled state.
        """
        task = asyncio.current_task()
        if task is None or task in self._callers:
            await work()
            return
        left = self._callers[task] = asyncio.Event()
        try:
            await work()
        except asyncio.CancelledError:
            if task not in self._callers:
                task.uncancel()
            raise
        finally:
            self._callers.pop(task, None)
            left.set()

    async def aclose(self) -> None:
        """Cancel requests in flight and close the connections; idempotent."""
        tasks, callers = tuple(self._tasks), dict(self._callers)
        self._callers.clear()
        for task in (*tasks, *callers):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for left in callers.values():
            await left.wait()
        await self.wire.aclose()


def _prompt_text(prompt: Prompt) -> str:
    """A prompt's texts, for an approximate count."""
    return (prompt.text or "") + "\n".join(m.content for m in prompt.messages)
