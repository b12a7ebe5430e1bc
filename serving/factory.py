"""`load_model`: from a model string to a `LanguageModel`, and the table of backends.

A backend is imported when the first of its models is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Protocol

from ..core.errors import UnknownName
from ..core.files import Progress
from ..core.registry import Registry, nearest
from ..core.settings import Settings
from .litellm.limiter import LimiterRegistry
from .model import LanguageModel


class ModelLoader(Protocol):
    """Loads the models whose strings begin with one prefix."""

    async def load(self, name: str, settings: Settings, progress: Progress | None) -> LanguageModel:
        """Load a model; raises as `load_model`."""

    def known_models(self, settings: Settings) -> Iterable[str]:
        """Strings of models for completion, and for suggestions of similar names."""


LOADERS: Registry[ModelLoader] = Registry("reason.backends", "backend")
"""Loaders of models by the prefix of their strings; LiteLLM's adapter has all other models."""


async def load_model(
    name: str, settings: Settings, progress: Progress | None = None, limiters: LimiterRegistry | None = None
) -> LanguageModel:
    """Download what is missing, load the model and start its engine, off the event loop.

    Cancelling the awaiting task stops a download or conversion, removes its partial files, and closes a model that was
    loaded in the meantime.

    Args:
        name: The model string, for example `local/smollm2-135m` or `qwen3@http://127.0.0.1:8000/v1`.
        progress: Called with the progress, from another thread.
        limiters: Limits of concurrent requests to providers, shared with other models of one owner.

    Raises:
        UnknownName: No model has that name.
        UserError: A setting is out of range, or an extra, a key or an address is missing.
        DataError: A model file is damaged or not supported.
        BackendUnavailable: The model is not available here, or its server cannot be reached.
    """
    prefix, slash, _ = name.partition("/")
    has_server = "://" in name or (not slash and bool(os.environ.get("OPENAI_BASE_URL")))
    if slash and prefix in LOADERS.names():
        return await LOADERS.load(prefix).load(name, settings, progress)
    if not slash and not has_server:
        from .litellm.providers import provider_of_family

        provider = provider_of_family(name)
        loadable = set(LOADERS.names()) - LOADERS.load_errors().keys()  # a broken plug-in does not hide this error
        known = [model for loader in sorted(loadable) for model in LOADERS.load(loader).known_models(settings)]
        candidates = (f"{provider}/{name}",) if provider else nearest(f"local/{name}", known)
        hint = "a model string is <backend>/<name>, as in local/…, or <name>@<address of a server>"
        raise UnknownName("model", name, candidates, hint=hint)
    from .litellm.factory import load_litellm_model

    return await load_litellm_model(name, settings, limiters)
