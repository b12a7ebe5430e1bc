"""`ReasonWorkerExtension`: methods that vLLM adds to its workers: reports, and the end of worker groups."""

from __future__ import annotations

import json
from typing import Any

from .logits_processor import ReasonLogitsProcessor


class ReasonWorkerExtension:
    """Name it as `worker_extension_cls`; vLLM mixes it into its worker."""

    model_runner: Any

    def reason_take_reports(self, ids: list[str]) -> dict[str, Any]:
        """Reports of the samples with these ids, from the processor of either runner."""
        batch = getattr(self.model_runner, "input_batch", None)
        sampler = getattr(self.model_runner, "sampler", None)
        processors = [*(batch.logitsprocs.all if batch is not None and hasattr(batch, "logitsprocs") else ())]
        processors += getattr(sampler, "logits_processors", ())
        reports: dict[str, Any] = {}
        for processor in processors:
            if isinstance(processor, ReasonLogitsProcessor):
                reports |= {i: serializable(report) for i, report in processor.take_reports(ids).items()}
        return reports

    def reason_ensure_exact_sampling(self) -> bool:
        """Whether draft tokens are sampled from the right distribution here; repairs what it can."""
        from .rejection_sampler import ensure_exact_sampling

        return ensure_exact_sampling()

    def reason_close_workers(self, group: str) -> tuple[int, int]:
        """Forget a worker group; returns its passes in which workers saw one another, and in which they did not."""
        from .shared_attention import STATE

        counts = STATE.close(group)
        return counts.shared, counts.skipped


def serializable(report: dict[str, Any]) -> dict[str, Any]:
    """A report that can be sent: an error of a worker's method, as by a value that is no JSON, ends vLLM's engine."""
    try:
        json.dumps(report)
    except (TypeError, ValueError, RecursionError) as e:
        message = f"a logits processor reported what is no JSON: {e}"
        return {"extras": {}, "failure": ["logits_processor_failed", message]}
    return report
