"""`ReasonWorker`: methods that vLLM adds to its workers, by which hooks report and groups of workers are ended."""

from __future__ import annotations

import json
from typing import Any

from .logits_processor import Hooks


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
                found |= {i: sendable(report) for i, report in processor.take_reports(ids).items()}
        return found

    def reason_draws_exactly(self) -> bool:
        """Whether tokens that vLLM drafts are drawn from the right distribution here; mends what it can."""
        from .rejection_sampler import draws_exactly

        return draws_exactly()

    def reason_close_workers(self, group: str) -> tuple[int, int]:
        """Forget a group of workers: passes in which they saw one another, and in which they did not."""
        from .shared.rows import ROOM

        counts = ROOM.close(group)
        return counts.shared, counts.skipped


def sendable(report: dict[str, Any]) -> dict[str, Any]:
    """A report that can be sent: an error of a worker's method, as by a value that is no JSON, ends vLLM's engine."""
    try:
        json.dumps(report)
    except (TypeError, ValueError, RecursionError) as e:
        return {"extras": {}, "failure": ["hook_failed", f"a logits hook reported what is no JSON: {e}"]}
    return report
