"""`MeteredModel`: a language model as a strategy uses it, with the run's budget, store and trace.

A call is fitted into the budget before it is made. Samples that the run store has are not generated again; each new
sample is stored when it is finished, while others are still being generated; everything is charged and emitted.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from pydantic import JsonValue

from ...core.budget import CostBound
from ...core.concurrency import shielded
from ...core.errors import CapabilityMissing, UserError
from ...core.events import SampleFinished, TextDelta
from ...core.messages import (
    Chunk,
    Completion,
    FinishReason,
    NextTokenDistribution,
    Prompt,
    Request,
    ScoredContinuation,
    Usage,
)
from ...core.run import Run
from ...core.store.protocol import call_key
from ..logits_processors.groups import lockstep_groups
from ..model import Capabilities, ExplainsTokens, LanguageModel, Listener, Relevance
from ..streaming import stream_of
from ..worker_group import SupportsWorkers, WorkerGroupConfig
from .calls import CallInFlight, CallWriter, JsonObject, RecordedCalls, ResponseCodec
from .workers import MeteredWorkers

ResultT = TypeVar("ResultT")
MeasurementT = TypeVar("MeasurementT", ScoredContinuation, NextTokenDistribution, Relevance)

MAX_TOOL_TEMPLATE_BYTES: Final = 2048
"""Maximum bytes of instructions that chat templates and providers are known to add to tools."""

SampleKey = tuple[int, int]
"""Position of the request in the call, and sample index."""


@dataclass
class _PartialSample:
    """A sample while it is being generated."""

    text: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def completion(self, index: int, reason: FinishReason, prompt_tokens: int = 0) -> Completion:
        has_logprobs = len(self.logprobs) == len(self.token_ids)
        return Completion(
            text="".join(self.text),
            token_ids=tuple(self.token_ids),
            logprobs=tuple(self.logprobs) if has_logprobs else None,
            finish_reason=reason,
            usage=Usage(prompt_tokens=prompt_tokens, completion_tokens=len(self.token_ids)),
            sample_index=index,
        )


class MeteredModel:
    """A model in one role of one run. It is a `LanguageModel` itself, with the differences named here.

    A request without a seed gets the run's. Samples are looked up by model, prompt, sampling, seed and index:
    a strategy that needs new samples of a prompt requests new indices. If the token or dollar budget does not cover
    `max_tokens` for every sample, all samples of the call are bounded by an equal share, and one that reaches the bound
    ends with "budget"; if the time limit is reached, the text generated so far is returned, also with "budget". If
    `enough` is set before all samples are finished, the others are returned as far as they got, with "cancelled"; the
    backend stops generating them, and what they have cost is charged. Prompts share keys and values only within the
    run's tenant (`Prompt.cache_salt`).

    Args:
        model: The model; it is not closed by this object.
        role: Its role: "main", "small", "judge", …
        run: The run that pays.

    Raises:
        BudgetExceeded: By every method, if the call does not fit the budget at all.
    """

    def __init__(self, model: LanguageModel, role: str, run: Run) -> None:
        self._model = model
        self._run = run
        self._calls = RecordedCalls(run, role, model.name, model.identity)
        self.role, self.name, self.identity = role, model.name, model.identity

    @property
    def capabilities(self) -> Capabilities:
        return self._model.capabilities

    def workers(self, config: WorkerGroupConfig) -> MeteredWorkers:
        """Workers that read one another's cache; they start with their first step.

        Raises:
            CapabilityMissing: The model's workers cannot share a cache.
        """
        if not self.capabilities.kv_sharing or not isinstance(self._model, SupportsWorkers):
            raise CapabilityMissing("kv_sharing", self.name)
        return MeteredWorkers(self._model, config, self._calls)

    def count_tokens(self, prompt: Prompt) -> int | None:
        """Tokens of a prompt; None if unknown."""
        return self._model.count_tokens(prompt)

    async def aclose(self) -> None:
        """Do nothing: the model belongs to its owner."""

    def _salted(self, prompt: Prompt) -> Prompt:
        """The prompt as the model gets it: keys and values are shared only within the run's tenant."""
        return prompt.with_cache_salt(self._run.config.tenant)

    # -- sampling

    async def generate(
        self, requests: Sequence[Request], listener: Listener | None = None, *, enough: asyncio.Event | None = None
    ) -> list[list[Completion]]:
        """Sample every request (see `LanguageModel.generate`), until `enough` is set.

        Samples that `enough` cut short are stored for this run only, so that it replays as it went.
        """
        if not requests:
            return []
        fitted = self._fit([self._seeded(r) for r in requests])
        clamped = [f.sampling.max_tokens < r.sampling.max_tokens for f, r in zip(fitted, requests, strict=True)]
        groups = lockstep_groups(fitted, self.name)
        hashed = _hashed_requests(fitted, groups)
        keys = {
            (i, index): call_key(self.identity, hashed[i], r.sampling.seed, index)
            for i, r in enumerate(fitted)
            for index in r.indices
        }
        with self._run.ledger.reserve(self._max_cost(fitted)) as release:
            stored = await self._run.lookup_calls(list(keys.values()))
            done: dict[SampleKey, Completion] = {
                slot: Completion.model_validate(stored[key].response) for slot, key in keys.items() if key in stored
            }
            for group in groups:  # samples in lockstep are generated together or not at all
                for index in fitted[group[0]].indices:
                    if not all((i, index) in done for i in group):
                        for i in group:
                            done.pop((i, index), None)
            replayed = frozenset(done)
            async with self._calls.call(
                "generate",
                release,
                requests=len(fitted),
                samples=len(keys),
                replayed=len(replayed),
                max_tokens=max(r.sampling.max_tokens for r in fitted),
            ) as call:
                try:
                    for slot in sorted(replayed):
                        self._emit_sample(call, slot, done[slot], listener, replayed=True)
                    if len(done) < len(keys):
                        await self._sample(fitted, keys, done, call, listener, enough)
                finally:
                    call.usage = sum((c.usage for c in done.values()), Usage())
                    call.calls = len(fitted)
                    call.replayed_calls = sum(all((i, x) in replayed for x in r.indices) for i, r in enumerate(fitted))
                    call.replayed_tokens = sum(done[slot].usage.completion_tokens for slot in replayed)
                    call.failed = sum(not c.ok for c in done.values())
        return [[self._ended(done[i, x], clamped[i]) for x in request.indices] for i, request in enumerate(fitted)]

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """See `LanguageModel.stream`."""
        async with aclosing(stream_of(self.generate, request)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _sample(
        self,
        requests: Sequence[Request],
        keys: dict[SampleKey, str],
        done: dict[SampleKey, Completion],
        call: CallInFlight,
        listener: Listener | None,
        enough: asyncio.Event | None,
    ) -> None:
        """Generate the samples that are not `done` yet and add them there; time or the caller may cut them short."""
        run = self._run
        missing = [
            (i, r.model_copy(update={"sample_indices": tuple(x for x in r.indices if (i, x) not in done)}))
            for i, r in enumerate(requests)
        ]
        missing = [(i, r) for i, r in missing if r.sample_indices]
        first = {(i, r.indices[0]) for i, r in missing}
        partial: dict[SampleKey, _PartialSample] = {}
        writer = CallWriter(run.store, run.id)

        def finish(slot: SampleKey, completion: Completion, truncated: bool = False) -> None:
            done[slot] = completion
            partial.pop(slot, None)
            if completion.ok:
                request = requests[slot[0]]
                described: JsonObject = {
                    "request": sampled_json(request),
                    "seed": request.sampling.seed,
                    "index": completion.sample_index,
                }
                response = completion.model_dump(mode="json")
                writer.add(self._calls.record(keys[slot], described, response, truncated=truncated))

        def on_chunk(chunk: Chunk) -> None:
            i = missing[chunk.request][0]
            slot = (i, chunk.sample_index)
            sample = partial.setdefault(slot, _PartialSample())
            sample.text.append(chunk.text)
            sample.token_ids += chunk.token_ids
            sample.logprobs += chunk.logprobs
            if chunk.completion is not None:
                finish(slot, chunk.completion)
            if chunk.request != i:
                chunk = chunk.model_copy(update={"request": i})
            self._emit_chunk(call, chunk, listener)

        async def truncate_rest(reason: FinishReason) -> None:
            async with writer:
                for slot in [slot for slot in keys if slot not in done]:
                    # a backend reports the prompt's tokens on the first sample, which is not finished
                    counted = self.count_tokens(requests[slot[0]].prompt) if slot in first else 0
                    truncated = partial.get(slot, _PartialSample()).completion(slot[1], reason, counted or 0)
                    finish(slot, truncated, truncated=True)
                    self._emit_sample(call, slot, truncated, None)

        try:
            async with writer, asyncio.timeout(run.ledger.remaining_seconds()) as timeout:
                salted = [r.model_copy(update={"prompt": self._salted(r.prompt)}) for _, r in missing]
                samples = await _unless(enough, self._model.generate(salted, on_chunk))
                for (i, request), completions in zip(missing, samples or [], strict=samples is not None):
                    for index, completion in zip(request.indices, completions, strict=True):
                        if (i, index) not in done:  # the backend did not stream it
                            finish((i, index), completion)
                            self._emit_sample(call, (i, index), completion, listener)
            if samples is None:
                await truncate_rest("cancelled")
        except TimeoutError:
            if not timeout.expired():
                raise
            run.record_limit(run.ledger.exceeded("seconds"))
            await truncate_rest("budget")
        except asyncio.CancelledError:
            for slot, sample in partial.items():
                cancelled = sample.completion(slot[1], "cancelled")
                run.partial_completions.append(cancelled)
                self._emit_sample(call, slot, cancelled, None)
                run.ledger.charge(self.role, self.name, cancelled.usage)
            raise

    # -- scores and distributions

    async def score(self, prompt: Prompt, continuations: Sequence[str | tuple[int, ...]]) -> list[ScoredContinuation]:
        """See `LanguageModel.score`."""
        requests: list[JsonValue] = [
            {"score": prompt.model_dump(mode="json"), "continuation": c if isinstance(c, str) else list(c)}
            for c in continuations
        ]

        async def compute(missing: list[int]) -> list[ScoredContinuation]:
            return await self._model.score(self._salted(prompt), [continuations[i] for i in missing])

        return await self._measure("score", ScoredContinuation, requests, compute, calls=1)

    async def next_token(self, prompts: Sequence[Prompt], top: int = 20) -> list[NextTokenDistribution]:
        """See `LanguageModel.next_token`."""
        requests: list[JsonValue] = [{"next_token": p.model_dump(mode="json"), "top": top} for p in prompts]

        async def compute(missing: list[int]) -> list[NextTokenDistribution]:
            return await self._model.next_token([self._salted(prompts[i]) for i in missing], top)

        return await self._measure("next_token", NextTokenDistribution, requests, compute, calls=len(prompts))

    async def relevance(self, prompt: Prompt, parts: Sequence[str], continuation: str) -> Relevance:
        """See `ExplainsTokens.relevance`."""
        model = self._model
        if not isinstance(model, ExplainsTokens):
            raise CapabilityMissing("relevance", self.name)
        shown = prompt.model_dump(mode="json")
        requests: list[JsonValue] = [{"relevance": shown, "parts": list(parts), "continuation": continuation}]

        async def compute(missing: list[int]) -> list[Relevance]:
            return [await model.relevance(self._salted(prompt), parts, continuation)]

        return (await self._measure("relevance", Relevance, requests, compute, calls=1))[0]

    async def _measure(
        self,
        operation: str,
        result_type: type[MeasurementT],
        requests: list[JsonValue],
        compute: Callable[[list[int]], Awaitable[list[MeasurementT]]],
        *,
        calls: int,
    ) -> list[MeasurementT]:
        codec: ResponseCodec[MeasurementT] = ResponseCodec(
            dump=lambda result: result.model_dump(mode="json"),
            load=result_type.model_validate,
            usage=lambda result: result.usage,
        )
        described: list[JsonObject] = [{"request": request} for request in requests]
        return await self._calls.answer(operation, described, compute, codec, cost=CostBound(calls=calls))

    # -- budget

    def _seeded(self, request: Request) -> Request:
        """The request with a seed: its own, or else the run's."""
        if request.sampling.seed is not None:
            return request
        sampling = request.sampling.model_copy(update={"seed": self._run.seed})
        return request.model_copy(update={"sampling": sampling})

    def _fit(self, requests: list[Request]) -> list[Request]:
        """The requests with `max_tokens` bounded by an equal share of the remaining budget.

        Raises:
            BudgetExceeded: The share is less than one token.
        """
        ledger = self._run.ledger
        samples = sum(len(r.indices) for r in requests)
        share = ledger.remaining("tokens") / samples  # infinite without a limit
        if ledger.budget.usd is not None:
            prompt_price, price = self._prices()
            usd = ledger.remaining("usd") - prompt_price * sum(map(self._charged_prompt_tokens, requests))
            if usd < 0:
                raise ledger.exceeded("usd")
            if price > 0 and usd / price / samples < share:
                share = usd / price / samples
                if share < 1:
                    raise ledger.exceeded("usd")
        if share < 1:
            raise ledger.exceeded("tokens")
        return [
            r
            if r.sampling.max_tokens <= share
            else r.model_copy(update={"sampling": r.sampling.model_copy(update={"max_tokens": int(share)})})
            for r in requests
        ]

    def _max_cost(self, requests: Sequence[Request]) -> CostBound:
        tokens = sum(len(r.indices) * r.sampling.max_tokens for r in requests)
        usd = 0.0
        if self._run.ledger.budget.usd is not None:
            prompt_price, price = self._prices()
            usd = prompt_price * sum(map(self._charged_prompt_tokens, requests)) + price * tokens
        return CostBound(tokens=tokens, calls=len(requests), usd=usd)

    def _prices(self) -> tuple[float, float]:
        capabilities = self.capabilities
        if capabilities.usd_per_prompt_token is None or capabilities.usd_per_completion_token is None:
            raise UserError(f"the price of model {self.name!r} is unknown", hint="limit tokens or calls instead")
        return capabilities.usd_per_prompt_token, capabilities.usd_per_completion_token

    def _charged_prompt_tokens(self, request: Request) -> int:
        """Maximum prompt tokens that a request is charged for.

        A backend sends a request for each sample where a provider takes no `n`, where logits processors keep state for
        one sample, and where the requested indices have gaps.
        """
        per_sample = (
            self.capabilities.prompt_per_sample
            or bool(request.sampling.logits_processors)
            or request.sample_indices is not None
        )
        return self._prompt_tokens(request.prompt) * (len(request.indices) if per_sample else 1)

    def _prompt_tokens(self, prompt: Prompt) -> int:
        """Tokens of a prompt; where they are unknown its bytes, since no tokenizer makes more tokens than bytes."""
        counted = self._model.count_tokens(prompt)
        if counted is not None:
            return counted
        prefix = len(prompt.prefix) if isinstance(prompt.prefix, tuple) else len(prompt.prefix.encode())
        return prefix + len((prompt.text or "").encode()) + conversation_bytes(prompt) + 16 * len(prompt.messages)

    def _ended(self, completion: Completion, clamped: bool) -> Completion:
        """The sample, ended with "budget" if it reached a bound that the budget set."""
        if clamped and completion.finish_reason == "length":
            if self._run.ledger.exhausted is None:
                self._run.record_limit(self._run.ledger.exceeded("tokens"))
            return completion.model_copy(update={"finish_reason": "budget"})
        return completion

    # -- events

    def _emit_chunk(self, call: CallInFlight, chunk: Chunk, listener: Listener | None) -> None:
        if self._run.stream_text and (chunk.text or chunk.token_ids or chunk.reasoning):
            delta = TextDelta(
                request=chunk.request,
                sample=chunk.sample_index,
                text=chunk.text,
                tokens=len(chunk.token_ids),
                reasoning=chunk.reasoning,
            )
            self._run.emit(delta, parent=call.number)
        if chunk.completion is not None:
            finished = SampleFinished(request=chunk.request, sample=chunk.sample_index, completion=chunk.completion)
            self._run.emit(finished, parent=call.number)
        if listener is not None:
            listener(chunk)

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
                    reasoning=completion.reasoning,
                    completion=completion,
                )
            )


def conversation_bytes(prompt: Prompt) -> int:
    """Bytes of a conversation and its tools as they are sent, with what chat templates add to tools."""
    messages = sum(len(m.content.encode()) for m in prompt.messages)
    calls = sum(len(call.model_dump_json().encode()) + 32 for m in prompt.messages for call in m.tool_calls)
    tools = sum(len(json.dumps(tool.as_openai()).encode()) for tool in prompt.tools)
    return messages + calls + (tools + MAX_TOOL_TEMPLATE_BYTES if prompt.tools else 0)


def sampled_json(request: Request) -> JsonValue:
    """What decides a sample's distribution: the prompt and the sampling parameters, without seed, index and count."""
    sampling: JsonObject = request.sampling.model_dump(mode="json", exclude={"n", "seed", "json_schema"})
    if request.sampling.json_schema is not None:
        # as text: keys are made of sorted JSON, and the order of a schema's properties matters
        sampling["json_schema"] = json.dumps(request.sampling.json_schema)
    return {"prompt": request.prompt.model_dump(mode="json"), "sampling": sampling}


def _hashed_requests(requests: Sequence[Request], groups: Sequence[tuple[int, ...]]) -> list[JsonValue]:
    """What decides the samples of each request; for one in lockstep, the other requests of its group belong to it."""
    own = [sampled_json(r) for r in requests]
    hashed = list(own)
    for group in groups:
        for i in group:
            hashed[i] = {"request": own[i], "together": [own[j] for j in group if j != i]}
    return hashed


async def _unless(enough: asyncio.Event | None, work: Coroutine[Any, Any, ResultT]) -> ResultT | None:
    """The result of the work; None if `enough` was set first, and the work was cancelled and has ended."""
    if enough is None:
        return await work
    if enough.is_set():
        work.close()
        return None
    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(enough.wait())
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
    finally:
        task.cancel()
        watch.cancel()
        await shielded(_ended(task, watch))
    return None if task.cancelled() else task.result()


async def _ended(*tasks: asyncio.Future[Any]) -> None:
    await asyncio.wait(tasks)
