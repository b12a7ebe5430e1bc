"""Families that are not native: transformers' own modules compute, over the same KV caches.

The modules get one row of tokens for each cache, with explicit positions and a mask that says which slot each token
attends to, and a cache object that writes into ours. So forks, reuse and batching work as they do with `Decoder`; what
is lost is speed. Not every family can be run this way (one that derives positions or sees the past by other means
cannot): at load, two interleaved sequences are compared with plain forward passes, and a family that differs is
refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from ...core.errors import CapabilityMissing, DataError
from .attention import AttentionMetadata, TokenChunk, group_by_cache
from .config import NATIVE_FAMILIES, ModelConfig
from .kv_cache import KVCache
from .weights import WeightFormat, dtype_of

TOLERANCE = 0.02
"""Maximum difference of the check at load, relative to the largest logit; fp32 stays below 1e-4, bf16 below 1e-2."""


class TransformersCache(DynamicCache):  # type: ignore[misc]
    """transformers' view of a KV cache during one forward pass that writes the given, allocated slots."""

    def __init__(self, cache: KVCache, slots: range) -> None:
        super().__init__()
        self._cache, self._slots = cache, slots

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write `[1, num_kv_heads, rows, head_dim]` and return all slots up to the pass's last."""
        kv = self._cache.kv[layer_idx]
        first, width = self._slots.start, self._slots.stop
        kv[0, :, first:width] = key_states[0]
        kv[1, :, first:width] = value_states[0]
        return kv[None, 0, :, :width], kv[None, 1, :, :width]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._slots.start


class TransformersModel:
    """A transformers causal language model as a `CausalLM`.

    Args:
        window: Positions that a token attends to in the layers that the model calls "sliding_attention"; 0 if it has
            none.
    """

    def __init__(self, model: Any, config: ModelConfig, dtype: torch.dtype, window: int = 0) -> None:
        self.config, self._window = config, window
        self._model, self._dtype = model, dtype
        # Newer releases of transformers call the argument `cache`.
        names = inspect.signature(model.forward).parameters
        self._cache_argument = "cache" if "cache" in names else "past_key_values"

    @classmethod
    def load(cls, directory: Path, weight_format: WeightFormat, name: str) -> TransformersModel:
        """Read a Hugging Face directory.

        Raises:
            CapabilityMissing: The format or the family cannot be computed in this way.
            DataError: transformers cannot read the directory.
        """
        if weight_format == "int4":
            raise CapabilityMissing(f"int4 outside the families {', '.join(NATIVE_FAMILIES)}", name, alternative="")
        dtype = dtype_of(weight_format)
        try:
            hf_config = AutoConfig.from_pretrained(directory, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"transformers does not know {directory}: {error}") from error
        try:
            module: Any = AutoModelForCausalLM.from_pretrained(
                directory, config=hf_config, dtype=dtype, attn_implementation="sdpa", local_files_only=True
            )
            module.eval()
            window = _sliding_window(hf_config)
            config = _model_config(hf_config, window)
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            if "attention implementation" in str(error):
                raise _unsupported(str(hf_config.model_type), name) from error
            raise DataError(f"transformers cannot load {directory}: {error}") from error
        model = cls(module, config, dtype, window)
        model._check(name)
        return model

    def close(self) -> None:
        self.__dict__.pop("_model", None)

    @property
    def max_invariant_rows(self) -> int:
        """None: the modules' products and attention sum as suits the rows of a step."""
        return 0

    @property
    def slot_bytes(self) -> int:
        """Bytes of keys and values of one token in all layers."""
        return 2 * self.config.num_layers * self.config.num_kv_heads * self.config.head_dim * self._dtype.itemsize

    def new_kv_cache(self, capacity: int) -> KVCache:
        config = self.config
        return KVCache(config.num_layers, config.num_kv_heads, config.head_dim, self._dtype, capacity)

    def forward(self, chunks: Sequence[TokenChunk]) -> Tensor:
        return torch.cat([self._forward(list(run)) for _, run in groupby(chunks, lambda chunk: id(chunk.cache))])

    def _forward(self, chunks: Sequence[TokenChunk]) -> Tensor:
        """The pass of one cache."""
        step = AttentionMetadata(chunks, explicit_mask=True)
        token_ids: list[int] = []
        logit_rows: list[int] = []
        for chunk in chunks:
            logit_rows.extend(len(token_ids) + i for i in chunk.logit_indices)
            token_ids.extend(chunk.token_ids)
        logits = self._model(
            input_ids=torch.tensor([token_ids]),
            attention_mask=self._mask(step, chunks),
            position_ids=torch.tensor([step.positions]),
            use_cache=True,
            logits_to_keep=torch.tensor(logit_rows or [step.num_rows - 1]),
            **{self._cache_argument: TransformersCache(step.cache, step.slots)},
        ).logits[0]
        result: Tensor = logits.float()
        return result if logit_rows else result[:0]

    def _mask(self, step: AttentionMetadata, chunks: Sequence[TokenChunk]) -> Tensor | dict[str, Tensor]:
        """What each token attends to; by type of layer where some have a window."""
        assert step.mask is not None
        full = step.mask[None, None]
        if not self._window:
            return full
        sliding = full.clone()
        tables = [chunk.table for chunk in chunks for _ in chunk.token_ids]
        for row, (table, position) in enumerate(zip(tables, step.positions, strict=True)):
            sliding[0, 0, row, table.slots[: max(0, position - self._window + 1)]] = float("-inf")
        return {"full_attention": full, "sliding_attention": sliding}

    @torch.inference_mode()
    def _check(self, name: str) -> None:
        """Compare two interleaved sequences of one cache with plain forward passes."""
        size = self.config.vocab_size
        first = [(7 * i + 3) % size for i in range(9)]
        second = [*first[:5], *((11 * i + 5) % size for i in range(4))]
        try:
            plain = torch.stack(
                [self._model(input_ids=torch.tensor([x])).logits[0, -1].float() for x in (first, second)]
            )
            cache = self.new_kv_cache(64)
            one = cache.new_table()
            self.forward([TokenChunk(cache, one, first[:5], [])])
            two = cache.fork(one)
            for a, b in zip(first[5:8], second[5:8], strict=True):
                self.forward(group_by_cache([TokenChunk(cache, one, [a], []), TokenChunk(cache, two, [b], [])]))
            batched = self.forward([TokenChunk(cache, one, first[8:], [0]), TokenChunk(cache, two, second[8:], [0])])
        except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError) as error:
            raise _unsupported(self.config.family, name) from error
        if float((batched - plain).abs().max()) > TOLERANCE * float(plain.abs().max()):
            raise _unsupported(self.config.family, name)


def _unsupported(family: str, name: str) -> CapabilityMissing:
    return CapabilityMissing(f"model family {family}", name, alternative="the same model served by vllm/…")


def _sliding_window(config: Any) -> int:
    """The window of the layers that the model takes a mask of their own for; 0 if there are none."""
    text = config.get_text_config()
    has_types = "sliding_attention" in (getattr(text, "layer_types", None) or ())
    return int(getattr(text, "sliding_window", None) or 0) if has_types else 0


def _model_config(config: Any, window_of_types: int) -> ModelConfig:
    """Sizes by transformers' own names. A window of all layers ends the context."""
    text = config.get_text_config()
    num_heads = int(text.num_attention_heads)
    context = int(getattr(text, "max_position_embeddings", 2048))
    window = getattr(text, "sliding_window", None)
    return ModelConfig(
        family=str(text.model_type),
        num_layers=int(text.num_hidden_layers),
        num_heads=num_heads,
        num_kv_heads=int(getattr(text, "num_key_value_heads", None) or num_heads),
        head_dim=int(getattr(text, "head_dim", None) or text.hidden_size // num_heads),
        hidden_size=int(text.hidden_size),
        vocab_size=int(text.vocab_size),
        norm_eps=float(getattr(text, "rms_norm_eps", 0.0)),
        context_length=min(context, window) if window and not window_of_types else context,
        tied_embeddings=bool(getattr(text, "tie_word_embeddings", True)),
        qk_norm=False,
        rope=None,
    )
