"""Converts errors to JSON error objects in OpenAI's format, and back; shared by server and client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from ..core.errors import BackendError, ReasonError, StoreError
from ..core.events import Event, RunFailed
from ..core.messages import parse_json
from ..core.types import Answer

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
INTERNAL = "something went wrong inside the server"
"""The message for unexpected errors, whose own text is not shown to callers."""
_ATTRIBUTES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("param", "kind", "name", "feature", "model"), str),
    **dict.fromkeys(("retry_after_s", "tokens", "limit", "used"), (int, float)),
}
"""Attributes that errors may carry in addition to their message."""
STORE_FAILED = "the server's run store failed"
"""The message for errors of the run store, whose own text may name files, hosts and processes."""


def error_object(error: ReasonError, param: str | None = None) -> dict[str, Any]:
    """Convert an error to the value of `error` in a response or in the last event of a stream.

    Args:
        error: The error.
        param: The request field at fault; None uses the error's own `param`.

    Returns:
        `message`, `type`, `param` and `code`, and `partial`, the best answer so far, if the error carries one.
    """
    message = STORE_FAILED if isinstance(error, StoreError) else str(error)
    error_object = make_error_object(
        message, error.http_status, code=error.code, param=param or getattr(error, "param", None)
    )
    partial = getattr(error, "partial", None)
    if isinstance(partial, Answer):
        error_object["partial"] = partial.model_dump(mode="json")
    return error_object


def make_error_object(
    message: str, status: int, *, code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    """An error object for an HTTP status without an error class."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"message": message, "type": kind, "param": param, "code": code}


def stored_error_object(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The stored error of a run for callers; messages of internal and store errors are replaced."""
    hidden = {ReasonError.code: INTERNAL, StoreError.code: STORE_FAILED}.get(str(stored.get("code")))
    return dict(stored) if hidden is None else {**stored, "message": hidden}


def event_json(event: Event) -> Event:
    """An event for callers; a `RunFailed` event gets the message of `stored_error_object`."""
    if not isinstance(event, RunFailed):
        return event
    return event.model_copy(update=stored_error_object({"code": event.code, "message": event.message}))


def parse_error_object(content: bytes | str) -> Mapping[str, Any] | None:
    """The `error` object of a response body or event; None if there is none, as in a proxy's error page."""
    try:
        body = parse_json(content.decode() if isinstance(content, bytes) else content)
    except ValueError:
        return None
    error_object = body.get("error") if isinstance(body, dict) else None
    return error_object if isinstance(error_object, dict) else None


def error_from(error_object: Mapping[str, Any], status: int = 500, partial: Answer | None = None) -> ReasonError:
    """Create the error that an error object describes.

    The class is the one with the object's code. An unknown code gives `BackendError` for the statuses 502, 503 and 504,
    else `ReasonError`.

    Args:
        error_object: The error object, or code and message from the run store. Attributes of the wrong type become
            None.
        status: The HTTP status of the response.
        partial: The best answer so far; None uses the object's `partial`.
    """
    code, message = str(error_object.get("code") or ""), str(error_object.get("message") or "the server gave no reason")
    kind = next((k for k in _tree(ReasonError) if "code" in vars(k) and k.code == code), None)
    if kind is None:
        kind = BackendError if status in (502, 503, 504) else ReasonError
    error = kind.__new__(kind)  # constructors differ, and only the message is known here
    ReasonError.__init__(error, message)
    for name, kinds in _ATTRIBUTES.items():
        if not hasattr(error, name):
            value = error_object.get(name)
            setattr(error, name, value if isinstance(value, kinds) else None)
    error.partial = partial or _partial(error_object.get("partial"))  # type: ignore[attr-defined]
    return error


def _partial(error_object: Any) -> Answer | None:
    try:
        return None if error_object is None else Answer.model_validate(error_object)
    except ValidationError:  # an answer of another version
        return None


def _tree(root: type[ReasonError]) -> Iterator[type[ReasonError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _tree(kind)
