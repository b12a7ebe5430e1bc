"""What server-sent events have in common, whatever is in them, and how the OpenAPI description tells of them."""

from __future__ import annotations

from typing import Any

PING = b": ping\n\n"
"""A comment, which readers pass over: it keeps a quiet connection alive."""
STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
"""No proxy may keep a stream back."""

EVENTS: dict[str, Any] = {
    "text/event-stream": {
        "schema": {
            "type": "object",
            "description": "One server-sent event.",
            "properties": {"id": {"type": "string"}, "event": {"type": "string"}, "data": {"type": "string"}},
            "required": ["data"],
        }
    }
}
"""The `content` of a response that is a stream; what stands in `data` is JSON, or `[DONE]` in OpenAI's format."""
