"""Relevance of a prompt's parts to a continuation: passes forward and back through the layers.

The engine's own weights are packed for speed, and their products have no gradients. So the layers are read again from
the checkpoint in fp32, one at a time, and each is computed again with a graph for the step back through it: once for
the gradient (`GradientPass`) and once for the relevance (AttnLRP, `with_lrp_rules`). Memory is that of one layer, the
embedding, and a row of the residual stream for each layer and token.

Plain gradient times input is a poor measure in a deep model: the norms cancel what a longer embedding would change.
On ten made-up contexts of four sentences, one of which a claim repeats, its sum names the right one in five for
SmolLM2-135M, and with the AttnLRP rules in all ten. The rules were chosen on these same ten; nothing else was measured.

Source: gradient times input, Shrikumar, Greenside, Shcherbina, Kundaje 2016, "Not Just a Black Box: Learning Important
Features Through Propagating Activation Differences", arXiv:1605.01713, section 2; computing activations again on the
way back, Chen, Xu, Zhang, Guestrin 2016, "Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174; the rules,
Achtibat, Hatefi, Dreyer, Jain, Wiegand, Lapuschkin, Samek 2024, "AttnLRP: Attention-Aware Layer-Wise Relevance
Propagation for Transformers", arXiv:2402.05602, section 3: the divisor of a norm is a constant; a function of one
number is the number times a constant; of a product each factor gets half; softmax and linear maps use their gradient.
Differs: the output is the log-probability instead of the logit; there is no epsilon, since nothing is divided by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ...core.errors import ReasonError, UserError
from ...core.messages import Prompt, Usage
from ..model import Relevance
from .config import LayerType, ModelConfig
from .model import DecoderLayer, RMSNorm, embedding_scale, load_layer, load_norm, run_layer
from .prefix_cache import PrefixCache
from .rope import RotaryEmbedding
from .tasks import ExclusiveTask
from .tokenizer import Tokenizer
from .weights import Linear, WeightReader

AttentionObserver = Callable[[Tensor, Tensor, Tensor], None]
"""Receives the rotated queries `[heads, rows, head_dim]` and keys of a layer, and what its rows do not attend to."""


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


@dataclass(eq=False)
class RelevanceTask(ExclusiveTask):
    """Passes forward and back, during which the engine does nothing else.

    Attributes:
        directory: Where the model's weights are.
        on_result: Receives the result.
        on_error: Receives the error.
    """

    config: ModelConfig
    directory: Path
    device: torch.device
    parts: TokenizedParts
    on_result: Callable[[Relevance], None]
    on_error: Callable[[ReasonError], None]

    def run(self, prefix_cache: PrefixCache) -> None:
        """Compute it, without the engine's cache."""
        parts = self.parts
        # The thread is in inference mode, in which tensors have no gradients.
        with torch.inference_mode(False), torch.enable_grad():
            try:
                work = GradientPass(self.config, WeightReader(self.directory, self.device), lambda: self.cancelled)
                explained = work.explain(parts.token_ids, parts.num_continuation)
            except PassCancelled:
                return
        # one more entry, the last, for tokens of no part
        part_of = torch.tensor(parts.part_of)
        part_of = torch.where(part_of < 0, parts.num_parts, part_of)
        relevance, gradient, attention, tokens = (
            torch.zeros(parts.num_parts + 1, dtype=torch.float64).index_add_(0, part_of, values.double()).tolist()
            for values in (*explained[:3], torch.ones(len(parts.token_ids)))
        )
        self.on_result(
            Relevance(
                relevance=tuple(relevance[:-1]),
                gradient=tuple(gradient[:-1]),
                attention=tuple(attention[:-1]),
                tokens=tuple(round(n) for n in tokens[:-1]),
                rest=relevance[-1],
                logprob=explained.logprob,
                usage=Usage(prompt_tokens=len(parts.token_ids)),
            )
        )

    def fail(self, error: ReasonError) -> None:
        self.on_error(error)


class TokenRelevance(NamedTuple):
    """The results of a pass, in the CPU's memory.

    Attributes:
        relevance: `[tokens]`, each token's relevance by AttnLRP, in nats; 0 for the last, which predicts nothing.
        gradient: `[tokens]`, likewise gradient times input.
        attention: `[tokens]`, share of attention that each token gets from the positions that predict the continuation,
            mean over heads and layers; sums to 1.
        logprob: Summed log-probability of the continuation, in nats.
    """

    relevance: Tensor
    gradient: Tensor
    attention: Tensor
    logprob: float


class PassCancelled(Exception):
    """The pass was cancelled."""


class GradientPass:
    """Forward and backward of one sequence.

    Args:
        weights: The checkpoint, read again in each pass, and the device.
        is_cancelled: Called before each layer.
    """

    def __init__(
        self, config: ModelConfig, weights: WeightReader, is_cancelled: Callable[[], bool] = lambda: False
    ) -> None:
        self._config, self._weights, self._is_cancelled = config, weights, is_cancelled
        self._device = weights.device
        self._rotary = RotaryEmbedding(config, torch.float32, weights.device)
        self._norm = load_norm(weights, config, "model.norm.weight", torch.float32)
        self._embedding_scale = embedding_scale(config, torch.float32, weights.device)
        self._embedding = weights.tensor("model.embed_tokens.weight", torch.float32)
        tied = config.tied_embeddings or "lm_head.weight" not in weights
        self._head = self._embedding if tied else weights.tensor("lm_head.weight", torch.float32)

    def explain(self, token_ids: Sequence[int], num_continuation: int) -> TokenRelevance:
        """Relevance, gradient and attention of each token of prompt and continuation.

        Args:
            num_continuation: Tokens of the continuation, at least 1 and fewer than all.

        Raises:
            PassCancelled: It was cancelled.
        """
        attention = torch.zeros(len(token_ids), device=self._device)

        def observe(queries: Tensor, keys: Tensor, hidden: Tensor) -> None:
            attention[:-1] += self._attention_shares(queries, keys, hidden, num_continuation)

        x = embedded = self._embed(token_ids)
        inputs: list[Tensor] = []
        with torch.no_grad():
            for i in range(self._config.num_layers):
                inputs.append(x)
                x = self._run(self._load(i), x, observer=observe)
        logprob, gradient = self._output_gradient(x, token_ids, num_continuation, self._norm)
        _, relevance = self._output_gradient(x, token_ids, num_continuation, LRPNorm(self._norm))
        for i in reversed(range(self._config.num_layers)):
            layer, before = self._load(i), inputs.pop()
            gradient = self._backward(layer, before, gradient)
            relevance = self._backward(with_lrp_rules(layer), before, relevance, lrp=True)
        last = torch.zeros(1)
        return TokenRelevance(
            relevance=torch.cat([(relevance * embedded).sum(-1).cpu(), last]),
            gradient=torch.cat([(gradient * embedded).sum(-1).cpu(), last]),
            attention=attention.cpu() / self._config.num_layers,
            logprob=logprob,
        )

    @torch.no_grad()
    def logprob(self, token_ids: Sequence[int], num_continuation: int, scale: Tensor | None = None) -> float:
        """Summed log-probability of the last `num_continuation` tokens, in nats: what `explain` derives.

        Args:
            scale: `[tokens - 1]`, what each token's embedding is multiplied by; None is 1. The derivative by it, at 1,
                is gradient times input.
        """
        x = self._embed(token_ids)
        if scale is not None:
            x = x * scale[:, None]
        for i in range(self._config.num_layers):
            x = self._run(self._load(i), x)
        return float(self._summed_logprob(x, token_ids, num_continuation, self._norm))

    def _embed(self, token_ids: Sequence[int]) -> Tensor:
        """All tokens but the last, which predicts nothing."""
        x = self._embedding[torch.tensor(token_ids[:-1], device=self._device)]
        return x if self._embedding_scale is None else x * self._embedding_scale

    def _load(self, index: int) -> DecoderLayer:
        if self._is_cancelled():
            raise PassCancelled
        return load_layer(self._weights, self._config, index, "fp32", False)

    def _run(
        self, layer: DecoderLayer, x: Tensor, *, lrp: bool = False, observer: AttentionObserver | None = None
    ) -> Tensor:
        return run_layer(layer, self._config, x, lambda qkv: self._attend(layer.layer_type, qkv, lrp, observer))

    def _output_gradient(
        self, x: Tensor, token_ids: Sequence[int], num_continuation: int, norm: RMSNorm
    ) -> tuple[float, Tensor]:
        """The log-probability, and its gradient at the output of the last layer."""
        x = x.detach().requires_grad_()
        logprob = self._summed_logprob(x, token_ids, num_continuation, norm)
        return float(logprob.detach()), torch.autograd.grad(logprob, x)[0]

    def _backward(self, layer: DecoderLayer, before: Tensor, after: Tensor, *, lrp: bool = False) -> Tensor:
        """The gradient at a layer's input, from that at its output."""
        before = before.detach().requires_grad_()
        return torch.autograd.grad(self._run(layer, before, lrp=lrp), before, after)[0]

    def _attend(self, layer_type: LayerType, qkv: Tensor, lrp: bool, observer: AttentionObserver | None) -> Tensor:
        """Causal attention of one complete sequence."""
        num_heads, num_kv_heads = self._config.num_heads, self._config.num_kv_heads
        rows = qkv.shape[0]
        queries, keys = qkv[:, :num_heads], qkv[:, num_heads : num_heads + num_kv_heads]
        if layer_type != "nope":
            cos, sin = self._rotary.cos_sin(torch.arange(rows), layer_type)
            tables = cos[:, None], sin[:, None]
            queries, keys = self._rotary.rotate(queries, tables), self._rotary.rotate(keys, tables)
        queries, keys = queries.transpose(0, 1), keys.transpose(0, 1)
        values = qkv[:, num_heads + num_kv_heads :].transpose(0, 1)
        keys, values = (t.repeat_interleave(num_heads // num_kv_heads, 0) for t in (keys, values))
        hidden = self._hidden(layer_type, rows)
        if observer is not None:
            observer(queries, keys, hidden)
        if lrp:  # half of a product of two to each: of queries and keys, of their softmax and the values
            queries, keys = half_gradient(queries), half_gradient(keys)
        mixed = functional.scaled_dot_product_attention(
            queries[None], keys[None], values[None], attn_mask=~hidden, scale=self._config.attention_scale
        )
        mixed = mixed[0].transpose(0, 1).reshape(rows, num_heads * self._config.head_dim)
        return half_gradient(mixed) if lrp else mixed

    def _hidden(self, layer_type: LayerType, rows: int) -> Tensor:
        """`[rows, rows]`, true where a row does not attend to another in layers of a type."""
        window = self._config.sliding_window if layer_type == "sliding" else rows
        ones = torch.ones(rows, rows, dtype=torch.bool, device=self._device)
        return ones.triu(1) | ones.tril(-window)

    def _attention_shares(self, queries: Tensor, keys: Tensor, hidden: Tensor, num_continuation: int) -> Tensor:
        """`[rows]`: the attention that each row gets from the last rows, mean over heads and these."""
        scores = queries[:, -num_continuation:] @ keys.transpose(1, 2) * self._config.attention_scale
        shares: Tensor = scores.masked_fill(hidden[-num_continuation:], float("-inf")).softmax(-1)
        return shares.mean((0, 1))

    def _summed_logprob(self, x: Tensor, token_ids: Sequence[int], num_continuation: int, norm: RMSNorm) -> Tensor:
        logits = functional.linear(norm(x[-num_continuation:]), self._head)
        targets = torch.tensor(token_ids[-num_continuation:], device=self._device)
        return logits.log_softmax(-1).gather(1, targets[:, None]).sum()


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


def lrp_gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form as the number times a constant."""
    value = x.detach()
    return x * (0.5 * (1 + (math.sqrt(2 / math.pi) * (value + 0.044715 * value.pow(3))).tanh()))


def with_lrp_rules(layer: DecoderLayer) -> DecoderLayer:
    """The layer with the rules in place of its norms' and products' gradients; attention is the caller's."""
    return replace(
        layer,
        attention_norm=LRPNorm(layer.attention_norm),
        query_norm=_lrp_norm(layer.query_norm),
        key_norm=_lrp_norm(layer.key_norm),
        output_norm=_lrp_norm(layer.output_norm),
        mlp_norm=LRPNorm(layer.mlp_norm),
        gate=LRPLinear(layer.gate),
        up=LRPLinear(layer.up),
        down_norm=_lrp_norm(layer.down_norm),
        activation=None if layer.activation is None else lrp_gelu,
    )


def _lrp_norm(norm: RMSNorm | None) -> LRPNorm | None:
    return None if norm is None else LRPNorm(norm)
