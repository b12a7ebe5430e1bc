"""`load_gguf`: from `gguf/…` to a running model."""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Final

from ...core.errors import DataError, UnknownName, UserError
from ...core.files import Progress
from ...core.registry import nearest
from ...core.settings import Settings
from ..local.engine import LocalModel
from ..local.gguf import Metadata, open_gguf, write_tokenizer
from ..local.hardware import max_threads
from ..local.tokenizer import Tokenizer
from ..model_files.catalogue import KNOWN_MODELS
from ..model_files.catalogue import PREFIX as LOCAL
from ..model_files.checkpoint import file_hash
from ..model_files.downloads import PullTask, atomic_directory, directory_lock
from ..model_files.packages import fetch_weights
from .model import LlamaCppModel, load_library

PREFIX: Final = "gguf/"
_PART = re.compile(r"(.+)-00001-of-(\d{5})\.gguf", re.IGNORECASE)


def load_gguf(name: str, settings: Settings, progress: Progress | None, cancel: threading.Event) -> LocalModel:
    """Load a GGUF file on llama.cpp and start the engine on it.

    Args:
        name: `gguf/<file>`, `gguf/<directory>` with one file, the name of one of these below `gguf/` in the cache
            directory, or a short name: `gguf/smollm2-135m`.
        settings: Those of the local engine hold: `threads`, `kv_cache_bytes`, `max_num_seqs`. The number format is
            the file's.
        progress: Called with the progress.
        cancel: Set by another thread to stop.

    Raises:
        UnknownName: There is no such file.
        UserError: llama.cpp is not installed, or a setting is out of range.
        CapabilityMissing: The architecture is not one of decoders.
        DataError: The file is damaged or not supported.
        BackendUnavailable: A file cannot be fetched, or the memory is not enough.
        Cancelled: Cancelled.
    """
    load_library()  # before anything is fetched
    local = settings.local
    pulling = PullTask(progress, cancel)
    parts = split_parts(find_gguf(name, settings.cache_dir, pulling))
    fingerprint = "+".join(file_hash(part, settings.cache_dir, pulling) for part in parts)
    file = parts[0]
    metadata = Metadata(file.name, dict(open_gguf(file).fields))
    with tempfile.TemporaryDirectory() as directory:
        ids = write_tokenizer(metadata, Path(directory), max_tokens=0)
        tokenizer = Tokenizer(Path(directory), name, settings.profiles)
    threads = local.threads or max_threads()
    model = LlamaCppModel(
        file, name, threads=threads, kv_cache_bytes=local.kv_cache_bytes, max_num_seqs=local.max_num_seqs
    )
    try:
        if ids["vocab_size"] != model.config.vocab_size:
            raise DataError(
                f"damaged model file {file.name}: {ids['vocab_size']} tokens for {model.config.vocab_size} logits"
            )
        return LocalModel(
            name,
            f"{fingerprint}.llama.cpp",
            model,
            tokenizer,
            frozenset(ids["eos_token_id"]),
            weight_format=model.weight_format,
            threads=threads,
            kv_cache_bytes=model.num_cells * model.slot_bytes,
            max_num_seqs=local.max_num_seqs,
            speculative_decoding="off",
        )
    except BaseException:
        model.close()
        raise


def find_gguf(name: str, cache_dir: Path, pulling: PullTask) -> Path:
    """The file of a name; that of a short name is fetched if it is not here. Arguments and errors as `load_gguf`."""
    rest = name.removeprefix(PREFIX).strip()
    if not rest:
        raise UserError(f"model {name!r} names no file", hint="for example gguf/smollm2-135m or gguf/./model.gguf")
    path = Path(rest).expanduser()
    own = cache_dir / "gguf"
    if LOCAL + rest in KNOWN_MODELS and not path.exists() and not (own / rest).exists():
        target = own / rest
        with directory_lock(target, pulling):
            if not target.exists():
                with atomic_directory(target) as directory:
                    scratch = directory / "fetched"
                    scratch.mkdir()
                    fetched = fetch_weights(KNOWN_MODELS[LOCAL + rest].weights, scratch, pulling)
                    shutil.copyfile(fetched, directory / f"{rest}.gguf")
                    shutil.rmtree(scratch)
    for candidate in (path, own / rest, own / f"{rest}.gguf"):
        if candidate.is_file():
            return candidate.absolute()
        if candidate.is_dir():
            return _only_file(candidate, name)
    known = [PREFIX + model.removeprefix(LOCAL) for model in KNOWN_MODELS]
    here = [PREFIX + p.name for p in sorted(own.glob("[!.]*"))]
    raise UnknownName("model", name, nearest(name, [*known, *here]), hint=f"there is no file {path.absolute()}")


def split_parts(file: Path) -> list[Path]:
    """The parts of a file, itself the first."""
    match = _PART.fullmatch(file.name)
    if match is None:
        return [file]
    parts = [file.with_name(f"{match[1]}-{i:05}-of-{match[2]}.gguf") for i in range(1, int(match[2]) + 1)]
    missing = next((part for part in parts if not part.is_file()), None)
    if missing is not None:
        raise DataError(f"the model file {file.name} lacks its part {missing.name}", hint="fetch the model again")
    return parts


def _only_file(directory: Path, name: str) -> Path:
    """The model's file in a directory: its only one, or the first part of the only one."""
    files = sorted(directory.glob("*.gguf"))
    first = [file for file in files if not re.search(r"-(?!00001)\d{5}-of-\d{5}\.gguf$", file.name)]
    if len(first) != 1:
        listed = ", ".join(file.name for file in first) or "none"
        raise UserError(f"{name} must name one file; {directory} has {listed}", hint=f"{name}/<file>.gguf")
    return first[0].absolute()
