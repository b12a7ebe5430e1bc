"""Relevance of a prompt's parts to a continuation: passes forward and back through the layers.

The engine's own weights are packed for speed, and their products have no gradients. So the layers are read again from
the checkpoint in fp32, one at a time, and each is computed again with a graph for the step back through it, by the
rules of AttnLRP (`with_lrp_rules`). Memory is that of one layer, the embedding, and a row of the residual stream for
each layer and token.

Plain gradient times input is a poor measure in a deep model: the norms cancel what a longer embedding would change.
On ten made-up contexts of four sentences, one of which a claim repeats, its sum names the right one in five for
SmolLM2-135M, and with the AttnLRP rules in all ten. The rules were chosen on these same ten; nothing else was measured.

Source: computing activations again on the way back, Chen, Xu, Zhang, Guestrin 2016, "Training Deep Nets with Sublinear
Memory Cost", arXiv:1604.06174; the rules, Achtibat, Hatefi, Dreyer, Jain, Wiegand, Lapuschkin, Samek 2024, "AttnLRP:
Attention-Aware Layer-Wise Relevance Propagation for Transformers", arXiv:2402.05602, section 3: the divisor of a norm
is a constant; a function of one number is the number times a constant; of a product each factor gets half; softmax and
linear maps use their gradient.
Differs: the output is the log-probability instead of the logit; there is no epsilon, since nothing is divided by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ...core.errors import UserError
from ...core.messages import Prompt, Usage
from ..model import Relevance
from .config import ModelConfig
from .model import DecoderLayer, RMSNorm, load_layer, run_layer
from .rope import RotaryEmbedding
from .tokenizer import Tokenizer
from .weights import Linear, WeightReader


@dataclass(frozen=True)
class TokenizedParts:
    """A prompt and its continuation in tokens, and the part that each token belongs to.

    Attributes:
        part_of: For each token the part it belongs to; -1 for none.
        num_parts: Number of parts.
    """

    token_ids: Sequence[int]
    num_continuation: int
    part_of: Sequence[int]
    num_parts: int


def tokenize_parts(tokenizer: Tokenizer, prompt: Prompt, parts: Sequence[str], continuation: str) -> TokenizedParts:
    """Locate the tokens of a prompt's parts (see `ExplainsTokens.relevance`).

    Raises:
        UserError: A part is missing, the prefix is no text, or there is nothing to score.
    """
    if not isinstance(prompt.prefix, str):
        raise UserError("the relevance of a prompt's parts needs a prompt whose prefix is text")
    before, after = tokenizer.continuation(prompt, continuation)
    text = tokenizer.render(prompt, "none") + prompt.prefix
    token_ids, offsets = tokenizer.encode_with_offsets(text + continuation, special=prompt.text is not None)
    if not after or not before or token_ids != [*before, *after]:
        raise UserError(f"the continuation {continuation[:40]!r} has no tokens of its own after this prompt")
    spans: list[tuple[int, int]] = []
    end = 0
    for part in parts:
        stripped = part.strip()  # chat templates strip messages
        start = text.find(stripped, end)
        if not stripped or start < 0:
            raise UserError(
                f"the part {part[:40]!r} does not appear in the prompt after the preceding part",
                hint="give the parts verbatim and in the prompt's order",
            )
        end = start + len(stripped)
        spans.append((start, end))
    part_of = _assign(offsets[: len(before)], spans) + [-1] * len(after)
    return TokenizedParts(token_ids, len(after), part_of, len(parts))


def _assign(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> list[int]:
    """For each token the span with the largest overlap, of equals the later; both are in order of the text."""
    assigned: list[int] = []
    first = 0
    for start, end in offsets:
        while first < len(spans) and spans[first][1] <= start:
            first += 1
        best, largest = -1, 0
        for i in range(first, len(spans)):
            if spans[i][0] >= end:
                break
            overlap = min(end, spans[i][1]) - max(start, spans[i][0])
            if overlap > 0 and overlap >= largest:
                best, largest = i, overlap
        assigned.append(best)
    return assigned


def explain(
    config: ModelConfig, directory: Path, parts: TokenizedParts, is_cancelled: Callable[[], bool]
) -> Relevance | None:
    """The relevance of a prompt's parts by the weights in a directory; None if it was cancelled."""
    # The engine's thread is in inference mode, in which tensors have no gradients.
    with torch.inference_mode(False), torch.enable_grad():
        try:
            work = RelevancePass(config, WeightReader(directory), is_cancelled)
            of_tokens, logprob = work.relevance(parts.token_ids, parts.num_continuation)
        except PassCancelled:
            return None
    # one more entry, the last, for tokens of no part
    part_of = torch.tensor(parts.part_of)
    part_of = torch.where(part_of < 0, parts.num_parts, part_of)
    relevance, tokens = (
        torch.zeros(parts.num_parts + 1, dtype=torch.float64).index_add_(0, part_of, values.double()).tolist()
        for values in (of_tokens, torch.ones(len(parts.token_ids)))
    )
    return Relevance(
        relevance=tuple(relevance[:-1]),
        tokens=tuple(round(n) for n in tokens[:-1]),
        rest=relevance[-1],
        logprob=logprob,
        usage=Usage(prompt_tokens=len(parts.token_ids)),
    )


class PassCancelled(Exception):
    """The pass was cancelled."""


class RelevancePass:
    """Forward and backward of one sequence.

    Args:
        weights: The checkpoint, read again in each pass.
        is_cancelled: Called before each layer.
    """

    def __init__(
        self, config: ModelConfig, weights: WeightReader, is_cancelled: Callable[[], bool] = lambda: False
    ) -> None:
        self._config, self._weights, self._is_cancelled = config, weights, is_cancelled
        self._rotary = RotaryEmbedding(config, torch.float32)
        self._norm = LRPNorm(RMSNorm(weights.tensor("model.norm.weight", torch.float32), config.norm_eps))
        self._embedding = weights.tensor("model.embed_tokens.weight", torch.float32)
        tied = config.tied_embeddings or "lm_head.weight" not in weights
        self._head = self._embedding if tied else weights.tensor("lm_head.weight", torch.float32)

    def relevance(self, token_ids: Sequence[int], num_continuation: int) -> tuple[Tensor, float]:
        """Each token's relevance by AttnLRP to the last `num_continuation` tokens, and their summed log-probability.

        Returns:
            `[tokens]`, in nats; 0 for the last token, which predicts nothing.

        Raises:
            PassCancelled: It was cancelled.
        """
        x = embedded = self._embedding[torch.tensor(token_ids[:-1])]
        inputs: list[Tensor] = []
        with torch.no_grad():
            for i in range(self._config.num_layers):
                inputs.append(x)
                x = self._run(self._load(i), x)
        x.requires_grad_()
        logits = functional.linear(self._norm(x[-num_continuation:]), self._head)
        targets = torch.tensor(token_ids[-num_continuation:])
        logprob = logits.log_softmax(-1).gather(1, targets[:, None]).sum()
        relevance = torch.autograd.grad(logprob, x)[0]
        for i in reversed(range(self._config.num_layers)):
            before = inputs.pop().requires_grad_()
            relevance = torch.autograd.grad(self._run(self._load(i), before), before, relevance)[0]
        return torch.cat([(relevance * embedded.detach()).sum(-1), torch.zeros(1)]), float(logprob.detach())

    def _load(self, index: int) -> DecoderLayer:
        if self._is_cancelled():
            raise PassCancelled
        return with_lrp_rules(load_layer(self._weights, self._config, index, "fp32", False))

    def _run(self, layer: DecoderLayer, x: Tensor) -> Tensor:
        return run_layer(layer, self._config, x, self._attend)

    def _attend(self, qkv: Tensor) -> Tensor:
        """Causal attention of one complete sequence."""
        num_heads, num_kv_heads = self._config.num_heads, self._config.num_kv_heads
        rows = qkv.shape[0]
        cos, sin = self._rotary.cos_sin(torch.arange(rows))
        rotated = self._rotary.rotate(qkv[:, : num_heads + num_kv_heads], (cos[:, None], sin[:, None]))
        # half of a product of two to each: of queries and keys, of their softmax and the values
        queries, keys = half_gradient(rotated[:, :num_heads]), half_gradient(rotated[:, num_heads:])
        mixed = functional.scaled_dot_product_attention(
            queries.transpose(0, 1)[None],
            keys.transpose(0, 1)[None],
            qkv[:, num_heads + num_kv_heads :].transpose(0, 1)[None],
            is_causal=True,
            scale=self._config.attention_scale,
            enable_gqa=True,
        )
        return half_gradient(mixed[0].transpose(0, 1).reshape(rows, num_heads * self._config.head_dim))


class _HalfGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] / 2


def half_gradient(x: Tensor) -> Tensor:
    """The same value, with half the gradient."""
    result: Tensor = _HalfGradient.apply(x)  # type: ignore[no-untyped-call]
    return result


class LRPNorm(RMSNorm):
    """A norm whose divisor is a constant."""

    def __init__(self, norm: RMSNorm) -> None:
        self._twice, self._width, self._eps = norm._twice, norm._width, norm._eps

    def __call__(self, x: Tensor) -> Tensor:
        """Norm the last dimension."""
        return x * x.detach().pow(2).mean(-1, keepdim=True).add(self._eps).rsqrt() * self._twice[: self._width]


class LRPLinear:
    """A matrix whose elementwise steps follow the rules."""

    def __init__(self, plain: Linear) -> None:
        self._plain, self.weight = plain, plain.weight

    def __call__(self, x: Tensor) -> Tensor:
        """The product."""
        return self._plain(x)

    def silu(self, x: Tensor) -> Tensor:
        """`silu(product)`."""
        product = self._plain(x)
        return product * product.detach().sigmoid()

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """`product + other`."""
        return self._plain(x) + other

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """`product * other`."""
        return half_gradient(self._plain(x) * other)


def with_lrp_rules(layer: DecoderLayer) -> DecoderLayer:
    """The layer with the rules in place of its norms' and products' gradients; attention is the caller's."""
    return replace(
        layer,
        attention_norm=LRPNorm(layer.attention_norm),
        query_norm=_lrp_norm(layer.query_norm),
        key_norm=_lrp_norm(layer.key_norm),
        mlp_norm=LRPNorm(layer.mlp_norm),
        gate=LRPLinear(layer.gate),
        up=LRPLinear(layer.up),
    )


def _lrp_norm(norm: RMSNorm | None) -> LRPNorm | None:
    return None if norm is None else LRPNorm(norm)
