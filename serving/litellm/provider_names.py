"""Names of providers, and of the variables that hold their keys: for errors and advice that do not import LiteLLM."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

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


def provider_of_family(served: str) -> str | None:
    """The provider to which a model without one belongs by its name: `claude-…` is Anthropic's; None if unknown."""
    return next((provider for provider, pattern in _FAMILIES if pattern.match(served.lower())), None)


def key_in_environment(provider: str) -> str | None:
    """The variable that holds the key of a provider; None if none is set, or the variables are not known."""
    return next((name for name in KEY_VARIABLES.get(provider, ()) if os.environ.get(name)), None)


def is_litellm_installed() -> bool:
    """Whether LiteLLM is installed; it is not imported."""
    return importlib.util.find_spec("litellm") is not None
