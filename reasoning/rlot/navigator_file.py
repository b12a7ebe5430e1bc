"""A navigator's file: safetensors with ten arrays of weights, and the card in its metadata.

The metadata has one entry, "reason.navigator": JSON with a version, the card, and a SHA-256 sum over weights and card,
by which damage shows that safetensors does not see.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from ...core.errors import DataError
from .navigator_card import FORMAT, NavigatorCard
from .network import SHAPES, DuelingNetwork, packed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LARGEST: Final = 64 * 2**20
"""Bytes of a file that is read; the weights are 10 KiB, a card of a million training questions 20 MiB."""

_ENTRY = "reason.navigator"
_FORMATS = ("float16", "float32", "float64")
_ANEW = "copy the file again, or train anew: reason train navigator"


def pack(network: DuelingNetwork, card: NavigatorCard) -> bytes:
    """The file's content; weights in single precision."""
    import numpy as np
    from safetensors.numpy import save

    plain = card.model_dump(mode="json")
    entry = {"format": FORMAT, "sha256": _checksum(packed(network), plain), "card": plain}
    arrays = {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in network.weights.items()}
    # one entry: safetensors writes several in an order that differs from process to process
    return bytes(save(arrays, metadata={_ENTRY: json.dumps(entry)}))


def unpack(raw: bytes, file: str) -> tuple[dict[str, NDArray[np.float64]], NavigatorCard]:
    """The weights, not yet looked at but for their names and number format, and the card.

    Args:
        raw: The file's content.
        file: The file's name, for errors.

    Raises:
        DataError: It is cut short, damaged, not safetensors, of a later version, or holds other arrays.
    """
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(raw)
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise DataError(f"{file} is damaged, or no safetensors file", hint=_ANEW) from e
    if set(arrays) != set(SHAPES):
        other = ", ".join(sorted(arrays)[:4]) or "nothing"
        raise DataError(
            f"{file} is no navigator: it holds {other}",
            hint="a navigator has weight and bias of Linear1, Linear2_adv, Linear2_val, Linear3_adv and Linear3_val",
        )
    for name, array in arrays.items():
        if array.dtype.name not in _FORMATS:
            raise DataError(f"{file} is no navigator: {name} is {array.dtype}", hint=f"store it as {_FORMATS[1]}")
    weights = {name: array.astype(np.float64) for name, array in arrays.items()}
    return weights, _card(header.get("__metadata__", {}).get(_ENTRY), weights, file)


def _card(entry: str | None, weights: dict[str, NDArray[np.float64]], file: str) -> NavigatorCard:
    if entry is None:
        return NavigatorCard()
    try:
        told: Any = json.loads(entry)
        version, sha256, plain = told["format"], told["sha256"], told["card"]
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise DataError(f"the card of the navigator {file} is damaged", hint=_ANEW) from e
    if version != FORMAT:
        raise DataError(
            f"the navigator {file} has format {version}; this version of reason reads {FORMAT}",
            hint="train anew, or use the version of reason that wrote it",
        )
    if sha256 != _checksum(b"".join(weights[name].astype("<f4").tobytes() for name in SHAPES), plain):
        raise DataError(f"the navigator {file} is damaged: its checksum is wrong", hint=_ANEW)
    try:
        return NavigatorCard.model_validate_json(json.dumps(plain))
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "card"
        raise DataError(f"the card of the navigator {file} is damaged: {where}: {first['msg']}", hint=_ANEW) from e


def _checksum(weights: bytes, card: Any) -> str:
    text = json.dumps(card, sort_keys=True)
    return hashlib.sha256(weights + text.encode(errors="surrogatepass")).hexdigest()
