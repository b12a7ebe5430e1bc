"""`serve_here`: the sidecar on a socket until the process is told to stop; runs in flight get time to end.

Connections are served by uvicorn with limits on what a client may do before there is a request. Objects loaded before
the first request are frozen for the garbage collector.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ..core.errors import UserError
from ..core.settings import ServeSettings, Settings
from ..serving.model_files.downloads import Progress
from .app import create_app
from .auth import MAX_HEADER_BYTES
from .run_manager import RunManager

GC_THRESHOLDS = 10_000
"""Objects that are made before the collector looks at them: more than a request makes, so most are gone by then."""


@contextmanager
def frozen_heap() -> Iterator[None]:
    """Take all objects that there are now out of the garbage collector's sight, and let it look less often.

    Libraries and models are some hundred thousand objects that live as long as the process, and each full collection
    looks at every one of them while all requests wait. What is made from now on is collected as ever; on leaving, so is
    the rest.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLDS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Libuv's loop, which takes less of the processor for each request; Python's own where there is none (Windows)."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


HEADER_TIMEOUT_S = 10.0
"""Longest time that the headers of a request may take to come, in seconds."""
KEEPALIVE_TIMEOUT_S = 30
"""How long an idle connection is kept, in seconds."""
SPARE_CONNECTIONS = 512
"""Connections beyond those that run or wait: readers of events, health checks, idle ones."""


class MalformedRequest(ValueError):
    """What came is no request, although the parser takes it for one."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol over llhttp, which by itself takes headers, trailers and extensions of any length.

    A request names one host, as HTTP/1.1 wants it (RFC 9112, section 3.2). What is no request is refused after the
    answers to those before it.
    """

    _loose = 0
    """Bytes since the last that were a complete head, a body's part or a message's end."""
    _refused = ""

    def data_received(self, data: bytes) -> None:
        """Parse what came; after what was refused, nothing is."""
        if self._refused:
            return
        self._loose += len(data)
        super().data_received(data)
        if self._loose > MAX_HEADER_BYTES and not self._refused:
            self.send_400_response("Headers or trailers too long.")

    def on_headers_complete(self) -> None:
        """The head of a request is there."""
        self._loose = 0
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            raise MalformedRequest("a request names one host")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body is there."""
        self._loose = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is there."""
        self._loose = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what came and close the connection, once earlier requests are answered."""
        self._refused = msg
        cycle = self.cycle
        if cycle is None or cycle.response_complete or (cycle.more_body and not cycle.response_started):
            super().send_400_response(msg)
        elif cycle.more_body:  # its answer has begun, and its body will never be complete
            self.transport.close()

    def on_response_complete(self) -> None:
        """Answer the next request, or else what was refused after it."""
        super().on_response_complete()
        if self._refused and self.cycle.response_complete and not self.transport.is_closing():
            super().send_400_response(self._refused)


class DeadlineProtocol(BoundedProtocol):
    """A protocol which closes a connection on which a request begins and its headers do not come in time.

    Between requests uvicorn's own timeout holds, which ends with the first byte: a client that sends one byte at a time
    would keep the connection for ever.
    """

    headers_s: float = HEADER_TIMEOUT_S
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Continue waiting, unless a request's headers are there."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._deadline is None:
            self._wait()

    def on_response_complete(self) -> None:
        """Stop the clock for a client that has sent nothing yet; uvicorn's own runs then."""
        super().on_response_complete()
        self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._deadline = self.loop.call_later(self.headers_s, self._close)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close(self) -> None:
        self._deadline = None
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()


def deadline_protocol(headers_s: float = HEADER_TIMEOUT_S) -> type[DeadlineProtocol]:
    """The protocol with another limit."""
    return cast(type[DeadlineProtocol], type("DeadlineProtocol", (DeadlineProtocol,), {"headers_s": headers_s}))


def uvicorn_options(serve: ServeSettings) -> dict[str, Any]:
    """What `uvicorn.Config` is to be given next to the application.

    It reports no one which server this is, logs nothing by itself (see `log_lines`), bounds connections and headers,
    and trusts no proxy's word on who calls.
    """
    return {
        "http": DeadlineProtocol,
        "ws": "none",
        "server_header": False,
        "access_log": False,
        "log_config": None,
        "proxy_headers": False,
        "timeout_keep_alive": KEEPALIVE_TIMEOUT_S,
        "limit_concurrency": serve.max_runs + serve.max_queued + SPARE_CONNECTIONS,
    }


BACKLOG = 2048
CLOSE_TIMEOUT_S = 5
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

    The first signal begins a drain: `/readyz` states 503, no new runs are taken, and those in flight get the setting
    `drain_timeout_s`. The second ends the wait, the third the process.

    Args:
        settings: What and how to serve.
        sock: Where; it is closed in the end.
        progress: Receives how far a model's files are that must be fetched first; called from another thread.
        ready: Called when requests are taken.

    Raises:
        ReasonError: Models or store cannot be opened.
    """
    app = create_app(settings, progress)
    async with app.router.lifespan_context(app):  # here, and not by uvicorn: an error keeps its type
        options = uvicorn_options(settings.serve)
        config = uvicorn.Config(app, lifespan="off", timeout_graceful_shutdown=CLOSE_TIMEOUT_S, **options)
        with frozen_heap():
            await DrainingServer(config, app.state.run_manager, settings.serve.drain_timeout_s, ready).serve([sock])


class DrainingServer(uvicorn.Server):
    """A server that drains its run manager before it stops.

    Args:
        config: See uvicorn.
        run_manager: Its runs get time to end.
        drain_timeout_s: How much, in seconds.
        ready: Called when requests are taken.
    """

    def __init__(
        self, config: uvicorn.Config, run_manager: RunManager, drain_timeout_s: float, ready: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._run_manager, self._drain_s, self._ready = run_manager, drain_timeout_s, ready
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
        self._loop.call_soon_threadsafe(self._begin if self._signals == 1 else self._run_manager.stop_now)

    def _begin(self) -> None:
        self._draining = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        try:
            await self._run_manager.drain(self._drain_s)
        finally:
            self.should_exit = True
