"""`ServerSentEvents`: a response that streams; a client that disconnects cancels the work, down to the engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from ..core.clock import monotonic
from ..core.errors import Cancelled, ReasonError
from .errors import INTERNAL, error_object, error_response, make_error_object
from .logs import log_fault

T = TypeVar("T")


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Run `work` until it finishes or the client disconnects.

    Args:
        receive: The ASGI receive channel; the request's body must have been read.
        work: The coroutine to run.

    Raises:
        Cancelled: The client disconnected; `work` was cancelled and has ended.
    """
    task = asyncio.current_task()
    assert task is not None
    cancelling = task.cancelling()
    is_gone = False

    async def watch() -> None:
        nonlocal is_gone
        await disconnected(receive)
        is_gone = True
        task.cancel()

    watcher = asyncio.ensure_future(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if is_gone and task.uncancel() <= cancelling:  # else the server cancelled the request as well
            raise Cancelled("the client disconnected") from None
        raise
    finally:
        watcher.cancel()


_LINE_BREAKS = {
    "\x85".encode(): b"\\u0085",
    "\u2028".encode(): b"\\u2028",
    "\u2029".encode(): b"\\u2029",
}
"""Characters that JSON need not escape, and at which many clients split lines, although server-sent events do not."""


def encode_json(value: Any) -> bytes:
    """Compact JSON in UTF-8, on one line for every client, with "?" for lone surrogates of models and tools."""
    try:
        data = orjson.dumps(value)
    except TypeError:  # a lone surrogate, or an integer of more than 64 bits, in a JSON Schema or in metadata
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        data = text.encode("utf-8", "replace")
    return on_one_line(data)


def json_response(value: Any) -> Response:
    """The response with the JSON of a value."""
    return Response(encode_json(value), media_type="application/json")


def model_json(value: BaseModel) -> bytes:
    """The JSON of a model in UTF-8, with "?" for lone surrogates of models and tools."""
    try:
        return value.__pydantic_serializer__.to_json(value)
    except ValueError:
        return encode_json(value.model_dump(mode="json"))


def on_one_line(data: bytes) -> bytes:
    """JSON in UTF-8 without unescaped characters that a client may take for line breaks."""
    for character, escaped in _LINE_BREAKS.items():
        if character in data:
            data = data.replace(character, escaped)
    return data


async def disconnected(receive: Receive) -> None:
    """Wait until the client disconnects."""
    while (await receive())["type"] != "http.disconnect":
        pass


KEEPALIVE_S = 15.0
"""Idle time of a stream after which a ping is sent, in seconds."""
PING = b": ping\n\n"
"""A comment, ignored by clients; keeps an idle connection open."""
_STREAM_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
"""The last two prevent proxies from caching or buffering a stream."""

EVENT_STREAM_CONTENT: dict[str, Any] = {
    "text/event-stream": {
        "schema": {
            "type": "object",
            "description": "One server-sent event.",
            "properties": {"id": {"type": "string"}, "event": {"type": "string"}, "data": {"type": "string"}},
            "required": ["data"],
        }
    }
}
"""OpenAPI `content` of a streamed response; `data` is JSON, or `[DONE]` in OpenAI's format."""
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The result; with `stream`, as server-sent events.",
        "content": EVENT_STREAM_CONTENT,
    }
}
"""OpenAPI description of a response that may be a stream."""
DONE = b"data: [DONE]\n\n"


def data_event(event: Mapping[str, Any]) -> bytes:
    """An event that is its JSON."""
    return b"data: %b\n\n" % encode_json(event)


def named_event(event: Mapping[str, Any]) -> bytes:
    """An event whose name is its `type`, as in the Responses API and in Anthropic's."""
    return b"event: %b\n%b" % (event["type"].encode(), data_event(event))


Put = Callable[[Any], Awaitable[None]]
"""Sends an event; waits for a client that does not read, for which the run does not wait."""


class ServerSentEvents(Response):
    """A response that streams server-sent events.

    The first event or ping determines the status. An error before it gives a normal error response. A later error is
    sent as the last event, without `done`.

    Args:
        make: Produces the events; the stream ends when it returns.
        admitted: Set when the request has its run, before which no ping is sent: a request that is refused after a wait
            gets the status of its error. None if it has one: the status is sent at once.
        encode: Converts an event of `make` to a server-sent event.
        failure: Converts an error object to the last event.
        done: What follows the last event.
        ping: What is sent in idle times.
        headers: Additional headers.
        held: Context that is entered before the response starts and exited at its end, even if the client disconnects
            before the first event.
    """

    def __init__(
        self,
        make: Callable[[Put], Awaitable[None]],
        admitted: asyncio.Event | None,
        *,
        encode: Callable[[Any], bytes],
        failure: Callable[[dict[str, Any]], bytes],
        done: bytes = b"",
        ping: bytes = PING,
        headers: Mapping[str, str] | None = None,
        held: AbstractAsyncContextManager[object] | None = None,
    ) -> None:
        self.status_code, self.background = 200, None
        self.raw_headers = list(_STREAM_HEADERS)
        if headers:
            self.headers.update(headers)
        self._make, self._admitted = make, admitted
        self._encode, self._failure, self._done, self._ping = encode, failure, done, ping
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        async with nullcontext() if self._held is None else self._held:
            with suppress(Cancelled, OSError):  # the client has disconnected, or the connection broke
                await while_connected(receive, self._send(scope, receive, send))

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        start: Message = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        body = _Body(send, start)

        async def put(event: Any) -> None:
            await body.send(self._encode(event))

        if self._admitted is None:
            await body.begin()
        keepalive = asyncio.ensure_future(_keep_alive(body, self._ping, self._admitted))
        try:
            await self._make(put)
            await body.send(self._done, more=False)
        except ReasonError as e:
            scope.setdefault("state", {})["error_code"] = e.code  # for the log and the metrics
            if body.has_begun:
                await body.send(self._failure(error_object(e)), more=False)
            else:
                await error_response(e, scope)(scope, receive, send)
        except OSError:  # the connection broke
            raise
        except Exception as e:
            if not body.has_begun:
                raise  # `AccessLogMiddleware` sends the error response
            log_fault("stream.fault", e)
            await body.send(self._failure(make_error_object(INTERNAL, 500, code="internal")), more=False)
        finally:
            keepalive.cancel()


class _Body:
    """The body of a streamed response, whose parts are sent one after the other; a slow client delays who sends them.

    Args:
        send: The ASGI send channel.
        start: The start of the response, which precedes the first part.
    """

    def __init__(self, send: Send, start: Message) -> None:
        self._send, self._start = send, start
        self._lock = asyncio.Lock()
        self.has_begun = False
        self.sent_at_s = monotonic()
        """When a part was last sent."""

    @property
    def is_sending(self) -> bool:
        """Whether a part is being sent, for which the client may have to read what was sent before."""
        return self._lock.locked()

    async def begin(self) -> None:
        """Send the start of the response."""
        async with self._lock:
            await self._begin()

    async def send(self, data: bytes, *, more: bool = True) -> None:
        """Send a part."""
        async with self._lock:
            if not self.has_begun:
                await self._begin()
            await self._send({"type": "http.response.body", "body": data, "more_body": more})
            self.sent_at_s = monotonic()

    async def _begin(self) -> None:
        self.has_begun = True
        await self._send(self._start)


async def _keep_alive(body: _Body, ping: bytes, admitted: asyncio.Event | None) -> None:
    """Send a ping whenever nothing was sent for `KEEPALIVE_S`, once `admitted` is set; none while a part is sent."""
    idle_s = 0.0
    while True:
        await asyncio.sleep(KEEPALIVE_S - idle_s)
        idle_s = monotonic() - body.sent_at_s
        if idle_s >= KEEPALIVE_S:
            if (admitted is None or admitted.is_set()) and not body.is_sending:
                with suppress(OSError):  # the connection broke, which ends the stream
                    await body.send(ping)
            idle_s = 0.0
