"""Load balancing: one model over several endpoints, each request to the healthy one with the least outstanding tokens.

A request that fails for a reason that another endpoint may not have (a rate limit, a time-out, a broken stream, a
refused key) goes to another one at once, without its finished samples; a broken one only as `RetryPolicy` allows. When
all have been tried, it waits as a request to a single endpoint would.

While requests are made, each vLLM server's health page is read in the background, and a server that could not be
reached is opened there, so that no request waits for one that is down, starts or is taken out of service. A server that
comes back is used once it still serves the same model.

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
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from pydantic_core import from_json

from ...core.concurrency import PerLoop
from ...core.errors import BackendError, BackendUnavailable, CapabilityMissing, RateLimited, ReasonError, UserError
from ...core.messages import Chunk, Completion, Prompt, ScoredContinuation
from ...core.settings import EndpointSettings, ProviderSettings, Settings
from ..model import Capabilities, Listener
from .errors import ErrorResponse, FailedAttempt, RetryPolicy, classify_error
from .limiter import ConcurrencyLimiter, LimiterRegistry, OutstandingTokens
from .model import AttemptResult, LiteLLMModel, SampleBatch
from .probing import find_served_model
from .prompt_cache import prompt_start_key
from .providers import BYTES_PER_TOKEN
from .requests import RequestTraits, max_response_tokens
from .vllm_server import root

MAX_CONSECUTIVE_FAILURES = 3
"""Consecutive failures after which an endpoint is cooled down; fewer may be chance."""
MAX_COOLDOWN_S = 60.0
"""Maximum cool-down in seconds that the endpoint did not request."""
CHECK_TIMEOUT_S = 5.0
"""Maximum wait for a health page in seconds."""
MAX_MISSED_CHECKS = 3
"""Checks that a ready endpoint may have missed, as when there were no requests, before its model is looked at again."""


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
"""How many times a request's own tokens the endpoint of its prompt's beginning may have outstanding beyond the least
loaded one and still be chosen: elsewhere, its prompt may have to be computed again."""


MAX_PLACED = 4096
"""Prompt beginnings whose endpoints are remembered."""


@dataclass(eq=False)
class Endpoint:
    """One endpoint.

    Attributes:
        address: Its address.
        limiter: Limit of its concurrent requests, with their outstanding tokens.
        weight: Its share of the tokens relative to the others'.
        health: Its health by the results of requests.
        model: The model there; None until it was reached.
        unready: Why it takes no requests, by its last check; empty if it does.
        silent: Whether its last check got no answer in time, so that it is used only if no other can be.
        excluded: Why it is not used: it serves another model.
        checked_at: When its last check ended.
        check: Its last check.
    """

    address: str
    limiter: ConcurrencyLimiter
    weight: float = 1.0
    health: EndpointHealth = field(default_factory=EndpointHealth)
    model: LiteLLMModel | None = None
    unready: str = ""
    silent: bool = False
    excluded: str = ""
    checked_at: float = -math.inf
    check: asyncio.Task[None] | None = None
    _last: int = 0

    def load(self, tokens: int) -> float:
        """Its outstanding tokens with those of one more request, divided by its weight."""
        return (self.limiter.tokens + tokens) / self.weight

    @property
    def is_ready(self) -> bool:
        """Whether it takes requests by its last check."""
        return not self.unready and not self.excluded

    def needs_check(self, now: float) -> bool:
        """Whether it is time for a check, and there is something to check."""
        if self.check is not None and not self.check.done() and not self.check.get_loop().is_closed():
            return False
        pause = MAX_COOLDOWN_S if self.excluded else self.health.cooldown_s
        return now >= self.checked_at + pause and (self.model is None or self.model.target.vllm)


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
        self._placed: dict[str, Endpoint] = {}
        self._news = PerLoop(asyncio.Event)

    def choose(self, key: str | None, tokens: int, without: Collection[Endpoint]) -> Endpoint | None:
        """The least loaded usable endpoint, or that of the key if it has not much more; None if none is usable.

        A key is placed by its rank if that endpoint has no more than one such request beyond the least loaded one, else
        at that one, so that few keys are spread too; it then stays where it is.

        Args:
            key: Prompts with the same key go to the same endpoint where possible; None for no preference.
            tokens: The request's tokens: its prompt and the maximum of its samples.
            without: Endpoints to skip.
        """
        now = self.clock()
        usable = [e for e in self.all if e not in without and e.is_ready and e.health.usable(now)]
        usable = [e for e in usable if not e.silent] or usable
        if not usable:
            return None
        chosen = min(usable, key=lambda e: (e.limiter.full, e.load(tokens), e._last))
        if key is not None:
            own = self._placed.pop(key, None)
            is_new = own is None or own not in usable
            if own is None or is_new:
                own = min(usable, key=lambda e: _rank(key, e))
            slack = (1 if is_new else SLACK) * tokens / own.weight
            if not own.limiter.full and own.load(tokens) <= chosen.load(tokens) + slack:
                chosen = own
            self._placed[key] = chosen if is_new else own
            if len(self._placed) > MAX_PLACED:
                del self._placed[next(iter(self._placed))]
        self._turn += 1
        chosen._last = self._turn
        return chosen

    @property
    def is_down(self) -> bool:
        """Whether no endpoint takes requests by its last check."""
        return not any(e.is_ready for e in self.all)

    def due_s(self) -> float | None:
        """Seconds until the first endpoint may be tried; None if that depends on a request in flight."""
        now = self.clock()
        due = [s for e in self.all if e.is_ready and (s := e.health.due_s(now)) is not None]
        return min(due, default=None)

    def changed(self) -> None:
        """Wake the requests of this event loop that wait for a change of an endpoint's health."""
        self._news.get().set()
        self._news.get().clear()

    async def news(self, seconds: float) -> None:
        """Wait for such a change, for a limited number of seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.get().wait()
        except TimeoutError:
            return

    def account(self) -> str:
        """Each endpoint with the reason why it is not used, for messages."""
        return "; ".join(
            f"{e.address}: {e.excluded or e.unready or e.health.last_error or 'not tried'}" for e in self.all
        )


def _rank(key: str, endpoint: Endpoint) -> float:
    """Rank of an endpoint for a key: the minimum wins, so that the loss of one endpoint moves only its own keys.

    Source: rendezvous hashing (Thaler and Ravishankar, 1998) with the weight w as -ln(u) / w, u uniform by the hash:
    the minimum falls on each endpoint in proportion to its weight.
    """
    digest = hashlib.sha256(f"{key}\n{endpoint.address}".encode()).digest()
    return -math.log((int.from_bytes(digest[:8], "big") + 1) / (2.0**64 + 1)) / endpoint.weight


Join = Callable[[Endpoint], Awaitable[None]]
"""Opens the model of an endpoint that could not be reached before; raises if it is not the one it should be."""


@dataclass
class _Attempts:
    """The attempts of one request.

    Attributes:
        began: When the first began.
        tried: The failures since the last wait, by endpoint.
        retries: How many waits there were after all had failed.
    """

    began: float
    tried: dict[Endpoint, FailedAttempt] = field(default_factory=dict)
    retries: int = 0


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
        self,
        part: SampleBatch,
        done: dict[tuple[int, int], Completion],
        listener: Listener | None,
        tried: Mapping[Endpoint, FailedAttempt] | None = None,
    ) -> ReasonError | None:
        attempts = _Attempts(self.endpoints.clock(), dict(tried or {}))
        waited = 0.0
        error: ReasonError | None = None
        while left := part.left(done):
            if part.has_several_broken(left):
                make = partial(self._make, tried=attempts.tried)
                return await self._one_by_one(part, left, done, listener, make) or error
            run = part.next_run(left)
            prompt, samples = self._tokens_of(part, run)
            endpoint = self._choose(part.request.prompt, prompt + samples, attempts)
            if endpoint is None:
                wait = await self._rest(attempts)
                if wait is None:
                    return await self._give_up(part, left, self._verdict(attempts.tried), done, listener)
                waited += wait
                continue
            with endpoint.limiter.outstanding(prompt, samples) as outstanding:
                counting = partial(_count, outstanding, listener)
                outcome, queued = await self._at(endpoint, part, run, waited, counting)
            waited = 0.0 if outcome.finished else waited + queued
            error = await self._record(part, outcome, done, listener) or error
            left = part.left(done)
            if not left:
                break
            if outcome.short:
                self._never_several()
                return await self._one_by_one(part, left, done, listener) or error
            if outcome.fault is None:
                continue
            if not outcome.fault.retryable and not outcome.fault.fatal:
                return await self._give_up(part, left, outcome.fault, done, listener)
            attempts.tried[endpoint] = outcome.fault
        return error

    def _tokens_of(self, part: SampleBatch, run: Sequence[int]) -> tuple[int, int]:
        """About how many tokens a request has: those of its prompt, and the maximum of its samples."""
        received = sum(part.broken[i].received for i in run if i in part.broken)
        samples = len(run) * max_response_tokens(part.request, self.capabilities.profile) - received
        return prompt_tokens(part.request.prompt) + received, max(samples, 0)

    async def _at(
        self, endpoint: Endpoint, part: SampleBatch, run: tuple[int, ...], waited: float, listener: Listener
    ) -> tuple[AttemptResult, float]:
        """One attempt at one endpoint, and the seconds waited for its limiter."""
        assert endpoint.model is not None
        with self._in_flight(endpoint) as settle:
            async with endpoint.limiter.slot() as queued:
                outcome = await endpoint.model.attempt(part, run, waited + queued, listener)
            fault = outcome.fault
            settle(fault if fault is not None and (fault.retryable or fault.fatal) else None)
            return outcome, queued

    @contextmanager
    def _in_flight(self, endpoint: Endpoint) -> Iterator[Callable[[FailedAttempt | None], None]]:
        """Account for a request to an endpoint; gives the function that takes its failure, or None for a success."""
        health, clock = endpoint.health, self.endpoints.clock
        health.begin()
        settled = False

        def settle(fault: FailedAttempt | None) -> None:
            nonlocal settled
            settled = True
            if fault is None:
                health.succeeded()
                return
            requested = fault.error.retry_after_s if isinstance(fault.error, RateLimited) else None
            health.failed(clock(), fault.error, rest_s=requested, hard=fault.fatal)
            if requested is None:
                endpoint.checked_at = -math.inf  # at once

        try:
            yield settle
        finally:
            if not settled:
                health.abandoned()
            self.endpoints.changed()

    # -- choice and health

    def _choose(self, prompt: Prompt, tokens: int, attempts: _Attempts) -> Endpoint | None:
        """The endpoint of the next attempt; None if none can be used now."""
        self._start_checks()
        key = prompt_start_key(prompt) if self.target.settings.affinity else None
        return self.endpoints.choose(key, tokens, attempts.tried)

    def _start_checks(self) -> None:
        """Check, in the background, each endpoint whose last check is old."""
        now = self.endpoints.clock()
        for endpoint in self.endpoints.all:
            if endpoint.needs_check(now):
                endpoint.check = asyncio.create_task(self._check(endpoint))

    async def _check(self, endpoint: Endpoint) -> None:
        """Find out whether an endpoint takes requests, and still serves the model after it may have restarted."""
        was_ready = endpoint.is_ready
        unready = excluded = ""
        silent = False
        try:
            if endpoint.model is None:
                await self._join(endpoint)
            else:
                await _require_ready(endpoint.model)
                pause = self.endpoints.clock() - endpoint.checked_at
                if not was_ready or pause > MAX_MISSED_CHECKS * endpoint.health.cooldown_s:
                    await _require_same(endpoint.model)
        except TimeoutError:
            silent, unready = True, endpoint.unready
        except (BackendError, ValueError) as e:  # or its page of models is no JSON
            unready = str(e)
        except ReasonError as e:
            excluded = str(e)
        finally:
            endpoint.checked_at = self.endpoints.clock()
        endpoint.unready, endpoint.silent, endpoint.excluded = unready, silent, excluded
        if endpoint.is_ready and not was_ready:
            endpoint.health.succeeded()
        self.endpoints.changed()

    async def _rest(self, attempts: _Attempts) -> float | None:
        """Wait until the next attempt; returns the seconds waited, or None if no attempt makes sense."""
        if all(e.excluded for e in self.endpoints.all):
            return None
        clock = self.endpoints.clock
        began = clock()
        if attempts.tried or self.endpoints.is_down:
            down = FailedAttempt(BackendUnavailable(f"model {self.name!r}: no endpoint takes requests"), retryable=True)
            faults = attempts.tried.values() or [down]
            elapsed = began - attempts.began
            waits = [self._retrying.wait(f, attempts.retries, elapsed, self._draw) for f in faults]
            wait = min((w for w in waits if w is not None), default=None)
            if wait is None:
                return None
            if attempts.tried:
                await asyncio.sleep(wait)
            while self.endpoints.is_down and (left := began + wait - clock()) > 0:
                self._start_checks()
                await self.endpoints.news(min(left, self.target.settings.cooldown_s))
            attempts.retries += 1
            attempts.tried.clear()
            return clock() - began
        patience = self.target.settings.retry_s - (began - attempts.began)
        due = self.endpoints.due_s()
        if patience <= 0 or (due is not None and due > patience):
            return None
        unchecked = math.inf if all(e.is_ready for e in self.endpoints.all) else self.target.settings.cooldown_s
        await self.endpoints.news(min(patience if due is None else due, unchecked))
        return clock() - began

    def _verdict(self, tried: Mapping[Endpoint, FailedAttempt]) -> FailedAttempt:
        """The error for the caller from the failures at all endpoints."""
        faults = list(tried.values())
        if faults and all(f.fatal for f in faults) and len(tried) == len(self.endpoints.all):
            return faults[0]
        message = f"model {self.name!r}: no endpoint answers: {self.endpoints.account()}"
        limits = [f.error for f in faults if isinstance(f.error, RateLimited)]
        if limits and len(limits) == len(self.endpoints.all):
            requested = [e.retry_after_s for e in limits if e.retry_after_s is not None]
            return FailedAttempt(RateLimited(message, retry_after_s=min(requested, default=None)))
        return FailedAttempt(BackendUnavailable(message, hint="is a server running at one of them?"))

    async def score(self, prompt: Prompt, continuations: Sequence[str | tuple[int, ...]]) -> list[ScoredContinuation]:
        if not self.capabilities.scoring:
            raise CapabilityMissing("scoring", self.name)
        attempts = _Attempts(self.endpoints.clock())
        tokens = len(continuations) * prompt_tokens(prompt)
        while True:
            endpoint = self._choose(prompt, tokens, attempts)
            if endpoint is None:
                if await self._rest(attempts) is None:
                    raise self._verdict(attempts.tried).error
                continue
            assert endpoint.model is not None
            with endpoint.limiter.outstanding(tokens, 0), self._in_flight(endpoint) as settle:
                try:
                    scored = await endpoint.model.score(prompt, continuations)
                except BackendError as e:
                    attempts.tried[endpoint] = FailedAttempt(e, retryable=True)
                    settle(attempts.tried[endpoint])
                else:
                    settle(None)
                    return scored

    async def aclose(self) -> None:
        """Cancel requests in flight and close all connections; idempotent."""
        self._tasks.update(e.check for e in self.endpoints.all if e.check is not None and not e.check.done())
        await super().aclose()
        for endpoint in self.endpoints.all:
            if endpoint.model is not None:
                await endpoint.model.aclose()


def prompt_tokens(prompt: Prompt) -> int:
    """About how many tokens a prompt has, without a look at its characters."""
    size = len(prompt.text or "") + sum(len(message.content) for message in prompt.messages)
    if isinstance(prompt.prefix, str):
        return 1 + (size + len(prompt.prefix)) // BYTES_PER_TOKEN
    return 1 + size // BYTES_PER_TOKEN + len(prompt.prefix)


def _count(outstanding: OutstandingTokens, listener: Listener | None, chunk: Chunk) -> bool | None:
    """Take what a chunk has from the outstanding tokens, and tell the listener."""
    if chunk.completion is None and chunk.lost is None:
        outstanding.received(chunk.tokens or len(chunk.token_ids) or 1)
    return None if listener is None else listener(chunk)


async def _read_page(model: LiteLLMModel, path: str) -> bytes:
    """A page of a vLLM server; empty if it has none, as where a proxy does not pass it on or wants another key for it.

    Raises:
        BackendError: The server cannot be reached, or the page has a status of 500 or more.
        TimeoutError: It did not come in time.
    """
    client = model.wire.client
    assert client is not None
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            return await client.get_bytes(path)
    except TimeoutError:
        raise
    except Exception as e:
        if not isinstance(e, ErrorResponse) or e.status_code is None:
            raise classify_error(e, model.target).error from e
        if e.status_code >= 500:
            message = f"{model.target.endpoint} takes no requests: {path} has status {e.status_code}"
            raise BackendUnavailable(message) from e
        return b""


async def _require_ready(model: LiteLLMModel) -> None:
    """Check that a vLLM server takes requests. Errors as `_read_page`."""
    assert model.wire.client is not None
    await _read_page(model, root(model.wire.client) + "/health")


async def _require_same(model: LiteLLMModel) -> None:
    """Check that a vLLM server still lists the model that was opened there.

    Raises:
        BackendError: As `_read_page`.
        TimeoutError: As `_read_page`.
        UnknownName: It lists other names.
        UserError: It has other weights or another context under the name.
    """
    page = await _read_page(model, "/models")
    listed = from_json(page).get("data") if page else None
    if not listed:
        return
    entry = find_served_model(listed, model.target)
    known, served = _weights(model), entry.get("root")
    if known is not None and served and str(served) != known:
        raise UserError(f"model {model.name!r}: {model.target.endpoint} served {known!r}, and now serves {served!r}")
    length, now = model.capabilities.context_tokens, entry.get("max_model_len")
    if length is not None and isinstance(now, int) and now != length:
        raise UserError(
            f"model {model.name!r}: {model.target.endpoint} had a context of {length} tokens, and now has {now}"
        )


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

    An endpoint that cannot be reached is tried again while requests are made, and joins if it serves the same model.

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

    tasks = [asyncio.ensure_future(open_at(e)) for e in provider_settings.endpoints]
    models: list[LiteLLMModel] = []
    try:
        opened = await asyncio.gather(*tasks, return_exceptions=True)
        models = [m for m in opened if isinstance(m, LiteLLMModel)]
        failed = next((e for e in opened if isinstance(e, BaseException) and not isinstance(e, BackendError)), None)
        if failed is not None:
            raise failed
        if not models:
            faults = "; ".join(f"{e.api_base}: {f}" for e, f in zip(provider_settings.endpoints, opened, strict=True))
            raise BackendUnavailable(f"model {name!r}: no endpoint answers: {faults}", hint="is a server running?")
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
            endpoint.unready = str(model)
        endpoint.checked_at = members.clock()
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
    _, has_weights, rest = model.identity.partition("=")
    return rest.partition("+vllm")[0].partition("+thinks")[0] if has_weights else None


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
