"""A scripted model behind a real socket, and ours in front of it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from reason.core.settings import Settings
from reason.serving.litellm.factory import load_litellm_model
from reason.serving.litellm.model import LiteLLMModel
from support.fake_clock import FakeClock
from support.fault_server import FaultServer
from support.litellm_models import served
from support.scripted_model import ScriptedModel, echoing

Opened = AbstractAsyncContextManager[tuple[FaultServer, LiteLLMModel]]
Open = Callable[..., Opened]


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key or address of the machine reaches a test."""
    for name in list(os.environ):
        if name.endswith(("_API_KEY", "_API_BASE", "_BASE_URL", "_TOKEN")) or name.startswith("REASON_"):
            monkeypatch.delenv(name)


@pytest.fixture
def keys(no_keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key of each provider."""
    for provider in ("OPENAI", "ANTHROPIC", "GEMINI", "DEEPSEEK", "OPENROUTER", "MISTRAL", "XAI"):
        monkeypatch.setenv(f"{provider}_API_KEY", "key")


@pytest.fixture
async def load() -> AsyncIterator[Callable[..., Awaitable[LiteLLMModel]]]:
    """Loads models, which are closed in the end."""
    models: list[LiteLLMModel] = []

    async def load_one(name: str, **settings: Any) -> LiteLLMModel:
        models.append(await load_litellm_model(name, Settings(**settings)))
        return models[-1]

    yield load_one
    for model in models:
        await model.aclose()


@pytest.fixture
def opened(clock: FakeClock) -> Open:
    """Opens a model on a server of its own: `async with opened(provider=…, script=…) as (server, model)`."""
    clock.flows = True

    @asynccontextmanager
    async def open_one(
        *texts: str,
        provider: str = "hosted_vllm",
        settings: dict[str, Any] | None = None,
        fault: Callable[[int], str | None] | None = None,
        context_tokens: int = 100_000,
        **server_options: Any,
    ) -> AsyncIterator[tuple[FaultServer, LiteLLMModel]]:
        script = echoing(*(texts or ("blue sky", "red rose", "green grass")))
        server = FaultServer(
            ScriptedModel(script, context_tokens=context_tokens), vllm=provider == "hosted_vllm", **server_options
        )
        async with served(server, f"{provider}/small", **{"retry_s": 60.0, **(settings or {})}) as model:
            await clock.settle()  # the last reply may be here before the server is done with it
            if hasattr(model, "probe_usage"):
                model.probe_usage = None  # what measuring the server cost is not the test's
            # faults begin when the model is open
            server.count, server.most_open = 0, 0
            server.requests.clear()
            server.answered.clear()
            if fault is not None:
                server.fault = fault
            yield server, model

    return open_one
