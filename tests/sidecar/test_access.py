"""What browsers, SDKs and clients that send a request again expect of a real server."""

from __future__ import annotations

import socket

import httpx
import pytest
from reason.core.settings import Settings
from reason.sidecar.app import create_app
from support.injected_models import loaded_models
from support.scripted_model import ScriptedModel, replies
from support.sidecar_server import serving, settings_for

ORIGIN = "https://app.example"
SDK_HEADERS = (
    "authorization,content-type,idempotency-key,openai-beta,openai-organization,openai-project,x-stainless-arch,"
    "x-stainless-custom-poll-interval,x-stainless-helper-method,x-stainless-lang,x-stainless-os,"
    "x-stainless-package-version,x-stainless-retry-count,x-stainless-runtime,x-stainless-runtime-version,"
    "x-stainless-timeout"
)
"""Headers that the OpenAI SDK for JavaScript sends from a browser, as the browser names them before the request."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    models = {"scripted": ScriptedModel(replies("The answer is 4."))}
    folder = tmp_path_factory.mktemp("access")
    with loaded_models(models), serving(settings_for(folder, cors_origins=(ORIGIN,))) as server:
        yield server


REQUESTS = {
    "/v1/reason": {"question": "What is 2 + 2?"},
    "/v1/verify": {"text": "2 + 2 = 4", "programs_only": True},
    "/v1/runs": {"question": "What is 2 + 2?"},
    "/v1/chat/completions": {"model": "reason/cot", "messages": [{"role": "user", "content": "What is 2 + 2?"}]},
    "/v1/responses": {"model": "reason/cot", "input": "What is 2 + 2?"},
}


@pytest.mark.parametrize(
    ("path", "more"),
    [
        *((path, {}) for path in REQUESTS),
        *((path, {"stream": True}) for path in ("/v1/reason", "/v1/chat/completions", "/v1/responses")),
    ],
)
def test_a_request_that_is_sent_again_is_answered_as_replayed(server, path, more):
    key = {"Idempotency-Key": f"{path}{sorted(more)}"}
    first, again = (
        httpx.post(server.url + path, json={**REQUESTS[path], **more}, headers=key, timeout=60) for _ in range(2)
    )
    assert (first.status_code, again.status_code) in ((200, 200), (202, 202)), first.text
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize(("path", "method"), [("/v1/chat/completions", "POST"), ("/v1/responses/x", "DELETE")])
def test_a_browser_may_send_what_the_openai_sdk_sends(server, path, method):
    asked = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": SDK_HEADERS,
    }
    reply = httpx.options(server.url + path, headers=asked)
    assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert set(reply.headers["access-control-allow-headers"].lower().split(",")) >= set(SDK_HEADERS.split(","))
    assert "access-control-allow-credentials" not in reply.headers


def test_a_browser_shows_scripts_the_headers_that_clients_read(server):
    reply = httpx.get(f"{server.url}/v1/models", headers={"Origin": ORIGIN}, timeout=60)
    shown = {name.strip().lower() for name in reply.headers["access-control-expose-headers"].split(",")}
    assert shown >= {"x-request-id", "retry-after", "location", "idempotent-replayed"}


OWN_HOSTS = ["localhost", "LOCALHOST:8080", "reason.localhost", "127.0.0.1:8080", "[::1]"]
FOREIGN_HOSTS = [
    "evil",  # a name without a dot may be pointed to this machine as well: by a resolver, a search domain
    "evil:8080",
    "evil.example",
    "evil.",
    "127.0.0.1.evil.example",
]


@pytest.mark.parametrize("host", [*OWN_HOSTS, *FOREIGN_HOSTS])
def test_without_keys_the_host_is_an_address_or_a_name_of_this_machine(server, host):
    status = 200 if host in OWN_HOSTS else 403
    for method, path in (("GET", "/v1/runs"), ("POST", "/v1/reason")):
        reply = httpx.request(method, server.url + path, headers={"Host": host}, json={"question": "q"}, timeout=60)
        assert reply.status_code == status, reply.text
        assert status == 200 or reply.json()["error"]["code"] == "foreign_page"


def test_a_client_of_http_1_0_sends_no_host(server):
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as sock:
        sock.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 200 OK")


def test_the_root_leads_to_the_viewer(server):
    reply = httpx.get(server.url, follow_redirects=True, timeout=60)
    assert [step.headers["location"] for step in reply.history] == ["/ui"]
    assert reply.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize(
    ("host", "auth", "is_loud"), [("0.0.0.0", False, True), ("0.0.0.0", True, False), ("::1", False, False)]
)
async def test_a_server_without_keys_on_a_public_address_says_so(tmp_path, caplog, host, auth, is_loud):
    """`reason serve` refuses it; an application that is served by other means logs it."""
    settings = Settings(
        model="scripted", store=tmp_path / "s.sqlite3", cache_dir=tmp_path, serve={"host": host, "auth": auth}
    )
    with loaded_models({"scripted": ScriptedModel(replies("x"))}):
        app = create_app(settings)
        async with app.router.lifespan_context(app):
            pass
    assert [r.fields["host"] for r in caplog.records if r.msg == "auth.off"] == ["0.0.0.0"] * is_loud
