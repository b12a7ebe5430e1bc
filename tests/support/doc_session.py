"""The session of a documentation page: one directory, one run store, one server, one notebook."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from support.doc_blocks import Block
from support.doc_commands import shown_commands
from support.tiny_llama import write_tiny_llama

BLOCK_SECONDS = 240
TESTS = Path(__file__).resolve().parents[1]
ADDRESS = "127.0.0.1:8080"
"""Address of the server in the pages; replaced by one with a free port."""

# The command `reason` in a page's shell: it sends its arguments, environment and streams to the fork server.
# Partial (4), unverified (5) and missing (6) answers are expected of a tiny model and count as success.
CLIENT = """#!{python} -IS
import json, os, socket, sys, time
os.environ.update({{**{environment}, **os.environ}})  # an MCP client passes on a part of it
arguments = sys.argv[1:]
serving = arguments[:1] == ["serve"]
connection = socket.socket(socket.AF_UNIX)
connection.connect(os.environ["DOCS_FORK_SERVER"])
request = {{"arguments": arguments, "environment": dict(os.environ), "directory": os.getcwd()}}
log = os.open(os.environ["DOCS_SERVER_LOG"], os.O_CREAT | os.O_APPEND | os.O_WRONLY) if serving else None
streams = [0, 1, 2] if log is None else [os.open(os.devnull, os.O_RDONLY), log, log]
socket.send_fds(connection, [json.dumps(request).encode()], streams)
if serving:
    connection.settimeout(0.05)
    while True:
        try:
            status = connection.recv(8)
            sys.exit(f"the server ended: {{status}}: " + open(os.environ["DOCS_SERVER_LOG"]).read())
        except TimeoutError:
            pass
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", int(os.environ["REASON_SERVE__PORT"]))) == 0:
                sys.exit(0)
status = int(connection.recv(8) or 70)
if status not in (0, 4, 5, 6):
    sys.stderr.write(f"reason {{' '.join(arguments)}}: exit status {{status}}\\n")
sys.exit(0 if status in (4, 5, 6) else status)
"""


class CommandForkServer:
    """The process from which commands are forked (`doc_process`)."""

    def __init__(self, directory: Path) -> None:
        self.tiny = directory / "tiny"
        write_tiny_llama(self.tiny)
        self.address = str(directory / "socket")
        code = (
            f"import sys; sys.path.insert(0, {str(TESTS)!r}); from support.doc_process import main; main(*sys.argv[1:])"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, self.address, str(self.tiny)],
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class PageSession:
    """Runs the blocks of one page in order.

    Args:
        server: Fork server of the commands.
        directory: An empty directory for the home directory and the working directory `work`.
        model: Replacement of all models: "real", "tiny", "scripted" or "agent" (see `doc_process`).
        items: Number of records of each hub dataset.
    """

    def __init__(self, server: CommandForkServer, directory: Path, model: str, items: int) -> None:
        self.work = directory / "work"
        self._log, self._pids = directory / "log", directory / "pids"
        (directory / "bin").mkdir(parents=True)
        self.work.mkdir()
        self._programs = directory / "bin"
        self.program("python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("REASON_", "XDG_CONFIG", "XDG_DATA"))}
        cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        self.environment = {
            **inherited,
            "PATH": f"{self._programs}:{os.environ['PATH']}",
            "XDG_CACHE_HOME": cache,
            "XDG_CONFIG_HOME": str(directory / "config"),
            "XDG_DATA_HOME": str(directory / "data"),
            "DOCS_MODEL": model,
            "DOCS_ITEMS": str(items),
            "DOCS_FORK_SERVER": server.address,
            "DOCS_PIDS": str(self._pids),
            "DOCS_SERVER_LOG": str(directory / "server.log"),
            "REASON_SERVE__PORT": str(self.port),
            "REASON_SERVE__DRAIN_TIMEOUT_S": "0",
            "NO_COLOR": "1",
            "OMP_NUM_THREADS": "1",
        }
        self.program("reason", CLIENT.format(python=sys.executable, environment=self.environment))
        self._notebook: socket.socket | None = None

    def program(self, name: str, text: str) -> None:
        """Add a program to the page's PATH."""
        path = self._programs / name
        path.write_text(text)
        path.chmod(0o755)

    def run(self, block: Block) -> None:
        """Run a block; the test fails if the block does."""
        code = block.code.replace(ADDRESS, f"127.0.0.1:{self.port}")
        match block.language:
            case "bash":
                self.shell(code, block.location)
            case "console":
                self.shell(shown_commands(code), block.location)
            case "python":
                self.python(code, block.location)
            case "toml" if "[[strategy]]" in code:
                (self.work / "sweep.toml").write_text(code, encoding="utf-8")

    def shell(self, code: str, location: str) -> str:
        """Run a shell script; returns its standard output."""
        if "/RUN/" in code:
            newest = json.loads(self.shell("reason runs list --json", "the newest run"))[0]
            code = code.replace("/RUN/", f"/{newest['id']}/")
        script = f"set -euo pipefail\n{code}"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.work,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BLOCK_SECONDS,
        )
        if done.returncode:
            pytest.fail(f"{location} ended with {done.returncode}\n{code}\n{done.stdout}\n{done.stderr}", pytrace=False)
        return done.stdout

    def python(self, code: str, location: str) -> None:
        """Run Python in the page's namespace."""
        if self._notebook is None:
            self._notebook = self._open_notebook()
        self._notebook.sendall(json.dumps({"code": code, "location": location}).encode() + b"\n")
        response = b""
        while not response.endswith(b"\n"):
            part = self._notebook.recv(1 << 16)
            if not part:
                pytest.fail(f"{location} ended the interpreter: {self._log.read_text()}", pytrace=False)
            response += part
        if failure := json.loads(response):
            pytest.fail(f"{location}\n{failure}\n{self._log.read_text()[-2000:]}", pytrace=False)

    def _open_notebook(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(BLOCK_SECONDS)
        connection.connect(self.environment["DOCS_FORK_SERVER"])
        request = {"arguments": ["python"], "environment": self.environment, "directory": str(self.work)}
        with open(os.devnull, "rb") as nothing, self._log.open("ab") as log:
            socket.send_fds(connection, [json.dumps(request).encode()], [nothing.fileno(), log.fileno(), log.fileno()])
        return connection

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._notebook is not None:
            self._notebook.close()
        pids = [int(line) for line in self._pids.read_text().split()] if self._pids.exists() else []
        for number in (signal.SIGTERM, signal.SIGKILL):
            alive = [pid for pid in pids if _is_running(pid)]
            for pid in alive:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            end = time.monotonic() + 5
            while any(_is_running(pid) for pid in alive) and time.monotonic() < end:
                time.sleep(0.02)


def _is_running(pid: int) -> bool:
    """Whether a process was forked by the server, and is running."""
    try:
        return "doc_process" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False
