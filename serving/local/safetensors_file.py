"""Write safetensors files, a tensor at a time.

Source: the safetensors format: eight bytes with the header's length, the header in JSON, then the tensors end to end.
The library's own writer wants all tensors in memory at once; for a model of seven billion weights that is 14 GB.
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

from ..pulling import Pulling

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
