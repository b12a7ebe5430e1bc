"""`Decoder`: the engine's own forward of Llama-like models. Attention is the plan's business.

`Forward`: what the scheduler needs of a model, whoever computes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from .attention import LogPlan, Plan, Span
from .config import ModelShape
from .kv_cache import KVLog
from .rope import Rotary
from .shared_cache import Block
from .weights import PROCESSOR, Checkpoint, Linear, WeightFormat, can_prepack, dtype_of, make_linear, require_int4


class Norm:
    """Root-mean-square norm.

    Source: Zhang and Sennrich 2019, equation 4. Differs: computed as the layer norm of the row beside its negative,
    whose mean is zero and whose variance is the mean square; torch has one kernel for that and five for this.
    """

    def __init__(self, weight: Tensor, eps: float) -> None:
        self._twice = torch.cat([weight, weight])
        self._width, self._eps = weight.shape[0], eps

    def __call__(self, x: Tensor) -> Tensor:
        """Norm the last dimension."""
        both = functional.layer_norm(torch.cat([x, -x], -1), (2 * self._width,), self._twice, None, self._eps)
        return both[..., : self._width]


@dataclass(frozen=True)
class Layer:
    """Weights of one layer; query and key norms are there in Qwen3 alone."""

    attention_norm: Norm
    qkv: Linear
    query_norm: Norm | None
    key_norm: Norm | None
    output: Linear
    feed_norm: Norm
    gate: Linear
    up: Linear
    down: Linear


class Decoder:
    """A decoder in one number format.

    Args:
        shape: Sizes; `shape.own` must hold.
        checkpoint: The weights, and where they go.
        weight_format: "fp32", "bf16" or, on a CPU, "int4" (bf16 with 4-bit matrices in the layers).

    Attributes:
        shape: As given.
        weight_format: As given.
        dtype: Number format of what flows between matrices, and of keys and values.
        rotary: Its rotation.

    Raises:
        CapabilityMissing: The format cannot be computed there.
    """

    def __init__(self, shape: ModelShape, checkpoint: Checkpoint, weight_format: WeightFormat) -> None:
        if weight_format == "int4":
            require_int4(checkpoint.device)
        self.shape = shape
        self.weight_format = weight_format
        self.dtype = dtype_of(weight_format)
        self._prepack = can_prepack(self.dtype, checkpoint.device)
        self.rotary = Rotary(shape, self.dtype, checkpoint.device)
        self._embedding = checkpoint.tensor("model.embed_tokens.weight", self.dtype)
        self._layers = [read_layer(checkpoint, shape, i, weight_format, self._prepack) for i in range(shape.layers)]
        self._norm = Norm(checkpoint.tensor("model.norm.weight", self.dtype), shape.norm_eps)
        tied = shape.tied or "lm_head.weight" not in checkpoint
        head = self._embedding if tied else checkpoint.tensor("lm_head.weight", self.dtype)
        # The output matrix is never rounded to 4 bits: on SmolLM2-135M that alone costs 0.06 nats, the rest 0.001.
        self._head = make_linear(head, None, "bf16" if weight_format == "int4" else weight_format, self._prepack)

    @classmethod
    def load(cls, folder: Path, weight_format: WeightFormat, device: torch.device = PROCESSOR) -> Decoder:
        """Read a Hugging Face folder."""
        return cls(ModelShape.read(folder), Checkpoint(folder, device), weight_format)

    def open_log(self, capacity: int) -> KVLog:
        """An empty log."""
        shape = self.shape
        return KVLog(shape.layers, shape.kv_heads, shape.head_dim, self.dtype, capacity, self.device)

    def open_block(self, tokens: int = 0) -> Block:
        """An empty block of a cache that workers share, with room for `tokens`."""
        shape = self.shape
        return Block(shape.layers, shape.kv_heads, shape.head_dim, self.dtype, self.device, tokens)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._embedding.device

    @property
    def steady(self) -> bool:
        """On a CPU: its products and attention give a row the same bits beside any others (`plans.missing_rows`)."""
        return self.device.type == "cpu"

    @property
    def column_bytes(self) -> int:
        """Bytes of keys and values of one token in all layers."""
        return 2 * self.shape.layers * self.shape.kv_heads * self.shape.head_dim * self.dtype.itemsize

    def close(self) -> None:
        """See `Forward.close`."""
        for weights in ("_embedding", "_layers", "_norm", "_head"):
            self.__dict__.pop(weights, None)

    def run(self, spans: Sequence[Span]) -> Tensor:
        """Write the spans into their logs and return fp32 logits `[wanted, vocab]` (see `Forward.run`)."""
        ids: list[int] = []
        wanted: list[int] = []
        row = 0
        for span in spans:
            ids.extend(span.ids)
            wanted.extend([row + w for w in span.wanted])
            row += len(span.ids)
        return self.compute(ids, LogPlan(self.shape, self.rotary, spans), wanted)

    def compute(self, ids: Sequence[int], plan: Plan, wanted: Sequence[int]) -> Tensor:
        """One forward over rows of tokens.

        Args:
            ids: Token of each row.
            plan: Knows each row's sequence and position.
            wanted: Rows whose logits are wanted.

        Returns:
            `[wanted, vocab]`, fp32, on the model's device.
        """
        x = self._embedding[torch.tensor(ids, device=self.device)]
        for i, layer in enumerate(self._layers):
            x = run_layer(layer, self.shape, x, partial(plan.attend, i))
        if not wanted:
            return torch.empty(0, self.shape.vocab, device=self.device)
        if len(wanted) < len(ids):
            x = x[torch.tensor(wanted, device=self.device)]
        return self._head(self._norm(x)).float()


def read_layer(
    checkpoint: Checkpoint, shape: ModelShape, number: int, weight_format: WeightFormat, prepack: bool
) -> Layer:
    """Read the weights of one layer.

    Args:
        checkpoint: The weights.
        shape: Sizes.
        number: The layer, from 0.
        weight_format: Format of its matrices.
        prepack: Whether oneDNN's prepacked product is to be used; it knows no gradients.
    """
    prefix = f"model.layers.{number}."
    attention = prefix + "self_attn."
    dtype = dtype_of(weight_format)

    def read(name: str) -> Tensor:
        return checkpoint.tensor(name, dtype)

    def norm(name: str) -> Norm:
        return Norm(read(name), shape.norm_eps)

    def linear(name: str) -> Linear:
        bias = read(name + ".bias") if name + ".bias" in checkpoint else None
        return make_linear(read(name + ".weight"), bias, weight_format, prepack)

    biased = attention + "q_proj.bias" in checkpoint
    fused = torch.cat([read(f"{attention}{x}_proj.weight") for x in "qkv"])
    bias = torch.cat([read(f"{attention}{x}_proj.bias") for x in "qkv"]) if biased else None
    return Layer(
        attention_norm=norm(prefix + "input_layernorm.weight"),
        qkv=make_linear(fused, bias, weight_format, prepack),
        query_norm=norm(attention + "q_norm.weight") if shape.qk_norm else None,
        key_norm=norm(attention + "k_norm.weight") if shape.qk_norm else None,
        output=linear(attention + "o_proj"),
        feed_norm=norm(prefix + "post_attention_layernorm.weight"),
        gate=linear(prefix + "mlp.gate_proj"),
        up=linear(prefix + "mlp.up_proj"),
        down=linear(prefix + "mlp.down_proj"),
    )


def run_layer(layer: Layer, shape: ModelShape, x: Tensor, attend: Callable[[Tensor], Tensor]) -> Tensor:
    """One layer over rows of tokens.

    Args:
        layer: Its weights.
        shape: Sizes.
        x: `[rows, hidden]`.
        attend: Takes `[rows, heads + 2 * kv_heads, head_dim]`, gives `[rows, heads * head_dim]` (see `Plan.attend`).

    Returns:
        `[rows, hidden]`.
    """
    qkv = layer.qkv(layer.attention_norm(x)).view(x.shape[0], shape.heads + 2 * shape.kv_heads, shape.head_dim)
    if layer.query_norm is not None and layer.key_norm is not None:
        at, end = shape.heads, shape.heads + shape.kv_heads
        qkv = torch.cat([layer.query_norm(qkv[:, :at]), layer.key_norm(qkv[:, at:end]), qkv[:, end:]], 1)
    x = layer.output.plus(attend(qkv), x)
    h = layer.feed_norm(x)
    return layer.down.plus(layer.up.times(h, layer.gate.silu(h)), x)


class Forward(Protocol):
    """A decoder that runs spans over logs.

    Attributes:
        shape: Sizes of the model.
    """

    shape: ModelShape

    def open_log(self, capacity: int) -> KVLog:
        """An empty log with room for `capacity` columns."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    @property
    def steady(self) -> bool:
        """Whether a token's logits have the same bits whatever else a step computes and a log has room for."""

    @property
    def column_bytes(self) -> int:
        """Bytes of one column of a log."""

    def run(self, spans: Sequence[Span]) -> Tensor:
        """Write the spans into their logs and return logits.

        Args:
            spans: New tokens, those of one log side by side; the logs have room for them.

        Returns:
            Logits `[wanted, vocab]`, fp32, on its device: the wanted positions of the spans, in order.
        """

    def close(self) -> None:
        """Free the weights, whoever still holds this: nothing can be computed afterwards. Idempotent."""
