"""How far a position turns each pair of a head: rotary frequencies, and the ways of stretching them to longer texts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

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
