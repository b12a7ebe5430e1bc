"""`RunSpans`: a run's events as OpenTelemetry spans, named by the GenAI semantic conventions 0.1.0 and `reason.*`.

OpenTelemetry's environment variables select the exporters. Without an exporter, tracing is off. The conventions are
those of https://github.com/open-telemetry/semantic-conventions-genai, release 0.1.0.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points

from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from ..core.errors import UserError
from ..core.events import (
    CallFinished,
    CallStarted,
    Event,
    EvidenceRetrieved,
    RunFailed,
    RunFinished,
    RunStarted,
    SampleFinished,
    StageFinished,
    StageStarted,
    ToolFinished,
    ToolStarted,
    VerificationFinished,
)
from ..core.messages import Completion
from ..core.version import __version__

_AGENT_STAGES = frozenset({"solve", "repair"})
_NO_SPAN_STAGES = frozenset({"route", "finish"})
_OPERATIONS = {"generate": "chat", "workers": "chat", "embed": "embeddings"}
"""Operation name by operation of a model call; all others are text completions that generate no tokens."""
_MAX_SAMPLES = 64
_AGENT = -1
"""Key in `_open` of the agent span: with tools, it has all turns, and each turn the calls that it made."""


class RunSpans:
    """An event sink that creates the spans of one run; they have no content of users and models.

    Totals of a run are `reason.run.*`: a `gen_ai.usage.*` of its own would be counted again by what sums its calls.

    Args:
        tracer: Creates the spans.
        traceparent: W3C trace context of the request; empty starts a new trace.
        tracestate: W3C trace state of the request.
        request_id: ID of the request.
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
        open_runs: set[RunSpans] | None = None,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        carrier = {"traceparent": traceparent, "tracestate": tracestate} if traceparent else {}
        self._tracer, self._now_ns = tracer, now_ns
        self._outside: Context = TraceContextTextMapPropagator().extract(carrier, context=Context())
        self._request_id = request_id
        self._open_runs: set[RunSpans] = set() if open_runs is None else open_runs
        self._run: Span | None = None
        self._strategy = ""
        self._open: dict[int, Span] = {}
        """Unfinished spans, by the number of the event that started them."""
        self._above: dict[int, int] = {}
        """By event number: the nearest event with a span, the event itself or an ancestor; 0 is the run."""
        self._samples: dict[int, list[Completion]] = {}
        self._turn = 0
        """The stage of the current turn of a run with tools, whose span ends with the calls that it made."""

    def __call__(self, event: Event) -> None:
        """Start, update or end the span of an event."""
        if isinstance(event, RunStarted):
            self._begin_run(event)
        if self._run is None:
            return
        match event:
            case StageStarted():
                self._begin_stage(event)
            case CallStarted():
                self._begin_call(event)
            case SampleFinished():
                kept = self._samples.get(event.parent or 0)
                if kept is not None and len(kept) < _MAX_SAMPLES:
                    kept.append(event.completion)
            case CallFinished():
                self._end_call(event)
            case StageFinished():
                if event.parent != self._turn:
                    self._end(event.parent)
            case ToolStarted():
                self._begin_tool(event)
            case ToolFinished():
                self._end_tool(event)
            case EvidenceRetrieved():
                self._add_retrieval_span(event)
            case VerificationFinished(verification=verification):
                attributes: dict[str, AttributeValue] = {
                    "gen_ai.evaluation.name": " ".join(verification.verifiers) or "verification",
                    "gen_ai.evaluation.score.label": verification.verdict,
                }
                if verification.support is not None:
                    attributes["gen_ai.evaluation.score.value"] = verification.support
                self._run.add_event("gen_ai.evaluation.result", attributes, self._now_ns())
            case RunFinished(answer=answer):
                usage = answer.usage
                self._run.set_attributes(
                    {
                        "reason.run.stopped": answer.stopped,
                        "reason.run.input_tokens": usage.prompt_tokens,
                        "reason.run.output_tokens": usage.completion_tokens,
                        "reason.run.cached_tokens": usage.cached_tokens,
                        "reason.model_calls": usage.model_calls,
                        **({} if usage.cost_usd is None else {"reason.cost.usd": usage.cost_usd}),
                    }
                )
                self._end_turn()
                self._end(_AGENT)
                self._end_run()
            case RunFailed(code=code):
                self._run.set_attribute("error.type", code)
                self._run.set_status(Status(StatusCode.ERROR))
                self._end_run()

    def close(self) -> None:
        """End all unfinished spans; for a run that was released to another process and has no final event here."""
        if self._run is not None:
            self._run.set_attribute("reason.unfinished", True)
            self._end_run()

    def _begin_run(self, event: RunStarted) -> None:
        self._strategy = event.strategy
        attributes: dict[str, AttributeValue] = {
            "gen_ai.operation.name": "invoke_workflow",
            "gen_ai.agent.name": "reason",
            "reason.run.id": event.run_id,
            "reason.strategy": event.strategy,
            "reason.run.seed": event.seed,
            "reason.run.resumed": event.resumed,
            "reason.run.model": event.models.get("main", ""),
            "reason.request.id": self._request_id,
        }
        self._open_runs.add(self)
        self._run = self._tracer.start_span(
            "invoke_workflow reason", self._outside, SpanKind.INTERNAL, attributes, start_time=self._now_ns()
        )

    def _end_run(self) -> None:
        run, self._run = self._run, None
        assert run is not None
        now = self._now_ns()
        for span in reversed(self._open.values()):
            span.set_attribute("reason.unfinished", True)
            span.end(now)
        self._open.clear()
        self._samples.clear()
        self._open_runs.discard(self)
        run.end(now)

    def _begin_stage(self, event: StageStarted) -> None:
        attributes: dict[str, AttributeValue] = {"reason.stage": event.stage}
        agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": self._strategy}
        if event.parent is None:
            self._end_turn()
        if event.stage.startswith("turn ") and event.parent is None:
            if _AGENT not in self._open:
                self._open_span(_AGENT, None, f"invoke_agent {self._strategy}", SpanKind.INTERNAL, agent)
                self._above[0] = _AGENT
            self._begin(event, event.stage, SpanKind.INTERNAL, attributes)
            self._turn = self._above[0] = event.number
        elif event.stage in _AGENT_STAGES:
            self._begin(event, f"invoke_agent {self._strategy}", SpanKind.INTERNAL, {**agent, **attributes})
        elif event.stage in _NO_SPAN_STAGES:
            self._above[event.number] = self._nearest(event.parent)
        else:
            self._begin(event, event.stage, SpanKind.INTERNAL, attributes)

    def _begin_call(self, event: CallStarted) -> None:
        operation = _OPERATIONS.get(event.operation, "text_completion")
        attributes: dict[str, AttributeValue] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": event.model.partition("/")[0],
            "gen_ai.request.model": event.model,
            "gen_ai.request.choice.count": event.samples,
            "reason.role": event.role,
            "reason.call.operation": event.operation,
            "reason.call.replayed": event.replayed,
        }
        if event.max_tokens:
            attributes["gen_ai.request.max_tokens"] = event.max_tokens
        self._begin(event, f"{operation} {event.model}", SpanKind.CLIENT, attributes)
        self._samples[event.number] = []

    def _end_call(self, event: CallFinished) -> None:
        samples = self._samples.pop(event.parent or 0, [])
        span = self._open.get(event.parent or 0)
        if span is None:
            return
        span.set_attributes(
            {
                "gen_ai.response.model": event.model,
                "gen_ai.usage.input_tokens": event.prompt_tokens,
                "gen_ai.usage.output_tokens": event.tokens,
                "gen_ai.usage.cache_read.input_tokens": event.cached_tokens,
                "gen_ai.usage.reasoning.output_tokens": event.thinking_tokens,
                "gen_ai.response.finish_reasons": [_finish_reason(completion) for completion in samples],
            }
        )
        if event.failed:
            failures = (completion.failure for completion in samples if completion.failure is not None)
            span.set_attribute("error.type", next((failure.code for failure in failures), "sample_failed"))
            span.set_status(Status(StatusCode.ERROR))
        self._end(event.parent)

    def _end_turn(self) -> None:
        if self._turn:
            self._end(self._turn)
            self._turn, self._above[0] = 0, _AGENT

    def _begin_tool(self, event: ToolStarted) -> None:
        attributes: dict[str, AttributeValue] = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": event.tool,
            "gen_ai.tool.call.id": event.call,
            "gen_ai.tool.type": "function",
            "reason.tool.effect": event.effect,
        }
        self._begin(event, f"execute_tool {event.tool}", SpanKind.INTERNAL, attributes)

    def _end_tool(self, event: ToolFinished) -> None:
        span = self._open.get(event.parent or 0)
        if span is None:  # a call that was refused before it began
            return
        span.set_attribute("reason.call.replayed", event.is_replayed)
        if event.is_error:
            span.set_attribute("error.type", "tool_error")
            span.set_status(Status(StatusCode.ERROR))
        self._end(event.parent)

    def _add_retrieval_span(self, event: EvidenceRetrieved) -> None:
        """Add the span of a finished retrieval; its start is computed from the duration."""
        now = self._now_ns()
        attributes: dict[str, AttributeValue] = {
            "gen_ai.operation.name": "retrieval",
            "gen_ai.data_source.id": event.retriever,
            "reason.retrieval.claims": event.claims,
            "reason.retrieval.passages": event.passages,
            "reason.call.replayed": event.replayed,
        }
        name, start = f"retrieval {event.retriever}", now - round(event.seconds * 1e9)
        context = self._context(event.parent)
        self._tracer.start_span(name, context, SpanKind.CLIENT, attributes, start_time=start).end(now)

    def _begin(self, event: Event, name: str, kind: SpanKind, attributes: dict[str, AttributeValue]) -> None:
        self._open_span(event.number, event.parent, name, kind, attributes)

    def _open_span(
        self, number: int, parent: int | None, name: str, kind: SpanKind, attributes: Mapping[str, AttributeValue]
    ) -> None:
        context = self._context(parent)
        self._open[number] = self._tracer.start_span(name, context, kind, attributes, start_time=self._now_ns())
        self._above[number] = number

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
