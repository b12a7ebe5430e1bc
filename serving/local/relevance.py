"""`RelevanceTask`: what a continuation rests on, computed on the engine's thread; and where a prompt's parts stand.

`with_rules`: a layer that computes the same and hands relevance back in place of a gradient (AttnLRP).

Plain gradient times input tells little of a deep model: the norms take away what a longer embedding would change. On
ten made-up contexts of four sentences, one of which a claim repeats, its sum names the right one in five for
SmolLM2-135M, and with these rules in all ten. The rules were chosen on these same ten; nothing else was measured.

Source: Achtibat, Hatefi, Dreyer, Jain, Wiegand, Lapuschkin, Samek 2024, "AttnLRP: Attention-Aware Layer-Wise Relevance
Propagation for Transformers", arXiv:2402.05602, section 3: the divisor of a norm is a constant; a function of one
number is the number times a constant; of a product each factor gets half; softmax and linear maps go by their gradient.
Differs: the output is the log-probability in place of the logit; there is no epsilon, since nothing is divided by.

`GradientPass`: what the tokens before a continuation add to its log-probability, by passes back through the layers.

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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ...core.errors import ReasonError, UserError
from ...core.messages import Prompt, Usage
from ..model import Relevance
from .config import ModelShape
from .model import Layer, Norm, read_layer, run_layer
from .prefix_cache import Prefixes
from .rope import Rotary
from .tokenizer import Tokenizer
from .weights import Checkpoint, Linear


class _Half(torch.autograd.Function):
    """The same value; half of what comes back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] / 2


def half(x: Tensor) -> Tensor:
    """A factor's, or a product's, half: its own value, with half the gradient."""
    result: Tensor = _Half.apply(x)  # type: ignore[no-untyped-call]
    return result


class RuledNorm(Norm):
    """A norm whose divisor is a constant."""

    def __init__(self, norm: Norm) -> None:
        self._twice, self._width, self._eps = norm._twice, norm._width, norm._eps

    def __call__(self, x: Tensor) -> Tensor:
        """Norm the last dimension."""
        return x * x.detach().pow(2).mean(-1, keepdim=True).add(self._eps).rsqrt() * self._twice[: self._width]


class RuledLinear:
    """A matrix whose elementwise steps go by the rules."""

    def __init__(self, plain: Linear) -> None:
        self._plain = plain

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
        return half(self._plain(x) * other)


def with_rules(layer: Layer) -> Layer:
    """The layer with the rules in place of its norms' and products' gradients; attention is its caller's."""
    return replace(
        layer,
        attention_norm=RuledNorm(layer.attention_norm),
        query_norm=None if layer.query_norm is None else RuledNorm(layer.query_norm),
        key_norm=None if layer.key_norm is None else RuledNorm(layer.key_norm),
        feed_norm=RuledNorm(layer.feed_norm),
        gate=RuledLinear(layer.gate),
        up=RuledLinear(layer.up),
    )


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


@dataclass(frozen=True)
class PlacedParts:
    """A sequence and whose its tokens are.

    Attributes:
        ids: Tokens of prompt and continuation.
        count: Tokens of the continuation.
        owner: For each token the part it belongs to; -1 for none.
        parts: Number of parts.
    """

    ids: Sequence[int]
    count: int
    owner: Sequence[int]
    parts: int


def place_parts(tokenizer: Tokenizer, prompt: Prompt, parts: Sequence[str], continuation: str) -> PlacedParts:
    """Find the tokens of a prompt's parts (see `ExplainsTokens.relevance`).

    Raises:
        UserError: A part is not there, the prefix is no text, or there is nothing to score.
    """
    if not isinstance(prompt.prefix, str):
        raise UserError("the relevance of a prompt's parts needs a prompt whose prefix is text")
    before, after = tokenizer.continuation(prompt, continuation)
    text = tokenizer.render(prompt) + prompt.prefix
    ids, places = tokenizer.places(text + continuation, special=prompt.text is not None)
    if not after or not before or ids != [*before, *after]:
        raise UserError(f"the continuation {continuation[:40]!r} has no tokens of its own behind this prompt")
    spans: list[tuple[int, int]] = []
    at = 0
    for part in parts:
        wanted = part.strip()  # chat templates strip what they are given
        start = text.find(wanted, at)
        if not wanted or start < 0:
            raise UserError(
                f"the part {part[:40]!r} does not stand in the prompt behind the part before it",
                hint="give the parts word for word and in the prompt's order",
            )
        at = start + len(wanted)
        spans.append((start, at))
    return PlacedParts(ids, len(after), _owners(places[: len(before)], spans) + [-1] * len(after), len(parts))


def _owners(places: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> list[int]:
    """For each token the span that has most of it, of equals the later; both are in order of the text."""
    owners: list[int] = []
    first = 0
    for start, end in places:
        while first < len(spans) and spans[first][1] <= start:
            first += 1
        best, most = -1, 0
        for i in range(first, len(spans)):
            if spans[i][0] >= end:
                break
            shared = min(end, spans[i][1]) - max(start, spans[i][0])
            if shared > 0 and shared >= most:
                best, most = i, shared
        owners.append(best)
    return owners


@dataclass(eq=False)
class RelevanceTask:
    """Passes forward and back: a step of its own, during which the engine does nothing else.

    Attributes:
        shape: Sizes of the model.
        folder: Where its weights lie.
        device: Where it is computed.
        placed: What to explain.
        told: Takes the result.
        failed: Takes the error.
    """

    shape: ModelShape
    folder: Path
    device: torch.device
    placed: PlacedParts
    told: Callable[[Relevance], None]
    failed: Callable[[ReasonError], None]
    cancelled: bool = False

    def run(self, prefixes: Prefixes) -> None:
        """Compute it; the engine's cache is not used."""
        placed = self.placed
        # The thread infers, and what it makes so can have no gradient.
        with torch.inference_mode(False), torch.enable_grad():
            try:
                work = GradientPass(self.shape, Checkpoint(self.folder, self.device), lambda: self.cancelled)
                explained = work.explain(placed.ids, placed.count)
            except Dropped:
                return
        # one more place, the last, for tokens of no part
        owner = torch.tensor(placed.owner)
        owner = torch.where(owner < 0, placed.parts, owner)
        relevance, gradient, attention, tokens = (
            torch.zeros(placed.parts + 1, dtype=torch.float64).index_add_(0, owner, values.double()).tolist()
            for values in (*explained[:3], torch.ones(len(placed.ids)))
        )
        self.told(
            Relevance(
                relevance=tuple(relevance[:-1]),
                gradient=tuple(gradient[:-1]),
                attention=tuple(attention[:-1]),
                tokens=tuple(round(n) for n in tokens[:-1]),
                rest=relevance[-1],
                logprob=explained.logprob,
                usage=Usage(prompt_tokens=len(placed.ids)),
            )
        )

    def fail(self, error: ReasonError) -> None:
        """Nothing was computed."""
        self.failed(error)
