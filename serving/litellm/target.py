"""`Target`: where a model string leads, and `load_litellm`, which brings LiteLLM in quietly."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass, field
from typing import Any

from ...core.errors import UnknownName, UserError
from ...core.settings import ProviderSettings, Settings

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
    def place(self) -> str:
        """The endpoint, for messages and limits."""
        return self.api_base or self.provider


def load_litellm() -> Any:
    """The `litellm` module. It takes seconds at the first time: call this off the event loop.

    Its price map is read from the package instead of the network; it prints no advice, sends nothing about its use and
    fetches no tokenizer. What a program itself sets in LiteLLM stays: retries, caches and dropped parameters are
    refused call by call.
    """
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    litellm: Any = importlib.import_module("litellm")
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    litellm.disable_hf_tokenizer_download = True
    return litellm


def find_target(name: str, settings: Settings) -> Target:
    """Where a model string leads.

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
    chosen = settings.providers.get(name) or settings.providers.get(provider) or ProviderSettings()
    key_env = chosen.api_key_env or f"{provider.upper()}_API_KEY"
    if chosen.api_key_env is not None:
        key = os.environ.get(chosen.api_key_env)
        if not key:
            raise UserError(f"model {name!r} needs the key in {key_env}, which is not set", hint=f"export {key_env}=…")
    base = chosen.api_base or base or os.environ.get(f"{provider.upper()}_API_BASE")
    if provider != "hosted_vllm" and (foreign := [n for n in VLLM_ONLY if getattr(chosen, n) is not None]):
        raise UserError(f"setting {foreign[0]} of {name!r}: only vLLM servers know it", hint="use hosted_vllm/…")
    if provider == "hosted_vllm" and base is None:
        raise UserError(
            f"model {name!r}: the server's address is not set",
            hint="set api_base under [providers.hosted_vllm] in reason.toml, or HOSTED_VLLM_API_BASE, "
            "as in http://127.0.0.1:8000/v1",
        )
    if key is None and chosen.api_key_env is None:
        key = _usual_key(litellm, name, provider, base, key_env)
    return Target(
        name=name,
        provider=provider,
        served=served,
        api_base=base,
        api_key=key,
        key_env=key_env,
        settings=chosen,
        parameters=frozenset(litellm.get_supported_openai_params(served, provider) or ()),
    )


def _usual_key(litellm: Any, name: str, provider: str, base: str | None, key_env: str) -> str | None:
    """The key where the provider's own client looks for it; None leaves the search to LiteLLM.

    Raises:
        UserError: It is not there, and the provider is not somebody's own server.
    """
    key = os.environ.get(key_env)
    if key:
        return key
    if base is not None and provider in OPENAI_WIRE:
        return "none"  # the client wants one, and a server of one's own seldom does
    missing = [m for m in litellm.validate_environment(name)["missing_keys"] if m.endswith(("KEY", "TOKEN"))]
    if missing:
        raise UserError(
            f"model {name!r} needs {' and '.join(missing)}, which is not set", hint=f"export {missing[0]}=…"
        )
    return None
