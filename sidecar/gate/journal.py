"""`Journal`: the outermost layer. It names requests, times, counts and logs them, and answers what nothing else did."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from fastapi.responses import JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..error_objects import INTERNAL, plain_error
from .log_lines import log_event, log_fault

RequestTold = Callable[[str, str, int, float, str], None]
"""Hears method, route, status, seconds and error code (or none) of each request that has ended."""

_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_NO_ROUTE = "(none)"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_CLIENT_GONE = 499
_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
_NOTHING_LOADS = "default-src 'none'; frame-ancestors 'none'"
_SWAGGER = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/"
_DESCRIPTION_LOADS = (
    f"default-src 'none'; script-src {_SWAGGER} 'unsafe-inline'; style-src {_SWAGGER} 'unsafe-inline'; "
    "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""For pages without a policy of their own: FastAPI's `/docs`, which holds nothing of users or models."""


class Journal:
    """Around everything else: each request gets a name, headers, a line in the log and a place in the metrics.

    It keeps in the request's `state`: `request_id`. It reads there what the layers inside know: `caller`, `run_id`,
    `rate_headers`, `error_code`.

    Args:
        app: What answers.
        told: Hears of each request that has ended.
        clock: Monotonic seconds; replaced in tests.
    """

    def __init__(
        self, app: ASGIApp, *, told: RequestTold | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app, self._told, self._clock = app, told, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = name = _name_of(scope)
        begun = self._clock()
        status = 0
        whole = False

        async def tell(message: Message) -> None:
            nonlocal status, whole
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(message, name, state.get("rate_headers") or {})
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                whole = True
            await send(message)

        try:
            await self._app(scope, receive, tell)
        except Exception as e:  # noqa: BLE001 (the outermost layer: one answer, one line, and no text of the error)
            if not isinstance(e, OSError) or not status:  # a connection that broke is no fault of ours
                log_fault("fault", e, request_id=name, route=_route(scope))
            if not status:
                told = plain_error(f"{INTERNAL} (request {name})", 500, code="internal")
                await JSONResponse({"error": told}, 500)(scope, receive, tell)
        finally:
            self._note(scope, status if whole or not status else _CLIENT_GONE, self._clock() - begun)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        """The line of a request; one that never began to be answered was left by its caller."""
        state = scope["state"]
        status = status or _CLIENT_GONE
        caller = state.get("caller")
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
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
        if self._told is not None:
            self._told(method, route, status, seconds, state.get("error_code") or "")


def _name_of(scope: Scope) -> str:
    """The name that the caller gave the request, if it is fit for headers and logs; else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given = value.decode("latin-1")
            if _SANE_ID.fullmatch(given):
                return str(given)
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
        headers.setdefault("content-security-policy", _DESCRIPTION_LOADS)
    else:
        headers.setdefault("content-security-policy", _NOTHING_LOADS)
        headers.setdefault("cache-control", "no-store")
