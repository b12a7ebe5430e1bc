"""`reason serve` in separate processes: killed, stopped, and several on one store."""

import json
import signal
import sqlite3
import threading

import httpx
import pytest
from reason.core.events import RunFinished
from support.native_client import NativeClient
from support.sidecar_process import Process, free_port
from support.waiting import wait_blocking

N = 6
VOTE = {"strategy": "self-consistency", "parameters": {"n": N, "max_tokens": 400}}


@pytest.fixture
def start(tmp_path):
    """Start servers on one store; the fixture kills those that still run."""
    started = []

    def begin(port=None, *, ready=True, **options):
        process = Process(tmp_path, port or free_port(), **options)
        started.append(process)
        return process.wait_until_ready() if ready else process

    yield begin
    for process in started:
        process.kill()


def stored(folder):
    """Number of stored model calls by run."""
    with sqlite3.connect(folder / "runs.sqlite3") as db:
        return dict(db.execute("SELECT run_id, COUNT(*) FROM calls GROUP BY run_id"))


def readiness(client):
    return httpx.get(f"{client.base_url}/readyz", timeout=60).json()


@pytest.mark.nightly
def test_a_killed_server_loses_no_run_and_pays_nothing_twice(start, tmp_path):
    port = free_port()
    first = start(port)
    named, name = {"question": "Named?", **VOTE}, {"Idempotency-Key": "k"}
    followed, broken = [], []

    def follow(run_id):
        with NativeClient(first.url) as other:
            followed.extend(other.events(run_id))

    def ask():
        try:
            httpx.post(f"{first.url}/v1/reason", json=named, headers=name, timeout=60)
        except httpx.TransportError as e:
            broken.append(e)

    with NativeClient(first.url) as client:
        runs = {client.start(f"Question {i}?", **VOTE): f"Question {i}?" for i in range(4)}
        one = next(iter(runs))
        beside = [threading.Thread(target=follow, args=(one,)), threading.Thread(target=ask)]
        for thread in beside:
            thread.start()
        wait_blocking(lambda: len(stored(tmp_path)) == 5)  # each run has calls, also the request with a key
        first.kill()
        beside[1].join(60)
        assert broken
        had = stored(tmp_path)
        assert sum(had.values()) < 5 * N  # killed before all calls ended
        second = start(port)
        for run_id, question in runs.items():
            answer = client.wait(run_id)["result"]
            assert (answer["answer"], len(answer["candidates"])) == ("42", N)
            assert second.begun_of(question) == N - had[run_id]
            assert answer["usage"]["replayed_tokens"] > 0 or had[run_id] == N  # an ended run replays nothing
        (unclaimed,) = had.keys() - runs.keys()
        assert client.run(unclaimed)["status"] == "interrupted"  # no client waits for it, so it was not adopted
        again = httpx.post(f"{second.url}/v1/reason", json=named, headers=name, timeout=60)
        assert (again.status_code, again.headers["idempotent-replayed"]) == (200, "true")
        assert (again.json()["answer"], again.json()["run_id"]) == ("42", unclaimed)
        third = httpx.post(f"{second.url}/v1/reason", json=named, headers=name, timeout=60)
        assert third.json() == again.json()
        assert second.begun_of("Named?") == N - had[unclaimed]
        beside[0].join(60)
        numbers = [e.number for e in followed]
        assert numbers == sorted(set(numbers))  # each once, in order, across both processes
        assert isinstance(followed[-1], RunFinished)
        assert followed[-1].answer.answer == "42"
        assert {e.number for e in client.events(one)} >= {e.number for e in followed if isinstance(e, RunFinished)}


def test_sigterm_lets_requests_end_and_hands_background_runs_over(start, tmp_path):
    port = free_port()
    first = start(port, step_s=0.02, REASON_SERVE__DRAIN_TIMEOUT_S="4")
    replies = {}

    def ask():
        replies["short"] = httpx.post(f"{first.url}/v1/reason", json={"question": "Short?"}, timeout=60)

    with NativeClient(first.url) as client:
        behind = [client.start(f"Long {i}?", **VOTE, seed=i) for i in range(3)]
        asking = threading.Thread(target=ask)
        asking.start()
        wait_blocking(lambda: readiness(client)["in_flight"] >= 4)
        first.signal(signal.SIGTERM)
        wait_blocking(lambda: not readiness(client)["ready"])
        assert readiness(client)["draining"]
        refused = httpx.post(f"{first.url}/v1/reason", json={"question": "Late?"}, timeout=60)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
        assert "retry-after" in refused.headers
        asking.join(60)
        assert replies["short"].json()["answer"] == "42"
        assert first.child.wait(60) == 0, first.said.read_text()
    said = first.said.read_text()
    assert f"serving scripted at {first.url}" in said
    assert "Short?" not in said  # JSON log lines do not have the question
    assert [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    had = stored(tmp_path)
    second = start(port)
    with NativeClient(second.url) as client:
        for i, run_id in enumerate(behind):
            answer = client.wait(run_id)["result"]
            assert (answer["answer"], len(answer["candidates"])) == ("42", N)
            assert second.begun_of(f"Long {i}?") == N - had.get(run_id, 0)


SHOP = """
import asyncio, pathlib

async def change():
    with open("changes", "a") as log:
        log.write("change\\n")
    while not pathlib.Path("released").exists():
        await asyncio.sleep(0.01)
    return "changed"
"""


@pytest.mark.nightly
def test_a_write_is_asked_about_after_a_kill_and_finished_in_a_drain(start, tmp_path):
    (tmp_path / "shop.py").write_text(SHOP)
    changes = tmp_path / "changes"
    options = {"TOOL": "change", "REASON_TOOLS__USE": '["shop:change"]', "REASON_TOOLS__APPROVE": "never"}
    options["REASON_SERVE__DRAIN_TIMEOUT_S"] = "600"
    first = start(**options)
    with NativeClient(first.url) as client:
        killed = client.start("Change.")
        wait_blocking(changes.exists)
    first.kill()
    second = start(**options)
    with NativeClient(second.url) as client:
        wait_blocking(lambda: client.run(killed)["status"] == "waiting")
        (pending,) = client.run(killed)["pending"]
        assert (pending["tool"], pending["question"]) == ("change", "outcome")
        decisions = {"decisions": {pending["id"]: {"type": "done"}}}
        assert httpx.post(f"{second.url}/v1/runs/{killed}/decisions", json=decisions, timeout=60).status_code == 202
        assert client.wait(killed)["result"]["text"] == "The answer is done."
        client.start("Change.")
        wait_blocking(lambda: changes.read_text() == "change\n" * 2)
        second.signal(signal.SIGTERM)
        wait_blocking(lambda: readiness(client)["draining"])
        (tmp_path / "released").touch()
        assert second.child.wait(60) == 0, second.said.read_text()
    with sqlite3.connect(tmp_path / "runs.sqlite3") as db:
        calls = db.execute("SELECT runs.status, tool_calls.status FROM tool_calls JOIN runs ON runs.id = run_id")
        assert sorted(calls) == [("finished", "assumed"), ("finished", "done")]
    assert changes.read_text() == "change\n" * 2
