"""ASGI middleware of the sidecar: body limits, access log, security headers, metrics and tracing.

`BodyLimitMiddleware` limits the size, read time and nesting depth of request bodies before they are parsed.
`AccessLogMiddleware` is the outermost layer: it assigns request ids, measures, counts and logs requests, and responds
to unexpected exceptions. `RequestGuard` owns the key verifier, limits, metrics and traces of one application and
installs the middleware.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NoReturn

import orjson
from fastapi import APIRouter, FastAPI, Request, Response
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..core.clock import monotonic
from ..core.errors import PermissionDenied, StoreError, UserError
from ..core.events import RUN_ENDS, Event, Sink, TextDelta
from ..core.settings import ServeSettings
from ..reasoning.strategy import STRATEGIES
from .admission import AdmissionQueue
from .auth import AuthMiddleware, KeyVerifier, identify, is_loopback
from .errors import INTERNAL, MESSAGES_PATH, error_json, make_error_object, send_error
from .key_limits import KeyLimiter, RequestCounter
from .key_store import KeyStore
from .logs import RunLog, log_event, log_fault
from .metrics import CONTENT_TYPE, Metrics
from .native.routes import STORE_TIMEOUT_S
from .run_manager import RunManager
from .runs import LiveRun
from .tracing import RunSpans, close_tracing, open_tracing

MAX_BODY_BYTES = 4 << 20
"""Maximum size of a request's body."""
MAX_DEPTH = 100
"""Maximum nesting depth of JSON arrays and objects."""
MAX_VALUES = 100_000
"""Maximum number of JSON values in a body. 4 MiB hold two million, whose validation takes seconds; 10,000 messages or
1,024 tools are fewer than 50,000."""
BODY_TIMEOUT_S = 30.0
"""Maximum time to receive a request body, in seconds."""


class BodyTooLarge(UserError):
    """The request body exceeds the maximum size."""

    code = "too_large"
    http_status = 413


class BodyTimeout(UserError):
    """The request body was not received in time."""

    code = "too_slow"
    http_status = 408


class BodyLimitMiddleware:
    """Reads each request body in full and rejects bodies that fail `check_json`.

    A `Content-Length` above the limit is rejected without reading; otherwise the received bytes count. Responses pass
    through unchanged.

    Args:
        app: The next ASGI application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read and check the body, then pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_read = False

        async def read() -> Message:
            nonlocal is_read
            message = await receive()
            is_read = not message.get("more_body", False)
            return message

        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                body = await self._read(scope, read)
            if body is None:  # the client disconnected
                return
            check_json(body)
        except TimeoutError:
            late = BodyTimeout(f"the body was not received within {BODY_TIMEOUT_S:g} s")
            await send_error(late, scope, receive, send, unread=False)
            return
        except UserError as e:
            await send_error(e, scope, receive, send, unread=not is_read)
            return
        on_request = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def again() -> Message:
            return next(on_request, None) or await receive()

        await self._app(scope, again, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        claimed = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if claimed.isdigit() and (len(claimed) > 18 or int(claimed) > MAX_BODY_BYTES):
            self._too_large()
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            piece: bytes = message.get("body", b"")
            size += len(piece)
            if size > MAX_BODY_BYTES:
                self._too_large()
            pieces.append(piece)
            if not message.get("more_body", False):
                return b"".join(pieces)

    def _too_large(self) -> NoReturn:
        raise BodyTooLarge(f"the body exceeds {MAX_BODY_BYTES} bytes", hint="send a smaller body")


def check_json(body: bytes) -> None:
    """Reject a body that is no JSON, or that takes long to validate; an empty one passes.

    Non-finite numbers and lone surrogates are no JSON.

    Raises:
        UserError: The body is invalid, has more than `MAX_VALUES` values, or is nested deeper than `MAX_DEPTH`.
    """
    if not body:
        return
    too_many = BodyTooLarge(f"the body has more than {MAX_VALUES:,} JSON values", hint="send fewer")
    if _has_too_many_values(body):  # parsing it would take long
        raise too_many
    try:
        level = [orjson.loads(body)]
    except orjson.JSONDecodeError as e:
        raise UserError("the body is not valid JSON", hint=str(e)) from None
    num_values = 0
    for _ in range(MAX_DEPTH + 1):
        containers = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        if not containers:
            return
        level = [child for container in containers for child in container]
        num_values += len(level)
        if num_values > MAX_VALUES:
            raise too_many
    raise UserError(f"the body is nested deeper than {MAX_DEPTH} levels", hint="send a flatter body")


def _has_too_many_values(body: bytes) -> bool:
    """Whether the marks around values are more than `MAX_VALUES` values have; characters in strings do not count."""
    if _separators(body) <= 2 * MAX_VALUES:
        return False
    unescaped = body.replace(rb"\\", b"").replace(rb"\"", b"")
    if unescaped.count(b'"') > 4 * (MAX_VALUES + 1):  # a value has two strings at most, one is its key
        return True
    return _separators(b"".join(unescaped.split(b'"')[::2])) > 2 * MAX_VALUES


def _separators(text: bytes) -> int:
    """Commas and opening brackets: outside strings, a value has at most one of each."""
    return text.count(b",") + text.count(b"[") + text.count(b"{")


RequestObserver = Callable[[str, str, int, float, str], None]
"""Called with method, route, status, duration in seconds and error code (or "") of each finished request."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_NO_ROUTE = "(none)"
_KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_CLIENT_GONE = 499
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_API_HEADERS = (
    *_HEADERS,
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)
_SWAGGER = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/"
_DOCS_CSP = (
    f"default-src 'none'; script-src {_SWAGGER} 'unsafe-inline'; style-src {_SWAGGER} 'unsafe-inline'; "
    "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Policy for HTML pages that set none, which is FastAPI's `/docs`; it shows no text of users or models."""
_PAGE_HEADERS = (*_HEADERS, (b"content-security-policy", _DOCS_CSP.encode()))


class AccessLogMiddleware:
    """The outermost middleware: adds a request id and security headers, and logs and counts each request.

    It sets `request_id` in the request's `state`, and reads `caller`, `run_id`, `is_replayed`, `rate_headers` and
    `error_code`, which inner layers set.

    Args:
        app: The next ASGI application.
        on_request: Called for each finished request.
    """

    def __init__(self, app: ASGIApp, *, on_request: RequestObserver | None = None) -> None:
        self._app, self._on_request = app, on_request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and log and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = name = _name_of(scope)
        begun = monotonic()
        status = 0
        is_complete = False

        async def send_and_record(message: Message) -> None:
            nonlocal status, is_complete
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = state.get("rate_headers") or {}
                if state.get("is_replayed"):
                    headers = {**headers, "idempotent-replayed": "true"}
                if scope["path"].startswith(MESSAGES_PATH):
                    headers = {**headers, "request-id": name}  # where Anthropic's clients look for it
                _add_headers(message, name, headers)
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                is_complete = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_record)
        except Exception as e:  # noqa: BLE001 (the outermost layer: one response, one log line, no error text)
            if not isinstance(e, OSError) or not status:  # a broken connection is not a fault
                log_fault("fault", e, request_id=name, route=_route(scope))
            if not status:
                on_request = make_error_object(f"{INTERNAL} (request {name})", 500, code="internal")
                await error_json(on_request, 500, scope)(scope, receive, send_and_record)
        finally:
            self._note(scope, status if is_complete or not status else _CLIENT_GONE, monotonic() - begun)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        """Log and count a request; a request without a response counts as abandoned by the client (499)."""
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
    """The `X-Request-Id` of the client if it is safe for headers and logs, else a new id."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            sent_id = value.decode("latin-1")
            if _REQUEST_ID.fullmatch(sent_id):
                return str(sent_id)
    return f"req_{secrets.token_hex(12)}"


def _route(scope: Scope) -> str:
    """The pattern of the route, never the path, which may contain anything."""
    return str(getattr(scope.get("route"), "path", None) or _NO_ROUTE)


def _add_headers(message: Message, name: str, rate: Mapping[str, str]) -> None:
    headers = [pair for pair in message.get("headers", ()) if pair[0] != b"x-request-id"]
    given = dict(headers)
    is_page = given.get(b"content-type", b"").startswith(b"text/html")  # other pages set their own policy
    own = _PAGE_HEADERS if is_page else _API_HEADERS
    headers += [pair for pair in (own if not rate else (*own, *_in_bytes(rate))) if pair[0] not in given]
    message["headers"] = [(b"x-request-id", name.encode("latin-1")), *headers]


def _in_bytes(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


_METHODS = ("GET", "POST", "DELETE")
_TOLD = (
    "X-Request-Id",
    "Retry-After",
    "Location",
    "Idempotent-Replayed",
    *(f"x-ratelimit-{what}-{kind}" for what in ("limit", "remaining", "reset") for kind in ("requests", "tokens")),
)


class RequestGuard:
    """Authentication, limits, metrics and tracing of one app; lives as long as the app.

    Args:
        serve: Server settings.
        environ: Environment variables that configure OpenTelemetry's exporters; None uses `os.environ`.

    Raises:
        UserError: The environment names an exporter that is not installed.
    """

    keyring: KeyVerifier
    use: KeyLimiter

    def __init__(self, serve: ServeSettings, environ: Mapping[str, str] | None = None) -> None:
        self._serve = serve
        self.metrics = Metrics(frozenset(STRATEGIES.names()))
        environ = os.environ if environ is None else environ
        self._tracing = open_tracing(environ)
        self._tracer = None if self._tracing is None else self._tracing.get_tracer("reason")
        self._traced: set[RunSpans] = set()

    def open(self, store: KeyStore, requests: RequestCounter | None = None) -> None:
        """Attach the keys and the counts of requests; call it before the first request."""
        self.keyring, self.use = KeyVerifier(store), KeyLimiter(store, requests)

    def admission(self) -> AdmissionQueue:
        """Create the admission queue, which reports to the metrics."""
        serve, metrics = self._serve, self.metrics
        return AdmissionQueue(
            serve.max_runs,
            serve.max_queued,
            on_change=metrics.observe_admission,
            on_abandoned=metrics.observe_abandoned,
        )

    def observe(self, run: LiveRun) -> Sink:
        """Create the event sink of a run, which feeds metrics, log and spans."""
        caller, strategy, serve = run.caller, run.config.strategy, self._serve
        log = RunLog(strategy, request_id=caller.request_id, key_id=caller.key_id, content=serve.log_content)
        sinks: list[Sink] = [self.metrics.run_sink(strategy, run.requested_at_s)]
        if self._tracer is not None:
            sinks.append(
                RunSpans(
                    self._tracer,
                    traceparent=caller.traceparent,
                    tracestate=caller.tracestate,
                    request_id=caller.request_id,
                    open_runs=self._traced,
                )
            )

        def all_of_them(event: Event) -> None:
            if type(event) is TextDelta:
                return  # no sink uses text deltas, and there is one for each token
            for sink in sinks:
                sink(event)
            if isinstance(event, RUN_ENDS):
                log(event)

        return all_of_them

    async def aclose(self) -> None:
        """Close and export the open spans, and remove this process's gauges."""
        self.metrics.close()
        for run in list(self._traced):
            run.close()
        if self._tracing is not None:
            await close_tracing(self._tracing)

    def guard(self, app: FastAPI, inner: ASGIApp) -> ASGIApp:
        """The middleware around `inner`; adds the route `/metrics` to the app. Call it before the app starts.

        The order from the outside: access log, CORS, authentication, body limits.
        """
        serve = self._serve
        app.state.gate = self
        app.include_router(metrics_router)
        inner = BodyLimitMiddleware(inner)
        inner = AuthMiddleware(inner, serve=serve)
        if serve.cors_origins:
            inner = CORSMiddleware(
                inner,
                allow_origins=serve.cors_origins,
                allow_methods=_METHODS,
                allow_headers=("*",),  # clients send their own, as the OpenAI SDK does; cookies are never allowed
                expose_headers=_TOLD,
            )
        return AccessLogMiddleware(inner, on_request=self.metrics.observe_request)


metrics_router = APIRouter(tags=["operation"])


@metrics_router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "The metrics."}},
)
async def metrics(request: Request) -> Response:
    """Counters and histograms of this process in Prometheus' text format.

    Public if the server listens on a loopback address, else for keys with the scope "admin"; the setting
    `public_metrics` overrides this.
    """
    gate: RequestGuard = request.app.state.gate
    serve: ServeSettings = request.app.state.serve
    is_open = is_loopback(serve.host) if serve.public_metrics is None else serve.public_metrics
    if not is_open and not (await identify(request.scope)).may("admin"):
        raise PermissionDenied("admin")
    run_manager: RunManager = request.app.state.run_manager
    with suppress(StoreError, TimeoutError):  # then the last number stays
        async with asyncio.timeout(STORE_TIMEOUT_S):
            gate.metrics.waiting.set(await run_manager.others.count_waiting())
    return Response(gate.metrics.exposition(), media_type=CONTENT_TYPE)
