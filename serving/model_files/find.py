"""`find_model`: from a model name to a directory of files that can be loaded, downloaded and converted where needed.

`catalogue.locate` defines the names. All files are written under the cache directory: `models/<name>/` for converted
models, `hashes/` for cached file hashes. Nothing is written into a user's directory.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...core.errors import BackendUnavailable, DataError, UserError
from ...core.files import Progress
from .catalogue import KNOWN_MODELS, PREFIX, KnownModel, ModelLocation, locate
from .checkpoint import check_model_directory, directory_fingerprint, file_hash
from .conversion import Conversion, check_conversion, make_conversion, read_conversion
from .downloads import PullTask, clear_leftovers, directory_lock, disk_errors, disk_full, is_leftover
from .packages import fetch_files


@dataclass(frozen=True)
class ModelFiles:
    """A model on this disk, ready to be loaded.

    Attributes:
        name: The model's name.
        directory: Directory in Hugging Face's layout: `config.json`, safetensors, tokenizer.
        fingerprint: Hash of what its answers depend on, the same on every machine.
        source: Its origin, for display.
    """

    name: str
    directory: Path
    fingerprint: str
    source: str


@dataclass(frozen=True)
class ModelListing:
    """A line of the list of models.

    Attributes:
        name: The name to use it by.
        source: Where it comes from.
        directory: Where it is; None if it is not here.
        size_bytes: Bytes it takes on this disk, or would take.
        fingerprint: As in `ModelFiles`; None if it is not here.
        state: "ready", "outdated" (made by another version; converted again at the next use), "installed" (as packages
            of this Python environment, whose files are copied at the first use) or "not pulled".
        about: What it is, in a few words; empty if it is not known.
    """

    name: str
    source: str
    directory: Path | None
    size_bytes: int | None
    fingerprint: str | None
    state: Literal["ready", "outdated", "installed", "not pulled"]
    about: str = ""


def find_model(
    name: str,
    *,
    cache_dir: Path,
    progress: Progress | None = None,
    pull: bool = True,
    cancel: threading.Event | None = None,
    known: Mapping[str, KnownModel] = KNOWN_MODELS,
) -> ModelFiles:
    """The files of a model, downloaded and converted if they are not here yet.

    Blocks; may be called from any thread and from several processes at once.

    Args:
        name: `local/<short name>`, `local/<file.gguf>`, `local/<directory>` or `local/<hub id>`.
        cache_dir: Directory of the model files; made if missing.
        progress: Called with the progress.
        pull: Whether to fetch what is not here.
        cancel: Set by another thread to stop.
        known: The models with a short name.

    Raises:
        UnknownName: No model has that name.
        UserError: The name is no local model's, the cache must not be written, or the [local] extra is missing.
        DataError: A file is damaged or of a kind that is not supported.
        BackendUnavailable: It is not here and cannot be fetched: no network, no room, or `pull` is False.
        Cancelled: Cancelled; partial files are removed.
    """
    pulling = PullTask(progress, cancel)
    location = locate(name, known, _kept(cache_dir))
    if location.kind == "hub":
        from .hub import hub_directory

        directory, source = hub_directory(location.text, cache_dir, pulling, pull=pull)
        return ModelFiles(name, directory, _fingerprint(directory, cache_dir, pulling), source)
    if location.kind == "directory":
        assert location.path is not None
        check_model_directory(location.path)
        return ModelFiles(name, location.path, _fingerprint(location.path, cache_dir, pulling), str(location.path))
    if location.kind == "gguf":
        assert location.path is not None
        return _from_gguf(name, location.path, cache_dir, pulling)
    directory = cache_dir / "models" / location.text
    model = known.get(name)

    def fetch(scratch: Path) -> tuple[Path, str]:
        if model is None:
            raise BackendUnavailable(
                f"{name} was converted by another version of this package",
                hint="use the GGUF file itself once more: local/<file.gguf>",
            )
        if not pull:
            raise BackendUnavailable(f"{name} is not on this machine", hint=f"run: reason models pull {name}")
        fetch_files(model.files, scratch, pulling)
        return scratch / next(iter(model.files.sha256)), model.sha256

    source = model.files.source if model else ""
    record = _converted(name, directory, source, fetch, cache_dir, pulling)
    return ModelFiles(name, directory, record.fingerprint, record.source)


def list_models(cache_dir: Path, known: Mapping[str, KnownModel] = KNOWN_MODELS) -> list[ModelListing]:
    """The models that are here, and those with a short name that are not. Reads no weights."""
    from .hub import pulled_from_hub

    listed = []
    for directory in _model_directories(cache_dir):
        record = read_conversion(directory)
        name = PREFIX + directory.name
        if record is not None or name in known:
            listed.append(
                ModelListing(
                    name=name,
                    source=record.source if record else known[name].files.source,
                    directory=directory,
                    size_bytes=directory_bytes(directory),
                    fingerprint=record.fingerprint if record else None,
                    state="ready" if record else "outdated",
                    about=known[name].about if name in known else "",
                )
            )
    for repository, snapshot in pulled_from_hub(cache_dir):
        size = directory_bytes(snapshot)
        listed.append(ModelListing(PREFIX + repository, f"hub {repository}", snapshot, size, None, "ready"))
    here = {m.name for m in listed}
    for name, model in known.items():
        if name not in here:
            listed.append(
                ModelListing(name, model.files.source, None, model.converted_bytes, None, "not pulled", model.about)
            )
    return sorted(listed, key=lambda m: m.name)


def remove_model(
    name: str, cache_dir: Path, *, cancel: threading.Event | None = None, known: Mapping[str, KnownModel] = KNOWN_MODELS
) -> int:
    """Remove a model's files from this disk, and the remains of interrupted downloads.

    Args:
        name: The name, as `list_models` shows it, or `local/<file.gguf>` for what was converted from that file.
        cache_dir: Directory of the model files.
        cancel: Set by another thread to stop waiting for a process that uses the files.
        known: The models with a short name.

    Returns:
        Bytes freed.

    Raises:
        UnknownName: No model has that name.
        UserError: It is not here, or it is a directory of the user's, which is left alone.
        Cancelled: Cancelled while waiting.
    """
    pulling = PullTask(None, cancel)
    location = locate(name, known, _kept(cache_dir))
    if location.kind == "directory":
        raise UserError(
            f"{name} is your own directory, which `reason` does not delete", hint=f"remove {location.path} yourself"
        )
    if location.kind == "hub":
        from .hub import remove_from_hub_cache

        return remove_from_hub_cache(location.text, cache_dir)
    directory = cache_dir / "models" / (location.text or _gguf_directory(location, cache_dir, pulling))
    freed = remove_directory(directory, pulling)
    if freed is None:
        raise UserError(f"{name} is not on this machine", hint="reason models list shows what is")
    return freed


def remove_directory(directory: Path, pulling: PullTask) -> int | None:
    """Remove a model's directory in the cache and the remains of earlier attempts at it.

    Returns:
        Bytes freed; None if there was nothing.
    """
    leftovers = [p for p in _directories(directory.parent) if p.name.startswith(f".partial-{directory.name}=")]
    if not directory.exists() and not leftovers:
        return None
    with directory_lock(directory, pulling), disk_errors(directory):
        freed = sum(directory_bytes(p) for p in (directory, *leftovers) if p.exists())
        clear_leftovers(directory)
        if directory.exists():
            shutil.rmtree(directory)
    return freed


def directory_bytes(directory: Path) -> int:
    """Bytes of the files in a directory, each file counted once."""
    files = {p.resolve() for p in directory.rglob("*") if p.is_file()}
    return sum(p.stat().st_size for p in files)


def _from_gguf(name: str, file: Path, cache_dir: Path, pulling: PullTask) -> ModelFiles:
    sha256 = _readable_hash(file, cache_dir, pulling)
    directory = cache_dir / "models" / f"gguf-{sha256[:16]}"
    if shutil.disk_usage(_existing(cache_dir)).free < file.stat().st_size and read_conversion(directory) is None:
        raise disk_full(cache_dir, file.stat().st_size)
    record = _converted(name, directory, str(file), lambda _: (file, sha256), cache_dir, pulling)
    return ModelFiles(name, directory, record.fingerprint, str(file))


def _converted(
    name: str,
    directory: Path,
    source: str,
    fetch: Callable[[Path], tuple[Path, str]],
    cache_dir: Path,
    pulling: PullTask,
) -> Conversion:
    record = read_conversion(directory)
    if record is None:
        with directory_lock(directory, pulling):
            clear_leftovers(directory)
            record = read_conversion(directory)  # another process may have made it while this one waited
            if record is None:
                return make_conversion(directory, source, fetch, cache_dir, pulling)
    check_conversion(directory, record, name, cache_dir, pulling)
    return record


def _readable_hash(file: Path, cache_dir: Path, pulling: PullTask) -> str:
    try:
        return file_hash(file, cache_dir, pulling)
    except (FileNotFoundError, IsADirectoryError):
        raise DataError(f"no such model file: {file}") from None
    except OSError as e:
        raise DataError(f"cannot read the model file {file}: {e.strerror}") from e


def _fingerprint(directory: Path, cache_dir: Path, pulling: PullTask) -> str:
    try:
        return directory_fingerprint(directory, cache_dir, pulling)
    except OSError as e:
        raise DataError(f"cannot read the model directory {directory}: {e.strerror}") from e


def _gguf_directory(location: ModelLocation, cache_dir: Path, pulling: PullTask) -> str:
    assert location.path is not None
    return f"gguf-{_readable_hash(location.path, cache_dir, pulling)[:16]}"


def _directories(parent: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        return sorted(p for p in parent.iterdir() if p.is_dir())
    return []


def _model_directories(cache_dir: Path) -> list[Path]:
    return [p for p in _directories(cache_dir / "models") if not is_leftover(p)]


def _kept(cache_dir: Path) -> list[str]:
    return [p.name for p in _model_directories(cache_dir)]


def _existing(directory: Path) -> Path:
    return next(p for p in (directory.absolute(), *directory.absolute().parents) if p.exists())
