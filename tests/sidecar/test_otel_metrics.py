"""Model calls and runs as OpenTelemetry metrics: names, attributes, and what reaches a collector."""

from __future__ import annotations

import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from reason.core.errors import UserError
from reason.core.events import (
    CallFinished,
    CallStarted,
    RunFailed,
    RunFinished,
    RunStarted,
    SampleFinished,
    StageFinished,
    StageStarted,
)
from reason.core.messages import Completion, Failure, Usage
from reason.core.types import Question, RunUsage
from reason.sidecar.otel_metrics import GenAiMetrics, close_metrics, open_metrics
from reason.sidecar.tracing import RunSpans, close_tracing, open_tracing
from support.answers import plain_answer

CALLED = {
    "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "openai/gpt",
    "gen_ai.response.model": "openai/gpt",
}  # fmt: skip
RUN = {"gen_ai.operation.name": "invoke_workflow", "gen_ai.agent.name": "reason", "gen_ai.request.model": "openai/gpt"}
SOLVE = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "mcts"}


class Measured:
    """The measures of runs, with manual event numbers."""

    def __init__(self):
        self.reader = InMemoryMetricReader()
        self.metrics = GenAiMetrics(MeterProvider([self.reader]).get_meter("t"))
        self.sinks = [self.metrics.run_sink("mcts")]
        self.number = 0

    def tell(self, event, parent=None):
        self.number += 1
        for sink in self.sinks:
            sink(event.model_copy(update={"number": self.number, "parent": parent, "run_id": "r1", "at_s": 8.0}))
        return self.number

    def call(self, parent, *samples, replayed=0, operation="generate", **fields):
        told = {"role": "main", "model": "openai/gpt"}
        call = self.tell(
            CallStarted(**told, operation=operation, requests=1, samples=len(samples), replayed=replayed), parent
        )
        for i, usage in enumerate(samples):
            failure = usage if isinstance(usage, Failure) else None
            done = Completion(
                text="", finish_reason="error" if failure else "stop", failure=failure, sample_index=i,
                usage=Usage() if failure else usage,
            )  # fmt: skip
            self.tell(SampleFinished(request=0, sample=i, completion=done, replayed=i < replayed), call)
        failed = sum(isinstance(usage, Failure) for usage in samples)
        self.tell(CallFinished(**told, seconds=0.5, tokens=9, failed=failed, **fields), call)

    def points(self, name):
        """Attributes and value of each series: the sum of a counter, count and sum of a histogram."""
        found = []
        data = self.reader.get_metrics_data()
        for metric in data.resource_metrics[0].scope_metrics[0].metrics:
            if metric.name == name:
                for point in metric.data.data_points:
                    value = point.value if hasattr(point, "value") else (point.count, point.sum)
                    found.append((dict(point.attributes), value))
        return found


def whole_run(measured):
    measured.tell(RunStarted(question=Question(text="?"), strategy="mcts", models={"main": "openai/gpt"}, seed=5))
    solve = measured.tell(StageStarted(stage="solve"))
    usage = Usage(prompt_tokens=10, cached_tokens=4, completion_tokens=6, thinking_tokens=2)
    measured.call(solve, usage, Usage(completion_tokens=3))
    measured.call(solve, usage, usage, replayed=1)
    measured.call(solve, usage, replayed=1)  # cost nothing, took nothing
    inner = measured.tell(StageStarted(stage="cross review"), solve)
    measured.call(inner, operation="reward", prompt_tokens=20)
    measured.call(inner, operation="embed", prompt_tokens=20)
    measured.tell(StageFinished(stage="cross review", seconds=1.0), inner)
    measured.tell(StageFinished(stage="solve", seconds=3.0), solve)
    verify = measured.tell(StageStarted(stage="verify"))
    measured.call(verify, Failure(code="rate_limited", message="later"))
    measured.tell(StageFinished(stage="verify", seconds=1.0), verify)
    measured.tell(RunFinished(answer=plain_answer(strategy="mcts", usage=RunUsage(wall_seconds=4.0))))


def test_a_run_is_measured_as_the_conventions_name_it():
    measured = Measured()
    whole_run(measured)
    judged = {**CALLED, "gen_ai.operation.name": "text_completion"}
    assert measured.points("gen_ai.client.inference.duration") == [
        (CALLED, (2, 1.0)),
        (judged, (1, 0.5)),
        ({**CALLED, "error.type": "rate_limited"}, (1, 0.5)),
    ]
    embedded = {**CALLED, "gen_ai.operation.name": "embeddings"}
    assert measured.points("gen_ai.client.embeddings.duration") == [(embedded, (1, 0.5))]
    text = {"gen_ai.token.modality": "text"}
    for name, (generated, scored) in {
        "input_tokens": (20, 20),
        "cache_read.input_tokens": (8, 0),
        "output_tokens": (6 + 3 + 6, 9),
        "reasoning.output_tokens": (4, 0),
    }.items():
        found = measured.points(f"gen_ai.client.inference.usage.{name}")
        assert found == [({**CALLED, **text}, generated), ({**judged, **text}, scored)], name
    assert measured.points("gen_ai.invoke_agent.duration") == [(SOLVE, (1, 3.0)), (RUN, (1, 4.0))]
    assert measured.points("gen_ai.invoke_agent.inference_calls") == [({"gen_ai.agent.name": "mcts"}, (1, 3))]


def test_a_run_that_fails_is_measured_with_its_error():
    measured = Measured()
    measured.tell(RunStarted(question=Question(text="?"), strategy="mcts", models={"main": "openai/gpt"}, seed=5))
    measured.tell(RunFailed(code="backend_unavailable", message="secret"))
    assert measured.points("gen_ai.invoke_agent.duration") == [({**RUN, "error.type": "backend_unavailable"}, (1, 8.0))]


def test_bounds_are_those_of_the_conventions():
    measured = Measured()
    whole_run(measured)
    data = measured.reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    bounds = {m.name: m.data.data_points[0].explicit_bounds for m in data if hasattr(m.data.data_points[0], "count")}
    assert bounds["gen_ai.client.inference.duration"] == (
        0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
    )  # fmt: skip
    assert bounds["gen_ai.invoke_agent.duration"] == pytest.approx([0.1 * 2**i for i in range(13)])
    assert bounds["gen_ai.invoke_agent.inference_calls"] == (1, 2, 4, 8, 16, 32, 64, 128)


def test_an_exporter_that_is_not_there_is_named():
    with pytest.raises(UserError, match="the metric exporter 'carrier-pigeon' is not installed"):
        open_metrics({"OTEL_METRICS_EXPORTER": "carrier-pigeon"})
    assert open_metrics({}) is None


async def test_spans_and_metrics_of_a_run_reach_a_collector(monkeypatch):
    posted = {}
    messages = {"/v1/traces": ExportTraceServiceRequest, "/v1/metrics": ExportMetricsServiceRequest}

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            posted.setdefault(self.path, []).append(messages[self.path].FromString(body))
            assert self.headers["authorization"] == "Basic a2V5OnNlY3JldA=="
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Basic%20a2V5OnNlY3JldA==")
        tracing, metering = open_tracing(os.environ), open_metrics(os.environ)
        measured = Measured()
        measured.sinks = [
            RunSpans(tracing.get_tracer("reason")),
            GenAiMetrics(metering.get_meter("reason")).run_sink("mcts"),
        ]
        whole_run(measured)
        await close_tracing(tracing)
        await close_metrics(metering)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert set(posted) == set(messages)
    spans = [s for told in posted["/v1/traces"] for r in told.resource_spans for c in r.scope_spans for s in c.spans]
    assert {span.name for span in spans} >= {"invoke_workflow reason", "invoke_agent mcts", "chat openai/gpt"}
    (resource,) = posted["/v1/metrics"][-1].resource_metrics
    named = {a.key: a.value.string_value for a in resource.resource.attributes}
    assert named["service.name"] == "reason"
    assert named["service.instance.id"] != ""
    names = {metric.name for scope in resource.scope_metrics for metric in scope.metrics}
    assert names == {
        "gen_ai.client.inference.duration",
        "gen_ai.client.embeddings.duration",
        "gen_ai.client.inference.usage.input_tokens",
        "gen_ai.client.inference.usage.cache_read.input_tokens",
        "gen_ai.client.inference.usage.output_tokens",
        "gen_ai.client.inference.usage.reasoning.output_tokens",
        "gen_ai.invoke_agent.duration",
        "gen_ai.invoke_agent.inference_calls",
    }
