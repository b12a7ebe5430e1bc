"""Files written whole or not at all: a reader finds the old content or the new, and a crash leaves one of them."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from .errors import StoreError


def replace_file(path: Path, content: bytes, prefix: str = ".") -> None:
    """Let content take the place of a file at once; it is on the disk when this returns.

    Args:
        path: The file; its folder is there.
        content: What it is to hold.
        prefix: How the file is called beside its place while it is written: what a killed process leaves.

    Raises:
        OSError: It cannot be written; what was there stays.
    """
    partial = path.with_name(f"{prefix}{path.name}.{secrets.token_hex(4)}")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """The same, with the folder made if need be, and an error for users.

    Raises:
        StoreError: It cannot be written; what was there stays.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content)
    except OSError as e:
        raise StoreError(f"cannot write {path}: {e.strerror}", hint="choose another place, or free some space") from e
