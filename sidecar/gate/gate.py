"""`Gate`: keys, limits, metrics, spans and logs of one app, and the layers around it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Protocol

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.middleware.cors import CORSMiddleware

from ...core.errors import ScopeMissing
from ...core.events import EventFields, Sink, TextDelta
from ...core.run import RunConfig
from ...core.serve_settings import ServeSettings
from ...reasoning.strategy import STRATEGIES
from ..admission import Admission
from ..callers import Caller, identify
from .bodies import READ_S, BodyCheck
from .doorkeeper import Doorkeeper, is_loopback
from .exporting import close_tracing, open_tracing
from .journal import Journal
from .key_use import KeyUse, SpendingStore
from .keyring import KeyRing, KeyStore
from .metrics import CONTENT_TYPE, Metrics
from .run_log import RunLog
from .spans import RunSpans

_METHODS = ("GET", "POST", "DELETE")
_SENT = ("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "X-Request-Id", "traceparent")
_TOLD = (
    "X-Request-Id",
    "Retry-After",
    *(f"x-ratelimit-{what}-{kind}" for what in ("limit", "remaining", "reset") for kind in ("requests", "tokens")),
)


class Store(KeyStore, SpendingStore, Protocol):
    """What is needed of the run store."""


class Observed(Protocol):
    """What is needed of a run that is about to begin."""

    config: RunConfig
    caller: Caller
    asked_s: float


class Gate:
    """What stands between the network and the desk, and lives as long as the app.

    Args:
        serve: How to serve.
        environ: The environment, which says where spans go; None is the process's own.

    Raises:
        UserError: The environment names an exporter of spans that is not installed.
    """

    keyring: KeyRing
    use: KeyUse

    def __init__(self, serve: ServeSettings, environ: Mapping[str, str] | None = None) -> None:
        self._serve = serve
        self.metrics = Metrics(frozenset(STRATEGIES.names()))
        self._tracing = open_tracing(os.environ if environ is None else environ)
        self._tracer = None if self._tracing is None else self._tracing.get_tracer("reason")
        self._traced: set[RunSpans] = set()

    def open(self, store: Store) -> None:
        """Know the store, before the first request comes."""
        self.keyring, self.use = KeyRing(store), KeyUse(store)

    def admission(self) -> Admission:
        """Turns for runs, of which the metrics hear."""
        serve, metrics = self._serve, self.metrics
        return Admission(
            serve.max_runs,
            serve.max_waiting,
            serve.max_wait_s,
            told=metrics.told_turns,
            gave_up=metrics.told_gave_up,
        )

    def observe(self, run: Observed) -> Sink:
        """What hears the events of a run: metrics, log and spans."""
        caller, strategy, serve = run.caller, run.config.strategy, self._serve
        sinks: list[Sink] = [
            self.metrics.run_sink(strategy, run.asked_s),
            RunLog(strategy, request_id=caller.request_id, key_id=caller.key_id, content=serve.log_content),
        ]
        if self._tracer is not None:
            sinks.append(
                RunSpans(
                    self._tracer,
                    traceparent=caller.traceparent,
                    tracestate=caller.tracestate,
                    request_id=caller.request_id,
                    content=serve.trace_content,
                    open_runs=self._traced,
                )
            )

        def all_of_them(event: EventFields) -> None:
            if isinstance(event, TextDelta):
                return  # of text none of them tells, and there is an event for each token
            for sink in sinks:
                sink(event)

        return all_of_them

    async def aclose(self) -> None:
        """Send off what spans are left, and take the metrics' gauges back."""
        self.metrics.close()
        for run in list(self._traced):
            run.close()
        if self._tracing is not None:
            await close_tracing(self._tracing)

    def guard(self, app: FastAPI) -> None:
        """Put the layers around an app, and `/metrics` into it; before the app starts.

        From the outside: names, headers and log of each request; origins; keys; bodies.
        """
        serve = self._serve
        app.state.gate = self
        app.include_router(metrics_router)
        app.add_middleware(BodyCheck, max_bytes=serve.max_body_bytes, read_s=READ_S)
        app.add_middleware(Doorkeeper, serve=serve)
        if serve.cors_origins:
            app.add_middleware(
                CORSMiddleware,
                allow_origins=serve.cors_origins,
                allow_methods=_METHODS,
                allow_headers=_SENT,
                expose_headers=_TOLD,
            )
        app.add_middleware(Journal, told=self.metrics.told_request)


metrics_router = APIRouter(tags=["operation"])


@metrics_router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "The metrics."}},
)
async def metrics(request: Request) -> Response:
    """Counters and histograms of this process in Prometheus' text format.

    Open where the server listens on a loopback address, else for keys with the scope "admin"; see `open_metrics`.
    """
    gate: Gate = request.app.state.gate
    serve: ServeSettings = request.app.state.serve
    is_open = is_loopback(serve.host) if serve.open_metrics is None else serve.open_metrics
    if not is_open and not (await identify(request.scope)).may("admin"):
        raise ScopeMissing("admin")
    return Response(gate.metrics.exposition(), media_type=CONTENT_TYPE)
