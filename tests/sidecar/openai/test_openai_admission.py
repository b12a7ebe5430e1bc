"""Requests that wait for a run slot: the status is decided by the admission, also of a stream."""

from __future__ import annotations

import asyncio
import threading

import httpx
import pytest
from reason.sidecar import admission, sse
from support.openai_server import scripted_server
from support.scripted_model import ScriptedModel, replies

CHAT = {"model": "reason/cot", "messages": [{"role": "user", "content": "?"}], "stream": True}
RESPONSE = {"model": "reason/cot", "input": "?", "stream": True}


class Gated(ScriptedModel):
    """A model that waits for `open` before each character."""

    def __init__(self) -> None:
        self.open = threading.Event()
        super().__init__(replies("The answer is 42."), name="gated", step=self.wait)

    async def wait(self) -> None:
        await asyncio.to_thread(self.open.wait)


@pytest.fixture
def gated():
    return Gated()


@pytest.fixture
def patience():
    """Seconds in the queue."""
    return 60.0


@pytest.fixture
def busy(tmp_path, gated, patience, monkeypatch):
    """A server whose only slot is taken until `gated` is open."""
    monkeypatch.setattr(admission, "QUEUE_TIMEOUT_S", patience)
    monkeypatch.setattr(sse, "KEEPALIVE_S", 0.02)
    serve = {"max_runs": 1}
    with (
        scripted_server(tmp_path, {"gated": gated}, serve=serve) as server,
        httpx.Client(timeout=60) as client,
        client.stream("POST", f"{server.url}/v1/chat/completions", json=CHAT) as first,
    ):
        lines = first.iter_lines()  # leaving it would close the connection
        assert next(lines) == ": ping"  # it runs, and is silent
        yield server
        gated.open.set()


@pytest.mark.parametrize("patience", [0.3])
@pytest.mark.parametrize(("path", "body"), [("chat/completions", CHAT), ("responses", RESPONSE)])
def test_a_stream_that_is_not_admitted_has_the_status_of_its_error(busy, path, body):
    with httpx.Client(timeout=60) as client:
        refused = client.post(f"{busy.url}/v1/{path}", json=body)
    assert (refused.status_code, refused.headers["content-type"]) == (429, "application/json")
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["code"] == "server_busy"
    metrics = httpx.get(f"{busy.url}/metrics").text
    assert 'reason_refused_total{why="server_busy"} 1.0' in metrics
    assert "reason_runs_in_flight 1.0" in metrics


def when_waiting(server, action):
    """Act when a request waits for a slot, in a thread of its own."""

    def act():
        while not server.run_manager._admission.waiting:
            threading.Event().wait(0.001)
        server.loop.call_soon_threadsafe(action)

    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_a_stream_begins_when_it_is_admitted(busy, gated):
    opening = when_waiting(busy, gated.open.set)
    with httpx.stream("POST", f"{busy.url}/v1/chat/completions", json=CHAT, timeout=60) as admitted:
        assert admitted.status_code == 200
        assert [line for line in admitted.iter_lines() if line][-1] == "data: [DONE]"
    opening.join()


def test_a_stream_that_waits_when_the_server_stops_is_unavailable(busy):
    stopping = when_waiting(busy, busy.run_manager.begin_drain)
    refused = httpx.post(f"{busy.url}/v1/chat/completions", json=CHAT, timeout=60)
    stopping.join()
    assert refused.status_code == 503
    assert "retry-after" in refused.headers
