"""Whether a folder holds a whole model in Hugging Face's layout, without loading it."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from ..core.errors import DataError

_TOKENIZERS = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"))
_MOST_HEADER_BYTES = 100_000_000  # the format's own limit


def check_folder(folder: Path) -> None:
    """Check that configuration, tokenizer and all weights are there, and that no weights file is cut short.

    Raises:
        DataError: Something is missing or damaged; names the file.
    """
    try:
        if not folder.is_dir():
            raise DataError(f"no such model folder: {folder}")
        read_config(folder)
        if not any(all((folder / name).is_file() for name in names) for names in _TOKENIZERS):
            raise DataError(
                f"the model folder {folder} has no tokenizer", hint="put the model's tokenizer.json beside its weights"
            )
        for path in weight_files(folder):
            read_header(path)
    except OSError as e:
        raise DataError(f"cannot read the model folder {folder}: {e.strerror}") from e


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's `config.json`.

    Raises:
        DataError: It is missing, unreadable or no configuration of a model.
        OSError: It may not be read.
    """
    config = _read_json(folder / "config.json", "it is not a model folder in Hugging Face's layout")
    if not isinstance(config.get("model_type"), str):
        raise DataError(f"{folder / 'config.json'} names no model_type")
    return config


def weight_files(folder: Path) -> list[Path]:
    """The folder's safetensors files, as its index lists them if it has one.

    Raises:
        DataError: There are none, or one of the index is missing.
        OSError: The index may not be read.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        placed = _read_json(index, "it is the index of the weights").get("weight_map")
        if not isinstance(placed, dict) or not placed:
            raise DataError(f"damaged model file {index}: it lists no weights")
        files = [folder / Path(str(name)).name for name in sorted(set(placed.values()))]
    else:
        files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise DataError(
            f"the model folder {folder} has no *.safetensors", hint="other weights are not read: pickle can run code"
        )
    for path in files:
        if not path.is_file():
            raise DataError(f"the model folder {folder} lacks {path.name}", hint="fetch the model again")
    return files


def weight_types(folder: Path) -> dict[str, int]:
    """Number of weights by number format, as safetensors names it: `{"BF16": 134515008}`.

    Raises:
        DataError: The weights are missing or damaged.
    """
    counted: dict[str, int] = {}
    for path in weight_files(folder):
        for tensor in read_header(path).values():
            kind = str(tensor["dtype"])
            counted[kind] = counted.get(kind, 0) + math.prod(tensor["shape"])
    return counted


def read_header(path: Path) -> dict[str, Any]:
    """Names, types and shapes of a file's tensors, with the file's length checked against them.

    Raises:
        DataError: The file is damaged or cut short.
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
