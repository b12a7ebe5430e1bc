"""vLLM's attention on a CPU, with workers that read one another's cache."""

from __future__ import annotations

from vllm.v1.attention.backends.cpu_attn import (
    CPUAttentionBackend,
    CPUAttentionBackendImpl,
    CPUAttentionMetadataBuilder,
)

from .shared_attention import SharedAttention, SharedBuilder


class SharedCpuBuilder(SharedBuilder, CPUAttentionMetadataBuilder):  # type: ignore[misc]
    """Metadata of a step."""


class SharedCpuAttention(SharedAttention, CPUAttentionBackendImpl):  # type: ignore[misc]
    """Attention of a layer."""


class SharedCpuBackend(CPUAttentionBackend):  # type: ignore[misc]
    """The attention backend."""

    @staticmethod
    def get_impl_cls() -> type[SharedCpuAttention]:
        return SharedCpuAttention

    @staticmethod
    def get_builder_cls() -> type[SharedCpuBuilder]:
        return SharedCpuBuilder
