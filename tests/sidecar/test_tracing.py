"""Run events as OpenTelemetry spans: names, parents, attributes, and no content unless enabled."""

from __future__ import annotations

import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from reason.core.errors import UserError
from reason.core.events import (
    BudgetExhausted,
    CallFinished,
    CallStarted,
    Degraded,
    EvidenceRetrieved,
    RunFailed,
    RunFinished,
    RunStarted,
    SampleFinished,
    StageFinished,
    StageStarted,
    VerificationFinished,
)
from reason.core.messages import Completion, Failure, Usage
from reason.core.types import Question, RunUsage, Verification
from reason.sidecar.tracing import RunSpans, close_tracing, exporters_named, open_tracing
from support.agent_runs import agent_run
from support.answers import plain_answer

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SAID = "what the user said in confidence"


class Traced:
    """Spans of a run with manual event numbers and times."""

    def __init__(self, **options):
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.ns, self.number = 10**18, 0
        self.sink = RunSpans(provider.get_tracer("t"), now_ns=lambda: self.ns, **options)

    def tell(self, event, parent=None):
        self.number += 1
        self.ns += 10**9
        self.sink(event.model_copy(update={"number": self.number, "parent": parent, "run_id": "r1"}))
        return self.number

    def start(self):
        self.tell(RunStarted(question=Question(text=SAID), strategy="coat", models={"main": "openai/gpt"}, seed=5))

    def begin_call(self, parent=None, model="m/x", operation="generate", samples=1, **fields):
        fields |= {"role": "main", "model": model, "operation": operation, "requests": 1, "samples": samples}
        return self.tell(CallStarted(replayed=0, **fields), parent)

    def call(self, parent, *samples, model="openai/gpt", operation="generate", failed=0):
        call = self.begin_call(parent, model, operation, max(1, len(samples)), max_tokens=9)
        for i, done in enumerate(samples):
            self.tell(SampleFinished(request=0, sample=i, completion=done), call)
        self.tell(
            CallFinished(
                role="main",
                model=model,
                seconds=1.0,
                tokens=4,
                prompt_tokens=7,
                cached_tokens=2,
                failed=failed,
                thinking_tokens=sum(done.usage.thinking_tokens for done in samples),
            ),
            call,
        )
        return call

    def end(self):
        usage = RunUsage(prompt_tokens=7, completion_tokens=4, model_calls=1, cost_usd=0.25)
        self.tell(RunFinished(answer=plain_answer(text=SAID, strategy="coat", usage=usage)))

    @property
    def spans(self):
        return {span.name: span for span in self.exporter.get_finished_spans()}

    def above(self, name):
        """Name of a span's parent."""
        parent = self.spans[name].parent
        return next((s.name for s in self.spans.values() if parent and s.context.span_id == parent.span_id), None)


def whole_run(traced):
    traced.start()
    route = traced.tell(StageStarted(stage="route"))
    traced.tell(StageFinished(stage="route", seconds=0.0), route)
    solve = traced.tell(StageStarted(stage="solve"))
    done = Completion(text=SAID, finish_reason="stop", usage=Usage(completion_tokens=4, thinking_tokens=3))
    traced.call(solve, done)
    jury = traced.tell(StageStarted(stage="cross review"), solve)
    traced.call(jury, model="local/small", operation="score")
    traced.tell(StageFinished(stage="cross review", seconds=1.0), jury)
    traced.tell(StageFinished(stage="solve", seconds=1.0), solve)
    verify = traced.tell(StageStarted(stage="verify"))
    traced.tell(EvidenceRetrieved(retriever="notes", claims=2, passages=6, seconds=0.5), verify)
    traced.tell(StageFinished(stage="verify", seconds=1.0), verify)
    traced.tell(
        VerificationFinished(verification=Verification(verdict="disputed", support=0.5, verifiers=("davinci",)))
    )
    traced.tell(BudgetExhausted(kind="tokens", used=1, limit=1))
    traced.tell(Degraded(what=SAID))
    traced.end()


def test_a_run_is_a_workflow_with_an_agent_its_chats_and_its_retrievals():
    traced = Traced(request_id="req_1")
    whole_run(traced)
    assert {name: traced.above(name) for name in traced.spans} == {
        "invoke_workflow reason": None,
        "invoke_agent coat": "invoke_workflow reason",
        "chat openai/gpt": "invoke_agent coat",
        "cross review": "invoke_agent coat",
        "text_completion local/small": "cross review",
        "verify": "invoke_workflow reason",
        "retrieval notes": "verify",
    }
    run, chat = traced.spans["invoke_workflow reason"], traced.spans["chat openai/gpt"]
    assert dict(run.attributes) == {
        "gen_ai.operation.name": "invoke_workflow",
        "gen_ai.agent.name": "reason",
        "reason.run.model": "openai/gpt",
        "reason.run.seed": 5,
        "reason.run.input_tokens": 7,
        "reason.run.output_tokens": 4,
        "reason.run.cached_tokens": 0,
        "reason.run.id": "r1",
        "reason.request.id": "req_1",
        "reason.strategy": "coat",
        "reason.run.resumed": False,
        "reason.run.stopped": "done",
        "reason.model_calls": 1,
        "reason.cost.usd": 0.25,
    }
    assert dict(chat.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "openai/gpt",
        "gen_ai.request.choice.count": 1,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.response.model": "openai/gpt",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 4,
        "gen_ai.usage.cache_read.input_tokens": 2,
        "gen_ai.usage.reasoning.output_tokens": 3,
        "reason.role": "main",
        "reason.call.operation": "generate",
        "reason.call.replayed": 0,
    }
    assert chat.kind is SpanKind.CLIENT
    assert chat.end_time - chat.start_time == 2 * 10**9  # from the start of the call to its end
    found = traced.spans["retrieval notes"]
    assert (found.attributes["reason.retrieval.passages"], found.end_time - found.start_time) == (6, 5 * 10**8)
    assert [(e.name, dict(e.attributes)) for e in run.events] == [
        (
            "gen_ai.evaluation.result",
            {
                "gen_ai.evaluation.name": "davinci",
                "gen_ai.evaluation.score.label": "disputed",
                "gen_ai.evaluation.score.value": 0.5,
            },
        ),
    ]


def test_spans_have_no_content():
    traced = Traced()
    whole_run(traced)
    assert not [name for name, span in traced.spans.items() if SAID in span.to_json()]


def test_a_run_belongs_to_the_trace_of_its_request():
    traced = Traced(traceparent=TRACE)
    whole_run(traced)
    assert {format(s.context.trace_id, "032x") for s in traced.spans.values()} == {TRACE.split("-")[1]}
    assert format(traced.spans["invoke_workflow reason"].parent.span_id, "016x") == TRACE.split("-")[2]


@pytest.mark.parametrize("traceparent", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "ff" * 40])
def test_a_trace_that_is_none_is_not_followed(traceparent):
    traced = Traced(traceparent=traceparent)
    whole_run(traced)
    assert traced.spans["invoke_workflow reason"].parent is None


async def test_the_turns_of_a_run_with_tools_have_the_calls_that_they_made(tmp_path):
    traced = Traced()
    await agent_run(tmp_path, sinks=[traced.sink])
    assert {name: traced.above(name) for name in traced.spans} == {
        "invoke_workflow reason": None,
        "invoke_agent cot": "invoke_workflow reason",
        "turn 1": "invoke_agent cot",
        "execute_tool search_orders": "turn 1",
        "execute_tool read_page": "turn 1",
        "turn 2": "invoke_agent cot",
        "execute_tool cancel_order": "turn 2",
        "turn 3": "invoke_agent cot",
        "chat instant": "turn 3",
    }
    chats = [span for span in traced.exporter.get_finished_spans() if span.name == "chat instant"]
    turns = [traced.spans[f"turn {n}"].context.span_id for n in (1, 2, 3)]
    assert [chat.parent.span_id for chat in chats] == turns
    done, failed = traced.spans["execute_tool cancel_order"], traced.spans["execute_tool read_page"]
    call_id = done.attributes["gen_ai.tool.call.id"]
    assert len(call_id) == 32
    assert dict(done.attributes) == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "cancel_order",
        "gen_ai.tool.call.id": call_id,
        "gen_ai.tool.type": "function",
        "reason.tool.effect": "write",
        "reason.call.replayed": False,
    }
    assert (failed.attributes["error.type"], failed.status.status_code) == ("tool_error", StatusCode.ERROR)
    assert not any("reason.unfinished" in span.attributes for span in traced.exporter.get_finished_spans())
    assert "ada@example.com" not in "".join(span.to_json() for span in traced.exporter.get_finished_spans())


def test_the_verification_of_a_run_with_tools_is_no_part_of_a_turn():
    traced = Traced()
    traced.start()
    turn = traced.tell(StageStarted(stage="turn 1"))
    traced.tell(StageFinished(stage="turn 1", seconds=1.0), turn)
    verify = traced.tell(StageStarted(stage="verify"))
    traced.call(verify)
    traced.end()
    assert {name: traced.above(name) for name in ("turn 1", "verify", "chat openai/gpt")} == {
        "turn 1": "invoke_agent coat",
        "verify": "invoke_agent coat",
        "chat openai/gpt": "verify",
    }


def test_a_run_that_fails_half_way_leaves_no_span_open():
    traced = Traced()
    traced.start()
    solve = traced.tell(StageStarted(stage="solve"))
    traced.begin_call(solve)
    traced.tell(RunFailed(code="backend_unavailable", message=SAID))
    traced.tell(CallFinished(role="main", model="m/x", seconds=1.0, tokens=1), 3)  # too late: ignored
    assert set(traced.spans) == {"invoke_workflow reason", "invoke_agent coat", "chat m/x"}
    run = traced.spans["invoke_workflow reason"]
    assert (run.status.status_code, run.attributes["error.type"]) == (StatusCode.ERROR, "backend_unavailable")
    assert run.status.description is None
    assert traced.spans["chat m/x"].attributes["reason.unfinished"] is True


def test_a_run_that_goes_on_in_another_process_leaves_no_span_open():
    open_runs = set()
    traced = Traced(open_runs=open_runs)
    traced.start()
    traced.begin_call()
    assert open_runs == {traced.sink}
    traced.sink.close()
    assert not open_runs
    traced.end()  # too late: ignored without an error
    assert {s.name: s.attributes["reason.unfinished"] for s in traced.exporter.get_finished_spans()} == {
        "chat m/x": True, "invoke_workflow reason": True,
    }  # fmt: skip
    ended = Traced(open_runs=open_runs)
    ended.start()
    ended.end()
    assert not open_runs


def test_a_failed_sample_marks_its_call():
    traced = Traced()
    traced.start()
    bad = Completion(text="", finish_reason="error", failure=Failure(code="invalid_response", message=SAID))
    traced.call(None, bad, failed=1)
    traced.end()
    chat = traced.spans["chat openai/gpt"]
    assert (chat.attributes["error.type"], chat.status.status_code) == ("invalid_response", StatusCode.ERROR)


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({}, []),
        ({"OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "x"}, []),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, ["otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ["otlp_proto_grpc"]),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, ["console", "otlp_proto_http"]),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "TRUE"}, []),
    ],
)
def test_the_environment_says_where_spans_go(environ, named):
    assert exporters_named(environ) == named


def test_an_exporter_that_is_not_there_is_named():
    with pytest.raises(UserError, match="'carrier-pigeon' is not installed"):
        open_tracing({"OTEL_TRACES_EXPORTER": "carrier-pigeon"})


class Collector(BaseHTTPRequestHandler):
    """A collector that stores the posted requests."""

    posted: ClassVar[list] = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.posted.append((self.path, ExportTraceServiceRequest.FromString(body)))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


async def test_spans_go_to_a_collector(monkeypatch):
    server = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        provider = open_tracing(os.environ)
        with provider.get_tracer("t").start_as_current_span("one of ours"):
            pass
        await close_tracing(provider)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    ((path, told),) = Collector.posted
    (resource,) = told.resource_spans
    named = {a.key: a.value.string_value for a in resource.resource.attributes}
    assert path == "/v1/traces"
    assert [span.name for scope in resource.scope_spans for span in scope.spans] == ["one of ours"]
    assert named["service.name"] == "reason"
    assert open_tracing({}) is None
