"""A router in front of several model servers, as vLLM's: a hash of a session header chooses the server."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web


class SessionRouter:
    """Forwards each request, whatever its path, by the header; those without it go to the servers in turn.

    Args:
        bases: Addresses of the servers, ending in `/v1`.
        header: Name of the header, which real routers have as a setting or know by themselves.
    """

    def __init__(self, bases: Sequence[str], header: str = "X-Session-ID") -> None:
        self._roots = [base.removesuffix("/v1") for base in bases]
        self._header = header
        self._turns = itertools.cycle(self._roots)

    def server_of(self, session: str | None) -> str:
        """Address of the server that a session's requests go to, without `/v1`."""
        if session is None:
            return next(self._turns)
        return self._roots[hashlib.sha256(session.encode()).digest()[0] % len(self._roots)]

    @asynccontextmanager
    async def run(self) -> AsyncIterator[str]:
        """Serve; gives the address ending in `/v1`."""
        async with aiohttp.ClientSession() as client:
            self._client = client
            app = web.Application(client_max_size=1 << 24)
            app.router.add_route("*", "/{path:.*}", self._forward)
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            try:
                yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
            finally:
                await runner.cleanup()

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        url = self.server_of(request.headers.get(self._header)) + request.path
        sent = {k: v for k, v in request.headers.items() if k not in ("Host", "Content-Length")}
        async with self._client.request(request.method, url, data=await request.read(), headers=sent) as upstream:
            response = web.StreamResponse(status=upstream.status, headers={"Content-Type": upstream.content_type})
            await response.prepare(request)
            try:
                async for data in upstream.content.iter_any():
                    await response.write(data)
            except aiohttp.ClientError:  # the server is gone, and its client is to notice
                assert request.transport is not None
                request.transport.abort()
            return response
