"""`Target`: the provider, endpoint and model of a model string, and the prices of its tokens."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...core.errors import BackendMisconfigured, UnknownName, UserError
from ...core.messages import Usage
from ...core.settings import ProviderSettings, Settings
from .responses import StreamedSample

OPENAI_WIRE = frozenset({"openai", "hosted_vllm"})
"""Providers that speak OpenAI's own format, whose stream is read as it comes."""

VLLM_ONLY = ("cache_salt", "priority")
"""Settings that no other provider's server understands."""


@dataclass(frozen=True)
class Target:
    """One model of one provider.

    Attributes:
        name: The model string as the user wrote it.
        provider: LiteLLM's name of the provider.
        served: The model's name at the provider.
        api_base: Address of the endpoint; None is the provider's own.
        api_key: Key; None lets LiteLLM look where the provider's own client does.
        key_env: Variable that holds the key, for messages.
        settings: How to call it.
        parameters: Request parameters that LiteLLM lists for the model.
    """

    name: str
    provider: str
    served: str
    api_base: str | None
    api_key: str | None = field(repr=False)
    key_env: str
    settings: ProviderSettings
    parameters: frozenset[str]

    @property
    def openai_wire(self) -> bool:
        """Whether the endpoint speaks OpenAI's format."""
        return self.provider in OPENAI_WIRE

    @property
    def vllm(self) -> bool:
        """Whether the endpoint is a vLLM server."""
        return self.provider == "hosted_vllm"

    @property
    def is_own_server(self) -> bool:
        """Whether the endpoint is a server of one's own, not a provider's service."""
        return self.vllm or (self.openai_wire and self.settings.api_base is not None)

    @property
    def endpoint(self) -> str:
        """The endpoint, for messages and limits."""
        return self.api_base or self.provider


def load_litellm() -> Any:
    """The `litellm` module. The first import takes seconds: call this off the event loop.

    Its price map and its table of Anthropic's headers are read from the package instead of the network; it prints no
    advice, sends no telemetry and downloads no tokenizer. What a program itself sets in LiteLLM stays: retries, caches
    and dropped parameters are refused call by call.
    """
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS", "True")
    litellm: Any = importlib.import_module("litellm")
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    litellm.disable_hf_tokenizer_download = True
    return litellm


def find_target(name: str, settings: Settings) -> Target:
    """The target of a model string.

    Raises:
        UnknownName: LiteLLM knows no such provider.
        UserError: The key or the address is missing.
    """
    litellm = load_litellm()
    try:
        served, provider, key, base = litellm.get_llm_provider(name)
    except litellm.BadRequestError as e:
        raise UnknownName(
            "model",
            name,
            hint="a model string is <provider>/<name>: local/…, openai/…, anthropic/…, hosted_vllm/… and so on",
        ) from e
    if provider == "vllm":  # LiteLLM would load vLLM into this process and block it
        raise UserError(f"model {name!r} is no API provider's", hint="a vLLM server's models are hosted_vllm/…")
    provider_settings = settings.providers.get(name) or settings.providers.get(provider) or ProviderSettings()
    key_env = provider_settings.api_key_env or f"{provider.upper()}_API_KEY"
    if provider_settings.api_key_env is not None:
        key = os.environ.get(provider_settings.api_key_env)
        if not key:
            raise BackendMisconfigured(
                f"model {name!r} needs the key in {key_env}, which is not set", hint=f"export {key_env}=…"
            )
    base = provider_settings.api_base or base or os.environ.get(f"{provider.upper()}_API_BASE")
    if provider != "hosted_vllm" and (foreign := [n for n in VLLM_ONLY if getattr(provider_settings, n) is not None]):
        raise UserError(f"setting {foreign[0]} of {name!r}: only vLLM servers know it", hint="use hosted_vllm/…")
    if provider == "hosted_vllm" and base is None:
        raise BackendMisconfigured(
            f"model {name!r}: the server's address is not set",
            hint="set api_base under [providers.hosted_vllm] in reason.toml, or HOSTED_VLLM_API_BASE, "
            "as in http://127.0.0.1:8000/v1",
        )
    if key is None and provider_settings.api_key_env is None:
        key = _usual_key(litellm, name, provider, base, key_env)
    return Target(
        name=name,
        provider=provider,
        served=served,
        api_base=base,
        api_key=key,
        key_env=key_env,
        settings=provider_settings,
        parameters=frozenset(litellm.get_supported_openai_params(served, provider) or ()),
    )


def _usual_key(litellm: Any, name: str, provider: str, base: str | None, key_env: str) -> str | None:
    """The key in the provider's usual environment variable; None leaves the search to LiteLLM.

    Raises:
        UserError: It is missing, and the endpoint is not a server of one's own.
    """
    key = os.environ.get(key_env)
    if key:
        return key
    if base is not None and provider in OPENAI_WIRE:
        return "none"  # the client wants one, and a server of one's own seldom does
    missing = [m for m in litellm.validate_environment(name)["missing_keys"] if m.endswith(("KEY", "TOKEN"))]
    if missing:
        raise BackendMisconfigured(
            f"model {name!r} needs {' and '.join(missing)}, which is not set", hint=f"export {missing[0]}=…"
        )
    return None


MAX_COUNTED_TOKENS = 1 << 40
"""What states more of one response is no count."""


@dataclass(frozen=True)
class Prices:
    """Dollars per token; None if unknown.

    Attributes:
        prompt: Price of a prompt token.
        completion: Price of a generated token.
        cached: Price of a prompt token that the provider had cached.
    """

    prompt: float | None = None
    completion: float | None = None
    cached: float | None = None

    def cost(self, prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> float | None:
        """Dollars; None if a price is unknown."""
        if self.prompt is None or self.completion is None:
            return None
        cached = self.prompt if self.cached is None else self.cached
        fresh = prompt_tokens - cached_tokens
        return fresh * self.prompt + cached_tokens * cached + completion_tokens * self.completion


def find_prices(target: Target) -> tuple[Prices, int | None]:
    """Prices and context length of a model in LiteLLM's map; prices in the settings take precedence."""
    litellm = load_litellm()
    known: dict[str, Any] = litellm.model_cost.get(f"{target.provider}/{target.served}") or {}
    is_own_server = target.settings.api_base is not None or target.vllm
    if not known and not is_own_server:
        # the plain name means the provider's own service, not another server with its API
        plain = litellm.model_cost.get(target.served) or {}
        known = plain if plain.get("litellm_provider") == target.provider else {}
    if is_own_server:
        known = {}
    settings = target.settings
    configured = settings.usd_per_prompt_token, settings.usd_per_completion_token
    prices = Prices(
        prompt=known.get("input_cost_per_token") if configured[0] is None else configured[0],
        completion=known.get("output_cost_per_token") if configured[1] is None else configured[1],
        cached=known.get("cache_read_input_token_cost") if configured[0] is None else None,
    )
    context = known.get("max_input_tokens") or known.get("max_tokens")
    return prices, context if isinstance(context, int) else None


def split_usage(
    usage: Any,
    samples: Sequence[StreamedSample],
    prices: Prices,
    target: Target,
    waited_s: float,
    prompt_tokens: int = 0,
) -> list[Usage]:
    """The usage of each sample of a response; the prompt belongs to the first.

    Where the provider sends no valid usage, the tokens are those in the stream, or else LiteLLM's count of the text.
    Thought tokens are the provider's; where it reports none, those in the stream, or else the count of the thought.

    Args:
        usage: What the provider sent as `usage`; None if it sent none.
        samples: The response's samples.
        prices: Prices of the tokens.
        target: The target of the request.
        waited_s: Seconds that the request waited, reported on the first sample.
        prompt_tokens: Tokens of the prompt where the provider sent no usage.
    """
    seen = [s.tokens for s in samples]
    thoughts = [s.thought_tokens if s.has_thought else 0 for s in samples]
    counts = _counts(usage)
    prompt, cached, thinking, total = (prompt_tokens, 0, 0, 0) if counts is None else counts
    if counts is None:
        # servers of one's own send a chunk for each token
        completions = [
            t if t is not None else s.pieces if target.is_own_server else _count_tokens(s, target)
            for t, s in zip(seen, samples, strict=True)
        ]
    elif len(samples) == 1:
        completions = [total]
    elif all(t is not None for t in seen) and sum(t or 0 for t in seen) == total:
        completions = [t or 0 for t in seen]
    else:
        weights = [t or s.pieces for t, s in zip(seen, samples, strict=True)]
        completions = _split(total, weights)
        if thinking and any(thoughts):  # pieces of thoughts and of answers need not have equally many tokens
            answers = [max(0, w - t) for w, t in zip(weights, thoughts, strict=True)]
            parts = _split(thinking, thoughts), _split(total - thinking, answers if any(answers) else weights)
            completions = [sum(pair) for pair in zip(*parts, strict=True)]
    if thinking:
        thoughts = _split_within(thinking, thoughts if any(thoughts) else completions, completions)
    else:
        shown = [
            t if s.token_ids or target.is_own_server else _count(s.thought, target)
            for t, s in zip(thoughts, samples, strict=True)
        ]
        thoughts = [min(t, c) for t, c in zip(shown, completions, strict=True)]
    shares = []
    for i, (tokens, thought) in enumerate(zip(completions, thoughts, strict=True)):
        first = i == 0
        paid = (prompt, min(cached, prompt)) if first else (0, 0)
        shares.append(
            Usage(
                prompt_tokens=paid[0],
                cached_tokens=paid[1],
                completion_tokens=tokens,
                thinking_tokens=thought,
                waited_s=waited_s if first else 0.0,
                cost_usd=prices.cost(*paid, tokens),
            )
        )
    return shares


def with_received(usage: Any, received: int) -> Any:
    """The usage of a complete sample, given what the provider sent for its rest after some received tokens."""
    counts = _counts(usage)
    if not received or counts is None:
        return usage
    prompt, _, _, rest = counts
    return {**usage, "prompt_tokens": max(0, prompt - received), "completion_tokens": rest + received}


def _counts(usage: Any) -> tuple[int, int, int, int] | None:
    """Tokens of the prompt, cached tokens, thought tokens and all generated tokens; None if they are invalid."""
    if not isinstance(usage, Mapping):
        return None
    prompt_details, completion_details = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    counts_json = (
        usage.get("prompt_tokens"),
        prompt_details.get("cached_tokens") if isinstance(prompt_details, Mapping) else None,
        completion_details.get("reasoning_tokens") if isinstance(completion_details, Mapping) else None,
        usage.get("completion_tokens"),
    )
    prompt, cached, thinking, total = (0 if count is None else count for count in counts_json)
    if not all(
        isinstance(count, int) and 0 <= count <= MAX_COUNTED_TOKENS for count in (prompt, cached, thinking, total)
    ):
        return None
    # some providers (xAI) count thoughts only in the total
    is_separate = thinking > total or (thinking and usage.get("total_tokens") == prompt + total + thinking)
    return prompt, cached, thinking, total + thinking if is_separate else total


def _split_within(total: int, weights: Sequence[int], bounds: Sequence[int]) -> list[int]:
    """An integer split in proportion to the weights, no part above its bound; the total is at most their sum."""
    parts = [min(part, bound) for part, bound in zip(_split(total, weights), bounds, strict=True)]
    for i, bound in enumerate(bounds):
        parts[i] += min(bound - parts[i], total - sum(parts))
    return parts


def _split(total: int, weights: Sequence[int]) -> list[int]:
    """An integer split into integer parts in proportion to the weights."""
    weight_sum = sum(weights)
    if weight_sum == 0:
        weights, weight_sum = [1] * len(weights), len(weights)
    bounds = [total * sum(weights[: i + 1]) // weight_sum for i in range(len(weights))]
    return [b - a for a, b in zip([0, *bounds], bounds, strict=False)]


def _count_tokens(sample: StreamedSample, target: Target) -> int:
    called = "".join(call.name + "".join(call.arguments) for call in sample.calls.values())
    return max(sample.pieces, _count(sample.thought + sample.text + called, target))


def _count(text: str, target: Target) -> int:
    return int(load_litellm().token_counter(model=target.served, text=text)) if text else 0
