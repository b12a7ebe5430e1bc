"""`WeightDelta`: what a training changed in an encoder's weights, in few bits, with the head it added: one file.

A matrix W becomes W + s q: q are whole numbers of a few bits, s a scale for each row (symmetric quantisation with a
scale a channel; Jacob et al. 2018, arXiv:1712.05877, section 2.1, with a zero point of 0). Word embeddings stay.
Everything that is no matrix of a layer is stored in fp16: the change where the encoder has such a weight, else the
weight.

The file is safetensors with one entry of metadata, "reason.entailment": JSON with the format, the fingerprint of the
encoder that it is for, the labels, bits, temperature, a card, and a SHA-256 sum over all arrays.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pydantic import JsonValue

from ...core.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

FORMAT: Final = 1
MAX_BYTES: Final = 64 * 2**20
"""Bytes of a file that is read."""

_ENTRY = "reason.entailment"
_WHOLE, _SCALE, _CHANGE, _NEW = "q:", "s:", "d:", "w:"
_ANEW = "install the package again, or train anew: reason train entailment"


@dataclass(frozen=True)
class WeightDelta:
    """A trained change.

    Attributes:
        base: Fingerprint of the encoder that it is for.
        bits: Bits of a number of a changed matrix.
        arrays: What the file holds, by name.
        temperature: What logits are divided by.
        card: Where it comes from.
    """

    base: str
    bits: int
    arrays: Arrays
    temperature: float = 1.0
    card: Mapping[str, JsonValue] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits over everything that a verdict depends on."""
        return _checksum(self)[:16]


def compute_delta(
    before: Arrays,
    after: Arrays,
    *,
    base: str,
    bits: int = 6,
    temperature: float = 1.0,
    card: Mapping[str, JsonValue] | None = None,
) -> WeightDelta:
    """What changed.

    Args:
        before: The encoder's weights, fp32.
        after: Those after the training, with the head; a weight that is missing has not changed.
        base: The encoder's fingerprint.
        bits: Bits of a number, 2 to 8.
        temperature: What logits are to be divided by.
        card: Where it comes from.

    Raises:
        ValueError: A weight is no number, or a change is too large for fp16.
    """
    import numpy as np

    if not 2 <= bits <= 8:
        raise ValueError(f"{bits} bits are not from 2 to 8")
    arrays: dict[str, NDArray[Any]] = {}
    for name, array in after.items():
        # of positions the first ones alone may have been trained
        change = array - before[name][: len(array)] if name in before else array
        if not np.isfinite(change.astype(np.float16)).all():
            raise ValueError(f"the weight {name} is no number, or too large")
        if name not in before:
            arrays[_NEW + name] = change.astype(np.float16)
        elif change.ndim == 2 and name[0].isdigit():
            arrays[_WHOLE + name], arrays[_SCALE + name] = _quantised(change, bits)
        else:
            arrays[_CHANGE + name] = change.astype(np.float16)
    return WeightDelta(base, bits, arrays, temperature, dict(card or {}))


def apply_delta(delta: WeightDelta, before: Arrays) -> dict[str, NDArray[np.float32]]:
    """The encoder's weights with the change, and the head.

    Args:
        delta: The change.
        before: The encoder's weights.

    Raises:
        DataError: The change is for an encoder of other shapes.
    """
    import numpy as np

    found: dict[str, NDArray[np.float32]] = {name: array.astype(np.float32) for name, array in before.items()}
    for key, array in delta.arrays.items():
        kind, name = key[:2], key[2:]
        if kind == _SCALE:
            continue
        if kind == _NEW:
            found[name] = array.astype(np.float32)
            continue
        old = found.get(name)
        if old is None:
            raise DataError(f"the change of {name} fits no weight of the encoder", hint=_ANEW)
        change = array.astype(np.float32)
        if kind == _WHOLE:
            scales = delta.arrays[_SCALE + name].astype(np.float32)
            if scales.shape != old.shape[:1] or len(array) != _packed_bytes(old.size, delta.bits):
                raise DataError(f"the change of {name} has another shape than the encoder's weight", hint=_ANEW)
            change = _unpacked(array, old.size, delta.bits).reshape(old.shape) * scales[:, None]
        if change.ndim == 2 and change.shape[0] < old.shape[0] and change.shape[1:] == old.shape[1:]:
            found[name] = old.copy()
            found[name][: len(change)] += change  # the first positions alone
        elif change.shape == old.shape:
            found[name] = old + change
        else:
            raise DataError(f"the change of {name} has another shape than the encoder's weight", hint=_ANEW)
    return found


def serialize_delta(delta: WeightDelta) -> bytes:
    """The file's content; the same change gives the same bytes."""
    import numpy as np
    from safetensors.numpy import save

    entry = {**_told(delta), "sha256": _checksum(delta), "card": delta.card}
    arrays = {name: np.ascontiguousarray(delta.arrays[name]) for name in sorted(delta.arrays)}
    return bytes(save(arrays, metadata={_ENTRY: json.dumps(entry)}))


def parse_delta(raw: bytes, file: str) -> WeightDelta:
    """Read a file's content.

    Args:
        raw: The content.
        file: What errors call it.

    Raises:
        DataError: It is damaged, of another version, or something else.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(raw)
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        told = json.loads(header["__metadata__"][_ENTRY])
        delta = WeightDelta(
            base=str(told["base"]),
            bits=int(told["bits"]),
            arrays=arrays,
            temperature=float(told["temperature"]),
            card=dict(told["card"]),
        )
        version, sha256 = told["format"], told["sha256"]
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise DataError(f"{file} is damaged, or no file of entailment weights", hint=_ANEW) from e
    if version != FORMAT:
        raise DataError(f"{file} is of format {version}, and this version reads {FORMAT}", hint=_ANEW)
    if not 2 <= delta.bits <= 8 or not delta.temperature > 0 or _checksum(delta) != sha256:
        raise DataError(f"{file} is damaged: its checksum is another one", hint=_ANEW)
    return delta


def _told(delta: WeightDelta) -> dict[str, JsonValue]:
    return {"format": FORMAT, "base": delta.base, "bits": delta.bits, "temperature": delta.temperature}


def _checksum(delta: WeightDelta) -> str:
    hashed = hashlib.sha256(json.dumps(_told(delta), sort_keys=True).encode())
    for name in sorted(delta.arrays):
        array = delta.arrays[name]
        hashed.update(f"{name} {array.dtype} {array.shape}\n".encode())
        hashed.update(array.tobytes())
    return hashed.hexdigest()


def _quantised(change: NDArray[np.float32], bits: int) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """Whole numbers, packed, and the scale of each row."""
    import numpy as np

    top = 2 ** (bits - 1) - 1
    scales = (np.abs(change).max(1) / top).astype(np.float16)
    wide = scales.astype(np.float32)[:, None]
    whole = np.divide(change, wide, out=np.zeros_like(change), where=wide > 0)
    return _packed(np.clip(np.rint(whole), -top, top).astype(np.int8), bits), scales


def _packed(whole: NDArray[np.int8], bits: int) -> NDArray[np.uint8]:
    """Numbers from -2^(bits-1) to 2^(bits-1) - 1, `bits` bits each, end to end."""
    import numpy as np

    shifted = (whole.reshape(-1).astype(np.int16) + 2 ** (bits - 1)).astype(np.uint8)
    planes = np.unpackbits(shifted[:, None], axis=1)[:, 8 - bits :]
    return np.packbits(planes.reshape(-1))


def _unpacked(packed: NDArray[np.uint8], count: int, bits: int) -> NDArray[np.float32]:
    import numpy as np

    planes = np.unpackbits(packed, count=count * bits).reshape(count, bits)
    weights = (1 << np.arange(bits - 1, -1, -1)).astype(np.float32)
    found: NDArray[np.float32] = planes.astype(np.float32) @ weights - np.float32(2 ** (bits - 1))
    return found


def _packed_bytes(count: int, bits: int) -> int:
    return -(-count * bits // 8)
