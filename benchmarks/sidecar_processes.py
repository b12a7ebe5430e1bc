"""Servers as child processes: started on a free port, waited for, looked at, and always ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sidecar_backend import Pace

HERE = Path(__file__).resolve().parent
PAGE = os.sysconf("SC_PAGE_SIZE")
START_S = 120.0
"""Longest time that a server may take to answer its first request, in seconds."""
END_S = 60.0
"""Longest time that a server may take to end when it is told to, in seconds."""


class Failed(RuntimeError):
    """A server did not start, or did not end; tells the end of what it wrote."""


def exit_on_sigterm() -> None:
    """Have SIGTERM end this program by an exception, as Ctrl-C does, so that what it has started is ended as well."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
    return port


def fetch(url: str, body: Any = None, headers: Mapping[str, str] | None = None, timeout: float = 10.0) -> Any:
    """The JSON of a page; a POST where there is a body.

    Raises:
        OSError: It could not be had.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})})
    with urllib.request.urlopen(request, timeout=timeout) as reply:
        text = reply.read()
    return json.loads(text) if text else None


class Process:
    """One server and what it started, in a process group of its own.

    Args:
        command: How it is started.
        folder: Where it runs, and where its output goes (`NAME.log`).
        name: What it is called.
        environment: Variables beside those of this process.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        name: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self.child = self.spawned(command, folder, environment or {})

    def spawned(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start it."""
        with self.log.open("ab") as out:
            return subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_for(self, url: str, seconds: float = START_S) -> None:
        """Wait until a page answers with a status below 400; it is killed if the waiting ends otherwise.

        Raises:
            Failed: It ended, or took too long.
        """
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                if self.child.poll() is not None:
                    raise Failed(f"{self.name} ended with {self.child.returncode}:\n{self.tail()}")
                with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
                    return
                time.sleep(0.05)
            raise Failed(f"{self.name} did not answer at {url} within {seconds:.0f} s:\n{self.tail()}")
        except BaseException:
            self.kill()
            raise

    def tail(self, most: int = 3000) -> str:
        """The end of what it wrote."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-most:]

    def resident(self) -> int:
        """Memory that it and its children have in use (resident set), in bytes."""
        return sum(_resident(pid) for pid in family(self.child.pid))

    def cpu_seconds(self) -> float:
        """Processor time of it and its children that still run."""
        ticks = os.sysconf("SC_CLK_TCK")
        return sum(_ticks(pid) for pid in family(self.child.pid)) / ticks

    def kill(self) -> None:
        """End it and its children without a warning, as a crash or a lack of memory does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()

    def end(self, seconds: float = END_S) -> int:
        """Tell it to end and wait; gives its exit code.

        Raises:
            Failed: It did not end in time; it has been killed then.
        """
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()
                raise Failed(f"{self.name} did not end within {seconds:.0f} s:\n{self.tail()}") from None
        self.kill()  # whatever it left behind
        return self.child.returncode

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()


class Backend(Process):
    """`sidecar_backend.py` as a process.

    Args:
        folder: Where its output goes.
        pace: How its replies come.
        port: Port; 0 takes a free one.
        journal: File of the tags of completed replies.
    """

    def __init__(self, folder: Path, pace: Pace, port: int = 0, journal: Path | None = None) -> None:
        self.port = port or free_port()
        self.root = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, str(HERE / "sidecar_backend.py"), "--port", str(self.port)]
        command += ["--pace", json.dumps(vars(pace))]
        command += [] if journal is None else ["--journal", str(journal)]
        super().__init__(command, folder, "backend")
        self.wait_for(f"{self.root}/health")

    def stats(self) -> dict[str, Any]:
        """What it counted so far."""
        return dict(fetch(f"{self.root}/stats"))

    def set_pace(self, pace: Pace) -> None:
        """Change how replies come, from the next request on."""
        fetch(f"{self.root}/pace", vars(pace))


def family(pid: int) -> list[int]:
    """A process and all below it that still run."""
    found = [pid]
    for known in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{known}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except OSError:
        return 0


def _ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])
