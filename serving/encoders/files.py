"""`find_encoder`: from the name of an embedding model or cross-encoder to its directory, downloaded where needed."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path

from ...core.errors import BackendUnavailable, DataError, UserError
from ...core.files import Progress
from ..model_files.catalogue import KNOWN_ENCODERS, PREFIX, KnownEncoder, locate
from ..model_files.checkpoint import check_hashes, check_model_directory, file_hash
from ..model_files.downloads import PullTask, atomic_directory, directory_lock
from ..model_files.find import ModelFiles, ModelListing, directory_bytes, remove_directory
from ..model_files.packages import fetch_files, is_installed

_ALSO = (
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_*_config.json",
    "*/config.json",
    "vocab.txt",
    "*.model",
)
_ANSWER_DEPENDS_ON = ("*.json", "*.safetensors", "*.txt", "*.model")
_TRUSTED_MODULES = "sentence_transformers."


def find_encoder(
    name: str,
    *,
    sentence: bool,
    cache_dir: Path,
    progress: Progress | None = None,
    pull: bool = True,
    cancel: threading.Event | None = None,
    known: Mapping[str, KnownEncoder] = KNOWN_ENCODERS,
) -> ModelFiles:
    """The files of an encoder, downloaded if they are not here yet. Blocks.

    Args:
        name: `local/<short name>`, `local/<directory>` or `local/<hub id>`.
        sentence: Whether it must be a sentence-transformers model; otherwise any classifier of transformers is
            accepted.
        cache_dir: Directory of the model files; created if missing.
        progress: Called with the progress.
        pull: Whether to download what is not here.
        cancel: Set by another thread to cancel.
        known: The encoders with a short name.

    Raises:
        UnknownName: No encoder has that name.
        UserError: The name is no local model's, the cache is not writable, or the [local] extra is missing.
        DataError: A file is damaged or missing, or it is another kind of model.
        BackendUnavailable: It is not here and cannot be downloaded, or `pull` is False.
        Cancelled: Cancelled; partial files are removed.
    """
    pulling = PullTask(progress, cancel)
    location = locate(name, known)
    check = check_sentence_model_directory if sentence else check_model_directory
    if location.kind == "hub":
        from ..model_files.hub import hub_directory

        directory, source = hub_directory(location.text, cache_dir, pulling, pull=pull, also=_ALSO, check=check)
        return ModelFiles(name, directory, _fingerprint(directory, cache_dir, pulling), source)
    if location.kind == "directory":
        assert location.path is not None
        check(location.path)
        return ModelFiles(name, location.path, _fingerprint(location.path, cache_dir, pulling), str(location.path))
    if location.kind == "gguf":
        raise UserError(
            f"{name}: encoders are not read from GGUF files", hint="use local/<directory> or local/<hub id>"
        )
    files = known[name].files
    directory = cache_dir / "encoders" / location.text
    if not directory.exists():
        if not pull:
            raise BackendUnavailable(f"{name} is not on this machine", hint=f"run: reason models pull {name}")
        with directory_lock(directory, pulling):
            if not directory.exists():  # another process may have made it while this one waited
                with atomic_directory(directory) as scratch:
                    fetch_files(files, scratch, pulling)
    check_hashes(
        directory,
        files.sha256,
        cache_dir,
        pulling,
        expected=f"what {name} should have there",
        hint=f"run: reason models rm {name} --yes && reason models pull {name}",
    )
    return ModelFiles(name, directory, _digest(files.sha256), files.source)


def list_encoders(cache_dir: Path, known: Mapping[str, KnownEncoder] = KNOWN_ENCODERS) -> list[ModelListing]:
    """The encoders with a short name, here or not. Reads no weights."""
    listed = []
    for name, encoder in known.items():
        directory = cache_dir / "encoders" / name.removeprefix(PREFIX)
        is_here = directory.exists()
        listed.append(
            ModelListing(
                name,
                encoder.files.source,
                directory if is_here else None,
                directory_bytes(directory) if is_here else encoder.files.file_bytes,
                _digest(encoder.files.sha256) if is_here else None,
                "ready" if is_here else "installed" if is_installed(encoder.files) else "not pulled",
                encoder.about,
            )
        )
    return listed


def remove_encoder(name: str, cache_dir: Path, known: Mapping[str, KnownEncoder] = KNOWN_ENCODERS) -> int:
    """Remove the files of an encoder with a short name, and the remains of interrupted downloads.

    Returns:
        Bytes freed.

    Raises:
        UserError: It is not in the cache.
    """
    directory = cache_dir / "encoders" / name.removeprefix(PREFIX)
    freed = remove_directory(directory, PullTask())
    if freed is None:
        files = known[name].files
        uninstall = f"it is installed as packages: pip uninstall {files.requirement}" if is_installed(files) else ""
        raise UserError(f"{name} is not in {directory.parent}", hint=uninstall or "reason models list shows what is")
    return freed


def has_encoder(name: str, cache_dir: Path) -> bool:
    """Whether an encoder with a short name is in the cache or in this Python environment: no download is needed."""
    directory = cache_dir / "encoders" / name.removeprefix(PREFIX)
    return directory.exists() or is_installed(KNOWN_ENCODERS[name].files)


def check_sentence_model_directory(directory: Path) -> None:
    """Check that a directory has a complete sentence-transformers model of the library's own modules.

    Raises:
        DataError: Something is missing, or a module is third-party code.
    """
    check_model_directory(directory)
    try:
        modules = json.loads((directory / "modules.json").read_text(encoding="utf-8"))
        named = [(str(m["type"]), str(m["path"])) for m in modules]
    except FileNotFoundError:
        raise DataError(
            f"{directory} is no sentence-transformers model: it has no modules.json",
            hint="reward models and cross-encoders are opened by other functions",
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise DataError(f"damaged model file {directory / 'modules.json'}: {e}") from e
    for kind, path in named:
        if not kind.startswith(_TRUSTED_MODULES):
            raise DataError(f"{directory} needs the foreign module {kind}, which is not run")
        if path and not kind.endswith(".Normalize") and not (directory / path / "config.json").is_file():
            raise DataError(f"the model directory {directory} lacks {path}/config.json", hint="fetch the model again")


def _fingerprint(directory: Path, cache_dir: Path, pulling: PullTask) -> str:
    try:
        paths = sorted({p for pattern in _ANSWER_DEPENDS_ON for p in directory.rglob(pattern) if p.is_file()})
        return _digest({p.relative_to(directory).as_posix(): file_hash(p, cache_dir, pulling) for p in paths})
    except OSError as e:
        raise DataError(f"cannot read the model directory {directory}: {e.strerror}") from e


def _digest(hashes: Mapping[str, str]) -> str:
    lines = (f"{hashes[name]} {name}\n" for name in sorted(hashes))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
