"""Safetensors files, written a tensor at a time.

Source: the safetensors format: eight bytes with the header's length, the header in JSON, then the tensors end to end.
The library's own writer needs all tensors in memory at once (14 GB for a model of seven billion weights), cannot be
cancelled and does not distinguish a full disk.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ..model_files.downloads import PullTask

_SLICE = 1 << 22


@dataclass(frozen=True)
class TensorSource:
    """A tensor that is to be written.

    Attributes:
        name: Its name in the file.
        shape: Its shape.
        load: Returns its values in fp32; called once, when its turn has come.
    """

    name: str
    shape: tuple[int, ...]
    load: Callable[[], npt.NDArray[np.float32]]


def write_bf16(path: Path, tensors: Sequence[TensorSource], pulling: PullTask) -> None:
    """Write tensors in order, rounded to bf16; an existing file is replaced.

    Args:
        pulling: Receives the bytes written; may cancel between tensors.

    Raises:
        Cancelled: Cancelled; the file is incomplete.
        OSError: The file cannot be written.
    """
    entries = [(t.name, "BF16", t.shape, 2 * math.prod(t.shape)) for t in tensors]
    total, done = sum(nbytes for *_, nbytes in entries), 0
    with _open_for_writing(path, entries, {"format": "pt"}) as f:
        for tensor in tensors:
            pulling.report("converting", done, total)
            values = np.ascontiguousarray(tensor.load()).reshape(-1)
            for i in range(0, values.size, _SLICE):
                done += f.write(to_bf16(values[i : i + _SLICE]).tobytes())
    pulling.report("converting", done, total)


def to_bf16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The upper halves of finite fp32 numbers, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    even = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = bits + (even + np.uint32(0x7FFF))
    return (rounded >> np.uint32(16)).astype(np.uint16)


@contextmanager
def _open_for_writing(
    path: Path, entries: Sequence[tuple[str, str, tuple[int, ...], int]], metadata: dict[str, str] | None = None
) -> Iterator[BinaryIO]:
    """A file whose header lists the entries (name, dtype, shape, bytes); their bytes are to be written in order."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    end = 0
    for name, dtype, shape, nbytes in entries:
        start, end = end, end + nbytes
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        yield f
