"""Files of a saved index: durable writes, arrays in shards of consecutive positions, and errors with a remedy."""

from __future__ import annotations

import bisect
import contextlib
import errno
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ....core.errors import DataError, StoreError, UserError

PARTIAL_PREFIX = ".partial-"
"""Prefix of the name of a file that is being written."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR}
_NAME = re.compile(r"([0-9]{12})-([0-9]{12})(\.[a-z]+)")


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """A file with the positions from `start` up to `stop`."""

    start: int
    stop: int
    path: Path


class ArrayShards:
    """The files of a directory that together have all positions from 0 on.

    Each file is written completely or not at all. Files that do not continue the others are ignored.

    Args:
        directory: The directory, created with the first file.
        suffix: Suffix of the files.
    """

    def __init__(self, directory: Path, suffix: str) -> None:
        self._directory, self._suffix = directory, suffix
        self.shards: list[Shard] = []
        files = directory.iterdir() if directory.is_dir() else ()
        named = [(m, path) for path in files if (m := _NAME.fullmatch(path.name))]
        for shard in sorted(Shard(int(m[1]), int(m[2]), path) for m, path in named if m[3] == suffix):
            if shard.start == self.end < shard.stop:
                self.shards.append(shard)
        self._starts = [shard.start for shard in self.shards]

    @property
    def end(self) -> int:
        """One past the last position."""
        return self.shards[-1].stop if self.shards else 0

    def add(self, stop: int, write: Callable[[IO[bytes]], None]) -> None:
        """Write the positions from the end up to `stop`.

        Raises:
            OSError: The file cannot be written.
        """
        start = self.end
        path = self._directory / f"{start:012d}-{stop:012d}{self._suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, write)
        self.shards.append(Shard(start, stop, path))
        self._starts.append(start)

    def find(self, position: int) -> Shard | None:
        """The file that contains a position."""
        at = bisect.bisect_right(self._starts, position) - 1
        return self.shards[at] if at >= 0 and position < self.shards[at].stop else None


def write_durably(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Write a file atomically; it is on the disk when this returns. Only one process may write there.

    Raises:
        OSError: It cannot be written; the previous content stays.
    """
    partial = path.with_name(PARTIAL_PREFIX + path.name)
    try:
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def fsync_file(path: Path) -> None:
    """Flush a file that a library has written to the disk."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def index_errors(directory: Path) -> Iterator[None]:
    """Turn errors of the system and the database on an index's own files into errors with a remedy.

    Raises:
        StoreError: The disk is full, or a file cannot be written.
        UserError: The directory is not writable.
        DataError: The database is damaged.
    """
    try:
        yield
    except OSError as e:
        if e.errno in _FULL:
            raise _disk_full(directory) from e
        if e.errno in _FORBIDDEN:
            raise UserError(f"cannot write the index {directory}: {e.strerror}", hint="choose another directory") from e
        raise StoreError(f"the index {directory} cannot be read or written: {e.strerror or e}") from e
    except sqlite3.DatabaseError as e:
        code = getattr(e, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            raise _disk_full(directory) from e
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            raise UserError(f"cannot open the index {directory}: {e}", hint="choose another directory") from e
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise DataError(f"the index {directory} is damaged: {e}", hint="remove it and rebuild it") from e
        raise StoreError(f"the index {directory} cannot be read or written: {e}") from e


def _disk_full(directory: Path) -> StoreError:
    return StoreError(
        f"the disk of {directory} is full; what was saved is kept", hint="free some space and run it again to continue"
    )
