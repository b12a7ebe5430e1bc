"""`load_litellm_model`: from a model string to a `LiteLLMModel` with its capabilities declared or measured."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from ...core.errors import BackendError, InvalidResponse
from ...core.settings import Settings
from ..model import Capabilities
from ..profiles.profile import ModelProfile
from .endpoints import endpoint_settings, load_endpoints
from .limiter import LimiterRegistry
from .model import LiteLLMModel
from .probing import MOST_TOP, find_served_model, list_served_models, probe_capabilities
from .profiles import provider_profile
from .providers import Prices, Target, find_prices, find_target, load_litellm, map_entry
from .requests import RequestTraits
from .transport import Transport
from .vllm_server import version

OTHERS_TOP = 5
"""Alternatives that providers with another limit than OpenAI's are trusted to show."""


async def load_litellm_model(name: str, settings: Settings, limiters: LimiterRegistry | None = None) -> LiteLLMModel:
    """Find a model's provider and its capabilities.

    A server at an `api_base` is probed with a few tokens; of a provider's own service nothing is requested, and the
    capabilities are those that LiteLLM documents. Of several endpoints, each is loaded.

    Args:
        name: The model string, for example `openai/gpt-4o-mini` or `hosted_vllm/qwen3`.
        settings: Settings of the providers.
        limiters: Limiters to share with other models; None gives the model its own.

    Raises:
        UnknownName: There is no such provider, or the server does not serve the model.
        UserError: Key or address are missing or wrong.
        BackendError: The server cannot be reached.
    """
    shared = limiters or LimiterRegistry()
    several = endpoint_settings(name, settings)
    if several is not None:
        return await load_endpoints(name, settings, several, shared, _open_one)
    return await _open_one(name, settings, shared)


async def _open_one(name: str, settings: Settings, limiters: LimiterRegistry) -> LiteLLMModel:
    target = await asyncio.to_thread(find_target, name, settings)
    prices, context = find_prices(target)
    wire = Transport(target)
    try:
        return await _open(target, wire, prices, context, limiters, settings)
    except BaseException:
        await wire.aclose()
        raise


async def _open(
    target: Target,
    wire: Transport,
    prices: Prices,
    context: int | None,
    limiters: LimiterRegistry,
    settings: Settings,
) -> LiteLLMModel:
    limiter = limiters.of(target.endpoint, target.served, target.settings.concurrency)
    identity = target.name if target.settings.api_base is None else f"{target.name}@{target.api_base}"
    profile = await asyncio.to_thread(provider_profile, target, settings)

    def build(can: Capabilities, traits: RequestTraits) -> LiteLLMModel:
        priced = _priced(can, prices).model_copy(update={"prompt_per_sample": not traits.multi_sample})
        return LiteLLMModel(target, wire, priced, traits, prices, limiter, identity + priced.profile.digest)

    probed = target.settings.probe
    if probed is None:
        probed = target.openai_wire and target.api_base is not None
    declared, traits = _declared(target, context, profile)
    if not probed or not target.openai_wire:
        return build(declared, traits)
    plain = build(declared, traits)
    listed = await list_served_models(plain)
    root: str | None = None
    if listed:
        entry = find_served_model(listed, target)
        length = entry.get("max_model_len")
        context = length if isinstance(length, int) else context
        if entry.get("root"):  # vLLM reports which weights it serves under the name
            root = str(entry["root"])
            identity = f"{target.name}={root}"
    if target.vllm:
        identity += await _version(plain)

    def with_measured(measured: Mapping[str, JsonValue]) -> ModelProfile:
        return provider_profile(target, settings, measured=measured, root=root)

    return build(*await probe_capabilities(build, with_measured, context, target.vllm))


async def _version(model: LiteLLMModel) -> str:
    try:
        reported, _ = await model.retried(lambda: version(model.wire.http))
    except (BackendError, InvalidResponse, LookupError):
        return ""
    return f"+vllm{reported}"


def _declared(target: Target, context: int | None, profile: ModelProfile) -> tuple[Capabilities, RequestTraits]:
    """Capabilities that LiteLLM documents. A provider's seed is best effort, so it is not declared."""
    known = map_entry(target.provider, target.served)
    prefill = bool(known.get("supports_assistant_prefill")) and not profile.refused(
        "prefix", thinking=not profile.can_skip_thinking
    )
    logprobs = "logprobs" in target.parameters and "logprobs" not in profile.refuses
    longest = known.get("max_output_tokens")
    top = MOST_TOP if target.provider == "openai" else OTHERS_TOP
    return (
        Capabilities(
            logprobs=logprobs,
            top_logprobs=top if logprobs and "top_logprobs" in target.parameters else 0,
            prefix=prefill,
            inputs=profile.inputs,
            tools="tools" in target.parameters,
            json_schema="response_format" in target.parameters
            and "json_schema" not in profile.refuses
            and _supports_schema(target, known),
            context_tokens=context,
            profile=profile,
        ),
        RequestTraits(
            multi_sample=target.openai_wire and "n" in target.parameters and known.get("mode", "chat") == "chat",
            max_output_tokens=longest if isinstance(longest, int) and not target.is_own_server else None,
        ),
    )


def _supports_schema(target: Target, known: Mapping[str, Any]) -> bool:
    if target.openai_wire:
        return bool(known.get("supports_response_schema"))
    return bool(load_litellm().supports_response_schema(target.served, target.provider))


def _priced(can: Capabilities, prices: Prices) -> Capabilities:
    prompt = prices.max_prompt if can.profile.prompt_cache == "marks" else prices.prompt
    return can.model_copy(update={"usd_per_prompt_token": prompt, "usd_per_completion_token": prices.completion})
