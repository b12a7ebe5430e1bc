"""`PullTask`: progress and cancellation of downloads and conversions; locks, and directories that appear atomically.

A directory is built next to its target, under a name that marks it as partial, and moved there by one rename. The
remains of a crash are removed by the next process that holds the lock. Locks are the operating system's: a dead process
holds none.
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
from typing import TypeVar

from ...core.errors import BackendUnavailable, Cancelled, UserError
from ...core.files import Progress

T = TypeVar("T")

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


@dataclass(frozen=True)
class PullTask:
    """One pull in progress.

    Attributes:
        progress: Called at every step.
        cancel: Set by another thread to cancel.
    """

    progress: Progress | None = None
    cancel: threading.Event | None = None

    def report(self, stage: str, done: int, total: int | None) -> None:
        """Report the progress.

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
def disk_errors(directory: Path, what: str = "model files") -> Iterator[None]:
    """Turn errors of the operating system on our own directory into errors with a remedy.

    Args:
        directory: The directory that is written to.
        what: What is written there.

    Raises:
        BackendUnavailable: The disk is full or a quota is reached.
        UserError: The directory must not be written.
    """
    try:
        yield
    except OSError as e:
        if e.errno in _FULL:
            raise disk_full(directory) from e
        if e.errno in _FORBIDDEN or isinstance(e, FileExistsError | NotADirectoryError):
            raise UserError(
                f"cannot write {what} to {directory}: {e.strerror}",
                hint="set REASON_CACHE_DIR to a writable directory",
            ) from e
        raise


def disk_full(directory: Path, needed: int | None = None) -> BackendUnavailable:
    """The error of a full disk.

    Args:
        directory: The directory that was to be written to.
        needed: Bytes that would be needed; None if unknown.
    """
    room = f"{needed / 1e6:.0f} MB" if needed else "room"
    return BackendUnavailable(
        f"the disk of {directory} is full; the partial files are removed",
        hint=f"free {room} there (`reason models rm NAME`) or set REASON_CACHE_DIR to another disk",
    )


async def run_pull(work: Callable[[threading.Event], T], discard: Callable[[T], Awaitable[None]] | None = None) -> T:
    """Run blocking work in a thread, such that cancelling the awaiting task stops it and waits until it has cleaned up.

    Args:
        work: The work, called with the event that cancels it.
        discard: Called with a result that came after the cancellation, for example to close it.

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
def directory_lock(target: Path, pulling: PullTask, what: str = "model files") -> Iterator[None]:
    """Hold the lock of a directory during the block; waits for other processes, and can be cancelled meanwhile.

    Args:
        target: The directory, which need not exist. The lock file is in `.locks` next to it.
        pulling: Receives the waiting, and may cancel it.
        what: Its content, for messages.

    Raises:
        Cancelled: Cancelled while waiting.
        UserError: The directory is not writable.
        BackendUnavailable: The disk is full.
    """
    from filelock import FileLock, Timeout

    with disk_errors(target.parent, what):
        locks = target.parent / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(locks / f"{target.name}.lock")
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
def atomic_directory(target: Path) -> Iterator[Path]:
    """An empty directory that replaces the target if the block succeeds, and is removed if it does not.

    The caller holds the lock of the target.

    Args:
        target: The directory to replace.

    Yields:
        The directory to fill.

    Raises:
        UserError: The directory is not writable.
        BackendUnavailable: The disk is full.
    """
    clear_leftovers(target)
    staging = target.parent / f"{_prefix(target)}{os.getpid()}"
    with disk_errors(target.parent):
        try:
            staging.mkdir(parents=True)
            yield staging
            _settle(staging)
            if target.exists():
                os.replace(target, staging.with_name(staging.name + ".old"))
            os.replace(staging, target)
        finally:
            clear_leftovers(target)


def clear_leftovers(target: Path) -> None:
    """Remove the remains of earlier attempts at a target. The caller holds its lock."""
    for leftover in target.parent.glob(f"{glob.escape(_prefix(target))}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def is_leftover(directory: Path) -> bool:
    """Whether a directory is an unfinished attempt or our own administration."""
    return directory.name.startswith(".")


def _prefix(target: Path) -> str:
    return f".partial-{target.name}="  # "=" occurs in no name, so `a` does not claim what belongs to `a-1`


def _settle(directory: Path) -> None:
    """Have the files on the disk before the rename is, or a power cut could leave a named directory of empty files."""
    for path in directory.iterdir():
        if path.is_file():
            handle = os.open(path, os.O_RDWR)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
