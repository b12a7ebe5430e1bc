"""`load_litellm_model`: from a model string to a `LiteLLMModel` with its capabilities declared or measured."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from ...core.registry import Registry
from ...core.settings import Settings
from ..model import Capabilities
from ..profiles.profile import ModelProfile
from .limiter import ConcurrencyLimiter, LimiterRegistry
from .model import LiteLLMModel
from .profiles import provider_profile
from .providers import Prices, Target, find_prices, find_settings, find_target, load_litellm, map_entry
from .requests import RequestTraits
from .transport import Transport

SERVERS: Registry[Any] = Registry("reason.servers", "client of servers")
"""Clients of servers of one's own: "measured" loads a model and measures what its server supports, "several" loads one
that stands behind several endpoints (`serving/servers`), "listed" finds the first model that a server lists;
"responses" connects to OpenAI's Responses API."""

MAX_TOP_LOGPROBS = 20
"""Maximum alternatives of OpenAI's API."""
OTHERS_TOP_LOGPROBS = 5
"""Alternatives that providers with another limit than OpenAI's are trusted to show."""


async def load_litellm_model(name: str, settings: Settings, limiters: LimiterRegistry | None = None) -> LiteLLMModel:
    """Find a model's provider and its capabilities.

    A server at an `api_base` is probed with a few tokens; of a provider's own service nothing is requested, and the
    capabilities are those that LiteLLM documents. Of several endpoints, each is loaded.

    Args:
        name: The model string, for example `openai/gpt-4o-mini`, `qwen3@http://127.0.0.1:8000/v1`, or only the
            address of a server, whose first model is taken.
        limiters: Limiters to share with other models; None gives the model its own.

    Raises:
        UnknownName: There is no such provider, or the server does not serve the model.
        UserError: Key or address are missing or wrong.
        BackendError: The server cannot be reached.
    """
    shared = limiters or LimiterRegistry()
    if name.startswith(("http://", "https://")):
        name = await SERVERS.load("listed")(name, settings)
    if find_settings(name, settings).endpoints:
        several: LiteLLMModel = await SERVERS.load("several")(name, settings, shared, _load_one)
        return several
    return await _load_one(name, settings, shared)


async def _load_one(name: str, settings: Settings, limiters: LimiterRegistry) -> LiteLLMModel:
    target = await asyncio.to_thread(find_target, name, settings)
    limiter = limiters.of(target.endpoint, target.served, target.settings.concurrency)
    profile = await asyncio.to_thread(provider_profile, target, settings)
    wire = Transport(target) if profile.responses_api == "never" else SERVERS.load("responses")(target, profile)
    try:
        declared = declare(target, wire, limiter, profile)
        is_probed = target.api_base is not None if target.settings.probe is None else target.settings.probe
        if not target.openai_wire or not (is_probed or target.is_own_server):
            return declared
        measured: LiteLLMModel = await SERVERS.load("measured")(declared, settings, is_probed=is_probed)
        return measured
    except BaseException:
        await wire.aclose()
        raise


def declare(target: Target, wire: Transport, limiter: ConcurrencyLimiter, profile: ModelProfile) -> LiteLLMModel:
    """A model with the capabilities that LiteLLM documents. A provider's seed is best effort, so it is not declared."""
    known = map_entry(target.provider, target.served)
    prices, context = find_prices(target)
    prefill = bool(known.get("supports_assistant_prefill")) and not profile.refused(
        "prefix", thinking=not profile.can_skip_thinking
    )
    logprobs = "logprobs" in target.parameters and "logprobs" not in profile.refuses
    longest = known.get("max_output_tokens")
    top = MAX_TOP_LOGPROBS if target.provider == "openai" else OTHERS_TOP_LOGPROBS
    can = Capabilities(
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
    )
    takes_n = "n" in target.parameters and not profile.refused("n", thinking=False)
    traits = RequestTraits(
        multi_sample=target.openai_wire and takes_n and known.get("mode", "chat") == "chat",
        max_output_tokens=longest if isinstance(longest, int) and not target.is_own_server else None,
    )
    identity = target.identity + profile.digest
    return LiteLLMModel(target, wire, priced(can, traits, prices), traits, prices, limiter, identity)


def priced(can: Capabilities, traits: RequestTraits, prices: Prices) -> Capabilities:
    """The capabilities with the prices of tokens, and with whether each sample pays for its prompt."""
    prompt = prices.max_prompt if can.profile.prompt_cache != "none" else prices.prompt
    updates = {
        "usd_per_prompt_token": prompt,
        "usd_per_completion_token": prices.completion,
        "prompt_per_sample": not traits.multi_sample,
    }
    return can.model_copy(update=updates)


def _supports_schema(target: Target, known: Mapping[str, Any]) -> bool:
    if target.openai_wire:
        return bool(known.get("supports_response_schema"))
    return bool(load_litellm().supports_response_schema(target.served, target.provider))
