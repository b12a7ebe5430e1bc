"""Content hashes of model files, computed once and remembered by size and modification time.

The memory lies in the cache folder, never beside a user's files. Where it cannot be written, hashing costs its time
again and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ..core.errors import DataError
from .pulling import Pulling

_CHUNK = 1 << 20
_ANSWER_DEPENDS_ON = (
    "config.json",
    "generation_config.json",
    "tokenizer*.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template*",
    "*.safetensors",
)


def file_hash(path: Path, cache_dir: Path, pulling: Pulling) -> str:
    """SHA-256 of a file, in hexadecimal.

    Args:
        path: The file.
        cache_dir: Where the hash is remembered.
        pulling: Told of the progress; may cancel.

    Raises:
        OSError: The file cannot be read.
        Cancelled: Cancelled.
    """
    path = path.resolve()
    status = path.stat()
    note = {"path": str(path), "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    memory = cache_dir / "hashes" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, ValueError, AttributeError):
        known = json.loads(memory.read_text(encoding="utf-8"))
        if {k: known.get(k) for k in note} == note and isinstance(known.get("sha256"), str):
            return str(known["sha256"])
    sha256 = digest(path, pulling)
    _remember(memory, {**note, "sha256": sha256})
    return sha256


def digest(path: Path, pulling: Pulling) -> str:
    """SHA-256 of a file, in hexadecimal, computed now. Arguments and errors as `file_hash`."""
    hashed = hashlib.sha256()
    total = path.stat().st_size
    with path.open("rb") as f:
        while chunk := f.read(_CHUNK):
            hashed.update(chunk)
            pulling.report("checking", f.tell(), total)
    return hashed.hexdigest()


def folder_fingerprint(folder: Path, cache_dir: Path, pulling: Pulling) -> str:
    """SHA-256 over every file of a model folder that its answers depend on; the same on every machine.

    Args:
        folder: A folder in Hugging Face's layout.
        cache_dir: Where file hashes are remembered.
        pulling: Told of the progress; may cancel.

    Raises:
        OSError: A file cannot be read.
        Cancelled: Cancelled.
    """
    names = sorted({path.name for pattern in _ANSWER_DEPENDS_ON for path in folder.glob(pattern) if path.is_file()})
    lines = (f"{file_hash(folder / name, cache_dir, pulling)} {name}\n" for name in names)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def check_hashes(
    folder: Path, hashes: Mapping[str, str], cache_dir: Path, pulling: Pulling, *, expected: str, hint: str
) -> None:
    """Compare files of a folder with what they should be; those that did not change since are not read again.

    Args:
        folder: The folder.
        hashes: SHA-256 of each file, in hexadecimal, by its path in the folder.
        cache_dir: Where file hashes are remembered.
        pulling: Told of the progress; may cancel.
        expected: What the error says that a file is not.
        hint: What the error advises.

    Raises:
        DataError: A file is missing, changed, or cannot be read.
        Cancelled: Cancelled.
    """
    for file, sha256 in hashes.items():
        try:
            same = file_hash(folder / file, cache_dir, pulling) == sha256
        except FileNotFoundError:
            same = False
        except OSError as e:
            raise DataError(f"cannot read {folder / file}: {e.strerror}") from e
        if not same:
            raise DataError(f"damaged model file {folder / file}: it is not {expected}", hint=hint)


def _remember(memory: Path, note: dict[str, object]) -> None:
    with contextlib.suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=memory.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as f:
                json.dump(note, f)
            os.replace(temporary, memory)
        except OSError:
            os.unlink(temporary)
            raise
