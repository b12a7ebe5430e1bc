"""`Pulling`: how a long fetch or conversion tells how far it is and hears that it should stop."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from ..core.errors import BackendUnavailable, Cancelled, UserError

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
