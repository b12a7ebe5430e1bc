"""`Metrics`: the Prometheus metrics of the sidecar; the only place that defines their names.

Label values never contain text of users, models or plug-ins: strategies are registered names, roles, phases, kinds and
verdicts come from fixed sets, and routes are patterns. Any other value becomes "other".

Each app has its own registry. When several processes serve one port, a scrape reaches one of them. If
`PROMETHEUS_MULTIPROC_DIR` is set before they start, they share metrics through files, and each exposes the sums.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, get_args

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from ..core.budget import LimitKind
from ..core.clock import monotonic
from ..core.errors import AuthenticationError, KeyLimitExceeded, PermissionDenied, ServerBusy, ShuttingDown
from ..core.events import (
    BudgetCharged,
    BudgetExhausted,
    CallFinished,
    CallStarted,
    Event,
    RunFailed,
    RunFinished,
    RunStarted,
    SampleFinished,
    Sink,
    StageStarted,
    ToolFinished,
    ToolStarted,
    VerificationFinished,
)
from ..core.types import Stopped, Verdict

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
_ROLES = frozenset({"main", "small", "judge", "reward", "juror", "embedding", "entailment", "retriever"})
_STAGES = frozenset({"route", "solve", "verify", "repair", "finish"})
_OUTCOMES = frozenset(get_args(Stopped))
_VERDICTS = frozenset(get_args(Verdict))
_KINDS = frozenset(get_args(LimitKind))
_REFUSALS = frozenset(
    kind.code
    for kind in (
        AuthenticationError,
        KeyLimitExceeded,
        PermissionDenied,
        ServerBusy,
        ShuttingDown,
    )
) | {
    "too_large",
    "too_slow",
    "foreign_page",
    "headers_too_large",
}
_OTHER = "other"


class Metrics:
    """The metrics of one app.

    Args:
        strategies: Allowed values of the label `strategy`.
    """

    def __init__(self, strategies: frozenset[str]) -> None:
        self.registry = CollectorRegistry()
        self._strategies = strategies

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(name, about, labels, registry=self.registry)

        def histogram(name: str, about: str, *labels: str) -> Histogram:
            return Histogram(name, about, labels, registry=self.registry, buckets=_SECONDS)

        def gauge(name: str, about: str) -> Gauge:
            return Gauge(name, about, registry=self.registry, multiprocess_mode="livesum")

        self.requests = counter("reason_requests_total", "Finished runs by outcome.", "strategy", "outcome")
        self.duration = histogram(
            "reason_request_duration_seconds", "Time from request to end of a run, including queueing.", "strategy"
        )
        self.first_event = histogram(
            "reason_time_to_first_event_seconds", "Time from request to first event of a run.", "strategy"
        )
        self.calls = counter(
            "reason_model_calls_total", "Model calls, excluding those replayed from the run store.", "role"
        )
        self.tokens = counter("reason_tokens_total", "Tokens, excluding replayed samples.", "direction", "role")
        self.thinking_tokens = counter(
            "reason_thinking_tokens_total", "Output tokens that are thoughts, excluding replayed samples.", "role"
        )
        self.cost = counter("reason_cost_usd_total", "Cost in US dollars of calls with known prices.")
        self.tool_calls = counter(
            "reason_tool_calls_total", "Tool calls, excluding those replayed from the run store.", "effect", "outcome"
        )
        self.tool_duration = histogram("reason_tool_call_duration_seconds", "Time of a tool call.", "effect")
        self.in_flight = gauge("reason_runs_in_flight", "Runs in flight.")
        self.queued = gauge("reason_runs_queued", "Runs waiting for a slot.")
        self.waiting = Gauge(  # each process reports that of all
            "reason_runs_waiting",
            "Runs in the store that wait for decisions about tool calls or for their results.",
            registry=self.registry,
            multiprocess_mode="livemostrecent",
        )
        self.cancelled = counter("reason_cancelled_total", "Cancelled runs by stage.", "phase")
        self.exhausted = counter("reason_budget_exhausted_total", "Exhausted budget limits by kind.", "kind")
        self.verdicts = counter("reason_verdicts_total", "Verdicts on answers by label.", "label")
        self.claims = counter("reason_claim_verdicts_total", "Verdicts on claims by label.", "label")
        self.refused = counter("reason_refused_total", "Rejected requests by reason.", "why")
        self.http = counter("reason_http_requests_total", "HTTP requests.", "method", "route", "status")
        self.http_duration = histogram(
            "reason_http_request_duration_seconds", "Time from request headers to response end.", "method", "route"
        )

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format, summed over the processes that share a metrics directory."""
        if MULTIPROCESS not in os.environ:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)

    def close(self) -> None:
        """Remove the gauges of this process from a shared metrics directory."""
        if MULTIPROCESS in os.environ:
            mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]

    # -- observers

    def observe_admission(self, in_flight: int, queued: int) -> None:
        """Record the number of runs in flight and waiting for a slot; an `AdmissionObserver`."""
        self.in_flight.set(in_flight)
        self.queued.set(queued)

    def observe_request(self, method: str, route: str, status: int, seconds: float, code: str = "") -> None:
        """Count an HTTP request, and its error code if it was rejected; a `RequestObserver`."""
        self.http.labels(method, route, str(status)).inc()
        self.http_duration.labels(method, route).observe(seconds)
        if code in _REFUSALS:
            self.refused.labels(code).inc()

    def observe_abandoned(self) -> None:
        """Count a run that was cancelled while it waited for a slot."""
        self.cancelled.labels("queued").inc()

    def run_sink(self, strategy: str, requested_at_s: float | None = None) -> Sink:
        """Create an event sink for one run.

        Args:
            strategy: Strategy of the run.
            requested_at_s: Time of the request (`core.clock.monotonic`), in seconds; None means now.
        """
        known = strategy if strategy in self._strategies else _OTHER
        return _RunMeter(self, known, monotonic() if requested_at_s is None else requested_at_s)

    @staticmethod
    def role(role: str) -> str:
        """The label for a role; all jurors share one."""
        name = "juror" if role.startswith("juror-") else role
        return name if name in _ROLES else _OTHER


class _RunMeter:
    """Counts the events of one run.

    Samples replayed from the store add neither tokens nor cost. The total cost of a resumed run includes its spending
    before the resume, which was counted earlier.
    """

    def __init__(self, metrics: Metrics, strategy: str, requested_at_s: float) -> None:
        self._metrics, self._strategy, self._requested_at_s = metrics, strategy, requested_at_s
        self._seen = self._ended = False
        self._phase = "starting"
        self._calls: dict[int, _CallProgress] = {}
        self._tools: dict[int, str] = {}
        """Effects of the tool calls in flight."""
        self._usd: float | None = 0.0
        """The run's total cost as last reported; None until the first report of a resumed run."""

    def __call__(self, event: Event) -> None:
        """Count the event."""
        if not self._seen:
            self._seen = True
            self._metrics.first_event.labels(self._strategy).observe(monotonic() - self._requested_at_s)
        count = _COUNTED.get(type(event))
        if count is not None:
            count(self, event)

    def _begin(self, event: RunStarted) -> None:
        self._usd = None if event.resumed else 0.0

    def _enter_stage(self, event: StageStarted) -> None:
        stage = "solve" if event.stage.startswith("turn ") else event.stage
        self._phase = stage if stage in _STAGES else self._phase

    def _begin_tool(self, event: ToolStarted) -> None:
        self._tools[event.number] = event.effect

    def _count_tool(self, event: ToolFinished) -> None:
        effect = self._tools.pop(event.parent or 0, None)
        if effect is None or event.is_replayed:
            return
        self._metrics.tool_calls.labels(effect, "error" if event.is_error else "done").inc()
        self._metrics.tool_duration.labels(effect).observe(event.seconds)

    def _begin_call(self, event: CallStarted) -> None:
        self._calls[event.number] = _CallProgress(event)

    def _count_sample(self, event: SampleFinished) -> None:
        call = self._calls.get(event.parent or 0)
        if call is not None:
            call.add(event)

    def _count_exhausted(self, event: BudgetExhausted) -> None:
        self._metrics.exhausted.labels(_label_or_other(event.kind, _KINDS)).inc()

    def _count_verdicts(self, event: VerificationFinished) -> None:
        self._metrics.verdicts.labels(_label_or_other(event.verification.verdict, _VERDICTS)).inc()
        for claim in event.verification.claims:
            self._metrics.claims.labels(_label_or_other(claim.verdict, _VERDICTS)).inc()

    def _finish(self, event: RunFinished) -> None:
        self._end(_label_or_other(event.answer.stopped, _OUTCOMES))

    def _fail(self, _: RunFailed) -> None:
        self._end("error")

    def _count_call(self, event: CallFinished) -> None:
        call = self._calls.get(event.parent or 0)
        if call is None or call.replayed or call.ended:
            return
        call.ended = True
        metrics, role = self._metrics, Metrics.role(event.role)
        metrics.calls.labels(role).inc()
        metrics.tokens.labels("input", role).inc(call.prompt_tokens if call.sampled else event.prompt_tokens)
        metrics.tokens.labels("output", role).inc(call.tokens if call.sampled else event.tokens)
        metrics.thinking_tokens.labels(role).inc(call.thinking_tokens if call.sampled else event.thinking_tokens)

    def _count_dollars(self, event: BudgetCharged) -> None:
        """Count the cost that a call added to the run's total, without its replayed samples."""
        call = self._calls.get(event.parent or 0)
        before, self._usd = self._usd, event.total_usd
        if call is not None and call.ended:
            del self._calls[event.parent or 0]
        if event.total_usd is None or call is None or call.replayed:
            return
        if call.sampled:  # a long call is charged in several parts
            self._metrics.cost.inc(call.usd)
            call.usd = 0.0
        elif before is not None:
            self._metrics.cost.inc(max(0.0, event.total_usd - before))

    def _end(self, outcome: str) -> None:
        if self._ended:
            return
        self._ended = True
        self._calls.clear()
        metrics = self._metrics
        if outcome == "cancelled":
            metrics.cancelled.labels(self._phase).inc()
        metrics.requests.labels(self._strategy, outcome).inc()
        metrics.duration.labels(self._strategy).observe(monotonic() - self._requested_at_s)


_COUNTED: dict[type[Event], Callable[[_RunMeter, Any], None]] = {
    RunStarted: _RunMeter._begin,
    StageStarted: _RunMeter._enter_stage,
    ToolStarted: _RunMeter._begin_tool,
    ToolFinished: _RunMeter._count_tool,
    CallStarted: _RunMeter._begin_call,
    SampleFinished: _RunMeter._count_sample,
    CallFinished: _RunMeter._count_call,
    BudgetCharged: _RunMeter._count_dollars,
    BudgetExhausted: _RunMeter._count_exhausted,
    VerificationFinished: _RunMeter._count_verdicts,
    RunFinished: _RunMeter._finish,
    RunFailed: _RunMeter._fail,
}
"""How each type of event is counted; a run has a hundred events, and most are not."""


class _CallProgress:
    """One model call, with the tokens and the cost of its samples that were not replayed."""

    def __init__(self, started: CallStarted) -> None:
        self.replayed = started.samples > 0 and started.replayed >= started.samples
        self.sampled = self.ended = False
        self.tokens = self.thinking_tokens = self.prompt_tokens = 0
        self.usd = 0.0

    def add(self, event: SampleFinished) -> None:
        self.sampled = True
        if event.replayed:
            return
        usage = event.completion.usage
        self.tokens += usage.completion_tokens
        self.thinking_tokens += usage.thinking_tokens
        self.prompt_tokens += usage.prompt_tokens
        self.usd += usage.cost_usd or 0.0


def _label_or_other(name: str, known: frozenset[str]) -> str:
    return name if name in known else _OTHER


@contextmanager
def shared_metrics() -> Iterator[None]:
    """Let the processes started within the context share their metrics through a temporary directory.

    If `PROMETHEUS_MULTIPROC_DIR` is already set, that directory is used and not cleaned up.
    """
    if MULTIPROCESS in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="reason-metrics-") as folder:
        os.environ[MULTIPROCESS] = folder
        try:
            yield
        finally:
            del os.environ[MULTIPROCESS]
