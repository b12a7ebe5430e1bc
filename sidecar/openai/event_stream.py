"""`EventStream`: a response of server-sent events that keeps quiet lines alive and ends when its client goes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...core.errors import Cancelled, ReasonError
from ..connection import while_connected
from ..error_objects import INTERNAL, error_object, plain_error
from ..errors import error_response
from ..event_content import EVENTS, PING, STREAM_HEADERS
from ..gate.log_lines import log_fault

MEDIA_TYPE = "text/event-stream"
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "What was asked for; with `stream`, as server-sent events.",
        "content": EVENTS,
    }
}
"""What the description of a route says of a reply that may be a stream."""
DONE = b"data: [DONE]\n\n"
WAITING = 64
"""Most events that wait for a slow client; then whoever makes them waits too, and the run does not."""

Put = Callable[[Mapping[str, Any]], Awaitable[None]]
"""Sends an event."""


class EventStream(Response):
    """Sends what is put into it, as it comes.

    The status is decided by the first event: what fails before it is an error response like any other. What fails
    later is sent as an error object, behind which nothing follows: no end is pretended.

    Args:
        make: Makes the events; ends where they end.
        keepalive_s: Silence after which a comment is sent, in seconds.
        named: Whether events have names, taken from their `type`, as the responses API has it.
        done: Whether `[DONE]` follows the last event.
        failure: Makes the last event of an error object.
    """

    media_type = MEDIA_TYPE

    def __init__(
        self,
        make: Callable[[Put], Awaitable[None]],
        *,
        keepalive_s: float,
        named: bool = False,
        done: bool = True,
        failure: Callable[[dict[str, Any]], Mapping[str, Any]] = lambda error: {"error": error},
    ) -> None:
        super().__init__(headers=STREAM_HEADERS)
        del self.headers["content-length"]
        self._make, self._keepalive_s = make, keepalive_s
        self._named, self._done, self._failure = named, done, failure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        with suppress(Cancelled, OSError):  # the client has gone, or the connection broke
            await while_connected(receive, self._send(scope, receive, send))

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        waiting: asyncio.Queue[bytes] = asyncio.Queue(WAITING)
        begun = False

        async def put(event: Mapping[str, Any]) -> None:
            await waiting.put(self._encode(event))

        async def out(data: bytes, *, more: bool = True) -> None:
            nonlocal begun
            if not begun:
                begun = True
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": data, "more_body": more})

        making = asyncio.ensure_future(self._make(put))
        # wakes the reader, who looks then whether there is more
        making.add_done_callback(lambda _: waiting.put_nowait(b"") if waiting.empty() else None)
        try:
            while not (making.done() and waiting.empty()):
                data = await self._next(waiting)
                if data:
                    await out(data)
            making.result()
            await out(DONE if self._done else b"", more=False)
        except ReasonError as e:
            if begun:
                await out(self._encode(self._failure(error_object(e))), more=False)
            else:
                await error_response(e)(scope, receive, send)
        except Exception as e:
            if not begun:
                raise  # `Journal` answers
            log_fault("stream.fault", e)
            told = plain_error(INTERNAL, 500, code="internal")
            await out(self._encode(self._failure(told)), more=False)
        finally:
            making.cancel()
            await asyncio.gather(making, return_exceptions=True)

    async def _next(self, waiting: asyncio.Queue[bytes]) -> bytes:
        """What is to be sent next, all that waits; a comment after a silence."""
        if waiting.empty():
            try:
                async with asyncio.timeout(self._keepalive_s):
                    found = await waiting.get()
            except TimeoutError:
                return PING
        else:
            found = waiting.get_nowait()
        while not waiting.empty():
            found += waiting.get_nowait()
        return found

    def _encode(self, event: Mapping[str, Any]) -> bytes:
        data = json.dumps(event, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        name = f"event: {event['type']}\n" if self._named and "type" in event else ""
        return f"{name}data: {data}\n\n".encode()
