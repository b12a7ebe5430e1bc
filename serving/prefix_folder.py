"""`PrefixFolder`: the named prefixes of a model on disk, for every engine alike.

    <root>/<16 digits of the identity's SHA-256>/<name>/prefix.json and the files it names

A prefix is written into a folder of its own beside its place and takes the place by a rename, so that a reader finds a
whole one or none. One lock over the root, the operating system's, keeps processes apart: it is held while a name is
read, replaced or removed, not while files are written. What a crash has left is found by the lock that its owner no
longer holds.

Everything here blocks: it is called from a thread (`pulling.run_pull`).
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from filelock import FileLock, Timeout
from pydantic import ValidationError

from ..core.errors import DataError, UnknownName
from ..core.registry import nearest
from .kv_store import PayloadFile, PrefixState, PrefixTooLarge, SavedPrefix, check_name
from .model_files.downloads import Pulling, disk_errors, locked

DESCRIPTION = "prefix.json"
_PARTIAL = ".partial-"
_BLOCK = 1 << 20

T = TypeVar("T")


@dataclass(frozen=True)
class PrefixPlace:
    """Where prefixes are kept, and how much.

    Attributes:
        root: The folder; made when it is first needed.
        limit: Most bytes that all prefixes of all models take on disk.
    """

    root: Path
    limit: int


@dataclass(frozen=True)
class Owner:
    """Whose prefixes they are; see `SavedPrefix`."""

    model: str
    identity: str
    dtype: str
    layout: str


@dataclass(eq=False)
class Attempt(AbstractContextManager["Attempt"]):
    """A prefix that is being written: put the files into `folder`, then `PrefixFolder.publish`.

    Leaving the context removes what was not published. While it is open its lock is held, which tells it from what a
    crash has left. It may be entered and left on different threads.

    Attributes:
        name: The name it will have.
        folder: Where the files go.
    """

    name: str
    folder: Path
    _lock: FileLock

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)


@dataclass(eq=False)
class PrefixFolder:
    """The prefixes of one model on disk.

    Args:
        place: Where they are kept.
        owner: The model.
    """

    place: PrefixPlace
    owner: Owner
    _home: Path = field(init=False)

    def __post_init__(self) -> None:
        self._home = self.place.root / hashlib.sha256(self.owner.identity.encode()).hexdigest()[:16]

    # -- writing

    def begin(
        self, name: str, nbytes: int, pinned: Collection[str] = (), cancel: threading.Event | None = None
    ) -> Attempt:
        """Begin to write a prefix, after making room for it.

        Args:
            name: Its name.
            nbytes: Bytes it will take, without its description.
            pinned: Names of this model that are not removed for it.
            cancel: Stops the waiting for other processes.

        Raises:
            UserError: The name is not allowed, or the folder must not be written.
            PrefixTooLarge: It does not fit, not even with every other unpinned name gone. Nothing is removed then.
            BackendUnavailable: The disk is full.
            Cancelled: Cancelled.
        """
        check_name(name)
        with self._locked(cancel):
            self._clear_leftovers()
            self._make_room(name, nbytes, pinned)
            self._home.mkdir(parents=True, exist_ok=True)
            folder = self._home / f"{_PARTIAL}{name}={os.getpid()}-{secrets.token_hex(4)}"
            lock = FileLock(_lock_of(folder), thread_local=False)
            lock.acquire(timeout=0)
            folder.mkdir()
        return Attempt(name, folder, lock)

    def publish(
        self,
        attempt: Attempt,
        token_ids: tuple[int, ...],
        stored: int,
        pinned: Collection[str] = (),
        then: Callable[[SavedPrefix], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> SavedPrefix:
        """Let the files of an attempt take the place of their name.

        Args:
            attempt: Where the files are: `*.safetensors`, at least one.
            token_ids: The prefix's tokens.
            stored: How many of them the files hold.
            pinned: Names of this model that are not removed to make room.
            then: Called when it is done, still under the lock: so what several writers of a name leave in memory and
                on disk is the same.
            cancel: Stops it, up to the rename.

        Raises:
            PrefixTooLarge: The files are larger than was said, and do not fit.
            UserError: The folder must not be written.
            BackendUnavailable: The disk is full.
            Cancelled: Cancelled.
        """
        pulling = Pulling(cancel=cancel)
        with disk_errors(self.place.root, "prefixes"):
            files = tuple(_sums(path, pulling) for path in sorted(attempt.folder.glob("*.safetensors")))
            saved = SavedPrefix(
                name=attempt.name,
                token_ids=token_ids,
                stored=stored,
                model=self.owner.model,
                identity=self.owner.identity,
                dtype=self.owner.dtype,
                layout=self.owner.layout,
                files=files,
            )
            _write(attempt.folder / DESCRIPTION, saved.model_dump_json(indent=1))
        with self._locked(cancel):
            self._make_room(attempt.name, _size(attempt.folder), pinned)
            target = self._home / attempt.name
            pulling.check()
            old = _old(attempt.folder)
            if target.exists():
                os.replace(target, old)
            os.replace(attempt.folder, target)
            shutil.rmtree(old, ignore_errors=True)
            if then is not None:
                then(saved)
        return saved

    # -- reading

    def describe(self, name: str, cancel: threading.Event | None = None) -> SavedPrefix | None:
        """What is saved under a name, without a look into its files; None if nothing whole of this model's is."""
        check_name(name)
        if not self.place.root.exists():
            return None
        with self._locked(cancel):
            try:
                saved = _described(self._home / name)
                self._check_owner(saved)
                whole = all((self._home / name / f.name).stat().st_size == f.nbytes for f in saved.files)
            except (FileNotFoundError, DataError):
                return None
        return saved if whole else None

    def read(
        self, name: str, load: Callable[[SavedPrefix, Path], T], cancel: threading.Event | None = None
    ) -> tuple[SavedPrefix, T]:
        """Check a prefix and read it.

        Args:
            name: Its name.
            load: Given the description and the folder of the checked files, which stay for the time of the call.
            cancel: Stops it.

        Returns:
            The description, and what `load` made of the files.

        Raises:
            UserError: The name is not allowed.
            UnknownName: Nothing is saved under it.
            DataError: The files are damaged, or another's.
            Cancelled: Cancelled.
        """
        check_name(name)
        if not self.place.root.exists():
            raise self.unknown(name)
        with self._locked(cancel):
            folder = self._home / name
            try:
                saved = _described(folder)
            except FileNotFoundError:
                raise self.unknown(name) from None
            self._check_owner(saved)
            for file in saved.files:
                _check_file(name, folder, file, Pulling(cancel=cancel))
            try:
                loaded = load(saved, folder)
            except FileNotFoundError as e:
                raise _damaged(name, f"{e.filename} is gone") from e
            os.utime(folder / DESCRIPTION)
        return saved, loaded

    def states(self, cancel: threading.Event | None = None) -> list[PrefixState]:
        """What is on disk for this model, by name, each as not pinned."""
        found: list[PrefixState] = []
        if not self.place.root.exists():
            return found
        with self._locked(cancel):
            for folder in sorted(_folders(self._home)):
                try:
                    saved = _described(folder)
                    self._check_owner(saved)
                    used_at = (folder / DESCRIPTION).stat().st_mtime
                except (FileNotFoundError, DataError):
                    continue
                if saved.name == folder.name:
                    found.append(PrefixState(saved=saved, pinned=False, folder=folder, used_at=used_at))
        return found

    def remove(self, name: str, then: Callable[[], None] | None = None, cancel: threading.Event | None = None) -> bool:
        """Remove a name from disk.

        Args:
            name: The name.
            then: Called when it is done, still under the lock.
            cancel: Stops the waiting for other processes.

        Returns:
            Whether it was there.
        """
        check_name(name)
        if not self.place.root.exists():
            if then is not None:
                then()
            return False
        with self._locked(cancel):
            folder = self._home / name
            there = folder.is_dir()
            if there:
                _remove(folder)
            if then is not None:
                then()
        return there

    def unknown(self, name: str, pinned: Collection[str] = ()) -> UnknownName | DataError:
        """The error for a name that is not saved for this model."""
        for other in _folders(self.place.root):
            try:
                saved = _described(other / name)
            except (FileNotFoundError, DataError):
                continue
            return self._foreign(saved)
        known = [*pinned, *(f.name for f in _folders(self._home))]
        return UnknownName("prefix", name, nearest(name, known), hint="save it first")

    # -- within

    def _check_owner(self, saved: SavedPrefix) -> None:
        if (saved.identity, saved.dtype, saved.layout) != (self.owner.identity, self.owner.dtype, self.owner.layout):
            raise self._foreign(saved)

    def _foreign(self, saved: SavedPrefix) -> DataError:
        mine = self.owner
        if saved.identity != mine.identity:
            theirs, ours = f"model {saved.model} ({saved.identity})", f"{mine.model} ({mine.identity})"
        elif saved.dtype != mine.dtype:
            theirs, ours = f"number format {saved.dtype}", mine.dtype
        else:
            theirs, ours = f"layout {saved.layout!r}", repr(mine.layout)
        return DataError(
            f"prefix {saved.name!r} was saved with {theirs}; here it is {ours}", hint="save it again with this model"
        )

    def _make_room(self, name: str, nbytes: int, pinned: Collection[str]) -> None:
        """Remove the least recently used names until `nbytes` more fit. The lock is held.

        Raises:
            PrefixTooLarge: They do not fit even so; nothing was removed.
        """
        own = self._home / name
        sizes = {f: _size(f) for home in _folders(self.place.root) for f in _folders(home) if f != own}
        spared = {self._home / n for n in pinned}
        kept = sum(size for f, size in sizes.items() if f in spared)
        limit = self.place.limit
        if kept + nbytes > limit:
            others = f" beside {kept:,} bytes of pinned prefixes" if kept else ""
            raise PrefixTooLarge(
                f"prefix {name!r} takes {nbytes:,} bytes on disk; the bound is {limit:,}{others}",
                hint="shorten it, drop others, or raise the setting prefix_bytes",
            )
        total = sum(sizes.values())
        for folder in sorted((f for f in sizes if f not in spared), key=_used_at):
            if total + nbytes <= limit:
                break
            _remove(folder)
            total -= sizes[folder]

    @contextmanager
    def _locked(self, cancel: threading.Event | None) -> Iterator[None]:
        root = self.place.root
        with disk_errors(root, "prefixes"), locked(root, Pulling(cancel=cancel), "prefixes"):
            root.mkdir(mode=0o700, exist_ok=True)  # prompts may be private
            yield

    def _clear_leftovers(self) -> None:
        """Remove what attempts of dead processes have left. The lock is held."""
        for home in _folders(self.place.root):
            attempts = {home / p.name.removesuffix(".lock").removesuffix(".old") for p in home.glob(f"{_PARTIAL}*")}
            for partial in attempts:
                lock = FileLock(_lock_of(partial), thread_local=False)
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    continue  # it is being written
                shutil.rmtree(partial, ignore_errors=True)
                shutil.rmtree(_old(partial), ignore_errors=True)
                lock.release()
                _lock_of(partial).unlink(missing_ok=True)


def _folders(parent: Path) -> list[Path]:
    """Folders in a folder that are not our own administration."""
    try:
        return [f for f in parent.iterdir() if not f.name.startswith(".") and f.is_dir()]
    except OSError:
        return []


def _lock_of(partial: Path) -> Path:
    return partial.with_name(partial.name + ".lock")


def _old(partial: Path) -> Path:
    return partial.with_name(partial.name + ".old")


def _described(folder: Path) -> SavedPrefix:
    """The description of a prefix.

    Raises:
        FileNotFoundError: There is none.
        DataError: It is damaged.
    """
    try:
        saved = SavedPrefix.model_validate_json((folder / DESCRIPTION).read_bytes())
    except NotADirectoryError as e:
        raise FileNotFoundError(folder) from e
    except (ValidationError, OSError) as e:
        if isinstance(e, FileNotFoundError):
            raise
        raise _damaged(folder.name, f"{folder / DESCRIPTION} cannot be read") from e
    names = [f.name for f in saved.files]
    sound = all(n.endswith(".safetensors") and n == Path(n).name for n in names) and 0 < len(names) == len(set(names))
    if saved.name != folder.name or not sound or not 0 < saved.stored <= len(saved.token_ids):
        raise _damaged(folder.name, f"{folder / DESCRIPTION} contradicts itself")
    return saved


def _check_file(name: str, folder: Path, file: PayloadFile, pulling: Pulling) -> None:
    path = folder / file.name
    try:
        size = path.stat().st_size
    except FileNotFoundError as e:
        raise _damaged(name, f"{path} is gone") from e
    if size != file.nbytes:
        raise _damaged(name, f"{path} has {size} bytes instead of {file.nbytes}")
    if _sums(path, pulling, settle=False).sha256 != file.sha256:
        raise _damaged(name, f"the SHA-256 of {path} is not that of what was saved")


def _damaged(name: str, how: str) -> DataError:
    return DataError(f"prefix {name!r} is damaged: {how}", hint="save it again, or drop it")


def _sums(path: Path, pulling: Pulling, settle: bool = True) -> PayloadFile:
    """Size and sum of a file; `settle` has it on the disk first."""
    digest, size = hashlib.sha256(), 0
    with path.open("r+b" if settle else "rb") as f:
        if settle:
            os.fsync(f.fileno())
        while block := f.read(_BLOCK):
            pulling.check()
            digest.update(block)
            size += len(block)
    return PayloadFile(name=path.name, nbytes=size, sha256=digest.hexdigest())


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())


def _size(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(f.stat().st_size for f in folder.iterdir() if f.is_file())


def _used_at(folder: Path) -> float:
    try:
        return (folder / DESCRIPTION).stat().st_mtime_ns
    except OSError:
        return 0.0  # without a description it is of no use


def _remove(folder: Path) -> None:
    """Remove a prefix; one half removed is none."""
    (folder / DESCRIPTION).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
