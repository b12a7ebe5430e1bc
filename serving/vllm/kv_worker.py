"""`BlockFiles`: a worker's blocks of keys and values to and from files, checked, apart from vLLM.

A block is copied whole, as the bytes it has in the engine: what they mean inside, the engine's attention alone knows
(on a processor it packs them for its instruction set). So the layout a file was written in must be the reader's own.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from ...core.errors import DataError
from ..kv_store import PayloadFile
from .kv_orders import LAYOUT_VERSION, BlockShape, ReadOrder, WorkerReport, WriteOrder, file_name

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class BlockFiles:
    """The files of one worker.

    Args:
        caches: Keys and values by layer, `[blocks, …]`.
        blocks: Blocks that the engine counts.
        block_tokens: Tokens in a block.
        attention: What else decides the arrangement inside a block: the device, the attention and its variant.
        rank: Which worker this is.
        ranks: How many workers share the model.
    """

    def __init__(
        self, caches: Mapping[str, Tensor], blocks: int, block_tokens: int, attention: str, rank: int, ranks: int
    ) -> None:
        self._rank, self._ranks, self._block_tokens, self._attention = rank, ranks, block_tokens, attention
        self._caches, self._refusal = _own(caches, blocks)
        self._report = WorkerReport()
        self._bad: set[int] = set()

    @property
    def shape(self) -> BlockShape:
        """How a block is kept."""
        if self._refusal:
            return BlockShape(refusal=self._refusal)
        first = next(iter(self._caches.values()))
        inner = "x".join(map(str, first.shape[1:]))
        strides = ",".join(map(str, first.stride()[1:]))
        return BlockShape(
            dtype=str(first.dtype).removeprefix("torch."),
            layout=f"vllm/{LAYOUT_VERSION} {self._attention} {self._block_tokens} tokens {inner} by {strides} "
            f"in {len(self._caches)} layers on {self._ranks}",
            nbytes=sum(c[0].numel() * c.element_size() for c in self._caches.values()),
        )

    def read(self, order: ReadOrder) -> None:
        """Fill blocks from a file; if that fails, the engine is told to compute them (`take_bad_blocks`)."""
        try:
            self._fill(order, self._checked(order))
        except DataError as e:
            self._bad |= set(order.blocks)
            self._report.failed[order.request] = e.code, str(e)

    def write(self, order: WriteOrder) -> None:
        """Write blocks to a file."""
        path = order.folder / file_name(self._rank)
        numbers = torch.tensor(order.blocks, dtype=torch.long)
        try:
            tensors = {name: cache[numbers.to(cache.device)].cpu() for name, cache in self._caches.items()}
            save_file(tensors, path, {"tokens": order.tokens})
        except (OSError, SafetensorError) as e:
            full = isinstance(e, OSError) and e.errno in _FULL
            code = "backend_unavailable" if full or "No space left" in str(e) else "backend_error"
            self._report.failed[order.request] = code, f"keys and values cannot be written to {order.folder}: {e}"
        else:
            self._report.written[order.request] = 1

    def take_report(self) -> WorkerReport | None:
        """What happened since the last report; None if nothing did."""
        report, self._report = self._report, WorkerReport()
        return report if report.written or report.failed else None

    def take_bad_blocks(self) -> set[int]:
        """Blocks that could not be filled since the last call."""
        bad, self._bad = self._bad, set()
        return bad

    def _checked(self, order: ReadOrder) -> dict[str, Tensor]:
        """The tensors of this worker's file, whose very bytes have been summed.

        Raises:
            DataError: They are not those that were written.
        """
        name = file_name(self._rank)
        told = next((f for f in order.files if f.name == name), None)
        if told is None or len(order.files) != self._ranks:
            raise DataError(f"the prefix in {order.folder} was written by another number of workers")
        data = _bytes_of(order.folder / name, told)
        try:
            length = int.from_bytes(data[:8], "little")
            tokens = json.loads(data[8 : 8 + length])["__metadata__"]["tokens"]
            tensors = load(data)
        except (SafetensorError, ValueError, KeyError, TypeError) as e:
            raise DataError(f"{order.folder / name} is no file of ours: {e}") from e
        if tokens != order.tokens:
            raise DataError(f"{order.folder / name} was written for other tokens")
        return tensors

    def _fill(self, order: ReadOrder, tensors: Mapping[str, Tensor]) -> None:
        if tensors.keys() != self._caches.keys():
            raise DataError(f"the prefix in {order.folder} has other layers")
        end = order.first + len(order.blocks)
        for name, cache in self._caches.items():
            tensor = tensors[name]
            if tensor.dtype != cache.dtype or tensor.shape[1:] != cache.shape[1:] or len(tensor) < end:
                raise DataError(f"the prefix in {order.folder} has other blocks")
        numbers = torch.tensor(order.blocks, dtype=torch.long)
        for name, cache in self._caches.items():
            cache[numbers.to(cache.device)] = tensors[name][order.first : end].to(cache.device)


def _own(caches: Mapping[str, Tensor], blocks: int) -> tuple[dict[str, Tensor], str]:
    """The caches without those that several layers share, and why they cannot be copied, if so."""
    own: dict[str, Tensor] = {}
    seen: set[tuple[int, ...]] = set()
    for name, cache in caches.items():
        if not isinstance(cache, Tensor) or cache.dim() < 2 or cache.shape[0] != blocks:
            return {}, f"the cache of layer {name} does not consist of the engine's blocks"
        place = (cache.data_ptr(), *cache.shape)
        if place not in seen:
            own[name] = cache
        seen.add(place)
    shapes = {(c.dtype, c.shape[1:], c.stride()[1:]) for c in own.values()}
    if len(shapes) != 1:
        return {}, "its layers keep blocks of several kinds"
    return own, ""


def _bytes_of(path: Path, told: PayloadFile) -> bytes:
    """The bytes of a file.

    Raises:
        DataError: They are not those whose sum is told.
    """
    try:
        if (size := path.stat().st_size) != told.nbytes:
            raise DataError(f"{path} has {size} bytes instead of {told.nbytes}")
        data = path.read_bytes()
    except OSError as e:
        raise DataError(f"{path} cannot be read: {e.strerror}") from e
    if hashlib.sha256(data).hexdigest() != told.sha256:
        raise DataError(f"the SHA-256 of {path} is not that of what was saved")
    return data


def shared_shape(shapes: Sequence[BlockShape]) -> BlockShape:
    """How all workers together keep a block."""
    refusal = next((s.refusal for s in shapes if s.refusal), "" if shapes else "no worker has told its layout")
    if refusal:
        return BlockShape(refusal=refusal)
    return BlockShape(
        dtype=shapes[0].dtype,
        layout="; ".join(sorted({s.layout for s in shapes})),
        nbytes=sum(s.nbytes for s in shapes),
    )
