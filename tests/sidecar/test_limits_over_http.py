"""Limits of requests, keys and the store over a real socket: each test is a request that once got through."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
from reason.sidecar.key_store import KeyStore
from support.injected_models import loaded_models
from support.scripted_model import ScriptedModel, replies
from support.sidecar_server import serving, settings_for
from support.waiting import wait_blocking

CHAT = {"model": "reason/cot", "messages": [{"role": "user", "content": "What is 6 * 7?"}]}
ASKED = {"question": "?"}
TEXT = "The answer is 42."  # 18 tokens with its end


@pytest.fixture
def serve(tmp_path):
    """Start a server with these settings; gives a client without a key, of which it is an attribute."""

    @contextmanager
    def start(**options):
        with (
            serving(settings_for(tmp_path, **options)) as server,
            httpx.Client(base_url=server.url, timeout=60) as http,
        ):
            http.server = server
            yield http

    with loaded_models({"scripted": ScriptedModel(replies(TEXT))}):
        yield start


def use_key(http, **limits):
    http.headers["Authorization"] = f"Bearer {http.server.add_key(**limits)}"
    return http.server


def error_of(response):
    error = response.json()["error"]
    return response.status_code, error["code"], error["param"]


def test_parallel_runs_without_a_budget_spend_no_more_than_the_day(serve):
    with serve(auth=True) as http:
        server = use_key(http, tokens_per_day=100)
        with ThreadPoolExecutor(30) as threads:
            responses = list(threads.map(lambda _: http.post("/v1/reason", json=ASKED), range(30)))
        assert {r.status_code for r in responses} <= {200, 429}
        # at most five of 18 tokens, one of nine of the last ten, and one of the last token, if the others came first
        assert 1 <= [r.status_code for r in responses].count(200) <= 7
        assert all("retry-after" in r.headers for r in responses if r.status_code == 429)
        spending = server.call(KeyStore(server.run_manager.store).get_spending("t", time.time()))
        assert 0 < spending.tokens <= 100
        assert spending.reserved_tokens == 0
        while http.post("/v1/reason", json=ASKED).status_code == 200:
            pass
        spent = http.post("/v1/reason", json=ASKED)
        assert "per day is spent" in spent.json()["error"]["message"]
        assert server.call(KeyStore(server.run_manager.store).get_spending("t", time.time())).tokens == 100


def test_samples_are_bounded_at_every_entry(serve, monkeypatch):
    monkeypatch.setattr("reason.sidecar.policy.MAX_SAMPLES", 50)
    with serve() as http:
        many = {"parameters": {"n": 51}}
        voted = {"model": "reason/self-consistency", "reason": many}
        native = {**ASKED, "strategy": "self-consistency", **many}
        for path, body, param in (
            ("reason", native, "parameters.n"),
            ("runs", native, "parameters.n"),
            ("chat/completions", {**CHAT, **voted}, "reason.parameters.n"),
            ("responses", {"input": "?", **voted}, "reason.parameters.n"),
        ):
            assert error_of(http.post(f"/v1/{path}", json=body)) == (400, "user_error", param)


def test_forty_thousand_tools_are_refused_at_once(serve):
    with serve() as http:
        http.timeout = 20
        for count, expected in ((2000, (400, "user_error", "tools")), (40_000, (413, "too_large", None))):
            tools = [{"type": "function", "function": {"name": f"t{i}"}} for i in range(count)]
            assert error_of(http.post("/v1/chat/completions", json={**CHAT, "tools": tools})) == expected
            flat = [{"type": "function", "name": f"t{i}"} for i in range(count)]
            body = {"model": "reason/cot", "input": "?", "tools": flat}
            assert error_of(http.post("/v1/responses", json=body)) == expected


def test_lists_stay_small_whatever_the_runs_hold(serve):
    with serve() as http:
        long = "How high is the tower? " * 8000
        for i in range(3):
            http.post("/v1/reason", json={"question": long, "metadata": {"team": "ab"[i % 2]}})
        tools = [{"type": "function", "function": {"name": f"t{i}", "description": "d" * 500}} for i in range(1000)]
        chat = {**CHAT, "tools": tools, "tool_choice": "none", "metadata": {"team": "b"}, "user": "me"}
        assert http.post("/v1/chat/completions", json=chat).status_code == 200
        listed = http.get("/v1/runs")
        assert len(listed.content) < 5000
        page = listed.json()
        assert (page["object"], page["has_more"], page["last_id"]) == ("list", False, page["data"][-1]["id"])
        newest = page["data"][0]
        assert (newest["question"], newest["answer"], newest["stopped"]) == ("What is 6 * 7?", "42", "done")
        assert (newest["metadata"], newest["tokens"]) == ({"team": "b"}, 18)
        assert newest["seconds"] > 0
        assert len(page["data"][1]["question"]) == 200
        assert http.get(f"/v1/runs/{page['data'][1]['id']}").json()["question"] == long.strip()


def test_runs_are_filtered_and_sorted(serve):
    with serve() as http:

        def ask(question, n, **metadata):
            body = {"question": question, "strategy": "self-consistency", "parameters": {"n": n}, "metadata": metadata}
            return http.post("/v1/reason", json=body).json()["run_id"]

        def listed(**params):
            response = http.get("/v1/runs", params=params)
            assert response.status_code == 200, response.text
            return [run["id"] for run in response.json()["data"]]

        tower, hill = ask("How high is the Tower?", 3, team="a"), ask("How high is the hill?", 2, team="b", url="x:y")
        single = http.post("/v1/reason", json={"question": "How wide?"}).json()["run_id"]
        assert listed(sort="tokens") == [tower, hill, single]
        assert listed(sort="tokens", order="asc", limit=2) == [single, hill]
        assert listed(sort="tokens", order="asc", after=hill) == [tower]
        assert listed(order="asc") == [tower, hill, single]
        assert listed(strategy="self-consistency") == [hill, tower]
        assert listed(strategy="cot") == [single]
        assert listed(search="tower") == [tower]
        assert listed(tag="team:b") == listed(tag="url:x:y") == [hill]
        assert listed(model="other") == []
        assert listed(status="failed") == []


def test_a_run_that_has_ended_is_deleted_with_everything(serve):
    with serve(auth=True) as http:
        server = use_key(http)
        run_id = http.post("/v1/reason", json=ASKED).json()["run_id"]
        deleted = http.delete(f"/v1/runs/{run_id}")
        assert (deleted.status_code, deleted.json()) == (200, {"id": run_id, "object": "run", "deleted": True})
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/events")):
            assert error_of(http.request(method, f"/v1/runs/{run_id}{path}"))[:2] == (404, "unknown_name")
        assert http.get("/v1/runs").json()["data"] == []
        store = server.run_manager.store
        assert server.call(store.list_calls(run_id)) == server.call(store.list_events(run_id)) == []
        assert server.call(KeyStore(store).get_spending("t", time.time())).tokens == 18


def test_old_runs_are_deleted_while_the_server_runs(serve, monkeypatch):
    monkeypatch.setattr("reason.sidecar.run_manager.PRUNE_INTERVAL_S", 0.02)
    with serve(retention_days=1e-7) as http:  # 9 ms
        run_id = http.post("/v1/reason", json=ASKED).json()["run_id"]
        wait_blocking(lambda: http.get(f"/v1/runs/{run_id}").status_code == 404)
