"""Where named memories lie, and which there are.

Each has a folder `memory/<name>` beside the run store: `items.sqlite3` has the items and their vectors, `index.faiss`
a FAISS index over these, which is made anew whenever it does not fit, and `index.json` what that was made of.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from ...core.errors import StoreError, UnknownName, UserError
from ...core.registry import nearest
from ...core.settings import Settings
from ...serving.kv_store import check_name

ROWS = "items.sqlite3"
LOCK_TIMEOUT_S = 10.0
"""How long another process may hold a memory's folder, in seconds."""


@dataclass(frozen=True)
class MemoryPlace:
    """Where a named memory lies, whether it is there or not.

    Attributes:
        name: Its name.
        folder: Its folder.
    """

    name: str
    folder: Path

    @property
    def rows(self) -> Path:
        """The file of its items."""
        return self.folder / ROWS

    def exists(self) -> bool:
        """Whether it is there."""
        return self.rows.is_file()

    @contextmanager
    def locked(self, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
        """Keep other processes from replacing or removing files of the folder while the block runs. Blocks.

        Raises:
            StoreError: Another process holds it too long, or the folder cannot be written.
        """
        locks = self.folder.parent / ".locks"
        with folder_errors(self):
            locks.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = FileLock(locks / f"{self.name}.lock")
            try:
                lock.acquire(timeout=timeout_s)
            except Timeout:
                raise StoreError(f"memory {self.name!r} is held by another process", hint="try again") from None
        try:
            yield
        finally:
            lock.release()


def memory_place(name: str, settings: Settings) -> MemoryPlace:
    """Where the memory of that name lies, or would.

    Raises:
        UserError: A memory cannot have that name.
    """
    try:
        check_name(name)
    except UserError as e:
        shown = repr(name) if len(name) <= 100 else repr(name[:97]) + "…"
        raise UserError(f"{shown} cannot name a memory", hint=e.hint) from None
    return MemoryPlace(name, _home(settings) / name)


def find_memory(name: str, settings: Settings) -> MemoryPlace:
    """Where an existing memory lies.

    Raises:
        UserError: A memory cannot have that name.
        UnknownName: There is none.
    """
    place = memory_place(name, settings)
    if not place.exists():
        near = nearest(name, [p.name for p in memory_places(settings)])
        raise UnknownName("memory", name, near, hint="`reason memory list` shows those there are")
    return place


def memory_places(settings: Settings) -> list[MemoryPlace]:
    """The memories that there are, by name."""
    try:
        folders = sorted(_home(settings).iterdir())
    except OSError:
        return []
    places = [MemoryPlace(f.name, f) for f in folders if not f.name.startswith(".")]
    return [place for place in places if place.exists()]


def remove_memory(place: MemoryPlace) -> None:
    """Remove a memory with all its items. Blocks.

    Raises:
        StoreError: Another process holds its folder, or it cannot be removed.
    """
    with place.locked(), folder_errors(place):
        place.rows.unlink(missing_ok=True)  # first: without it, what is left is no memory
        shutil.rmtree(place.folder)


@contextmanager
def folder_errors(place: MemoryPlace) -> Iterator[None]:
    """Turn what the operating system says of a memory's folder into `StoreError`."""
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(f"no space left for memory {place.name!r} in {place.folder}", hint="free some") from e
        raise StoreError(
            f"cannot use the folder {place.folder} of memory {place.name!r}: {e.strerror or e}", hint="set --store"
        ) from e


def _home(settings: Settings) -> Path:
    return settings.beside_store / "memory"
