"""`Rotary`: turns queries and keys by their positions.

How far a position turns each pair of a head: rotary frequencies, and the ways of stretching them to longer texts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .config import ModelShape
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


KINDS = ("default", "linear", "llama3", "yarn")
"""Scalings that are a fixed angle per position. Those that depend on the length of the text are not among them: keys
that are written once could not follow."""


@dataclass(frozen=True)
class Frequencies:
    """What a model turns its queries and keys by.

    Attributes:
        inverse: Radians per position, `[head_dim / 2]`, fp32.
        factor: What a rotated query and a rotated key are multiplied by, each of them once; 1 but for "yarn".
    """

    inverse: Tensor
    factor: float = 1.0


def rope_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Rotation settings, under the names of old and new configurations."""
    rope = dict(config.get("rope_scaling") or {}) | dict(config.get("rope_parameters") or {})
    rope.setdefault("rope_theta", config.get("rope_theta", 10_000.0))
    rope.setdefault("rope_type", rope.get("type", "default"))
    return rope


def is_fixed(config: Mapping[str, Any]) -> bool:
    """Whether every pair of a head is turned, by an angle that depends on the position alone and that is known here."""
    rope = rope_of(config)
    return rope["rope_type"] in KINDS and float(rope.get("partial_rotary_factor") or 1.0) == 1.0


def frequencies(config: Mapping[str, Any], head_dim: int) -> Frequencies:
    """Angular step per position of each pair of a head.

    Source: Su et al. 2021, RoFormer, section 3.2.2; "linear" divides all of them (Chen et al. 2023, Position
    Interpolation); "llama3" divides those whose wavelength is long and blends between, as the Llama 3.1 model card
    says; "yarn" is Peng et al. 2023, YaRN, arXiv:2309.00071, sections 3.2 to 3.4.

    Raises:
        KeyError, TypeError, ValueError: A setting that its kind needs is missing or no number.
    """
    rope = rope_of(config)
    plain = 1.0 / (float(rope["rope_theta"]) ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim))
    kind = rope["rope_type"]
    if kind == "default":
        return Frequencies(plain)
    if kind == "linear":
        return Frequencies(plain / float(rope["factor"]))
    if kind == "llama3":
        return Frequencies(_llama3(rope, plain))
    return _yarn(rope, plain, config)


def _llama3(rope: Mapping[str, Any], plain: Tensor) -> Tensor:
    factor = float(rope["factor"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    trained = float(rope["original_max_position_embeddings"])
    wavelength = 2 * math.pi / plain
    blend = ((trained / wavelength - low) / (high - low)).clamp(0, 1)
    return (1 - blend) * plain / factor + blend * plain


def _yarn(rope: Mapping[str, Any], plain: Tensor, config: Mapping[str, Any]) -> Frequencies:
    trained = float(rope.get("original_max_position_embeddings") or config["max_position_embeddings"])
    factor = float(rope.get("factor") or float(config["max_position_embeddings"]) / trained)
    pairs = plain.shape[0]

    def pair_that_turns(times: float) -> float:
        """The pair, counted from 0 and not whole, that turns so many times within the trained length."""
        return pairs * math.log(trained / (times * 2 * math.pi)) / math.log(float(rope["rope_theta"]))

    first, last = (
        pair_that_turns(float(rope.get("beta_fast") or 32)),
        pair_that_turns(float(rope.get("beta_slow") or 1)),
    )
    if rope.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * pairs - 1)
    stretched = ((torch.arange(pairs, dtype=torch.float32) - first) / max(last - first, 0.001)).clamp(0, 1)
    inverse = plain / factor * stretched + plain * (1 - stretched)
    return Frequencies(inverse, _yarn_factor(rope, factor))


def _yarn_factor(rope: Mapping[str, Any], factor: float) -> float:
    """The factor on queries and keys, by which scores get the temperature of the paper's section 3.4."""
    given, own, whole = rope.get("attention_factor"), rope.get("mscale"), rope.get("mscale_all_dim")
    if given is not None:
        return float(given)

    def scale(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    return scale(float(own)) / scale(float(whole)) if own and whole else scale(1.0)
