"""`MeteredModel`: a language model as a strategy uses it, with the run's budget, store and trace.

A call is fitted into the budget before it is made. Samples that the run store has are not generated again; each new
sample is stored when it is finished, while others are still being generated; everything is charged and emitted.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from pydantic import JsonValue

from ...core.budget import CostBound, LimitKind
from ...core.concurrency import cancel_and_wait, paced
from ...core.errors import CapabilityMissing, UserError
from ...core.events import SampleFinished, TextDelta
from ...core.messages import (
    EFFORTS,
    Attachment,
    Chunk,
    Completion,
    Effort,
    FinishReason,
    NextTokenDistribution,
    Prompt,
    Request,
    SamplingParams,
    ScoredContinuation,
    Thought,
    Usage,
)
from ...core.run import Run
from ...core.store.records import JsonText, NewCall, StoredCall, call_key, call_keys, canonical_json
from ...core.types import Question
from ..model import UNCOUNTED, Capabilities, ExplainsTokens, LanguageModel, Listener, Relevance, replays_samples
from ..profiles.profile import ModelProfile, check_sampling, quick_sampling
from ..refusals import left_out_notes
from .calls import CallInFlight, JsonObject, RecordedCalls, ResponseCodec

ResultT = TypeVar("ResultT")
MeasurementT = TypeVar("MeasurementT", ScoredContinuation, NextTokenDistribution, Relevance)

MAX_TOOL_TEMPLATE_BYTES: Final = 2048
"""Maximum bytes of instructions that chat templates and providers are known to add to tools."""

_ANY_PROMPT: Final = Prompt.user("")

JUDGING_ROLES: Final = frozenset({"judge", "reward"})
"""Roles whose samples are no attempts at the question."""

MIN_THOUGHT_TOKENS: Final = 64
"""A thought with less room by the budget of tokens or dollars is not begun. The answer after it has as much."""
MIN_CHAIN_TOKENS: Final = 16
"""Minimum tokens of each of several chains that share the budget, if they do not think."""

MAX_PRIORITY: Final = 32
"""Priority of a run's first requests. A later call's is lower, and so comes first; none is below 0, the default of
other clients of a server."""

SampleKey = tuple[int, int]
"""Position of the request in the call, and sample index."""


@dataclass
class _PartialSample:
    """A sample while it is being generated."""

    is_thinking: bool
    text: list[str] = field(default_factory=list)
    thought: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    tokens: int = 0
    thinking_tokens: int = 0

    def add(self, chunk: Chunk) -> None:
        self.text.append(chunk.text)
        self.thought.append(chunk.thought)
        self.token_ids += chunk.token_ids
        self.logprobs += chunk.logprobs
        # a backend that hides its token ids sends a token or more in each chunk
        tokens = len(chunk.token_ids) or len(chunk.logprobs) or chunk.tokens or bool(chunk.text or chunk.thought)
        self.tokens += tokens
        self.is_thinking = (self.is_thinking or bool(chunk.thought)) and not chunk.text
        self.thinking_tokens += tokens if self.is_thinking else 0

    def completion(self, index: int, reason: FinishReason, prompt_tokens: int = 0) -> Completion:
        has_logprobs = self.token_ids and len(self.logprobs) == len(self.token_ids)
        text, thought = "".join(self.text), "".join(self.thought)
        shown = Thought(text=thought, tokens=self.thinking_tokens, closed=not self.is_thinking)
        return Completion(
            text=text,
            token_ids=tuple(self.token_ids),
            logprobs=tuple(self.logprobs) if has_logprobs else None,
            finish_reason=reason,
            usage=Usage(
                prompt_tokens=prompt_tokens, completion_tokens=self.tokens, thinking_tokens=self.thinking_tokens
            ),
            sample_index=index,
            thought=shown if thought or self.is_thinking or self.thinking_tokens else None,
            answer_from=min(self.thinking_tokens, len(self.token_ids)),
        )


@dataclass(frozen=True)
class _BoundedRequest:
    """A request as the budget allows it."""

    request: Request
    answer_limit: LimitKind | None = None
    thinking_limit: LimitKind | None = None


class MeteredModel:
    """A model in one role of one run. It is a `LanguageModel` itself, with the differences named here.

    A request without a seed gets the run's; one without an effort or a limit of its thought gets the run's, or else
    what the model's profile says, as a part of the sample's key. Samples are looked up by model, prompt, sampling, seed
    and index: a strategy that needs new samples of a prompt requests new indices.

    If the token or dollar budget does not cover thought and `max_tokens` for every sample, all samples of the call are
    bounded by an equal share: thoughts first, down to half of the share, so that an answer can still be requested after
    one that is cut (`finish_reason="thinking"`); an answer that reaches the bound ends with "budget". If the time limit
    is reached, the text generated so far is returned, also with "budget"; a call that may think ends a tenth of the
    limit before, so that an answer can be requested. If `enough` is set before all samples are finished, the
    others are returned as far as they got, with "cancelled"; the backend stops generating them, and what they have cost
    is charged. If the user wants the answer now (`Run.conclude`), samples in flight end with "budget" and no other call
    begins, except those of `concluding`. Prompts share keys and values only within the run's tenant
    (`Prompt.cache_salt`).

    Args:
        model: The model; it is not closed by this object.
        role: Its role: "main", "small", "judge", …
        run: The run that pays.

    Attributes:
        backend: The model, whose own calls nothing pays for.

    Raises:
        BudgetExceeded: By every method, if the call does not fit the budget at all.
    """

    def __init__(self, model: LanguageModel, role: str, run: Run, *, is_concluding: bool = False) -> None:
        self.backend = model
        self._run = run
        self._is_concluding = is_concluding
        self.calls = RecordedCalls(run, role, model.name, model.identity)
        self.role, self.name, self.identity = role, model.name, model.identity

    @property
    def capabilities(self) -> Capabilities:
        """What it can do in a call with the run's effort, in which it may think first."""
        return self._accepted(thinking=self.profile.can_think and self.thinks)

    @property
    def quick_capabilities(self) -> Capabilities:
        """What it can do in a quick call (`quick`)."""
        return self._accepted(thinking=not self.profile.can_skip_thinking)

    def _accepted(self, *, thinking: bool) -> Capabilities:
        only_text = not (self._run.attachments or self._run.question.offered_tools)
        return self.backend.capabilities.accepted(thinking=thinking, only_text=only_text)

    @property
    def run(self) -> Run:
        """The run that pays."""
        return self._run

    @property
    def profile(self) -> ModelProfile:
        """What it accepts, and how it thinks."""
        return self.backend.capabilities.profile

    @property
    def _effort(self) -> Effort | None:
        """The run's effort as the model can have it."""
        profile, effort, config = self.profile, self._run.effort, self._run.config
        is_asked = config.adaptive_thinking or config.thinking_tokens is not None  # a limit asks for a thought
        if effort is None and profile.thinks == "opt-in" and is_asked:
            effort = "medium"
        return nearest_effort(profile, effort)

    @property
    def thinks(self) -> bool:
        """Whether it thinks in a call that names no effort."""
        return self.profile.starts_thinking(_ANY_PROMPT, self._effort)

    @property
    def concluding(self) -> MeteredModel:
        """The same model for the call that concludes the run after the user wanted the answer."""
        return MeteredModel(self.backend, self.role, self._run, is_concluding=True)

    def quick(self, *, max_tokens: int, **params: Any) -> SamplingParams:
        """Parameters of a quick call: a verdict, a digit, a query, a choice; as deterministic as the model allows.

        The model does not think. If it cannot do otherwise, it thinks as little as it can, in
        `QUICK_THINKING_TOKENS` of additional room, and only the answer is read.

        Raises:
            UserError: It has to think, and the budget has no room for it.
        """
        profile = self.profile
        room, ledger = params.get("thinking_tokens", profile.quick_thinking_tokens), self._run.ledger
        left = ledger.remaining("tokens"), ledger.remaining("thinking_tokens")
        if room and min(left[0], left[1] + max_tokens) < room + max_tokens:
            raise UserError(
                f"{self.name} cannot answer without thinking, which takes up to {room + max_tokens} tokens; the budget "
                f"has {min(left):g} left",
                hint="name --judge-model (judge_model= in Python), or raise the budget",
            )
        return quick_sampling(profile, max_tokens=max_tokens, **params)

    def max_sample_tokens(self, prompt: Prompt, sampling: SamplingParams) -> int:
        """Maximum tokens of a sample, its thought included, as far as the budget does not bound it.

        Raises:
            UserError: A parameter that the caller set is none that the model takes.
        """
        return self._resolved(Request(prompt=prompt, sampling=sampling)).sampling.total_tokens

    def max_samples_of(self, prompt: Prompt, samples: int) -> int:
        """Number of samples of a prompt whose prompt tokens fit the budget, between 1 and `samples`.

        Where a request for several samples is charged for its prompt once, all of them or none fit.
        """
        if not self._limits_prompts or not self.capabilities.prompt_per_sample:
            return samples
        left = self._run.ledger.remaining("prompt_tokens")
        return max(1, min(samples, int(left // max(1, self.max_prompt_tokens(prompt)))))

    def count_tokens(self, prompt: Prompt) -> int | None:
        """Tokens of a prompt; None if unknown."""
        return self.backend.count_tokens(prompt)

    async def aclose(self) -> None:
        """Do nothing: the model belongs to its owner."""

    def held(self, requests: Sequence[Request]) -> AbstractContextManager[None]:
        """A context in which no recorded sample of these requests advances (`ReplaysSamples`); of no effect on others.

        For work on finished samples that decides whether the others are cancelled.
        """
        model = self.backend
        return model.hold_replay(requests) if replays_samples(model) else nullcontext()

    @property
    def _priority(self) -> int:
        """Priority of the next requests: the further a run is, the earlier they are served, and the last call first.

        So a run that has begun ends, and its prefixes leave the server's cache, before another one begins.
        """
        return 0 if self._is_concluding else max(1, MAX_PRIORITY - self._run.finished_calls)

    def _salted(self, prompt: Prompt) -> Prompt:
        """The prompt as the model gets it: keys and values are shared only within the run's tenant.

        Attachments have their contents here only: neither keys nor stored calls repeat them.
        """
        if self._run.attachments:
            prompt = with_contents(prompt, self._run.attachments)
        return prompt.with_cache_salt(self._run.config.tenant)

    def _attached(self, prompt: Prompt) -> Prompt:
        """The prompt with the question's attachments, whatever strategy or judge made it."""
        question = self._run.question
        return with_attachments(prompt, question) if question.attachments else prompt

    # -- sampling

    async def generate(
        self, requests: Sequence[Request], listener: Listener | None = None, *, enough: asyncio.Event | None = None
    ) -> list[list[Completion]]:
        """Sample every request (see `LanguageModel.generate`), until `enough` is set.

        Samples that `enough` cut short are stored for this run only, so that it replays as it went.
        """
        if not requests:
            return []
        bounded = self._fit([self._resolved(r) async for r in paced(requests)])
        fitted = [one.request for one in bounded]
        even_closed = self._is_concluding or self._run.conclusion is not None
        reserved = self._run.ledger.reserve(self._max_cost(fitted), even_closed=even_closed)
        with self.held(fitted), reserved as release:
            described = [canonical_json(sampled_json(request)) async for request in paced(fitted)]
            keys: dict[SampleKey, str] = {}
            async for i, request in paced(enumerate(fitted)):
                indices = request.indices
                own_keys = call_keys(self.identity, described[i], request.sampling.seed, indices)
                keys.update(zip([(i, index) for index in indices], own_keys, strict=True))
            stored = await self._run.lookup_calls(list(keys.values()))
            done: dict[SampleKey, Completion] = {}
            if stored:
                async for slot, key in paced(keys.items()):
                    if key in stored:
                        done[slot] = Completion.model_validate(stored[key].response)
            if len(done) < len(keys) and not self._is_concluding:
                self._run.require_open()
            replayed = frozenset(done)
            async with self.calls.call(
                "generate",
                release,
                requests=len(fitted),
                samples=len(keys),
                replayed=len(replayed),
                max_tokens=max(r.sampling.max_tokens for r in fitted),
                constrained=all(r.sampling.json_schema is not None for r in fitted),
            ) as call:
                try:
                    if replayed:
                        async for slot in paced(sorted(replayed)):
                            self._emit_sample(call, slot, done[slot], listener, replayed=True)
                    if len(done) < len(keys):
                        await self._sample(fitted, described, keys, done, call, listener, enough)
                finally:
                    call.usage = Usage.total((call.usage, *(c.usage for c in done.values())))
                    call.calls = len(fitted)
                    call.replayed_calls = sum(all((i, x) in replayed for x in r.indices) for i, r in enumerate(fitted))
                    call.replayed_tokens = sum(done[slot].usage.completion_tokens for slot in replayed)
                    call.failed = sum(not c.ok for c in done.values())
        if replayed:
            self._note_truncated([stored[keys[slot]] for slot in replayed])
        for request in fitted if self.profile.left_out else ():
            for note in left_out_notes(self.name, self.profile, request):
                self._run.degrade(note)
        return [
            [self._ended(one, done[i, x]) for x in one.request.indices] async for i, one in paced(enumerate(bounded))
        ]

    async def _sample(
        self,
        requests: Sequence[Request],
        described: Sequence[JsonText],
        keys: dict[SampleKey, str],
        done: dict[SampleKey, Completion],
        call: CallInFlight,
        listener: Listener | None,
        enough: asyncio.Event | None,
    ) -> None:
        """Generate the samples that are not `done` yet and add them there; time or the caller may cut them short."""
        run = self._run
        missing = list(enumerate(requests))
        if done:
            missing = [
                (i, r.model_copy(update={"sample_indices": tuple(x for x in r.indices if (i, x) not in done)}))
                for i, r in missing
            ]
            missing = [(i, r) for i, r in missing if r.sample_indices]
        first = {(i, r.indices[0]) for i, r in missing}
        partial: dict[SampleKey, _PartialSample] = {}
        restarted: set[SampleKey] = set()
        now, loop = run.answer_now, asyncio.get_running_loop()

        def new_sample(slot: SampleKey) -> _PartialSample:
            request = requests[slot[0]]
            return _PartialSample(self.profile.starts_thinking(request.prompt, request.sampling.effort))

        def finish(slot: SampleKey, completion: Completion, truncated: bool = False) -> None:
            done[slot] = completion
            partial.pop(slot, None)
            if completion.ok:
                sample: JsonObject = {
                    "request": described[slot[0]],
                    "seed": requests[slot[0]].sampling.seed,
                    "index": completion.sample_index,
                }
                run.writer.add_calls([self.calls.record(keys[slot], sample, completion, truncated=truncated)])

        def on_chunk(chunk: Chunk) -> bool:
            i = missing[chunk.request][0]
            slot = (i, chunk.sample_index)
            if chunk.completion is not None and not chunk.completion.ok:
                chunk = chunk.model_copy(update={"completion": self.calls.shown(chunk.completion)})
            if chunk.lost is not None:
                call.usage += chunk.lost
            if chunk.restarts:
                restarted.add(slot)
                partial.pop(slot, None)
            if chunk.completion is not None:
                finish(slot, chunk.completion)
            else:
                if slot not in partial:
                    partial[slot] = new_sample(slot)
                partial[slot].add(chunk)
            if chunk.request != i:
                chunk = chunk.model_copy(update={"request": i})
            return self._emit_chunk(call, chunk, listener, is_streamed=slot not in restarted)

        async def truncate_rest(reason: FinishReason) -> None:
            async for slot in paced([slot for slot in keys if slot not in done]):
                # a backend reports the prompt's tokens on the first sample, which is not finished
                counted = self.count_tokens(requests[slot[0]].prompt) if slot in first else 0
                truncated = partial.get(slot, new_sample(slot)).completion(slot[1], reason, counted or 0)
                finish(slot, truncated, truncated=True)
                self._emit_sample(call, slot, truncated, None)

        try:
            async with asyncio.timeout(self._seconds(requests)) as timeout:
                sent = [
                    r.model_copy(update={"prompt": self._salted(r.prompt), "priority": self._priority})
                    for _, r in missing
                ]
                samples: list[list[Completion]] | None = None
                with nullcontext() if self._is_concluding else run.on_conclude(lambda: timeout.reschedule(loop.time())):
                    if self._is_concluding or not now.is_set():
                        samples = await _unless(enough, self.backend.generate(sent, on_chunk))
                if not timeout.expired():
                    timeout.reschedule(None)  # what was generated counts
                generated = (
                    ((i, index), completion)
                    for (i, request), completions in zip(missing, samples or [], strict=samples is not None)
                    for index, completion in zip(request.indices, completions, strict=True)
                )
                async for slot, completion in paced(generated):
                    if slot not in done:  # the backend did not stream it
                        shown = self.calls.shown(completion)
                        finish(slot, shown)
                        self._emit_sample(call, slot, shown, listener)
            if samples is None:
                await truncate_rest("budget" if run.ledger.is_closed else "cancelled")
        except TimeoutError:
            if not timeout.expired():
                raise
            if self._is_concluding or not now.is_set():
                run.record_limit(run.ledger.exceeded("seconds"))
            await truncate_rest("budget")
        except asyncio.CancelledError:
            for slot, sample in partial.items():
                cancelled = sample.completion(slot[1], "cancelled")
                if self._is_attempt(requests[slot[0]]):
                    run.partial_completions.append((requests[slot[0]].prompt, cancelled))
                self._emit_sample(call, slot, cancelled, None)
                usage = cancelled.usage
                run.ledger.charge(self.role, self.name, usage, lost_tokens=usage.completion_tokens)
            raise
        except Exception:
            lost = (sample.completion(slot[1], "error").usage for slot, sample in partial.items())
            call.usage = Usage.total((call.usage, *lost))
            raise

    def _seconds(self, requests: Sequence[Request]) -> float | None:
        """Maximum time of a call; one that may think leaves some for the request of the answer."""
        left, limit = self._run.ledger.remaining_seconds(), self._run.config.budget.seconds
        if left is None or limit is None or not any(r.sampling.thinking_tokens for r in requests):
            return left
        return left if self._is_concluding else max(left / 2, left - limit / 10)

    def _note_truncated(self, replayed: Sequence[StoredCall]) -> None:
        """Repeat the user's wish for the answer, or the end of the time, that cut these samples of the recorded run."""
        if any(call.truncated and call.response.get("finish_reason") == "budget" for call in replayed):
            if self._run.conclusion is not None:
                self._run.conclude()
            else:
                self._run.record_limit(self._run.ledger.exceeded("seconds"))

    # -- scores and distributions

    async def score(self, prompt: Prompt, continuations: Sequence[str | tuple[int, ...]]) -> list[ScoredContinuation]:
        """See `LanguageModel.score`."""
        prompt = self._attached(prompt)
        requests: list[JsonValue] = [
            {"score": prompt.model_dump(mode="json"), "continuation": c if isinstance(c, str) else list(c)}
            for c in continuations
        ]

        async def compute(missing: list[int]) -> list[ScoredContinuation]:
            return await self.backend.score(self._salted(prompt), [continuations[i] for i in missing])

        sizes = [len(c.encode()) if isinstance(c, str) else len(c) for c in continuations]
        prompt_tokens = sum(sizes) + len(sizes) * self.max_prompt_tokens(prompt) if self._limits_prompts else 0
        cost = CostBound(calls=1, prompt_tokens=prompt_tokens)
        return await self._measure("score", ScoredContinuation, requests, compute, cost)

    async def next_token(self, prompts: Sequence[Prompt], top: int = 20) -> list[NextTokenDistribution]:
        """See `LanguageModel.next_token`."""
        prompts = [self._attached(prompt) for prompt in prompts]
        requests: list[JsonValue] = [
            {"next_token": p.model_dump(mode="json"), "top": top} async for p in paced(prompts)
        ]

        async def compute(missing: list[int]) -> list[NextTokenDistribution]:
            return await self.backend.next_token([self._salted(prompts[i]) for i in missing], top)

        distinct = {json.dumps(r, sort_keys=True): p async for r, p in paced(zip(requests, prompts, strict=True))}
        prompt_tokens = sum(map(self.max_prompt_tokens, distinct.values())) if self._limits_prompts else 0
        cost = CostBound(calls=len(distinct), prompt_tokens=prompt_tokens)
        return await self._measure("next_token", NextTokenDistribution, requests, compute, cost)

    async def relevance(self, prompt: Prompt, parts: Sequence[str], continuation: str) -> Relevance:
        """See `ExplainsTokens.relevance`."""
        model = self.backend
        if not isinstance(model, ExplainsTokens):
            raise CapabilityMissing("relevance", self.name)
        shown = prompt.model_dump(mode="json")
        requests: list[JsonValue] = [{"relevance": shown, "parts": list(parts), "continuation": continuation}]

        async def compute(missing: list[int]) -> list[Relevance]:
            return [await model.relevance(self._salted(prompt), parts, continuation)]

        cost = CostBound(
            calls=1,
            prompt_tokens=self.max_prompt_tokens(prompt) + len(continuation.encode()) if self._limits_prompts else 0,
        )
        return (await self._measure("relevance", Relevance, requests, compute, cost))[0]

    async def _measure(
        self,
        operation: str,
        result_type: type[MeasurementT],
        requests: list[JsonValue],
        compute: Callable[[list[int]], Awaitable[list[MeasurementT]]],
        cost: CostBound,
    ) -> list[MeasurementT]:
        codec: ResponseCodec[MeasurementT] = ResponseCodec(
            dump=lambda result: result.model_dump(mode="json"),
            load=result_type.model_validate,
            usage=lambda result: result.usage,
        )
        described: list[JsonObject] = [{"request": request} for request in requests]
        return await self.calls.answer(operation, described, compute, codec, cost=cost)

    # -- budget

    def _resolved(self, request: Request) -> Request:
        """The request with a seed, and with an effort and a limit of its thought if the model thinks."""
        if (prompt := self._attached(request.prompt)) is not request.prompt:
            request = request.model_copy(update={"prompt": prompt})
        sampling, profile = request.sampling, self.profile
        changes: dict[str, object] = {}
        if sampling.seed is None:
            changes["seed"] = self._run.seed
        if not profile.can_think:
            if sampling.effort is not None or sampling.thinking_tokens is not None:
                changes |= {"effort": None, "thinking_tokens": None}
            thinking = False
        else:
            effort = sampling.effort if sampling.effort is not None else self._effort
            thinking = profile.starts_thinking(request.prompt, effort)
            limit = sampling.thinking_tokens or profile.thinking_tokens(effort)
            if sampling.thinking_tokens is None and self._run.config.thinking_tokens is not None:
                limit = min(self._run.config.thinking_tokens, profile.max_thinking_tokens or limit)
            if profile.thinking_budget:
                limit = max(limit, profile.min_thinking_tokens)
            changes |= {"effort": effort, "thinking_tokens": limit if thinking else 0}
        if sampling.temperature is not None or profile.temperature(sampling, thinking=thinking) is None:
            changes["default_temperature"] = None  # it has no effect, and so is no part of the sample's key
        capabilities = self.capabilities
        if capabilities.logprobs and capabilities.scoring and capabilities.usd_per_completion_token == 0:
            # an engine in this process computes them anyway: strategies with and without them share samples
            changes["logprobs"] = True
        if changes:
            request = request.model_copy(update={"sampling": sampling.model_copy(update=changes)})
        if (total := self._run.config.sample_tokens) is not None and self._is_attempt(request):
            bounded, least = self._with_room(request, total)
            if least and total <= (profile.min_thinking_tokens if profile.thinking_budget else 0):
                raise UserError(
                    f"max_tokens {total}: {self.name} always thinks, with {least} tokens or more",
                    hint="raise max_tokens, which includes the thought",
                    param="max_tokens",
                )
            request = bounded.request
        check_sampling(profile, self.name, request.sampling, thinking=thinking)
        return request

    def narrowed(self, request: Request, samples: int, kept_tokens: int = 0) -> tuple[Request, LimitKind | None]:
        """A request for the first of `samples` samples, bounded so that the budget covers all of them.

        If a share would have less than `MIN_CHAIN_TOKENS`, or a thought less than `MIN_THOUGHT_TOKENS`, it is a request
        for fewer samples, one or more.

        Args:
            kept_tokens: Tokens of the budget that are left for what follows.

        Returns:
            The request, and the limit that narrows the samples; None if none does.

        Raises:
            BudgetExceeded: The budget does not cover a sample.
        """
        resolved = self._resolved(request)
        thought = min(MIN_THOUGHT_TOKENS, resolved.sampling.thinking_tokens or 0)
        least = thought + min(thought or MIN_CHAIN_TOKENS, resolved.sampling.max_tokens)
        one = resolved.model_copy(update={"sample_indices": (0,)})
        fitting = self._room([one], kept_tokens)[0] / least
        fitting = min(samples, fitting, self._run.ledger.remaining("thinking_tokens") / max(1, thought))
        chains = resolved.model_copy(update={"sample_indices": tuple(range(max(1, int(fitting))))})
        (bounded,) = self._fit([chains], kept_tokens)
        indices = request.indices[: len(chains.indices)]
        narrowed = bounded.request.model_copy(update={"sample_indices": indices})
        return narrowed, bounded.answer_limit or bounded.thinking_limit

    def _room(self, requests: Sequence[Request], kept_tokens: int = 0) -> tuple[float, LimitKind]:
        """Tokens that the budget has for the samples of requests, infinite without a limit, and the limit."""
        ledger = self._run.ledger
        room = ledger.remaining("tokens") - kept_tokens
        if ledger.budget.usd is None:
            return room, "tokens"
        prompt_price, price = self._prices()
        usd = ledger.remaining("usd") - prompt_price * sum(map(self._charged_prompt_tokens, requests))
        if usd < 0:
            raise ledger.exceeded("usd")
        return (usd / price, "usd") if price > 0 and usd / price < room else (room, "tokens")

    def _fit(self, requests: list[Request], kept_tokens: int = 0) -> list[_BoundedRequest]:
        """The requests with the tokens of each sample bounded by an equal share of the remaining budget."""
        ledger = self._run.ledger
        samples = sum(len(r.indices) for r in requests)
        room, kind = self._room(requests, kept_tokens)
        share = room / samples
        thinking = sum(len(r.indices) for r in requests if r.sampling.thinking_tokens)
        if share < (2 if thinking else 1):
            raise ledger.exceeded(kind)
        thinking_share = ledger.remaining("thinking_tokens") / max(1, thinking)
        if thinking and thinking_share < 1:
            raise ledger.exceeded("thinking_tokens")
        fitted = []
        for request in requests:
            bounded, least = self._with_room(request, share, thinking_share, kind)
            if least:
                limit = bounded.thinking_limit or kind
                amount = getattr(ledger.budget, limit)
                needed = least + min(least, request.sampling.max_tokens)
                missing = (needed - share) * samples * (self._prices()[1] if limit == "usd" else 1)
                self._run.degrade(
                    f"the budget of {amount:g} {limit} has {int(share)} tokens for a sample of {self.name}, which "
                    f"always thinks and needs at least {needed}: raise it to {amount + missing:.4g}"
                )
                raise ledger.exceeded(limit)
            fitted.append(bounded)
        return fitted

    def _with_room(
        self, request: Request, share: float, thinking_share: float = math.inf, kind: LimitKind = "tokens"
    ) -> tuple[_BoundedRequest, int]:
        """The request as it is bounded, without a thought that would have too little room.

        Returns:
            Also how much room a thought needs that the model cannot leave out; 0 if it has enough.
        """
        bounded, profile = self._bounded(request, share, thinking_share, kind), self.profile
        room, limit = bounded.request.sampling.thinking_tokens or 0, bounded.thinking_limit
        least = profile.min_thinking_tokens if profile.thinking_budget else 0
        if limit != "thinking_tokens" and request.prompt.thought is None:
            least = max(least, min(MIN_THOUGHT_TOKENS, request.sampling.thinking_tokens or 0))
        if limit is None or room >= least:
            return bounded, 0
        if not profile.can_skip_thinking or request.prompt.thought is not None:
            return bounded, least
        self._run.degrade(
            f"{self.name} answered without thinking: {room} tokens are left for a thought, which needs at least {least}"
        )
        sampling = request.sampling.model_copy(update={"effort": "none", "thinking_tokens": 0})
        return self._bounded(request.model_copy(update={"sampling": sampling}), share, kind=kind), 0

    def within(self, request: Request, tokens: float, thinking_tokens: float = math.inf) -> Request:
        """A request whose samples have at most `tokens` tokens, `thinking_tokens` of them thoughts.

        A thought gives way to the answer after it, which has at most half of the tokens then.
        """
        return self._bounded(self._resolved(request), tokens, thinking_tokens).request

    def _bounded(
        self, request: Request, share: float, thinking_share: float = math.inf, kind: LimitKind = "tokens"
    ) -> _BoundedRequest:
        sampling = request.sampling
        wanted, answer = sampling.thinking_tokens or 0, sampling.max_tokens
        allowed = thought = int(min(wanted, thinking_share))
        if thought + answer > share:
            answer = min(answer, max(1, int(share) - thought, int(share) // 2))
            thought = max(0, min(thought, int(share) - answer))
        if (thought, answer) == (wanted, sampling.max_tokens):
            return _BoundedRequest(request)
        changes = {"max_tokens": answer} | ({"thinking_tokens": thought} if wanted else {})
        return _BoundedRequest(
            request.model_copy(update={"sampling": sampling.model_copy(update=changes)}),
            answer_limit=kind if answer < sampling.max_tokens else None,
            thinking_limit=None if thought == wanted else kind if thought < allowed else "thinking_tokens",
        )

    def _max_cost(self, requests: Sequence[Request]) -> CostBound:
        tokens = sum(len(r.indices) * r.sampling.total_tokens for r in requests)
        thinking = sum(len(r.indices) * (r.sampling.thinking_tokens or 0) for r in requests)
        prompt_tokens, usd = 0, 0.0
        if self._limits_prompts:
            prompt_tokens = sum(map(self._charged_prompt_tokens, requests))
        if self._run.ledger.budget.usd is not None:
            prompt_price, price = self._prices()
            usd = prompt_price * sum(map(self._charged_prompt_tokens, requests)) + price * tokens
        return CostBound(
            tokens=tokens, calls=len(requests), usd=usd, thinking_tokens=thinking, prompt_tokens=prompt_tokens
        )

    @property
    def _limits_prompts(self) -> bool:
        return self._run.ledger.budget.prompt_tokens is not None

    def _prices(self) -> tuple[float, float]:
        capabilities = self.capabilities
        if capabilities.usd_per_prompt_token is None or capabilities.usd_per_completion_token is None:
            raise UserError(f"the price of model {self.name!r} is unknown", hint="limit tokens or calls instead")
        return capabilities.usd_per_prompt_token, capabilities.usd_per_completion_token

    def _charged_prompt_tokens(self, request: Request) -> int:
        """Maximum prompt tokens that a request is charged for.

        A backend sends a request for each sample where a provider takes no `n` (with tools, the Responses API), where
        logits processors keep state for one sample, and where the requested indices have gaps.
        """
        per_sample = (
            self.capabilities.prompt_per_sample
            or bool(request.sampling.logits_processors)
            or bool(request.prompt.tools and self.capabilities.profile.responses_api != "never")
            or request.sample_indices is not None
        )
        return self.max_prompt_tokens(request.prompt) * (len(request.indices) if per_sample else 1)

    def max_prompt_tokens(self, prompt: Prompt) -> int:
        """Tokens of a prompt; where they are unknown its bytes, since no tokenizer makes more tokens than bytes."""
        counted = self.backend.count_tokens(prompt)
        if counted is not None:
            return counted
        prefix = len(prompt.prefix) if isinstance(prompt.prefix, tuple) else len(prompt.prefix.encode())
        thought = prompt.thought or Thought()
        prefix += len(thought.token_ids) or len(thought.text.encode())
        return prefix + len((prompt.text or "").encode()) + conversation_bytes(prompt) + 16 * len(prompt.messages)

    def _ended(self, bounded: _BoundedRequest, completion: Completion) -> Completion:
        """A finished sample: ended with "budget" if its answer reached a bound that the budget set."""
        limit = None
        if completion.finish_reason == "length":
            limit = bounded.answer_limit
        elif completion.finish_reason == "thinking":
            limit = bounded.thinking_limit
        if limit is not None and self._run.ledger.exhausted is None:
            self._run.record_limit(self._run.ledger.exceeded(limit))
        if limit is not None and completion.finish_reason == "length":
            completion = completion.model_copy(update={"finish_reason": "budget"})
        if UNCOUNTED in completion.extras:
            self._run.degrade(f"{self.name} hides its thoughts and reports no usage: their tokens are not counted")
        if self._is_attempt(bounded.request) and completion.finish_reason in ("budget", "thinking"):
            self._run.partial_completions.append((bounded.request.prompt, completion))
        return completion

    def _is_attempt(self, request: Request) -> bool:
        return request.is_attempt and self.role not in JUDGING_ROLES and not self._is_concluding

    # -- events

    def _emit_chunk(
        self, call: CallInFlight, chunk: Chunk, listener: Listener | None, *, is_streamed: bool = True
    ) -> bool:
        """Emit a chunk; whether a client has seen its text. What judges write is only read by strategies."""
        is_seen = False
        if is_streamed and self._run.stream_text and (chunk.text or chunk.token_ids or chunk.thought):
            is_seen = bool(chunk.text or chunk.thought) and self.role not in JUDGING_ROLES
            delta = TextDelta(
                request=chunk.request,
                sample=chunk.sample_index,
                text=chunk.text,
                tokens=len(chunk.token_ids) or chunk.tokens,
                thought=chunk.thought,
            )
            self._run.emit(delta, parent=call.number)
        if chunk.completion is not None:
            finished = SampleFinished(request=chunk.request, sample=chunk.sample_index, completion=chunk.completion)
            self._run.emit(finished, parent=call.number)
        return bool(listener is not None and listener(chunk)) or is_seen

    def _emit_sample(
        self,
        call: CallInFlight,
        slot: SampleKey,
        completion: Completion,
        listener: Listener | None,
        replayed: bool = False,
    ) -> None:
        """Emit a sample that was not streamed."""
        request, sample = slot
        finished = SampleFinished(request=request, sample=sample, completion=completion, replayed=replayed)
        self._run.emit(finished, parent=call.number)
        if listener is not None:
            listener(
                Chunk(
                    request=request,
                    sample_index=sample,
                    text=completion.text,
                    token_ids=completion.token_ids,
                    logprobs=completion.logprobs or (),
                    thought="" if completion.thought is None else completion.thought.text,
                    completion=completion,
                )
            )


def with_attachments(prompt: Prompt, question: Question) -> Prompt:
    """The prompt with the question's attachments at the user's last message that has its text, else at the first one.

    A raw text has no messages, and stays as it is.
    """
    users = [i for i, message in enumerate(prompt.messages) if message.role == "user"]
    if not users:
        return prompt
    at = next((i for i in reversed(users) if question.text in prompt.messages[i].content), users[0])
    own, start = prompt.messages[at].attachments, prompt.messages[at].content.find(question.text)
    placed = [
        a if a.position is None else a.model_copy(update={"position": a.position + start if start >= 0 else None})
        for a in question.attachments
    ]
    added = tuple(attachment for attachment in placed if attachment not in own)
    return _with_message(prompt, at, (*own, *added)) if added else prompt


def with_contents(prompt: Prompt, attachments: Mapping[str, Attachment]) -> Prompt:
    """The prompt with the contents of its attachments, by their digests."""
    for i, message in enumerate(prompt.messages):
        if message.attachments:
            filled = (a.model_copy(update={"data": attachments.get(a.sha256, a).data}) for a in message.attachments)
            prompt = _with_message(prompt, i, tuple(filled))
    return prompt


def _with_message(prompt: Prompt, index: int, attachments: tuple[Attachment, ...]) -> Prompt:
    messages = list(prompt.messages)
    messages[index] = messages[index].model_copy(update={"attachments": attachments})
    return prompt.model_copy(update={"messages": tuple(messages)})


def nearest_effort(profile: ModelProfile, effort: Effort | None) -> Effort | None:
    """The effort of a run as one of its models can have it: the nearest one that it accepts, the lesser of two.

    None, its default, for a model that does not think.
    """
    if effort is None or not profile.can_think:
        return None
    if effort == "none":
        return "none" if profile.takes_no_thought else profile.lowest_effort
    if not profile.efforts:
        return effort  # it decides how long a thought may be
    accepted = [one for one in EFFORTS if one in profile.efforts and one != "none"]
    at = EFFORTS.index(effort)
    return min(accepted, key=lambda one: (abs(EFFORTS.index(one) - at), EFFORTS.index(one)), default=None)


def conversation_bytes(prompt: Prompt) -> int:
    """Bytes of a conversation and its tools as they are sent, with what chat templates add to tools."""
    messages = sum(len(m.content.encode()) for m in prompt.messages)
    calls = sum(len(call.model_dump_json().encode()) + 32 for m in prompt.messages for call in m.tool_calls)
    tools = sum(len(json.dumps(tool.as_openai()).encode()) for tool in prompt.tools)
    return messages + calls + (tools + MAX_TOOL_TEMPLATE_BYTES if prompt.tools else 0)


def sampled_json(request: Request) -> JsonValue:
    """What decides a sample's distribution: the prompt and the sampling parameters, without seed, index and count."""
    sampling: JsonObject = request.sampling.model_dump(mode="json", exclude={"n", "seed", "json_schema"})
    default_temperature = sampling.pop("default_temperature")
    if sampling["temperature"] is None:
        sampling["temperature"] = default_temperature  # the distribution does not depend on who set it
    if request.sampling.json_schema is not None:
        # as text: keys are made of sorted JSON, and the order of a schema's properties matters
        sampling["json_schema"] = json.dumps(request.sampling.json_schema)
    return {"prompt": request.prompt.model_dump(mode="json"), "sampling": sampling}


async def _unless(enough: asyncio.Event | None, work: Coroutine[Any, Any, ResultT]) -> ResultT | None:
    """The result of the work; None if the event was set first, and the work was cancelled and has ended."""
    if enough is None:
        return await work
    if enough.is_set():
        work.close()
        return None
    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(enough.wait())
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel_and_wait(task, watch)
    # cancelled without the event, the work cancelled itself: the result raises that
    return None if task.cancelled() and enough.is_set() else task.result()


async def load_decision(run: Run, model: MeteredModel, key: dict[str, JsonValue]) -> dict[str, JsonValue] | None:
    """The saved decision of this run, or None.

    Saved are decisions that a replay cannot repeat without a model and a clock, such as which request finished first.
    """
    digest = _decision_key(run, model, key)
    call = (await run.find_calls([digest])).get(digest)
    return None if call is None else call.response


async def save_decision(
    run: Run, model: MeteredModel, key: dict[str, JsonValue], decision: dict[str, JsonValue]
) -> None:
    """Save a decision; a replay writes nothing."""
    if run.recording:
        call = NewCall(_decision_key(run, model, key), model.role, model.name, {"decision": key}, decision)
        await run.save_calls([call])


def _decision_key(run: Run, model: MeteredModel, key: dict[str, JsonValue]) -> str:
    return call_key(model.identity, {"decision": key}, run.seed, 0)
