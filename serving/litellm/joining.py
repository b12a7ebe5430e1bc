"""`open_endpoints`: several endpoints of one model, opened side by side and compared, behind one name."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ...core.errors import BackendError, BackendUnavailable, UserError
from ...core.settings import EndpointSettings, ProviderSettings, Settings
from ..model import Capabilities
from .endpoints import Endpoint, Endpoints
from .health import Health
from .limiter import Limiters
from .model import LiteLLMModel
from .retrying import Retrying
from .spread import SpreadModel, shared_by
from .traits import Traits

OpenOne = Callable[[str, Settings, Limiters], Awaitable[LiteLLMModel]]
"""Opens a model at a single endpoint."""


def settings_of(name: str, settings: Settings) -> ProviderSettings | None:
    """The settings under which a model string's endpoints are listed; None if it has but one."""
    chosen = settings.providers.get(name) or settings.providers.get(name.partition("/")[0])
    return chosen if chosen is not None and chosen.endpoints else None


async def open_endpoints(
    name: str, settings: Settings, chosen: ProviderSettings, limiters: Limiters, open_one: OpenOne
) -> SpreadModel:
    """Open a model at each of its endpoints.

    An endpoint that cannot be reached now is tried again later, and joins if it then serves the same.

    Args:
        name: The model string.
        settings: How providers are called.
        chosen: The provider's settings, with the endpoints.
        limiters: Limits shared with other models.
        open_one: Opens a single one.

    Raises:
        UserError: Two endpoints serve different models, a key is missing or wrong, or one does not serve the model.
        BackendUnavailable: None can be reached.
    """

    async def open_at(given: EndpointSettings) -> LiteLLMModel:
        single = chosen.model_copy(
            update={
                "endpoints": (),
                "api_base": given.api_base,
                "api_key_env": given.api_key_env or chosen.api_key_env,
                "concurrency": given.concurrency or chosen.concurrency,
                "max_retries": 0,  # another endpoint is tried instead
            }
        )
        model = await open_one(name, settings.model_copy(update={"providers": {name: single}}), limiters)
        model.mark = model.target.place
        return model

    tasks = [asyncio.ensure_future(open_at(e)) for e in chosen.endpoints]
    models: list[LiteLLMModel] = []
    try:
        opened = await asyncio.gather(*tasks, return_exceptions=True)
        models = [m for m in opened if isinstance(m, LiteLLMModel)]
        failed = next((e for e in opened if isinstance(e, BaseException) and not isinstance(e, BackendError)), None)
        if failed is not None:
            raise failed
        if not models:
            told = "; ".join(f"{e.api_base}: {fault}" for e, fault in zip(chosen.endpoints, opened, strict=True))
            raise BackendUnavailable(f"model {name!r}: no endpoint answers: {told}", hint="is a server running?")
        for model in models[1:]:
            _same(models[0], model)
        return _behind_one_name(name, chosen, opened, models, limiters, open_at)
    except BaseException:
        for task in tasks:
            task.cancel()
        left = await asyncio.gather(*tasks, return_exceptions=True)
        for model in [m for m in left if isinstance(m, LiteLLMModel)]:
            await model.aclose()
        raise


def _behind_one_name(
    name: str,
    chosen: ProviderSettings,
    opened: list[LiteLLMModel | BaseException],
    models: list[LiteLLMModel],
    limiters: Limiters,
    open_at: Callable[[EndpointSettings], Awaitable[LiteLLMModel]],
) -> SpreadModel:
    can = shared_by(models)
    traits = models[0].traits.model_copy(update={"many": all(m.traits.many for m in models)})
    given: dict[Endpoint, EndpointSettings] = {}
    members = Endpoints([])
    for one, model in zip(chosen.endpoints, opened, strict=True):
        limiter = limiters.of(one.api_base, name, one.concurrency or chosen.concurrency)
        endpoint = Endpoint(one.api_base, limiter, one.weight, Health(cooldown_s=chosen.cooldown_s))
        if isinstance(model, LiteLLMModel):
            endpoint.model, endpoint.limiter = model, model.limiter
        elif isinstance(model, BackendError):
            endpoint.health.failed(members.clock(), model, hard=True)
        given[endpoint] = one
    members.all = tuple(given)

    async def join(endpoint: Endpoint) -> None:
        model = await open_at(given[endpoint])
        try:
            _same(models[0], model)
            _no_less(model, can, traits)
        except UserError:
            await model.aclose()
            raise
        endpoint.model, endpoint.limiter = model, model.limiter

    retrying = Retrying(most=chosen.max_retries, seconds=chosen.retry_s)
    return SpreadModel(members, models[0], can, traits, retrying, _identity(name, chosen, models), join)


def _identity(name: str, chosen: ProviderSettings, models: list[LiteLLMModel]) -> str:
    """What the run store keys on: the weights where the endpoints tell them, else the endpoints themselves."""
    if all("=" in m.identity for m in models):
        return "|".join(sorted({m.identity for m in models}))
    return f"{name}@{'|'.join(sorted(e.api_base for e in chosen.endpoints))}"


def _weights(model: LiteLLMModel) -> str | None:
    """What a server says it serves under the name; None if it does not say."""
    _, told, rest = model.identity.partition("=")
    return rest.partition("+vllm")[0] if told else None


def _same(one: LiteLLMModel, other: LiteLLMModel) -> None:
    """Check that two endpoints serve the same model.

    Raises:
        UserError: They do not, as far as they say.
    """
    a, b = one.target.place, other.target.place
    hint = "list endpoints of one and the same model, or give each model a name of its own"
    if _weights(one) != _weights(other):
        raise UserError(
            f"model {one.name!r}: {a} serves {_weights(one)!r}, and {b} serves {_weights(other)!r}", hint=hint
        )
    lengths = one.capabilities.context_tokens, other.capabilities.context_tokens
    if None not in lengths and lengths[0] != lengths[1]:
        raise UserError(f"model {one.name!r}: {a} has a context of {lengths[0]} tokens, {b} of {lengths[1]}", hint=hint)


def _no_less(model: LiteLLMModel, can: Capabilities, traits: Traits) -> None:
    """Check that an endpoint that joins later can do what the model was opened with.

    Raises:
        UserError: It cannot.
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
            ("hooks", not can.hooks <= own.hooks),
            ("n in one request", traits.many and not model.traits.many),
        )
        if missing
    ]
    if lacks:
        raise UserError(f"{model.target.place} cannot do what the other endpoints can: {', '.join(lacks)}")
