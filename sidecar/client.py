"""`SidecarClient`: a Python client of the native API, with the types and errors of the SDK.

A broken event stream resumes after the last event received. The client does not need the server's dependencies.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from ..agents.verification import TextVerification
from ..core.errors import (
    BackendError,
    BackendTimeout,
    BackendUnavailable,
    Cancelled,
    InvalidResponse,
    ReasonError,
    UserError,
)
from ..core.events import EVENT_ADAPTER, Event, RunFailed, RunFinished
from ..core.settings import user_error_of
from ..core.types import Answer, Document
from .error_objects import error_from, parse_error_object
from .native.schemas import (
    AskBody,
    DeletedRun,
    Readiness,
    RegisteredKind,
    RegisteredKinds,
    RunDetail,
    RunPage,
    VerifyBody,
)

DEFAULT_BASE_URL = "http://127.0.0.1:8080"
KEY_VARIABLE = "REASON_API_KEY"
TIMEOUT_S = 600.0
MAX_RECONNECTS = 8
FIRST_DELAY_S, LONGEST_DELAY_S = 0.25, 5.0
POLL_S = 0.25

ModelT = TypeVar("ModelT", bound=BaseModel)
Documents = Sequence[Document | Mapping[str, str]]


class SidecarClient:
    """A client of `reason serve`; a context manager. Thread-safe.

    The keyword options of `ask`, `stream` and `start` are the fields of `sidecar.native.schemas.AskBody` (model,
    strategy, parameters, verify, budget, seed, ...); those of `verify` are the fields of `VerifyBody`. A field that is
    unknown or invalid raises `UserError`, which names it.

    Args:
        base_url: Address of the server.
        api_key: API key; None reads the environment variable `REASON_API_KEY`.
        timeout_s: Read timeout of a response, in seconds; the connect timeout is 10 s.
        reconnects: Maximum number of consecutive event streams that end without a new event.
        transport: httpx transport that replaces the network, for tests.

    Raises:
        UserError: `base_url` is not an HTTP address.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_BASE_URL,
        *,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        reconnects: int = MAX_RECONNECTS,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise UserError(f"{base_url!r} is not an http(s) address", hint=f"for example {DEFAULT_BASE_URL}")
        key = os.environ.get(KEY_VARIABLE) if api_key is None else api_key
        self.base_url = base_url
        self._reconnects = reconnects
        self._http = httpx.Client(
            base_url=base_url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout_s, connect=10.0),
            transport=transport,
        )

    def ask(
        self, question: str, *, documents: Documents = (), idempotency_key: str | None = None, **options: Any
    ) -> Answer:
        """Answer a question.

        Args:
            question: The question.
            documents: Documents that the answer may use as evidence.
            idempotency_key: Requests with the same key share one run, so that a retry costs nothing.
            options: Fields of `AskBody`.

        Raises:
            ReasonError: The errors of `Reasoner.aask`, and those of the server: `AuthenticationError`, `ServerBusy`,
                `KeyLimitExceeded` and others.
        """
        body = _body(AskBody, documents, {"question": question, **options})
        return self._post("/v1/reason", Answer, body, idempotency_key)

    def stream(
        self, question: str, *, documents: Documents = (), text: bool = False, **options: Any
    ) -> Generator[Event, None, None]:
        """Answer a question and yield the run's events, each once; the last one carries the answer.

        The client reconnects after a broken connection. Leaving the loop early cancels the run.

        Args:
            question: The question.
            documents: Documents that the answer may use as evidence.
            text: Whether to stream text deltas.
            options: Fields of `AskBody`.

        Raises:
            ReasonError: The run failed or was cancelled; raised after its events.
        """
        run = self.start(question, documents=documents, **options)
        left = True
        try:
            yield from self.events(run.id, text=text)
            left = False
        finally:
            if left:
                self.cancel(run.id)
        self.result(run.id)

    def verify(
        self, text: str, *, documents: Documents = (), idempotency_key: str | None = None, **options: Any
    ) -> TextVerification:
        """Verify an existing text against documents, in addition to the server's own evidence; raises like `ask`."""
        body = _body(VerifyBody, documents, {"text": text, **options})
        return self._post("/v1/verify", TextVerification, body, idempotency_key)

    def start(
        self, question: str, *, documents: Documents = (), idempotency_key: str | None = None, **options: Any
    ) -> RunDetail:
        """Start a background run, which survives a disconnect of the client and a restart of the server."""
        body = _body(AskBody, documents, {"question": question, **options})
        return self._post("/v1/runs", RunDetail, body, idempotency_key)

    def get(self, run_id: str) -> RunDetail:
        """Return a run, with its answer so far.

        Raises:
            UnknownName: There is no run with this id.
        """
        return self._get(run_path(run_id), RunDetail)

    def list(self, limit: int = 20, **filters: Any) -> RunPage:
        """Return a page of runs, newest first unless requested otherwise.

        Args:
            limit: Maximum number of runs, up to 100.
            filters: The parameters of `GET /v1/runs`: `after` (the `last_id` of the previous page), `status`,
                `strategy`, `model`, `search`, `tag` (`KEY:VALUE`), `sort` ("created", "cost", "tokens", "seconds") and
                `order` ("asc", "desc").

        Raises:
            UnknownName: There is no run `after`.
            ReasonError: A parameter is invalid.
        """
        params = {"limit": limit, **{name: value for name, value in filters.items() if value is not None}}
        return self._get("/v1/runs", RunPage, params=params)

    def cancel(self, run_id: str) -> RunDetail:
        """Cancel a run and keep its partial result; no effect on a run that has ended."""
        return self._post(f"{run_path(run_id)}/cancel", RunDetail)

    def delete(self, run_id: str) -> None:
        """Delete a run that has ended, with its events and model calls.

        Raises:
            UnknownName: There is no run with this id.
            RunConflict: The run is queued or running.
        """
        parse_response(self._send("DELETE", run_path(run_id)), DeletedRun)

    def conclude(self, run_id: str) -> RunDetail:
        """Ask a run for its answer now; no effect on a run that has ended.

        The run ends shortly afterwards, with an answer from what it has (`Answer.stopped` "user"): `wait` returns it.
        """
        return self._post(f"{run_path(run_id)}/answer", RunDetail)

    def resume(self, run_id: str) -> RunDetail:
        """Resume a run that was interrupted or failed; recorded model calls are not paid again.

        Raises:
            RunConflict: The run is finished, or another process executes it.
        """
        return self._post(f"{run_path(run_id)}/resume", RunDetail)

    def events(self, run_id: str, *, after: int = 0, text: bool = False) -> Generator[Event, None, None]:
        """Yield the events of a run until its last one, in order and each once. Reconnects after a broken connection.

        Args:
            run_id: The run.
            after: Number of the last event already received.
            text: Whether to stream text deltas generated from now on.

        Raises:
            ReasonError: The run does not exist, or reconnecting failed.
        """
        cursor = EventCursor(after, self._reconnects)
        path, params = f"{run_path(run_id)}/events", {"text": "true"} if text else {}
        while True:
            broken: ReasonError | None = None
            reader = SSEParser()
            headers = {"Accept": "text/event-stream", "Last-Event-ID": str(cursor.after)}
            try:
                with self._http.stream("GET", path, params=params, headers=headers) as response:
                    if not response.is_success:
                        response.read()
                    raise_for_status(response)
                    for line in response.iter_lines():
                        event = reader.take(line)
                        if event is not None:
                            cursor.advance(event)
                            yield event
                if cursor.ended:
                    return
            except httpx.HTTPError as e:
                broken = self._unreachable(e)
            except ReasonError as e:
                broken = e
            time.sleep(cursor.delay_after(broken))

    def wait(self, run_id: str, *, timeout_s: float | None = None) -> Answer:
        """Wait for a run to end and return its answer.

        Args:
            run_id: The run.
            timeout_s: Maximum wait in seconds; None waits without limit. The run continues after a timeout.

        Raises:
            TimeoutError: The run did not end in time.
            ReasonError: The run failed; `Cancelled` with the partial answer if it was stopped.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            detail = self.get(run_id)
            if detail.status not in ("queued", "running"):
                return _result(detail)
            if end is not None and time.monotonic() >= end:
                raise TimeoutError(f"run {run_id} did not end within {timeout_s:g} s")
            time.sleep(POLL_S if end is None else min(POLL_S, max(0.0, end - time.monotonic())))

    def result(self, run_id: str) -> Answer:
        """Return the answer of a run that has ended; raises like `wait`."""
        return _result(self.get(run_id))

    def strategies(self) -> tuple[RegisteredKind, ...]:
        """Return the strategies, each with the JSON schema of its parameters."""
        return self._get("/v1/strategies", RegisteredKinds).data

    def verifiers(self) -> tuple[RegisteredKind, ...]:
        """Return the verifiers, each with the JSON schema of its parameters."""
        return self._get("/v1/verifiers", RegisteredKinds).data

    def ready(self) -> Readiness:
        """Return whether the server accepts runs, and if not, why."""
        return readiness(self._send("GET", "/readyz"))

    def close(self) -> None:
        """Close the connections; idempotent."""
        self._http.close()

    def __enter__(self) -> SidecarClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _get(self, path: str, kind: type[ModelT], *, params: Mapping[str, Any] | None = None) -> ModelT:
        return parse_response(self._send("GET", path, params=params), kind)

    def _post(
        self, path: str, kind: type[ModelT], body: BaseModel | None = None, idempotency_key: str | None = None
    ) -> ModelT:
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        content = None if body is None else body.model_dump_json(exclude_unset=True)
        if content is not None:
            headers["Content-Type"] = "application/json"
        return parse_response(self._send("POST", path, headers=headers, content=content), kind)

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except httpx.HTTPError as e:
            raise self._unreachable(e) from e

    def _unreachable(self, error: httpx.HTTPError) -> BackendError:
        if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
            return BackendTimeout(f"the server at {self.base_url} did not answer in time")
        return BackendUnavailable(
            f"the server at {self.base_url} cannot be reached: {error}", hint="is `reason serve` running?"
        )


def run_path(run_id: str) -> str:
    """The URL path of a run."""
    return f"/v1/runs/{quote(run_id, safe='')}"


def _body(kind: type[ModelT], documents: Documents, values: Mapping[str, Any]) -> ModelT:
    given = [d.model_dump() if isinstance(d, Document) else dict(d) for d in documents]
    try:
        return kind.model_validate({**values, **({"documents": given} if given else {})})
    except ValidationError as e:
        raise user_error_of(e, "field", kind.model_fields) from e


def parse_response(response: httpx.Response, kind: type[ModelT]) -> ModelT:
    """Parse a response body.

    Raises:
        ReasonError: The server responded with an error; the class is the one raised in the server.
        InvalidResponse: The body does not match the schema.
    """
    raise_for_status(response)
    return _parsed(response, kind)


def _parsed(response: httpx.Response, kind: type[ModelT]) -> ModelT:
    try:
        return kind.model_validate_json(response.content)
    except ValidationError as e:
        raise InvalidResponse(
            f"the reply to {response.request.url.path} is not one of this API: {e.errors()[0]['msg']}"
        ) from e


def readiness(response: httpx.Response) -> Readiness:
    """Parse a response of `/readyz`, which has a body with status 503 too; raises like `parse_response`."""
    if response.status_code == 503 and b'"ready"' in response.content:
        return _parsed(response, Readiness)
    return parse_response(response, Readiness)


def raise_for_status(response: httpx.Response) -> None:
    """Raise the error of an unsuccessful response, whose content must have been read.

    Raises:
        ReasonError: The response was unsuccessful.
    """
    if response.is_success:
        return
    error_object = parse_error_object(response.content)
    if error_object is not None:
        error = error_from(error_object, response.status_code)
    else:  # from a proxy or a different server
        shown = f"{response.request.url.path} was answered with status {response.status_code}"
        error = BackendError(shown, hint="is this the address of `reason serve`?")
    wait = response.headers.get("Retry-After", "")
    if wait.isascii() and wait.isdecimal():
        error.retry_after_s = float(wait)  # type: ignore[attr-defined]
    raise error


class SSEParser:
    """Parses server-sent events line by line."""

    def __init__(self) -> None:
        self._data: list[str] = []
        self._type = ""

    def take(self, line: str) -> Event | None:
        """Process a line; return the event that it completes, if any. Unknown event types are skipped.

        Raises:
            ReasonError: The stream ends with an error.
            InvalidResponse: An event does not match the schema.
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
            error_object = parse_error_object(data)
            raise (
                InvalidResponse("the stream breaks off with an error that cannot be read")
                if error_object is None
                else error_from(error_object)
            )
        try:
            event: Event = EVENT_ADAPTER.validate_json(data)
        except ValidationError as e:
            if any(fault["type"] == "union_tag_invalid" for fault in e.errors()):
                return None  # an event type of a newer server
            raise InvalidResponse(f"an event is not one of this API: {e.errors()[0]['msg']}") from e
        return event


class EventCursor:
    """The position of a client in a run's events, with its reconnection policy.

    Args:
        after: Number of the last event received.
        reconnects: Maximum number of consecutive streams without a new event.
    """

    def __init__(self, after: int, reconnects: int) -> None:
        self.after = after
        self.ended = False
        """Whether the last event received ends the run."""
        self._reconnects, self._in_vain = reconnects, 0

    def advance(self, event: Event) -> None:
        """Advance to an event."""
        self.after = max(self.after, event.number)
        self.ended = isinstance(event, RunFinished | RunFailed)
        self._in_vain = 0

    def delay_after(self, error: ReasonError | None) -> float:
        """Seconds to wait before reconnecting.

        Args:
            error: The error that ended the last stream; None if the stream ended normally.

        Raises:
            ReasonError: The error is not retryable, or the maximum number of reconnects is exceeded.
        """
        hopeless = error is not None and error.http_status < 500 and error.http_status != 429
        self._in_vain += 1
        if error is not None and (hopeless or self._in_vain > self._reconnects):
            raise error
        if self._in_vain > self._reconnects:
            raise BackendUnavailable(
                "the event streams of the run break off repeatedly", hint="is its server shutting down?"
            )
        retry_after: float | None = getattr(error, "retry_after_s", None)
        backing_off: float = FIRST_DELAY_S * 2.0 ** (self._in_vain - 1)
        return min(LONGEST_DELAY_S, backing_off if retry_after is None else max(0.0, retry_after))


def _result(run: RunDetail) -> Answer:
    """The answer of a run that has ended, or the error that ended it."""
    if run.status == "failed":
        error_object = {} if run.error is None else {"code": run.error.code, "message": run.error.message}
        raise error_from(error_object, partial=run.result)
    if run.status == "interrupted" or run.result is None:
        raise Cancelled("the run was stopped before it finished", partial=run.result)
    return run.result
