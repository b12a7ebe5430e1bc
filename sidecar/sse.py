"""`ServerSentEvents`: a response that streams; a client that disconnects cancels the work, down to the engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from typing import Any, TypeVar

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..core.errors import Cancelled, ReasonError
from .error_objects import INTERNAL, error_object, make_error_object
from .errors import error_response
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
    """Compact JSON in UTF-8, on one line for every client.

    Raises:
        ValueError: The value has a lone surrogate.
    """
    try:
        data = orjson.dumps(value)
    except TypeError:  # an integer of more than 64 bits, in a JSON Schema or in metadata
        data = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    return on_one_line(data)


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


PING = b": ping\n\n"
"""A comment, ignored by clients; keeps an idle connection open."""
STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
"""Prevent proxies from caching or buffering a stream."""

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
MAX_BUFFERED = 64
"""Maximum number of events buffered for a slow client. When it is reached, the producer waits; the run does not."""


def data_event(event: Mapping[str, Any]) -> bytes:
    """An event that is its JSON."""
    return b"data: %b\n\n" % encode_json(event)


def named_event(event: Mapping[str, Any]) -> bytes:
    """An event whose name is its `type`, as in the Responses API and in Anthropic's."""
    return b"event: %b\n%b" % (event["type"].encode(), data_event(event))


Put = Callable[[Any], Awaitable[None]]
"""Queues an event for sending."""


class ServerSentEvents(Response):
    """A response that streams server-sent events.

    The first event or ping determines the status. An error before it gives a normal error response. A later error is
    sent as the last event, without `done`.

    Args:
        make: Produces the events; the stream ends when it returns.
        admitted: Set when the request has its run, before which no ping is sent: a request that is refused after a wait
            gets the status of its error. None if it has one: the status is sent at once.
        keepalive_s: Idle time in seconds after which `ping` is sent.
        encode: Converts an event of `make` to a server-sent event.
        failure: Converts an error object to the last event.
        done: What follows the last event.
        ping: What is sent in idle times.
        headers: Additional headers.
        held: Context that is entered before the response starts and exited at its end, even if the client disconnects
            before the first event.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        make: Callable[[Put], Awaitable[None]],
        admitted: asyncio.Event | None,
        *,
        keepalive_s: float,
        encode: Callable[[Any], bytes],
        failure: Callable[[dict[str, Any]], bytes],
        done: bytes = b"",
        ping: bytes = PING,
        headers: Mapping[str, str] | None = None,
        held: AbstractAsyncContextManager[object] | None = None,
    ) -> None:
        super().__init__(headers={**STREAM_HEADERS, **(headers or {})})
        del self.headers["content-length"]
        self._make, self._admitted, self._keepalive_s = make, admitted, keepalive_s
        self._encode, self._failure, self._done, self._ping = encode, failure, done, ping
        self._held = held or nullcontext()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        async with self._held:
            with suppress(Cancelled, OSError):  # the client has disconnected, or the connection broke
                await while_connected(receive, self._send(scope, receive, send))

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        outbox = _Outbox()
        begun = False

        async def begin() -> None:
            nonlocal begun
            begun = True
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})

        async def out(data: bytes, *, more: bool = True) -> None:
            if not begun:
                await begin()
            await send({"type": "http.response.body", "body": data, "more_body": more})

        async def put(event: Any) -> None:
            await outbox.put(self._encode(event))

        async def produce() -> None:
            await self._make(put)
            outbox.end(self._done)

        if self._admitted is None:
            await begin()
        making = asyncio.ensure_future(produce())
        making.add_done_callback(outbox.close)  # wakes the sender if the producer failed
        timer = _Keepalive(outbox, self._ping, self._admitted, self._keepalive_s)
        try:
            while (data := await outbox.take()) is not None:
                await out(data, more=not outbox.is_complete)
                timer.restart()
            await making
        except ReasonError as e:
            if begun:
                await out(self._failure(error_object(e)), more=False)
            else:
                await error_response(e, scope)(scope, receive, send)
        except OSError:  # the connection broke
            raise
        except Exception as e:
            if not begun:
                raise  # `AccessLogMiddleware` sends the error response
            log_fault("stream.fault", e)
            await out(self._failure(make_error_object(INTERNAL, 500, code="internal")), more=False)
        finally:
            timer.stop()
            if not making.done():
                making.cancel()
                await asyncio.gather(making, return_exceptions=True)


class _Outbox:
    """Encoded events between the producer and the sender of a stream, which sends all that wait at once."""

    def __init__(self) -> None:
        self._waiting: list[bytes] = []
        self._is_ended = self._is_closed = False
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    async def put(self, data: bytes) -> None:
        """Add an event; waits while `MAX_BUFFERED` wait."""
        while len(self._waiting) >= MAX_BUFFERED:
            if self._writer is None or self._writer.done():
                self._writer = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._writer)
        self.put_now(data)

    def put_now(self, data: bytes) -> None:
        """Add an event, however many wait."""
        self._waiting.append(data)
        self._wake()

    def end(self, data: bytes) -> None:
        """Add the last data, which may be empty."""
        self._is_ended = True
        self.put_now(data)

    def close(self, _: object = None) -> None:
        """Let `take` return None once it has returned everything."""
        self._is_closed = True
        self._wake()

    async def take(self) -> bytes | None:
        """All data that waits, as soon as there is some; None at the end."""
        while not self._waiting:
            if self._is_closed or self._is_ended:
                return None
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        data = b"".join(self._waiting)
        self._waiting.clear()
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)
        return data

    @property
    def is_complete(self) -> bool:
        """Whether the last data was taken."""
        return self._is_ended and not self._waiting

    @property
    def is_empty(self) -> bool:
        """Whether no event waits."""
        return not self._waiting

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class _Keepalive:
    """Adds a ping to an outbox whenever nothing was sent for `interval_s`, once `admitted` is set."""

    def __init__(self, outbox: _Outbox, ping: bytes, admitted: asyncio.Event | None, interval_s: float) -> None:
        self._outbox, self._ping, self._admitted, self._interval_s = outbox, ping, admitted, interval_s
        self._loop = asyncio.get_running_loop()
        self._sent_at = self._loop.time()
        self._timer = self._loop.call_later(interval_s, self._check)

    def restart(self) -> None:
        """Note that something was sent; the timer finds it out when it is due, which is cheaper than a new timer."""
        self._sent_at = self._loop.time()

    def stop(self) -> None:
        """Add no more pings."""
        self._timer.cancel()

    def _check(self) -> None:
        idle_s = self._loop.time() - self._sent_at
        if idle_s >= self._interval_s:
            is_admitted = self._admitted is None or self._admitted.is_set()
            if is_admitted and self._outbox.is_empty:
                self._outbox.put_now(self._ping)
            idle_s = 0.0
        self._timer = self._loop.call_later(self._interval_s - idle_s, self._check)
