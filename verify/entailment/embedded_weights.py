"""The file of trained weights of the embedded judge: quantized changes of an encoder's weights, and the head.

A matrix W becomes W + s q, with integers q of a few bits and a scale s for each row (symmetric quantization with a
scale for each channel; Jacob et al. 2018, arXiv:1712.05877, section 2.1, with zero point 0). Word embeddings are
unchanged. All other tensors are stored in fp16: the change of an encoder's weight, or a new weight.

The file is safetensors with one metadata entry, "reason.entailment": JSON with the format, the fingerprint of the
encoder, bits, temperature, a card, and a SHA-256 checksum of all arrays.
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
"""Maximum bytes of a file."""

_ENTRY = "reason.entailment"
_INTEGERS, _SCALE, _CHANGE, _NEW = "q:", "s:", "d:", "w:"
_HINT = "install the package again"


@dataclass(frozen=True)
class WeightDelta:
    """Trained weights as a change of an encoder.

    Attributes:
        base: Fingerprint of the encoder.
        bits: Bits of an integer of a changed matrix.
        arrays: The arrays of the file, by name.
        temperature: Divisor of the logits.
        card: Their training data and accuracy.
    """

    base: str
    bits: int
    arrays: Arrays
    temperature: float = 1.0
    card: Mapping[str, JsonValue] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits of a hash of everything that affects a verdict."""
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
    """Quantize the difference of two sets of weights.

    Args:
        before: The encoder's weights, fp32.
        after: The weights after training, with the head; a missing weight is unchanged.
        base: The encoder's fingerprint.
        bits: Bits of an integer, 2 to 8.
        temperature: Divisor of the logits.
        card: Their training data and accuracy.

    Raises:
        ValueError: A weight is not a number, or a change is too large for fp16.
    """
    import numpy as np

    if not 2 <= bits <= 8:
        raise ValueError(f"bits must be from 2 to 8, got {bits}")
    arrays: dict[str, NDArray[Any]] = {}
    for name, array in after.items():
        # only the first positions may have been trained
        change = array - before[name][: len(array)] if name in before else array
        if not np.isfinite(change.astype(np.float16)).all():
            raise ValueError(f"the weight {name} is not a number, or too large")
        if name not in before:
            arrays[_NEW + name] = change.astype(np.float16)
        elif change.ndim == 2 and name[0].isdigit():
            arrays[_INTEGERS + name], arrays[_SCALE + name] = _quantized(change, bits)
        else:
            arrays[_CHANGE + name] = change.astype(np.float16)
    return WeightDelta(base, bits, arrays, temperature, dict(card or {}))


def apply_delta(delta: WeightDelta, before: Arrays) -> dict[str, NDArray[np.float32]]:
    """The encoder's weights with the change, and the head; unchanged ones are shared, not copied.

    Args:
        delta: The change.
        before: The encoder's weights.

    Raises:
        DataError: The change is for an encoder with other shapes.
    """
    import numpy as np

    weights: dict[str, NDArray[np.float32]] = {n: np.asarray(array, dtype=np.float32) for n, array in before.items()}
    for key, array in delta.arrays.items():
        kind, name = key[:2], key[2:]
        if kind == _SCALE:
            continue
        if kind == _NEW:
            weights[name] = array.astype(np.float32)
            continue
        old = weights.get(name)
        if old is None:
            raise DataError(f"the change of {name} has no weight in the encoder", hint=_HINT)
        change = array.astype(np.float32)
        if kind == _INTEGERS:
            scales = delta.arrays[_SCALE + name].astype(np.float32)
            if scales.shape != old.shape[:1] or len(array) != _packed_bytes(old.size, delta.bits):
                raise DataError(f"the change of {name} differs in shape from the encoder's weight", hint=_HINT)
            change = _unpacked(array, old.size, delta.bits).reshape(old.shape) * scales[:, None]
        if change.ndim == 2 and change.shape[0] < old.shape[0] and change.shape[1:] == old.shape[1:]:
            weights[name] = old.copy()
            weights[name][: len(change)] += change  # only the first positions
        elif change.shape == old.shape:
            weights[name] = old + change
        else:
            raise DataError(f"the change of {name} differs in shape from the encoder's weight", hint=_HINT)
    return weights


def serialize_delta(delta: WeightDelta) -> bytes:
    """The file's content; the same change gives the same bytes."""
    import numpy as np
    from safetensors.numpy import save

    entry = {**_header(delta), "sha256": _checksum(delta), "card": delta.card}
    arrays = {name: np.ascontiguousarray(delta.arrays[name]) for name in sorted(delta.arrays)}
    return bytes(save(arrays, metadata={_ENTRY: json.dumps(entry)}))


def parse_delta(raw: bytes, file: str) -> WeightDelta:
    """Read a file's content.

    Args:
        raw: The content.
        file: Its name in errors.

    Raises:
        DataError: It is damaged, of another version, or another kind of file.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(raw)
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        entry = json.loads(header["__metadata__"][_ENTRY])
        delta = WeightDelta(
            base=str(entry["base"]),
            bits=int(entry["bits"]),
            arrays=arrays,
            temperature=float(entry["temperature"]),
            card=dict(entry["card"]),
        )
        version, sha256 = entry["format"], entry["sha256"]
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise DataError(f"{file} is damaged, or not a file of entailment weights", hint=_HINT) from e
    if version != FORMAT:
        raise DataError(f"{file} has format {version}, expected {FORMAT}", hint=_HINT)
    if not 2 <= delta.bits <= 8 or not delta.temperature > 0 or _checksum(delta) != sha256:
        raise DataError(f"{file} is damaged: its checksum differs", hint=_HINT)
    return delta


def _header(delta: WeightDelta) -> dict[str, JsonValue]:
    return {"format": FORMAT, "base": delta.base, "bits": delta.bits, "temperature": delta.temperature}


def _checksum(delta: WeightDelta) -> str:
    hashed = hashlib.sha256(json.dumps(_header(delta), sort_keys=True).encode())
    for name in sorted(delta.arrays):
        array = delta.arrays[name]
        hashed.update(f"{name} {array.dtype} {array.shape}\n".encode())
        hashed.update(array.tobytes())
    return hashed.hexdigest()


def _quantized(change: NDArray[np.float32], bits: int) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """The packed integers and the scale of each row."""
    import numpy as np

    top = 2 ** (bits - 1) - 1
    scales = (np.abs(change).max(1) / top).astype(np.float16)
    wide = scales.astype(np.float32)[:, None]
    integers = np.divide(change, wide, out=np.zeros_like(change), where=wide > 0)
    return _packed(np.clip(np.rint(integers), -top, top).astype(np.int8), bits), scales


def _packed(integers: NDArray[np.int8], bits: int) -> NDArray[np.uint8]:
    """Numbers from -2^(bits-1) to 2^(bits-1) - 1, `bits` bits each, end to end."""
    import numpy as np

    shifted = (integers.reshape(-1).astype(np.int16) + 2 ** (bits - 1)).astype(np.uint8)
    planes = np.unpackbits(shifted[:, None], axis=1)[:, 8 - bits :]
    return np.packbits(planes.reshape(-1))


def _unpacked(packed: NDArray[np.uint8], count: int, bits: int) -> NDArray[np.float32]:
    import numpy as np

    planes = np.unpackbits(packed, count=count * bits).reshape(count, bits)
    weights = (1 << np.arange(bits - 1, -1, -1)).astype(np.float32)
    integers: NDArray[np.float32] = planes.astype(np.float32) @ weights - np.float32(2 ** (bits - 1))
    return integers


def _packed_bytes(count: int, bits: int) -> int:
    return -(-count * bits // 8)
