"""The disk that the run store lies on is full for a while."""

from __future__ import annotations

import contextlib
import errno
import resource
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drill_ledger import Outcome, Snapshot, settle, snapshot
from drill_requests import AT_START, SAMPLES, Sender, go_on, status, wait_for_replies, wait_until
from sidecar_backend import Pace
from sidecar_load_servers import started, write_settings
from sidecar_processes import Backend, Process, free_port

PACE = Pace(tokens=8, first_s=0.2, token_s=0.1, jitter=0.5, single=True)
MOUNT = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs"]


class SmallDisk:
    """A file system in memory that is filled by a file of its own; needs the right to mount."""

    kind = "a full file system"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, server: Process) -> None:
        """Leave no byte."""
        with (self.folder / "ballast").open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(size))

    def free(self, server: Process) -> None:
        """Give the room back."""
        (self.folder / "ballast").unlink()


class SmallFiles:
    """A limit on the size of the files that the sidecar writes; needs no rights. SQLite sees another error by it."""

    kind = "a limit on file sizes"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, server: Process) -> None:
        """Let no file of the store grow."""
        most = max(path.stat().st_size for path in self.folder.iterdir() if path.is_file())
        resource.prlimit(server.child.pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

    def free(self, server: Process) -> None:
        """Lift the limit."""
        resource.prlimit(server.child.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk | SmallFiles]:
    """What can be full: a file system of our own where one may be mounted, else files of limited size."""
    place = folder / "disk"
    place.mkdir()
    try:
        mounted = subprocess.run([*MOUNT, str(place)], capture_output=True).returncode == 0
    except OSError as e:
        if e.errno != errno.ENOENT:
            raise
        mounted = False
    try:
        yield SmallDisk(place) if mounted else SmallFiles(place)
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(place)], check=True)


def drill(folder: Path, number: int, times: int, runs: int, *, seconds: float = 120.0) -> Outcome:
    """One drill.

    The disk fills up when so many of all replies are finished (see `drill_kill.drill`), while runs are under way, and
    half as many are sent while it is full: each of those must be refused by an error, or be there in the end. Then
    there is room again; clients send again what was refused and go on with what broke off.
    """
    outcome = Outcome()
    before = [f"tag-disk-{number}-{i}" for i in range(runs)]
    during = [f"tag-disk-{number}-full-{i}" for i in range(runs // 2)]
    port = free_port()
    root = f"http://127.0.0.1:{port}"
    with small_disk(folder) as disk, Backend(folder, AT_START) as backend:
        store = disk.folder / "runs.sqlite3"
        write_settings(folder, backend.root, store=str(store))
        server = started(folder, port)
        backend.set_pace(PACE)
        with server.process:
            sender = Sender(root)
            sender.send(before, again=True)
            wait_for_replies(runs * SAMPLES * (number + 0.5) / times, backend, server.process, outcome, seconds)
            disk.fill(server.process)
            sender.send(during)
            outcome.notes["refused while full"] = len(before) + len(during) - len(sender.accepted)
            outcome.demand(status(root, "/healthz") == 200, "the sidecar does not answer while the disk is full")
            idle = wait_until(lambda: backend.stats()["open"] == 0, seconds)
            outcome.demand(idle, "runs go on without end while the disk is full")
            broken = copied(store, folder / "copy", backend.stats()["tags"])
            disk.free(server.process)
            began = time.monotonic()
            sender.send([*before, *during], again=True)
            done = wait_until(lambda: go_on(sender, store, [*before, *during]), seconds, every=0.5)
            outcome.notes["seconds to the end"] = time.monotonic() - began
            outcome.demand(done, f"not all runs ended within {seconds:.0f} s\n{server.process.tail()}")
            outcome.demand(server.process.end() == 0, f"the sidecar ended badly\n{server.process.tail()}")
        settle(outcome, [*before, *during], SAMPLES, broken, snapshot(store, backend.stats()["tags"]))
        with contextlib.closing(sqlite3.connect(store)) as db:
            [whole] = db.execute("PRAGMA integrity_check").fetchone()
        outcome.demand(whole == "ok", f"the store is damaged: {whole}")
        outcome.notes[disk.kind] = 1
    return outcome


def copied(store: Path, folder: Path, finished: dict[str, int]) -> Snapshot:
    """The store as it is on a full disk, read from a copy elsewhere, since even readers may have to write."""
    folder.mkdir()
    for path in (store, store.with_name(f"{store.name}-wal")):
        if path.exists():
            shutil.copy(path, folder)
    return snapshot(folder / store.name, finished)
