"""`serve_here`: serves the sidecar on a socket until a signal stops it; runs in flight get time to end.

Connections are served by uvicorn, with limits on incomplete requests and on the number of connections. Objects that
exist before the first request are frozen in the garbage collector.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ..core.errors import UserError
from ..core.files import Progress
from ..core.settings import ServeSettings, Settings
from .app import create_app
from .auth import MAX_HEADER_BYTES
from .error_objects import make_error_object
from .errors import RETRY_AFTER_S
from .run_manager import RunManager

if sys.platform != "win32":
    import resource

GC_THRESHOLDS = 100_000
"""Threshold of the youngest generation: above the objects of the requests in flight, which are freed without it."""


@contextmanager
def frozen_heap() -> Iterator[None]:
    """Exclude all existing objects from garbage collection, and collect less often.

    Libraries and models are some hundred thousand objects that live as long as the process; a full collection would
    traverse them all while requests wait. New objects are collected as usual. Both are undone on exit.
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
    """Return a uvloop event loop, which needs less CPU time per request; asyncio's without uvloop (Windows)."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


HEADER_TIMEOUT_S = 10.0
"""Maximum time for the headers of a request to arrive, in seconds."""
KEEPALIVE_TIMEOUT_S = 30
"""Timeout of an idle connection, in seconds."""
LINGER_S = 5.0
"""Maximum time for which the rest of a request is dropped after a response that did not wait for it, in seconds."""
WRITE_TIMEOUT_S = 60.0
"""Maximum time for which a client reads nothing of a response, in seconds."""
SPARE_CONNECTIONS = 2048
"""Connections beyond those of running and queued runs: event streams, idle connections of callers."""


class MalformedRequest(ValueError):
    """A request that violates HTTP although the parser accepts it."""


class GatheredWrites:
    """A transport that sends together what is written in one turn of the event loop.

    The head of a response and what is there of its body are one packet, and one system call.

    Args:
        transport: The transport of the connection, which has all other methods.
        loop: The event loop.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._waiting: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send data at the end of this turn."""
        if not self._waiting:
            self._loop.call_soon(self.flush)
        self._waiting.append(data)

    def flush(self) -> None:
        """Send what waits now."""
        waiting, self._waiting = self._waiting, []
        if waiting and not self._transport.is_closing():
            self._transport.write(b"".join(waiting))

    def close(self) -> None:
        """Send what waits, and close the connection."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class LingeringTransport(GatheredWrites):
    """A transport that is closed in two steps while the client is still sending a request.

    A connection that is closed with data unread is reset, and the client may lose the response. So the first step ends
    the sending side alone, and what comes is dropped until the client closes its side (RFC 9112, section 9.6).

    Args:
        transport: The transport of the connection.
        loop: The event loop.
        linger_s: Maximum time between the two steps, in seconds.
    """

    is_request_incomplete = False
    """Whether more data of a request is expected; set by the protocol."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, linger_s: float) -> None:
        super().__init__(transport, loop)
        self._linger_s = linger_s
        self._lingering: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Send what waits, and close the connection, or begin to; a second call closes it in any case."""
        if not self.is_request_incomplete or self.is_closing() or not self._transport.can_write_eof():
            self.close_now()
            return
        self.flush()
        self._lingering = self._loop.call_later(self._linger_s, self._transport.close)
        self._transport.write_eof()
        self._transport.resume_reading()

    def close_now(self) -> None:
        """Send what waits, and close the connection."""
        if self._lingering is not None:
            self._lingering.cancel()
        super().close()

    def is_closing(self) -> bool:
        """Whether the connection is closed or being closed; data that still comes is to be dropped."""
        return self._lingering is not None or self._transport.is_closing()


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's httptools protocol with a limit on headers, trailers and chunk extensions, which llhttp does not limit.

    Requires exactly one Host header in HTTP/1.1 (RFC 9112, section 3.2). A malformed request is rejected after the
    responses to the requests before it.
    """

    linger_s: float = LINGER_S
    _loose = 0
    """Bytes received since the last complete head, part of a body or end of a message."""
    _refused = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Gather what is written to the connection, and close it so that the client gets its response."""
        super().connection_made(transport)
        self.transport: LingeringTransport = LingeringTransport(transport, self.loop, self.linger_s)  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Parse the data; drop it after a malformed request and while the connection closes."""
        if self._refused or self.transport.is_closing():
            return
        self._loose += len(data)
        super().data_received(data)
        if self._loose > MAX_HEADER_BYTES and not self._refused:
            self.send_400_response("Headers or trailers too long.")

    def on_headers_complete(self) -> None:
        """Reset the byte count, and check the Host header."""
        self._loose = 0
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            raise MalformedRequest("a request must have exactly one Host header")
        self.transport.is_request_incomplete = True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Reset the byte count."""
        self._loose = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Reset the byte count; nothing more is expected."""
        self._loose = 0
        self.transport.is_request_incomplete = False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Respond with 400 and close the connection, after the responses to earlier requests."""
        self._refused = msg
        self.transport.is_request_incomplete = True  # what follows is not parsed
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                return  # its response comes first
            if cycle.response_started:  # and the request's body cannot be completed
                self.transport.close_now()
                return
            cycle.disconnected = True  # for the application, the client is gone
            cycle.message_event.set()
        self.send_error_response(400, make_error_object(msg, 400, code="invalid_http"))

    def on_response_complete(self) -> None:
        """Continue with the next request, or reject the malformed one that follows."""
        super().on_response_complete()
        if self._refused and self.cycle.response_complete and not self.transport.is_closing():
            self.send_error_response(400, make_error_object(self._refused, 400, code="invalid_http"))

    def send_error_response(self, status: int, error: dict[str, Any]) -> None:
        """Respond without the application, and close the connection."""
        body = json.dumps({"error": error}).encode()
        retry = b"retry-after: %d\r\n" % RETRY_AFTER_S if status == 503 else b""
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + retry + head + b"\r\n" + body)
        self.transport.close()


class ServerProtocol(BoundedProtocol):
    """Limits the time in which a client sends headers and reads responses, and closes idle connections for new ones.

    uvicorn's keep-alive timeout ends with the first byte of a request, so a client that sends one byte at a time could
    hold a connection indefinitely; so could one that does not read its response.
    """

    headers_s: float = HEADER_TIMEOUT_S
    write_s: float = WRITE_TIMEOUT_S
    max_connections: int = SPARE_CONNECTIONS
    """Above it, a new connection takes the place of the one that has been idle for longest; without one, uvicorn
    answers 503."""
    _used_at: float = 0.0
    _deadline: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the deadline for the first request, and make room for the connection."""
        super().connection_made(transport)
        self._used_at = self.loop.time()
        if len(self.connections) > self.max_connections:
            others = [c for c in self.connections if isinstance(c, ServerProtocol) and c is not self and c.is_idle]
            others = [c for c in others if not c.transport.is_closing()]  # others that were made in this turn closed it
            if others:
                min(others, key=lambda other: other._used_at).transport.close_now()
        self._wait()

    @property
    def is_idle(self) -> bool:
        """Whether no request is being processed."""
        return self.cycle is None or self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        """Stop the deadline once the headers are complete; else make sure that it runs."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._deadline is None and not self.transport.is_closing():
            self._wait()

    def on_response_complete(self) -> None:
        """Stop the deadline; between requests, uvicorn's keep-alive timeout applies."""
        super().on_response_complete()
        self._used_at = self.loop.time()
        self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        self._stop_waiting()
        if self._stalled is not None:
            self._stalled.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Start the deadline for a client that does not read."""
        super().pause_writing()
        self._stalled = self.loop.call_later(self.write_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the deadline: the client reads."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

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


def max_connections(serve: ServeSettings) -> int:
    """Maximum number of connections: runs, waiting runs and `SPARE_CONNECTIONS`, as far as files allow.

    Half of the files that the process may open are for models and the store.
    """
    wanted = serve.max_runs + serve.max_queued + SPARE_CONNECTIONS
    if sys.platform == "win32":
        return wanted
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if files == resource.RLIM_INFINITY else max(1, min(wanted, files // 2))


def raise_file_limit() -> None:
    """Let the process open as many files as the system allows: each connection is one."""
    if sys.platform == "win32":
        return
    files, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != allowed:
        with suppress(ValueError, OSError):  # macOS allows fewer than it reports
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, allowed))


def uvicorn_options(serve: ServeSettings) -> dict[str, Any]:
    """Return the options of `uvicorn.Config`.

    uvicorn sends no `Server` header, writes no access log (`AccessLogMiddleware` does), and ignores proxy headers.
    """
    limit = max_connections(serve)
    return {
        "http": type("Protocol", (ServerProtocol,), {"max_connections": limit}),
        "limit_concurrency": limit + 1,
        "ws": "none",
        "server_header": False,
        "access_log": False,
        "log_config": None,
        "proxy_headers": False,
        "timeout_keep_alive": KEEPALIVE_TIMEOUT_S,
    }


BACKLOG = 2048
CLOSE_TIMEOUT_S = 5
"""Time for connections to close once no run is left, in seconds."""
EXIT_KILLED = 130


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        UserError: The address is invalid or in use.
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

    The first signal starts a drain: `/readyz` returns 503, after `drain_delay_s` seconds (a setting) new runs are
    rejected, and runs in flight get `drain_timeout_s` seconds. The second signal ends the waits, the third kills the
    process.

    Args:
        settings: The settings.
        sock: The listening socket; closed on return.
        progress: Receives the progress of model downloads; called from another thread.
        ready: Called when the server accepts requests.

    Raises:
        ReasonError: The models or the store cannot be opened.
    """
    raise_file_limit()
    app = create_app(settings, progress)
    async with app.router.lifespan_context(app):  # not run by uvicorn, so that an error keeps its type
        options = uvicorn_options(settings.serve)
        config = uvicorn.Config(app, lifespan="off", timeout_graceful_shutdown=CLOSE_TIMEOUT_S, **options)
        with frozen_heap():
            await DrainingServer(config, app.state.run_manager, settings.serve, ready).serve([sock])


class DrainingServer(uvicorn.Server):
    """A uvicorn server that drains the run manager before it stops.

    Args:
        config: uvicorn's configuration.
        run_manager: The run manager to drain.
        serve: The settings of the server.
        ready: Called when the server accepts requests.
    """

    def __init__(
        self, config: uvicorn.Config, run_manager: RunManager, serve: ServeSettings, ready: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._run_manager, self._settings, self._ready = run_manager, serve, ready
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None
        self._signals = 0

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until stopped, and wait for a drain in progress."""
        self._loop = asyncio.get_running_loop()
        try:
            await super().serve(sockets)
        finally:
            if self._draining is not None:
                await self._draining

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start accepting requests and call `ready`."""
        await super().startup(sockets)
        self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal: drain first, then end the wait, then exit."""
        self._signals += 1
        if self._loop is None or self._signals > 2:
            os._exit(EXIT_KILLED)  # safe at any time: the store's writes are transactions
        self._loop.call_soon_threadsafe(self._begin if self._signals == 1 else self._run_manager.stop_now)

    def _begin(self) -> None:
        self._draining = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        try:
            await self._run_manager.announce_drain(self._settings.drain_delay_s)
            await self._run_manager.drain(self._settings.drain_timeout_s)
        finally:
            self.should_exit = True
