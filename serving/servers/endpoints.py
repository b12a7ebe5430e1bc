"""Load balancing: one model over several endpoints, each request to the usable one with the fewest requests in flight.

A request that fails for a reason that another endpoint may not share (a rate limit, a timeout, a broken stream, a
refused key) moves to another endpoint at once, without its finished samples; a broken one only as `RetryPolicy` allows.
After all endpoints have failed, it waits as a request to a single endpoint would.

An endpoint that keeps failing is taken out of use. A background check opens it again, with growing pauses, and it
returns if it still serves the same model. An endpoint that is down when the model is loaded starts in that state.

LiteLLM's Router (1.110) does not fit: its stream wrapper joins samples and invents finish reasons, and an endpoint
whose stream breaks off is not cooled down.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...core.clock import monotonic
from ...core.errors import BackendError, BackendUnavailable, CapabilityMissing, RateLimited, ReasonError, UserError
from ...core.messages import Prompt, ScoredContinuation
from ...core.settings import EndpointSettings, Settings
from ..litellm.errors import FailedAttempt, RetryPolicy
from ..litellm.limiter import ConcurrencyLimiter, LimiterRegistry
from ..litellm.model import AttemptResult, Attempts, LiteLLMModel, SampleBatch
from ..litellm.prompt_cache import prompt_start_key
from ..litellm.providers import find_settings
from ..model import Capabilities, Listener, MeasuresAgain

MAX_CONSECUTIVE_FAILURES = 3
"""Consecutive failures after which an endpoint is taken out of use; fewer may be chance."""
COOLDOWN_S = 1.0
"""Seconds before the first check of an endpoint that failed; each further pause is twice as long."""
MAX_COOLDOWN_S = 60.0
POLL_S = 0.05
"""How often a waiting request looks for a usable endpoint, in seconds."""
SLACK = 8
"""Requests that the endpoint which has a prompt's beginning in its cache may have in flight beyond the least loaded one
and still be chosen."""
MAX_PLACED = 4096
"""Prompt beginnings whose endpoints are remembered."""


@dataclass(eq=False)
class Endpoint:
    """One endpoint, and its health by the results of its requests.

    Attributes:
        address: Its address.
        limiter: Limit of its concurrent requests.
        model: The model there; None until the endpoint was reached.
        is_down: Whether it is out of use until a check succeeds.
        paused_until: When it may be used again after a rate limit, or checked again while it is down.
        last_error: Error of its last failed request or check.
    """

    address: str
    limiter: ConcurrencyLimiter
    model: LiteLLMModel | None = None
    is_down: bool = False
    paused_until: float = 0.0
    last_error: Exception | None = None
    check: asyncio.Task[None] | None = None
    _failures: int = 0
    _cooldowns: int = 0
    _last_used: int = 0

    def is_usable(self, now: float) -> bool:
        """Whether the next request may be sent to it."""
        return not self.is_down and now >= self.paused_until

    def succeeded(self) -> None:
        """A request succeeded."""
        self._failures = self._cooldowns = 0
        self.is_down = False

    def failed(self, now: float, fault: FailedAttempt) -> None:
        """A request failed because of the endpoint."""
        self.last_error = fault.error
        if isinstance(fault.error, RateLimited) and fault.error.retry_after_s is not None:
            self.paused_until = max(self.paused_until, now + fault.error.retry_after_s)
            return
        self._failures += 1
        if not self.is_down and (fault.fatal or self._failures >= MAX_CONSECUTIVE_FAILURES):
            self.take_down(now)

    def take_down(self, now: float) -> None:
        """Take it out of use until a check succeeds, which is not made before a pause."""
        self.is_down = True
        self.paused_until = now + min(MAX_COOLDOWN_S, COOLDOWN_S * 2.0 ** min(self._cooldowns, 30))
        self._cooldowns += 1

    def needs_check(self, now: float) -> bool:
        """Whether it is down, and no check is in flight or paused."""
        in_flight = self.check is not None and not self.check.done() and not self.check.get_loop().is_closed()
        return self.is_down and now >= self.paused_until and not in_flight


class EndpointPool:
    """Several endpoints of one model.

    Args:
        endpoints: The endpoints, at least one.
    """

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.all = tuple(endpoints)
        self._num_chosen = 0
        self._placed: dict[str, Endpoint] = {}

    def choose(self, key: str | None, without: Collection[Endpoint] = ()) -> Endpoint | None:
        """The least loaded usable endpoint, or the key's own if it is not much busier; None if none is usable.

        A new key is placed at the least loaded endpoint, and stays there while that is usable.

        Args:
            key: Prompts with the same key go to the same endpoint where possible; None for no preference.
            without: Endpoints to skip.
        """
        now = monotonic()
        usable = [e for e in self.all if e not in without and e.is_usable(now)]
        if not usable:
            return None
        chosen = min(usable, key=lambda e: (e.limiter.full, e.limiter.busy, e._last_used))
        if key is not None:
            own = self._placed.pop(key, None)
            self._placed[key] = own = own if own in usable else chosen
            if len(self._placed) > MAX_PLACED:
                del self._placed[next(iter(self._placed))]
            if not own.limiter.full and own.limiter.busy <= chosen.limiter.busy + SLACK:
                chosen = own
        self._num_chosen += 1
        chosen._last_used = self._num_chosen
        return chosen

    def describe_errors(self) -> str:
        """Each endpoint with its last error, for messages."""
        return "; ".join(f"{e.address}: {e.last_error or 'not tried'}" for e in self.all)


OpenEndpoint = Callable[[Endpoint], Awaitable[LiteLLMModel]]
"""Opens the model at an endpoint; raises `UserError` if it is not the model that the others serve."""


@dataclass
class _Attempts(Attempts):
    """The attempts of one request, with the failures since the last wait, by endpoint."""

    tried: dict[Endpoint, FailedAttempt] = field(default_factory=dict)


class LoadBalancedModel(LiteLLMModel):
    """A model over several endpoints.

    Args:
        endpoints: The endpoints.
        first: The model of one of them, whose target, traits and prices are used for all.
        capabilities: What all of them can do.
        identity: Part of every key in the run store.
        retrying: Retry policy after all have been tried.
        open_endpoint: Opens the model at an endpoint that was down.
    """

    def __init__(
        self,
        endpoints: EndpointPool,
        first: LiteLLMModel,
        capabilities: Capabilities,
        identity: str,
        retrying: RetryPolicy,
        open_endpoint: OpenEndpoint,
    ) -> None:
        limiter = ConcurrencyLimiter(sum(e.limiter.max_in_flight for e in endpoints.all))
        traits = first.traits.model_copy(update={"multi_sample": not capabilities.prompt_per_sample})
        super().__init__(first.target, first.wire, capabilities, traits, first.prices, limiter, identity)
        self.endpoints = endpoints
        self._retrying = retrying
        self._open_endpoint = open_endpoint

    def _new_attempts(self) -> _Attempts:
        return _Attempts(monotonic())

    async def _attempt(
        self, part: SampleBatch, run: tuple[int, ...], attempts: Attempts, listener: Listener | None
    ) -> AttemptResult:
        """One request to the best endpoint; a failure there is no reason to wait while others have not been tried."""
        assert isinstance(attempts, _Attempts)
        endpoint = await self._endpoint(part.request.prompt, attempts)
        if endpoint is None:
            verdict = self._verdict(attempts.tried)
            attempts.tried.clear()  # the verdict may be one of these failures, and is not retried
            return AttemptResult((), verdict)
        assert endpoint.model is not None
        left_out = self.capabilities.profile.left_out
        if left_out != endpoint.model.capabilities.profile.left_out:
            endpoint.model.leave_out(left_out)
        async with endpoint.limiter.slot() as queued:
            outcome = await endpoint.model.attempt(part, run, attempts.waited_s + queued, listener)
        attempts.waited_s = 0.0 if outcome.finished else attempts.waited_s + queued
        self._settle(endpoint, outcome.fault, attempts)
        return outcome

    async def _may_retry(self, fault: FailedAttempt, attempts: Attempts) -> bool:
        """Whether the failure was an endpoint's: the next attempt chooses another one, or waits."""
        assert isinstance(attempts, _Attempts)
        return fault in attempts.tried.values()

    def _settle(self, endpoint: Endpoint, fault: FailedAttempt | None, attempts: _Attempts) -> None:
        if fault is not None and (fault.retryable or fault.fatal):
            attempts.tried[endpoint] = fault
            endpoint.failed(monotonic(), fault)
        else:
            endpoint.succeeded()

    async def _endpoint(self, prompt: Prompt, attempts: _Attempts) -> Endpoint | None:
        """The endpoint of the next attempt, after a wait if none is usable; None if no attempt makes sense."""
        key = prompt_start_key(prompt) if self.target.settings.affinity else None
        while True:
            self._start_checks()
            endpoint = self.endpoints.choose(key, attempts.tried)
            if endpoint is not None:
                return endpoint
            began = monotonic()
            wait = self._wait(attempts, began)
            if wait is None:
                return None
            is_usable = False
            while not is_usable and (left := began + wait - monotonic()) > 0:
                await asyncio.sleep(min(left, POLL_S))
                self._start_checks()
                is_usable = not attempts.tried and self.endpoints.choose(None) is not None
            attempts.waited_s += monotonic() - began
            attempts.retries += not is_usable
            attempts.tried.clear()

    def _wait(self, attempts: _Attempts, now: float) -> float | None:
        """Seconds to wait until an endpoint may be usable; None if the request fails now."""
        endpoints = self.endpoints.all
        if all(e.is_down and isinstance(e.last_error, UserError) for e in endpoints):
            return None  # a refused key, or another model
        limited = [e.paused_until - now for e in endpoints if not e.is_down]
        if limited and not attempts.tried:
            wait = max(0.0, min(limited))
            return wait if now + wait - attempts.began <= self.target.settings.retry_s else None
        faults = attempts.tried.values() or [FailedAttempt(BackendUnavailable("no endpoint is usable"), retryable=True)]
        waits = [self._retrying.wait(f, attempts.retries, now - attempts.began, random.random) for f in faults]
        return min((w for w in waits if w is not None), default=None)

    def _start_checks(self) -> None:
        now = monotonic()
        for endpoint in self.endpoints.all:
            if endpoint.needs_check(now):
                endpoint.check = asyncio.create_task(self._check(endpoint))

    async def _check(self, endpoint: Endpoint) -> None:
        """Put an endpoint that is down back into use, if it answers and serves the same model."""
        try:
            model = await self._open_endpoint(endpoint)
        except ReasonError as e:
            endpoint.last_error = e
            endpoint.take_down(monotonic())
            return
        if endpoint.model is None:
            endpoint.model = model
        else:  # which may have responses in flight
            await model.aclose()
        endpoint.is_down = False

    def _verdict(self, tried: Mapping[Endpoint, FailedAttempt]) -> FailedAttempt:
        """The error for the caller from the failures at all endpoints."""
        faults = list(tried.values())
        has_all = len(faults) == len(self.endpoints.all)
        if has_all and all(f.fatal for f in faults):
            return faults[0]
        message = f"model {self.name!r}: no endpoint answers: {self.endpoints.describe_errors()}"
        limits = [f.error for f in faults if isinstance(f.error, RateLimited)]
        if has_all and len(limits) == len(faults):
            requested = [e.retry_after_s for e in limits if e.retry_after_s is not None]
            return FailedAttempt(RateLimited(message, retry_after_s=min(requested, default=None)))
        return FailedAttempt(BackendUnavailable(message, hint="check that a server is running at one of them"))

    async def score(self, prompt: Prompt, continuations: Sequence[str | tuple[int, ...]]) -> list[ScoredContinuation]:
        if not self.capabilities.scoring:
            raise CapabilityMissing("scoring", self.name)
        attempts = self._new_attempts()
        while (endpoint := await self._endpoint(prompt, attempts)) is not None:
            assert endpoint.model is not None
            try:
                scored = await endpoint.model.score(prompt, continuations)
            except BackendError as e:
                self._settle(endpoint, FailedAttempt(e, retryable=True), attempts)
            else:
                self._settle(endpoint, None, attempts)
                return scored
        raise self._verdict(attempts.tried).error

    async def measure_again(self) -> None:
        """See `MeasuresAgain`: every endpoint that can be reached."""
        models = [one.model for one in self.endpoints.all if one.model is not None]
        await self.gather([one.measure_again for one in models if isinstance(one, MeasuresAgain)])
        self._can = common_capabilities(models)

    async def aclose(self) -> None:
        """Cancel requests in flight and close all connections; idempotent."""
        self._tasks.update(e.check for e in self.endpoints.all if e.check is not None and not e.check.done())
        await super().aclose()
        for endpoint in self.endpoints.all:
            if endpoint.model is not None:
                await endpoint.model.aclose()


def common_capabilities(models: Sequence[LiteLLMModel]) -> Capabilities:
    """What all endpoints of a model can do: the least of each capability."""
    cans = [m.capabilities for m in models]
    names = Capabilities.model_fields.keys() - {"profile"}
    shared = {name: _least([getattr(can, name) for can in cans]) for name in names}
    profiles = [can.profile for can in cans]
    shared["profile"] = profiles[0].model_copy(
        update={name: frozenset.union(*(getattr(p, name) for p in profiles)) for name in _REFUSALS}
    )
    shared["prompt_per_sample"] = not all(m.traits.multi_sample for m in models)
    return cans[0].model_copy(update=shared)


_REFUSALS = ("refuses", "refuses_while_thinking", "left_out")


def _least(values: Sequence[Any]) -> Any:
    known = [value for value in values if value is not None]
    if not known or len(set(map(repr, known))) == 1:
        return known[0] if known else None
    return frozenset.intersection(*known) if isinstance(known[0], frozenset) else min(known)


OpenOne = Callable[[str, Settings, LimiterRegistry], Awaitable[LiteLLMModel]]
"""Opens a model at a single endpoint."""


async def load_endpoints(
    name: str, settings: Settings, limiters: LimiterRegistry, open_one: OpenOne
) -> LoadBalancedModel:
    """Load a model at each of its endpoints; one that cannot be reached is checked again while requests are made.

    Raises:
        UserError: Two endpoints serve different models, a key is missing or wrong, or one does not serve the model.
        BackendUnavailable: None can be reached.
    """
    provider_settings = find_settings(name, settings)
    listed = {one.api_base: one for one in provider_settings.endpoints}

    async def open_at(one: EndpointSettings) -> LiteLLMModel:
        single = provider_settings.model_copy(
            update={
                "endpoints": (),
                "api_base": one.api_base,
                "api_key_env": one.api_key_env or provider_settings.api_key_env,
                "concurrency": one.concurrency or provider_settings.concurrency,
                "max_retries": 0,  # another endpoint is tried instead
            }
        )
        model = await open_one(name, settings.model_copy(update={"providers": {name: single}}), limiters)
        model.endpoint_label = model.target.endpoint
        return model

    opened = await asyncio.gather(*map(open_at, listed.values()), return_exceptions=True)
    models = [m for m in opened if isinstance(m, LiteLLMModel)]
    try:
        failed = next((e for e in opened if isinstance(e, BaseException) and not isinstance(e, BackendError)), None)
        if failed is not None:
            raise failed
        if not models:
            faults = "; ".join(f"{address}: {fault}" for address, fault in zip(listed, opened, strict=True))
            raise BackendUnavailable(f"model {name!r}: no endpoint answers: {faults}", hint="is a server running?")
        for model in models[1:]:
            _require_equal(models[0], model)
    except BaseException:
        await asyncio.gather(*(model.aclose() for model in models))
        raise
    can = common_capabilities(models)
    endpoints = []
    for (address, one), result in zip(listed.items(), opened, strict=True):
        if isinstance(result, LiteLLMModel):
            endpoints.append(Endpoint(address, result.limiter, result))
        else:
            limiter = limiters.of(address, name, one.concurrency or provider_settings.concurrency)
            error = result if isinstance(result, Exception) else None
            endpoints.append(Endpoint(address, limiter, is_down=True, last_error=error))

    async def open_again(endpoint: Endpoint) -> LiteLLMModel:
        model = await open_at(listed[endpoint.address])
        try:
            _require_equal(models[0], model)
            _require_capabilities(can, model)
        except UserError:
            await model.aclose()
            raise
        endpoint.limiter = model.limiter
        return model

    # the weights if the endpoints report them, otherwise the addresses
    identities = sorted({m.identity for m in models} if all("=" in m.identity for m in models) else ())
    identity = "|".join(identities) or f"{name}@{'|'.join(sorted(listed))}"
    retrying = RetryPolicy(max_retries=provider_settings.max_retries, max_seconds=provider_settings.retry_s)
    return LoadBalancedModel(EndpointPool(endpoints), models[0], can, identity, retrying, open_again)


def _weights(model: LiteLLMModel) -> str | None:
    """The weights that a server reports under the name; None if it reports none."""
    _, has_weights, rest = model.identity.partition("=")
    return rest.partition("+vllm")[0].partition("+thinks")[0] if has_weights else None


def _require_equal(one: LiteLLMModel, other: LiteLLMModel) -> None:
    """Check that two endpoints serve the same model, as far as they report it."""
    a, b = one.capabilities, other.capabilities
    for what, first, second in (
        ("weights", _weights(one), _weights(other)),
        ("context length", a.context_tokens, b.context_tokens),
        ("thinking format (reasoning parser or chat template)", a.profile.digest, b.profile.digest),
    ):
        if first != second and (None not in (first, second) or what == "weights"):
            raise UserError(
                f"model {one.name!r}: endpoints differ in {what}: {one.target.endpoint} has {first}, "
                f"{other.target.endpoint} has {second}",
                hint="list endpoints of the same model, or configure each model under its own name",
            )


def _require_capabilities(can: Capabilities, model: LiteLLMModel) -> None:
    """Check that an endpoint has every capability that the others share."""
    own = model.capabilities
    names = Capabilities.model_fields.keys() - {"profile"}
    lacks = [n for n in sorted(names) if _least([getattr(can, n), getattr(own, n)]) != getattr(can, n)]
    if lacks:
        raise UserError(f"{model.target.endpoint} lacks capabilities of the other endpoints: {', '.join(lacks)}")
