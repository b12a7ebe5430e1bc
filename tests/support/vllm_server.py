"""A real vLLM server as a child process: started on a free port of the loopback, and always ended."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

SERVED = "small"
CONTEXT = 1024
START_S = 240.0


@dataclass(frozen=True)
class RealServer:
    """A server that is running.

    Attributes:
        root: Its address without `/v1`.
        key: Its key, which guards what lies below `/v1`.
        pid: Its process.
    """

    root: str
    key: str
    pid: int

    @property
    def base(self) -> str:
        """Its address ending in `/v1`."""
        return f"{self.root}/v1"

    def gauge(self, name: str) -> float:
        """The sum of a metric over its labels."""
        page = httpx.get(f"{self.root}/metrics", timeout=30).text
        found = re.findall(rf"^vllm:{name}(?:{{[^}}]*}})? (\S+)$", page, re.MULTILINE)
        assert found, f"the server has no metric vllm:{name}"
        return sum(map(float, found))

    def under_way(self) -> int:
        """Requests that are running or waiting."""
        return int(self.gauge("num_requests_running") + self.gauge("num_requests_waiting"))

    def post(self, path: str, body: dict, key: str | None = None) -> httpx.Response:
        """POST to a path beside or below `/v1`, without our backend."""
        headers = {"Authorization": f"Bearer {self.key if key is None else key}"}
        return httpx.post(self.root + path, json=body, headers=headers, timeout=120)


@contextlib.contextmanager
def real_server(folder: Path, log: Path, *more: str, key: str = "right") -> Iterator[RealServer]:
    """Serve a model.

    Our hooks come in by their entry point. vLLM's development mode is on beside our own page, to test both ways.

    Args:
        folder: The model's folder.
        log: File for what the server prints.
        more: Further arguments.
        key: The key.
    """
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(folder), "--served-model-name", SERVED, "--host", "127.0.0.1", "--port", str(port)),
        *("--api-key", key, "--dtype", "float32", "--max-model-len", str(CONTEXT), "--max-num-seqs", "16"),
        *("--enforce-eager", "--block-size", "32", "--kv-cache-memory-bytes", str(256 << 20)),
        # on a CPU, seeds and prompts computed in chunks end the server
        *("--no-enable-chunked-prefill", "--max-num-batched-tokens", "2048"),
        *("--scheduling-policy", "priority", "--enable-prompt-tokens-details"),
        *("--generation-config", "vllm"),
        *("--worker-extension-cls", "reason.serving.vllm.worker.ReasonWorkerExtension"),
        *more,
    ]
    environment = os.environ | {
        "VLLM_PLUGINS": "reason",
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "OMP_NUM_THREADS": "1",
    }
    with log.open("w") as out:
        # a session of its own: ending it ends the engine's processes too
        process = subprocess.Popen(
            command, env=environment, stdout=out, stderr=out, start_new_session=True, preexec_fn=_end_with_parent
        )
    try:
        root = f"http://127.0.0.1:{port}"
        _wait(process, root, log)
        yield RealServer(root, key, process.pid)
    finally:
        _end(process)


def _end_with_parent() -> None:
    """Ask Linux to end the server when the tests are killed."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _wait(process: subprocess.Popen[bytes], root: str, log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{root}/health", timeout=5).status_code == 200:
                return
        time.sleep(0.2)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
    raise AssertionError(f"the server did not start (status {process.poll()}):\n{tail}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the server to end, and then see to it that its whole group has."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(20)
