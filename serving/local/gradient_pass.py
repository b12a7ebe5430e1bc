"""`GradientPass`: what the tokens before a continuation add to its log-probability, by passes back through the layers.

The engine's own weights are packed for speed, and their products know no gradients. So the layers are read again from
the checkpoint in fp32, one at a time, and each is computed again with a graph for the step back through it: once for
the gradient and once for the relevance (`relevance_rules`). Memory is that of one layer, the embedding, and a row of
the residual stream for each layer and token.

Source: gradient times input, Shrikumar, Greenside, Shcherbina, Kundaje 2016, "Not Just a Black Box: Learning Important
Features Through Propagating Activation Differences", arXiv:1605.01713, section 2; computing activations again on the
way back is Chen, Xu, Zhang, Guestrin 2016, "Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from .families import ModelShape
from .model import Layer, Norm, read_layer, run_layer
from .relevance_rules import RuledNorm, half, with_rules
from .rotary import Rotary
from .weights import Checkpoint

Watch = Callable[[Tensor, Tensor], None]
"""Hears the turned queries `[heads, rows, head_dim]` and keys of a layer."""


class Explained(NamedTuple):
    """What a pass has found, in the CPU's memory.

    Attributes:
        relevance: `[tokens]`, each token's relevance by AttnLRP, in nats; 0 for the last, which nothing follows.
        gradient: `[tokens]`, likewise gradient times input.
        attention: `[tokens]`, share of attention that each token gets from the positions that foretell the
            continuation, mean over heads and layers; sums to 1.
        logprob: Summed log-probability of the continuation, in nats.
    """

    relevance: Tensor
    gradient: Tensor
    attention: Tensor
    logprob: float


class Dropped(Exception):
    """Nobody waits for the result any more."""


class GradientPass:
    """Forward and backward of one sequence.

    Args:
        shape: Sizes; `shape.own` must hold.
        checkpoint: The weights, read anew in each pass, and where it is computed.
        dropped: Asked before each layer whether the pass may be given up.
    """

    def __init__(self, shape: ModelShape, checkpoint: Checkpoint, dropped: Callable[[], bool] = lambda: False) -> None:
        self._shape, self._checkpoint, self._dropped = shape, checkpoint, dropped
        self._device = checkpoint.device
        self._rotary = Rotary(shape, torch.float32, checkpoint.device)
        self._norm = Norm(checkpoint.tensor("model.norm.weight", torch.float32), shape.norm_eps)
        self._embedding = checkpoint.tensor("model.embed_tokens.weight", torch.float32)
        tied = shape.tied or "lm_head.weight" not in checkpoint
        self._head = self._embedding if tied else checkpoint.tensor("lm_head.weight", torch.float32)

    def explain(self, ids: Sequence[int], count: int) -> Explained:
        """Relevance and gradient of each token, and where the model looked.

        Args:
            ids: Tokens of prompt and continuation.
            count: Tokens of the continuation, at least 1 and fewer than all.

        Raises:
            Dropped: It was given up.
        """
        attention = torch.zeros(len(ids), device=self._device)

        def watch(queries: Tensor, keys: Tensor) -> None:
            attention[:-1] += self._looks(queries, keys, count)

        x = embedded = self._embed(ids)
        inputs: list[Tensor] = []
        with torch.no_grad():
            for i in range(self._shape.layers):
                inputs.append(x)
                x = self._run(self._read(i), x, watch=watch)
        logprob, gradient = self._start(x, ids, count, self._norm)
        _, relevance = self._start(x, ids, count, RuledNorm(self._norm))
        for i in reversed(range(self._shape.layers)):
            layer, before = self._read(i), inputs.pop()
            gradient = self._back(layer, before, gradient)
            relevance = self._back(with_rules(layer), before, relevance, ruled=True)
        nothing = torch.zeros(1)
        return Explained(
            relevance=torch.cat([(relevance * embedded).sum(-1).cpu(), nothing]),
            gradient=torch.cat([(gradient * embedded).sum(-1).cpu(), nothing]),
            attention=attention.cpu() / self._shape.layers,
            logprob=logprob,
        )

    @torch.no_grad()
    def logprob(self, ids: Sequence[int], count: int, scale: Tensor | None = None) -> float:
        """Summed log-probability of the last `count` tokens, in nats: what `explain` derives.

        Args:
            ids: Tokens of prompt and continuation.
            count: Tokens of the continuation.
            scale: `[tokens - 1]`, what each token's embedding is multiplied by; None is 1. The derivative by it, at 1,
                is gradient times input.
        """
        x = self._embed(ids)
        if scale is not None:
            x = x * scale[:, None]
        for i in range(self._shape.layers):
            x = self._run(self._read(i), x)
        return float(self._summed(x, ids, count, self._norm))

    def _embed(self, ids: Sequence[int]) -> Tensor:
        """All tokens but the last, which nothing follows."""
        return self._embedding[torch.tensor(ids[:-1], device=self._device)]

    def _read(self, number: int) -> Layer:
        if self._dropped():
            raise Dropped
        return read_layer(self._checkpoint, self._shape, number, "fp32", False)

    def _run(self, layer: Layer, x: Tensor, *, ruled: bool = False, watch: Watch | None = None) -> Tensor:
        return run_layer(layer, self._shape, x, lambda qkv: self._attend(qkv, ruled, watch))

    def _start(self, x: Tensor, ids: Sequence[int], count: int, norm: Norm) -> tuple[float, Tensor]:
        """The log-probability, and what goes back into the last layer."""
        x = x.detach().requires_grad_()
        logprob = self._summed(x, ids, count, norm)
        return float(logprob.detach()), torch.autograd.grad(logprob, x)[0]

    def _back(self, layer: Layer, before: Tensor, after: Tensor, *, ruled: bool = False) -> Tensor:
        """What goes back through a layer."""
        before = before.detach().requires_grad_()
        return torch.autograd.grad(self._run(layer, before, ruled=ruled), before, after)[0]

    def _attend(self, qkv: Tensor, ruled: bool, watch: Watch | None) -> Tensor:
        """Causal attention of one sequence from its beginning."""
        heads, kv_heads = self._shape.heads, self._shape.kv_heads
        rows = qkv.shape[0]
        cos, sin = self._rotary.turn(torch.arange(rows))
        tables = cos[:, None], sin[:, None]
        queries = self._rotary.rotate(qkv[:, :heads], tables).transpose(0, 1)
        keys = self._rotary.rotate(qkv[:, heads : heads + kv_heads], tables).transpose(0, 1)
        values = qkv[:, heads + kv_heads :].transpose(0, 1)
        keys, values = (t.repeat_interleave(heads // kv_heads, 0) for t in (keys, values))
        if watch is not None:
            watch(queries, keys)
        if ruled:  # half of a product of two to each: of queries with keys, of what comes of them with values
            queries, keys = half(queries), half(keys)
        mixed = functional.scaled_dot_product_attention(queries[None], keys[None], values[None], is_causal=True)
        mixed = mixed[0].transpose(0, 1).reshape(rows, heads * self._shape.head_dim)
        return half(mixed) if ruled else mixed

    def _looks(self, queries: Tensor, keys: Tensor, count: int) -> Tensor:
        """`[rows]`: the attention that each row gets from the last `count` rows, mean over heads and these."""
        rows = keys.shape[1]
        scores = queries[:, -count:] @ keys.transpose(1, 2) * self._shape.head_dim**-0.5
        later = torch.ones(count, rows, dtype=torch.bool, device=keys.device).triu_(rows - count + 1)
        shares: Tensor = scores.masked_fill(later, float("-inf")).softmax(-1)
        return shares.mean((0, 1))

    def _summed(self, x: Tensor, ids: Sequence[int], count: int, norm: Norm) -> Tensor:
        logits = functional.linear(norm(x[-count:]), self._head)
        wanted = torch.tensor(ids[-count:], device=self._device)
        return logits.log_softmax(-1).gather(1, wanted[:, None]).sum()
