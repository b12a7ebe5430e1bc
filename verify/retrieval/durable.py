"""Files of an index written piece by piece and put in their place at once; a full disk is one clear error."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ...core.errors import DataError, StoreError, UserError

PARTIAL = ".partial-"
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
    partial = path.with_name(PARTIAL + path.name)
    try:
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def settle(path: Path) -> None:
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
