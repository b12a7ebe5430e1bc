"""What is put before an attention of vLLM's, whichever it is, so that workers read one another's cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...local.config import ModelShape
from ..shared_cache import Groups, SharedStep
from .rows import ROOM

Base: Any = object
"""What the two classes below are put before: a builder of metadata, an attention of one layer."""


class SharedBuilder(Base):  # type: ignore[misc]
    """Says once for a step, for all of its layers, what it does to the groups."""

    def __init__(self, kv_cache_spec: Any, layer_names: Sequence[str], vllm_config: Any, device: torch.device) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        model = vllm_config.model_config
        heads = model.get_num_attention_heads(vllm_config.parallel_config)
        whole = ModelShape.of(model.hf_text_config.to_dict(), "the model's configuration")
        shape = replace(whole, heads=heads, kv_heads=kv_cache_spec.num_kv_heads)
        ROOM.groups = Groups(shape, layer_names, model.dtype, device)

    def build(self, common_prefix_len: int, common_attn_metadata: Any, *rest: Any, **more: Any) -> Any:
        """The step's metadata, with `shared` beside what is in it."""
        metadata = super().build(common_prefix_len, common_attn_metadata, *rest, **more)
        metadata.shared = _shared(common_attn_metadata) if ROOM.parts else None
        return metadata

    def use_cascade_attention(self, *rest: Any, **more: Any) -> bool:
        """Never."""
        return False


class SharedAttention(Base):  # type: ignore[misc]
    """Attention of one layer."""

    def forward(
        self,
        layer: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        kv_cache: Tensor,
        attn_metadata: Any,
        output: Tensor,
        *rest: Any,
        **more: Any,
    ) -> Tensor:
        """Attention of all rows: of those that no group shares as ever."""
        step: SharedStep | None = getattr(attn_metadata, "shared", None)
        if step is None or not step.alone:
            super().forward(layer, query, key, value, kv_cache, attn_metadata, output, *rest, **more)
        if step is not None:
            step.attend(layer.layer_name, query, key, value, output)
        return output


def _shared(common: Any) -> SharedStep | None:
    starts: list[int] = getattr(common, "query_start_loc_cpu", common.query_start_loc).tolist()
    return ROOM.step(common.num_reqs, starts, common.seq_lens.tolist())
