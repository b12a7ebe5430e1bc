"""Errors as callers get them: JSON error objects in OpenAI's format, and the handlers that respond with them.

Texts of a model's side name addresses, may hold keys, and repeat what another system says; those of the run store and
of files name paths. Callers get the error's class and an id instead; the log has the text under that id. `RunErrors`
replaces such texts where a run meets them, so that no event, note, answer or record of the run has them; `public_error`
does so for errors outside of calls to models.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from ..core.errors import (
    BackendError,
    BackendMisconfigured,
    BackendRefused,
    BackendTimeout,
    BackendUnavailable,
    ContextTooLong,
    DataError,
    InvalidResponse,
    ModelNotFound,
    RateLimited,
    ReasonError,
    StoreError,
    UnknownName,
)
from ..core.events import Event, RunFailed, SampleFinished
from ..core.messages import Failure
from ..core.types import Answer
from .logs import log_event, log_fault

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "conflict_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    499: "cancelled_error",
}
MESSAGES_PATH = "/v1/messages"
"""Path of Anthropic's interface, whose errors have Anthropic's format."""
_MESSAGES_TYPES: dict[int | str, str] = {
    402: "billing_error",
    413: "request_too_large",
    503: "overloaded_error",
    504: "timeout_error",
    "insufficient_quota": "billing_error",
    "cancelled_error": "api_error",
    "server_error": "api_error",
}
"""Anthropic's error type by HTTP status, else by ours; those of other errors are equal."""
MAX_MESSAGE_CHARS = 2000
MAX_PARAM_CHARS = 500
INTERNAL = "something went wrong inside the server"
"""The message for unexpected errors."""
_BACKEND_FAILED = "the model backend failed"
_MODEL_MISSING = "the model backend does not serve the model"
HIDDEN = {
    ReasonError.code: INTERNAL,
    StoreError.code: "the server's run store failed",
    DataError.code: "a file of the server is missing or invalid",
    BackendError.code: _BACKEND_FAILED,
    BackendMisconfigured.code: "the model backend cannot be used; the server's operator must check its address and key",
    BackendRefused.code: "the model backend refused the request",
    BackendUnavailable.code: "the model backend is not available",
    BackendTimeout.code: "the model backend did not respond in time",
    RateLimited.code: "the rate limit of the model backend is reached",
    ContextTooLong.code: "the request does not fit the model's context",
    InvalidResponse.code: "the model backend gave an invalid response",
}
"""Codes of errors whose texts callers do not see, with what they see instead."""


def public_error(error: ReasonError, *, run_id: str = "", request_id: str = "") -> ReasonError:
    """The error as callers get it.

    Args:
        error: The error.
        run_id: The run that it ended, if any.
        request_id: The request that it ended, if there is no run. Without an id, nothing is logged.

    Returns:
        The error itself if its text may be shown, else one of the same class with the same attributes. A model that
        its provider does not know becomes a `BackendMisconfigured`: the caller requested one that the server offers.
    """
    # the `DataError` of a request without a run is about what the caller named
    if not _is_hidden(error) or (isinstance(error, DataError) and not run_id):
        return error
    if run_id or request_id:
        log_hidden_error(error.code, str(error), run_id=run_id or None, request_id=request_id or None)
    return _replaced(error, f"run {run_id}" if run_id else f"request {request_id}" if request_id else "")


def log_hidden_error(code: str, text: str, **ids: str | None) -> None:
    """Log an error whose text callers do not see."""
    log_event("error.hidden", logging.WARNING, **ids, code=code, error_text=text)


class RunErrors:
    """Hides the texts of a model's side from a run, and logs each of them once (see `core.run.ErrorFilter`)."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._logged: set[tuple[str, str]] = set()

    def error(self, error: ReasonError, role: str) -> ReasonError:
        """The error of a call as strategies get it."""
        if isinstance(error, StoreError) or not _is_hidden(error):
            return error
        self._log(error.code, str(error), role)
        return _replaced(error, f"run {self._run_id}")

    def failure(self, failure: Failure, role: str) -> Failure:
        """The failure of a sample as strategies, events and the store get it."""
        message = _public_message(failure.code, failure.message, self._run_id)
        if message == failure.message:
            return failure
        self._log(failure.code, failure.message, role)
        return failure.model_copy(update={"message": message})

    def _log(self, code: str, text: str, role: str) -> None:
        if (code, text) not in self._logged:
            self._logged.add((code, text))
            log_hidden_error(code, text, run_id=self._run_id, role=role)


def _is_hidden(error: ReasonError) -> bool:
    if getattr(error, "is_public", False) or (type(error) is ReasonError and error.message.startswith(INTERNAL)):
        return False
    return _text_for(type(error)) is not None or _is_missing_model(error)


def _text_for(kind: type[ReasonError]) -> str | None:
    """What callers see of errors of a class; None if their own text."""
    if kind is not ReasonError and not issubclass(kind, BackendError | BackendMisconfigured | StoreError | DataError):
        return None
    codes = (str(vars(one).get("code")) for one in kind.__mro__)
    return next(HIDDEN[code] for code in codes if code in HIDDEN)


def _is_missing_model(error: ReasonError) -> bool:
    """Whether a model's provider does not know it; `ModelNotFound` is about what the caller named."""
    return isinstance(error, UnknownName) and error.kind == "model" and not isinstance(error, ModelNotFound)


def _replaced(error: ReasonError, name: str) -> ReasonError:
    """The error with the text for callers."""
    if _is_missing_model(error):
        public: ReasonError = BackendMisconfigured("")
        text = _MODEL_MISSING
    else:
        public = type(error).__new__(type(error))
        public.__dict__.update(error.__dict__)
        text = _text_for(type(error)) or INTERNAL
    if isinstance(error, ContextTooLong) and error.limit:
        text += f": it needs {error.tokens} tokens of {error.limit}"
    public.message, public.hint = f"{text} ({name})" if name else text, ""
    public.args = (public.message,)
    public.is_public = True  # type: ignore[attr-defined]
    return public


def _public_message(code: str, message: str, run_id: str = "") -> str:
    """The message of an error or a failure for callers; one that is for callers already stays."""
    kind = _class_of(code)
    text = None if kind is None else _text_for(kind)
    if text is None or message.startswith((text, _MODEL_MISSING)):
        return message
    return f"{text} (run {run_id})" if run_id else text


def public_stored_error(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The stored error of a run as callers get it; the store has the text of a fault or of a run of the CLI."""
    return {**stored, "message": _public_message(str(stored.get("code")), str(stored.get("message")))}


def public_event(event: Event) -> Event:
    """An event as callers get it, without the texts of `HIDDEN` errors."""
    if isinstance(event, RunFailed):
        return event.model_copy(update={"message": _public_message(event.code, event.message, event.run_id)})
    if isinstance(event, SampleFinished) and (failure := event.completion.failure) is not None:
        message = _public_message(failure.code, failure.message, event.run_id)
        completion = event.completion.model_copy(update={"failure": Failure(code=failure.code, message=message)})
        return event.model_copy(update={"completion": completion})
    return event


def error_object(error: ReasonError) -> dict[str, Any]:
    """Convert an error to the value of `error` in a response or in the last event of a stream.

    Args:
        error: The error.

    Returns:
        `message`, `type`, `param` and `code`, and `partial`, the best answer so far, if the error carries one.
    """
    error = public_error(error)
    error_object = make_error_object(
        str(error), error.http_status, code=error.code, param=getattr(error, "param", None)
    )
    partial = getattr(error, "partial", None)
    if isinstance(partial, Answer):
        error_object["partial"] = partial.model_dump(mode="json")
    return error_object


def make_error_object(
    message: str, status: int, *, code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    """An error object for an HTTP status without an error class. Names and values of a request in it are cut."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    param = None if param is None else _cut(param, MAX_PARAM_CHARS)
    return {"message": _cut(message, MAX_MESSAGE_CHARS), "type": kind, "param": param, "code": code}


def error_body(
    error: Mapping[str, Any], *, path: str, request_id: str = "", status: int | None = None
) -> dict[str, Any]:
    """The body of an error response, or the last event of a stream, in the format of the interface of a path.

    Args:
        error: The error object.
        path: Path of the request.
        request_id: Id of the request, which Anthropic's format repeats.
        status: HTTP status of the response; None in a stream that has begun.
    """
    if not path.startswith(MESSAGES_PATH):
        return {"error": error}
    kind = _MESSAGES_TYPES.get(status or 0) or _MESSAGES_TYPES.get(error["type"], error["type"])
    error = {**error, "type": kind, "details": {"error_code": error["code"]}}
    return {"type": "error", "error": error, "request_id": request_id or None}


def _cut(text: str, max_chars: int) -> str:
    return text if len(text) <= max_chars else f"{text[: max_chars - 1]}…"


def error_from(stored: Mapping[str, Any], partial: Answer | None = None) -> ReasonError:
    """The error that a run ended with, from its code and message in the run store; `partial` is its best answer."""
    kind = _class_of(str(stored.get("code") or "")) or ReasonError
    error = kind.__new__(kind)  # constructors differ, and only the message is known here
    ReasonError.__init__(error, str(stored.get("message") or ""))
    vars(error).update(dict.fromkeys(("param", "kind", "name", "retry_after_s", "limit")), partial=partial)
    return error


def _class_of(code: str) -> type[ReasonError] | None:
    return next((kind for kind in _tree(ReasonError) if vars(kind).get("code") == code), None)


def _tree(root: type[ReasonError]) -> Iterator[type[ReasonError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _tree(kind)


RETRY_AFTER_S = 1
"""`Retry-After` in seconds for errors without an estimate."""
NO_RETRY = {"x-should-retry": "false"}
"""Tells OpenAI's and Anthropic's clients not to repeat a request, as they do after 409 and from 500 on."""
PERMANENT = frozenset({409, 424, 501})
"""Statuses of errors that the same request gets again."""


def install_error_handlers(app: FastAPI) -> None:
    """Install handlers that respond with error objects; `AccessLogMiddleware` handles unexpected exceptions."""
    app.add_exception_handler(ReasonError, _reason_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)


def error_response(error: ReasonError, scope: Scope) -> JSONResponse:
    """The response for an error of a request, with `Retry-After` for the statuses 429 and 503."""
    status = error.http_status
    # what can pass was tried again here; only a model that cannot be reached, or its rate limit, may pass later
    is_final = isinstance(error, BackendError) and not isinstance(error, BackendUnavailable | RateLimited)
    headers = dict(NO_RETRY) if status in PERMANENT or is_final else {}
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
