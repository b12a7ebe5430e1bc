"""`MeteredModel`: a model as a strategy sees it, with budget, run store and trace between the two.

Every call of a strategy goes through here. A call is fitted into the budget before it is made; samples that the run
store already has are not made again; each new sample is stored as soon as it is finished, while its siblings are still
being generated; and everything is charged and told.

`Meter`: what stands between a strategy's call and a model: the budget it is fitted into, the store, the trace.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import JsonValue

from ...core.budget import CostBound
from ...core.errors import BackendUnavailable, CapabilityMissing, StoreError, UserError
from ...core.events import CallFinished, CallStarted, SampleFinished, StrategyNote, TextDelta
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
from ...core.store import StoredCall, call_key
from ...core.unbroken import shielded
from ..kv_store import KVStore, Pinned, PinsPrefixes, check_name
from ..logits_processors import companions
from ..metered_prefixes import MeteredPrefixes
from ..model import Capabilities, ExplainsTokens, LanguageModel, Listener, Relevance
from ..streaming import stream_of
from ..worker_group import Opening, SharesCache
from .calls import Recorder, tell_spending
from .workers import MeteredWorkers

_TOOLS_FRAME_BYTES = 2048
"""Most bytes of instructions that templates and providers are known to put around tools."""

Slot = tuple[int, int]
"""Position of a sample: (request in the batch, sample index)."""


class Meter:
    """Budget, store and trace of one model in one role of one run.

    Args:
        model: The model.
        role: Part it plays.
        run: The run that pays.
    """

    def __init__(self, model: LanguageModel, role: str, run: Run) -> None:
        self.model = model
        self.role = role
        self.run = run

    # -- budget

    def seeded(self, request: Request) -> Request:
        """The request with a seed: its own, or else the run's."""
        if request.sampling.seed is not None:
            return request
        sampling = request.sampling.model_copy(update={"seed": self.run.seed})
        return request.model_copy(update={"sampling": sampling})

    def fit(self, requests: list[Request]) -> list[Request]:
        """Bound `max_tokens` by an equal share of what the budget still allows."""
        ledger = self.run.ledger
        samples = sum(len(r.indices) for r in requests)
        share = ledger.left("tokens") / samples  # infinite without a limit
        if ledger.budget.usd is not None:
            prompt_price, price = self._prices()
            left = ledger.left("usd") - prompt_price * sum(map(self._paid_prompt_tokens, requests))
            if left < 0:
                raise ledger.refuse("usd")
            if price > 0 and left / price / samples < share:
                share = left / price / samples
                if share < 1:
                    raise ledger.refuse("usd")
        if share < 1:
            raise ledger.refuse("tokens")
        return [
            r
            if r.sampling.max_tokens <= share
            else r.model_copy(update={"sampling": r.sampling.model_copy(update={"max_tokens": int(share)})})
            for r in requests
        ]

    def most(self, requests: Sequence[Request]) -> CostBound:
        """The most that the requests could spend."""
        tokens = sum(len(r.indices) * r.sampling.max_tokens for r in requests)
        usd = 0.0
        if self.run.ledger.budget.usd is not None:
            prompt_price, price = self._prices()
            usd = prompt_price * sum(map(self._paid_prompt_tokens, requests)) + price * tokens
        return CostBound(tokens=tokens, calls=len(requests), usd=usd)

    def _prices(self) -> tuple[float, float]:
        can = self.model.capabilities
        if can.usd_per_prompt_token is None or can.usd_per_completion_token is None:
            raise UserError(f"the price of model {self.model.name!r} is unknown", hint="limit tokens or calls instead")
        return can.usd_per_prompt_token, can.usd_per_completion_token

    def _paid_prompt_tokens(self, request: Request) -> int:
        """Prompt tokens that a request may be charged for: a backend may have to ask for each sample by itself.

        It does where a provider takes no n, where hooks are a sample's own, and where the wanted samples have gaps.
        """
        apart = self.model.capabilities.prompt_per_sample or bool(request.sampling.hooks) or request.samples is not None
        return self._prompt_tokens(request.prompt) * (len(request.indices) if apart else 1)

    def _prompt_tokens(self, prompt: Prompt) -> int:
        """Tokens of a prompt, or where nobody knows them its bytes: no tokenizer makes more of it."""
        counted = self.model.count_tokens(prompt)
        if counted is not None:
            return counted
        prefix = len(prompt.prefix) if isinstance(prompt.prefix, tuple) else len(prompt.prefix.encode())
        return prefix + len((prompt.text or "").encode()) + said_bytes(prompt) + 16 * len(prompt.messages)

    def ended(self, completion: Completion, clamped: bool) -> Completion:
        """The sample, ended by the budget if it met a bound that the budget set."""
        if clamped and completion.finish_reason == "length":
            if self.run.ledger.exhausted is None:
                self.run.note_limit(self.run.ledger.refuse("tokens"))
            return completion.model_copy(update={"finish_reason": "budget"})
        return completion

    def settle(
        self,
        call: int,
        requests: Sequence[Request],
        done: dict[Slot, Completion],
        replayed: frozenset[Slot],
        seconds: float,
    ) -> None:
        """Charge what a call has made, also when it was cancelled or failed half-way."""
        whole = sum(all((i, x) in replayed for x in r.indices) for i, r in enumerate(requests))
        usage = sum((c.usage for c in done.values()), Usage())
        self.charge(
            call,
            usage,
            calls=len(requests),
            replayed_calls=whole,
            replayed_tokens=sum(done[slot].usage.completion_tokens for slot in replayed),
            failed=sum(not c.ok for c in done.values()),
            seconds=seconds,
        )

    def charge(
        self,
        call: int,
        usage: Usage,
        *,
        calls: int,
        replayed_calls: int,
        seconds: float,
        replayed_tokens: int = 0,
        failed: int = 0,
    ) -> None:
        """Book what a call has spent, and tell of it."""
        run = self.run
        run.ledger.charge(
            self.role,
            self.model.name,
            usage,
            calls=calls,
            replayed_calls=replayed_calls,
            replayed_tokens=replayed_tokens,
            working_s=max(0.0, seconds - usage.waited_s),
        )
        self.tell_end(call, usage, seconds=seconds, failed=failed)
        self.tell_budget(call, usage.completion_tokens, calls)

    def tell_end(self, call: int, usage: Usage, *, seconds: float, failed: int = 0) -> None:
        """Tell that a call has ended, and what it was."""
        self.run.emit(
            CallFinished(
                role=self.role,
                model=self.model.name,
                seconds=seconds,
                tokens=usage.completion_tokens,
                prompt_tokens=usage.prompt_tokens,
                cached_tokens=usage.cached_tokens,
                failed=failed,
            ),
            parent=call,
        )

    def tell_budget(self, call: int, tokens: int, calls: int) -> None:
        """Tell what has been booked for a call, and what the run has spent so far."""
        tell_spending(self.run, call, self.role, self.model.name, tokens=tokens, calls=calls)

    # -- store and trace

    def sample_call(self, key: str, request: Request, completion: Completion, cut: bool) -> StoredCall:
        """A sample as the store keeps it."""
        asked = {"request": sampled_json(request), "seed": request.sampling.seed, "index": completion.sample_index}
        return StoredCall(
            key=key,
            role=self.role,
            model=self.model.name,
            request=asked,
            reply=completion.model_dump(mode="json"),
            cut=cut,
        )

    def measured_call(self, key: str, asked: JsonValue, reply: dict[str, JsonValue]) -> StoredCall:
        """A score or distribution as the store keeps it."""
        return StoredCall(key=key, role=self.role, model=self.model.name, request={"request": asked}, reply=reply)

    def tell_chunk(self, call: int, chunk: Chunk, listener: Listener | None) -> None:
        """Tell of a piece of a sample."""
        if self.run.wants_text and (chunk.text or chunk.token_ids or chunk.reasoning):
            self.run.emit(
                TextDelta(
                    request=chunk.request,
                    sample=chunk.sample_index,
                    text=chunk.text,
                    tokens=len(chunk.token_ids),
                    reasoning=chunk.reasoning,
                ),
                parent=call,
            )
        if chunk.completion is not None:
            self.run.emit(
                SampleFinished(request=chunk.request, sample=chunk.sample_index, completion=chunk.completion),
                parent=call,
            )
        if listener is not None:
            listener(chunk)

    def tell(
        self, call: int, slot: Slot, completion: Completion, listener: Listener | None, replayed: bool = False
    ) -> None:
        """Tell of a sample that was not streamed."""
        request, sample = slot
        self.run.emit(
            SampleFinished(request=request, sample=sample, completion=completion, replayed=replayed), parent=call
        )
        if listener is not None:
            text, ids = completion.text, completion.token_ids
            listener(
                Chunk(
                    request=request,
                    sample_index=sample,
                    text=text,
                    token_ids=ids,
                    logprobs=completion.logprobs or (),
                    reasoning=completion.reasoning,
                    completion=completion,
                )
            )


def said_bytes(prompt: Prompt) -> int:
    """Bytes of a conversation and its tools, as they are sent; what templates add to tools is reckoned in."""
    said = sum(len(m.content.encode()) for m in prompt.messages)
    called = sum(len(call.model_dump_json().encode()) + 32 for m in prompt.messages for call in m.tool_calls)
    shown = sum(len(json.dumps(tool.as_openai()).encode()) for tool in prompt.tools)
    return said + called + (shown + _TOOLS_FRAME_BYTES if prompt.tools else 0)


def sampled_json(request: Request) -> JsonValue:
    """What decides a sample's distribution: the prompt and how it is sampled, without seed, index and count."""
    sampling: dict[str, JsonValue] = request.sampling.model_dump(mode="json", exclude={"n", "seed", "json_schema"})
    if request.sampling.json_schema is not None:
        # only where there is one, since older replies are kept under keys without it; as text, for keys are made of
        # sorted fields, and the order of a schema's properties is that of the text's
        sampling["json_schema"] = json.dumps(request.sampling.json_schema)
    return {"prompt": request.prompt.model_dump(mode="json"), "sampling": sampling}


MeasuredT = TypeVar("MeasuredT", ScoredContinuation, NextTokenDistribution, Relevance)
WorkT = TypeVar("WorkT")


@dataclass
class _Growing:
    """A sample while it is being generated: what is left of it if it is cut."""

    text: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def cut(self, index: int, reason: FinishReason, prompt_tokens: int = 0) -> Completion:
        """The sample as far as it got."""
        known = len(self.logprobs) == len(self.token_ids)
        return Completion(
            text="".join(self.text),
            token_ids=tuple(self.token_ids),
            logprobs=tuple(self.logprobs) if known else None,
            finish_reason=reason,
            usage=Usage(prompt_tokens=prompt_tokens, completion_tokens=len(self.token_ids)),
            sample_index=index,
        )


class MeteredModel:
    """A model in one role of one run. It is a `LanguageModel` itself, with the differences named here.

    A request without a seed gets the run's. Samples are found again by (model, prompt, sampling, seed, index): a
    strategy that wants new samples of a prompt asks for new indices. Where the token or dollar budget does not cover
    `max_tokens` for every sample, all samples of the call are bounded by an equal share, and one that meets this bound
    ends with "budget"; where the time limit strikes, what was generated so far comes back, ended with "budget" too.
    A caller that has `enough` before all samples are finished gets the rest as far as they got, ended with "cancelled";
    the backend stops generating them, and what they have cost is charged. Prompts share keys and values with those of
    the run's tenant alone (`Prompt.cache_salt`).

    Args:
        model: The model; it is not closed by this object.
        role: Part it plays: "main", "small", "judge".
        run: The run that pays.

    Raises:
        LimitExceeded: By every method, when the call does not fit the budget at all.
    """

    def __init__(self, model: LanguageModel, role: str, run: Run) -> None:
        self._model = model
        self._meter = Meter(model, role, run)
        self._prefixes: MeteredPrefixes | None = None
        self._run = run
        self.role = role
        self.name = model.name
        self.identity = model.identity

    @property
    def capabilities(self) -> Capabilities:
        """What the model can do."""
        return self._model.capabilities

    # -- named prefixes

    @property
    def kv_store(self) -> KVStore:
        """Named prefixes of the model, charged to the run.

        Raises:
            CapabilityMissing: It has none.
        """
        if not self.capabilities.pins:
            raise CapabilityMissing("pins", self.name)
        if self._prefixes is None:
            store = self._model.kv_store if isinstance(self._model, PinsPrefixes) else None
            self._prefixes = MeteredPrefixes(store, self._meter)
        return self._prefixes

    async def pin(self, name: str, prompt: Prompt) -> Pinned | None:
        """Pin what later prompts of the run will begin with, where that can be done.

        It saves computing and changes no result. So a model that cannot do it, a prefix that is too large and a disk
        that cannot be written stop nothing: they leave a note in the trace.

        Args:
            name: The prefix's name.
            prompt: The beginning.

        Returns:
            What is pinned; None if nothing is.

        Raises:
            UserError: The name is not allowed.
            ReasonError: Whatever would stop the next call with this prompt too.
        """
        check_name(name)
        try:
            return await self.kv_store.save(name, prompt)
        except (CapabilityMissing, UserError, BackendUnavailable, StoreError) as e:
            data: dict[str, JsonValue] = {"role": self.role, "prefix": name, "why": e.message}
            self._run.emit(StrategyNote(strategy=self._run.config.strategy, name="prefix.not_pinned", data=data))
            return None

    def workers(self, opening: Opening) -> MeteredWorkers:
        """Workers of the model that read one another's cache; they begin with their first pass.

        Raises:
            CapabilityMissing: It has none.
        """
        if not self.capabilities.kv_sharing or not isinstance(self._model, SharesCache):
            raise CapabilityMissing("kv_sharing", self.name)
        return MeteredWorkers(self._model, opening, self._meter)

    def count_tokens(self, prompt: Prompt) -> int | None:
        """Tokens of a prompt; None if unknown."""
        return self._model.count_tokens(prompt)

    async def aclose(self) -> None:
        """Do nothing: the model belongs to whoever opened it."""

    def _salted(self, prompt: Prompt) -> Prompt:
        """The prompt as the model gets it: its keys and values are for the run's tenant alone."""
        return prompt.salted(self._run.config.tenant)

    # -- sampling

    async def generate(
        self, requests: Sequence[Request], listener: Listener | None = None, *, enough: asyncio.Event | None = None
    ) -> list[list[Completion]]:
        """See `LanguageModel.generate`.

        Args:
            requests: What to sample.
            listener: Told of tokens and finished samples as they come.
            enough: Ends the samples that are still being generated once it is set. They are kept for this run alone, so
                that it replays as it went; no other run is answered by them.
        """
        if not requests:
            return []
        fitted = self._meter.fit([self._meter.seeded(r) for r in requests])
        clamped = [f.sampling.max_tokens < r.sampling.max_tokens for f, r in zip(fitted, requests, strict=True)]
        groups = companions(fitted, self.name)
        asked = _asked(fitted, groups)
        keys = {
            (i, index): call_key(self.identity, asked[i], r.sampling.seed, index)
            for i, r in enumerate(fitted)
            for index in r.indices
        }
        with self._run.ledger.reserve(self._meter.most(fitted)):
            stored = await self._run.stored(list(keys.values()))
            done: dict[Slot, Completion] = {
                slot: Completion.model_validate(stored[key].reply) for slot, key in keys.items() if key in stored
            }
            for group in groups:  # samples in lock-step are made together or not at all
                for index in fitted[group[0]].indices:
                    if not all((i, index) in done for i in group):
                        for i in group:
                            done.pop((i, index), None)
            replayed = frozenset(done)
            call = self._run.emit(
                CallStarted(
                    role=self.role,
                    model=self.name,
                    operation="generate",
                    requests=len(fitted),
                    samples=len(keys),
                    replayed=len(replayed),
                    max_tokens=max(r.sampling.max_tokens for r in fitted),
                )
            )
            started = time.monotonic()
            try:
                for slot in sorted(replayed):
                    self._meter.tell(call, slot, done[slot], listener, replayed=True)
                if len(done) < len(keys):
                    await self._sample(fitted, keys, done, call, listener, enough)
            finally:
                self._meter.settle(call, fitted, done, replayed, time.monotonic() - started)
                await self._run.save_events()
        return [
            [self._meter.ended(done[i, x], clamped[i]) for x in request.indices] for i, request in enumerate(fitted)
        ]

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """See `LanguageModel.stream`."""
        async with aclosing(stream_of(self.generate, request)) as pieces:
            async for piece in pieces:
                yield piece

    async def _sample(
        self,
        requests: Sequence[Request],
        keys: dict[Slot, str],
        done: dict[Slot, Completion],
        call: int,
        listener: Listener | None,
        enough: asyncio.Event | None,
    ) -> None:
        """Make the samples that are not `done` yet and add them there; time or the caller may cut them short."""
        run = self._run
        missing = [
            (i, r.model_copy(update={"samples": tuple(x for x in r.indices if (i, x) not in done)}))
            for i, r in enumerate(requests)
        ]
        missing = [(i, r) for i, r in missing if r.samples]
        first = {(i, r.indices[0]) for i, r in missing}
        growing: dict[Slot, _Growing] = {}
        recorder = Recorder(run.store, run.id)

        def finish(slot: Slot, completion: Completion, cut: bool = False) -> None:
            done[slot] = completion
            growing.pop(slot, None)
            if completion.ok:
                recorder.add(self._meter.sample_call(keys[slot], requests[slot[0]], completion, cut))

        def hear(chunk: Chunk) -> None:
            i = missing[chunk.request][0]
            slot = (i, chunk.sample_index)
            sample = growing.setdefault(slot, _Growing())
            sample.text.append(chunk.text)
            sample.token_ids += chunk.token_ids
            sample.logprobs += chunk.logprobs
            if chunk.completion is not None:
                finish(slot, chunk.completion)
            if chunk.request != i:
                chunk = chunk.model_copy(update={"request": i})
            self._meter.tell_chunk(call, chunk, listener)

        async def cut_the_rest(reason: FinishReason) -> None:
            async with recorder:
                for slot in [slot for slot in keys if slot not in done]:
                    # a backend tells of the prompt on the first sample, which has not come
                    counted = self.count_tokens(requests[slot[0]].prompt) if slot in first else 0
                    cut = growing.get(slot, _Growing()).cut(slot[1], reason, counted or 0)
                    finish(slot, cut, cut=True)
                    self._meter.tell(call, slot, cut, None)

        try:
            async with recorder, asyncio.timeout(run.ledger.seconds_left()) as clock:
                salted = [r.model_copy(update={"prompt": self._salted(r.prompt)}) for _, r in missing]
                replies = await _until(enough, self._model.generate(salted, hear))
                for (i, request), reply in zip(missing, replies or [], strict=replies is not None):
                    for index, completion in zip(request.indices, reply, strict=True):
                        if (i, index) not in done:  # the backend did not tell it
                            finish((i, index), completion)
                            self._meter.tell(call, (i, index), completion, listener)
            if replies is None:
                await cut_the_rest("cancelled")
        except TimeoutError:
            if not clock.expired():
                raise
            run.note_limit(run.ledger.refuse("seconds"))
            await cut_the_rest("budget")
        except asyncio.CancelledError:
            for slot, sample in growing.items():
                cut = sample.cut(slot[1], "cancelled")
                run.unfinished.append(cut)
                self._meter.tell(call, slot, cut, None)
                run.ledger.charge(self.role, self.name, cut.usage)
            raise

    # -- measuring

    async def score(self, prompt: Prompt, continuations: Sequence[str | tuple[int, ...]]) -> list[ScoredContinuation]:
        """See `LanguageModel.score`."""
        asked: list[JsonValue] = [
            {"score": prompt.model_dump(mode="json"), "continuation": c if isinstance(c, str) else list(c)}
            for c in continuations
        ]

        async def compute(missing: list[int]) -> list[ScoredContinuation]:
            return await self._model.score(self._salted(prompt), [continuations[i] for i in missing])

        return await self._measure("score", ScoredContinuation, asked, compute, calls=1)

    async def next_token(self, prompts: Sequence[Prompt], top: int = 20) -> list[NextTokenDistribution]:
        """See `LanguageModel.next_token`."""
        asked: list[JsonValue] = [{"next_token": p.model_dump(mode="json"), "top": top} for p in prompts]

        async def compute(missing: list[int]) -> list[NextTokenDistribution]:
            return await self._model.next_token([self._salted(prompts[i]) for i in missing], top)

        return await self._measure("next_token", NextTokenDistribution, asked, compute, calls=len(prompts))

    async def relevance(self, prompt: Prompt, parts: Sequence[str], continuation: str) -> Relevance:
        """See `ExplainsTokens.relevance`."""
        model = self._model
        if not isinstance(model, ExplainsTokens):
            raise CapabilityMissing("relevance", self.name)
        shown = prompt.model_dump(mode="json")
        asked: list[JsonValue] = [{"relevance": shown, "parts": list(parts), "continuation": continuation}]

        async def compute(missing: list[int]) -> list[Relevance]:
            return [await model.relevance(self._salted(prompt), parts, continuation) for _ in missing]

        return (await self._measure("relevance", Relevance, asked, compute, calls=1))[0]

    async def _measure(
        self,
        operation: str,
        reply_type: type[MeasuredT],
        asked: list[JsonValue],
        compute: Callable[[list[int]], Awaitable[list[MeasuredT]]],
        *,
        calls: int,
    ) -> list[MeasuredT]:
        """Answer each question from the store or else by one batched call."""
        run = self._run
        keys = [call_key(self.identity, a, None, 0) for a in asked]
        with run.ledger.reserve(CostBound(calls=calls)):
            stored = await self._run.stored(keys)
            missing = [i for i, key in enumerate(keys) if key not in stored]
            call = run.emit(
                CallStarted(
                    role=self.role,
                    model=self.name,
                    operation=operation,
                    requests=len(asked),
                    samples=len(asked),
                    replayed=len(asked) - len(missing),
                )
            )
            started = time.monotonic()
            try:
                async with asyncio.timeout(run.ledger.seconds_left()):
                    computed = await compute(missing) if missing else []
            except BaseException as e:  # a call that was told of has its end told too
                self._meter.tell_end(call, Usage(), seconds=time.monotonic() - started, failed=len(missing))
                if isinstance(e, TimeoutError):
                    raise run.ledger.refuse("seconds") from None
                raise
            fresh = dict(zip(missing, computed, strict=True))
            paid = [self._meter.measured_call(keys[i], asked[i], r.model_dump(mode="json")) for i, r in fresh.items()]
            await run.store.add_calls(run.id, paid)
            replies = [
                fresh[i] if i in fresh else reply_type.model_validate(stored[key].reply) for i, key in enumerate(keys)
            ]
            self._meter.charge(
                call,
                sum((r.usage for r in replies), Usage()),
                calls=calls,
                replayed_calls=0 if missing else calls,
                seconds=time.monotonic() - started,
            )
            await run.save_events()
        return replies


async def _until(enough: asyncio.Event | None, work: Coroutine[Any, Any, WorkT]) -> WorkT | None:
    """What the work gives; None if there was enough before it was done: it has been cancelled then, and has ended."""
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


def _asked(requests: Sequence[Request], groups: Sequence[tuple[int, ...]]) -> list[JsonValue]:
    """What decides the samples of each request; for one in lock-step with others, theirs belongs to it.

    Args:
        requests: The requests of one call.
        groups: Positions of those that go together.
    """
    own = [sampled_json(r) for r in requests]
    asked = list(own)
    for group in groups:
        for i in group:
            asked[i] = {"request": own[i], "together": [own[j] for j in group if j != i]}
    return asked
