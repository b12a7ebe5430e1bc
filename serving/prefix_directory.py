"""`PrefixDirectory`: the named prefixes of a model on disk, the same for every engine.

    <root>/<16 digits of the identity's SHA-256>/<name>/prefix.json and the files it names

A prefix is written into a temporary directory and replaces its name by a rename, so that a reader gets a complete one
or none. One operating-system lock over the root serializes processes: it is locked while a name is read, replaced or
removed, not while files are written. Leftovers of a crash are recognized by their lock, which no process holds.

Everything here blocks: it is called from a thread (`run_pull`).
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
from .model_files.downloads import PullTask, directory_lock, disk_errors

DESCRIPTION = "prefix.json"
_PARTIAL = ".partial-"
_READ_BYTES = 1 << 20

T = TypeVar("T")


@dataclass(frozen=True)
class PrefixStorage:
    """Where prefixes are stored, and how many bytes.

    Attributes:
        root: The directory; created when it is first needed.
        limit: Maximum bytes of all prefixes of all models on disk.
    """

    root: Path
    limit: int


@dataclass(frozen=True)
class PrefixOwner:
    """The model that prefixes belong to; see `SavedPrefix`."""

    model: str
    identity: str
    dtype: str
    layout: str


@dataclass(eq=False)
class PrefixWriter(AbstractContextManager["PrefixWriter"]):
    """A prefix that is being written: write the files into `directory`, then call `PrefixDirectory.publish`.

    Leaving the context removes what was not published. While it is open its lock is held, which distinguishes it from
    what a crash has left. It may be entered and left on different threads.

    Attributes:
        name: The name it will have.
        directory: Where the files go.
    """

    name: str
    directory: Path
    _lock: FileLock

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)


@dataclass(eq=False)
class PrefixDirectory:
    """The prefixes of one model on disk."""

    storage: PrefixStorage
    owner: PrefixOwner
    _home: Path = field(init=False)

    def __post_init__(self) -> None:
        self._home = self.storage.root / hashlib.sha256(self.owner.identity.encode()).hexdigest()[:16]

    # -- writing

    def begin(
        self, name: str, nbytes: int, pinned: Collection[str] = (), cancel: threading.Event | None = None
    ) -> PrefixWriter:
        """Begin to write a prefix, after freeing space for it.

        Args:
            nbytes: Its bytes, without its description.
            pinned: Names of this model that are not removed for it.

        Raises:
            UserError: The name is not allowed, or the directory must not be written.
            PrefixTooLarge: It does not fit, even with every other unpinned name removed. Nothing is removed then.
            BackendUnavailable: The disk is full.
            Cancelled: Cancelled.
        """
        check_name(name)
        with self._locked(cancel):
            self._remove_abandoned()
            self._make_room(name, nbytes, pinned)
            self._home.mkdir(parents=True, exist_ok=True)
            directory = self._home / f"{_PARTIAL}{name}={os.getpid()}-{secrets.token_hex(4)}"
            lock = FileLock(_lock_path(directory), thread_local=False)
            lock.acquire(timeout=0)
            directory.mkdir()
        return PrefixWriter(name, directory, lock)

    def publish(
        self,
        writer: PrefixWriter,
        token_ids: tuple[int, ...],
        stored: int,
        pinned: Collection[str] = (),
        on_published: Callable[[SavedPrefix], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> SavedPrefix:
        """Replace a name by the files of a writer.

        Args:
            writer: Where the files are: `*.safetensors`, at least one.
            pinned: Names of this model that are not removed.
            on_published: Called when it is done, still under the lock: so what several writers of a name leave in
                memory and on disk is the same.
            cancel: Stops it, up to the rename.

        Raises:
            PrefixTooLarge: The files are larger than announced, and do not fit.
            UserError: The directory must not be written.
            BackendUnavailable: The disk is full.
            Cancelled: Cancelled.
        """
        task = PullTask(cancel=cancel)
        with disk_errors(self.storage.root, "prefixes"):
            files = tuple(_payload(path, task) for path in sorted(writer.directory.glob("*.safetensors")))
            saved = SavedPrefix(
                name=writer.name,
                token_ids=token_ids,
                stored=stored,
                model=self.owner.model,
                identity=self.owner.identity,
                dtype=self.owner.dtype,
                layout=self.owner.layout,
                files=files,
            )
            _write(writer.directory / DESCRIPTION, saved.model_dump_json(indent=1))
        with self._locked(cancel):
            self._make_room(writer.name, _size(writer.directory), pinned)
            target = self._home / writer.name
            task.check()
            replaced = _replaced_path(writer.directory)
            if target.exists():
                os.replace(target, replaced)
            os.replace(writer.directory, target)
            shutil.rmtree(replaced, ignore_errors=True)
            if on_published is not None:
                on_published(saved)
        return saved

    # -- reading

    def describe(self, name: str, cancel: threading.Event | None = None) -> SavedPrefix | None:
        """The description of a complete prefix of this model, without reading its files; None if there is none."""
        check_name(name)
        if not self.storage.root.exists():
            return None
        with self._locked(cancel):
            try:
                saved = _read_description(self._home / name)
                self._check_owner(saved)
                is_complete = all((self._home / name / f.name).stat().st_size == f.nbytes for f in saved.files)
            except (FileNotFoundError, DataError):
                return None
        return saved if is_complete else None

    def read(
        self, name: str, load: Callable[[SavedPrefix, Path], T], cancel: threading.Event | None = None
    ) -> tuple[SavedPrefix, T]:
        """Check a prefix and read it.

        Args:
            load: Receives the description and the directory of the checked files, which stay for the time of the call.

        Returns:
            The description, and the result of `load`.

        Raises:
            UserError: The name is not allowed.
            UnknownName: Nothing is saved under it.
            DataError: The files are damaged, or another model's.
            Cancelled: Cancelled.
        """
        check_name(name)
        if not self.storage.root.exists():
            raise self.unknown(name)
        with self._locked(cancel):
            directory = self._home / name
            try:
                saved = _read_description(directory)
            except FileNotFoundError:
                raise self.unknown(name) from None
            self._check_owner(saved)
            for file in saved.files:
                _check_file(name, directory, file, PullTask(cancel=cancel))
            try:
                loaded = load(saved, directory)
            except FileNotFoundError as e:
                raise _damaged(name, f"{e.filename} is missing") from e
            os.utime(directory / DESCRIPTION)
        return saved, loaded

    def states(self, cancel: threading.Event | None = None) -> list[PrefixState]:
        """The prefixes of this model on disk, by name, each as not pinned."""
        states: list[PrefixState] = []
        if not self.storage.root.exists():
            return states
        with self._locked(cancel):
            for directory in sorted(_directories(self._home)):
                try:
                    saved = _read_description(directory)
                    self._check_owner(saved)
                    used_at = (directory / DESCRIPTION).stat().st_mtime
                except (FileNotFoundError, DataError):
                    continue
                if saved.name == directory.name:
                    states.append(PrefixState(saved=saved, pinned=False, directory=directory, used_at=used_at))
        return states

    def remove(
        self, name: str, on_removed: Callable[[], None] | None = None, cancel: threading.Event | None = None
    ) -> bool:
        """Remove a name from disk.

        Args:
            on_removed: Called when it is done, still under the lock.

        Returns:
            Whether it existed.
        """
        check_name(name)
        if not self.storage.root.exists():
            if on_removed is not None:
                on_removed()
            return False
        with self._locked(cancel):
            directory = self._home / name
            existed = directory.is_dir()
            if existed:
                _remove(directory)
            if on_removed is not None:
                on_removed()
        return existed

    def unknown(self, name: str, pinned: Collection[str] = ()) -> UnknownName | DataError:
        """The error for a name that is not saved for this model."""
        for other in _directories(self.storage.root):
            try:
                saved = _read_description(other / name)
            except (FileNotFoundError, DataError):
                continue
            return self._wrong_owner(saved)
        known = [*pinned, *(f.name for f in _directories(self._home))]
        return UnknownName("prefix", name, nearest(name, known), hint="save it first")

    def _check_owner(self, saved: SavedPrefix) -> None:
        if (saved.identity, saved.dtype, saved.layout) != (self.owner.identity, self.owner.dtype, self.owner.layout):
            raise self._wrong_owner(saved)

    def _wrong_owner(self, saved: SavedPrefix) -> DataError:
        owner = self.owner
        if saved.identity != owner.identity:
            theirs, ours = f"model {saved.model} ({saved.identity})", f"{owner.model} ({owner.identity})"
        elif saved.dtype != owner.dtype:
            theirs, ours = f"number format {saved.dtype}", owner.dtype
        else:
            theirs, ours = f"layout {saved.layout!r}", repr(owner.layout)
        return DataError(
            f"prefix {saved.name!r} was saved with {theirs}; here it is {ours}", hint="save it again with this model"
        )

    def _make_room(self, name: str, nbytes: int, pinned: Collection[str]) -> None:
        """Remove the least recently used names until `nbytes` more fit. The lock is held.

        Raises:
            PrefixTooLarge: They do not fit even so; nothing was removed.
        """
        own = self._home / name
        sizes = {d: _size(d) for home in _directories(self.storage.root) for d in _directories(home) if d != own}
        protected = {self._home / n for n in pinned}
        kept = sum(size for d, size in sizes.items() if d in protected)
        limit = self.storage.limit
        if kept + nbytes > limit:
            others = f" in addition to {kept:,} bytes of pinned prefixes" if kept else ""
            raise PrefixTooLarge(
                f"prefix {name!r} takes {nbytes:,} bytes on disk; the limit is {limit:,}{others}",
                hint="shorten it, drop others, or raise the setting prefix_bytes",
            )
        total = sum(sizes.values())
        for directory in sorted((d for d in sizes if d not in protected), key=_used_at):
            if total + nbytes <= limit:
                break
            _remove(directory)
            total -= sizes[directory]

    @contextmanager
    def _locked(self, cancel: threading.Event | None) -> Iterator[None]:
        root = self.storage.root
        with disk_errors(root, "prefixes"), directory_lock(root, PullTask(cancel=cancel), "prefixes"):
            root.mkdir(mode=0o700, exist_ok=True)  # prompts may be private
            yield

    def _remove_abandoned(self) -> None:
        """Remove what writers of dead processes have left. The lock is held."""
        for home in _directories(self.storage.root):
            partials = {home / p.name.removesuffix(".lock").removesuffix(".old") for p in home.glob(f"{_PARTIAL}*")}
            for partial in partials:
                lock = FileLock(_lock_path(partial), thread_local=False)
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    continue  # it is being written
                shutil.rmtree(partial, ignore_errors=True)
                shutil.rmtree(_replaced_path(partial), ignore_errors=True)
                lock.release()
                _lock_path(partial).unlink(missing_ok=True)


def _directories(parent: Path) -> list[Path]:
    """Directories of prefixes in a directory."""
    try:
        return [d for d in parent.iterdir() if not d.name.startswith(".") and d.is_dir()]
    except OSError:
        return []


def _lock_path(partial: Path) -> Path:
    return partial.with_name(partial.name + ".lock")


def _replaced_path(partial: Path) -> Path:
    return partial.with_name(partial.name + ".old")


def _read_description(directory: Path) -> SavedPrefix:
    """The description of a prefix.

    Raises:
        FileNotFoundError: There is none.
        DataError: It is damaged.
    """
    try:
        saved = SavedPrefix.model_validate_json((directory / DESCRIPTION).read_bytes())
    except NotADirectoryError as e:
        raise FileNotFoundError(directory) from e
    except (ValidationError, OSError) as e:
        if isinstance(e, FileNotFoundError):
            raise
        raise _damaged(directory.name, f"{directory / DESCRIPTION} cannot be read") from e
    names = [f.name for f in saved.files]
    sound = all(n.endswith(".safetensors") and n == Path(n).name for n in names) and 0 < len(names) == len(set(names))
    if saved.name != directory.name or not sound or not 0 < saved.stored <= len(saved.token_ids):
        raise _damaged(directory.name, f"{directory / DESCRIPTION} contradicts itself")
    return saved


def _check_file(name: str, directory: Path, file: PayloadFile, task: PullTask) -> None:
    path = directory / file.name
    try:
        size = path.stat().st_size
    except FileNotFoundError as e:
        raise _damaged(name, f"{path} is missing") from e
    if size != file.nbytes:
        raise _damaged(name, f"{path} has {size} bytes instead of {file.nbytes}")
    if _payload(path, task, flush=False).sha256 != file.sha256:
        raise _damaged(name, f"the SHA-256 of {path} is not that of what was saved")


def _damaged(name: str, how: str) -> DataError:
    return DataError(f"prefix {name!r} is damaged: {how}", hint="save it again, or drop it")


def _payload(path: Path, task: PullTask, flush: bool = True) -> PayloadFile:
    """Size and checksum of a file; `flush` writes it to the disk first."""
    digest, size = hashlib.sha256(), 0
    with path.open("r+b" if flush else "rb") as f:
        if flush:
            os.fsync(f.fileno())
        while chunk := f.read(_READ_BYTES):
            task.check()
            digest.update(chunk)
            size += len(chunk)
    return PayloadFile(name=path.name, nbytes=size, sha256=digest.hexdigest())


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())


def _size(directory: Path) -> int:
    """Bytes of the files in a directory."""
    return sum(f.stat().st_size for f in directory.iterdir() if f.is_file())


def _used_at(directory: Path) -> float:
    try:
        return (directory / DESCRIPTION).stat().st_mtime_ns
    except OSError:
        return 0.0  # useless without a description


def _remove(directory: Path) -> None:
    """Remove a prefix; without its description, a partly removed one does not exist."""
    (directory / DESCRIPTION).unlink(missing_ok=True)
    shutil.rmtree(directory, ignore_errors=True)
