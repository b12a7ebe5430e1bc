"""`MeteredModel`: a model as a strategy sees it, with budget, run store and trace between the two.

Every call of a strategy goes through here. A call is fitted into the budget before it is made; samples that the run
store already has are not made again; each new sample is stored as soon as it is finished, while its siblings are still
being generated; and everything is charged and told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import JsonValue

from ..core.budget import Need
from ..core.errors import BackendUnavailable, CapabilityMissing, StoreError, UserError
from ..core.events import CallStarted, StrategyNote
from ..core.messages import Chunk, Completion, FinishReason, NextToken, Prompt, Request, Scored, Usage
from ..core.run import Run
from ..core.store import call_key
from ..core.unbroken import to_its_end
from .hooks import companions
from .kv_store import KVStore, Pinned, PinsPrefixes, check_name
from .meter import Meter, Slot, sampled_json
from .metered_prefixes import MeteredPrefixes
from .metered_workers import MeteredWorkers
from .model import Capabilities, LanguageModel, Listener
from .pieces import stream_of
from .recorder import Recorder
from .relevance import ExplainsTokens, Relevance
from .workers import Opening, SharesCache

MeasuredT = TypeVar("MeasuredT", Scored, NextToken, Relevance)
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

    async def score(self, prompt: Prompt, continuations: Sequence[str | tuple[int, ...]]) -> list[Scored]:
        """See `LanguageModel.score`."""
        asked: list[JsonValue] = [
            {"score": prompt.model_dump(mode="json"), "continuation": c if isinstance(c, str) else list(c)}
            for c in continuations
        ]

        async def compute(missing: list[int]) -> list[Scored]:
            return await self._model.score(self._salted(prompt), [continuations[i] for i in missing])

        return await self._measure("score", Scored, asked, compute, calls=1)

    async def next_token(self, prompts: Sequence[Prompt], top: int = 20) -> list[NextToken]:
        """See `LanguageModel.next_token`."""
        asked: list[JsonValue] = [{"next_token": p.model_dump(mode="json"), "top": top} for p in prompts]

        async def compute(missing: list[int]) -> list[NextToken]:
            return await self._model.next_token([self._salted(prompts[i]) for i in missing], top)

        return await self._measure("next_token", NextToken, asked, compute, calls=len(prompts))

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
        with run.ledger.reserve(Need(calls=calls)):
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
        await to_its_end(_ended(task, watch))
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
