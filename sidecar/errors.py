"""Exception handlers of the server: every error becomes a response with one JSON error object."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from ..core.errors import ReasonError, StoreError
from .error_objects import error_body, error_object, make_error_object, public_error
from .logs import log_fault

RETRY_AFTER_S = 1
"""`Retry-After` in seconds for errors without an estimate."""


def install_error_handlers(app: FastAPI) -> None:
    """Install handlers that respond with error objects; `AccessLogMiddleware` handles unexpected exceptions."""
    app.add_exception_handler(ReasonError, _reason_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)


def error_response(error: ReasonError, scope: Scope) -> JSONResponse:
    """The response for an error of a request, with `Retry-After` for the statuses 429 and 503."""
    status = error.http_status
    headers: dict[str, str] = {}
    if status in (429, 503):
        wait = getattr(error, "retry_after_s", None)
        headers["Retry-After"] = str(RETRY_AFTER_S if wait is None else max(1, math.ceil(wait)))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return error_json(error_object(error), status, scope, headers)


def error_json(
    error: Mapping[str, Any], status: int, scope: Scope, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The response for an error object, in the format of the interface that the request was sent to."""
    request_id = scope.get("state", {}).get("request_id", "")
    return JSONResponse(
        error_body(error, path=scope.get("path", ""), request_id=request_id, status=status), status, headers
    )


UNREAD_S = 5.0
"""Maximum time for which the rest of a refused body is dropped, in seconds."""


async def send_error(error: ReasonError, scope: Scope, receive: Receive, send: Send, *, unread: bool) -> None:
    """Respond to a request with an error from a middleware, and close the connection.

    An `unread` body is dropped first: a connection that is closed with data unread is reset, and the client may lose
    the response.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(UNREAD_S):
            while unread and (await receive()).get("more_body", False):
                pass
    response = _public_response(scope, error)
    response.headers["Connection"] = "close"
    await response(scope, receive, send)


async def _reason_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ReasonError)
    return _public_response(request.scope, error)


def _public_response(scope: Scope, error: ReasonError) -> JSONResponse:
    """The response for an error as callers see it; the request's state gets its code, for the log and the metrics."""
    state = scope.setdefault("state", {})
    state["error_code"] = error.code
    request_id = state.get("request_id", "")
    if isinstance(error, StoreError):
        log_fault("store.failed", error, request_id=request_id or None)
    return error_response(public_error(error, request_id=request_id), scope)


async def _invalid(request: Request, error: Exception) -> Response:
    """Respond to an invalid body or parameter with the first validation error and its location."""
    assert isinstance(error, RequestValidationError)
    first: dict[str, Any] = dict(next(iter(error.errors()), {"loc": (), "msg": "the request is not valid"}))
    location = [str(part) for part in first["loc"] if part not in ("body", "query", "path", "header")]
    param = ".".join(location) or None
    detail = fault_detail(first)
    message = f"{param}: {detail}" if param else detail
    status = 400 if first.get("type") == "json_invalid" else 422
    return error_json(make_error_object(message, status, code="invalid_request", param=param), status, request.scope)


def fault_detail(fault: Mapping[str, Any]) -> str:
    """What is wrong with a field, from a validation error; of an unknown name, with the name."""
    detail = str(fault["msg"]).removeprefix("Value error, ")
    return f"{detail}, got {fault['input']!r}" if fault.get("type") == "literal_error" else detail


async def _http_error(request: Request, error: Exception) -> Response:
    """Respond to an error of the framework, such as an unknown path or method."""
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}.get(error.status_code, "http_error")
    error_object = make_error_object(str(error.detail), error.status_code, code=code)
    return error_json(error_object, error.status_code, request.scope, error.headers)


async def _unexpected(request: Request, error: Exception) -> Response:
    """Leave an unexpected error to `AccessLogMiddleware`."""
    raise error
