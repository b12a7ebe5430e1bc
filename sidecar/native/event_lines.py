"""A run's events as server-sent events: `EventLines`, a response that stays awake and ends when its client goes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext, suppress
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...core.errors import Cancelled, ReasonError
from ...core.event_fields import EventFields
from ..connection import while_connected
from ..error_objects import INTERNAL, error_object, plain_error, shown_event
from ..event_content import PING, STREAM_HEADERS
from ..gate.log_lines import log_fault


class EventLines(Response):
    """Sends events as they come, each with its number as `id`, and a comment when none came for a while.

    An error is sent as an event of type "error" with the error object; nothing follows it. When the client goes, the
    generator of the events is closed at once.

    Args:
        events: What is sent.
        keepalive_s: Silence after which a comment is sent, in seconds.
        headers: Further headers.
        held: Entered before anything is sent and left in the end, also by a client that has gone before the first
            event: a generator that nobody began to read would not notice.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[EventFields, None],
        keepalive_s: float,
        headers: Mapping[str, str] | None = None,
        held: AbstractAsyncContextManager[object] | None = None,
    ) -> None:
        super().__init__(headers={**STREAM_HEADERS, **(headers or {})})
        del self.headers["content-length"]
        self._events, self._keepalive_s, self._held = events, keepalive_s, held or nullcontext()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        async with self._held:
            with suppress(Cancelled, OSError):  # the client has gone, or the connection broke
                await while_connected(receive, self._send(send))

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        loop = asyncio.get_running_loop()
        sending = asyncio.Lock()
        sent_at = loop.time()

        async def push(chunk: bytes, *, more: bool = True) -> None:
            nonlocal sent_at
            async with sending:
                await send({"type": "http.response.body", "body": chunk, "more_body": more})
            sent_at = loop.time()

        async def stay_awake() -> None:
            while True:
                quiet = loop.time() - sent_at
                if quiet >= self._keepalive_s:
                    await push(PING)
                    quiet = 0.0
                await asyncio.sleep(self._keepalive_s - quiet)

        awake = asyncio.ensure_future(stay_awake())
        try:
            async with aclosing(self._events) as events:
                async for event in events:
                    await push(event_line(shown_event(event)))
        except ReasonError as e:
            await push(error_line(error_object(e)))
        except Exception as e:
            if isinstance(e, OSError):
                raise
            log_fault("stream.fault", e)
            await push(error_line(plain_error(INTERNAL, 500, code="internal")))
        finally:
            awake.cancel()
            await asyncio.gather(awake, return_exceptions=True)
        await push(b"", more=False)


def event_line(event: EventFields) -> bytes:
    """An event in the form of server-sent events; its JSON has no line breaks."""
    name = f"id: {event.number}\n" if event.number else ""
    return f"{name}data: {event.model_dump_json()}\n\n".encode("utf-8", "replace")


def error_line(error: dict[str, Any]) -> bytes:
    """An error object that ends a stream."""
    return f"event: error\ndata: {json.dumps({'error': error}, ensure_ascii=True, allow_nan=False)}\n\n".encode()
