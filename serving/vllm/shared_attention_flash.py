"""vLLM's FlashAttention on CUDA, with workers that read one another's cache.

Not yet run on a GPU. It extends FlashAttention in the same way as `shared_attention_cpu` the CPU's attention, by the
attention of the embedded engine, which has its own calls of CUDA's kernels.
"""

from __future__ import annotations

from typing import Any

from vllm.v1.attention.backend import AttentionCGSupport
from vllm.v1.attention.backends.flash_attn import (
    FlashAttentionBackend,
    FlashAttentionImpl,
    FlashAttentionMetadataBuilder,
)

from .shared_attention import SharedAttention, SharedBuilder


class SharedFlashBuilder(SharedBuilder, FlashAttentionMetadataBuilder):  # type: ignore[misc]
    """Metadata of a step. CUDA graphs are off: they would replay the attention of the step they were captured in."""

    @classmethod
    def get_cudagraph_support(cls, *rest: Any, **more: Any) -> AttentionCGSupport:
        """None."""
        return AttentionCGSupport.NEVER


class SharedFlashAttention(SharedAttention, FlashAttentionImpl):  # type: ignore[misc]
    """Attention of a layer."""


class SharedFlashBackend(FlashAttentionBackend):  # type: ignore[misc]
    """The attention backend."""

    @staticmethod
    def get_impl_cls() -> type[SharedFlashAttention]:
        return SharedFlashAttention

    @staticmethod
    def get_builder_cls() -> type[SharedFlashBuilder]:
        return SharedFlashBuilder
