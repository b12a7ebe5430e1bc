"""What a GGUF file says about its model, as the `config.json` of Hugging Face's layout."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import gguf

from ...core.errors import DataError

_FAMILIES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}


class Metadata:
    """The file's key-value pairs, with errors that name file and key.

    Args:
        file: Name of the file, for errors.
        fields: The reader's fields.
    """

    def __init__(self, file: str, fields: Mapping[str, gguf.ReaderField]) -> None:
        self.file = file
        self._fields = fields

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, or the default where there is no such key."""
        field = self._fields.get(key)
        if field is None:
            return default
        try:
            return field.contents()
        except (UnicodeDecodeError, IndexError, ValueError) as e:
            raise DataError(f"damaged model file {self.file}: {key} is unreadable") from e

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number from 1 to 2**31 - 1; must be there if there is no default.

        Raises:
            DataError: It is missing or something else.
        """
        value = self.need(key) if default is None else self.get(key, default)
        if not isinstance(value, int) or not 1 <= value < 1 << 31:
            raise DataError(f"damaged model file {self.file}: {key} is {str(value)[:40]!r}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A positive, finite number; must be there if there is no default.

        Raises:
            DataError: It is missing or something else.
        """
        value = self.need(key) if default is None else self.get(key, default)
        if not isinstance(value, int | float) or not 0 < value < math.inf:
            raise DataError(f"damaged model file {self.file}: {key} is {str(value)[:40]!r}")
        return float(value)

    def strings(self, key: str) -> list[str]:
        """A list of texts; empty if there is no such key.

        Raises:
            DataError: It is something else.
        """
        value = self.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise DataError(f"damaged model file {self.file}: {key} is no list of texts")
        return value

    def need(self, key: str) -> Any:
        """The value of a key that must be there.

        Raises:
            DataError: There is no such key.
        """
        value = self.get(key)
        if value is None:
            raise DataError(f"damaged model file {self.file}: {key} is missing", hint="use another file of this model")
        return value


def model_config(
    metadata: Metadata,
    *,
    vocabulary: int,
    tied: bool,
    attention_bias: bool,
    rope_factors: Sequence[float] | None,
) -> dict[str, Any]:
    """The model's configuration, without token ids.

    Args:
        metadata: The file's.
        vocabulary: Rows of the embedding.
        tied: Whether embedding and output share their weights.
        attention_bias: Whether queries, keys and values have biases.
        rope_factors: What each rotary frequency is divided by, if not 1; length is half a head.

    Raises:
        DataError: The architecture or one of its variants is not supported, or a key is missing.
    """
    family = str(metadata.need("general.architecture"))
    if family not in _FAMILIES:
        raise DataError(
            f"unsupported architecture {family!r} in {metadata.file}",
            hint=f"{', '.join(_FAMILIES)} are read from GGUF; for others use the Hugging Face folder: local/<folder>",
        )
    if metadata.get(f"{family}.expert_count", 0):
        raise DataError(
            f"unsupported model {metadata.file}: it is a mixture of experts",
            hint="use the model's Hugging Face folder: local/<folder>",
        )
    hidden = metadata.integer(f"{family}.embedding_length")
    heads = metadata.integer(f"{family}.attention.head_count")
    config: dict[str, Any] = {
        "architectures": [_FAMILIES[family]],
        "model_type": family,
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": metadata.integer(f"{family}.feed_forward_length"),
        "num_hidden_layers": metadata.integer(f"{family}.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.integer(f"{family}.attention.head_count_kv", heads),
        "head_dim": metadata.integer(f"{family}.attention.key_length", max(hidden // heads, 1)),
        "hidden_act": "silu",
        "max_position_embeddings": metadata.integer(f"{family}.context_length"),
        "rms_norm_eps": _short(metadata.number(f"{family}.attention.layer_norm_rms_epsilon")),
        "rope_theta": _short(metadata.number(f"{family}.rope.freq_base", 10000.0)),
        "rope_scaling": _rope_scaling(metadata, family, rope_factors),
        "tie_word_embeddings": tied,
        "attention_bias": attention_bias,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
        "torch_dtype": "bfloat16",
    }
    if family == "llama":
        config["mlp_bias"] = False
    if config["head_dim"] % 2 or heads % config["num_key_value_heads"]:
        raise DataError(f"damaged model file {metadata.file}: its attention heads do not divide as they must")
    return config


def _rope_scaling(metadata: Metadata, family: str, factors: Sequence[float] | None) -> dict[str, Any] | None:
    kind = metadata.get(f"{family}.rope.scaling.type", "none")
    if factors is not None:
        return _llama3_scaling(metadata, family, factors)
    if kind == "none":
        return None
    factor = metadata.number(f"{family}.rope.scaling.factor", 1.0)
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        original = metadata.integer(f"{family}.rope.scaling.original_context_length")
        return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
    raise DataError(f"unsupported model {metadata.file}: rotary scaling {kind!r}")


def _llama3_scaling(metadata: Metadata, family: str, factors: Sequence[float]) -> dict[str, Any]:
    """Parameters of the Llama 3.1 scaling that give these factors; refused if none do.

    Source: the `rope_scaling` of Llama 3.1 and 3.2: bands at wavelengths 8192/1 and 8192/4 tokens, a ramp between.
    """
    theta = metadata.number(f"{family}.rope.freq_base", 10000.0)
    low, high, original = 1.0, 4.0, 8192
    scaling = {
        "rope_type": "llama3",
        "factor": max(factors),
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }
    for i, given in enumerate(factors):
        wavelength = 2 * math.pi * theta ** (i / len(factors))
        ramp = min(max((original / wavelength - low) / (high - low), 0.0), 1.0)
        expected = 1 / ((1 - ramp) / max(factors) + ramp)
        if not math.isclose(given, expected, rel_tol=1e-3):
            raise DataError(
                f"unsupported model {metadata.file}: its rotary factors follow no known rule",
                hint="use the model's Hugging Face folder: local/<folder>",
            )
    return scaling


def _short(value: float) -> float:
    """An fp32 number as the decimal that was meant: 1e-05, not 9.999999747378752e-06."""
    return float(f"{float(value):.7g}")
