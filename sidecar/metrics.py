"""`Metrics`: what Prometheus is reported, under the names that stand here and nowhere else.

No label holds what a user, a model or a plug-in states: strategies are those that are registered, roles, phases, kinds
and verdicts are from lists, routes are patterns, and what is none of these is "other".

One registry an app, made with it. Where several processes serve one port, a scrape reaches one of them. With
`PROMETHEUS_MULTIPROC_DIR` set before the first of them starts they add up in files there, and each reports of all.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from ..core.budget import LimitKind
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
    VerificationFinished,
)
from ..core.types import Stopped, Verdict

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
_ROLES = frozenset({"main", "small", "judge", "reward", "chair", "juror", "embedding", "entailment", "retriever"})
_STAGES = frozenset({"route", "solve", "verify", "repair", "finish"})
_OUTCOMES = frozenset(get_args(Stopped))
_VERDICTS = frozenset(get_args(Verdict))
_KINDS = frozenset(get_args(LimitKind))
_REFUSALS = frozenset(
    kind.code for kind in (AuthenticationError, KeyLimitExceeded, PermissionDenied, ServerBusy, ShuttingDown)
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
        strategies: Names that the label `strategy` may have.
        clock: Monotonic seconds; replaced in tests.
    """

    def __init__(self, strategies: frozenset[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self.registry = CollectorRegistry()
        _drop_dead_processes()
        self._strategies, self._clock = strategies, clock

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(name, about, labels, registry=self.registry)

        def histogram(name: str, about: str, *labels: str) -> Histogram:
            return Histogram(name, about, labels, registry=self.registry, buckets=_SECONDS)

        def gauge(name: str, about: str) -> Gauge:
            return Gauge(name, about, registry=self.registry, multiprocess_mode="livesum")

        self.requests = counter("reason_requests_total", "Runs that ended, by how.", "strategy", "outcome")
        self.duration = histogram(
            "reason_request_duration_seconds", "From a run's request to its end, waiting included.", "strategy"
        )
        self.first_event = histogram(
            "reason_time_to_first_event_seconds", "From a run's request to its first event.", "strategy"
        )
        self.calls = counter("reason_model_calls_total", "Calls of models that the run store did not answer.", "role")
        self.tokens = counter("reason_tokens_total", "Tokens that were paid for.", "direction", "role")
        self.cost = counter("reason_cost_usd_total", "US dollars that were paid, as far as prices are known.")
        self.in_flight = gauge("reason_runs_in_flight", "Runs under way.")
        self.waiting = gauge("reason_runs_waiting", "Runs that wait for their turn.")
        self.cancelled = counter(
            "reason_cancelled_total", "Runs that were stopped, by the stage they were in.", "phase"
        )
        self.exhausted = counter("reason_budget_exhausted_total", "Limits that stopped something in a run.", "kind")
        self.verdicts = counter("reason_verdicts_total", "Verdicts on answers.", "label")
        self.claims = counter("reason_claim_verdicts_total", "Verdicts on claims of answers.", "label")
        self.refused = counter("reason_refused_total", "Requests that were turned away, by why.", "why")
        self.http = counter("reason_http_requests_total", "HTTP requests.", "method", "route", "status")
        self.http_duration = histogram(
            "reason_http_request_duration_seconds", "From a request's headers to its answer's end.", "method", "route"
        )

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format; of all processes where they share a directory."""
        if MULTIPROCESS not in os.environ:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)

    def close(self) -> None:
        """Take this process's gauges back, where several share a directory."""
        if MULTIPROCESS in os.environ:
            mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]

    # -- who reports

    def observe_admission(self, in_flight: int, waiting: int) -> None:
        """Record how many runs are in flight and how many wait (see `AdmissionQueue`)."""
        self.in_flight.set(in_flight)
        self.waiting.set(waiting)

    def observe_request(self, method: str, route: str, status: int, seconds: float, code: str = "") -> None:
        """Count an HTTP request and the code of the error that it was refused with, if one."""
        self.http.labels(method, route, str(status)).inc()
        self.http_duration.labels(method, route).observe(seconds)
        if code in _REFUSALS:
            self.refused.labels(code).inc()

    def observe_abandoned(self) -> None:
        """Count a run that was stopped before it had its turn (see `AdmissionQueue`)."""
        self.cancelled.labels("waiting").inc()

    def run_sink(self, strategy: str, requested_at_s: float | None = None) -> Sink:
        """What receives the events of one run.

        Args:
            strategy: The run's strategy.
            requested_at_s: When it was requested, by the same clock; None is now.
        """
        known = strategy if strategy in self._strategies else _OTHER
        return _RunMeter(self, known, self._clock, self._clock() if requested_at_s is None else requested_at_s)

    @staticmethod
    def role(role: str) -> str:
        """A role as a label: jurors are one."""
        name = "juror" if role.startswith("juror-") else role
        return name if name in _ROLES else _OTHER


class _RunMeter:
    """Counts one run.

    What the store answered is not paid for: samples that were replayed count neither as tokens nor as dollars. A
    resumed run's total begins with what it had spent before, which was counted then.
    """

    def __init__(self, metrics: Metrics, strategy: str, clock: Callable[[], float], requested_at_s: float) -> None:
        self._metrics, self._strategy, self._clock, self._requested_at_s = metrics, strategy, clock, requested_at_s
        self._seen = self._ended = False
        self._phase = "starting"
        self._calls: dict[int, _CallProgress] = {}
        self._usd: float | None = 0.0
        """The run's total as it was last reported; None where the next one has to be waited for."""

    def __call__(self, event: Event) -> None:
        """Count the event."""
        metrics = self._metrics
        if not self._seen:
            self._seen = True
            metrics.first_event.labels(self._strategy).observe(self._clock() - self._requested_at_s)
        if isinstance(event, RunStarted):
            self._usd = None if event.resumed else 0.0
        elif isinstance(event, StageStarted):
            self._phase = event.stage if event.stage in _STAGES else self._phase
        elif isinstance(event, CallStarted):
            self._calls[event.number] = _CallProgress(event)
        elif isinstance(event, SampleFinished) and event.parent in self._calls:
            self._calls[event.parent].add(event)
        elif isinstance(event, CallFinished):
            self._count_call(event)
        elif isinstance(event, BudgetCharged):
            self._count_dollars(event)
        elif isinstance(event, BudgetExhausted):
            metrics.exhausted.labels(_label_or_other(event.kind, _KINDS)).inc()
        elif isinstance(event, VerificationFinished):
            metrics.verdicts.labels(_label_or_other(event.verification.verdict, _VERDICTS)).inc()
            for claim in event.verification.claims:
                metrics.claims.labels(_label_or_other(claim.verdict, _VERDICTS)).inc()
        elif isinstance(event, RunFinished):
            self._end(_label_or_other(event.answer.stopped, _OUTCOMES))
        elif isinstance(event, RunFailed):
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

    def _count_dollars(self, event: BudgetCharged) -> None:
        """What a call has added to the run's total, its replayed samples taken off."""
        call = self._calls.get(event.parent or 0)
        before, self._usd = self._usd, event.total_usd
        if call is not None and call.ended:
            del self._calls[event.parent or 0]
        if event.total_usd is None or call is None or call.replayed:
            return
        if call.sampled:  # a call that continues for long is charged some at a time
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
        metrics.duration.labels(self._strategy).observe(self._clock() - self._requested_at_s)


class _CallProgress:
    """One call of a model, and what of it was paid for."""

    def __init__(self, started: CallStarted) -> None:
        self.replayed = started.samples > 0 and started.replayed >= started.samples
        self.sampled = self.ended = False
        self.tokens = self.prompt_tokens = 0
        self.usd = 0.0

    def add(self, event: SampleFinished) -> None:
        self.sampled = True
        if event.replayed:
            return
        usage = event.completion.usage
        self.tokens += usage.completion_tokens
        self.prompt_tokens += usage.prompt_tokens
        self.usd += usage.cost_usd or 0.0


def _label_or_other(name: str, known: frozenset[str]) -> str:
    return name if name in known else _OTHER


@contextmanager
def shared_metrics() -> Iterator[None]:
    """Have the processes that are started inside add up their metrics, in a directory that is removed in the end.

    A directory that the environment names already is taken instead, and left as it is: its owner empties it.
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


def _drop_dead_processes() -> None:
    """Take back the gauges of processes that were killed."""
    folder = os.environ.get(MULTIPROCESS)
    for file in Path(folder).glob("gauge_live*_*.db") if folder else ():
        pid = int(file.stem.rpartition("_")[2])
        if not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            mark_process_dead(pid)  # type: ignore[no-untyped-call]
