"""Client disconnects: the engine becomes idle soon after, for every kind of request."""

import asyncio
import threading

import httpx
import pytest
from support.injected_models import loaded_models
from support.scripted_model import ScriptedModel, replies
from support.sidecar_server import serving, settings_for
from support.waiting import wait_blocking


class Counting(ScriptedModel):
    """A model that generates without end and counts its tokens."""

    def __init__(self):
        super().__init__(replies("x" * 100_000), context_tokens=10_000_000)
        self.written = 0
        self.reached = threading.Event()

    async def generate(self, requests, listener=None):
        self._step = self._count
        return await super().generate(requests, listener)

    def wait_to_go_on(self):
        written = self.written
        wait_blocking(lambda: self.written >= written + 50)

    async def _count(self):
        self.written += 1
        if self.written > 3:
            self.reached.set()
        await asyncio.sleep(0.002)


@pytest.fixture
def model():
    model = Counting()
    with loaded_models({"scripted": model}):
        yield model


@pytest.fixture
def server(model, tmp_path):
    with serving(settings_for(tmp_path, max_runs=1)) as server:
        yield server


def idle_after(model, sock):
    """Close a connection and wait until the engine is idle."""
    model.reached.wait()
    assert model.running == 1
    sock.close()
    wait_blocking(lambda: not model.running)


LONG = {"question": "?", "parameters": {"max_tokens": 90_000}}


@pytest.mark.parametrize("body", [LONG, {**LONG, "stream": True}, {**LONG, "stream": True, "text": True}])
def test_the_engine_stops_when_nobody_waits(server, model, body):
    sock = server.connect("POST", "/v1/reason", body)
    idle_after(model, sock)
    with httpx.Client(base_url=server.url, timeout=60) as http:
        wait_blocking(lambda: http.get("/v1/runs").json()["data"][0]["status"] != "running")
        run = http.get("/v1/runs").json()["data"][0]
        assert run["status"] == "interrupted"
        detail = http.get(f"/v1/runs/{run['id']}").json()
        assert detail["result"]["stopped"] == "cancelled"
        assert detail["result"]["text"].startswith("x")  # the partial text is kept
    assert server.run_manager.in_flight == 0


def test_whoever_waits_for_a_turn_and_leaves_is_forgotten(server, model):
    with server.connect("POST", "/v1/reason", LONG) as first:
        model.reached.wait()
        waiting = server.connect("POST", "/v1/reason", LONG)
        wait_blocking(lambda: server.run_manager.in_flight == 2)
        waiting.close()
        wait_blocking(lambda: server.run_manager.in_flight == 1)
        assert len(model.generate_calls) == 1
        idle_after(model, first)


def test_a_request_with_a_name_goes_on_and_is_there_when_it_comes_again(server, model):
    sock = server.connect("POST", "/v1/reason", {**LONG, "stream": True}, "Idempotency-Key: k\r\n")
    model.reached.wait()
    sock.close()
    model.wait_to_go_on()
    assert (model.running, server.run_manager.in_flight) == (1, 1)
    with (
        httpx.Client(base_url=server.url, timeout=30) as http,
        http.stream("POST", "/v1/reason", json={**LONG, "stream": True}, headers={"Idempotency-Key": "k"}) as again,
    ):
        assert again.headers["idempotent-replayed"] == "true"
        assert next(again.iter_text()).startswith("id: 1\n")
        http.post(f"{again.headers['location']}/cancel")
    assert len(model.generate_calls) == 1


def test_leaving_the_events_of_a_run_does_not_stop_it(server, model):
    with httpx.Client(base_url=server.url, timeout=30) as http:
        run_id = http.post("/v1/runs", json=LONG).json()["id"]
        model.reached.wait()
        followers = [server.connect("GET", f"/v1/runs/{run_id}/events?text=true") for _ in range(3)]
        for sock in followers:
            assert sock.recv(100).startswith(b"HTTP/1.1 200")
            sock.close()
        model.wait_to_go_on()
        assert model.running == 1
        assert http.post(f"/v1/runs/{run_id}/cancel").json()["status"] == "interrupted"
    assert model.running == 0
