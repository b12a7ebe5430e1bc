"""The sidecar in this process over scripted models, with its keys: requests go straight into the application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
from reason.core.settings import Settings
from reason.sidecar.app import create_app

from support.api_keys import add_key
from support.injected_models import loaded_models
from support.scripted_model import ScriptedModel, replies


class Guarded:
    """An application that runs, and a client of it."""

    def __init__(self, app: Any) -> None:
        self.app = app
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080", timeout=60)

    async def key(self, *scopes: str, tenant: str = "lab", **limits: Any) -> dict[str, str]:
        """Headers with a new key."""
        text = await add_key(self.app.state.run_manager.store, *scopes, tenant=tenant, **limits)
        return {"Authorization": f"Bearer {text}"}

    async def ask(self, headers: Mapping[str, str] | None = None, **body: Any) -> httpx.Response:
        """One question on the native route."""
        told = {"question": "What is 2 + 2?", "strategy": "cot", **body}
        return await self.client.post("/v1/reason", json=told, headers=dict(headers or {}))


@asynccontextmanager
async def guarded_app(
    folder: Path, *models: ScriptedModel, serve: Mapping[str, Any] | None = None, **settings: Any
) -> AsyncIterator[Guarded]:
    """An application with keys, whose models are given; the first is the main one."""
    known = {m.name: m for m in models or (ScriptedModel(replies("The answer is 4.")),)}

    first, *others = known
    options = {"drain_timeout_s": 0.0, "models": tuple(others), **(serve or {})}
    chosen = Settings(model=first, store=folder / "runs.sqlite3", cache_dir=folder / "cache", serve=options, **settings)
    with loaded_models(known):
        app = create_app(chosen)
        async with app.router.lifespan_context(app):
            guarded = Guarded(app)
            async with guarded.client:
                yield guarded


@contextmanager
def guarded_app_of_examples(folder: Path) -> Iterator[tuple[asyncio.Runner, Guarded, dict[str, str]]]:
    """One application on an event loop of its own, which many examples share, and headers with every scope."""
    with asyncio.Runner() as runner:
        context = guarded_app(folder, serve={"max_tokens": 60, "max_seconds": 5.0})
        guarded = runner.run(context.__aenter__())
        try:
            yield runner, guarded, runner.run(guarded.key("ask", "read", "admin"))
        finally:
            runner.run(context.__aexit__(None, None, None))
