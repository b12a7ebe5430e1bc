"""Server-sent events and client disconnects: a disconnect cancels the request's work, down to the engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any, TypeVar

import orjson
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
