"""Workers on one cache as the authors' first program has them, on the modules of transformers, for comparison.

A cache in transformers' own interface holds a history and the workers' steps as blocks, each with its keys turned as if
the block stood first. Every layer of every step puts each worker's view together anew: the keys of each block are
turned to where the view has it, and all are copied behind one another. The model knows nothing of it; workers are rows
of a batch.

Source: Rodionov et al. 2025, arXiv:2504.06261, and what is told of their main branch's cache; the code is ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.cache_utils import Cache


class ReferenceWorkers:
    """A model of transformers and workers that see everything of one another.

    Args:
        folder: Model in Hugging Face layout, with plain rotary positions.
        dtype: Format of its weights and of the cache.
    """

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        self._dtype = dtype

    def open(self, cached: int, workers: int) -> ReferenceCache:
        """A history and steps, with `cached` tokens in all, whose keys and values are drawn at random."""
        config = self._model.config
        heads, dim = config.num_key_value_heads, config.hidden_size // config.num_attention_heads
        step = cached // 8 // workers
        sizes = [cached - step * workers, *[step] * workers]
        kv = [
            [torch.empty(2, 1, heads, size, dim, dtype=self._dtype).normal_() for size in sizes]
            for _ in range(config.num_hidden_layers)
        ]
        return ReferenceCache(kv, self._model.model.rotary_emb)

    def step(self, cache: ReferenceCache) -> Tensor:
        """One token of every worker; its logits, `[workers, vocab]`."""
        workers = cache.workers
        at = torch.full((workers, 1), cache.get_seq_length() + workers - 1)
        cache.begin()
        found = self._model(
            input_ids=torch.full((workers, 1), 5), position_ids=at, past_key_values=cache, use_cache=True
        )
        logits: Tensor = found.logits[:, -1]
        return logits


class ReferenceCache(Cache):
    """What a model of transformers takes for its cache.

    Attributes:
        blocks: For each layer the history, then the workers' steps: keys and values `[2, 1, kv_heads, tokens, dim]`.
    """

    def __init__(self, kv: list[list[Tensor]], rotary: Any) -> None:
        super().__init__(layers=[])
        self.blocks, self._rotary = kv, rotary
        self.workers = len(kv[0]) - 1
        self._turns: list[list[tuple[Tensor, Tensor]]] = []
        self._back: list[tuple[Tensor, Tensor]] = []

    @property
    def nbytes(self) -> int:
        """Bytes of all blocks."""
        return sum(block.nbytes for blocks in self.blocks for block in blocks)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens of a view: everybody sees everything."""
        return sum(block.shape[3] for block in self.blocks[layer_idx])

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Length of a view with the step that is about to be computed: asked before the first layer writes it."""
        return self.get_seq_length() + self.workers * query_length, 0

    def begin(self) -> None:
        """Tell anew where each view will have each block: turns are the same in all layers."""
        sizes = [block.shape[3] for block in self.blocks[0]]
        self._turns = []
        for own in range(1, self.workers + 1):
            at, turns = 0, []
            for number in self._order(own):
                turns.append(self._turn(at))
                at += sizes[number] + (number > 0)
            self._turns.append(turns)
        # What comes is turned to the end of a view, where its query stands; it is stored as its block has it.
        end = sum(sizes) + self.workers - 1
        self._back = [self._turn(sizes[own] - end) for own in range(1, self.workers + 1)]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Append each worker's token to its block; all views, `[workers, kv_heads, tokens, dim]`."""
        blocks = self.blocks[layer_idx]
        for row in range(self.workers):
            new = torch.stack([turned(key_states[row : row + 1], self._back[row]), value_states[row : row + 1]])
            blocks[row + 1] = torch.cat([blocks[row + 1], new], 3)
        keys, values = [], []
        for row, turns in enumerate(self._turns):
            seen = [blocks[number] for number in self._order(row + 1)]
            keys.append(torch.cat([turned(kv[0], turn) for kv, turn in zip(seen, turns, strict=True)], 2))
            values.append(torch.cat([kv[1] for kv in seen], 2))
        return torch.cat(keys), torch.cat(values)

    def _order(self, own: int) -> list[int]:
        return [0, *(other for other in range(1, self.workers + 1) if other != own), own]

    def _turn(self, by: int) -> tuple[Tensor, Tensor]:
        like = self.blocks[0][0]
        cos, sin = self._rotary(like, torch.tensor([[by]]))
        return cos[:, None], sin[:, None]


def turned(keys: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Keys turned by as many positions as cosine and sine are of."""
    half = keys.shape[-1] // 2
    swapped = torch.cat([-keys[..., half:], keys[..., :half]], -1)
    return keys * turn[0] + swapped * turn[1]
