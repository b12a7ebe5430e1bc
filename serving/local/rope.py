"""Rotary position embedding: frequencies, their scaling to longer contexts, and the rotation of queries and keys."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .config import LayerType, ModelConfig, rope_settings

_CPU = torch.device("cpu")
CosSin = tuple[Tensor, Tensor]
"""Cosines and signed sines, of shapes that broadcast to what is rotated."""


@dataclass(frozen=True)
class RopeFrequencies:
    """What a model rotates its queries and keys by.

    Attributes:
        inverse: Radians per position, `[head_dim / 2]`, fp32.
        factor: What a rotated query and a rotated key are multiplied by, once each; 1 but for "yarn".
    """

    inverse: Tensor
    factor: float = 1.0


class RotaryEmbedding:
    """Rotation tables of any position, for each type of layer that rotates.

    Attributes:
        layer_types: The type of each layer.
    """

    def __init__(self, config: ModelConfig, dtype: torch.dtype, device: torch.device = _CPU) -> None:
        if config.rope is None:
            raise ValueError(f"no rotary embedding for family {config.family!r}")
        self._frequencies: dict[LayerType, RopeFrequencies] = {"full": config.rope}
        if config.local_rope is not None:
            self._frequencies["sliding"] = config.local_rope
        self._inverse = {key: rope.inverse.to(device) for key, rope in self._frequencies.items()}
        self.layer_types = config.layer_types
        self._dtype, self._device = dtype, device
        self._num_rotated = config.num_heads + config.num_kv_heads
        self._num_heads = config.num_heads + 2 * config.num_kv_heads
        self._half = config.head_dim // 2

    def fused_tables(self, positions: Sequence[int], layer_type: LayerType = "full") -> CosSin:
        """Tables `[rows, num_heads + 2 * num_kv_heads, head_dim]` of the given positions.

        Values are rotated by nothing, so that one call rotates queries, keys and values together.
        """
        cos, sin = self.cos_sin(torch.tensor(positions), layer_type)
        rows = len(positions)
        cos_table = torch.ones(rows, self._num_heads, 2 * self._half, device=self._device)
        sin_table = torch.zeros(rows, self._num_heads, 2 * self._half, device=self._device)
        cos_table[:, : self._num_rotated] = cos[:, None]
        sin_table[:, : self._num_rotated] = sin[:, None]
        return cos_table.to(self._dtype), sin_table.to(self._dtype)

    def cos_sin(self, positions: Tensor, layer_type: LayerType = "full") -> CosSin:
        """Tables `[..., head_dim]` in fp32 of positions `[...]`, with the factor on queries and keys."""
        cos, sin = self.pure_cos_sin(positions, layer_type)
        factor = self._frequencies[layer_type].factor
        return cos * factor, sin * factor

    def pure_cos_sin(self, positions: Tensor, layer_type: LayerType = "full") -> CosSin:
        """The same without that factor: rotates further what is rotated already, and changes no length."""
        inverse = self._inverse[layer_type]
        angle = positions.to(self._device, inverse.dtype)[..., None] * inverse
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


def rope_frequencies(config: Mapping[str, Any], head_dim: int, layer_type: LayerType = "full") -> RopeFrequencies:
    """Angular step per position of each pair of a head, in layers of a type.

    Source: Su et al. 2021, RoFormer, section 3.2.2; "linear" divides all of them (Chen et al. 2023, Position
    Interpolation); "llama3" divides those whose wavelength is long and blends between, as the Llama 3.1 model card
    describes; "yarn" is Peng et al. 2023, YaRN, arXiv:2309.00071, sections 3.2 to 3.4.

    Raises:
        KeyError, TypeError, ValueError: A setting that its type needs is missing or no number.
    """
    rope = rope_settings(config, layer_type)
    plain = 1.0 / (float(rope["rope_theta"]) ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim))
    rope_type = rope["rope_type"]
    if rope_type == "default":
        return RopeFrequencies(plain)
    if rope_type == "linear":
        return RopeFrequencies(plain / float(rope["factor"]))
    if rope_type == "llama3":
        return RopeFrequencies(_llama3(rope, plain))
    return _yarn(rope, plain, config)


def _llama3(rope: Mapping[str, Any], plain: Tensor) -> Tensor:
    factor = float(rope["factor"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    trained = float(rope["original_max_position_embeddings"])
    wavelength = 2 * math.pi / plain
    blend = ((trained / wavelength - low) / (high - low)).clamp(0, 1)
    return (1 - blend) * plain / factor + blend * plain


def _yarn(rope: Mapping[str, Any], plain: Tensor, config: Mapping[str, Any]) -> RopeFrequencies:
    trained = float(rope.get("original_max_position_embeddings") or config["max_position_embeddings"])
    factor = float(rope.get("factor") or float(config["max_position_embeddings"]) / trained)
    pairs = plain.shape[0]

    def pair_with_rotations(rotations: float) -> float:
        """The (fractional) pair, from 0, that rotates so many times within the trained length."""
        return pairs * math.log(trained / (rotations * 2 * math.pi)) / math.log(float(rope["rope_theta"]))

    first, last = (
        pair_with_rotations(float(rope.get("beta_fast") or 32)),
        pair_with_rotations(float(rope.get("beta_slow") or 1)),
    )
    if rope.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * pairs - 1)
    stretched = ((torch.arange(pairs, dtype=torch.float32) - first) / max(last - first, 0.001)).clamp(0, 1)
    inverse = plain / factor * stretched + plain * (1 - stretched)
    return RopeFrequencies(inverse, _yarn_attention_factor(rope, factor))


def _yarn_attention_factor(rope: Mapping[str, Any], factor: float) -> float:
    """The factor on queries and keys that gives scores the temperature of the paper's section 3.4."""
    explicit, mscale, mscale_all = rope.get("attention_factor"), rope.get("mscale"), rope.get("mscale_all_dim")
    if explicit is not None:
        return float(explicit)

    def scale(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    return scale(float(mscale)) / scale(float(mscale_all)) if mscale and mscale_all else scale(1.0)
