"""The layers around the application: body limits, access log, security headers, metrics, tracing.

`BodyLimitMiddleware` reads request bodies, bounded in size, time and depth, before anything parses them.
`AccessLogMiddleware` is the outermost layer: it gives requests an id, times, counts and logs them, and answers
unexpected exceptions. `RequestGuard` holds keys, limits, metrics and traces of one application and installs the layers.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, Protocol

import numpy as np
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..core.errors import PermissionDenied, ReasonError, UserError
from ..core.events import Event, Sink, TextDelta
from ..core.run import RunConfig
from ..core.settings import ServeSettings
from ..reasoning.strategy import STRATEGIES
from .admission import AdmissionQueue
from .auth import AuthMiddleware, Caller, KeyStore, KeyVerifier, identify, is_loopback
from .error_objects import INTERNAL, make_error_object
from .errors import send_error
from .key_limits import KeyLimiter, SpendingStore
from .logs import RunLog, log_event, log_fault
from .metrics import CONTENT_TYPE, Metrics
from .tracing import RunSpans, close_tracing, open_tracing

MAX_DEPTH = 100
"""Maximum number of brackets within one another."""
BODY_TIMEOUT_S = 30.0
"""Longest time that a body may take to come, in seconds."""

_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?+', re.DOTALL)
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(b for b in range(256) if b not in b"[]{}")
_SUSPICIOUS = re.compile(rb"\\u[dD][89a-fA-F]|NaN|Infinity|(?<![0-9])[0-9]{300}|[eE]\+?[0-9]{3}")
"""What may be half a surrogate pair, or no finite number; most bodies have none of it and are parsed once. Digits are
counted from where they begin only: else rows of 299 of them would take 150 looks at each."""


class BodyTooLarge(UserError):
    """The body of a request is larger than the server takes."""

    code = "too_large"
    http_status = 413


class BodyTimeout(UserError):
    """The body of a request did not come in time."""

    code = "too_slow"
    http_status = 408


class BodyLimitMiddleware:
    """Reads the body of each request complete, and passes on what is UTF-8 and could be JSON.

    A length that the caller claims is only ever believed when it is too large. Responses are not touched.

    Args:
        app: What answers.
        max_bytes: Largest body.
        read_s: Longest time from the request's headers to the body's end, in seconds.
        max_depth: Maximum number of brackets within one another.
    """

    def __init__(
        self, app: ASGIApp, *, max_bytes: int, read_s: float = BODY_TIMEOUT_S, max_depth: int = MAX_DEPTH
    ) -> None:
        self._app, self._max_bytes, self._read_s, self._max_depth = app, max_bytes, read_s, max_depth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._read_s):
                body = await self._read(scope, receive)
            if body is None:  # the caller has gone
                return
            check_json(body, self._max_depth)
        except TimeoutError:
            late = BodyTimeout(f"the body did not come within {self._read_s:g} s")
            await send_error(late, scope, receive, send, close=True)
            return
        except UserError as e:
            await send_error(e, scope, receive, send, close=True)
            return
        on_request = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def again() -> Message:
            return next(on_request, None) or await receive()

        await self._app(scope, again, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        claimed = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if claimed.isdigit() and (len(claimed) > 18 or int(claimed) > self._max_bytes):
            self._too_large()
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            piece: bytes = message.get("body", b"")
            size += len(piece)
            if size > self._max_bytes:
                self._too_large()
            pieces.append(piece)
            if not message.get("more_body", False):
                return b"".join(pieces)

    def _too_large(self) -> NoReturn:
        raise BodyTooLarge(f"the body has more than {self._max_bytes} bytes", hint="send less")


def check_json(body: bytes, max_depth: int = MAX_DEPTH) -> None:
    """Refuse what no part after this should have to deal with; what is no JSON otherwise is left to the parser.

    Args:
        body: The body; may be empty.
        max_depth: Maximum number of brackets within one another.

    Raises:
        UserError: It is not UTF-8, nested too deep, has numbers that no float holds, or text that is no Unicode.
    """
    if not body:
        return
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as e:
        raise UserError(f"the body is not UTF-8: byte {e.start} is wrong", hint="send JSON in UTF-8") from None
    if "\0" in text:  # UTF-16 and UTF-32 are full of these; JSON writes the character as \u0000
        raise UserError("the body has a NUL byte", hint="send JSON in UTF-8")
    if is_too_deep(body, max_depth):
        raise UserError(f"the body is nested deeper than {max_depth} brackets", hint="send something flatter")
    if _SUSPICIOUS.search(body) is None:
        return
    try:
        value = json.loads(text, parse_constant=_no_number, parse_float=_finite)
        for one in _texts(value):
            one.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError("the body has half a surrogate pair, which is no Unicode text") from None
    except ReasonError:
        raise
    except ValueError:  # no JSON, or an integer of thousands of digits: the parser after this will report it
        return


def is_too_deep(body: bytes, depth: int) -> bool:
    """Whether brackets outside strings lie more than `depth` within one another; those that never end count as well.

    Takes time in proportion to the length, whatever the body is.
    """
    if body.count(b"[") + body.count(b"{") <= depth:
        return False
    brackets = _STRINGS.sub(b"", body).translate(_BRACKETS, _NOT_BRACKETS)
    if not brackets:
        return False
    level = np.cumsum(np.where(np.frombuffer(brackets, np.uint8) == ord("["), 1, -1), dtype=np.int64)
    outside = np.minimum(np.minimum.accumulate(level), 0)  # one that closes nothing opens nothing either
    return bool((level - outside).max() > depth)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, dict):
        for key, one in value.items():
            yield key
            yield from _texts(one)


def _no_number(name: str) -> NoReturn:
    raise UserError(f"the body has {name}, which is no JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise UserError(f"the body has the number {text[:24]}, which no float holds")
    return value


RequestObserver = Callable[[str, str, int, float, str], None]
"""Receives method, route, status, seconds and error code (or none) of each request that has ended."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_NO_ROUTE = "(none)"
_KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_CLIENT_GONE = 499
_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
_API_CSP = "default-src 'none'; frame-ancestors 'none'"
_SWAGGER = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/"
_DOCS_CSP = (
    f"default-src 'none'; script-src {_SWAGGER} 'unsafe-inline'; style-src {_SWAGGER} 'unsafe-inline'; "
    "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""For pages without a policy of their own: FastAPI's `/docs`, which holds nothing of users or models."""


class AccessLogMiddleware:
    """Around everything else: each request gets a name, headers, a line in the log and a place in the metrics.

    It keeps in the request's `state`: `request_id`. It reads there what the layers inside know: `caller`, `run_id`,
    `rate_headers`, `error_code`.

    Args:
        app: What answers.
        on_request: Receives each request that has ended.
        clock: Monotonic seconds; replaced in tests.
    """

    def __init__(
        self, app: ASGIApp, *, on_request: RequestObserver | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app, self._on_request, self._clock = app, on_request, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = name = _name_of(scope)
        begun = self._clock()
        status = 0
        is_complete = False

        async def send_and_record(message: Message) -> None:
            nonlocal status, is_complete
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(message, name, state.get("rate_headers") or {})
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                is_complete = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_record)
        except Exception as e:  # noqa: BLE001 (the outermost layer: one answer, one line, and no text of the error)
            if not isinstance(e, OSError) or not status:  # a connection that broke is no fault of ours
                log_fault("fault", e, request_id=name, route=_route(scope))
            if not status:
                on_request = make_error_object(f"{INTERNAL} (request {name})", 500, code="internal")
                await JSONResponse({"error": on_request}, 500)(scope, receive, send_and_record)
        finally:
            self._note(scope, status if is_complete or not status else _CLIENT_GONE, self._clock() - begun)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        """The line of a request; one that never began to be answered was left by its caller."""
        state = scope["state"]
        status = status or _CLIENT_GONE
        caller = state.get("caller")
        method = scope["method"] if scope["method"] in _KNOWN_METHODS else "OTHER"
        route = _route(scope)
        log_event(
            "request",
            logging.ERROR if status >= 500 and status != 503 else logging.INFO,
            request_id=state["request_id"],
            key_id=getattr(caller, "key_id", None) or None,
            run_id=state.get("run_id"),
            method=method,
            route=route,
            status=status,
            code=state.get("error_code"),
            seconds=round(seconds, 6),
        )
        if self._on_request is not None:
            self._on_request(method, route, status, seconds, state.get("error_code") or "")


def _name_of(scope: Scope) -> str:
    """The name that the caller gave the request, if it is fit for headers and logs; else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            sent_id = value.decode("latin-1")
            if _REQUEST_ID.fullmatch(sent_id):
                return str(sent_id)
    return f"req_{secrets.token_hex(12)}"


def _route(scope: Scope) -> str:
    """The route's pattern, never the path itself, which may be anything."""
    return str(getattr(scope.get("route"), "path", None) or _NO_ROUTE)


def _add_headers(message: Message, name: str, rate: Mapping[str, str]) -> None:
    message.setdefault("headers", [])
    headers = MutableHeaders(scope=message)
    headers["x-request-id"] = name
    for header, value in {**_HEADERS, **rate}.items():
        headers.setdefault(header, value)
    if headers.get("content-type", "").startswith("text/html"):  # other pages say themselves what they load
        headers.setdefault("content-security-policy", _DOCS_CSP)
    else:
        headers.setdefault("content-security-policy", _API_CSP)
        headers.setdefault("cache-control", "no-store")


_METHODS = ("GET", "POST", "DELETE")
_SCHEMA_HEADERS = ("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "X-Request-Id", "traceparent")
_TOLD = (
    "X-Request-Id",
    "Retry-After",
    *(f"x-ratelimit-{what}-{kind}" for what in ("limit", "remaining", "reset") for kind in ("requests", "tokens")),
)


class GuardStore(KeyStore, SpendingStore, Protocol):
    """What is needed of the run store."""


class ObservedRun(Protocol):
    """What is needed of a run that is about to begin."""

    config: RunConfig
    caller: Caller
    requested_at_s: float


class RequestGuard:
    """What is between the network and the run manager, and lives as long as the app.

    Args:
        serve: How to serve.
        environ: The environment, which states where spans go; None is the process's own.

    Raises:
        UserError: The environment names an exporter of spans that is not installed.
    """

    keyring: KeyVerifier
    use: KeyLimiter

    def __init__(self, serve: ServeSettings, environ: Mapping[str, str] | None = None) -> None:
        self._serve = serve
        self.metrics = Metrics(frozenset(STRATEGIES.names()))
        self._tracing = open_tracing(os.environ if environ is None else environ)
        self._tracer = None if self._tracing is None else self._tracing.get_tracer("reason")
        self._traced: set[RunSpans] = set()

    def open(self, store: GuardStore) -> None:
        """Know the store, before the first request comes."""
        self.keyring, self.use = KeyVerifier(store), KeyLimiter(store)

    def admission(self) -> AdmissionQueue:
        """Turns for runs, of which the metrics receive."""
        serve, metrics = self._serve, self.metrics
        return AdmissionQueue(
            serve.max_runs,
            serve.max_queued,
            serve.queue_timeout_s,
            on_change=metrics.observe_admission,
            on_abandoned=metrics.observe_abandoned,
        )

    def observe(self, run: ObservedRun) -> Sink:
        """What receives the events of a run: metrics, log and spans."""
        caller, strategy, serve = run.caller, run.config.strategy, self._serve
        sinks: list[Sink] = [
            self.metrics.run_sink(strategy, run.requested_at_s),
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

        def all_of_them(event: Event) -> None:
            if isinstance(event, TextDelta):
                return  # of text none of them reports, and there is an event for each token
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
        app.add_middleware(BodyLimitMiddleware, max_bytes=serve.max_body_bytes, read_s=BODY_TIMEOUT_S)
        app.add_middleware(AuthMiddleware, serve=serve)
        if serve.cors_origins:
            app.add_middleware(
                CORSMiddleware,
                allow_origins=serve.cors_origins,
                allow_methods=_METHODS,
                allow_headers=_SCHEMA_HEADERS,
                expose_headers=_TOLD,
            )
        app.add_middleware(AccessLogMiddleware, on_request=self.metrics.observe_request)


metrics_router = APIRouter(tags=["operation"])


@metrics_router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "The metrics."}},
)
async def metrics(request: Request) -> Response:
    """Counters and histograms of this process in Prometheus' text format.

    Open where the server listens on a loopback address, else for keys with the scope "admin"; see `public_metrics`.
    """
    gate: RequestGuard = request.app.state.gate
    serve: ServeSettings = request.app.state.serve
    is_open = is_loopback(serve.host) if serve.public_metrics is None else serve.public_metrics
    if not is_open and not (await identify(request.scope)).may("admin"):
        raise PermissionDenied("admin")
    return Response(gate.metrics.exposition(), media_type=CONTENT_TYPE)
