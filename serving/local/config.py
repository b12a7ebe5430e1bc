"""What a checkpoint is: its sizes, read from `config.json`, and the limits of an engine that runs it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import ContextTooLong, DataError, UserError

if TYPE_CHECKING:
    from torch import Tensor

NATIVE_FAMILIES: Mapping[str, bool] = {"llama": False, "qwen2": False, "qwen3": True}
"""Model types that `Decoder` computes itself, and whether they norm queries and keys per head."""
SUPPORTED_ROPE_TYPES = ("default", "linear", "llama3")
"""Scalings with a fixed angle per position. Those that depend on the length of the text are excluded: keys that are
written once could not follow."""


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and switches of a decoder.

    Attributes:
        family: `model_type` of the configuration.
        num_kv_heads: Key/value heads; each serves `num_heads // num_kv_heads` query heads.
        hidden_size: Width of the residual stream.
        vocab_size: Rows of the output matrix.
        norm_eps: Epsilon of the root-mean-square norms.
        context_length: Maximum tokens of a sequence.
        tied_embeddings: Whether the output matrix is the embedding.
        qk_norm: Whether queries and keys are normed per head.
        rope: Rotary frequencies (`rope_frequencies`); None where the family is not native.
    """

    family: str
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    hidden_size: int
    vocab_size: int
    norm_eps: float
    context_length: int
    tied_embeddings: bool
    qk_norm: bool
    rope: Tensor | None = None

    @property
    def attention_scale(self) -> float:
        """What scores are multiplied by."""
        return float(self.head_dim**-0.5)

    @staticmethod
    def is_native(directory: Path) -> bool:
        """Whether `Decoder` computes this checkpoint exactly.

        Raises:
            DataError: `config.json` is missing or broken.
        """
        return _is_native(read_json(directory / "config.json"))

    @classmethod
    def from_directory(cls, directory: Path) -> ModelConfig:
        """Read `config.json` of a Hugging Face directory.

        Raises:
            DataError: The file is missing, broken or describes no decoder.
        """
        return cls.from_dict(read_json(directory / "config.json"), str(directory / "config.json"))

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], source: str) -> ModelConfig:
        """Read the content of a `config.json`.

        Raises:
            DataError: It describes no decoder, or one that is not native.
        """
        if not _is_native(config):
            raise DataError(f"{source} is of a family or variant that the engine does not compute itself")
        from .rope import rope_frequencies  # torch is not needed for anything else here

        try:
            family = str(config["model_type"])
            num_heads = int(config["num_attention_heads"])
            hidden_size = int(config["hidden_size"])
            head_dim = int(config.get("head_dim") or hidden_size // num_heads)
            return cls(
                family=family,
                num_layers=int(config["num_hidden_layers"]),
                num_heads=num_heads,
                num_kv_heads=int(config.get("num_key_value_heads") or num_heads),
                head_dim=head_dim,
                hidden_size=hidden_size,
                vocab_size=int(config["vocab_size"]),
                norm_eps=float(config.get("rms_norm_eps", 1e-6)),
                context_length=int(config.get("max_position_embeddings") or 2048),
                tied_embeddings=bool(config.get("tie_word_embeddings", True)),
                qk_norm=NATIVE_FAMILIES[family],
                rope=rope_frequencies(config, head_dim),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{source} does not describe a decoder: {error!r}",
                hint="give the directory of a causal language model in Hugging Face layout",
            ) from error


@dataclass(frozen=True)
class ContextLimits:
    """Limits of a model and its cache.

    Attributes:
        context_length: Maximum tokens of a sequence.
        cache_slots: Tokens that fit the cache.
        vocab_size: Tokens of the vocabulary.
        hint: What helps where the model's context is too short.
    """

    model: str
    context_length: int
    cache_slots: int
    vocab_size: int
    hint: str = "shorten the prompt or lower max_tokens"

    @property
    def max_tokens(self) -> int:
        """Maximum tokens of a prompt and its completion."""
        return min(self.context_length, self.cache_slots)

    def check_length(self, tokens: int, what: str) -> None:
        """Raises `ContextTooLong` if `what` with so many tokens does not fit."""
        if tokens <= self.max_tokens:
            return
        by_model = self.context_length <= self.cache_slots
        raise ContextTooLong(
            f"{what} need {tokens} tokens; {self.model if by_model else 'the cache'} holds {self.max_tokens}",
            tokens=tokens,
            limit=self.max_tokens,
            hint=self.hint if by_model else "give the engine a larger kv_cache_bytes",
        )

    def check_token_ids(self, token_ids: Sequence[int]) -> None:
        """Raises `UserError` if a token is not in the vocabulary."""
        bad = next((i for i in token_ids if not 0 <= i < self.vocab_size), None)
        if bad is not None:
            raise UserError(f"token {bad} is not in the vocabulary of {self.model} ({self.vocab_size} tokens)")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DataError: The file is missing or no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}", hint="is the model's directory complete?") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} is not a JSON object")
    return value


def rope_settings(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Rotary settings of a `config.json`, by the names of old and new releases of transformers."""
    rope = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    rope.setdefault("rope_theta", config.get("rope_theta", 10_000.0))
    rope.setdefault("rope_type", rope.get("type", "default"))
    return rope


def _is_native(config: Mapping[str, Any]) -> bool:
    """Whether the configuration needs no arithmetic that `Decoder` lacks."""
    rope = rope_settings(config)
    has_window = config.get("use_sliding_window", False) and config.get("sliding_window")
    return (
        config.get("model_type") in NATIVE_FAMILIES
        and rope["rope_type"] in SUPPORTED_ROPE_TYPES
        and float(rope.get("partial_rotary_factor") or 1.0) == 1.0
        and config.get("hidden_act", "silu") == "silu"
        and not config.get("mlp_bias", False)
        and not has_window
    )
