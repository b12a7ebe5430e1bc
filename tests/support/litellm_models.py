"""Models behind servers of tests, through LiteLLM's interface."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from reason.core.settings import Settings
from reason.serving.litellm.factory import load_litellm_model
from reason.serving.litellm.model import LiteLLMModel


@asynccontextmanager
async def served(
    server: Any, name: str, *, profiles: dict[str, Any] | None = None, root: bool = False, **provider: Any
) -> AsyncIterator[LiteLLMModel]:
    """A model of a server that runs meanwhile.

    Args:
        server: The server; `run` serves, and gives its address.
        name: Name of the model.
        profiles: Profiles of the user.
        root: Whether the address is given without its end `/v1`.
        provider: Settings of the provider.
    """
    async with server.run() as address:
        own = {"api_base": address.removesuffix("/v1") if root else address, "timeout_s": 60.0, **provider}
        settings = Settings(providers={name.partition("/")[0]: own}, profiles=profiles or {})
        model = await load_litellm_model(name, settings)
        try:
            yield model
        finally:
            await model.aclose()
