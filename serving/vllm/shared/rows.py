"""`WorkerRows`: a logits processor that changes nothing; it knows which row of a batch belongs to which worker.

vLLM tells its logits processors of every request that takes or leaves a row, and does so before the forward pass: so
attention, which sees rows alone, learns from here whose they are.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend
from vllm.v1.sample.logits_processor import LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from ..shared_cache import Counts, Groups, Part, Row, SharedStep

BACKENDS = {
    AttentionBackendEnum.CPU_ATTN: "reason.serving.vllm.shared.cpu_attention.SharedCpuBackend",
    AttentionBackendEnum.FLASH_ATTN: "reason.serving.vllm.shared.flash_attention.SharedFlashBackend",
}
"""What takes the place of vLLM's own attention."""


class Room:
    """What rows, attention and closing share in a process of vLLM's, which makes each of them by itself.

    Attributes:
        parts: What each row of the batch is for its group.
        groups: Their keys and values; None until the model is loaded.
    """

    def __init__(self) -> None:
        self.parts: dict[int, Part] = {}
        self.groups: Groups | None = None

    def step(self, requests: int, starts: list[int], lengths: list[int]) -> SharedStep | None:
        """What a step does to the groups in it; None if there are none.

        Args:
            requests: Rows of the batch, as requests.
            starts: Where the new tokens of each begin, and at last where they end.
            lengths: Tokens of each sequence, the new ones included.
        """
        rows = [
            Row(part, starts[i], starts[i + 1] - starts[i], lengths[i] - (starts[i + 1] - starts[i]))
            for i, part in sorted(self.parts.items())
            if i < requests
        ]
        return self.groups.step(rows, starts[requests]) if rows and self.groups is not None else None

    def close(self, name: str) -> Counts:
        """Forget a group."""
        return Counts() if self.groups is None else self.groups.close(name)


ROOM = Room()
"""That of this process."""


class WorkerRows(LogitsProcessor):  # type: ignore[misc]
    """Follows the rows; and, as the first thing of ours that vLLM makes in a worker, puts our attention in place."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        ROOM.parts.clear()
        for backend, path in BACKENDS.items():
            register_backend(backend, path)

    @classmethod
    def validate_params(cls, params: Any) -> None:
        """Refuse a request whose part makes no sense, with a `ValueError`."""
        Part.of(params.extra_args)

    def is_argmax_invariant(self) -> bool:
        """Yes: nothing is changed."""
        return True

    def update_state(self, batch_update: Any) -> None:
        """Follow the rows."""
        process_dict_updates(ROOM.parts, batch_update, lambda params, prompt, output: Part.of(params.extra_args))

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """The logits as they are."""
        return logits
