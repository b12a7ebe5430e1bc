"""`ReasonWorker`: methods that vLLM adds to its workers, by which reports of the hooks are fetched."""

from __future__ import annotations

from typing import Any

from ..hooks import hook_names
from .processor import Hooks


class ReasonWorker:
    """Name it as `worker_extension_cls`; vLLM mixes it into its worker."""

    model_runner: Any

    def reason_take_reports(self, ids: list[str]) -> dict[str, Any]:
        """Reports of the samples with these ids, from the processor of either runner."""
        batch = getattr(self.model_runner, "input_batch", None)
        sampler = getattr(self.model_runner, "sampler", None)
        processors = [*(batch.logitsprocs.all if batch is not None and hasattr(batch, "logitsprocs") else ())]
        processors += getattr(sampler, "logits_processors", ())
        found: dict[str, Any] = {}
        for processor in processors:
            if isinstance(processor, Hooks):
                found |= processor.take_reports(ids)
        return found

    def reason_hook_names(self) -> list[str]:
        """Names of the hooks that are installed where the worker runs."""
        return sorted(hook_names())
