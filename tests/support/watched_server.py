"""`reason serve` as a process with API keys, models that answer at once, and a watchdog of its event loop."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from reason.core.store import open_store

from support.api_keys import add_key
from support.sidecar_process import free_port

TESTS = Path(__file__).resolve().parents[1]
CODE = """
import sys
sys.path.insert(0, {tests!r})
from support.watched_server import serve
sys.exit(serve())
"""
MODELS = ("instant", "instant-small")


def serve() -> int:
    """The process: the command line of `reason serve`, with a thread that answers `WatchedServer` on a pipe."""
    import threading

    import reason.agents.reasoner as reasoner
    from reason.cli.main import main

    from support.echo_model import EchoModel
    from support.loop_lag import LoopWatchdog

    watchdogs: list[LoopWatchdog] = []

    async def load_model(name: str, *_: object) -> EchoModel:
        if not watchdogs:  # the first model is loaded on the server's loop
            watchdogs.append(LoopWatchdog().__enter__())
        return EchoModel(name)

    def respond() -> None:
        with os.fdopen(int(os.environ["WATCHED_IN"])) as lines, os.fdopen(int(os.environ["WATCHED_OUT"]), "w") as out:
            for line in lines:
                watchdog = watchdogs[0]
                assert watchdog.is_alive
                block = {"seconds": watchdog.longest_s, "cpu_s": watchdog.longest_cpu_s, "stack": watchdog.stack}
                if line.strip() == "reset":
                    watchdog.reset()
                out.write(json.dumps(block) + "\n")
                out.flush()

    reasoner.load_model = load_model
    threading.Thread(target=respond, daemon=True).start()
    return int(main() or 0)


@dataclass(frozen=True)
class Block:
    """The longest block of the server's event loop; see `LoopWatchdog`."""

    seconds: float
    cpu_s: float
    stack: str


class WatchedServer:
    """One server process, with a key of the scopes "ask" and "read". A context manager."""

    def __init__(self, folder: Path | None = None, **environment: str) -> None:
        self._scratch = None if folder else tempfile.TemporaryDirectory(prefix="reason-fuzz-")
        self.folder = folder or Path(self._scratch.name)
        self.log = self.folder / "server.log"
        self._environment = environment
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._arguments = ["serve", "--port", str(port), "--store", str(self.folder / "runs.sqlite3")]
        self.key = ""

    def __enter__(self) -> WatchedServer:
        self.key = asyncio.run(self._add_key())
        command_in, self._commands = os.pipe()
        self._replies, reply_out = os.pipe()
        with self.log.open("w") as out:
            self.child = subprocess.Popen(
                [sys.executable, "-c", CODE.format(tests=str(TESTS)), *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.folder,
                pass_fds=(command_in, reply_out),
                env={
                    **{k: v for k, v in os.environ.items() if not k.startswith("REASON_")},
                    "XDG_CONFIG_HOME": str(self.folder / "config"),
                    "XDG_CACHE_HOME": str(self.folder / "cache"),
                    "REASON_MODEL": MODELS[0],
                    "REASON_SERVE__MODELS": json.dumps(MODELS[1:]),
                    "REASON_SERVE__DRAIN_TIMEOUT_S": "0",
                    "WATCHED_IN": str(command_in),
                    "WATCHED_OUT": str(reply_out),
                    "OMP_NUM_THREADS": "1",
                    **self._environment,
                },
            )
        os.close(command_in)
        os.close(reply_out)
        self._reader = os.fdopen(self._replies)
        while True:
            if self.child.poll() is not None:
                raise RuntimeError(self.log.read_text())
            try:
                if httpx.get(f"{self.url}/readyz", timeout=60).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.05)
        self.block(reset=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.child.kill()
        self.child.wait()
        os.close(self._commands)
        self._reader.close()
        if self._scratch is not None:
            self._scratch.cleanup()

    async def _add_key(self) -> str:
        store = await open_store(self.folder / "runs.sqlite3")
        try:
            return await add_key(store, tenant="fuzz")
        finally:
            await store.aclose()

    def block(self, *, reset: bool = False) -> Block:
        """The longest block since the last reset."""
        os.write(self._commands, b"reset\n" if reset else b"read\n")
        found: dict[str, Any] = json.loads(self._reader.readline())
        return Block(**found)

    def memory_mib(self, field: str = "VmRSS") -> float:
        """Resident memory of the process; its maximum for `VmHWM`."""
        for line in Path(f"/proc/{self.child.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1024
        return 0.0
