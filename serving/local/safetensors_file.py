"""Write safetensors files, a tensor at a time.

Source: the safetensors format: eight bytes with the header's length, the header in JSON, then the tensors end to end.
The library's own writer wants all tensors in memory at once; for a model of seven billion weights that is 14 GB.

Keys and values as a safetensors file, a layer at a time.

Source: the safetensors format: eight bytes with the header's length, the header in JSON, then the tensors end to end.
Written here and not by the library, so that writing can be cancelled and a full disk is told as one.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...core.errors import DataError
from ..model_files.downloads import Pulling

_SLICE = 1 << 22


@dataclass(frozen=True)
class Planned:
    """A tensor that is to be written.

    Attributes:
        name: Its name in the file.
        shape: Its shape.
        load: Gives its values in fp32; called once, when its turn has come.
    """

    name: str
    shape: tuple[int, ...]
    load: Callable[[], npt.NDArray[np.float32]]


def write_bf16(path: Path, tensors: Sequence[Planned], pulling: Pulling) -> None:
    """Write tensors, rounded to bf16.

    Args:
        path: The file; replaced if it exists.
        tensors: What to write, in order.
        pulling: Told of bytes written; may cancel between tensors.

    Raises:
        Cancelled: Cancelled; the file is incomplete.
        OSError: The file cannot be written.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        start, end = end, end + 2 * math.prod(tensor.shape)
        header[tensor.name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    done = 0
    with path.open("wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            pulling.report("converting", done, end)
            values = np.ascontiguousarray(tensor.load()).reshape(-1)
            for i in range(0, values.size, _SLICE):
                done += f.write(to_bf16(values[i : i + _SLICE]).tobytes())
    pulling.report("converting", done, end)


def to_bf16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The upper halves of fp32 numbers, rounded to nearest, ties to even. Values are finite."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    even = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = bits + (even + np.uint32(0x7FFF))
    return (rounded >> np.uint32(16)).astype(np.uint16)


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
