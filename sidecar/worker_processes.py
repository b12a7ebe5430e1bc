"""`WorkerProcesses`: several processes serve one socket; a process that dies is replaced, and all stop together."""

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
"""Least time between the replacement of one worker and the next, in seconds: one that dies at once does not spin."""


class WorkerProcesses:
    """Serves a socket by several processes until SIGTERM or SIGINT, which continues to them.

    A worker that cannot start would not start the next time either: it ends all.

    Args:
        settings: What and how to serve; states how many.
        sock: Where.
    """

    def __init__(self, settings: Settings, sock: socket.socket) -> None:
        self._settings, self._sock = settings, sock
        self._processes: list[BaseProcess] = []
        self._stopping = False

    def run(self) -> None:
        """Serve.

        Raises:
            BackendUnavailable: A worker could not start; it has reported why.
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
            raise BackendUnavailable("a worker could not start", hint="its own message says why")

    def _start(self) -> None:
        """Start one more worker, unless all are to stop."""
        if not self._stopping:
            self._begin()

    def _begin(self) -> None:
        process = multiprocessing.get_context("spawn").Process(target=_serve_worker, args=(self._settings, self._sock))
        process.start()
        self._processes.append(process)
        if self._stopping:  # a signal came meanwhile, of which this one was not reported
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
    """One worker's life."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # a terminal sends Ctrl-C to the whole group: workers would get it twice
    configure_logging(content=settings.serve.log_content)
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(serve_here(settings, sock))
    except ReasonError as e:
        sys.stderr.write(f"error: {e}\n")
        sys.exit(FAILED_TO_START)
