"""`WorkerProcesses`: several worker processes on one socket; a worker that dies is replaced, and all stop together."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType

from ..core.errors import BackendUnavailable, ReasonError
from ..core.settings import Settings
from .logs import configure_logging, log_event
from .metrics import shared_metrics
from .server import new_event_loop, serve_here

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
    configure_logging(content=settings.serve.log_content, errors=settings.serve.log_errors)
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(serve_here(settings, sock))
    except ReasonError as e:
        sys.stderr.write(f"error: {e}\n")
        sys.exit(FAILED_TO_START)
