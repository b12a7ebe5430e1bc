"""A real server on a real socket, with a scripted model behind it, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from reason.core.settings import Settings
from reason.sidecar.app import create_app

from support.api_keys import add_key


class Server:
    """Where it is, and what is in it."""

    def __init__(self, app: Any, port: int) -> None:
        self.app, self.url = app, f"http://127.0.0.1:{port}"
        self.loop: asyncio.AbstractEventLoop | None = None

    @property
    def run_manager(self) -> Any:
        return self.app.state.run_manager

    def connect(self, method: str, path: str, body: Any = None, headers: str = "") -> socket.socket:
        """Send a request and leave the connection open."""
        host, _, port = self.url.removeprefix("http://").partition(":")
        sock = socket.create_connection((host, int(port)))
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        sock.sendall(f"{head}{headers}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        return sock

    def add_key(self, *scopes: str, **options: Any) -> str:
        """The text of a new API key."""
        return str(self.call(add_key(self.run_manager.store, *scopes, **options)))

    def call(self, work: Any) -> Any:
        """Run a coroutine on the server's own loop."""
        assert self.loop is not None
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)


@contextlib.contextmanager
def serving(settings: Settings) -> Iterator[Server]:
    """The sidecar with these settings; it is stopped in the end."""
    with serving_app(create_app(settings)) as server:
        yield server


@contextlib.contextmanager
def serving_app(app: Any) -> Iterator[Server]:
    """Any ASGI application likewise."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(256)
        server = Server(app, sock.getsockname()[1])
        running = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=5))
        failed: list[BaseException] = []

        async def serve() -> None:
            server.loop = asyncio.get_running_loop()
            await running.serve(sockets=[sock])

        def run() -> None:
            try:
                asyncio.run(serve())
            except BaseException as e:  # noqa: BLE001 (told by the test's own thread)
                failed.append(e)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            while not running.started:
                if not thread.is_alive():
                    raise RuntimeError(f"the server did not start: {failed}")
                threading.Event().wait(0.01)
            yield server
        finally:
            running.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


def settings_for(folder: Path, **serve: Any) -> Settings:
    """Settings of a server with a scripted model and no keys."""
    options = {"auth": False, "drain_timeout_s": 0.0, **serve}
    return Settings(model="scripted", store=folder / "runs.sqlite3", cache_dir=folder / "cache", seed=5, serve=options)
