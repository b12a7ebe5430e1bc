"""Server-sent events and disconnects: work that nobody waits for any more is cancelled, down to the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

from ..core.errors import Cancelled

T = TypeVar("T")


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Wait for something as long as the client does.

    Args:
        receive: The request's messages; its body has been read.
        work: What is waited for.

    Raises:
        Cancelled: The client has gone; the work was cancelled, and has ended.
    """
    doing = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(disconnected(receive))
    try:
        await asyncio.wait((doing, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise Cancelled("the client has gone")
        return doing.result()
    finally:
        for task in (doing, leaving):
            task.cancel()
        await asyncio.gather(doing, leaving, return_exceptions=True)


async def disconnected(receive: Receive) -> None:
    """Wait until the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


PING = b": ping\n\n"
"""A comment, which readers pass over: it keeps a quiet connection alive."""
STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
"""No proxy may keep a stream back."""

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
"""The `content` of a response that is a stream; what is in `data` is JSON, or `[DONE]` in OpenAI's format."""
