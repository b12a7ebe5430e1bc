"""`Rotary`: turns queries and keys by their positions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .families import ModelShape
from .weights import PROCESSOR

Turn = tuple[Tensor, Tensor]
"""Cosines and signed sines, of shapes that go with what is turned."""


class Rotary:
    """Cosines and sines of every position.

    Args:
        shape: Sizes; `shape.frequencies` must be there.
        dtype: Number format of the tables of a step.
        device: Where the tables lie.
    """

    def __init__(self, shape: ModelShape, dtype: torch.dtype, device: torch.device = PROCESSOR) -> None:
        if shape.frequencies is None:
            raise ValueError(f"no rotation for family {shape.family!r}")
        self._inverse, self._factor = shape.frequencies.inverse.to(device), shape.frequencies.factor
        self._dtype, self._device = dtype, device
        self._rotated = shape.heads + shape.kv_heads
        self._heads = shape.heads + 2 * shape.kv_heads
        self._half = shape.head_dim // 2

    def tables(self, positions: Sequence[int]) -> Turn:
        """Tables `[rows, heads + 2 * kv_heads, head_dim]` of the given positions.

        The rotation of the values is by nothing, so that one call takes queries, keys and values together.
        """
        cos, sin = self.turn(torch.tensor(positions))
        rows = len(positions)
        cos_table = torch.ones(rows, self._heads, 2 * self._half, device=self._device)
        sin_table = torch.zeros(rows, self._heads, 2 * self._half, device=self._device)
        cos_table[:, : self._rotated] = cos[:, None]
        sin_table[:, : self._rotated] = sin[:, None]
        return cos_table.to(self._dtype), sin_table.to(self._dtype)

    def turn(self, positions: Tensor) -> Turn:
        """Tables `[..., head_dim]` in fp32 of positions `[...]`, with the factor that a query or key takes once."""
        cos, sin = self.shift(positions)
        return cos * self._factor, sin * self._factor

    def shift(self, positions: Tensor) -> Turn:
        """The like without that factor: turns what was turned before further, and changes no length."""
        angle = positions.to(self._device, self._inverse.dtype)[..., None] * self._inverse
        cos, sin = angle.cos(), angle.sin()
        # The sign of "rotate half" is folded into the sine.
        return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)

    def rotate(self, x: Tensor, tables: Turn) -> Tensor:
        """Rotate by tables of a shape that goes with `x`.

        Source: Su et al. 2021, RoFormer, equation 34, with the halves of a head as the pairs.
        """
        cos, sin = tables
        swapped = torch.cat([x[..., self._half :], x[..., : self._half]], -1)
        return torch.addcmul(x * cos, swapped, sin)
