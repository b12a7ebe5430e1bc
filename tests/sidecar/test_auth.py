"""The middleware: authentication, request ids, metrics and rate limits."""

from __future__ import annotations

import asyncio
import re

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from reason.core.errors import StoreError, UserError
from reason.sidecar.auth import ANONYMOUS, CACHE_TTL_S
from reason.sidecar.key_store import KeyStore
from support.authenticated_app import guarded_app
from support.scripted_model import ScriptedModel, replies

LIMITED = (429, "rate_limit_exceeded")


def error_of(reply):
    told = reply.json()["error"]
    assert set(told) >= {"message", "type", "param", "code"}
    return reply.status_code, told["code"]


@pytest.fixture
async def held():
    """A model that waits for its gate before each token."""
    gate = asyncio.Event()
    model = ScriptedModel(replies("The answer is 4."), step=gate.wait)
    model.gate = gate
    return model


async def test_without_a_key_nothing_but_health_is_told(tmp_path):
    async with guarded_app(tmp_path) as g:
        assert (await g.client.get("/healthz")).status_code == 200
        for call in (
            "POST /v1/reason", "POST /v1/chat/completions", "GET /v1/models", "GET /v1/runs", "GET /v1/runs/x",
            "DELETE /v1/runs/x", "POST /v1/runs", "POST /nowhere",
        ):  # fmt: skip
            reply = await g.client.request(*call.split())
            assert error_of(reply) == (401, "invalid_api_key"), call
            assert reply.headers["www-authenticate"] == "Bearer"


async def test_scopes_are_kept(tmp_path):
    async with guarded_app(tmp_path) as g:
        for scope, asking, reading in (("ask", 200, 403), ("read", 403, 200), ("admin", 200, 200)):
            key = await g.key(scope)
            replies_ = await g.ask(key), await g.client.get("/v1/runs", headers=key)
            assert tuple(reply.status_code for reply in replies_) == (asking, reading)
            assert all(error_of(r) == (403, "permission_denied") for r in replies_ if r.status_code == 403)


async def test_a_tenant_sees_its_own_runs_alone_and_an_admin_all(tmp_path):
    async with guarded_app(tmp_path) as g:
        one, two, rules = await g.key(tenant="a"), await g.key(tenant="b"), await g.key("admin", tenant="c")
        run = (await g.ask(one)).json()["run_id"]
        path = f"/v1/runs/{run}"
        assert (await g.client.get(path, headers=one)).status_code == 200
        for call in ("GET ", "GET /events", "DELETE ", "POST /cancel", "POST /answer", "POST /resume"):
            method, tail = call.split(" ")
            assert (await g.client.request(method, path + tail, headers=two)).status_code == 404
        assert (await g.client.get("/v1/runs", headers=two)).json()["data"] == []
        assert [r["id"] for r in (await g.client.get("/v1/runs", headers=rules)).json()["data"]] == [run]


async def test_a_key_is_refused_once_it_is_revoked(tmp_path, clock):
    async with guarded_app(tmp_path) as g:
        headers = await g.key()
        assert (await g.ask(headers)).status_code == 200
        keys = KeyStore(g.app.state.run_manager.store)
        (key,) = await keys.keys()
        await keys.revoke(key.id)
        await clock.advance(CACHE_TTL_S)
        assert (await g.ask(headers)).status_code == 401


async def test_requests_a_minute(tmp_path):
    async with guarded_app(tmp_path) as g:
        headers = await g.key("ask", "read", requests_per_minute=2)
        first, _, third = [await g.ask(headers) for _ in range(3)]
        assert (first.status_code, first.headers["x-ratelimit-remaining-requests"]) == (200, "1")
        assert error_of(third) == LIMITED
        assert 1 <= int(third.headers["retry-after"]) <= 60
        assert third.headers["x-ratelimit-remaining-requests"] == "0"
        assert (await g.client.get("/v1/runs", headers=headers)).status_code == 200  # reads are not limited


async def test_a_run_that_goes_on_counts_like_one_that_begins(tmp_path, held):
    async with guarded_app(tmp_path, held) as g:
        narrow = await g.key(concurrency=1, tenant="a")
        runs = []
        for number in range(2):
            body = {"question": "What is 2 + 2?", "strategy": "cot"}
            names = {**narrow, "Idempotency-Key": f"n{number}"}
            runs.append((await g.client.post("/v1/runs", json=body, headers=names)).json()["id"])
            cancelled = await g.client.post(f"/v1/runs/{runs[-1]}/cancel", headers=narrow)
            assert cancelled.json()["status"] == "interrupted"
        assert (await g.client.post(f"/v1/runs/{runs[0]}/resume", headers=narrow)).status_code < 300
        for path, headers in ((f"/v1/runs/{runs[1]}/resume", narrow), ("/v1/runs", names)):
            assert error_of(await g.client.post(path, json=body, headers=headers)) == LIMITED
        assert (await g.client.get(f"/v1/runs/{runs[1]}", headers=narrow)).json()["status"] == "interrupted"
        held.gate.set()
        await (await g.app.state.run_manager.attach(runs[0], ANONYMOUS)).result()
        assert not +g.app.state.gate.use._running
        store = g.app.state.run_manager.store
        await store.create_run("dear", {}, tenant="a")
        await store.end_run("dear", "finished", {"usage": {"completion_tokens": 10}})
        spent = await g.key(tokens_per_day=10, tenant="a")
        assert error_of(await g.client.post(f"/v1/runs/{runs[1]}/resume", headers=spent)) == LIMITED


async def test_requests_are_named(tmp_path):
    async with guarded_app(tmp_path) as g:
        for given, kept in (("abc-1.2_3:4", True), ("x" * 128, True), ("x" * 129, False), ("a b", False), ("é", False)):
            for path in ("/healthz", "/v1/runs", "/nowhere"):
                reply = await g.client.get(path, headers={"X-Request-Id": given.encode("latin-1")})
                assert (reply.headers["x-request-id"] == given) is kept
        made = [(await g.client.get("/healthz")).headers["x-request-id"] for _ in range(5)]
        assert len(set(made)) == 5


SAFE_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
    "server": None,
    "access-control-allow-origin": None,
}


async def test_headers_that_say_what_browsers_may_do(tmp_path):
    async with guarded_app(tmp_path) as g:
        for path in ("/healthz", "/v1/runs", "/nowhere", "/metrics"):
            headers = (await g.client.get(path)).headers
            assert {name: headers.get(name) for name in SAFE_HEADERS} == SAFE_HEADERS
        described = await g.client.get("/docs")
        policy = dict(rule.split(" ", 1) for rule in described.headers["content-security-policy"].split("; "))
        assert [policy[kind] for kind in ("default-src", "connect-src", "frame-ancestors")] == [
            "'none'", "'self'", "'none'",
        ]  # fmt: skip
        (script,) = re.findall(r'<script src="([^"]*)"', described.text)
        assert script.startswith(policy["script-src"].split()[0])
        own = (await g.client.get("/ui")).headers["content-security-policy"]
        assert "script-src 'self'" in own
        assert "jsdelivr" not in own


async def test_pages_of_other_origins_may_call_where_they_are_named(tmp_path):
    async with guarded_app(tmp_path, serve={"cors_origins": ("https://app.example",)}) as g:
        asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
        preflight = await g.client.options("/v1/reason", headers=asked)
        assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, asked["Origin"])
        assert "access-control-allow-credentials" not in preflight.headers
        other = await g.client.options("/v1/reason", headers={**asked, "Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://127.0.0.1:8080"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Host": "evil.example"}, 403),  # a foreign domain that resolves to 127.0.0.1
        ({"Host": "[::1]:8080"}, 200),
        ({"Host": "["}, 403),
        ({"Host": "localhost:8080", "Origin": "http://localhost:8080"}, 200),
    ],
)
async def test_a_server_without_keys_is_not_reached_through_strangers_pages(tmp_path, headers, status):
    async with guarded_app(tmp_path, serve={"auth": False}) as g:
        reply = await g.client.get("/v1/runs", headers=headers)
        assert reply.status_code == status
        assert status == 200 or error_of(reply) == (403, "foreign_page")


async def test_metrics_are_open_on_loopback_and_else_for_admins(tmp_path):
    async with guarded_app(tmp_path, serve={"host": "0.0.0.0"}) as g:
        assert (await g.client.get("/metrics")).status_code == 401
        assert (await g.client.get("/metrics", headers=await g.key("read"))).status_code == 403
        reply = await g.client.get("/metrics", headers=await g.key("admin"))
        assert (reply.status_code, reply.headers["content-type"].split(";")[0]) == (200, "text/plain")
    async with guarded_app(tmp_path, serve={"host": "0.0.0.0", "public_metrics": True}) as g:
        assert (await g.client.get("/metrics")).status_code == 200


async def test_a_body_is_not_parsed_from_who_has_no_key(tmp_path):
    async with guarded_app(tmp_path) as g:
        reply = await g.client.post("/v1/reason", content=b"[" * 5000)
        assert (reply.status_code, reply.headers["connection"]) == (401, "close")


async def test_what_nobody_foresaw_is_a_500_that_tells_nothing(tmp_path, monkeypatch):
    async with guarded_app(tmp_path) as g:
        headers = await g.key()

        async def broken(*_, **__):
            raise ZeroDivisionError("a secret of the server")

        monkeypatch.setattr("reason.sidecar.native.routes.find_runs", broken)
        reply = await g.client.get("/v1/runs", headers=headers)
        assert error_of(reply) == (500, "internal")
        assert "secret" not in reply.text
        assert reply.headers["x-request-id"] in reply.text
        assert reply.headers["x-content-type-options"] == "nosniff"


async def test_where_the_store_is_and_who_works_on_a_run_are_not_told(tmp_path, monkeypatch):
    async with guarded_app(tmp_path) as g:
        headers, store = await g.key(), g.app.state.run_manager.store
        run_id = (await g.ask(headers)).headers["location"].rpartition("/")[2]

        async def full(*_, **__):
            raise StoreError(f"no space left for the run store {tmp_path}", hint="free some space there")

        whole, store.save = store.save, full
        stream = await g.ask(headers, stream=True)
        store.save = whole
        monkeypatch.setattr("reason.sidecar.native.routes.find_runs", full)
        replies_ = [stream, await g.client.get("/v1/runs", headers=headers)]

        async def taken(*_, **__):
            raise UserError("run r is in use by process 7 on cellar", hint="wait")

        store.claim_run = taken
        await store.commits.write(lambda db: db.write("UPDATE runs SET status = 'interrupted' WHERE id = ?", (run_id,)))
        conflict = await g.client.post(f"/v1/runs/{run_id}/resume", headers=headers)
        assert error_of(conflict) == (409, "run_conflict")
        assert "cellar" not in conflict.text
        for reply in replies_:
            assert "run store failed" in reply.text
            assert str(tmp_path) not in reply.text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/reason", {"question": "q", "strategy": "cot", "budget": {"seconds": 9999.0, "tokens": 10**9}}),
        ("/v1/reason", {"question": "q", "strategy": "cot"}),
        ("/v1/chat/completions", {"model": "reason/cot", "messages": [{"role": "user", "content": "q"}]}),
        ("/v1/responses", {"model": "reason/cot", "input": "q"}),
    ],
)
async def test_no_run_gets_more_than_the_servers_ceilings(tmp_path, path, body):
    async with guarded_app(tmp_path, serve={"max_seconds": 7.0, "max_tokens": 50}) as g:
        headers = await g.key()
        assert (await g.client.post(path, json=body, headers=headers)).status_code == 200
        (run,) = (await g.client.get("/v1/runs", headers=headers)).json()["data"]
        budget = (await g.client.get(f"/v1/runs/{run['id']}", headers=headers)).json()["budget"]
        assert (budget["seconds"], budget["tokens"]) == (7.0, 50)


async def test_a_run_belongs_to_the_trace_of_its_request(tmp_path):
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    async with guarded_app(tmp_path) as g:
        g.app.state.gate._tracer = provider.get_tracer("reason")
        headers = {**await g.key(), "traceparent": f"00-{trace}-{parent}-01", "X-Request-Id": "mine"}
        run_id = (await g.ask(headers)).json()["run_id"]
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert set(spans) == {"invoke_workflow reason", "invoke_agent cot", "chat scripted"}
    assert {format(span.context.trace_id, "032x") for span in spans.values()} == {trace}
    run = spans["invoke_workflow reason"]
    assert format(run.parent.span_id, "016x") == parent
    assert (run.attributes["reason.run.id"], run.attributes["reason.request.id"]) == (run_id, "mine")
    assert not any("2 + 2" in span.to_json() for span in spans.values())
