"""A Hugging Face hub as far as its library needs one to list and download a model."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer:
    """A hub on the loopback whose models all have the files of one directory.

    Attributes:
        asked: Paths of the requests.
        url: Its address.
    """

    def __init__(self, folder: Path, repositories: Sequence[str] = ("org/tiny",)) -> None:
        self.asked: list[str] = []
        self.folder = folder
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self._answer(body=False)

            def do_GET(self) -> None:
                self._answer(body=True)

            def _answer(self, *, body: bool) -> None:
                hub.asked.append(self.path)
                path = self.path.split("?")[0]
                repository = next((r for r in repositories if f"/{r}/" in path), "")
                name = path.rsplit("/", 1)[-1]
                if repository and path.startswith("/api/models/") and "/tree/" in path:
                    files = [
                        {"type": "file", "path": p.name, "size": p.stat().st_size, "oid": f"{p.name:0<40}"}
                        for p in hub.folder.iterdir()
                    ]
                    self._send(json.dumps(files).encode(), {"Content-Type": "application/json"}, body=body)
                elif repository and path.startswith("/api/models/"):
                    listing = {
                        "id": repository,
                        "sha": COMMIT,
                        "siblings": [{"rfilename": p.name} for p in hub.folder.iterdir()],
                    }
                    self._send(json.dumps(listing).encode(), {"Content-Type": "application/json"}, body=body)
                elif repository and "/resolve/" in path and (hub.folder / name).is_file():
                    headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{name}-etag"'}
                    self._send((hub.folder / name).read_bytes(), headers, body=body)
                else:
                    self._send(b"{}", {"X-Error-Code": "RepoNotFound"}, body=body, status=404)

            def _send(self, content: bytes, headers: dict[str, str], *, body: bool, status: int = 200) -> None:
                self.send_response(status)
                for key, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(key, value)
                self.end_headers()
                if body:
                    self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.server.shutdown()
        self.server.server_close()
