"""Checks of model directories in Hugging Face's layout, without loading them, and content hashes of their files.

Hashes are cached by size and modification time, in the cache directory. Where it cannot be written, files are hashed
again each time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.errors import DataError
from .downloads import PullTask

_TOKENIZERS = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"))
_MOST_HEADER_BYTES = 100_000_000  # the format's own limit


def check_model_directory(directory: Path) -> None:
    """Check that configuration, tokenizer and all weights are there, and that no weights file is truncated.

    Raises:
        DataError: Something is missing or damaged; names the file.
    """
    try:
        if not directory.is_dir():
            raise DataError(f"no such model directory: {directory}")
        read_config(directory)
        if not any(all((directory / name).is_file() for name in names) for names in _TOKENIZERS):
            raise DataError(
                f"the model directory {directory} has no tokenizer",
                hint="put the model's tokenizer.json next to its weights",
            )
        for path in weight_files(directory):
            read_header(path)
    except OSError as e:
        raise DataError(f"cannot read the model directory {directory}: {e.strerror}") from e


def read_config(directory: Path) -> dict[str, Any]:
    """The directory's `config.json`.

    Raises:
        DataError: It is missing, unreadable or no configuration of a model.
        OSError: It may not be read.
    """
    config = _read_json(directory / "config.json", "it is not a model directory in Hugging Face's layout")
    if not isinstance(config.get("model_type"), str):
        raise DataError(f"{directory / 'config.json'} names no model_type")
    return config


def weight_files(directory: Path) -> list[Path]:
    """The directory's safetensors files, as its index lists them if it has one.

    Raises:
        DataError: There are none, or one of the index is missing.
        OSError: The index may not be read.
    """
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        placed = _read_json(index, "it is the index of the weights").get("weight_map")
        if not isinstance(placed, dict) or not placed:
            raise DataError(f"damaged model file {index}: it lists no weights")
        files = [directory / Path(str(name)).name for name in sorted(set(placed.values()))]
    else:
        files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise DataError(
            f"the model directory {directory} has no *.safetensors",
            hint="other weights are not read: pickle can run code",
        )
    for path in files:
        if not path.is_file():
            raise DataError(f"the model directory {directory} lacks {path.name}", hint="fetch the model again")
    return files


def weight_types(directory: Path) -> dict[str, int]:
    """Number of weights by number format, as safetensors names it: `{"BF16": 134515008}`.

    Raises:
        DataError: The weights are missing or damaged.
    """
    counted: dict[str, int] = {}
    for path in weight_files(directory):
        for tensor in read_header(path).values():
            kind = str(tensor["dtype"])
            counted[kind] = counted.get(kind, 0) + math.prod(tensor["shape"])
    return counted


def read_header(path: Path) -> dict[str, Any]:
    """Names, types and shapes of a file's tensors, with the file's length checked against them.

    Raises:
        DataError: The file is damaged or truncated.
        OSError: The file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as f:
        head = f.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else -1
        if not 2 <= length <= min(_MOST_HEADER_BYTES, size - 8):
            raise _damaged(path, "it has no header")
        try:
            header = json.loads(f.read(length))
            tensors = {k: v for k, v in header.items() if k != "__metadata__"}
            end = max((int(v["data_offsets"][1]) for v in tensors.values()), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as e:
            raise _damaged(path, "its header is unreadable") from e
    if size != 8 + length + end:
        raise _damaged(path, f"it has {size} bytes and should have {8 + length + end}")
    return tensors


def _damaged(path: Path, why: str) -> DataError:
    return DataError(f"damaged model file {path}: {why}", hint="it may be cut short; fetch it again")


def _read_json(path: Path, role: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path.parent} has no {path.name}", hint=role) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as e:
        raise DataError(f"damaged model file {path}: it is not JSON ({e})") from e
    if not isinstance(value, dict):
        raise DataError(f"damaged model file {path}: it is not a JSON object")
    return value


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


def file_hash(path: Path, cache_dir: Path, pulling: PullTask) -> str:
    """SHA-256 of a file, in hexadecimal.

    Args:
        path: The file.
        cache_dir: Where the hash is remembered.
        pulling: Receives the progress; may cancel.

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


def digest(path: Path, pulling: PullTask) -> str:
    """SHA-256 of a file, in hexadecimal, computed now. Arguments and errors as `file_hash`."""
    hashed = hashlib.sha256()
    total = path.stat().st_size
    with path.open("rb") as f:
        while chunk := f.read(_CHUNK):
            hashed.update(chunk)
            pulling.report("checking", f.tell(), total)
    return hashed.hexdigest()


def directory_fingerprint(directory: Path, cache_dir: Path, pulling: PullTask) -> str:
    """SHA-256 over every file of a model directory that its answers depend on; the same on every machine.

    Args:
        directory: A directory in Hugging Face's layout.
        cache_dir: Where file hashes are remembered.
        pulling: Receives the progress; may cancel.

    Raises:
        OSError: A file cannot be read.
        Cancelled: Cancelled.
    """
    names = sorted({path.name for pattern in _ANSWER_DEPENDS_ON for path in directory.glob(pattern) if path.is_file()})
    lines = (f"{file_hash(directory / name, cache_dir, pulling)} {name}\n" for name in names)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def check_hashes(
    directory: Path, hashes: Mapping[str, str], cache_dir: Path, pulling: PullTask, *, expected: str, hint: str
) -> None:
    """Compare files of a directory with what they should be; those that did not change since are not read again.

    Args:
        directory: The directory.
        hashes: SHA-256 of each file, in hexadecimal, by its path in the directory.
        cache_dir: Where file hashes are remembered.
        pulling: Receives the progress; may cancel.
        expected: What the error states that a file is not.
        hint: What the error advises.

    Raises:
        DataError: A file is missing, changed, or cannot be read.
        Cancelled: Cancelled.
    """
    for file, sha256 in hashes.items():
        try:
            same = file_hash(directory / file, cache_dir, pulling) == sha256
        except FileNotFoundError:
            same = False
        except OSError as e:
            raise DataError(f"cannot read {directory / file}: {e.strerror}") from e
        if not same:
            raise DataError(f"damaged model file {directory / file}: it is not {expected}", hint=hint)


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
