"""`ArrayShards`: arrays on disk, each of a run of places, that were kept as soon as they were computed.

Files of an index written piece by piece and put in their place at once; a full disk is one clear error.
"""

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
"""How the name of a file begins while it is written."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR}


def write_durably(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Write a file of any size; it is on the disk, whole, when this returns.

    Args:
        path: The file; its folder is there. One process at a time writes there.
        write: Writes the content.

    Raises:
        OSError: It cannot be written; what was there stays.
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
    """Have a file that a library has written on the disk."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def index_errors(folder: Path) -> Iterator[None]:
    """Turn what system and database say of an index's own files into errors with a remedy.

    Raises:
        StoreError: The disk is full, or a file cannot be written.
        UserError: The folder must not be written.
        DataError: The database is damaged.
    """
    try:
        yield
    except OSError as e:
        if e.errno in _FULL:
            raise _full(folder) from e
        if e.errno in _FORBIDDEN:
            raise UserError(f"cannot write the index {folder}: {e.strerror}", hint="choose another folder") from e
        raise StoreError(f"the index {folder} cannot be read or written: {e.strerror or e}") from e
    except sqlite3.DatabaseError as e:
        code = getattr(e, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            raise _full(folder) from e
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            raise UserError(f"cannot open the index {folder}: {e}", hint="choose another folder") from e
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise DataError(f"the index {folder} is damaged: {e}", hint="remove it and build it anew") from e
        raise StoreError(f"the index {folder} cannot be read or written: {e}") from e


def _full(folder: Path) -> StoreError:
    return StoreError(
        f"the disk of {folder} is full; what was saved stays", hint="free some room and run it again: it goes on"
    )


_NAME = re.compile(r"([0-9]{12})-([0-9]{12})(\.[a-z]+)")


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """A file of the places from `start` up to `stop`."""

    start: int
    stop: int
    path: Path


class ArrayShards:
    """The files of a folder that together have the places from 0 on, without a gap.

    Each is written whole or not at all. What does not follow on the others is not looked at.

    Args:
        folder: The folder; made when the first one is written.
        suffix: Of the files.
    """

    def __init__(self, folder: Path, suffix: str) -> None:
        self._folder, self._suffix = folder, suffix
        self.shards: list[Shard] = []
        named = [(m, p) for p in (folder.iterdir() if folder.is_dir() else ()) if (m := _NAME.fullmatch(p.name))]
        found = sorted(Shard(int(m[1]), int(m[2]), p) for m, p in named if m[3] == suffix)
        for shard in found:
            if shard.start == self.end < shard.stop:
                self.shards.append(shard)
        self._starts = [shard.start for shard in self.shards]

    @property
    def end(self) -> int:
        """One past the last place that is there."""
        return self.shards[-1].stop if self.shards else 0

    def add(self, stop: int, write: Callable[[IO[bytes]], None]) -> None:
        """Keep the places from the end up to `stop`.

        Raises:
            OSError: It cannot be written.
        """
        start = self.end
        path = self._folder / f"{start:012d}-{stop:012d}{self._suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, write)
        self.shards.append(Shard(start, stop, path))
        self._starts.append(start)

    def of(self, place: int) -> Shard | None:
        """The file that has a place."""
        at = bisect.bisect_right(self._starts, place) - 1
        return self.shards[at] if at >= 0 and place < self.shards[at].stop else None
