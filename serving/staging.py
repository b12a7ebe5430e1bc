"""A folder that appears whole or not at all, made by one process at a time.

A folder is built beside its place, under a name that says so, and moved there by one rename. What a crash leaves is
found and removed by the next process that holds the lock. Locks are the operating system's: a dead process holds none.
"""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .pulling import Pulling, disk_errors

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
