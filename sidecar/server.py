"""`serve_here`: the sidecar on a socket, until the process is told to stop; runs under way get time to end."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from ..core.errors import UserError
from ..core.settings import Settings
from ..serving.pulling import Progress
from .app import create_app
from .desk import RunDesk
from .gate.listening import uvicorn_options
from .settled_heap import settled_heap

BACKLOG = 2048
CLOSE_S = 5
"""How long connections get to close once no run is left, in seconds."""
EXIT_KILLED = 130


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        UserError: The address cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as e:
        raise UserError(f"cannot listen on {host}: {e.strerror or e}", hint="choose another --host") from e
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as e:
        sock.close()
        raise UserError(f"cannot listen on {host} port {port}: {e.strerror}", hint="choose another --port") from e
    sock.set_inheritable(True)
    return sock


async def serve_here(
    settings: Settings,
    sock: socket.socket,
    *,
    progress: Progress | None = None,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve on a socket until SIGTERM or SIGINT.

    The first signal begins a drain: `/readyz` says 503, no new runs are taken, and those under way get the setting
    `drain_s`. The second ends the wait, the third the process.

    Args:
        settings: What and how to serve.
        sock: Where; it is closed in the end.
        progress: Told how far a model's files are that must be fetched first; called from another thread.
        ready: Called when requests are taken.

    Raises:
        ReasonError: Models or store cannot be opened.
    """
    app = create_app(settings, progress)
    async with app.router.lifespan_context(app):  # here, and not by uvicorn: an error keeps its type
        options = uvicorn_options(settings.serve)
        config = uvicorn.Config(app, lifespan="off", timeout_graceful_shutdown=CLOSE_S, **options)
        with settled_heap():
            await DrainingServer(config, app.state.desk, settings.serve.drain_s, ready).serve([sock])


class DrainingServer(uvicorn.Server):
    """A server that drains a desk before it stops.

    Args:
        config: See uvicorn.
        desk: Whose runs get time to end.
        drain_s: How much, in seconds.
        ready: Called when requests are taken.
    """

    def __init__(self, config: uvicorn.Config, desk: RunDesk, drain_s: float, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._desk, self._drain_s, self._ready = desk, drain_s, ready
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None
        self._signals = 0

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        self._loop = asyncio.get_running_loop()
        try:
            await super().serve(sockets)
        finally:
            if self._draining is not None:
                await self._draining

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        await super().startup(sockets)
        self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal has come."""
        self._signals += 1
        if self._loop is None or self._signals > 2:
            os._exit(EXIT_KILLED)  # the store survives this at any moment
        self._loop.call_soon_threadsafe(self._begin if self._signals == 1 else self._desk.hurry)

    def _begin(self) -> None:
        self._draining = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        try:
            await self._desk.drain(self._drain_s)
        finally:
            self.should_exit = True
