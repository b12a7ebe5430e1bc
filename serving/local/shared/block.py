"""`Block`: tokens that stand side by side in every view that shows them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..rotary import Rotary

MIN_CAPACITY = 64
"""Columns of the smallest block."""


def first_capacity(tokens: int) -> int:
    """Columns of a new block that is to hold so many tokens at once."""
    return max(MIN_CAPACITY, tokens)


def grown(capacity: int, tokens: int) -> int:
    """Columns of a block with so many, once it holds so many tokens: as many, or twice as many at least."""
    return capacity if tokens <= capacity else max(2 * capacity, tokens)


class Block:
    """Keys and values of a run of tokens, stored once, for any number of views.

    Keys are turned as if the block began at position `origin`: where it stands in a view, is the business of the query
    that reads it.

    Args:
        layers: Number of layers.
        kv_heads: Key/value heads.
        head_dim: Width of a head.
        dtype: Number format.
        device: Where it lies.
        tokens: Tokens that there is room for at first.

    Attributes:
        ids: Its tokens.
        kv: Per layer `[2, kv_heads, capacity, head_dim]`: keys, then values.
        origin: Position that its first key is turned to.
    """

    def __init__(
        self, layers: int, kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device, tokens: int = 0
    ) -> None:
        self.ids: list[int] = []
        self.origin = 0
        size = (2, kv_heads, first_capacity(tokens), head_dim)
        self.kv = [torch.zeros(size, dtype=dtype, device=device) for _ in range(layers)]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def capacity(self) -> int:
        """Columns there is room for."""
        return self.kv[0].shape[2]

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values, used or not."""
        return sum(kv.nbytes for kv in self.kv)

    def reserve(self, ids: Sequence[int]) -> range:
        """Take tokens; their keys and values are still to be written. It grows where there is no room.

        Returns:
            Their columns.
        """
        first = len(self.ids)
        capacity = grown(self.capacity, first + len(ids))
        if capacity > self.capacity:
            for i, old in enumerate(self.kv):
                new = old.new_zeros(2, old.shape[1], capacity, old.shape[3])
                new[:, :, :first] = old[:, :, :first]
                self.kv[i] = new
        self.ids.extend(ids)
        return range(first, len(self.ids))

    def clear(self) -> None:
        """Forget the tokens; the room stays."""
        self.ids.clear()

    def absorb(self, other: Block, rotary: Rotary) -> None:
        """Take all of another block behind what is here, and leave that one empty.

        Its keys turn to the positions that follow those of the keys here, purely, whatever factor the model gives its
        keys: they have theirs already. Its values are copied.
        """
        count = len(other)
        where = self.reserve(other.ids)
        cos, sin = rotary.shift(torch.tensor([self.origin + where.start - other.origin]))
        for mine, theirs in zip(self.kv, other.kv, strict=True):
            keys, values = theirs[0, :, :count], theirs[1, :, :count]
            mine[0, :, where.start : where.stop] = rotary.rotate(wide(keys), on((cos, sin), keys)).to(mine.dtype)
            mine[1, :, where.start : where.stop] = values
        other.clear()


def wide(x: Tensor) -> Tensor:
    """The same numbers in a format in which they can be turned: at least single precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def on(tables: tuple[Tensor, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Tables where `x` lies, and as precise as it is turned."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    return tables[0].to(x.device, dtype), tables[1].to(x.device, dtype)
