"""Serves the sidecar on a socket until a signal stops it: `serve_here` in this process, `WorkerProcesses` in several.

Runs in flight get time to end; a worker that dies is replaced, and all stop together.

Connections are served by uvicorn, with limits on incomplete requests. Objects that
exist before the first request are frozen in the garbage collector.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

import uvicorn
from prometheus_client.multiprocess import mark_process_dead
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ..core.errors import BackendUnavailable, ReasonError, UserError
from ..core.files import Progress
from ..core.settings import ServeSettings, Settings
from .app import create_app
from .auth import MAX_HEADER_BYTES
from .logs import configure_logging, log_event
from .metrics import shared_metrics
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
WRITE_TIMEOUT_S = 60.0
"""Maximum time for which a client reads nothing of a response, in seconds."""
SPARE_CONNECTIONS = 2048
"""Connections beyond those of running and queued runs: event streams, idle connections of callers."""


class ServerProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits that it lacks: size and time of headers, time for which a client reads nothing.

    llhttp does not limit headers, trailers and chunk extensions. uvicorn's keep-alive timeout ends with the first byte
    of a request, so a client that sends one byte at a time could hold a connection indefinitely; so could one that does
    not read its response.
    """

    headers_s: float = HEADER_TIMEOUT_S
    write_s: float = WRITE_TIMEOUT_S
    _loose = 0
    """Bytes received since the last complete head, part of a body or end of a message."""
    _deadline: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the deadline for the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Parse the data; stop the deadline once the headers are complete, else make sure that it runs."""
        self._loose += len(data)
        super().data_received(data)
        if self._loose > MAX_HEADER_BYTES and not self.transport.is_closing():
            self.send_400_response("Headers or trailers too long.")
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._deadline is None and not self.transport.is_closing():
            self._wait()

    def on_headers_complete(self) -> None:
        """Reset the byte count."""
        self._loose = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Reset the byte count."""
        self._loose = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Reset the byte count."""
        self._loose = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Stop the deadline; between requests, uvicorn's keep-alive timeout applies."""
        super().on_response_complete()
        self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        self._stop_waiting()
        self.resume_writing()
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
        self._deadline = self.loop.call_later(self.headers_s, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


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
    return {
        "http": ServerProtocol,
        "limit_concurrency": max_connections(serve) + 1,  # uvicorn refuses at this number, not above it
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


FAILED_TO_START = 3
RESTART_S = 1.0
"""Delay before a worker is replaced, in seconds; keeps a worker that dies at once from respawning in a tight loop."""


class WorkerProcesses:
    """Serves a socket with `settings.serve.workers` processes until SIGTERM or SIGINT, which the workers receive too.

    If a worker fails to start, all workers are stopped, since a replacement would fail as well.

    Args:
        settings: The server's settings.
        sock: The listening socket, shared by the workers.
    """

    def __init__(self, settings: Settings, sock: socket.socket) -> None:
        self._settings, self._sock = settings, sock
        self._processes: list[BaseProcess] = []
        self._stopping = False

    def run(self) -> None:
        """Serve until all workers have stopped.

        Raises:
            BackendUnavailable: A worker failed to start; it printed the cause to stderr.
        """
        with shared_metrics():
            self._run()

    def _run(self) -> None:
        before = {number: signal.signal(number, self._signal) for number in (signal.SIGINT, signal.SIGTERM)}
        failed = False
        try:
            for _ in range(self._settings.serve.workers):
                self._start()
            while self._processes and not (self._stopping and not any(p.is_alive() for p in self._processes)):
                wait([p.sentinel for p in self._processes], timeout=RESTART_S)
                for process in list(self._processes):
                    if process.is_alive() or self._stopping:
                        continue
                    process.join()
                    if process.exitcode == FAILED_TO_START:
                        failed = True
                        self._stop(signal.SIGTERM)
                        break
                    log_event("worker.died", pid=process.pid, status=process.exitcode)
                    mark_process_dead(process.pid)  # type: ignore[no-untyped-call]
                    time.sleep(RESTART_S)
                    self._processes.remove(process)
                    self._start()
                if self._stopping:
                    self._processes = [p for p in self._processes if p.is_alive()]
        finally:
            for process in self._processes:
                process.join()
            for number, handler in before.items():
                signal.signal(number, handler)
        if failed:
            raise BackendUnavailable("a worker failed to start", hint="see the error it printed to stderr")

    def _start(self) -> None:
        """Start a worker, unless the workers are stopping."""
        if not self._stopping:
            self._begin()

    def _begin(self) -> None:
        process = multiprocessing.get_context("spawn").Process(target=_serve_worker, args=(self._settings, self._sock))
        process.start()
        self._processes.append(process)
        if self._stopping:  # a signal arrived before this process was registered
            self._stop(signal.SIGTERM)

    def _signal(self, number: int, _frame: FrameType | None) -> None:
        self._stop(number)

    def _stop(self, number: int) -> None:
        self._stopping = True
        for process in self._processes:
            if process.is_alive() and process.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, number)


def _serve_worker(settings: Settings, sock: socket.socket) -> None:
    """Entry point of a worker process."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # a terminal sends Ctrl-C to the process group: workers would get SIGINT twice
    configure_logging(content=settings.serve.log_content)
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(serve_here(settings, sock))
    except ReasonError as e:
        sys.stderr.write(f"error: {e}\n")
        sys.exit(FAILED_TO_START)
