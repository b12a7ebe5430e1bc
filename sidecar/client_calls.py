"""What both clients share: how a call is sent, how its reply is read, and how a stream that breaks off goes on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from ..core.errors import (
    BackendError,
    BackendTimeout,
    BackendUnavailable,
    BadReply,
    ReasonError,
    UserError,
)
from ..core.events import EVENT, EventFields, RunFailed, RunFinished
from ..core.question import Document
from ..core.settings import explain
from .error_objects import error_from, told_error
from .native.replies import Readiness
from .native.requests import AskBody, VerifyBody

ADDRESS = "http://127.0.0.1:8080"
KEY_VARIABLE = "REASON_API_KEY"
TIMEOUT_S = 600.0
RECONNECTS = 8
FIRST_DELAY_S, LONGEST_DELAY_S = 0.25, 5.0

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Call:
    """One request.

    Attributes:
        method: "GET", "POST" or "DELETE".
        path: Where to.
        body: Its body; None is none.
        params: Its query.
        headers: Its headers.
    """

    method: str
    path: str
    body: BaseModel | None = None
    params: Mapping[str, str | int] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """As httpx takes them."""
        headers = dict(self.headers)
        content: bytes | None = None
        if self.body is not None:
            headers["Content-Type"] = "application/json"
            content = self.body.model_dump_json(exclude_unset=True).encode()
        return {
            "method": self.method,
            "url": self.path,
            "params": dict(self.params),
            "headers": headers,
            "content": content,
        }


def options_of(base_url: str, api_key: str | None, timeout_s: float) -> dict[str, Any]:
    """How an httpx client is made.

    Raises:
        UserError: The address is none.
    """
    if not base_url.startswith(("http://", "https://")):
        raise UserError(f"{base_url!r} is not the address of a server", hint=f"for example {ADDRESS}")
    key = os.environ.get(KEY_VARIABLE) if api_key is None else api_key
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return {"base_url": base_url, "headers": headers, "timeout": httpx.Timeout(timeout_s, connect=10.0)}


def ask_body(question: str, documents: Sequence[Document | Mapping[str, str]], options: Mapping[str, Any]) -> AskBody:
    """The body of a question.

    Raises:
        UserError: A field does not exist or is not as it should be; names it.
    """
    return _body(AskBody, {"question": question, **_given(documents), **options})


def verify_body(text: str, documents: Sequence[Document | Mapping[str, str]], options: Mapping[str, Any]) -> VerifyBody:
    """The body of a verification; raises as `ask_body`."""
    return _body(VerifyBody, {"text": text, **_given(documents), **options})


def named(idempotency_key: str | None) -> dict[str, str]:
    """The header of an idempotency key."""
    return {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}


def read(response: httpx.Response, kind: type[M]) -> M:
    """A reply.

    Raises:
        ReasonError: What the server refused it with, of the class that it is there.
        BadReply: It is none of this API.
    """
    refuse(response)
    return _parsed(response, kind)


def _parsed(response: httpx.Response, kind: type[M]) -> M:
    try:
        return kind.model_validate_json(response.content)
    except ValidationError as e:
        raise BadReply(
            f"the reply to {response.request.url.path} is not one of this API: {e.errors()[0]['msg']}"
        ) from e


def readiness(response: httpx.Response) -> Readiness:
    """The reply of `/readyz`, whose status says as well that the server takes no runs; raises as `read`."""
    if response.status_code == 503 and b'"ready"' in response.content:
        return _parsed(response, Readiness)
    return read(response, Readiness)


def refuse(response: httpx.Response) -> None:
    """Raise what an unsuccessful response tells of; its content was read.

    Raises:
        ReasonError: It was unsuccessful.
    """
    if response.is_success:
        return
    told = told_error(response.content)
    if told is not None:
        error = error_from(told, response.status_code)
    else:  # a proxy, or no server of ours
        shown = f"{response.request.url.path} was answered with status {response.status_code}"
        error = BackendError(shown, hint="is this the address of `reason serve`?")
    wait = response.headers.get("Retry-After", "")
    if wait.isascii() and wait.isdecimal():
        error.retry_after_s = float(wait)  # type: ignore[attr-defined]
    raise error


def unreachable(error: httpx.HTTPError, base_url: str) -> BackendError:
    """A failure of the connection as an error of ours."""
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return BackendTimeout(f"the server at {base_url} did not answer in time")
    return BackendUnavailable(f"the server at {base_url} cannot be reached: {error}", hint="is `reason serve` running?")


class EventReader:
    """Reads server-sent events from their lines."""

    def __init__(self) -> None:
        self._data: list[str] = []
        self._type = ""

    def take(self, line: str) -> EventFields | None:
        """Take a line; where it ends an event that this version knows, that event.

        Raises:
            ReasonError: The stream tells of an error, or of an event that is damaged.
        """
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                self._data.append(value)
            elif name == "event":
                self._type = value
            return None
        data, self._data = "\n".join(self._data), []
        kind, self._type = self._type, ""
        if not data:
            return None
        if kind == "error":
            told = told_error(data)
            raise (
                BadReply("the stream breaks off with an error that cannot be read")
                if told is None
                else error_from(told)
            )
        try:
            event: EventFields = EVENT.validate_json(data)
        except ValidationError as e:
            if any(fault["type"] == "union_tag_invalid" for fault in e.errors()):
                return None  # of a newer server
            raise BadReply(f"an event is not one of this API: {e.errors()[0]['msg']}") from e
        return event


class Following:
    """Where a reader of a run's events is, and whether it goes on after its stream has ended.

    Args:
        after: Number of the last event that is known.
        reconnects: How often in a row a stream may end without a new event.
    """

    def __init__(self, after: int, reconnects: int) -> None:
        self.after = after
        self.ended = False
        """Whether the last event was one that ends a run."""
        self._reconnects, self._in_vain = reconnects, 0

    def call(self, run_id: str, text: bool) -> Call:
        """The request of the next stream."""
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(self.after)}
        return Call("GET", f"{run_path(run_id)}/events", params={"text": "true"} if text else {}, headers=headers)

    def took(self, event: EventFields) -> None:
        """Note an event."""
        self.after = max(self.after, event.number)
        self.ended = isinstance(event, RunFinished | RunFailed)
        self._in_vain = 0

    def again(self, error: ReasonError | None) -> float:
        """Seconds to wait before the next stream.

        Args:
            error: What ended the last one; None if it ended as a stream does.

        Raises:
            ReasonError: Trying again is of no use, or was so too often.
        """
        hopeless = error is not None and error.http_status < 500 and error.http_status != 429
        self._in_vain += 1
        if error is not None and (hopeless or self._in_vain > self._reconnects):
            raise error
        if self._in_vain > self._reconnects:
            raise BackendUnavailable("the run's events break off again and again", hint="is its server shutting down?")
        asked: float | None = getattr(error, "retry_after_s", None)
        backing_off: float = FIRST_DELAY_S * 2.0 ** (self._in_vain - 1)
        return min(LONGEST_DELAY_S, backing_off if asked is None else max(0.0, asked))


def run_path(run_id: str) -> str:
    """Where a run is."""
    return f"/v1/runs/{quote(run_id, safe='')}"


def _given(documents: Sequence[Document | Mapping[str, str]]) -> dict[str, Any]:
    if not documents:
        return {}
    return {"documents": [d.model_dump() if isinstance(d, Document) else dict(d) for d in documents]}


def _body(kind: type[M], values: Mapping[str, Any]) -> M:
    try:
        return kind.model_validate(values)
    except ValidationError as e:
        raise explain(e, "field", kind.model_fields) from e


def pages(limit: int, before: str | None, status: str | None) -> Call:
    """The request of a list of runs."""
    params: dict[str, str | int] = {"limit": limit}
    if before is not None:
        params["before"] = before
    if status is not None:
        params["status"] = status
    return Call("GET", "/v1/runs", params=params)
