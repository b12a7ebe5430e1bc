"""`create_app`: the sidecar as an ASGI application. What it needs is opened when it starts and closed when it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from fastapi import FastAPI

from ..agents.reasoner import Reasoner
from ..core.settings import Settings
from ..core.version import __version__
from ..serving.pulling import Progress
from .before_requests import load_kinds, refuse_aliases
from .desk import RunDesk
from .errors import install_errors
from .gate.gate import Gate
from .native.health import health
from .native.lists import lists
from .native.reasoning import reasoning
from .native.runs import runs
from .openai import router as openai
from .route_stability import Labelled
from .viewer.routes import router as pages

ABOUT = """
Reasoning strategies and answer verification over HTTP: one budget, one trace and one durable run store.

Errors are `{"error": {"message", "type", "param", "code"}}` with the status that belongs to the code.
"""


def create_app(settings: Settings, progress: Progress | None = None) -> FastAPI:
    """The application.

    Its `state` has `settings`, `serve` (their part about serving) and `gate`; while it runs, `reasoner` and `desk`.

    Args:
        settings: Models, strategy, store, and how to serve.
        progress: Told how far a model's files are that must be fetched first; called from another thread.

    Raises:
        UserError: In the lifespan, as `Reasoner` and `refuse_aliases`.
    """
    serve = settings.serve
    gate = Gate(serve)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        """Open the models and the store; take up what other processes left; in the end, drain."""
        async with aclosing(gate), Reasoner(settings=settings, progress=progress) as reasoner:
            load_kinds()
            refuse_aliases(reasoner)
            await reasoner.open()
            store = await reasoner.open_store()
            gate.open(store)
            desk = RunDesk(reasoner, store, serve, gate.admission(), allowance=gate.use, observers=(gate.observe,))
            async with desk:
                app.state.reasoner, app.state.desk = reasoner, desk
                yield

    app = Labelled(
        title="reason",
        version=__version__,
        description=ABOUT,
        lifespan=lifespan,
        docs_url="/docs" if serve.docs else None,
        redoc_url=None,
        openapi_url="/openapi.json" if serve.docs else None,
    )
    app.state.settings, app.state.serve = settings, serve
    install_errors(app)
    gate.guard(app)
    for router in (health, openai, reasoning, runs, lists, pages):
        app.include_router(router)
    return app
