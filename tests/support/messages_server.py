"""Anthropic's Messages API on a real socket, streamed, with a prompt cache that works as documented."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web


class MessagesServer:
    """Answers every request with one text.

    A prefix is written to the cache up to each block with `cache_control` if it has enough tokens, and can be read by
    requests that come after the response has begun. A token is four characters here.

    Args:
        text: The text.
        min_cached_tokens: Minimum tokens of a prefix that is cached.

    Attributes:
        requests: The requests, in order.
        open: Requests that are being answered.
        hold: Responses end when it is set.
    """

    def __init__(self, text: str = "blue sky", *, min_cached_tokens: int = 1024) -> None:
        self.text, self.min_cached_tokens = text, min_cached_tokens
        self.requests: list[dict[str, Any]] = []
        self.open = 0
        self.hold = asyncio.Event()
        self.hold.set()
        self._cache: set[str] = set()

    @asynccontextmanager
    async def run(self) -> AsyncIterator[str]:
        """Serve; gives the address without `/v1`."""
        app = web.Application()
        app.router.add_post("/v1/messages", self._message)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    @property
    def marked(self) -> list[int]:
        """Number of blocks with `cache_control` in each request."""
        return [sum(is_marked for _, is_marked in blocks_of(body)) for body in self.requests]

    async def _message(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        prefix, read, written = "", 0, 0
        fresh = []
        blocks = blocks_of(body)
        assert sum(is_marked for _, is_marked in blocks) <= 4
        for text, is_marked in blocks:
            prefix += text
            size = len(prefix) // 4
            if prefix in self._cache:
                read, written = size, 0
            elif is_marked and size >= self.min_cached_tokens:
                written = size - read
                fresh.append(prefix)
        usage = {
            "input_tokens": len(prefix) // 4 - read - written,
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": written,
            "output_tokens": 1,
        }
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        message = {"id": "m", "type": "message", "role": "assistant", "content": [], "model": body["model"]}
        block = {"type": "text", "text": ""}
        self.open += 1
        await _send(response, "message_start", message={**message, "usage": usage})
        self._cache.update(fresh)
        await _send(response, "content_block_start", index=0, content_block=block)
        await _send(response, "content_block_delta", index=0, delta={"type": "text_delta", "text": self.text[:4]})
        await self.hold.wait()
        await _send(response, "content_block_delta", index=0, delta={"type": "text_delta", "text": self.text[4:]})
        await _send(response, "content_block_stop", index=0)
        usage = {**usage, "output_tokens": len(self.text) // 4}
        await _send(response, "message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage=usage)
        await _send(response, "message_stop")
        self.open -= 1
        return response


def blocks_of(body: dict[str, Any]) -> list[tuple[str, bool]]:
    """Text of each block of a request in the order of the cache, and whether it is marked."""
    system = body.get("system") or []
    blocks = [{"type": "text", "text": system}] if isinstance(system, str) else list(system)
    for message in body["messages"]:
        content = message["content"]
        blocks += [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [(json.dumps({k: v for k, v in b.items() if k != "cache_control"}), "cache_control" in b) for b in blocks]


async def _send(response: web.StreamResponse, kind: str, **fields: Any) -> None:
    data = json.dumps({"type": kind, **fields})
    await response.write(f"event: {kind}\ndata: {data}\n\n".encode())
