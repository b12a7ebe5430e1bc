"""Requests that are served past FastAPI's layers, and those that are not."""

from __future__ import annotations

import json

import httpx
import pytest

CHAT = {"model": "reason/cot", "messages": [{"role": "user", "content": "What is 6 * 7?"}], "seed": 7}
RESPONSE = {"model": "reason/cot", "input": "What is 6 * 7?"}
DIRECT, FRAMEWORK = "application/json", "application/json; charset=utf-8"
"""Content types of the same body: FastAPI serves the second."""


def post(server, path, body, kind=DIRECT, **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(f"{server.url}{path}", content=content, headers={"content-type": kind, **headers}, timeout=60)


def without_changing(response):
    """The headers whose values are the same for equal requests."""
    changing = {"date", "x-request-id", "content-length"}
    return {name: value for name, value in response.headers.items() if name not in changing}


@pytest.mark.parametrize(("path", "body"), [("/v1/chat/completions", CHAT), ("/v1/responses", RESPONSE)])
@pytest.mark.parametrize("stream", [False, True])
def test_both_ways_give_the_same(server, path, body, stream):
    direct, framework = (post(server, path, {**body, "stream": stream}, kind) for kind in (DIRECT, FRAMEWORK))
    assert direct.status_code == framework.status_code == 200
    assert without_changing(direct) == without_changing(framework)
    assert "The answer is 42." in direct.text.replace('"', "") or "42" in direct.text


def test_only_the_direct_way_leaves_the_framework_out(server, monkeypatch):
    served = []
    router = server.app.router
    inner = type(router).__call__

    async def noted(self, scope, receive, send):
        served.append(scope["path"])
        await inner(self, scope, receive, send)

    monkeypatch.setattr(type(router), "__call__", noted)
    assert post(server, "/v1/chat/completions", CHAT).status_code == 200
    assert served == []
    assert post(server, "/v1/chat/completions", CHAT, FRAMEWORK).status_code == 200
    assert served == ["/v1/chat/completions"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        json.dumps({"model": "reason/cot"}).encode(),
        json.dumps({**CHAT, "messages": "hello"}).encode(),
        json.dumps({**CHAT, "temprature": 1}).encode(),
        json.dumps({**CHAT, "n": 0}).encode(),
        json.dumps({**CHAT, "logit_bias": {"1": 2}}).encode(),
        json.dumps({**CHAT, "model": "reason/none"}).encode(),
    ],
)
def test_errors_are_the_frameworks(server, body):
    direct, framework = (post(server, "/v1/chat/completions", body, kind) for kind in (DIRECT, FRAMEWORK))
    assert direct.status_code == framework.status_code >= 400
    assert direct.json() == framework.json()
    assert without_changing(direct) == without_changing(framework)


@pytest.mark.parametrize("key", ["", "two words", "x" * 256])
def test_an_invalid_idempotency_key_is_refused_likewise(server, key):
    answers = [
        post(server, "/v1/chat/completions", CHAT, kind, **{"idempotency-key": key}) for kind in (DIRECT, FRAMEWORK)
    ]
    assert answers[0].status_code == answers[1].status_code == 400
    assert answers[0].json() == answers[1].json()


def test_a_repeated_request_gets_the_same_run(server):
    first, second = (post(server, "/v1/chat/completions", CHAT, **{"idempotency-key": "direct-1"}) for _ in range(2))
    assert first.json()["id"] == second.json()["id"]
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"


def test_metrics_have_the_route(server):
    post(server, "/v1/chat/completions", CHAT)
    assert 'route="/v1/chat/completions",status="200"' in httpx.get(f"{server.url}/metrics", timeout=60).text
