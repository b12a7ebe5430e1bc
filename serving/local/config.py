"""What a checkpoint is: its sizes, read from `config.json`, and the limits of an engine that runs it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ...core.errors import ContextTooLong, DataError, UserError

if TYPE_CHECKING:
    from .rope import RopeFrequencies

LayerType = Literal["full", "sliding", "nope"]
"""How a layer attends: to all positions, to the last ones (a sliding window), or to all without rotating them."""


@dataclass(frozen=True)
class Family:
    """What a family of decoders has in common.

    Attributes:
        rope_theta: Base of the rotary frequencies where the configuration has none.
        qk_norm: Whether queries and keys are normed per head.
        is_gemma: Whether it computes as Gemma 3 does: a scaled embedding, norms before and after attention and MLP,
            whose weights are stored less one, and a gated GELU.
    """

    rope_theta: float = 10_000.0
    qk_norm: bool = False
    is_gemma: bool = False


NATIVE_FAMILIES: Mapping[str, Family] = {
    "llama": Family(),
    "qwen2": Family(),
    "qwen3": Family(qk_norm=True),
    "smollm3": Family(rope_theta=2_000_000.0),
    "gemma3_text": Family(rope_theta=1_000_000.0, qk_norm=True, is_gemma=True),
}
"""Model types that `Decoder` computes itself."""
SUPPORTED_ROPE_TYPES = ("default", "linear", "llama3", "yarn")
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
        rope: Rotary frequencies; None where the family is not native.
        local_rope: Those of sliding layers, where these have others.
        sliding_window: Positions that a token of a sliding layer attends to, its own included.
        layer_types: How each layer attends; empty where all attend to all positions.
        is_gemma: See `Family`.
        attention_scale: What scores are multiplied by; 0 is the inverse square root of `head_dim`.
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
    rope: RopeFrequencies | None = None
    local_rope: RopeFrequencies | None = None
    sliding_window: int = 0
    layer_types: tuple[LayerType, ...] = ()
    is_gemma: bool = False
    attention_scale: float = 0.0

    def __post_init__(self) -> None:
        if not self.layer_types:
            object.__setattr__(self, "layer_types", ("full",) * self.num_layers)
        if not self.attention_scale:
            object.__setattr__(self, "attention_scale", self.head_dim**-0.5)

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
            layer_types = _layer_types(config)
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
                qk_norm=NATIVE_FAMILIES[family].qk_norm,
                rope=rope_frequencies(config, head_dim),
                local_rope=rope_frequencies(config, head_dim, "sliding") if "sliding" in layer_types else None,
                sliding_window=int(config["sliding_window"]) if "sliding" in layer_types else 0,
                layer_types=layer_types,
                is_gemma=NATIVE_FAMILIES[family].is_gemma,
                attention_scale=float(config.get("query_pre_attn_scalar") or head_dim) ** -0.5,
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


def rope_settings(config: Mapping[str, Any], layer_type: LayerType = "full") -> Mapping[str, Any]:
    """Rotary settings of a `config.json` for layers of a type, by the names of old and new releases of transformers."""
    given = dict(config.get("rope_parameters") or {})
    # Families with a rotation for each type of layer nest them; in old releases, scaling is for the full layers only.
    nested = {key: value for key, value in given.items() if isinstance(value, Mapping)}
    if nested:
        rope = dict(nested.get(f"{layer_type}_attention") or {})
    elif layer_type == "sliding" and "rope_local_base_freq" in config:
        rope = {"rope_theta": config["rope_local_base_freq"]}
    else:
        rope = dict(config.get("rope_scaling") or {}) | given
    family = NATIVE_FAMILIES.get(str(config.get("model_type")), Family())
    rope.setdefault("rope_theta", config.get("rope_theta", family.rope_theta))
    rope.setdefault("rope_type", rope.get("type", "default"))
    return rope


def is_supported_rope(config: Mapping[str, Any]) -> bool:
    """Whether every pair of a head is rotated by an angle that depends on the position only and is implemented here."""
    settings = [rope_settings(config), rope_settings(config, "sliding")]
    return all(
        rope["rope_type"] in SUPPORTED_ROPE_TYPES and float(rope.get("partial_rotary_factor") or 1.0) == 1.0
        for rope in settings
    )


def _is_native(config: Mapping[str, Any]) -> bool:
    """Whether the configuration needs no arithmetic that `Decoder` lacks."""
    family = NATIVE_FAMILIES.get(str(config.get("model_type")))
    if family is None or not is_supported_rope(config) or config.get("mlp_bias", False):
        return False
    if family.is_gemma:
        unsupported = ("attn_logit_softcapping", "final_logit_softcapping", "use_bidirectional_attention")
        is_gelu = config.get("hidden_activation", "gelu_pytorch_tanh") == "gelu_pytorch_tanh"
        return is_gelu and not any(config.get(key) for key in unsupported)
    is_sliding = config.get("use_sliding_window", False) and config.get("sliding_window")
    is_known = not is_sliding or config["model_type"] in ("qwen2", "qwen3")
    return config.get("hidden_act", "silu") == "silu" and is_known


def _layer_types(config: Mapping[str, Any]) -> tuple[LayerType, ...]:
    """How each layer attends, by transformers' names and defaults; empty where all attend to all positions."""
    family, layers = str(config["model_type"]), range(int(config["num_hidden_layers"]))
    if family == "smollm3":
        interval = int(config.get("no_rope_layer_interval") or 4)
        rotated = config.get("no_rope_layers") or [(i + 1) % interval for i in layers]
        return tuple("full" if rotated[i] else "nope" for i in layers)
    is_gemma = NATIVE_FAMILIES[family].is_gemma
    uses_window = config.get("sliding_window") and (is_gemma or config.get("use_sliding_window", False))
    if not uses_window:
        return ()
    full, sliding = "full_attention", "sliding_attention"
    names: dict[str, LayerType] = {full: "full", sliding: "sliding"}
    given = config.get("layer_types")
    if not given and is_gemma:
        pattern = int(config.get("sliding_window_pattern") or 6)
        given = [sliding if (i + 1) % pattern else full for i in layers]
    elif not given:
        first = int(config.get("max_window_layers", 28))
        given = [sliding if i >= first else full for i in layers]
    return tuple(names[given[i]] for i in layers)
