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
from collections.abc import Iterator, Sequence
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


class VllmProcess:
    """A server that can be killed, stopped and started again at its address.

    It names our logits processors. vLLM's development mode is on beside our own page, to test both ways.

    Args:
        folder: The model's folder.
        log: File for what the server prints.
        more: Further arguments.
        key: The key.
        address: Where it listens.
        prefix: A command that executes it on another host, such as `ip netns exec NAME`.
    """

    def __init__(
        self,
        folder: Path,
        log: Path,
        *more: str,
        key: str = "right",
        address: str = "127.0.0.1",
        prefix: Sequence[str] = (),
    ) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
        self.root, self._key, self._log = f"http://{address}:{port}", key, log
        self._command = [
            *prefix,
            *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
            *("--model", str(folder), "--served-model-name", SERVED, "--host", address, "--port", str(port)),
            *("--api-key", key, "--dtype", "float32", "--max-model-len", str(CONTEXT), "--max-num-seqs", "16"),
            *("--enforce-eager", "--block-size", "32", "--kv-cache-memory-bytes", str(256 << 20)),
            # on a CPU, seeds and prompts computed in chunks end the server
            *("--no-enable-chunked-prefill", "--max-num-batched-tokens", "2048"),
            *("--scheduling-policy", "priority", "--enable-prompt-tokens-details"),
            *("--generation-config", "vllm"),
            *("--logits-processors", "reason.serving.vllm.logits_processor:ReasonLogitsProcessor"),
            *("--worker-extension-cls", "reason.serving.vllm.logits_processor.ReasonWorkerExtension"),
            *more,
        ]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, if it does not run, and do not wait until it is ready."""
        if self.is_running:
            return
        environment = os.environ | {
            "VLLM_PLUGINS": "reason",
            "VLLM_SERVER_DEV_MODE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "OMP_NUM_THREADS": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # or all servers are pinned to the first core
        }
        with self._log.open("w") as out:
            # a session of its own: ending it ends the engine's processes too
            self._process = subprocess.Popen(
                self._command,
                env=environment,
                stdout=out,
                stderr=out,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    def wait_ready(self) -> RealServer:
        """Wait until it takes requests."""
        assert self._process is not None
        _wait(self._process, self.root, self._log)
        return RealServer(self.root, self._key, self._process.pid)

    def terminate(self) -> None:
        """Ask it to end, as a rolling restart does, and do not wait."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End all its processes with SIGKILL, as a lack of memory or a crash of its host does."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(20)

    def stop(self) -> None:
        """Ask it to end, and then see to it that its whole group has."""
        if self._process is None:
            return
        self.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(20)
        self.kill()


@contextlib.contextmanager
def real_server(folder: Path, log: Path, *more: str, key: str = "right") -> Iterator[RealServer]:
    """Serve a model on the loopback; arguments as `VllmProcess`."""
    server = VllmProcess(folder, log, *more, key=key)
    try:
        server.start()
        yield server.wait_ready()
    finally:
        server.stop()


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
