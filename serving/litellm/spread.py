"""`SpreadModel`: one model name over several endpoints: the least busy healthy one takes each request.

A request that fails for a reason that another endpoint may not have (a rate limit, silence, a broken stream, a refused
key) goes to another one at once, without its finished samples and without telling its text twice. When all have been
tried, it waits as a request to a single endpoint would. See `endpoints` for what LiteLLM's Router could not do here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from ...core.errors import BackendError, BackendUnavailable, CapabilityMissing, RateLimited, ReasonError
from ...core.messages import Completion, Prompt, Scored
from ..model import Capabilities, Listener
from .endpoints import Endpoint, Endpoints, beginning
from .limiter import Limiter
from .model import Attempt, LiteLLMModel, Part
from .retrying import Fault, Retrying
from .seeds import consecutive
from .traits import Traits

Join = Callable[[Endpoint], Awaitable[None]]
"""Opens the model of an endpoint that could not be reached before; raises if it is not the one it should be."""


class SpreadModel(LiteLLMModel):
    """A model behind several endpoints.

    Args:
        endpoints: The endpoints.
        first: The model of one of them, whose target and prices stand for all.
        capabilities: What all of them can do.
        traits: How all of them take requests.
        retrying: How often and long a request is made again after all have been tried.
        identity: What the run store keys on.
        join: Opens an endpoint that could not be reached when the others were opened.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        first: LiteLLMModel,
        capabilities: Capabilities,
        traits: Traits,
        retrying: Retrying,
        identity: str,
        join: Join,
    ) -> None:
        everything = Limiter(sum(e.limiter.most for e in endpoints.all))
        super().__init__(first.target, first.wire, capabilities, traits, first.prices, everything, identity)
        self._retrying = retrying
        self.endpoints = endpoints
        self._join = join

    async def _make(
        self, part: Part, done: dict[tuple[int, int], Completion], listener: Listener | None
    ) -> ReasonError | None:
        clock, began = self.endpoints.clock, self.endpoints.clock()
        key = beginning(part.request.prompt) if self.target.settings.affinity else None
        waited, retries = 0.0, 0
        left = part.indices
        tried: dict[Endpoint, Fault] = {}
        while True:
            endpoint = self.endpoints.choose(key, tried)
            if endpoint is None:
                wait = await self._rest(tried, retries, clock() - began)
                if wait is None:
                    return await self._give_up(part, left, self._verdict(tried), done, listener)
                waited += wait
                retries += bool(tried)
                tried.clear()
                continue
            run = consecutive(left)[0]
            made, queued = await self._at(endpoint, part, run, waited, listener)
            waited = 0.0 if made.finished else waited + queued
            left = part.keep(made.finished, done)
            if not left:
                return None
            if made.short:
                return await self._one_by_one(part, left, done, listener)
            if made.fault is None:
                continue
            if not made.fault.retryable and not made.fault.fatal:
                return await self._give_up(part, left, made.fault, done, listener)
            tried[endpoint] = made.fault

    async def _at(
        self, endpoint: Endpoint, part: Part, run: tuple[int, ...], waited: float, listener: Listener | None
    ) -> tuple[Attempt, float]:
        """One attempt at one endpoint, and the seconds waited for a place there."""
        health = endpoint.health
        health.begin()
        settled = False
        try:
            async with endpoint.limiter.turn() as queued:
                made = Attempt((), await self._joined(endpoint) if endpoint.model is None else None)
                if endpoint.model is not None:
                    made = await endpoint.model.attempt(part, run, waited + queued, listener)
            fault = made.fault
            if fault is not None and (fault.retryable or fault.fatal):
                asked = fault.error.retry_after_s if isinstance(fault.error, RateLimited) else None
                health.failed(self.endpoints.clock(), fault.error, rest_s=asked, hard=fault.fatal)
            else:
                health.succeeded()
            settled = True
            return made, queued
        finally:
            if not settled:
                health.abandoned()
            self.endpoints.changed()

    async def _joined(self, endpoint: Endpoint) -> Fault | None:
        """Open an endpoint that could not be reached before; why it is still not there."""
        try:
            await self._join(endpoint)
        except BackendError as e:
            return Fault(e, retryable=True)
        except ReasonError as e:
            endpoint.excluded = str(e)
            return Fault(e, fatal=True)
        return None

    async def _rest(self, tried: dict[Endpoint, Fault], retries: int, elapsed_s: float) -> float | None:
        """Wait until it makes sense to try again; the seconds waited, or None if it makes none."""
        if all(e.excluded for e in self.endpoints.all):
            return None
        clock, patience = self.endpoints.clock, self.target.settings.retry_s - elapsed_s
        began = clock()
        if tried:
            waits = [self._retrying.wait(f, retries, elapsed_s, self._draw) for f in tried.values()]
            waits = [w for w in waits if w is not None]
            if not waits:
                return None
            await asyncio.sleep(min(w for w in waits if w is not None))
            return clock() - began
        due = self.endpoints.due_s()
        if patience <= 0 or (due is not None and due > patience):
            return None
        await self.endpoints.news(patience if due is None else due)
        return clock() - began

    def _verdict(self, tried: dict[Endpoint, Fault]) -> Fault:
        """What the failures at all endpoints are to the caller."""
        faults = list(tried.values())
        if faults and all(f.fatal for f in faults) and len(tried) == len(self.endpoints.all):
            return faults[0]
        told = f"model {self.name!r}: no endpoint answers: {self.endpoints.account()}"
        limits = [f.error for f in faults if isinstance(f.error, RateLimited)]
        if limits and len(limits) == len(self.endpoints.all):
            asked = [e.retry_after_s for e in limits if e.retry_after_s is not None]
            return Fault(RateLimited(told, retry_after_s=min(asked, default=None)))
        return Fault(BackendUnavailable(told, hint="is a server running at one of them?"))

    async def score(self, prompt: Prompt, continuations: Sequence[str | tuple[int, ...]]) -> list[Scored]:
        """Score at one endpoint, and at another one if it fails (see `LanguageModel.score`)."""
        if not self.capabilities.scoring:
            raise CapabilityMissing("scoring", self.name)
        key = beginning(prompt) if self.target.settings.affinity else None
        tried: dict[Endpoint, Fault] = {}
        began, retries = self.endpoints.clock(), 0
        while True:
            endpoint = self.endpoints.choose(key, tried)
            if endpoint is not None:
                try:
                    return await self._scored(endpoint, prompt, continuations)
                except BackendError as e:
                    tried[endpoint] = Fault(e, retryable=True)
                continue
            if await self._rest(tried, retries, self.endpoints.clock() - began) is None:
                raise self._verdict(tried).error
            retries += bool(tried)
            tried.clear()

    async def _scored(
        self, endpoint: Endpoint, prompt: Prompt, continuations: Sequence[str | tuple[int, ...]]
    ) -> list[Scored]:
        health = endpoint.health
        health.begin()
        try:
            if endpoint.model is None:
                await self._join(endpoint)
            assert endpoint.model is not None
            scored = await endpoint.model.score(prompt, continuations)
        except BackendError as e:
            asked = e.retry_after_s if isinstance(e, RateLimited) else None
            health.failed(self.endpoints.clock(), e, rest_s=asked)
            raise
        except BaseException:
            health.abandoned()
            raise
        finally:
            self.endpoints.changed()
        health.succeeded()
        return scored

    async def aclose(self) -> None:
        """Cancel requests under way and close all connections; idempotent."""
        await super().aclose()
        for endpoint in self.endpoints.all:
            if endpoint.model is not None:
                await endpoint.model.aclose()


def shared_by(models: Sequence[LiteLLMModel]) -> Capabilities:
    """What all endpoints of a model can do: the least of each."""
    cans = [m.capabilities for m in models]
    contexts = [c.context_tokens for c in cans if c.context_tokens is not None]
    first = cans[0]
    return first.model_copy(
        update={
            "logprobs": all(c.logprobs for c in cans),
            "top_logprobs": min(c.top_logprobs for c in cans),
            "scoring": all(c.scoring for c in cans),
            "prefix": all(c.prefix for c in cans),
            "json_schema": all(c.json_schema for c in cans),
            "tools": all(c.tools for c in cans),
            "seed": all(c.seed for c in cans),
            "hooks": frozenset.intersection(*(c.hooks for c in cans)),
            "prompt_per_sample": any(c.prompt_per_sample for c in cans),
            "context_tokens": min(contexts, default=None),
        }
    )
