"""vLLM's FlashAttention on CUDA, with workers that read one another's cache.

Not yet run on a GPU. What it puts before FlashAttention is what `cpu_attention` puts before the CPU's, and what that
computes is the plan of the embedded engine, which has calls for CUDA's kernels of its own.
"""

from __future__ import annotations

from typing import Any

from vllm.v1.attention.backend import AttentionCGSupport
from vllm.v1.attention.backends.flash_attn import (
    FlashAttentionBackend,
    FlashAttentionImpl,
    FlashAttentionMetadataBuilder,
)

from .attention import SharedAttention, SharedBuilder


class SharedFlashBuilder(SharedBuilder, FlashAttentionMetadataBuilder):  # type: ignore[misc]
    """Metadata of a step. A graph would replay the plan of the step that it was recorded in: so there is none."""

    @classmethod
    def get_cudagraph_support(cls, *rest: Any, **more: Any) -> AttentionCGSupport:
        """None."""
        return AttentionCGSupport.NEVER


class SharedFlashAttention(SharedAttention, FlashAttentionImpl):  # type: ignore[misc]
    """Attention of a layer."""


class SharedFlashBackend(FlashAttentionBackend):  # type: ignore[misc]
    """Names the two."""

    @staticmethod
    def get_impl_cls() -> type[SharedFlashAttention]:
        """The attention."""
        return SharedFlashAttention

    @staticmethod
    def get_builder_cls() -> type[SharedFlashBuilder]:
        """What makes its metadata."""
        return SharedFlashBuilder
