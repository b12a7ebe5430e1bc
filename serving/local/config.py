"""What a checkpoint is: its shape, read from `config.json`, and whether the engine's own forward knows its family.

`Bounds`: what fits an engine, checked before any work.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import ContextTooLong, DataError, UserError
from .rope import Frequencies, frequencies, is_fixed

OWN_FAMILIES: Mapping[str, bool] = {"llama": False, "qwen2": False, "qwen3": True}
"""Model types that `Decoder` computes itself, and whether their queries and keys are normed per head."""


@dataclass(frozen=True)
class ModelShape:
    """Sizes and switches of a decoder.

    Attributes:
        family: `model_type` of the configuration.
        layers: Number of layers.
        heads: Query heads.
        kv_heads: Key/value heads; each serves `heads // kv_heads` query heads.
        head_dim: Width of a head.
        hidden: Width of the residual stream.
        vocab: Rows of the output matrix.
        norm_eps: Epsilon of the root-mean-square norms.
        context: Most tokens of a sequence.
        tied: Whether the output matrix is the embedding.
        qk_norm: Whether queries and keys are normed per head.
        frequencies: What positions turn queries and keys by; None where the family is not ours.
    """

    family: str
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    vocab: int
    norm_eps: float
    context: int
    tied: bool
    qk_norm: bool
    frequencies: Frequencies | None = None

    @staticmethod
    def is_ours(folder: Path) -> bool:
        """Whether `Decoder` computes this checkpoint exactly.

        Raises:
            DataError: `config.json` is missing or broken.
        """
        return _is_ours(read_json(folder / "config.json"))

    @classmethod
    def read(cls, folder: Path) -> ModelShape:
        """Read `config.json` of a Hugging Face folder.

        Raises:
            DataError: The file is missing, broken or no decoder's.
        """
        return cls.of(read_json(folder / "config.json"), str(folder / "config.json"))

    @classmethod
    def of(cls, config: Mapping[str, Any], where: str) -> ModelShape:
        """The shape that a configuration describes.

        Args:
            config: What stands in `config.json`.
            where: Where it is from, for messages.

        Raises:
            DataError: It is no decoder's, or of one that is not ours.
        """
        if not _is_ours(config):
            raise DataError(f"{where} is of a family or variant that the engine does not compute itself")
        try:
            family = str(config["model_type"])
            heads = int(config["num_attention_heads"])
            hidden = int(config["hidden_size"])
            head_dim = int(config.get("head_dim") or hidden // heads)
            return cls(
                family=family,
                layers=int(config["num_hidden_layers"]),
                heads=heads,
                kv_heads=int(config.get("num_key_value_heads") or heads),
                head_dim=head_dim,
                hidden=hidden,
                vocab=int(config["vocab_size"]),
                norm_eps=float(config.get("rms_norm_eps", 1e-6)),
                context=_context(config),
                tied=bool(config.get("tie_word_embeddings", True)),
                qk_norm=OWN_FAMILIES[family],
                frequencies=frequencies(config, head_dim),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{where} does not describe a decoder: {error!r}",
                hint="give the folder of a causal language model in Hugging Face layout",
            ) from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DataError: The file is missing or no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}", hint="is the model's folder complete?") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} is not a JSON object")
    return value


def _is_ours(config: Mapping[str, Any]) -> bool:
    """Whether nothing in the configuration asks for arithmetic that `Decoder` does not have."""
    sliding = config.get("use_sliding_window", False) and config.get("sliding_window")
    return (
        config.get("model_type") in OWN_FAMILIES
        and config.get("hidden_act", "silu") == "silu"
        and is_fixed(config)
        and not sliding
        and not config.get("mlp_bias", False)
    )


def _context(config: Mapping[str, Any]) -> int:
    """Longest sequence: a sliding window ends it too, since every position is attended to here."""
    longest = int(config.get("max_position_embeddings") or config.get("n_positions") or 2048)
    window = config.get("sliding_window")
    if isinstance(window, int) and window > 0 and config.get("use_sliding_window", True):
        return min(longest, window)
    return longest


@dataclass(frozen=True)
class Bounds:
    """What a model and its cache hold.

    Attributes:
        model: Name of the model.
        context: Tokens the model holds.
        columns: Tokens the cache holds.
        vocab: Tokens of the vocabulary.
    """

    model: str
    context: int
    columns: int
    vocab: int

    @property
    def tokens(self) -> int:
        """Most tokens of a prompt and its completion."""
        return min(self.context, self.columns)

    def check_length(self, tokens: int, what: str) -> None:
        """Raises `ContextTooLong` if so many tokens do not fit.

        Args:
            tokens: Tokens needed.
            what: What needs them, for the message.
        """
        if tokens <= self.tokens:
            return
        model_is_less = self.context <= self.columns
        raise ContextTooLong(
            f"{what} need {tokens} tokens; {self.model if model_is_less else 'the cache'} holds {self.tokens}",
            tokens=tokens,
            limit=self.tokens,
            hint="shorten the prompt or lower max_tokens" if model_is_less else "give the engine a larger kv_bytes",
        )

    def check_ids(self, ids: Sequence[int]) -> None:
        """Raises `UserError` if a token is not in the vocabulary."""
        bad = next((i for i in ids if not 0 <= i < self.vocab), None)
        if bad is not None:
            raise UserError(f"token {bad} is not in the vocabulary of {self.model} ({self.vocab} tokens)")
