"""`create_app`: the sidecar as an ASGI application, which opens its models and store at startup and drains at shutdown.

Startup loads all strategies and verifiers and validates the aliases, so that requests wait for no import of theirs and
do not fail on an invalid alias. Each operation in the OpenAPI schema carries its stability label as `x-stability`.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ..agents.reasoner import Reasoner
from ..core.errors import ReasonError, UserError
from ..core.extras import missing_package
from ..core.files import Progress
from ..core.settings import ServeSettings, Settings
from ..core.store.location import redacted_url
from ..core.version import __version__
from ..reasoning.strategy import STRATEGIES
from ..verify.verifier import VERIFIERS
from .anthropic import router as anthropic
from .auth import is_loopback
from .errors import install_error_handlers
from .key_limits import RequestCounter
from .key_store import KeyStore
from .logs import log_event
from .middleware import RequestGuard
from .native.routes import conversations, health, lists, reasoning, runs
from .openai import router as openai
from .policy import apply_ceilings, offered_models
from .run_manager import RunManager
from .viewer.routes import root
from .viewer.routes import router as pages

if TYPE_CHECKING:
    from .mcp import McpEndpoint


def load_registries(settings: Settings) -> None:
    """Import all strategies and verifiers.

    No request waits for an import, and an upgrade on disk does not mix versions in a running process. A plug-in that
    fails to load does not affect the others; requests that use it get the error.
    """
    for registry in (STRATEGIES, VERIFIERS):
        for name in registry.names():
            with suppress(ReasonError):
                registry.load(name)


def validate_aliases(reasoner: Reasoner) -> None:
    """Check that every alias can be served, without opening models.

    Raises:
        UserError: An alias names an unknown strategy, parameter or verifier, or has the name of a model.
    """
    settings = reasoner.settings
    offered = offered_models(settings)
    for name, alias in settings.serve.aliases.items():
        setting = f"serve.aliases.{name}"
        if name in offered:
            raise UserError(f"{setting}: {name!r} is the name of a model", hint="choose another name", param=setting)
        try:
            reasoner.plan(
                "?",
                strategy=alias.strategy,
                model=alias.model,
                parameters=alias.parameters,
                verify=alias.verify or None,
                budget=apply_ceilings(alias.budget, settings.serve, settings.budget),
            )
        except UserError as e:
            raise UserError(f"{setting}: {e.message}", hint=e.hint, param=setting) from e


STABLE_ROUTES = frozenset({"/healthz", "/readyz", "/v1/chat/completions", "/v1/models", "/v1/models/{model}"})
"""Paths of the OpenAPI description that are stable; the others are beta. docs/stability.md defines the labels."""


def request_counter(serve: ServeSettings) -> RequestCounter:
    """The counts of requests, shared by replicas if the settings name a Redis server.

    Raises:
        UserError: The library is missing, or the URL is invalid.
    """
    try:
        return RequestCounter(serve.limits_url)
    except ModuleNotFoundError as e:
        raise missing_package("the setting serve.limits_url", e.name, "redis") from e
    except ValueError:  # its message may show the URL, and with it the password
        raise UserError(
            f"serve.limits_url = {redacted_url(serve.limits_url or '')} is not the URL of a Redis server",
            hint="give redis://HOST:PORT",
        ) from None


class SidecarApp(FastAPI):
    """A FastAPI application whose OpenAPI schema carries stability labels.

    Attributes:
        layers: The middleware, which precedes FastAPI's own and ends with `serve_routes`.
    """

    layers: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        scope["app"] = self
        await self.layers(scope, receive, send)

    async def serve_routes(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request that passed the layers."""
        await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI schema with `x-stability` in every operation; FastAPI caches it."""
        described = super().openapi()
        for path, operations in described["paths"].items():
            for operation in operations.values():
                operation["x-stability"] = "stable" if path in STABLE_ROUTES else "beta"
        return described


DESCRIPTION = """
Reasoning strategies and answer verification over HTTP: one budget, one trace and one durable run store.

Errors are `{"error": {"message", "type", "param", "code"}}` with the HTTP status of the code. Those of
`/v1/messages` have Anthropic's format.
"""


def create_app(settings: Settings, progress: Progress | None = None) -> FastAPI:
    """Create the application.

    `app.state` has `settings`, `serve` (`settings.serve`) and `gate` (the `RequestGuard`); within the lifespan also
    `reasoner` and `run_manager`.

    Args:
        settings: Settings of the models, the strategy, the store and the server.
        progress: Receives the progress of model downloads; called from another thread.

    Raises:
        UserError: A library is missing. Raised within the lifespan: the settings are invalid for `Reasoner` or
            `validate_aliases`, or a tool cannot be opened.
    """
    serve = settings.serve
    gate = RequestGuard(serve)
    mcp: McpEndpoint | None = None
    if serve.mcp:
        try:
            from .mcp import McpEndpoint
        except ModuleNotFoundError as e:
            raise missing_package("the setting serve.mcp", e.name, "mcp") from e
        mcp = McpEndpoint(stateless=serve.workers > 1)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        """Open the models and the store, adopt runs that other processes left, and drain at shutdown."""
        if not serve.auth and not is_loopback(serve.host):
            log_event("auth.off", logging.WARNING, host=serve.host, effect="everyone who reaches it may do everything")
        async with (
            aclosing(request_counter(serve)) as counter,
            aclosing(gate),
            Reasoner(settings=settings, progress=progress) as reasoner,
        ):
            load_registries(settings)
            validate_aliases(reasoner)
            await reasoner.load(serve.tools)
            store = await reasoner.open_store()
            gate.open(await KeyStore.open(store), counter)
            run_manager = RunManager(
                reasoner, store, serve, gate.admission(), allowance=gate.use, observers=(gate.observe,)
            )
            async with run_manager, mcp.open(reasoner, run_manager) if mcp else nullcontext():
                app.state.reasoner, app.state.run_manager = reasoner, run_manager
                yield

    app = SidecarApp(
        title="reason",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url="/docs",
        redoc_url=None,
    )
    app.state.settings, app.state.serve = settings, serve
    install_error_handlers(app)
    app.layers = gate.guard(app, app.serve_routes)
    for router in (health, openai, anthropic, reasoning, runs, conversations, lists, pages, root):
        app.include_router(router)
    if mcp is not None:
        app.router.routes.append(Route(mcp.path, mcp))
    return app
