"""Prometheus metrics of runs and requests: names, values, and labels of bounded cardinality."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from prometheus_client.multiprocess import mark_process_dead
from prometheus_client.parser import text_string_to_metric_families
from reason.core.events import (
    BudgetCharged,
    BudgetExhausted,
    CallFinished,
    CallStarted,
    RunFailed,
    RunFinished,
    RunStarted,
    SampleFinished,
    StageStarted,
    VerificationFinished,
)
from reason.core.messages import Completion, Usage
from reason.core.types import CheckedClaim, Evidence, Question, Verification
from reason.sidecar.metrics import MULTIPROCESS, Metrics, shared_metrics
from support.agent_runs import agent_run
from support.answers import plain_answer


class Watched:
    """Metrics, and a run that numbers its events."""

    def __init__(self):
        self.metrics = Metrics(frozenset({"coat", "cot"}))

    def run(self, strategy="coat"):
        self.sink, self.number = self.metrics.run_sink(strategy), 0

    def tell(self, event, parent=None):
        self.number += 1
        self.sink(event.model_copy(update={"number": self.number, "parent": parent}))
        return self.number

    def start(self, *, resumed=False):
        self.tell(RunStarted(question=Question(text="q"), strategy="coat", models={}, seed=1, resumed=resumed))

    def call(self, *usages, role="main", replayed=0, operation="generate", total_usd=0.0, tokens=0):
        call = self.tell(
            CallStarted(role=role, model="m", operation=operation, requests=1, samples=len(usages), replayed=replayed)
        )
        for i, usage in enumerate(usages):
            done = Completion(text="t", finish_reason="stop", usage=usage, sample_index=i)
            self.tell(SampleFinished(request=0, sample=i, completion=done, replayed=i < replayed), call)
        self.tell(CallFinished(role=role, model="m", seconds=1.0, tokens=tokens), call)
        charged = BudgetCharged(
            role=role, model="m", tokens=0, calls=1, total_tokens=0, total_calls=0, total_usd=total_usd
        )
        self.tell(charged, call)

    def end(self, stopped="done"):
        self.tell(RunFinished(answer=plain_answer(strategy="coat", stopped=stopped)))

    def check(self, *lines):
        """The exposition has these samples; each is written as there, without the common prefix of the names."""
        samples = self.exposition.splitlines()
        assert [line for line in lines if f"reason_{line}" not in samples] == []

    @property
    def exposition(self):
        return self.metrics.exposition().decode()


async def test_tool_calls_are_counted_by_effect_and_outcome(tmp_path):
    w = Watched()
    w.run()
    await agent_run(tmp_path, sinks=[w.sink])
    w.check(
        'tool_calls_total{effect="read",outcome="done"} 1.0',
        'tool_calls_total{effect="read",outcome="error"} 1.0',
        'tool_calls_total{effect="write",outcome="done"} 1.0',
        'tool_call_duration_seconds_count{effect="read"} 2.0',
    )


async def test_a_run_is_counted_by_what_it_paid_for(clock):
    w = Watched()
    w.run()
    await clock.advance(2)
    w.start()
    w.call(
        Usage(prompt_tokens=7, completion_tokens=5, thinking_tokens=4, cost_usd=0.5),
        Usage(completion_tokens=3, thinking_tokens=2, cost_usd=0.25),
        replayed=1,
        total_usd=0.75,
    )
    w.call(Usage(prompt_tokens=9, completion_tokens=9, cost_usd=1.0), replayed=1, total_usd=1.75)  # fully replayed
    w.call(role="juror-12", operation="score", tokens=4, total_usd=2.0)
    w.call(role="plugin's", operation="embed", total_usd=2.125)
    await clock.advance(8)
    w.end()
    w.end()  # a second end is ignored
    w.check(
        'model_calls_total{role="main"} 1.0',
        'tokens_total{direction="input",role="main"} 0.0',
        'tokens_total{direction="output",role="main"} 3.0',
        'tokens_total{direction="output",role="juror"} 4.0',
        'thinking_tokens_total{role="main"} 2.0',
        'thinking_tokens_total{role="juror"} 0.0',
        'model_calls_total{role="other"} 1.0',
        "cost_usd_total 0.625",
        'requests_total{outcome="done",strategy="coat"} 1.0',
        'request_duration_seconds_sum{strategy="coat"} 10.0',
        'time_to_first_event_seconds_sum{strategy="coat"} 2.0',
    )


def test_a_resumed_run_counts_no_dollar_twice():
    w = Watched()
    w.run()
    w.start(resumed=True)
    w.call(Usage(completion_tokens=1, cost_usd=0.5), total_usd=100.5)
    w.call(operation="embed", total_usd=100.75)
    w.check("cost_usd_total 0.75")


def test_a_call_that_is_charged_some_at_a_time_is_one_call():
    w = Watched()
    w.run()
    call = w.tell(CallStarted(role="main", model="m", operation="workers", requests=2, samples=2, replayed=0))
    for total in (0.5, 1.5):
        w.tell(
            BudgetCharged(role="main", model="m", tokens=1, calls=1, total_tokens=1, total_calls=1, total_usd=total),
            call,
        )
    w.tell(CallFinished(role="main", model="m", seconds=1.0, tokens=40, prompt_tokens=2), call)
    w.check(
        'model_calls_total{role="main"} 1.0',
        'tokens_total{direction="output",role="main"} 40.0',
        "cost_usd_total 1.5",
    )


def test_where_a_run_was_stopped_and_what_stopped_it():
    w = Watched()
    w.run("no such strategy")
    w.start()
    for stage in ("route", "solve", "a strategy's own stage"):
        w.tell(StageStarted(stage=stage))
    w.tell(BudgetExhausted(kind="tokens", used=1, limit=1))
    w.tell(BudgetExhausted(kind="patience", used=1, limit=1))
    w.end("cancelled")
    w.check(
        'cancelled_total{phase="solve"} 1.0',
        'budget_exhausted_total{kind="tokens"} 1.0',
        'budget_exhausted_total{kind="other"} 1.0',
        'requests_total{outcome="cancelled",strategy="other"} 1.0',
    )


def test_verdicts_and_failures():
    w = Watched()
    w.run("cot")
    claims = (
        CheckedClaim(text="c", verdict="supported", evidence=(Evidence(source="s", text="e"),)),
        CheckedClaim(text="d", verdict="disputed"),
    )
    w.tell(VerificationFinished(verification=Verification(verdict="disputed", claims=claims)))
    w.tell(RunFailed(code="x", message="y"))
    w.check(
        'verdicts_total{label="disputed"} 1.0',
        'claim_verdicts_total{label="supported"} 1.0',
        'requests_total{outcome="error",strategy="cot"} 1.0',
    )


def test_turns_and_requests():
    w = Watched()
    w.metrics.observe_admission(3, 2)
    w.metrics.observe_request("GET", "/v1/runs/{run_id}", 200, 0.5)
    w.metrics.observe_request("POST", "/v1/reason", 429, 0.5, "server_busy")
    w.metrics.observe_request("POST", "/v1/reason", 400, 0.5, "whatever a plug-in says")
    w.metrics.observe_abandoned()
    w.check(
        "runs_in_flight 3.0",
        "runs_queued 2.0",
        'http_requests_total{method="GET",route="/v1/runs/{run_id}",status="200"} 1.0',
        'refused_total{why="server_busy"} 1.0',
        'cancelled_total{phase="queued"} 1.0',
    )
    assert set(re.findall(r'(?m)^reason_refused_total\{why="(.*)"\}', w.exposition)) == {"server_busy"}


def test_processes_that_share_a_folder_add_up_and_the_dead_run_nothing(monkeypatch):
    script = (
        "import os, sys\n"
        "from reason.sidecar.metrics import Metrics\n"
        "m = Metrics(frozenset())\n"
        "m.observe_admission(2, 1)\n"
        "m.observe_request('POST', '/', 429, 0.0, 'server_busy')\n"
        "sys.stdout.write(m.exposition().decode())\n"
        "sys.stdout.flush()\n"
        "os._exit(0)\n"  # killed: the process does not report its end
    )
    monkeypatch.delenv(MULTIPROCESS, raising=False)
    with shared_metrics():
        folder = os.environ[MULTIPROCESS]
        environment = {MULTIPROCESS: folder, "PATH": ""}
        two_lives(script, environment)
    assert MULTIPROCESS not in os.environ
    assert not Path(folder).exists()


def two_lives(script, environment):
    for refused in (1.0, 2.0):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment)
        told, _ = process.communicate()
        mark_process_dead(process.pid)  # as the parent of workers does
        found = {s.name: s.value for f in text_string_to_metric_families(told) for s in f.samples}
        assert (found["reason_refused_total"], found["reason_runs_in_flight"]) == (refused, 2.0)
