"""What a new user is told after the first answer of the default model: once, in one line each."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..core.settings import Settings

MARKER = "first-answer"
"""File in the data directory; where it is, everything was told."""


def advise_new_user(settings: Settings) -> None:
    """Say once, on a terminal, which models are better than the default one that has just answered."""
    from ..core.settings import DEFAULT_MODEL
    from .render.console import say

    marker = settings.data_dir / MARKER
    if settings.model != DEFAULT_MODEL or not is_terminal() or marker.exists():
        return
    with suppress(OSError):  # it is told again next time
        marker.touch()
    say(
        "the default model is tiny and often wrong; better ones, from the Hugging Face hub: "
        "reason models pull recommended",
        label="tip",
        style="cyan",
    )
    provider = _provider_with_key()
    if provider is not None:
        variable, name, command = provider
        say(f"{variable} is set: -m {name} asks that provider{command}", label="tip", style="cyan")


def _provider_with_key() -> tuple[str, str, str] | None:
    """The variable of a key in the environment, a model of its provider, and how to install what it needs."""
    from ..core.extras import install_command
    from ..serving.litellm.provider_names import EXAMPLE_MODELS, is_litellm_installed, key_in_environment

    for provider, name in EXAMPLE_MODELS.items():
        variable = key_in_environment(provider)
        if variable is not None:
            command = "" if is_litellm_installed() else f", after: {install_command('providers')}"
            return variable, name, command
    return None


def is_terminal() -> bool:
    """Whether standard error is a terminal."""
    return sys.stderr.isatty()
