"""`LiteLLMModel`: a `LanguageModel` at any provider.

Every request is streamed, so that cancelling closes its connection at once, which is how a server learns to stop. A
sample is reported as finished when the stream of its request ends, since the usage comes last. Where a stream breaks
off, finished samples are kept, and `RetryPolicy` decides about the others: each is continued after the tokens received
where the model continues a prefix exactly, generated again where no client has seen its text, or failed; what the
broken response cost is reported in every case (`Chunk.lost`). Where stop strings or the limit of a thought are applied
here, the connection is closed once they have ended every sample.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

from ...core.clock import monotonic
from ...core.concurrency import cancel_and_wait
from ...core.errors import CapabilityMissing, ContextTooLong, InvalidResponse, ReasonError, UserError
from ...core.messages import (
    Chunk,
    Completion,
    Failure,
    LogitsProcessorSpec,
    NextTokenDistribution,
    Prompt,
    Request,
    ScoredContinuation,
    Usage,
)
from ..entropy import token_distribution
from ..model import UNCOUNTED, Capabilities, Listener
from ..profiles.profile import Parameter
from ..refusals import is_sent, remember_refusal
from ..tool_calls import with_call_ids
from .errors import MANY_RETRIES, ContextExceeded, FailedAttempt, RetryPolicy, classify_error
from .limiter import ConcurrencyLimiter
from .prompt_cache import prefix_marks
from .providers import Prices, Target, estimate_tokens
from .requests import (
    RequestTraits,
    ThinkingMode,
    applied_stops,
    by_tokens,
    chat_body,
    check_request,
    consecutive,
    max_response_tokens,
    measuring_params,
    thinking_of,
)
from .responses import (
    Piece,
    ReadingRules,
    SampleCollector,
    StreamedSample,
    count_tokens,
    is_uncounted,
    split_usage,
    to_completion,
    with_received,
)
from .transport import Transport

T = TypeVar("T")

CHARS_PER_TOKEN = 4
"""Characters of a token in the chunks of providers, which show no tokens: about those of English text."""


@dataclass
class SampleBatch:
    """Samples of one request that are requested together.

    Attributes:
        position: Position of the request in the call.
        seen: Those whose text a client has seen (see `Listener`).
        broken: Those whose response broke off, as far as they were received; the next attempt continues them.
        num_broken: How many responses to each broke off after its first token.
        inexact: Those whose tokens have another text than was received, so that they cannot be continued.
        marks: Numbers of leading messages after which the prompt is marked for the provider's cache.
        begun: Set when a response of the call has begun, after which the provider's cache has what the others share.
    """

    position: int
    request: Request
    indices: tuple[int, ...]
    seen: set[int] = field(default_factory=set)
    broken: dict[int, StreamedSample] = field(default_factory=dict)
    num_broken: Counter[int] = field(default_factory=Counter)
    inexact: set[int] = field(default_factory=set)
    marks: tuple[int, ...] = ()
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    def left(self, done: Mapping[tuple[int, int], Completion]) -> tuple[int, ...]:
        """The samples that are not done."""
        return tuple(i for i in self.indices if (self.position, i) not in done)

    def next_run(self, left: Sequence[int]) -> tuple[int, ...]:
        """The samples of the next request: one that is continued, or neighbours that begin."""
        return (left[0],) if left[0] in self.broken else consecutive([i for i in left if i not in self.broken])[0]


class AttemptResult(NamedTuple):
    """Result of one request for some samples.

    Attributes:
        fault: Why the others are not finished; None where the response was complete.
        short: Whether the response was complete but lacks samples: many servers ignore `n`.
        failed: Indices of the samples that are not tried again.
    """

    finished: Sequence[Completion]
    fault: FailedAttempt | None
    short: bool = False
    failed: tuple[int, ...] = ()


@dataclass
class Attempts:
    """The attempts of one request: when they began, the retries, and the seconds waited that no sample reported."""

    began: float
    retries: int = 0
    waited_s: float = 0.0


class LiteLLMModel:
    """A language model at a provider.

    Args:
        limiter: Limit of concurrent requests; may be shared with other models.
        identity: Part of every key in the run store.

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
    ) -> None:
        self.name = target.name
        self.identity = identity
        self.target, self.wire, self.traits, self.prices = target, wire, traits, prices
        self._can = capabilities
        self.limiter = limiter
        settings = target.settings
        self._retrying = RetryPolicy(max_retries=settings.max_retries, max_seconds=settings.retry_s)
        self.endpoint_label = ""
        self._has_answered = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._texts: dict[int, str] = {}
        """Texts of the tokens that the endpoint names by id."""

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
        parts = self._parts(requests)
        if parts and not (len(parts) > 1 and any(part.marks for part in parts)):
            parts[0].begun.set()
        numbered = iter(enumerate(parts))
        done: dict[tuple[int, int], Completion] = {}
        errors: list[ReasonError] = []

        async def work() -> None:
            for number, part in numbered:
                if number:
                    await part.begun.wait()
                try:
                    error = await self._make(part, done, listener)
                finally:
                    part.begun.set()
                if error is not None:
                    errors.append(error)

        wanted = sum(len(r.indices) for r in requests)
        workers = min(wanted, self.limiter.max_in_flight)
        await self.gather([work] * workers)
        if errors and all(not c.ok for c in done.values()):
            raise errors[0]
        return [[done[i, index] for index in request.indices] for i, request in enumerate(requests)]

    def _parts(self, requests: Sequence[Request]) -> list[SampleBatch]:
        profile, begun = self._can.profile, asyncio.Event()
        parts = []
        for i, request in enumerate(requests):
            runs = self._runs(request)
            is_marked = profile.prompt_cache == "marks"
            marks = prefix_marks(request.prompt, len(runs), profile.min_cached_tokens) if is_marked else ()
            parts += [SampleBatch(i, request, run, marks=marks, begun=begun) for run in runs]
        return parts

    def _runs(self, request: Request) -> list[tuple[int, ...]]:
        """The samples of each request that is sent for one of ours."""
        # a logits processor's state belongs to one sample, and vLLM reports only one for all of a request
        many = self.traits.multi_sample and not request.sampling.logits_processors
        many = many and not (request.prompt.tools and self._can.profile.responses_api != "never")
        many = many and not self._can.profile.refused("n", thinking=thinking_of(request, self._can.profile).is_on)
        return consecutive(request.indices) if many else [(x,) for x in request.indices]

    async def _make(
        self, part: SampleBatch, done: dict[tuple[int, int], Completion], listener: Listener | None
    ) -> ReasonError | None:
        """Generate the samples of a batch; a failed one becomes a failed completion, and its error is returned."""
        attempts = self._new_attempts()
        error: ReasonError | None = None
        while left := part.left(done):
            run, sent = part.next_run(left), self._can
            are_broken = sum(i in part.broken for i in left) > 1  # each is continued by a request of its own
            if are_broken or (len(run) > 1 and not self.traits.multi_sample):
                return await self._one_by_one(part, left, done, listener) or error
            outcome = await self._attempt(part, run, attempts, listener)
            done.update({(part.position, c.sample_index): c for c in outcome.finished})
            if outcome.fault is not None and outcome.failed:
                error = await self._give_up(part, outcome.failed, outcome.fault, done, listener) or error
            left = part.left(done)
            if not left:
                break
            fault = outcome.fault
            is_retried = fault is None or await self._leaves_out(fault, part.request, run, sent)
            if outcome.short or "n" in self._can.profile.left_out:  # several samples are not requested together again
                self.traits = self.traits.model_copy(update={"multi_sample": False})
                self._can = self._can.model_copy(update={"prompt_per_sample": True})
            if fault is not None and not is_retried and not await self._may_retry(fault, attempts):
                return await self._give_up(part, left, fault, done, listener)
        return error

    async def _leaves_out(self, fault: FailedAttempt, request: Request, run: Sequence[int], sent: Capabilities) -> bool:
        """Whether a request is made again without a parameter that was refused, which is remembered.

        Raises:
            CapabilityMissing: It is of no use without the parameter.
            UserError: The caller insists on it.
        """
        parameter, profile = fault.refused, self._can.profile
        body = chat_body(request, run, self.target, sent, self.traits)
        if parameter is None or parameter in sent.profile.left_out or not is_sent(parameter, body, request):
            return False
        if parameter not in profile.left_out:
            self.leave_out(profile.left_out | {parameter})
            where = (self.target.data_dir, self.name, self.target.endpoint)
            await asyncio.to_thread(remember_refusal, *where, parameter, str(fault.error))
        check_request(request, self.target, self._can, self.traits)
        return True

    def leave_out(self, parameters: frozenset[Parameter]) -> None:
        """Leave these parameters out of further requests."""
        profile = self._can.profile.model_copy(update={"left_out": parameters})
        self._can = self._can.model_copy(update={"profile": profile})

    def _new_attempts(self) -> Attempts:
        return Attempts(monotonic())

    async def _attempt(
        self, part: SampleBatch, run: tuple[int, ...], attempts: Attempts, listener: Listener | None
    ) -> AttemptResult:
        """One request, within the limit of concurrent ones."""
        async with self.limiter.slot() as queued:
            outcome = await self.attempt(part, run, attempts.waited_s + queued, listener)
        self._has_answered |= outcome.fault is None or outcome.fault.max_retries > 0
        attempts.waited_s = 0.0 if outcome.finished else attempts.waited_s + queued  # it was reported with them
        return outcome

    async def _may_retry(self, fault: FailedAttempt, attempts: Attempts) -> bool:
        """Whether there is another attempt, after the wait before it."""
        if fault.max_retries == 0 and self._has_answered:  # the server is restarting
            fault = replace(fault, max_retries=MANY_RETRIES)
        wait = self._retrying.wait(fault, attempts.retries, monotonic() - attempts.began, random.random)
        if wait is None:
            return False
        attempts.retries += 1
        await asyncio.sleep(wait)
        attempts.waited_s += wait
        return True

    async def _one_by_one(
        self,
        part: SampleBatch,
        left: tuple[int, ...],
        done: dict[tuple[int, int], Completion],
        listener: Listener | None,
    ) -> ReasonError | None:
        """Request the missing samples concurrently, one request each."""
        parts = [replace(part, indices=(index,)) for index in left]
        errors = await self.gather([partial(self._make, one, done, listener) for one in parts])
        return next((error for error in errors if error is not None), None)

    async def attempt(
        self, part: SampleBatch, run: tuple[int, ...], waited: float, listener: Listener | None
    ) -> AttemptResult:
        """One request for some samples, or for the rest of one whose response broke off."""

        def emit(index: int, piece: Piece) -> None:
            part.begun.set()
            chunk = Chunk(
                request=part.position,
                sample_index=index,
                text=piece.text,
                token_ids=tuple(piece.ids),
                logprobs=tuple(piece.logprobs),
                thought=piece.thought,
                tokens=piece.tokens,
            )
            if listener is not None and listener(chunk):
                part.seen.add(index)

        resumed = part.broken.get(run[0])
        received = 0 if resumed is None else resumed.tokens or count_tokens(resumed)
        pieces = 0 if resumed is None else resumed.pieces
        reading = SampleCollector(run, emit, self.target.endpoint, self._rules(part.request), resumed=resumed)
        fault: FailedAttempt | None = None
        try:
            await self._read(part, reading)
        except Exception as e:  # noqa: BLE001 (whatever a provider's client raises is explained by its class)
            fault = classify_error(e, self.target)
        prompt_tokens = reading.prompt_tokens - received if reading.prompt_tokens else 0
        has_begun = any(sample.pieces > pieces for sample in reading.samples)
        is_late = reading.is_complete or (fault is not None and has_begun)
        if not prompt_tokens and (is_late if reading.usage is None else reading.samples[0].rules.needs_usage):
            prompt_tokens = estimate_tokens(_prompt_text(part.request.prompt))
        reported = with_received(reading.usage, received)
        usages = split_usage(reported, reading.samples, self.prices, self.target, waited, prompt_tokens)
        finished: list[Completion] = []
        unfinished: list[tuple[StreamedSample, Usage]] = []
        some = any(sample.finish is not None for sample in reading.samples)
        for sample, usage in zip(reading.samples, usages, strict=True):
            if sample.finish is None and (fault is not None or (some and not sample.pieces)):
                unfinished.append((sample, usage))
                continue
            try:
                completion = await self._completed(sample, usage, part.request)
            except Exception as e:  # noqa: BLE001 (asking for the tokens' texts may fail like any request)
                fault = fault or classify_error(e, self.target)
                unfinished.append((sample, usage))
                continue
            if is_uncounted(reported, sample, prompt_tokens):
                completion = completion.model_copy(update={"extras": {**completion.extras, UNCOUNTED: True}})
            part.broken.pop(sample.index, None)
            finished.append(completion)
            if listener is not None:
                listener(_final_chunk(part.position, completion))
        failed: list[int] = []
        for sample, usage in unfinished:
            is_broken = fault is not None and (sample.pieces > pieces or sample.index in part.inexact)
            if is_broken and not self._retries(part, sample, usage, listener):
                failed.append(sample.index)
        return AttemptResult(finished, fault, short=fault is None and bool(unfinished), failed=tuple(failed))

    # -- responses that break off

    def _retries(self, part: SampleBatch, sample: StreamedSample, usage: Usage, listener: Listener | None) -> bool:
        """Report what a response cost that broke off, and decide whether its sample is tried again."""
        index = sample.index
        part.num_broken[index] += 1
        is_continuable = index not in part.inexact and self._is_continuable(part.request, sample)
        retries = self._retrying.retries_broken(
            part.num_broken[index], is_seen=index in part.seen, is_continuable=is_continuable
        )
        restarts = retries and not is_continuable
        if restarts:
            part.broken.pop(index, None)
        else:  # its tokens are counted with the sample, whether it is continued or fails
            part.broken[index] = sample
            cost = self.prices.cost(usage.prompt_tokens, usage.cached_tokens, 0, usage.cache_write_tokens)
            usage = usage.model_copy(update={"completion_tokens": 0, "thinking_tokens": 0, "cost_usd": cost})
        if listener is not None:
            lost = usage.model_copy(update={"waited_s": 0.0})
            listener(Chunk(request=part.position, sample_index=index, lost=lost, restarts=restarts))
        return retries

    def _rules(self, request: Request) -> ReadingRules:
        """How the samples of a request are read."""
        profile = self._can.profile
        if not profile.can_think or request.prompt.text is not None:
            tokens = request.sampling.max_tokens
            return ReadingRules(stops=applied_stops(request, profile, ThinkingMode()), max_tokens=tokens)
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

    def _is_continuable(self, request: Request, sample: StreamedSample) -> bool:
        """Whether a sample whose response broke off can be continued exactly: a provider continues none."""
        return False

    async def _read(self, part: SampleBatch, reading: SampleCollector) -> None:
        """Send the request of a reading's samples, and read its response."""
        run = [sample.index for sample in reading.samples]
        async with self.wire.chat(
            chat_body(part.request, run, self.target, self._can, self.traits, part.marks)
        ) as chunks:
            await reading.read(chunks)

    async def _completed(self, sample: StreamedSample, usage: Usage, request: Request) -> Completion:
        """A finished sample."""
        completion = to_completion(sample, usage, request.sampling, self._texts, self.target)
        updates: dict[str, Any] = {}
        if completion.tool_calls:  # not every provider names them
            updates["tool_calls"] = with_call_ids(completion.tool_calls, request, completion.sample_index)
        if self.endpoint_label:
            updates["extras"] = {**completion.extras, "endpoint": self.endpoint_label}
        return completion.model_copy(update=updates) if updates else completion

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
            error = self._too_long(part.request, error)
        if not isinstance(error, ReasonError) or fault.fatal:
            raise error
        for index in left:
            broken = part.broken.pop(index, None)
            usage = Usage(cost_usd=self.prices.cost(0, 0, 0))
            if broken is not None:
                (usage,) = split_usage(None, [broken], self.prices, self.target, 0.0)
            failed = Completion(
                text="",
                finish_reason="error",
                sample_index=index,
                usage=usage,
                failure=Failure(code=error.code, message=str(error)),
            )
            done[part.position, index] = failed
            if listener is not None:
                listener(_final_chunk(part.position, failed))
        return error

    def _too_long(self, request: Request, error: ContextExceeded) -> ContextTooLong:
        """The error with its numbers, of which the prompt's tokens are estimated."""
        tokens = estimate_tokens(_prompt_text(request.prompt))
        return ContextTooLong(
            f"model {self.name!r}: {error}",
            tokens=tokens + max_response_tokens(request, self._can.profile),
            limit=self._can.context_tokens or 0,
            hint="shorten the prompt or lower max_tokens",
        )

    async def score(self, prompt: Prompt, continuations: Sequence[str | tuple[int, ...]]) -> list[ScoredContinuation]:
        raise CapabilityMissing("scoring", self.name)

    async def next_token(self, prompts: Sequence[Prompt], top: int = 20) -> list[NextTokenDistribution]:
        """Distribution of the next token as far as the provider returns it; one token is sampled for each prompt.

        Where the logits processor `entropy_probe` works, the entropy is over the complete vocabulary.
        """
        if top < 1:
            raise UserError(f"top must be at least 1, got {top}")
        if not self._can.top_logprobs:
            raise CapabilityMissing("top_logprobs", self.name)
        sampling = measuring_params(
            self._can.profile,
            max_tokens=1,
            top_logprobs=min(top, self._can.top_logprobs),
            default_temperature=1.0,
            seed=0,
            logits_processors=(LogitsProcessorSpec(name="entropy_probe"),) if self._can.full_vocabulary else (),
        )
        samples = await self.generate([Request(prompt=p, sampling=sampling) for p in prompts])
        return [_distribution(completion, self.target.endpoint) for [completion] in samples]

    async def retried(self, call: Callable[[], Awaitable[T]]) -> tuple[T, float]:
        """The result of a call with the retries of a request, and the seconds waited."""
        attempts = Attempts(monotonic())
        while True:
            try:
                async with self.limiter.slot() as queued:
                    attempts.waited_s += queued
                    return await call(), attempts.waited_s
            except Exception as e:
                fault = classify_error(e, self.target)
                if not await self._may_retry(fault, attempts):
                    if isinstance(fault.error, ContextExceeded):
                        limit = self._can.context_tokens or 0
                        raise ContextTooLong(str(fault.error), tokens=limit + 1, limit=limit) from e
                    raise fault.error from e

    async def gather(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """Results of calls that run concurrently; the first failure, or a cancellation, ends all of them."""
        tasks = [asyncio.ensure_future(call()) for call in calls]
        self._tasks.update(tasks)
        try:
            return await asyncio.gather(*tasks)
        finally:
            if tasks:
                await cancel_and_wait(*tasks)
            self._tasks.difference_update(tasks)

    async def aclose(self) -> None:
        """Cancel requests in flight, wait for those of this event loop, and close the connections; idempotent."""
        here, tasks = asyncio.get_running_loop(), tuple(self._tasks)
        for task in tasks:
            if task.get_loop() is here:
                task.cancel()
            elif task.get_loop().is_running():
                task.get_loop().call_soon_threadsafe(task.cancel)
        await asyncio.gather(*(task for task in tasks if task.get_loop() is here), return_exceptions=True)
        await self.wire.aclose()


def _final_chunk(request: int, completion: Completion) -> Chunk:
    """The last chunk of a sample."""
    return Chunk(request=request, sample_index=completion.sample_index, completion=completion)


def _prompt_text(prompt: Prompt) -> str:
    """A prompt's texts, for an approximate count."""
    return (prompt.text or "") + "\n".join(m.content for m in prompt.messages)


def _distribution(completion: Completion, endpoint: str) -> NextTokenDistribution:
    rows = completion.top_logprobs
    if not rows or not rows[0]:
        raise InvalidResponse(
            completion.failure.message if completion.failure else f"{endpoint} showed no alternatives"
        )
    return token_distribution(rows[0], completion)
