"""`CausalLM`, what the scheduler needs of a model, and `Decoder`, the engine's own forward of Llama-like models."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from .attention import Attention, CacheAttention, TokenChunk
from .config import ModelConfig
from .kv_cache import KVCache
from .rope import RotaryEmbedding
from .shared_cache import CacheBlock
from .weights import (
    MAX_INVARIANT_ROWS,
    Linear,
    WeightFormat,
    WeightReader,
    can_prepack,
    dtype_of,
    has_amx,
    make_linear,
    require_int4,
)


class CausalLM(Protocol):
    """A decoder that computes token chunks over KV caches."""

    config: ModelConfig

    def new_kv_cache(self, capacity: int) -> KVCache:
        """An empty cache of `capacity` slots."""

    @property
    def max_invariant_rows(self) -> int:
        """Rows of a step up to which a token's logits have the same bits in any step and any capacity of the cache.

        Zero where nothing is guaranteed.
        """

    @property
    def slot_bytes(self) -> int:
        """Bytes of one slot of a cache: keys and values of one token in all layers."""

    def forward(self, chunks: Sequence[TokenChunk]) -> Tensor:
        """Write keys and values of the chunks into their caches and return logits.

        Args:
            chunks: New tokens, those of one cache adjacent; the caches have the capacity.

        Returns:
            Logits `[requested, vocab_size]`, fp32: those of the chunks' `logit_indices`, in order.
        """

    def close(self) -> None:
        """Free the weights, whatever still refers to the model; it cannot compute afterwards. Idempotent."""


class RMSNorm:
    """Root-mean-square norm.

    Source: Zhang and Sennrich 2019, equation 4. Differs: computed as the layer norm of the row concatenated with its
    negative, whose mean is zero and whose variance is the mean square; torch has one kernel for that and five for this.
    """

    def __init__(self, weight: Tensor, eps: float) -> None:
        self._twice = torch.cat([weight, weight])
        self._width, self._eps = weight.shape[0], eps

    def __call__(self, x: Tensor) -> Tensor:
        """Norm the last dimension."""
        both = functional.layer_norm(torch.cat([x, -x], -1), (2 * self._width,), self._twice, None, self._eps)
        return both[..., : self._width]


@dataclass(frozen=True)
class DecoderLayer:
    """Weights of one layer.

    Attributes:
        query_norm: Norm of each query head, where the family has one; likewise `key_norm`.
    """

    attention_norm: RMSNorm
    qkv: Linear
    query_norm: RMSNorm | None
    key_norm: RMSNorm | None
    output: Linear
    mlp_norm: RMSNorm
    gate: Linear
    up: Linear
    down: Linear


class Decoder:
    """A decoder in one number format.

    Args:
        weight_format: "fp32", "bf16" or "int4" (bf16 with 4-bit matrices in the layers).

    Attributes:
        dtype: Number format of what flows between matrices, and of keys and values.

    Raises:
        CapabilityMissing: This torch cannot compute the format.
    """

    def __init__(self, config: ModelConfig, weights: WeightReader, weight_format: WeightFormat) -> None:
        if weight_format == "int4":
            require_int4()
        self.config = config
        self.weight_format = weight_format
        self.dtype = dtype_of(weight_format)
        prepack = can_prepack(self.dtype)
        self.rotary = RotaryEmbedding(config, self.dtype)
        self._embedding = weights.tensor("model.embed_tokens.weight", self.dtype)
        self._layers = [load_layer(weights, config, i, weight_format, prepack) for i in range(config.num_layers)]
        self._norm = RMSNorm(weights.tensor("model.norm.weight", self.dtype), config.norm_eps)
        tied = config.tied_embeddings or "lm_head.weight" not in weights
        head = self._embedding if tied else weights.tensor("lm_head.weight", self.dtype)
        # The output matrix is never rounded to 4 bits: on SmolLM2-135M that costs 0.06 nats, all the rest 0.001.
        self._head = make_linear(head, None, "bf16" if weight_format == "int4" else weight_format, prepack)

    @classmethod
    def load(cls, directory: Path, weight_format: WeightFormat) -> Decoder:
        """Read a Hugging Face directory."""
        return cls(ModelConfig.from_directory(directory), WeightReader(directory), weight_format)

    def new_kv_cache(self, capacity: int) -> KVCache:
        config = self.config
        return KVCache(config.num_layers, config.num_kv_heads, config.head_dim, self.dtype, capacity)

    def new_block(self, tokens: int = 0) -> CacheBlock:
        """An empty block of a cache that workers share, with a capacity of `tokens`."""
        config = self.config
        return CacheBlock(config.num_layers, config.num_kv_heads, config.head_dim, self.dtype, tokens)

    @property
    def max_invariant_rows(self) -> int:
        """Without AMX all: products and attention give a row the same bits in any batch."""
        return MAX_INVARIANT_ROWS if self.dtype is torch.bfloat16 and has_amx() else sys.maxsize

    @property
    def slot_bytes(self) -> int:
        """Bytes of keys and values of one token in all layers."""
        return 2 * self.config.num_layers * self.config.num_kv_heads * self.config.head_dim * self.dtype.itemsize

    def close(self) -> None:
        for attribute in ("_embedding", "_layers", "_norm", "_head"):
            self.__dict__.pop(attribute, None)

    def forward(self, chunks: Sequence[TokenChunk]) -> Tensor:
        token_ids: list[int] = []
        logit_rows: list[int] = []
        for chunk in chunks:
            logit_rows.extend([len(token_ids) + i for i in chunk.logit_indices])
            token_ids.extend(chunk.token_ids)
        return self.forward_rows(token_ids, CacheAttention(self.config, self.rotary, chunks), logit_rows)

    def forward_rows(self, token_ids: Sequence[int], attention: Attention, logit_rows: Sequence[int]) -> Tensor:
        """One forward over rows of tokens.

        Args:
            attention: Knows each row's sequence and position.

        Returns:
            `[logit_rows, vocab_size]`, fp32.
        """
        x = self._embedding[torch.tensor(token_ids)]
        for i, layer in enumerate(self._layers):
            x = run_layer(layer, self.config, x, partial(attention.attend, i))
        if not logit_rows:
            return torch.empty(0, self.config.vocab_size)
        if len(logit_rows) < len(token_ids):
            x = x[torch.tensor(logit_rows)]
        return self._head(self._norm(x)).float()


def load_layer(
    weights: WeightReader, config: ModelConfig, index: int, weight_format: WeightFormat, prepack: bool
) -> DecoderLayer:
    """Read the weights of layer `index`; `prepack` uses oneDNN's prepacked product, which has no gradients."""
    prefix = f"model.layers.{index}."
    attention = prefix + "self_attn."
    dtype = dtype_of(weight_format)

    def read(name: str) -> Tensor:
        return weights.tensor(name, dtype)

    def norm(name: str) -> RMSNorm:
        return RMSNorm(weights.tensor(name, dtype), config.norm_eps)

    def linear(name: str) -> Linear:
        bias = read(name + ".bias") if name + ".bias" in weights else None
        return make_linear(read(name + ".weight"), bias, weight_format, prepack)

    has_bias = attention + "q_proj.bias" in weights
    fused = torch.cat([read(f"{attention}{x}_proj.weight") for x in "qkv"])
    bias = torch.cat([read(f"{attention}{x}_proj.bias") for x in "qkv"]) if has_bias else None
    return DecoderLayer(
        attention_norm=norm(prefix + "input_layernorm.weight"),
        qkv=make_linear(fused, bias, weight_format, prepack),
        query_norm=norm(attention + "q_norm.weight") if config.qk_norm else None,
        key_norm=norm(attention + "k_norm.weight") if config.qk_norm else None,
        output=linear(attention + "o_proj"),
        mlp_norm=norm(prefix + "post_attention_layernorm.weight"),
        gate=linear(prefix + "mlp.gate_proj"),
        up=linear(prefix + "mlp.up_proj"),
        down=linear(prefix + "mlp.down_proj"),
    )


def run_layer(layer: DecoderLayer, config: ModelConfig, x: Tensor, attend: Callable[[Tensor], Tensor]) -> Tensor:
    """One layer over rows of tokens.

    Args:
        x: `[rows, hidden_size]`.
        attend: Takes `[rows, num_heads + 2 * num_kv_heads, head_dim]`, gives `[rows, num_heads * head_dim]` (see
            `Attention.attend`).

    Returns:
        `[rows, hidden_size]`.
    """
    num_heads, num_kv_heads = config.num_heads, config.num_kv_heads
    qkv = layer.qkv(layer.attention_norm(x)).view(x.shape[0], num_heads + 2 * num_kv_heads, config.head_dim)
    if layer.query_norm is not None and layer.key_norm is not None:
        start, end = num_heads, num_heads + num_kv_heads
        qkv = torch.cat([layer.query_norm(qkv[:, :start]), layer.key_norm(qkv[:, start:end]), qkv[:, end:]], 1)
    attended = attend(qkv)
    x = layer.output.plus(attended, x)
    h = layer.mlp_norm(x)
    return layer.down.plus(layer.up.times(h, layer.gate.silu(h)), x)
