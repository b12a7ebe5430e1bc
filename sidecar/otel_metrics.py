"""`GenAiMetrics`: model calls and runs as OpenTelemetry metrics, named by the GenAI semantic conventions 0.1.0.

They complement the Prometheus metrics of `metrics`, which count more and need no collector. OpenTelemetry's environment
variables select the exporters. Without an exporter, these metrics are off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import accumulate, repeat

from opentelemetry.metrics import Counter, Histogram, Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.util.types import AttributeValue

from ..core.events import (
    CallFinished,
    CallStarted,
    Event,
    RunFailed,
    RunFinished,
    RunStarted,
    SampleFinished,
    Sink,
    StageFinished,
    StageStarted,
)
from .tracing import AGENT_STAGES, SpanNames, exporters_named, load_exporter, provider_of, telemetry_resource


def _doubled(first: float, count: int) -> list[float]:
    return list(accumulate(repeat(2.0, count - 1), float.__mul__, initial=first))


_CALL_SECONDS = _doubled(0.01, 14)
_AGENT_SECONDS = _doubled(0.1, 13)
_CALL_COUNTS = _doubled(1.0, 8)
MODALITY = "gen_ai.token.modality"


class GenAiMetrics:
    """The instruments of one process.

    Args:
        meter: Creates the instruments.
    """

    def __init__(self, meter: Meter) -> None:
        def histogram(name: str, unit: str, about: str, bounds: list[float]) -> Histogram:
            return meter.create_histogram(name, unit, about, explicit_bucket_boundaries_advisory=bounds)

        def tokens(name: str, about: str) -> Counter:
            return meter.create_counter(f"gen_ai.client.inference.usage.{name}", "{token}", about)

        self.inference = histogram("gen_ai.client.inference.duration", "s", "Duration of a model call.", _CALL_SECONDS)
        self.embeddings = histogram(
            "gen_ai.client.embeddings.duration", "s", "Duration of an embeddings call.", _CALL_SECONDS
        )
        self.input_tokens = tokens("input_tokens", "Prompt tokens, those from a cache included.")
        self.cached_tokens = tokens("cache_read.input_tokens", "Prompt tokens that were read from a cache.")
        self.output_tokens = tokens("output_tokens", "Generated tokens, those of thoughts included.")
        self.reasoning_tokens = tokens("reasoning.output_tokens", "Generated tokens of thoughts.")
        self.agent = histogram(
            "gen_ai.invoke_agent.duration", "s", "Duration of a run, or of a strategy within it.", _AGENT_SECONDS
        )
        self.agent_calls = histogram(
            "gen_ai.invoke_agent.inference_calls", "{inference_call}", "Model calls of a strategy.", _CALL_COUNTS
        )

    def run_sink(self, strategy: str) -> Sink:
        """Create an event sink for one run."""
        return _RunMeasures(self, strategy)


class _RunMeasures:
    """Measures the events of one run; samples replayed from the store add no tokens, and calls of them no duration."""

    def __init__(self, metrics: GenAiMetrics, strategy: str) -> None:
        self._metrics, self._strategy = metrics, strategy
        self._calls: dict[int, _Call] = {}
        self._agents: dict[int, int] = {}
        """Model calls so far of each unfinished strategy, by the number of the event that started it."""
        self._main = ""

    def __call__(self, event: Event) -> None:
        """Measure the event."""
        if isinstance(event, RunStarted):
            self._main = event.models.get("main", "")
        elif isinstance(event, StageStarted) and event.stage in AGENT_STAGES:
            self._agents[event.number] = 0
        elif isinstance(event, CallStarted):
            call = self._calls[event.number] = _Call(event)
            if not call.is_replayed and call.operation != SpanNames.EMBEDDINGS:
                for number in self._agents:
                    self._agents[number] += 1
        elif isinstance(event, SampleFinished) and event.parent in self._calls:
            self._calls[event.parent].add(event)
        elif isinstance(event, CallFinished):
            self._measure_call(event)
        elif isinstance(event, StageFinished) and event.parent in self._agents:
            attributes = {SpanNames.AGENT_NAME: self._strategy}
            self._metrics.agent_calls.record(self._agents.pop(event.parent), attributes)
            self._metrics.agent.record(event.seconds, {**attributes, SpanNames.OPERATION: SpanNames.AGENT})
        elif isinstance(event, RunFinished):
            self._measure_run(event.answer.usage.wall_seconds, "")
        elif isinstance(event, RunFailed):
            self._measure_run(event.at_s, event.code)

    def _measure_call(self, event: CallFinished) -> None:
        call = self._calls.pop(event.parent or 0, None)
        if call is None or call.is_replayed:
            return
        metrics = self._metrics
        attributes: dict[str, AttributeValue] = {
            SpanNames.OPERATION: call.operation,
            SpanNames.PROVIDER: provider_of(event.model),
            SpanNames.REQUEST_MODEL: event.model,
            SpanNames.RESPONSE_MODEL: event.model,
        }
        failed = {SpanNames.ERROR_TYPE: call.error or "sample_failed"} if event.failed else {}
        if call.operation == SpanNames.EMBEDDINGS:
            metrics.embeddings.record(event.seconds, {**attributes, **failed})
            return
        metrics.inference.record(event.seconds, {**attributes, **failed})
        told = {**attributes, MODALITY: "text"}
        has_samples = call.has_samples
        metrics.input_tokens.add(call.prompt_tokens if has_samples else event.prompt_tokens, told)
        metrics.cached_tokens.add(call.cached_tokens if has_samples else event.cached_tokens, told)
        metrics.output_tokens.add(call.tokens if has_samples else event.tokens, told)
        metrics.reasoning_tokens.add(call.thinking_tokens if has_samples else event.thinking_tokens, told)

    def _measure_run(self, seconds: float, error: str) -> None:
        attributes: dict[str, AttributeValue] = {
            SpanNames.OPERATION: SpanNames.WORKFLOW,
            SpanNames.AGENT_NAME: SpanNames.WORKFLOW_OF_RUNS,
        }
        if self._main:
            attributes[SpanNames.REQUEST_MODEL] = self._main
        if error:
            attributes[SpanNames.ERROR_TYPE] = error
        self._metrics.agent.record(seconds, attributes)
        self._calls.clear()
        self._agents.clear()


class _Call:
    """A model call in flight, with the tokens of its samples that were not replayed."""

    def __init__(self, started: CallStarted) -> None:
        self.operation = SpanNames.OPERATIONS.get(started.operation, SpanNames.COMPLETION)
        self.is_replayed = started.samples > 0 and started.replayed >= started.samples
        self.has_samples = False
        self.prompt_tokens = self.cached_tokens = self.tokens = self.thinking_tokens = 0
        self.error = ""

    def add(self, event: SampleFinished) -> None:
        self.has_samples = True
        if event.replayed:
            return
        completion = event.completion
        self.prompt_tokens += completion.usage.prompt_tokens
        self.cached_tokens += completion.usage.cached_tokens
        self.tokens += completion.usage.completion_tokens
        self.thinking_tokens += completion.usage.thinking_tokens
        if completion.failure is not None and not self.error:
            self.error = completion.failure.code


def open_metrics(environ: Mapping[str, str]) -> MeterProvider | None:
    """Create a meter provider from OpenTelemetry's environment variables; None if they select no exporter.

    Raises:
        UserError: A selected exporter is unknown or not installed.
    """
    names = exporters_named(environ, "metrics")
    if not names:
        return None
    readers = [PeriodicExportingMetricReader(load_exporter(name, "metrics")) for name in names]
    return MeterProvider(readers, resource=telemetry_resource(environ))


async def close_metrics(provider: MeterProvider) -> None:
    """Export what was measured (for at most 5 s) and shut down."""
    await asyncio.to_thread(provider.shutdown, 5000)
