"""`Pulling`: how a long fetch or conversion tells how far it is and hears that it should stop.

A folder that appears whole or not at all, made by one process at a time.

A folder is built beside its place, under a name that says so, and moved there by one rename. What a crash leaves is
found and removed by the next process that holds the lock. Locks are the operating system's: a dead process holds none.
"""

from __future__ import annotations

import asyncio
import errno
import glob
import os
import shutil
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from filelock import FileLock, Timeout

from ...core.errors import BackendUnavailable, Cancelled, UserError

T = TypeVar("T")

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


class Progress(Protocol):
    """Hears how far a pull is. Called from the pulling thread; it must be quick and must not raise."""

    def __call__(self, stage: str, done: int, total: int | None, /) -> None:
        """Take a report.

        Args:
            stage: What is being done, for people: "downloading", "converting", …
            done: Bytes done in this stage.
            total: Bytes of this stage; None if unknown.
        """


@dataclass(frozen=True)
class Pulling:
    """One pull under way: who is told, and whether to go on.

    Attributes:
        progress: Told of every step; None if nobody listens.
        cancel: Set by another thread to stop; None if it cannot be stopped.
    """

    progress: Progress | None = None
    cancel: threading.Event | None = None

    def report(self, stage: str, done: int, total: int | None) -> None:
        """Tell how far it is, unless it should stop.

        Raises:
            Cancelled: The pull was cancelled.
        """
        self.check()
        if self.progress is not None:
            self.progress(stage, done, total)

    def check(self) -> None:
        """Raises `Cancelled` if the pull was cancelled."""
        if self.cancel is not None and self.cancel.is_set():
            raise Cancelled("the pull was cancelled; its partial files are removed")


@contextmanager
def disk_errors(folder: Path, what: str = "model files") -> Iterator[None]:
    """Turn what the operating system says of our own folder into errors that name a remedy.

    Args:
        folder: The folder that is written to.
        what: What is written there.

    Raises:
        BackendUnavailable: The disk is full or a quota is reached.
        UserError: The folder must not be written.
    """
    try:
        yield
    except OSError as e:
        if e.errno in _FULL:
            raise disk_full(folder) from e
        if e.errno in _FORBIDDEN or isinstance(e, FileExistsError | NotADirectoryError):
            raise UserError(
                f"cannot write {what} to {folder}: {e.strerror}",
                hint="set REASON_CACHE_DIR to a folder that you may write to",
            ) from e
        raise


def disk_full(folder: Path, needed: int | None = None) -> BackendUnavailable:
    """The error of a disk without room.

    Args:
        folder: The folder that was to be written to.
        needed: Bytes that would be needed; None if unknown.
    """
    room = f"{needed / 1e6:.0f} MB" if needed else "room"
    return BackendUnavailable(
        f"the disk of {folder} is full; the partial files are removed",
        hint=f"free {room} there (`reason models rm NAME`) or set REASON_CACHE_DIR to another disk",
    )


async def run_pull(work: Callable[[threading.Event], T], discard: Callable[[T], Awaitable[None]] | None = None) -> T:
    """Run blocking work in a thread, such that cancelling the awaiting task stops it and waits until it has cleaned up.

    Args:
        work: What to do; given the event that tells it to stop.
        discard: What to do with a result that came after the cancellation, for example close it.

    Raises:
        ReasonError: What `work` raises.
    """
    cancel = threading.Event()
    running = asyncio.ensure_future(asyncio.to_thread(work, cancel))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        cancel.set()
        await asyncio.wait([running])
        if not running.cancelled() and running.exception() is None and discard is not None:
            await discard(running.result())
        raise


_POLL_S = 0.2


@contextmanager
def locked(place: Path, pulling: Pulling, what: str = "model files") -> Iterator[None]:
    """Hold the lock of a place while the block runs; waits for other processes and can be cancelled meanwhile.

    Args:
        place: What is locked; need not exist. The lock file lies in `.locks` beside it.
        pulling: Tells of the waiting, and when to give up.
        what: What is kept there.

    Raises:
        Cancelled: Cancelled while waiting.
        UserError: The folder must not be written.
        BackendUnavailable: The disk is full.
    """
    with disk_errors(place.parent, what):
        locks = place.parent / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(locks / f"{place.name}.lock")
        while True:
            try:
                lock.acquire(timeout=_POLL_S)
                break
            except Timeout:
                pulling.report("waiting for another process", 0, None)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def staged(place: Path) -> Iterator[Path]:
    """An empty folder that takes a place when the block ends well, and is removed when it does not.

    The caller holds the lock of the place.

    Args:
        place: Where the folder shall stand; what stands there is replaced.

    Yields:
        The folder to fill.

    Raises:
        UserError: The folder must not be written.
        BackendUnavailable: The disk is full.
    """
    clear_leftovers(place)
    staging = place.parent / f"{_prefix(place)}{os.getpid()}"
    with disk_errors(place.parent):
        try:
            staging.mkdir(parents=True)
            yield staging
            _settle(staging)
            if place.exists():
                os.replace(place, staging.with_name(staging.name + ".old"))
            os.replace(staging, place)
        finally:
            clear_leftovers(place)


def clear_leftovers(place: Path) -> None:
    """Remove what earlier attempts at a place have left. The caller holds the place's lock."""
    for leftover in place.parent.glob(f"{glob.escape(_prefix(place))}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def is_leftover(folder: Path) -> bool:
    """Whether a folder is an unfinished attempt or our own administration."""
    return folder.name.startswith(".")


def _prefix(place: Path) -> str:
    return f".partial-{place.name}="  # "=" occurs in no name, so `a` does not claim what belongs to `a-1`


def _settle(folder: Path) -> None:
    """Have the files on the disk before the rename is, or a power cut could leave a named folder of empty files."""
    for path in folder.iterdir():
        if path.is_file():
            handle = os.open(path, os.O_RDWR)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
