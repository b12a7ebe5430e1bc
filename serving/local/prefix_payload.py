"""Keys and values as a safetensors file, a layer at a time.

Source: the safetensors format: eight bytes with the header's length, the header in JSON, then the tensors end to end.
Written here and not by the library, so that writing can be cancelled and a full disk is told as one.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...core.errors import DataError
from ..pulling import Pulling

_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


def write_layers(path: Path, layers: Sequence[Tensor], pulling: Pulling) -> None:
    """Write keys and values.

    Args:
        path: The file.
        layers: Per layer `[2, kv_heads, tokens, head_dim]`, in one number format.
        pulling: May cancel between layers.

    Raises:
        Cancelled: Cancelled; the file is incomplete.
        OSError: The file cannot be written.
    """
    header: dict[str, object] = {}
    end = 0
    for i, layer in enumerate(layers):
        start, end = end, end + layer.nbytes
        header[_name(i)] = {
            "dtype": _NAMES[layer.dtype],
            "shape": list(layer.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for layer in layers:
            pulling.check()
            f.write(layer.contiguous().view(torch.uint8).numpy().data)


def read_layers(path: Path, count: int, shape: Sequence[int], dtype: str) -> list[Tensor]:
    """Read what `write_layers` wrote.

    Args:
        path: The file.
        count: Layers there must be.
        shape: Their shape.
        dtype: Their number format, as torch calls it.

    Raises:
        DataError: The file is not of that kind.
        OSError: It cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except SafetensorError as e:
        raise DataError(f"{path} is not a safetensors file: {e}", hint="save the prefix again") from e
    kinds = {(tuple(t.shape), str(t.dtype).removeprefix("torch.")) for t in tensors.values()}
    if set(tensors) != {_name(i) for i in range(count)} or kinds != {(tuple(shape), dtype)}:
        raise DataError(
            f"{path} does not hold {count} layers of {dtype} {list(shape)}",
            hint="save the prefix again with this model",
        )
    return [tensors[_name(i)] for i in range(count)]


def _name(layer: int) -> str:
    return f"layer.{layer}"
