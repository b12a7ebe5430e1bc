"""Rotary position embedding: frequencies, their scaling to longer contexts, and the rotation of queries and keys."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .config import ModelConfig, rope_settings

CosSin = tuple[Tensor, Tensor]
"""Cosines and signed sines, of shapes that broadcast to what is rotated."""


class RotaryEmbedding:
    """Rotation tables of any position."""

    def __init__(self, config: ModelConfig, dtype: torch.dtype, device: torch.device | None = None) -> None:
        if config.rope is None:
            raise ValueError(f"no rotary embedding for family {config.family!r}")
        self._inverse = config.rope.to(device)
        self._dtype, self._half = dtype, config.head_dim // 2
        self._num_rotated = config.num_heads + config.num_kv_heads
        self._num_heads = config.num_heads + 2 * config.num_kv_heads

    def fused_tables(self, positions: Sequence[int]) -> CosSin:
        """Tables `[rows, num_heads + 2 * num_kv_heads, head_dim]` of the given positions.

        Values are rotated by nothing, so that one call rotates queries, keys and values together.
        """
        cos, sin = self.cos_sin(torch.tensor(positions))
        cos_table = cos.new_ones(len(positions), self._num_heads, 2 * self._half)
        sin_table = torch.zeros_like(cos_table)
        cos_table[:, : self._num_rotated] = cos[:, None]
        sin_table[:, : self._num_rotated] = sin[:, None]
        return cos_table.to(self._dtype), sin_table.to(self._dtype)

    def cos_sin(self, positions: Tensor) -> CosSin:
        """Tables `[..., head_dim]` in fp32 of positions `[...]`."""
        angle = positions.to(self._inverse.device, self._inverse.dtype)[..., None] * self._inverse
        cos, sin = angle.cos(), angle.sin()
        # The sign of "rotate half" is folded into the sine.
        return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)

    def rotate(self, x: Tensor, tables: CosSin) -> Tensor:
        """Rotate by tables of a shape that broadcasts to `x`.

        Source: Su et al. 2021, RoFormer, equation 34, with the halves of a head as the pairs.
        """
        cos, sin = tables
        swapped = torch.cat([x[..., self._half :], x[..., : self._half]], -1)
        return torch.addcmul(x * cos, swapped, sin)


def rope_frequencies(config: Mapping[str, Any], head_dim: int) -> Tensor:
    """Radians per position of each pair of a head, `[head_dim / 2]`, fp32.

    Source: Su et al. 2021, RoFormer, section 3.2.2; "linear" divides all of them (Chen et al. 2023, Position
    Interpolation); "llama3" divides those whose wavelength is long and blends between, as the Llama 3.1 model card
    describes.

    Raises:
        KeyError, TypeError, ValueError: A setting that its type needs is missing or no number.
    """
    rope = rope_settings(config)
    plain = 1.0 / (float(rope["rope_theta"]) ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim))
    if rope["rope_type"] == "default":
        return plain
    if rope["rope_type"] == "linear":
        return plain / float(rope["factor"])
    factor = float(rope["factor"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    trained = float(rope["original_max_position_embeddings"])
    wavelength = 2 * math.pi / plain
    blend = ((trained / wavelength - low) / (high - low)).clamp(0, 1)
    return (1 - blend) * plain / factor + blend * plain
