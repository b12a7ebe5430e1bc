"""Load balancing: one model over several endpoints, each request to the minimum busy healthy one.

A request that fails for a reason that another endpoint may not have (a rate limit, a time-out, a broken stream, a
refused key) goes to another one at once, without its finished samples; a broken one only as `RetryPolicy` allows. When
all have been tried, it waits as a request to a single endpoint would.

LiteLLM's Router was tried first (1.110) and does not fit what `transport` reads: it returns its own wrapper of
LiteLLM's stream, which joins samples and invents finishes; an endpoint whose stream breaks off in the middle is not
cooled down; its count of concurrent requests is kept by callbacks of LiteLLM's own stream; the methods that only choose
are deprecated or new from one release to the next; and a call through it takes longer than through bare LiteLLM
(`benchmarks/backend_overhead.py`). So choice and health are ours, and LiteLLM keeps what it does for a single endpoint:
provider, address, key, prices and the mapping of parameters.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field

from ...core.errors import BackendError, BackendUnavailable, CapabilityMissing, RateLimited, ReasonError, UserError
from ...core.messages import Completion, Prompt, ScoredContinuation
from ...core.settings import EndpointSettings, ProviderSettings, Settings
from ..model import Capabilities, Listener
from .errors import FailedAttempt, RetryPolicy
from .limiter import ConcurrencyLimiter, LimiterRegistry
from .model import AttemptResult, LiteLLMModel, SampleBatch
from .prompt_cache import prompt_start_key
from .requests import RequestTraits

MAX_CONSECUTIVE_FAILURES = 3
"""Consecutive failures after which an endpoint is cooled down; fewer may be chance."""
MAX_COOLDOWN_S = 60.0
"""Maximum cool-down in seconds that the endpoint did not request."""


@dataclass
class EndpointHealth:
    """One endpoint's health, from the results of its requests. Pure: the time is an argument.

    After consecutive failures, or when it requests a pause, an endpoint is cooled down. Then a single request tries it;
    if that succeeds, it is used again, otherwise it is cooled down for twice as long.

    Attributes:
        cooldown_s: First cool-down in seconds.
        last_error: Error of its last failed request.
    """

    cooldown_s: float = 1.0
    last_error: Exception | None = None
    _row: int = 0
    _rests: int = 0
    _until: float | None = None
    _trying: bool = False

    def usable(self, now: float) -> bool:
        """Whether the next request may be sent to it."""
        return self._until is None or (now >= self._until and not self._trying)

    def due_s(self, now: float) -> float | None:
        """Seconds until it may be tried; None while a request is trying it."""
        if self._until is None:
            return 0.0
        return None if self._trying else max(0.0, self._until - now)

    def begin(self) -> bool:
        """A request is sent to it; returns whether the request tries an endpoint that was cooled down."""
        self._trying = tries = self._until is not None
        return tries

    def succeeded(self) -> None:
        """A request succeeded."""
        self._row = self._rests = 0
        self._until, self._trying = None, False

    def failed(self, now: float, error: Exception, *, rest_s: float | None = None, hard: bool = False) -> None:
        """A request failed because of the endpoint.

        Args:
            now: The time in seconds, by any monotonic clock.
            error: The error.
            rest_s: Pause in seconds that the endpoint requests; None if it requests none.
            hard: Whether the next request must fail too (a refused key), so that one failure is enough.
        """
        self.last_error = error
        tried, self._trying = self._trying, False
        if rest_s is not None:
            if rest_s > 0:
                self._until = max(self._until or 0.0, now + rest_s)
            elif tried:
                self._until = now
            return
        self._row += 1
        if self._until is not None and not tried:
            return  # it was in flight when the cool-down started, which is known already
        if tried or hard or self._row >= MAX_CONSECUTIVE_FAILURES:
            self._until = now + min(MAX_COOLDOWN_S, self.cooldown_s * 2.0 ** min(self._rests, 30))
            self._rests += 1

    def abandoned(self) -> None:
        """The request that tried it was cancelled: another one may try it."""
        self._trying = False


SLACK = 8
"""Requests that the endpoint of a prompt's beginning may have more than the minimum busy one and still be chosen."""


@dataclass(eq=False)
class Endpoint:
    """One endpoint.

    Attributes:
        address: Its address.
        limiter: Limit of its concurrent requests.
        weight: Its share of the requests relative to the others'.
        health: Its health.
        model: The model there; None until it was reached.
        excluded: Why it is never used: it serves another model.
    """

    address: str
    limiter: ConcurrencyLimiter
    weight: float = 1.0
    health: EndpointHealth = field(default_factory=EndpointHealth)
    model: LiteLLMModel | None = None
    excluded: str = ""
    _last: int = 0

    @property
    def load(self) -> float:
        """Its requests with one more, divided by its weight."""
        return (self.limiter.busy + 1) / self.weight


class EndpointPool:
    """Several endpoints of one model.

    Args:
        endpoints: The endpoints, at least one.
        clock: Monotonic seconds.
    """

    def __init__(self, endpoints: Sequence[Endpoint], clock: Callable[[], float] = time.monotonic) -> None:
        self.all = tuple(endpoints)
        self.clock = clock
        self._turn = 0
        self._news = asyncio.Event()

    def choose(self, key: str | None, without: Collection[Endpoint]) -> Endpoint | None:
        """The minimum busy usable endpoint, or that of the key if it is not much busier; None if none is usable.

        Args:
            key: Prompts with the same key go to the same endpoint where possible; None for no preference.
            without: Endpoints to skip.
        """
        now = self.clock()
        usable = [e for e in self.all if e not in without and not e.excluded and e.health.usable(now)]
        if not usable:
            return None
        provider_settings = min(usable, key=lambda e: (e.limiter.full, e.load, e._last))
        if key is not None:
            own = min(usable, key=lambda e: _rank(key, e))
            if own.limiter.busy <= provider_settings.limiter.busy + SLACK and not own.limiter.full:
                provider_settings = own
        self._turn += 1
        provider_settings._last = self._turn
        return provider_settings

    def due_s(self) -> float | None:
        """Seconds until the first endpoint may be tried; None if that depends on a request in flight."""
        now = self.clock()
        due = [s for e in self.all if not e.excluded and (s := e.health.due_s(now)) is not None]
        return min(due, default=None)

    def changed(self) -> None:
        """Wake the requests that wait for a change of an endpoint's health."""
        self._news.set()
        self._news = asyncio.Event()

    async def news(self, seconds: float) -> None:
        """Wait for such a change, for a limited number of seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return

    def account(self) -> str:
        """Each endpoint with the reason why it is not used, for messages."""
        return "; ".join(f"{e.address}: {e.excluded or e.health.last_error or 'not tried'}" for e in self.all)


def _rank(key: str, endpoint: Endpoint) -> float:
    """Rank of an endpoint for a key: the minimum wins, so that the loss of one endpoint moves only its own keys.

    Source: rendezvous hashing (Thaler and Ravishankar, 1998) with the weight w as -ln(u) / w, u uniform by the hash:
    the minimum falls on each endpoint in proportion to its weight.
    """
    digest = hashlib.sha256(f"{key}\n{endpoint.address}".encode()).digest()
    return -math.log((int.from_bytes(digest[:8], "big") + 1) / (2.0**64 + 1)) / endpoint.weight


Join = Callable[[Endpoint], Awaitable[None]]
"""Opens the model of an endpoint that could not be reached before; raises if it is not the one it should be."""


class LoadBalancedModel(LiteLLMModel):
    """A model over several endpoints.

    Args:
        endpoints: The endpoints.
        first: The model of one of them, whose target and prices are used for all.
        capabilities: What all of them can do.
        traits: How all of them take requests.
        retrying: Retry policy after all have been tried.
        identity: Part of every key in the run store.
        join: Loads the model of an endpoint that could not be reached before.
    """

    def __init__(
        self,
        endpoints: EndpointPool,
        first: LiteLLMModel,
        capabilities: Capabilities,
        traits: RequestTraits,
        retrying: RetryPolicy,
        identity: str,
        join: Join,
    ) -> None:
        everything = ConcurrencyLimiter(sum(e.limiter.max_in_flight for e in endpoints.all))
        super().__init__(first.target, first.wire, capabilities, traits, first.prices, everything, identity)
        self._retrying = retrying
        self.endpoints = endpoints
        self._join = join

    async def _make(
        self, part: SampleBatch, done: dict[tuple[int, int], Completion], listener: Listener | None
    ) -> ReasonError | None:
        clock, began = self.endpoints.clock, self.endpoints.clock()
        key = prompt_start_key(part.request.prompt) if self.target.settings.affinity else None
        waited, retries = 0.0, 0
        error: ReasonError | None = None
        tried: dict[Endpoint, FailedAttempt] = {}
        while left := part.left(done):
            endpoint = self.endpoints.choose(key, tried)
            if endpoint is None:
                wait = await self._rest(tried, retries, clock() - began)
                if wait is None:
                    return await self._give_up(part, left, self._verdict(tried), done, listener)
                waited += wait
                retries += bool(tried)
                tried.clear()
                continue
            outcome, queued = await self._at(endpoint, part, part.next_run(left), waited, listener)
            waited = 0.0 if outcome.finished else waited + queued
            error = await self._record(part, outcome, done, listener) or error
            left = part.left(done)
            if not left:
                break
            if outcome.short:
                return await self._one_by_one(part, left, done, listener) or error
            if outcome.fault is None:
                continue
            if not outcome.fault.retryable and not outcome.fault.fatal:
                return await self._give_up(part, left, outcome.fault, done, listener)
            tried[endpoint] = outcome.fault
        return error

    async def _at(
        self, endpoint: Endpoint, part: SampleBatch, run: tuple[int, ...], waited: float, listener: Listener | None
    ) -> tuple[AttemptResult, float]:
        """One attempt at one endpoint, and the seconds waited for its limiter."""
        health = endpoint.health
        health.begin()
        settled = False
        try:
            async with endpoint.limiter.slot() as queued:
                outcome = AttemptResult((), await self._joined(endpoint) if endpoint.model is None else None)
                if endpoint.model is not None:
                    outcome = await endpoint.model.attempt(part, run, waited + queued, listener)
            fault = outcome.fault
            if fault is not None and (fault.retryable or fault.fatal):
                requested = fault.error.retry_after_s if isinstance(fault.error, RateLimited) else None
                health.failed(self.endpoints.clock(), fault.error, rest_s=requested, hard=fault.fatal)
            else:
                health.succeeded()
            settled = True
            return outcome, queued
        finally:
            if not settled:
                health.abandoned()
            self.endpoints.changed()

    async def _joined(self, endpoint: Endpoint) -> FailedAttempt | None:
        """Load the model of an endpoint that could not be reached before; the failure if it still cannot."""
        try:
            await self._join(endpoint)
        except BackendError as e:
            return FailedAttempt(e, retryable=True)
        except ReasonError as e:
            endpoint.excluded = str(e)
            return FailedAttempt(e, fatal=True)
        return None

    async def _rest(self, tried: dict[Endpoint, FailedAttempt], retries: int, elapsed_s: float) -> float | None:
        """Wait until the next attempt; returns the seconds waited, or None if no attempt makes sense."""
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

    def _verdict(self, tried: dict[Endpoint, FailedAttempt]) -> FailedAttempt:
        """The error for the caller from the failures at all endpoints."""
        faults = list(tried.values())
        if faults and all(f.fatal for f in faults) and len(tried) == len(self.endpoints.all):
            return faults[0]
        streamed = f"model {self.name!r}: no endpoint answers: {self.endpoints.account()}"
        limits = [f.error for f in faults if isinstance(f.error, RateLimited)]
        if limits and len(limits) == len(self.endpoints.all):
            requested = [e.retry_after_s for e in limits if e.retry_after_s is not None]
            return FailedAttempt(RateLimited(streamed, retry_after_s=min(requested, default=None)))
        return FailedAttempt(BackendUnavailable(streamed, hint="is a server running at one of them?"))

    async def score(self, prompt: Prompt, continuations: Sequence[str | tuple[int, ...]]) -> list[ScoredContinuation]:
        if not self.capabilities.scoring:
            raise CapabilityMissing("scoring", self.name)
        key = prompt_start_key(prompt) if self.target.settings.affinity else None
        tried: dict[Endpoint, FailedAttempt] = {}
        began, retries = self.endpoints.clock(), 0
        while True:
            endpoint = self.endpoints.choose(key, tried)
            if endpoint is not None:
                try:
                    return await self._scored(endpoint, prompt, continuations)
                except BackendError as e:
                    tried[endpoint] = FailedAttempt(e, retryable=True)
                continue
            if await self._rest(tried, retries, self.endpoints.clock() - began) is None:
                raise self._verdict(tried).error
            retries += bool(tried)
            tried.clear()

    async def _scored(
        self, endpoint: Endpoint, prompt: Prompt, continuations: Sequence[str | tuple[int, ...]]
    ) -> list[ScoredContinuation]:
        health = endpoint.health
        health.begin()
        try:
            if endpoint.model is None:
                await self._join(endpoint)
            assert endpoint.model is not None
            scored = await endpoint.model.score(prompt, continuations)
        except BackendError as e:
            requested = e.retry_after_s if isinstance(e, RateLimited) else None
            health.failed(self.endpoints.clock(), e, rest_s=requested)
            raise
        except BaseException:
            health.abandoned()
            raise
        finally:
            self.endpoints.changed()
        health.succeeded()
        return scored

    async def aclose(self) -> None:
        """Cancel requests in flight and close all connections; idempotent."""
        await super().aclose()
        for endpoint in self.endpoints.all:
            if endpoint.model is not None:
                await endpoint.model.aclose()


def common_capabilities(models: Sequence[LiteLLMModel]) -> Capabilities:
    """What all endpoints of a model can do: the minimum of each capability."""
    cans = [m.capabilities for m in models]
    contexts = [c.context_tokens for c in cans if c.context_tokens is not None]
    first = cans[0]
    profile = first.profile.model_copy(
        update={
            "refuses": frozenset.union(*(c.profile.refuses for c in cans)),
            "refuses_while_thinking": frozenset.union(*(c.profile.refuses_while_thinking for c in cans)),
        }
    )
    return first.model_copy(
        update={
            "profile": profile,
            "logprobs": all(c.logprobs for c in cans),
            "top_logprobs": min(c.top_logprobs for c in cans),
            "scoring": all(c.scoring for c in cans),
            "prefix": all(c.prefix for c in cans),
            "json_schema": all(c.json_schema for c in cans),
            "tools": all(c.tools for c in cans),
            "seed": all(c.seed for c in cans),
            "logits_processors": frozenset.intersection(*(c.logits_processors for c in cans)),
            "prompt_per_sample": any(c.prompt_per_sample for c in cans),
            "context_tokens": min(contexts, default=None),
        }
    )


OpenOne = Callable[[str, Settings, LimiterRegistry], Awaitable[LiteLLMModel]]
"""Opens a model at a single endpoint."""


def endpoint_settings(name: str, settings: Settings) -> ProviderSettings | None:
    """The settings that list a model string's endpoints; None if it has only one."""
    provider_settings = settings.providers.get(name) or settings.providers.get(name.partition("/")[0])
    return provider_settings if provider_settings is not None and provider_settings.endpoints else None


async def load_endpoints(
    name: str, settings: Settings, provider_settings: ProviderSettings, limiters: LimiterRegistry, open_one: OpenOne
) -> LoadBalancedModel:
    """Load a model at each of its endpoints.

    An endpoint that cannot be reached is tried again later, and joins if it then serves the same model.

    Args:
        name: The model string.
        settings: Settings of the providers.
        provider_settings: The provider's settings, with the endpoints.
        limiters: Limiters shared with other models.
        open_one: Loads a model at a single endpoint.

    Raises:
        UserError: Two endpoints serve different models, a key is missing or wrong, or one does not serve the model.
        BackendUnavailable: None can be reached.
    """

    async def open_at(endpoint_settings_by_endpoint: EndpointSettings) -> LiteLLMModel:
        single = provider_settings.model_copy(
            update={
                "endpoints": (),
                "api_base": endpoint_settings_by_endpoint.api_base,
                "api_key_env": endpoint_settings_by_endpoint.api_key_env or provider_settings.api_key_env,
                "concurrency": endpoint_settings_by_endpoint.concurrency or provider_settings.concurrency,
                "max_retries": 0,  # another endpoint is tried instead
            }
        )
        model = await open_one(name, settings.model_copy(update={"providers": {name: single}}), limiters)
        model.endpoint_label = model.target.endpoint
        return model

    tasks = [asyncio.ensure_future(open_at(e)) for e in provider_settings.endpoints]
    models: list[LiteLLMModel] = []
    try:
        opened = await asyncio.gather(*tasks, return_exceptions=True)
        models = [m for m in opened if isinstance(m, LiteLLMModel)]
        failed = next((e for e in opened if isinstance(e, BaseException) and not isinstance(e, BackendError)), None)
        if failed is not None:
            raise failed
        if not models:
            streamed = "; ".join(
                f"{e.api_base}: {fault}" for e, fault in zip(provider_settings.endpoints, opened, strict=True)
            )
            raise BackendUnavailable(f"model {name!r}: no endpoint answers: {streamed}", hint="is a server running?")
        for model in models[1:]:
            _same(models[0], model)
        return _behind_one_name(name, provider_settings, opened, models, limiters, open_at)
    except BaseException:
        for task in tasks:
            task.cancel()
        left = await asyncio.gather(*tasks, return_exceptions=True)
        for model in [m for m in left if isinstance(m, LiteLLMModel)]:
            await model.aclose()
        raise


def _behind_one_name(
    name: str,
    provider_settings: ProviderSettings,
    opened: list[LiteLLMModel | BaseException],
    models: list[LiteLLMModel],
    limiters: LimiterRegistry,
    open_at: Callable[[EndpointSettings], Awaitable[LiteLLMModel]],
) -> LoadBalancedModel:
    can = common_capabilities(models)
    traits = models[0].traits.model_copy(update={"multi_sample": all(m.traits.multi_sample for m in models)})
    endpoint_settings_by_endpoint: dict[Endpoint, EndpointSettings] = {}
    members = EndpointPool([])
    for one, model in zip(provider_settings.endpoints, opened, strict=True):
        limiter = limiters.of(one.api_base, name, one.concurrency or provider_settings.concurrency)
        endpoint = Endpoint(one.api_base, limiter, one.weight, EndpointHealth(cooldown_s=provider_settings.cooldown_s))
        if isinstance(model, LiteLLMModel):
            endpoint.model, endpoint.limiter = model, model.limiter
        elif isinstance(model, BackendError):
            endpoint.health.failed(members.clock(), model, hard=True)
        endpoint_settings_by_endpoint[endpoint] = one
    members.all = tuple(endpoint_settings_by_endpoint)

    async def join(endpoint: Endpoint) -> None:
        model = await open_at(endpoint_settings_by_endpoint[endpoint])
        try:
            _same(models[0], model)
            _no_less(model, can, traits)
        except UserError:
            await model.aclose()
            raise
        endpoint.model, endpoint.limiter = model, model.limiter

    retrying = RetryPolicy(max_retries=provider_settings.max_retries, max_seconds=provider_settings.retry_s)
    return LoadBalancedModel(
        members, models[0], can, traits, retrying, _identity(name, provider_settings, models), join
    )


def _identity(name: str, provider_settings: ProviderSettings, models: list[LiteLLMModel]) -> str:
    """Identity of the model: its weights if the endpoints report them, otherwise the endpoints' addresses."""
    if all("=" in m.identity for m in models):
        return "|".join(sorted({m.identity for m in models}))
    return f"{name}@{'|'.join(sorted(e.api_base for e in provider_settings.endpoints))}"


def _weights(model: LiteLLMModel) -> str | None:
    """The weights that a server reports under the name; None if it reports none."""
    _, streamed, rest = model.identity.partition("=")
    return rest.partition("+vllm")[0] if streamed else None


def _same(one: LiteLLMModel, other: LiteLLMModel) -> None:
    """Check that two endpoints serve the same model, as far as they report it.

    Raises:
        UserError: They do not.
    """
    a, b = one.target.endpoint, other.target.endpoint
    hint = "list endpoints of one and the same model, or give each model a name of its own"
    if _weights(one) != _weights(other):
        raise UserError(
            f"model {one.name!r}: {a} serves {_weights(one)!r}, and {b} serves {_weights(other)!r}", hint=hint
        )
    thinks = one.capabilities.profile.digest, other.capabilities.profile.digest
    if thinks[0] != thinks[1]:
        raise UserError(
            f"model {one.name!r}: {a} and {b} show its thoughts differently (reasoning parser or chat template)",
            hint="start both servers alike, or describe the model under [profiles]",
        )
    lengths = one.capabilities.context_tokens, other.capabilities.context_tokens
    if None not in lengths and lengths[0] != lengths[1]:
        raise UserError(f"model {one.name!r}: {a} has a context of {lengths[0]} tokens, {b} of {lengths[1]}", hint=hint)


def _no_less(model: LiteLLMModel, can: Capabilities, traits: RequestTraits) -> None:
    """Check that an endpoint that joins later has the capabilities of the others.

    Raises:
        UserError: It does not.
    """
    own = model.capabilities
    lacks = [
        feature
        for feature, missing in (
            ("logprobs", can.logprobs and not own.logprobs),
            ("top_logprobs", own.top_logprobs < can.top_logprobs),
            ("scoring", can.scoring and not own.scoring),
            ("prefix", can.prefix and not own.prefix),
            ("json_schema", can.json_schema and not own.json_schema),
            ("tools", can.tools and not own.tools),
            ("seed", can.seed and not own.seed),
            ("logits processors", not can.logits_processors <= own.logits_processors),
            ("the same thoughts", can.profile.digest != own.profile.digest),
            ("n in one request", traits.multi_sample and not model.traits.multi_sample),
        )
        if missing
    ]
    if lacks:
        raise UserError(f"{model.target.endpoint} cannot do what the other endpoints can: {', '.join(lacks)}")
