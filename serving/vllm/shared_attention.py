"""vLLM's attention, whichever it is, extended so that workers read one another's cache.

vLLM notifies its logits processors of every request that gets or leaves a row, and does so before the forward pass: so
attention, which sees only rows, learns from `RowTracker` which worker each belongs to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend
from vllm.v1.sample.logits_processor import LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from ..local.config import ModelConfig
from .shared_cache import GroupCaches, PassCounts, SharedStep, WorkerRequest, WorkerRow

BACKENDS = {
    AttentionBackendEnum.CPU_ATTN: "reason.serving.vllm.shared_attention_cpu.SharedCpuBackend",
    AttentionBackendEnum.FLASH_ATTN: "reason.serving.vllm.shared_attention_flash.SharedFlashBackend",
}
"""What replaces vLLM's own attention."""


class ProcessState:
    """State of row tracking, attention and closing in a process of vLLM's, which creates each of them by itself.

    Attributes:
        requests: The role of each batch row in its group.
        groups: Their keys and values; None until the model is loaded.
    """

    def __init__(self) -> None:
        self.requests: dict[int, WorkerRequest] = {}
        self.groups: GroupCaches | None = None

    def step(self, num_requests: int, starts: list[int], lengths: list[int]) -> SharedStep | None:
        """What a step does to the groups in it; None if there are none.

        Args:
            starts: Where the new tokens of each begin, and at last where they end.
            lengths: Tokens of each sequence, the new ones included.
        """
        rows = [
            WorkerRow(request, starts[i], starts[i + 1] - starts[i], lengths[i] - (starts[i + 1] - starts[i]))
            for i, request in sorted(self.requests.items())
            if i < num_requests
        ]
        return self.groups.step(rows, starts[num_requests]) if rows and self.groups is not None else None

    def close(self, name: str) -> PassCounts:
        """Forget a group."""
        return PassCounts() if self.groups is None else self.groups.close(name)


STATE = ProcessState()
"""That of this process."""


class RowTracker(LogitsProcessor):  # type: ignore[misc]
    """A logits processor that changes nothing; it tracks which row of a batch belongs to which worker.

    As the first object of ours that vLLM creates in a worker, it registers our attention too.
    """

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        STATE.requests.clear()
        for backend, path in BACKENDS.items():
            register_backend(backend, path)

    @classmethod
    def validate_params(cls, params: Any) -> None:
        """Reject a request with an invalid worker request, with a `ValueError`."""
        WorkerRequest.from_arguments(params.extra_args)

    def is_argmax_invariant(self) -> bool:
        return True

    def update_state(self, batch_update: Any) -> None:
        process_dict_updates(
            STATE.requests, batch_update, lambda params, prompt, output: WorkerRequest.from_arguments(params.extra_args)
        )

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        return logits


Base: Any = object
"""The class of vLLM's that each of the two classes below is mixed into: a metadata builder, an attention of a layer."""


class SharedBuilder(Base):  # type: ignore[misc]
    """Computes once for a step, for all of its layers, what it does to the groups."""

    def __init__(self, kv_cache_spec: Any, layer_names: Sequence[str], vllm_config: Any, device: torch.device) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        model = vllm_config.model_config
        num_heads = model.get_num_attention_heads(vllm_config.parallel_config)
        config = ModelConfig.from_dict(model.hf_text_config.to_dict(), "the model's configuration")
        config = replace(config, num_heads=num_heads, num_kv_heads=kv_cache_spec.num_kv_heads)
        STATE.groups = GroupCaches(config, layer_names, model.dtype, device)

    def build(self, common_prefix_len: int, common_attn_metadata: Any, *rest: Any, **more: Any) -> Any:
        """The step's metadata, with an attribute `shared` added."""
        metadata = super().build(common_prefix_len, common_attn_metadata, *rest, **more)
        metadata.shared = _shared_step(common_attn_metadata) if STATE.requests else None
        return metadata

    def use_cascade_attention(self, *rest: Any, **more: Any) -> bool:
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
        """Attention of all rows; those that belong to no group as in vLLM."""
        step: SharedStep | None = getattr(attn_metadata, "shared", None)
        if step is None or not step.is_exclusive:
            super().forward(layer, query, key, value, kv_cache, attn_metadata, output, *rest, **more)
        if step is not None:
            step.attend(layer.layer_name, query, key, value, output)
        return output


def _shared_step(metadata: Any) -> SharedStep | None:
    starts: list[int] = getattr(metadata, "query_start_loc_cpu", metadata.query_start_loc).tolist()
    return STATE.step(metadata.num_reqs, starts, metadata.seq_lens.tolist())
