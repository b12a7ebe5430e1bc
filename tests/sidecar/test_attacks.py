"""Hostile requests to the complete application: rejected with an error object, never a server error."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.authenticated_app import guarded_app_of_examples

POSTS = ("/v1/reason", "/v1/verify", "/v1/runs", "/v1/chat/completions", "/v1/responses", "/v1/runs/x/resume")
GETS = ("/v1/runs", "/v1/runs/{}", "/v1/runs/{}/events", "/v1/models", "/v1/models/{}", "/{}")
FIELDS = (
    "model", "messages", "question", "text", "input", "strategy", "parameters", "budget", "verify", "seed", "n",
    "max_tokens", "temperature", "stop", "tools", "tool_choice", "response_format", "stream", "stream_options",
    "reason", "metadata", "documents", "choices", "logprobs", "role", "content", "tokens", "seconds", "usd",
)  # fmt: skip
WORDS = st.sampled_from(
    ["", "cot", "reason/cot", "main", "user", "\x00", "\u202e", "../../etc/passwd", "a" * 3000, "${jndi:x}", "{{7*7}}",
     "' OR 1=1 --", "💥", "\ufffe", "-1", "NaN"]
)  # fmt: skip
NUMBERS = st.sampled_from([0, -1, 1, 2, 2**31, 2**53, 2**63, 2**64, 10**30, -(10**400), 0.5, -0.0, 1e308, 5e-324])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS | st.text(max_size=8),
    lambda one: st.lists(one, max_size=4) | st.dictionaries(st.sampled_from(FIELDS) | WORDS, one, max_size=4),
    max_leaves=12,
)
BASES = (
    {"question": "q", "strategy": "cot"},
    {"question": "q", "text": "t"},
    {"model": "reason/cot", "messages": [{"role": "user", "content": "q"}]},
    {"model": "reason/cot", "input": "q"},
)


@pytest.fixture(scope="module")
def request_(tmp_path_factory):
    with guarded_app_of_examples(tmp_path_factory.mktemp("attacked")) as (runner, guarded, key):

        def send(*args, headers=None, **options):
            return runner.run(guarded.client.request(*args, headers={**key, **(headers or {})}, **options))

        yield send


def check(reply, *, refused=False):
    assert reply.status_code < 500 or reply.status_code in (501, 503), reply.text[:500]
    assert "x-request-id" in reply.headers
    if reply.status_code >= 400 or refused:
        assert 400 <= reply.status_code < 500, (reply.status_code, reply.text[:300])
        told = reply.json()["error"]
        assert isinstance(told["message"], str)
        assert set(told) >= {"message", "type", "param", "code"}
        assert len(reply.content) < 20_000  # the request body is not echoed


TOGETHER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@TOGETHER
@given(
    path=st.sampled_from(POSTS),
    base=st.sampled_from(BASES),
    changes=st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=3),
)
def test_fields_that_are_anything(request_, path, base, changes):
    body = {**base, **changes}
    check(request_("POST", path, content=json.dumps(body), headers={"Content-Type": "application/json"}))


@TOGETHER
@given(path=st.sampled_from(POSTS), body=st.binary(max_size=60) | VALUES.map(lambda v: json.dumps(v).encode()))
def test_bodies_that_are_no_request(request_, path, body):
    if path.endswith("resume"):
        check(request_("POST", path, content=body, headers={"Content-Type": "application/json"}))
    elif not body.startswith(b"{"):
        check(request_("POST", path, content=body, headers={"Content-Type": "application/json"}), refused=True)


@pytest.mark.parametrize("path", POSTS[:-1])
def test_an_error_does_not_repeat_a_long_name(request_, path):
    reply = request_("POST", path, json={"k" * 40_000: 0})
    check(reply, refused=True)
    assert len(reply.content) < 3000


@pytest.mark.parametrize("path", POSTS[:-1])
def test_thousands_of_faults_of_a_body_are_told_as_one(request_, path):
    reply = request_("POST", path, json={str(i): 0 for i in range(5000)})
    check(reply, refused=True)
    assert "fields are unknown or invalid" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
def test_bodies_of_other_kinds_are_refused(request_, kind):
    body = json.dumps(BASES[0])
    check(request_("POST", "/v1/reason", content=body, headers={"Content-Type": kind}), refused=True)


HEADERS = st.dictionaries(
    st.sampled_from(
        ["Last-Event-ID", "Idempotency-Key", "traceparent", "tracestate", "Accept", "Accept-Encoding",
         "Content-Encoding", "X-Request-Id", "Range", "Cookie", "X-Forwarded-For", "Transfer-Encoding", "Expect",
         "Origin", "Content-Length"]
    ),
    st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=40)
    | st.sampled_from(["", "-1", "9" * 5000, "00-" + "f" * 32 + "-" + "f" * 16 + "-01", "null", "gzip", "chunked"]),
    max_size=4,
)  # fmt: skip


@TOGETHER
@given(path=st.sampled_from((*POSTS, *GETS)), headers=HEADERS, word=WORDS)
def test_headers_that_are_anything(request_, path, headers, word):
    raw = {name: value.encode("latin-1") for name, value in headers.items()}
    if path in POSTS:
        reply = request_(
            "POST", path, content=json.dumps(BASES[0]), headers={"Content-Type": "application/json", **raw}
        )
    else:
        reply = request_("GET", path.format("x"), headers=raw)
    check(reply)


@TOGETHER
@given(
    path=st.sampled_from(GETS),
    word=WORDS | st.text(max_size=20),
    name=st.sampled_from(["limit", "search", "tag", "sort", "order", "status", "after", "text", "x"]),
    value=WORDS | NUMBERS.map(str) | st.text(max_size=10),
    method=st.sampled_from(["GET", "DELETE", "PUT", "PATCH", "OPTIONS", "HEAD", "TRACE", "BREW"]),
)
def test_paths_and_queries_that_are_anything(request_, path, word, name, value, method):
    where = path.format(quote(word[:100].encode("utf-8", "replace"), safe=""))
    reply = request_(method, where, params={name: value.encode("utf-8", "replace").decode("utf-8", "replace")})
    if method == "HEAD":
        assert reply.status_code < 500
    else:
        check(reply)


@pytest.mark.parametrize(
    "path", ["/v1/runs/%00", "/v1/runs/%ff%fe", "/v1/runs/..%2f..%2fetc", "/v1/runs/a%0d%0ab", "/%"]
)
def test_paths_made_to_break_out(request_, path):
    check(request_("GET", path), refused=True)
