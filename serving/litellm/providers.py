"""`Target`: the provider, endpoint and model of a model string, and the prices of its tokens.

For endpoints in OpenAI's own format nothing of this needs LiteLLM, which takes seconds to import.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import sys
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from ...core.errors import BackendMisconfigured, UnknownName, UserError
from ...core.extras import missing_package
from ...core.registry import nearest
from ...core.settings import ProviderSettings, Settings
from ..ollama import ollama_address

OPENAI_WIRE = frozenset({"openai", "hosted_vllm", "ollama", "ollama_chat"})
"""Providers that speak OpenAI's own format: requests are written and streams are read here, without LiteLLM."""
OPENAI_PARAMETERS = frozenset({"logprobs", "n", "response_format", "seed", "tool_choice", "tools", "top_logprobs"})
"""Parameters of OpenAI's format; a model's profile says which of them it refuses."""

PROVIDERS_EXTRA = "providers"
"""The extra that has LiteLLM."""
OUR_BACKENDS = ("local", "gguf", "vllm", "recorded")
NAME_HINT = "a model string is <provider>/<name>, as in openai/… or local/…, or <name>@<address of a server>"
OPENAI_HOST = "api.openai.com"


KEY_VARIABLES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "openai": ("OPENAI_API_KEY",),
        "anthropic": ("ANTHROPIC_API_KEY",),
        "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        "mistral": ("MISTRAL_API_KEY",),
        "deepseek": ("DEEPSEEK_API_KEY",),
        "xai": ("XAI_API_KEY",),
        "groq": ("GROQ_API_KEY",),
        "openrouter": ("OPENROUTER_API_KEY",),
        "together_ai": ("TOGETHERAI_API_KEY",),
        "fireworks_ai": ("FIREWORKS_AI_API_KEY",),
        "cerebras": ("CEREBRAS_API_KEY",),
        "cohere": ("COHERE_API_KEY",),
        "perplexity": ("PERPLEXITYAI_API_KEY",),
        "nvidia_nim": ("NVIDIA_NIM_API_KEY",),
        "moonshot": ("MOONSHOT_API_KEY",),
    }
)
"""Variables that may hold the key of a provider's own service, by provider; for others, LiteLLM decides."""

EXAMPLE_MODELS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "openai": "openai/gpt-5-mini",
        "anthropic": "anthropic/claude-haiku-4-5",
        "gemini": "gemini/gemini-2.5-flash",
        "mistral": "mistral/mistral-small-latest",
        "deepseek": "deepseek/deepseek-chat",
    }
)
"""A small model of each provider that advice is given about, all of them in LiteLLM's map."""

_FAMILIES: Final = (
    ("openai", re.compile(r"(gpt|chatgpt|text-embedding)-|o\d(-|$)")),
    ("anthropic", re.compile(r"claude-")),
    ("gemini", re.compile(r"gemini-")),
    ("mistral", re.compile(r"(mistral|ministral|magistral|codestral|devstral)-")),
    ("deepseek", re.compile(r"deepseek-(chat|reasoner)")),
    ("xai", re.compile(r"grok-")),
    ("cohere", re.compile(r"command-")),
)
"""Providers whose models are known by the beginning of their names."""


_AWS_PROVIDERS: Final = frozenset({"bedrock", "bedrock_converse", "sagemaker", "sagemaker_chat"})
"""Providers that LiteLLM calls with AWS's SDK, which finds the credentials."""


def provider_of_family(served: str) -> str | None:
    """The provider to which a model without one belongs by its name: `claude-…` is Anthropic's; None if unknown."""
    return next((provider for provider, pattern in _FAMILIES if pattern.match(served.lower())), None)


def key_in_environment(provider: str) -> str | None:
    """The variable that holds the key of a provider; None if none is set, or the variables are not known."""
    return next((name for name in KEY_VARIABLES.get(provider, ()) if os.environ.get(name)), None)


def is_litellm_installed() -> bool:
    """Whether LiteLLM is installed; it is not imported."""
    return importlib.util.find_spec("litellm") is not None


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
        parameters: Request parameters of the endpoint's format, or those that LiteLLM lists for the model.
        data_dir: Directory in which refused parameters are remembered.
        is_own_server: Whether the endpoint is self-hosted, not a provider's service.
    """

    name: str
    provider: str
    served: str
    api_base: str | None
    api_key: str | None = field(repr=False)
    key_env: str
    settings: ProviderSettings
    parameters: frozenset[str]
    data_dir: Path
    is_own_server: bool = False

    @property
    def openai_wire(self) -> bool:
        """Whether the endpoint speaks OpenAI's format."""
        return self.provider in OPENAI_WIRE

    @property
    def vllm(self) -> bool:
        """Whether the endpoint is a vLLM server."""
        return self.provider == "hosted_vllm"

    @property
    def identity(self) -> str:
        """What is known of the model without a request, as part of every key in the run store."""
        bare = split_address(self.name)[0]
        return bare if self.settings.api_base is None else f"{bare}@{self.api_base}"

    @property
    def endpoint(self) -> str:
        """The endpoint, for messages and limits."""
        return self.api_base or self.provider


_SERIES = re.compile(r"(?:ft:)?(?:(?P<gpt>gpt-[5-9])|o[1-9])")


def reasoning_series(served: str) -> str:
    """The series of OpenAI's that reasons to which a model belongs by its name: "gpt" (from GPT-5 on), "o", or ""."""
    named = _SERIES.match(served)
    if named is None or served.startswith("gpt-5-chat"):
        return ""
    return "gpt" if named["gpt"] else "o"


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


def split_address(name: str) -> tuple[str, str | None]:
    """The name and the address in a model string `<name>@http://…`; without one, the string and None."""
    bare, at, address = name.partition("@http")
    return bare, f"http{address}".rstrip("/") if at else None


def find_settings(name: str, settings: Settings) -> ProviderSettings:
    """The settings of a model, or else of its provider; an address in the model string takes precedence."""
    bare, address = split_address(name)
    provider = bare.partition("/")[0]
    if address is not None and provider not in OPENAI_WIRE:
        provider = "openai"
    known = settings.providers.get(bare) or settings.providers.get(provider) or ProviderSettings()
    return known if address is None else known.model_copy(update={"api_base": address, "endpoints": ()})


def find_target(name: str, settings: Settings) -> Target:
    """The target of a model string. A missing key of a common provider is reported without importing LiteLLM.

    Raises:
        UnknownName: LiteLLM knows no such provider.
        UserError: The key, the address or LiteLLM is missing.
    """
    bare, address = split_address(name)
    provider, _, served = bare.partition("/")
    provider = "ollama" if provider == "ollama_chat" else provider
    key = base = None
    provider_settings = find_settings(name, settings)
    if provider not in OPENAI_WIRE and (address or (not served and os.environ.get("OPENAI_BASE_URL"))):
        provider, served = "openai", bare
    if address is None and (provider not in OPENAI_WIRE or not served):
        if not os.environ.get("USE_LITELLM_PROXY"):  # which serves any name
            _check_provider(name)
            _check_usual_key(name, provider, provider_settings)
        served, provider, key, base = _find_provider(name)
        provider_settings = settings.providers.get(name) or settings.providers.get(provider) or ProviderSettings()
    key_env = provider_settings.api_key_env or f"{provider.upper()}_API_KEY"
    if provider_settings.api_key_env is not None and not os.environ.get(key_env):
        raise _missing_key(name, key_env)
    base = provider_settings.api_base or base or os.environ.get(f"{provider.upper()}_API_BASE")
    if provider == "openai":
        base = base or os.environ.get("OPENAI_BASE_URL") or None
    elif provider == "ollama":
        base = ollama_address(base)
    if provider != "hosted_vllm" and provider_settings.cache_salt is not None:
        raise UserError(f"setting cache_salt of {name!r}: only vLLM servers know it", hint="use hosted_vllm/…")
    if provider == "hosted_vllm" and base is None:
        raise BackendMisconfigured(
            f"model {name!r}: the server's address is not set",
            hint=f"write {name}@http://127.0.0.1:8000/v1, or set its api_base or HOSTED_VLLM_API_BASE",
        )
    if key is None or provider_settings.api_key_env is not None:
        key = _usual_key(name, provider, base, key_env)
    parameters = OPENAI_PARAMETERS
    if provider not in OPENAI_WIRE:
        parameters = frozenset(load_litellm().get_supported_openai_params(served, provider) or ())
    target = Target(
        name=name,
        provider=provider,
        served=served,
        api_base=base,
        api_key=key,
        key_env=key_env,
        settings=provider_settings,
        parameters=parameters,
        data_dir=settings.data_dir,
        is_own_server=provider in OPENAI_WIRE and (provider != "openai" or _is_own(served, provider_settings, base)),
    )
    if base is None and not is_litellm_installed():  # its map has a service's limits, efforts and prices
        raise missing_package(f"model {name!r}", "litellm", PROVIDERS_EXTRA)
    return target


def _is_own(served: str, settings: ProviderSettings, base: str | None) -> bool:
    """Whether an address in OpenAI's format is a server of one's own; the environment may name a proxy of OpenAI's."""
    if settings.api_base is not None or base is None:
        return base is not None
    return urllib.parse.urlsplit(base).hostname != OPENAI_HOST and not map_entry("openai", served)


def _check_provider(name: str) -> None:
    """Refuse a model without a provider, and one that needs LiteLLM where it is not installed."""
    provider, slash, _ = name.partition("/")
    if not slash:
        known = provider_of_family(name)
        raise UnknownName("model", name, (f"{known}/{name}",) if known else (), hint=NAME_HINT)
    if not is_litellm_installed():
        if provider not in KEY_VARIABLES and (similar := _similar_models(name)):
            raise UnknownName("model", name, similar, hint=NAME_HINT)
        raise missing_package(f"model {name!r}", "litellm", PROVIDERS_EXTRA)


def _similar_models(name: str) -> tuple[str, ...]:
    """The model string with a similar provider."""
    provider, _, served = name.partition("/")
    known = [*KEY_VARIABLES, *OPENAI_WIRE, *OUR_BACKENDS]
    return tuple(f"{one}/{served}" for one in nearest(provider, known, max_matches=1))


def _check_usual_key(name: str, provider: str, provider_settings: ProviderSettings) -> None:
    """Refuse a provider's own service without a key, where its variables are known."""
    variables = KEY_VARIABLES.get(provider, ())
    has_own_address = provider_settings.api_base or os.environ.get(f"{provider.upper()}_API_BASE")
    if variables and provider_settings.api_key_env is None and not has_own_address and not key_in_environment(provider):
        raise _missing_key(name, *variables)


def _missing_key(name: str, *variables: str) -> BackendMisconfigured:
    return BackendMisconfigured(
        f"model {name!r} needs a key in {' or '.join(variables)}, which is not set", hint=f"export {variables[0]}=…"
    )


def _find_provider(name: str) -> tuple[str, str, str | None, str | None]:
    """A model's name at its provider, the provider, its key and its address, as LiteLLM finds them."""
    litellm = load_litellm()
    try:
        served, provider, key, base = litellm.get_llm_provider(name)
    except litellm.BadRequestError as e:
        raise UnknownName("model", name, _similar_models(name), hint=NAME_HINT) from e
    if provider == "vllm":  # LiteLLM would load vLLM into this process and block it
        raise UserError(
            f"model {name!r} is not served by an API provider", hint="a vLLM server's models are hosted_vllm/…"
        )
    return served, provider, key, base


def _usual_key(name: str, provider: str, base: str | None, key_env: str) -> str | None:
    """The key in the provider's usual environment variable; None leaves the search to LiteLLM."""
    if key := os.environ.get(key_env):
        return key
    if base is not None and provider in OPENAI_WIRE:
        return "none"  # self-hosted servers seldom need a key
    if provider in OPENAI_WIRE:
        raise _missing_key(name, key_env)
    if provider in _AWS_PROVIDERS and importlib.util.find_spec("boto3") is None:
        raise UserError(f"model {name!r} needs AWS's SDK, which is not installed", hint="pip install boto3")
    if provider in _AWS_PROVIDERS or key_in_environment(provider):
        return None
    missing = [m for m in load_litellm().validate_environment(name)["missing_keys"] if m.endswith(("KEY", "TOKEN"))]
    if missing:
        raise BackendMisconfigured(
            f"model {name!r} needs {' and '.join(missing)}, which is not set", hint=f"export {missing[0]}=…"
        )
    return None


@dataclass(frozen=True)
class Prices:
    """Dollars per token; None if unknown.

    Attributes:
        cached: Price of a prompt token that was read from the provider's cache; None is that of a prompt token.
        written: Price of a prompt token that was written to it; None is that of a prompt token.
    """

    prompt: float | None = None
    completion: float | None = None
    cached: float | None = None
    written: float | None = None

    @property
    def max_prompt(self) -> float | None:
        """The highest price of a prompt token."""
        return self.prompt if self.prompt is None else max(self.prompt, self.written or 0.0)

    def cost(
        self, prompt_tokens: int, cached_tokens: int, completion_tokens: int, written_tokens: int = 0
    ) -> float | None:
        """Dollars; None if a price is unknown."""
        if self.prompt is None or self.completion is None:
            return None
        cached = self.prompt if self.cached is None else self.cached
        written = self.prompt if self.written is None else self.written
        fresh = prompt_tokens - cached_tokens - written_tokens
        prompt = fresh * self.prompt + cached_tokens * cached + written_tokens * written
        return prompt + completion_tokens * self.completion


def find_prices(target: Target) -> tuple[Prices, int | None]:
    """Prices and context length of a model in LiteLLM's map; prices in the settings take precedence."""
    is_elsewhere = target.settings.api_base is not None or target.is_own_server
    known = {} if is_elsewhere else map_entry(target.provider, target.served)
    settings = target.settings
    if settings.usd_per_prompt_token is not None:
        known = {name: price for name, price in known.items() if not name.startswith(("input_", "cache_"))}
        known["input_cost_per_token"] = settings.usd_per_prompt_token
    if settings.usd_per_completion_token is not None:
        known = {name: price for name, price in known.items() if not name.startswith("output_")}
        known["output_cost_per_token"] = settings.usd_per_completion_token

    def price(name: str) -> float | None:
        value = known.get(name)
        return None if value is None else float(value)

    prices = Prices(
        prompt=price("input_cost_per_token"),
        completion=price("output_cost_per_token"),
        cached=price("cache_read_input_token_cost"),
        written=price("cache_creation_input_token_cost"),
    )
    context = known.get("max_input_tokens") or known.get("max_tokens")
    return prices, context if isinstance(context, int) else None


BYTES_PER_TOKEN = 4
"""Bytes of a token of English text, as OpenAI's documentation has it."""


def estimate_tokens(text: str) -> int:
    """About how many tokens a text has, for providers that report no count.

    A word, a digit, a mark and a line break are a token each, or else `BYTES_PER_TOKEN` bytes, whichever are more.
    """
    num_bytes = len(text.encode("utf-8", "replace"))
    return max(-(-num_bytes // BYTES_PER_TOKEN), sum(1 for _ in _PIECE.finditer(text)))


_PIECE = re.compile(r"[^\W\d_]+|\d|[^\w\s]|_|\n+")


MAP_FILE = "model_prices_and_context_window_backup.json"


def map_entry(provider: str, served: str) -> dict[str, Any]:
    """A model's entry; empty if there is none."""
    entry = _entry(f"{provider}/{served}")
    if entry is None:
        # the plain name is its provider's, not that of another server with the same interface
        plain = _entry(served) or {}
        entry = plain if plain.get("litellm_provider") == provider else {}
    return dict(entry)


def _entry(name: str) -> dict[str, Any] | None:
    imported = sys.modules.get("litellm")
    models = getattr(imported, "model_cost", None)
    return _read_entry(name) if models is None else models.get(name)


@lru_cache(maxsize=256)
def _read_entry(name: str) -> dict[str, Any] | None:
    """An entry of the map's file, which is searched: it has megabytes, of which one model's are a thousandth."""
    package = importlib.util.find_spec("litellm")
    folders = package.submodule_search_locations if package is not None else None
    if not folders:
        return None
    text = (Path(folders[0]) / MAP_FILE).read_text(encoding="utf-8")
    key = f"{json.dumps(name)}: {{"
    at = text.find(key)
    while at >= 0:
        entry, _ = json.JSONDecoder().raw_decode(text, at + len(key) - 1)
        if "litellm_provider" in entry:  # and no part of another entry
            return dict(entry)
        if "alias_of" in entry:
            return _read_entry(str(entry["alias_of"]))
        at = text.find(key, at + 1)
    return None
