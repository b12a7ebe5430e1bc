"""`RunSpans`: a run's events as OpenTelemetry spans.

A run is a workflow, its strategy an agent, a call of a model a chat, a look for evidence a retrieval. Where the request
came with a `traceparent`, the run belongs to that trace.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from ...core.events import (
    BudgetExhausted,
    CallFinished,
    CallStarted,
    Degraded,
    EventFields,
    PassagesFound,
    RunFailed,
    RunFinished,
    RunStarted,
    SampleFinished,
    StageFinished,
    StageStarted,
    Verified,
)
from . import span_names as names

LONGEST = 32_000
"""Most characters of an attribute with content."""
_MOST_SAMPLES = 64
_AGENT_STAGES = frozenset({"solve", "repair"})
_NO_SPAN_STAGES = frozenset({"route", "finish"})


class RunSpans:
    """A sink that makes the spans of one run.

    Args:
        tracer: Makes spans.
        traceparent: The request's W3C trace context; empty begins a trace.
        tracestate: What goes with it.
        request_id: The request's name.
        content: Whether spans may hold what users and models say.
        open_runs: Where runs under way are noted, for `close`.
        now_ns: Nanoseconds since the epoch; replaced in tests.
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
        """Spans under way, by the number of the event that began them."""
        self._above: dict[int, int] = {}
        """For events under which others may stand and that have no span: the nearest one above that has, or 0."""
        self._samples: dict[int, list[SampleFinished]] = {}

    def __call__(self, event: EventFields) -> None:
        """Make, change or end the span that the event is about."""
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
            if kept is not None and len(kept) < _MOST_SAMPLES:
                kept.append(event)
        elif isinstance(event, CallFinished):
            self._end_call(event)
        elif isinstance(event, StageFinished):
            self._end(event.parent)
        elif isinstance(event, PassagesFound):
            self._tell_retrieval(event)
        elif isinstance(event, RunFinished | RunFailed):
            self._end_run(event)
        else:
            self._note(self._run, event)

    # -- the run

    def _begin_run(self, event: RunStarted) -> None:
        self._strategy = event.strategy
        told: dict[str, AttributeValue] = {
            names.OPERATION: names.WORKFLOW,
            names.WORKFLOW_NAME: names.WORKFLOW_OF_RUNS,
            names.RUN_ID: event.run_id,
            names.STRATEGY: event.strategy,
            names.REQUEST_SEED: event.seed,
            names.RESUMED: event.resumed,
        }
        if self._request_id:
            told[names.REQUEST_ID] = self._request_id
        if main := event.models.get("main"):
            told[names.REQUEST_MODEL] = main
        if self._content:
            told[names.INPUT_MESSAGES] = _messages("user", event.question.text)
        self._open_runs.add(self)
        self._run = self._tracer.start_span(
            f"{names.WORKFLOW} {names.WORKFLOW_OF_RUNS}",
            self._outside,
            SpanKind.INTERNAL,
            told,
            start_time=self._now_ns(),
        )

    def close(self) -> None:
        """End what is under way: of a run that was given up to another process, which tells no end."""
        run, self._run = self._run, None
        if run is not None:
            now = self._close_within()
            run.set_attribute(names.UNFINISHED, True)
            run.end(now)

    def _close_within(self) -> int:
        """End the spans within a run that ends, half-way perhaps; returns when that was."""
        now = self._now_ns()
        for span in reversed(self._open.values()):
            span.set_attribute(names.UNFINISHED, True)
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
            run.set_attribute(names.ERROR_TYPE, event.code)
            run.set_status(Status(StatusCode.ERROR, event.message[:LONGEST] if self._content else None))
        else:
            answer, usage = event.answer, event.answer.usage
            run.set_attribute(names.STOPPED, answer.stopped)
            run.set_attribute(names.INPUT_TOKENS, usage.prompt_tokens)
            run.set_attribute(names.OUTPUT_TOKENS, usage.completion_tokens)
            run.set_attribute(names.CACHED_TOKENS, usage.cached_tokens)
            run.set_attribute(names.MODEL_CALLS, usage.model_calls)
            if usage.cost_usd is not None:
                run.set_attribute(names.COST_USD, usage.cost_usd)
            if self._content:
                run.set_attribute(names.OUTPUT_MESSAGES, _messages("assistant", answer.text))
        run.end(now)

    def _note(self, run: Span, event: EventFields) -> None:
        """What is told of the run as a whole."""
        now = self._now_ns()
        if isinstance(event, Verified):
            told: dict[str, AttributeValue] = {
                names.EVALUATION_NAME: " ".join(event.verification.verifiers) or "verification",
                names.EVALUATION_LABEL: event.verification.verdict,
            }
            if event.verification.confidence is not None:
                told[names.EVALUATION_VALUE] = event.verification.confidence
            run.add_event(names.EVALUATION, told, now)
        elif isinstance(event, BudgetExhausted):
            run.add_event(names.EXHAUSTED, {names.LIMIT_KIND: event.kind}, now)
        elif isinstance(event, Degraded):
            run.add_event(names.DEGRADED, {names.WHAT: event.what} if self._content else None, now)

    # -- within it

    def _begin_stage(self, event: StageStarted) -> None:
        if event.stage in _AGENT_STAGES:
            told: dict[str, AttributeValue] = {names.OPERATION: names.AGENT, names.AGENT_NAME: self._strategy}
            self._begin(event, f"{names.AGENT} {self._strategy}", SpanKind.INTERNAL, {**told, names.STAGE: event.stage})
        elif event.stage in _NO_SPAN_STAGES:
            self._above[event.number] = self._nearest(event.parent)
        else:
            self._begin(event, event.stage, SpanKind.INTERNAL, {names.STAGE: event.stage})

    def _begin_call(self, event: CallStarted) -> None:
        operation = names.OPERATIONS.get(event.operation, names.COMPLETION)
        told: dict[str, AttributeValue] = {
            names.OPERATION: operation,
            names.PROVIDER: names.provider_of(event.model),
            names.REQUEST_MODEL: event.model,
            names.ROLE: event.role,
            names.CALL: event.operation,
            names.REPLAYED: event.replayed,
        }
        if event.samples > 1:
            told[names.REQUEST_CHOICES] = event.samples
        if event.max_tokens:
            told[names.REQUEST_MAX_TOKENS] = event.max_tokens
        self._begin(event, f"{operation} {event.model}", SpanKind.CLIENT, told)
        self._samples[event.number] = []

    def _end_call(self, event: CallFinished) -> None:
        samples = self._samples.pop(event.parent or 0, [])
        span = self._open.get(event.parent or 0)
        if span is None:
            return
        span.set_attribute(names.RESPONSE_MODEL, event.model)
        span.set_attribute(names.INPUT_TOKENS, event.prompt_tokens)
        span.set_attribute(names.OUTPUT_TOKENS, event.tokens)
        span.set_attribute(names.CACHED_TOKENS, event.cached_tokens)
        thoughts = sum(one.completion.usage.reasoning_tokens for one in samples)
        if thoughts:
            span.set_attribute(names.REASONING_TOKENS, thoughts)
        if samples:
            span.set_attribute(names.FINISH_REASONS, [one.completion.finish_reason for one in samples])
        if self._content and samples:
            span.set_attribute(names.OUTPUT_MESSAGES, _messages("assistant", *(one.completion.text for one in samples)))
        if event.failed:
            span.set_attribute(names.FAILED, event.failed)
            failure = next((f for one in samples if (f := one.completion.failure) is not None), None)
            span.set_attribute(names.ERROR_TYPE, failure.code if failure is not None else "sample_failed")
            span.set_status(Status(StatusCode.ERROR))
        self._end(event.parent)

    def _tell_retrieval(self, event: PassagesFound) -> None:
        """A look for evidence is told when it is over."""
        now = self._now_ns()
        told: dict[str, AttributeValue] = {
            names.OPERATION: names.RETRIEVAL,
            names.DATA_SOURCE: event.retriever,
            names.CLAIMS: event.claims,
            names.PASSAGES: event.passages,
            names.REPLAYED: event.replayed,
        }
        span = self._tracer.start_span(
            f"{names.RETRIEVAL} {event.retriever}",
            self._context(event.parent),
            SpanKind.CLIENT,
            told,
            start_time=now - round(event.seconds * 1e9),
        )
        span.end(now)

    def _begin(self, event: EventFields, name: str, kind: SpanKind, told: dict[str, AttributeValue]) -> None:
        context = self._context(event.parent)
        self._open[event.number] = self._tracer.start_span(name, context, kind, told, start_time=self._now_ns())
        self._above[event.number] = event.number

    def _end(self, number: int | None) -> None:
        span = self._open.pop(number or 0, None)
        if span is not None:
            span.end(self._now_ns())

    def _context(self, parent: int | None) -> Context:
        """Where a span belongs: under the nearest one above that is under way, else under the run."""
        span = self._open.get(self._nearest(parent), self._run)
        assert span is not None
        return set_span_in_context(span, self._outside)

    def _nearest(self, parent: int | None) -> int:
        return self._above.get(parent or 0, 0)


def _messages(role: str, *texts: str) -> str:
    """Messages as the conventions write them in an attribute."""
    most = LONGEST // max(1, len(texts))
    told = [{"role": role, "parts": [{"type": "text", "content": text[:most]}]} for text in texts]
    return json.dumps(told)
