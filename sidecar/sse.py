"""Server-sent events and client disconnects: a disconnect cancels the request's work, down to the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

from ..core.errors import Cancelled

T = TypeVar("T")


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Run `work` until it finishes or the client disconnects.

    Args:
        receive: The ASGI receive channel; the request's body must have been read.
        work: The coroutine to run.

    Raises:
        Cancelled: The client disconnected; `work` was cancelled and has ended.
    """
    doing = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(disconnected(receive))
    try:
        await asyncio.wait((doing, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise Cancelled("the client disconnected")
        return doing.result()
    finally:
        for task in (doing, leaving):
            task.cancel()
        await asyncio.gather(doing, leaving, return_exceptions=True)


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
