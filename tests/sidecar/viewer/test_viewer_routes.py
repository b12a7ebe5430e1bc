"""`/ui` over HTTP: pages without data, cacheable assets, and a CSP on all responses."""

from __future__ import annotations

import re

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from reason.sidecar.errors import install_error_handlers
from reason.sidecar.viewer.page import asset
from reason.sidecar.viewer.routes import router

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@pytest.fixture
def client() -> TestClient:
    app = FastAPI()
    install_error_handlers(app)
    app.include_router(router)
    return TestClient(app)


@pytest.mark.parametrize("path", ["/ui", "/ui/", "/ui/ask", "/ui/runs/20261126-1", "/ui/runs/%3Cscript%3E"])
def test_every_page_is_the_same_shell(client, path):
    reply = client.get(path)
    assert reply.status_code == 200
    assert reply.headers["content-security-policy"] == POLICY
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["cache-control"] == "no-cache"
    assert reply.text == client.get("/ui").text
    assert re.findall(r"<script[^>]*>([^<]*)</script>", reply.text) == [""]
    assert " on" not in reply.text
    assert "style=" not in reply.text


def test_a_file_under_its_version_may_be_kept(client):
    places = re.findall(r'(?:src|href)="(/ui/assets/[^"]+)"', client.get("/ui").text)
    assert [place.partition("?")[0] for place in places] == ["/ui/assets/app.css", "/ui/assets/app.js"]
    for place in places:
        reply = client.get(place)
        assert reply.text == asset(place.partition("?")[0].rpartition("/")[2])
        assert reply.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert reply.headers["content-security-policy"] == POLICY
        plain = client.get(place.partition("?")[0])
        assert plain.headers["cache-control"] == "no-cache"
        assert client.get(place, headers={"If-None-Match": plain.headers["etag"]}).status_code == 304
    assert client.get("/ui/assets/app.js?v=0123").headers["cache-control"] == "no-cache"
    assert client.get("/ui/assets/app.js").headers["content-type"] == "text/javascript; charset=utf-8"
    assert "preact 1" in client.get("/ui/assets/THIRD_PARTY.txt").text


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fpage.py", "%2e%2e/routes.py", "app.js/x"])
def test_nothing_else_is_given_out(client, name):
    reply = client.get(f"/ui/assets/{name}")
    assert reply.status_code == 404
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
