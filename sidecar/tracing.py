"""`RunSpans`: a run's events as OpenTelemetry spans, named by the GenAI semantic conventions 0.1.0 and `reason.*`.

OpenTelemetry's environment variables select the exporters. Without an exporter, tracing is off. The conventions are
those of https://github.com/open-telemetry/semantic-conventions-genai, release 0.1.0.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, ClassVar

from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from ..core.errors import UserError
from ..core.events import (
    BudgetExhausted,
    CallFinished,
    CallStarted,
    ClaimChecked,
    Degraded,
    Event,
    EvidenceRetrieved,
    RunFailed,
    RunFinished,
    RunStarted,
    SampleFinished,
    StageFinished,
    StageStarted,
    VerificationFinished,
)
from ..core.messages import Completion
from ..core.version import __version__


class SpanNames:
    """Names of spans, operations and attributes."""

    # operations; span names start with them
    WORKFLOW, AGENT, CHAT, COMPLETION = "invoke_workflow", "invoke_agent", "chat", "text_completion"
    EMBEDDINGS, RETRIEVAL, TOOL = "embeddings", "retrieval", "execute_tool"

    OPERATION = "gen_ai.operation.name"
    PROVIDER = "gen_ai.provider.name"
    AGENT_NAME = "gen_ai.agent.name"
    TOOL_NAME = "gen_ai.tool.name"
    TOOL_TYPE = "gen_ai.tool.type"
    REQUEST_MODEL = "gen_ai.request.model"
    REQUEST_CHOICES = "gen_ai.request.choice.count"
    REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
    RESPONSE_MODEL = "gen_ai.response.model"
    FINISH_REASONS = "gen_ai.response.finish_reasons"
    INPUT_TOKENS = "gen_ai.usage.input_tokens"
    OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
    CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
    REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"
    EVALUATION = "gen_ai.evaluation.result"
    EVALUATION_NAME = "gen_ai.evaluation.name"
    EVALUATION_LABEL = "gen_ai.evaluation.score.label"
    EVALUATION_VALUE = "gen_ai.evaluation.score.value"
    DATA_SOURCE = "gen_ai.data_source.id"
    ERROR_TYPE = "error.type"

    # content of users and models; recorded only on request
    INPUT_MESSAGES = "gen_ai.input.messages"
    OUTPUT_MESSAGES = "gen_ai.output.messages"
    TOOL_RESULT = "gen_ai.tool.call.result"

    # totals of a run; a `gen_ai.usage.*` or model of the run's own would be counted again by what sums its calls
    RUN_ID = "reason.run.id"
    RUN_MODEL = "reason.run.model"
    RUN_SEED = "reason.run.seed"
    RUN_INPUT_TOKENS = "reason.run.input_tokens"
    RUN_OUTPUT_TOKENS = "reason.run.output_tokens"
    RUN_CACHED_TOKENS = "reason.run.cached_tokens"
    REQUEST_ID = "reason.request.id"
    STRATEGY = "reason.strategy"
    RESUMED = "reason.run.resumed"
    STOPPED = "reason.run.stopped"
    COST_USD = "reason.cost.usd"
    MODEL_CALLS = "reason.model_calls"
    ROLE = "reason.role"
    CALL = "reason.call.operation"
    REPLAYED = "reason.call.replayed"
    FAILED = "reason.call.failed"
    CLAIMS = "reason.retrieval.claims"
    PASSAGES = "reason.retrieval.passages"
    STAGE = "reason.stage"
    EXHAUSTED = "reason.budget.exhausted"
    LIMIT_KIND = "reason.budget.kind"
    DEGRADED = "reason.degraded"
    WHAT = "reason.degraded.what"
    UNFINISHED = "reason.unfinished"

    WORKFLOW_OF_RUNS = "reason"
    CHECK_ARITHMETIC = "check_arithmetic"
    OPERATIONS: ClassVar[dict[str, str]] = {"generate": CHAT, "workers": CHAT, "embed": EMBEDDINGS}
    """Operation name by operation of a model call; all others are text completions that generate no tokens."""


_PROVIDERS = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}


def provider_of(model: str) -> str:
    """Return the provider of a model string: its name in the semantic conventions, else the string's own prefix."""
    prefix = model.partition("/")[0].lower()
    return _PROVIDERS.get(prefix, prefix)


MAX_ATTRIBUTE_CHARS = 32_000
"""Maximum length of a content attribute, in characters."""
_MAX_SAMPLES = 64
AGENT_STAGES = frozenset({"solve", "repair"})
_NO_SPAN_STAGES = frozenset({"route", "finish"})
_FINISH_REASONS = {"done": "stop", "user": "stop", "budget": "length", "cancelled": "error", "error": "error"}


class RunSpans:
    """An event sink that creates the spans of one run.

    Args:
        tracer: Creates the spans.
        traceparent: W3C trace context of the request; empty starts a new trace.
        tracestate: W3C trace state of the request.
        request_id: ID of the request.
        content: Whether spans may contain content of users and models.
        open_runs: Registry of unfinished runs, whose spans the server closes at shutdown.
        now_ns: Clock, in nanoseconds since the epoch; replaced in tests.
    """

    def __init__(
        self,
        tracer: Tracer,
        *,
        traceparent: str = "",
        tracestate: str = "",
        request_id: str = "",
        content: bool = False,
        open_runs: set[RunSpans] | None = None,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        carrier = {"traceparent": traceparent, "tracestate": tracestate} if traceparent else {}
        self._tracer, self._content, self._now_ns = tracer, content, now_ns
        self._outside: Context = TraceContextTextMapPropagator().extract(carrier, context=Context())
        self._request_id = request_id
        self._open_runs: set[RunSpans] = set() if open_runs is None else open_runs
        self._run: Span | None = None
        self._strategy = ""
        self._open: dict[int, Span] = {}
        """Unfinished spans, by the number of the event that started them."""
        self._above: dict[int, int] = {}
        """By event number: the nearest event with a span, the event itself or an ancestor; 0 is the run."""
        self._samples: dict[int, list[SampleFinished]] = {}

    def __call__(self, event: Event) -> None:
        """Start, update or end the span of an event."""
        if isinstance(event, RunStarted):
            self._begin_run(event)
        elif self._run is None:
            return
        elif isinstance(event, StageStarted):
            self._begin_stage(event)
        elif isinstance(event, CallStarted):
            self._begin_call(event)
        elif isinstance(event, SampleFinished):
            kept = self._samples.get(event.parent or 0)
            if kept is not None and len(kept) < _MAX_SAMPLES:
                kept.append(event)
        elif isinstance(event, CallFinished):
            self._end_call(event)
        elif isinstance(event, StageFinished):
            self._end(event.parent)
        elif isinstance(event, EvidenceRetrieved):
            self._add_retrieval_span(event)
        elif isinstance(event, ClaimChecked):
            if event.report.get("reason") == "program":
                self._add_program_span(event)
        elif isinstance(event, RunFinished | RunFailed):
            self._end_run(event)
        else:
            self._note(self._run, event)

    # -- the run

    def _begin_run(self, event: RunStarted) -> None:
        self._strategy = event.strategy
        attributes: dict[str, AttributeValue] = {
            SpanNames.OPERATION: SpanNames.WORKFLOW,
            SpanNames.AGENT_NAME: SpanNames.WORKFLOW_OF_RUNS,
            SpanNames.RUN_ID: event.run_id,
            SpanNames.STRATEGY: event.strategy,
            SpanNames.RUN_SEED: event.seed,
            SpanNames.RESUMED: event.resumed,
        }
        if self._request_id:
            attributes[SpanNames.REQUEST_ID] = self._request_id
        if main := event.models.get("main"):
            attributes[SpanNames.RUN_MODEL] = main
        if self._content:
            asked = {"role": "user", "parts": [_part("text", event.question.text)]}
            attributes[SpanNames.INPUT_MESSAGES] = json.dumps([asked])
        self._open_runs.add(self)
        self._run = self._tracer.start_span(
            f"{SpanNames.WORKFLOW} {SpanNames.WORKFLOW_OF_RUNS}",
            self._outside,
            SpanKind.INTERNAL,
            attributes,
            start_time=self._now_ns(),
        )

    def close(self) -> None:
        """End all unfinished spans; for a run that was released to another process and has no final event here."""
        run, self._run = self._run, None
        if run is not None:
            now = self._close_within()
            run.set_attribute(SpanNames.UNFINISHED, True)
            run.end(now)

    def _close_within(self) -> int:
        """End the unfinished spans within the run; returns the end time in nanoseconds."""
        now = self._now_ns()
        for span in reversed(self._open.values()):
            span.set_attribute(SpanNames.UNFINISHED, True)
            span.end(now)
        self._open.clear()
        self._samples.clear()
        self._open_runs.discard(self)
        return now

    def _end_run(self, event: RunFinished | RunFailed) -> None:
        run, self._run = self._run, None
        assert run is not None
        now = self._close_within()
        if isinstance(event, RunFailed):
            run.set_attribute(SpanNames.ERROR_TYPE, event.code)
            run.set_status(Status(StatusCode.ERROR, event.message[:MAX_ATTRIBUTE_CHARS] if self._content else None))
        else:
            answer, usage = event.answer, event.answer.usage
            run.set_attribute(SpanNames.STOPPED, answer.stopped)
            run.set_attribute(SpanNames.RUN_INPUT_TOKENS, usage.prompt_tokens)
            run.set_attribute(SpanNames.RUN_OUTPUT_TOKENS, usage.completion_tokens)
            run.set_attribute(SpanNames.RUN_CACHED_TOKENS, usage.cached_tokens)
            run.set_attribute(SpanNames.MODEL_CALLS, usage.model_calls)
            if usage.cost_usd is not None:
                run.set_attribute(SpanNames.COST_USD, usage.cost_usd)
            if self._content:
                told = _output_message(answer.thought, answer.text, _FINISH_REASONS[answer.stopped])
                run.set_attribute(SpanNames.OUTPUT_MESSAGES, json.dumps([told]))
        run.end(now)

    def _note(self, run: Span, event: Event) -> None:
        """Add a span event for an event that concerns the whole run."""
        now = self._now_ns()
        if isinstance(event, VerificationFinished):
            attributes: dict[str, AttributeValue] = {
                SpanNames.EVALUATION_NAME: " ".join(event.verification.verifiers) or "verification",
                SpanNames.EVALUATION_LABEL: event.verification.verdict,
            }
            if event.verification.support is not None:
                attributes[SpanNames.EVALUATION_VALUE] = event.verification.support
            run.add_event(SpanNames.EVALUATION, attributes, now)
        elif isinstance(event, BudgetExhausted):
            run.add_event(SpanNames.EXHAUSTED, {SpanNames.LIMIT_KIND: event.kind}, now)
        elif isinstance(event, Degraded):
            run.add_event(SpanNames.DEGRADED, {SpanNames.WHAT: event.what} if self._content else None, now)

    # -- spans within the run

    def _begin_stage(self, event: StageStarted) -> None:
        if event.stage in AGENT_STAGES:
            attributes: dict[str, AttributeValue] = {
                SpanNames.OPERATION: SpanNames.AGENT,
                SpanNames.AGENT_NAME: self._strategy,
            }
            self._begin(
                event,
                f"{SpanNames.AGENT} {self._strategy}",
                SpanKind.INTERNAL,
                {**attributes, SpanNames.STAGE: event.stage},
            )
        elif event.stage in _NO_SPAN_STAGES:
            self._above[event.number] = self._nearest(event.parent)
        else:
            self._begin(event, event.stage, SpanKind.INTERNAL, {SpanNames.STAGE: event.stage})

    def _begin_call(self, event: CallStarted) -> None:
        operation = SpanNames.OPERATIONS.get(event.operation, SpanNames.COMPLETION)
        attributes: dict[str, AttributeValue] = {
            SpanNames.OPERATION: operation,
            SpanNames.PROVIDER: provider_of(event.model),
            SpanNames.REQUEST_MODEL: event.model,
            SpanNames.ROLE: event.role,
            SpanNames.CALL: event.operation,
            SpanNames.REPLAYED: event.replayed,
        }
        if event.samples > 1:
            attributes[SpanNames.REQUEST_CHOICES] = event.samples
        if event.max_tokens:
            attributes[SpanNames.REQUEST_MAX_TOKENS] = event.max_tokens
        self._begin(event, f"{operation} {event.model}", SpanKind.CLIENT, attributes)
        self._samples[event.number] = []

    def _end_call(self, event: CallFinished) -> None:
        samples = self._samples.pop(event.parent or 0, [])
        span = self._open.get(event.parent or 0)
        if span is None:
            return
        span.set_attribute(SpanNames.RESPONSE_MODEL, event.model)
        span.set_attribute(SpanNames.INPUT_TOKENS, event.prompt_tokens)
        span.set_attribute(SpanNames.OUTPUT_TOKENS, event.tokens)
        span.set_attribute(SpanNames.CACHED_TOKENS, event.cached_tokens)
        if event.thinking_tokens:
            span.set_attribute(SpanNames.REASONING_TOKENS, event.thinking_tokens)
        if samples:
            span.set_attribute(SpanNames.FINISH_REASONS, [_finish_reason(one.completion) for one in samples])
        if self._content and samples:
            max_chars = MAX_ATTRIBUTE_CHARS // len(samples)
            told = [_completion_message(one.completion, max_chars) for one in samples]
            span.set_attribute(SpanNames.OUTPUT_MESSAGES, json.dumps(told))
        if event.failed:
            span.set_attribute(SpanNames.FAILED, event.failed)
            failure = next((f for one in samples if (f := one.completion.failure) is not None), None)
            span.set_attribute(SpanNames.ERROR_TYPE, failure.code if failure is not None else "sample_failed")
            span.set_status(Status(StatusCode.ERROR))
        self._end(event.parent)

    def _add_retrieval_span(self, event: EvidenceRetrieved) -> None:
        """Add the span of a finished retrieval; its start is computed from the duration."""
        now = self._now_ns()
        attributes: dict[str, AttributeValue] = {
            SpanNames.OPERATION: SpanNames.RETRIEVAL,
            SpanNames.DATA_SOURCE: event.retriever,
            SpanNames.CLAIMS: event.claims,
            SpanNames.PASSAGES: event.passages,
            SpanNames.REPLAYED: event.replayed,
        }
        span = self._tracer.start_span(
            f"{SpanNames.RETRIEVAL} {event.retriever}",
            self._context(event.parent),
            SpanKind.CLIENT,
            attributes,
            start_time=now - round(event.seconds * 1e9),
        )
        span.end(now)

    def _add_program_span(self, event: ClaimChecked) -> None:
        """Add the span of a program that checked a claim; it has no duration, since the event has none."""
        now = self._now_ns()
        attributes: dict[str, AttributeValue] = {
            SpanNames.OPERATION: SpanNames.TOOL,
            SpanNames.TOOL_NAME: SpanNames.CHECK_ARITHMETIC,
            SpanNames.TOOL_TYPE: "function",
        }
        if self._content:
            attributes[SpanNames.TOOL_RESULT] = str(event.report.get("program", ""))[:MAX_ATTRIBUTE_CHARS]
        span = self._tracer.start_span(
            f"{SpanNames.TOOL} {SpanNames.CHECK_ARITHMETIC}",
            self._context(event.parent),
            SpanKind.INTERNAL,
            attributes,
            start_time=now,
        )
        span.end(now)

    def _begin(self, event: Event, name: str, kind: SpanKind, attributes: dict[str, AttributeValue]) -> None:
        context = self._context(event.parent)
        self._open[event.number] = self._tracer.start_span(name, context, kind, attributes, start_time=self._now_ns())
        self._above[event.number] = event.number

    def _end(self, number: int | None) -> None:
        span = self._open.pop(number or 0, None)
        if span is not None:
            span.end(self._now_ns())

    def _context(self, parent: int | None) -> Context:
        """Parent context of a span: the nearest ancestor with a span if unfinished, else the run."""
        span = self._open.get(self._nearest(parent), self._run)
        assert span is not None
        return set_span_in_context(span, self._outside)

    def _nearest(self, parent: int | None) -> int:
        return self._above.get(parent or 0, 0)


def _finish_reason(completion: Completion) -> str:
    """The finish reason as the semantic conventions name it."""
    if completion.tool_calls:
        return "tool_call"
    reason = completion.finish_reason
    return {"thinking": "length", "budget": "length", "cancelled": "error"}.get(reason, reason)


def _part(kind: str, text: str, max_chars: int = MAX_ATTRIBUTE_CHARS) -> dict[str, str]:
    return {"type": kind, "content": text[:max_chars]}


def _output_message(
    thought: str, text: str, finish_reason: str, max_chars: int = MAX_ATTRIBUTE_CHARS
) -> dict[str, Any]:
    """A message of `gen_ai.output.messages`, the thought as a part of its own."""
    parts: list[dict[str, Any]] = [
        _part(kind, each, max_chars) for kind, each in (("reasoning", thought), ("text", text)) if each
    ]
    return {"role": "assistant", "parts": parts, "finish_reason": finish_reason}


def _completion_message(completion: Completion, max_chars: int) -> dict[str, Any]:
    thought = "" if completion.thought is None else completion.thought.text
    message = _output_message(thought, completion.text, _finish_reason(completion), max_chars)
    message["parts"] += [
        {"type": "tool_call", "id": call.id or None, "name": call.name, "arguments": call.arguments[:max_chars]}
        for call in completion.tool_calls
    ]
    return message


_OTLP = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}


def open_tracing(environ: Mapping[str, str]) -> TracerProvider | None:
    """Create a tracer provider from OpenTelemetry's environment variables; None if they select no exporter.

    Raises:
        UserError: A selected exporter is unknown or not installed.
    """
    names = exporters_named(environ)
    if not names:
        return None
    provider = TracerProvider(resource=_resource(environ))
    for name in names:
        provider.add_span_processor(BatchSpanProcessor(_load_exporter(name)))
    return provider


def _resource(environ: Mapping[str, str]) -> Resource:
    """The resource of the spans; each process is an instance of its own."""
    named = {} if "OTEL_SERVICE_NAME" in environ else {SERVICE_NAME: "reason"}
    own = {"service.version": __version__, SERVICE_INSTANCE_ID: str(uuid.uuid4())}
    return Resource.create(named).merge(Resource(own))


async def close_tracing(provider: TracerProvider) -> None:
    """Flush pending spans (at most 5 s, so that an unreachable collector does not block the shutdown) and shut down."""
    await asyncio.to_thread(provider.force_flush, 5000)
    await asyncio.to_thread(provider.shutdown)


def exporters_named(environ: Mapping[str, str]) -> list[str]:
    """Return the entry point names of the span exporters that the environment selects."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    own = "OTEL_EXPORTER_OTLP_TRACES"
    exporters = environ.get("OTEL_TRACES_EXPORTER", "").strip()
    if not exporters:
        is_set = environ.get(f"{own}_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        exporters = "otlp" if is_set else "none"
    protocol = environ.get(f"{own}_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    otlp = _OTLP.get((protocol or "http/protobuf").strip(), "otlp")
    named = [one.strip() for one in exporters.split(",")]
    return [otlp if one == "otlp" else one for one in named if one not in ("", "none")]


def _load_exporter(name: str) -> SpanExporter:
    matches = list(entry_points(group="opentelemetry_traces_exporter", name=name))
    if not matches:
        raise UserError(
            f"the span exporter {name!r} is not installed",
            hint="pip install opentelemetry-exporter-otlp-proto-http, or set OTEL_TRACES_EXPORTER=none",
        )
    exporter: SpanExporter = matches[0].load()()
    return exporter
