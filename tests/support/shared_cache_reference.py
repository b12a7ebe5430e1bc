"""Workers on one cache in the plainest way: keys kept as they leave the layer, and every view put together anew.

Each worker's keys are turned to where its own view has them, concatenated and attended with one softmax, by the modules
and the rotary functions of transformers. No key is turned twice and no softmax is split.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class RawBlock:
    """Per layer `[kv_heads, tokens, head_dim]` of keys that were never turned, and of values."""

    def __init__(self, layers: int) -> None:
        self.keys: list[Tensor | None] = [None] * layers
        self.values: list[Tensor | None] = [None] * layers

    def append(self, layer: int, keys: Tensor, values: Tensor) -> None:
        before, also = self.keys[layer], self.values[layer]
        self.keys[layer] = keys if before is None else torch.cat([before, keys], 1)
        self.values[layer] = values if also is None else torch.cat([also, values], 1)

    def absorb(self, other: RawBlock) -> None:
        for layer, (keys, values) in enumerate(zip(other.keys, other.values, strict=True)):
            if keys is not None and values is not None:
                self.append(layer, keys, values)
        other.keys, other.values = [None] * len(other.keys), [None] * len(other.values)


class Reference:
    """A causal language model of transformers, and passes of workers over raw blocks."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM

        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.turn = import_module(type(self.model).__module__).apply_rotary_pos_emb
        self.config = self.model.config

    def block(self) -> RawBlock:
        return RawBlock(self.config.num_hidden_layers)

    def run(self, feeds: Sequence[tuple[Sequence[RawBlock], Sequence[int]]]) -> list[Tensor]:
        """Logits of every new token of every worker, `[tokens, vocab]` each."""
        inner = self.model.model
        hidden = [inner.embed_tokens(torch.tensor(ids)) for _, ids in feeds]
        for number, layer in enumerate(inner.layers):
            queries: list[Tensor] = []
            for x, (view, _) in zip(hidden, feeds, strict=True):
                normed, heads = layer.input_layernorm(x), layer.self_attn
                shape = (len(x), -1, heads.head_dim)
                q, k = heads.q_proj(normed).view(shape), heads.k_proj(normed).view(shape)
                if hasattr(heads, "q_norm"):
                    q, k = heads.q_norm(q), heads.k_norm(k)
                view[-1].append(number, k.transpose(0, 1), heads.v_proj(normed).view(shape).transpose(0, 1))
                queries.append(q.transpose(0, 1))
            for i, (x, (view, _)) in enumerate(zip(hidden, feeds, strict=True)):
                out = layer.self_attn.o_proj(self._attend(number, queries[i], view, x))
                x = x + out
                hidden[i] = x + layer.mlp(layer.post_attention_layernorm(x))
        return [self.model.lm_head(inner.norm(x)) for x in hidden]

    def _attend(self, layer: int, query: Tensor, view: Sequence[RawBlock], x: Tensor) -> Tensor:
        keys = torch.cat([k for b in view if (k := b.keys[layer]) is not None], 1)
        values = torch.cat([v for b in view if (v := b.values[layer]) is not None], 1)
        total, new = keys.shape[1], query.shape[1]
        heads = self.model.model.layers[layer].self_attn
        cos, sin = self.model.model.rotary_emb(x, torch.arange(total)[None])
        _, turned = self.turn(keys[None], keys[None], cos, sin)
        asked, _ = self.turn(query[None], query[None], cos[:, -new:], sin[:, -new:])
        group = query.shape[0] // keys.shape[0]
        turned, values = turned[0].repeat_interleave(group, 0), values.repeat_interleave(group, 0)
        scores = asked[0] @ turned.transpose(1, 2) * heads.scaling
        hidden = torch.arange(total - new, total)[:, None] < torch.arange(total)
        weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        return (weights @ values).transpose(0, 1).reshape(new, -1)
