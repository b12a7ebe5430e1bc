"""What a model's server says when it fails is the operator's: callers get the error's class and an id (a real server).

The model server is at an address with a key in its path, and its error texts must reach no caller on any route.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from contextlib import asynccontextmanager

import httpx
import pytest
import uvicorn
from reason.core.errors import (
    BackendError,
    BackendMisconfigured,
    BackendTimeout,
    ContextTooLong,
    DataError,
    ModelNotFound,
    RateLimited,
    ReasonError,
    StoreError,
    UnknownName,
    UserError,
)
from reason.core.messages import Failure
from reason.core.settings import ProviderSettings, Settings
from reason.sidecar.app import create_app
from reason.sidecar.errors import RunErrors, error_object, public_error, public_stored_error
from reason.sidecar.server import uvicorn_options
from support.fault_server import FaultServer
from support.scripted_model import ScriptedModel, replies
from support.waiting import wait_until

PATH_KEY = "sk-in-the-path-0123456789"
SAID = "on demand"
"""Part of every error text of the model's server."""


class SecretServer(FaultServer):
    """A model server below a path that is a key."""

    async def _answer(self, reply, method, path, headers, body):
        assert path.startswith(f"/{PATH_KEY}/")
        await super()._answer(reply, method, path.removeprefix(f"/{PATH_KEY}"), headers, body)


class Served:
    def __init__(self, client, upstream, root, store):
        self.client, self.upstream, self.root, self.store = client, upstream, root, store

    def runs(self):
        """The ids of all runs."""
        with sqlite3.connect(self.store) as db:
            return [run_id for (run_id,) in db.execute("SELECT id FROM runs")]

    def fail(self, fault, *, only=None):
        """Fail all further requests to the model, or those with the given numbers from now on."""
        first = self.upstream.count
        self.upstream.fault = lambda n: fault if only is None or n - first in only else None

    def check(self, *replies):
        """No reply has the address, the path or a text of the model's server."""
        for reply in replies:
            for secret in (PATH_KEY, self.root, SAID, "HOSTED_VLLM"):
                assert secret not in reply.text, (secret, reply.request.url.path, reply.text)


@pytest.fixture
def hidden(caplog):
    """The log lines with hidden texts."""
    caplog.set_level(logging.INFO, "reason.sidecar")
    return lambda: [r.fields for r in caplog.records if r.msg == "error.hidden"]


@asynccontextmanager
async def served(tmp_path, **settings):
    upstream = SecretServer(ScriptedModel(replies("The answer is 4.")))
    async with upstream.run() as base:
        root = base.removesuffix("/v1").removeprefix("http://")
        provider = ProviderSettings(api_base=f"http://{root}/{PATH_KEY}/v1", max_retries=0, timeout_s=60.0)
        chosen = Settings(
            model="hosted_vllm/small", store=tmp_path / "runs.sqlite3", cache_dir=tmp_path / "cache",
            serve={"auth": False, "drain_timeout_s": 0.0}, providers={"hosted_vllm": provider}, **settings,
        )  # fmt: skip
        app = create_app(chosen)
        async with app.router.lifespan_context(app), asyncio.TaskGroup() as tasks:
            options = {**uvicorn_options(chosen.serve), "port": 0, "lifespan": "off"}
            server = uvicorn.Server(uvicorn.Config(app, **options))
            tasks.create_task(server.serve())
            await wait_until(lambda: server.started)
            port = server.servers[0].sockets[0].getsockname()[1]
            try:
                async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                    yield Served(client, upstream, root, chosen.store)
            finally:
                server.should_exit = True


NATIVE = {"question": "What is 2 + 2?", "strategy": "cot"}
CHAT = {"model": "reason/cot", "messages": [{"role": "user", "content": "What is 2 + 2?"}]}
RESPONSE = {"model": "reason/cot", "input": "What is 2 + 2?"}


async def every_route(s):
    """Replies to failing requests, on each route that runs a question or shows a run."""
    told = [
        await s.client.post(path, json={**body, **streamed})
        for path, body in (("/v1/reason", NATIVE), ("/v1/chat/completions", CHAT), ("/v1/responses", RESPONSE))
        for streamed in ({}, {"stream": True})
    ]
    run_id = (await s.client.post("/v1/runs", json=NATIVE)).json()["id"]
    events = await s.client.get(f"/v1/runs/{run_id}/events")  # until the run has ended
    detail = await s.client.get(f"/v1/runs/{run_id}")
    assert detail.json()["status"] == "failed"
    told += [events, detail, await s.client.get(f"/v1/responses/resp_{run_id}")]
    told += [await s.client.get(f"/v1/runs/{run}/events") for run in s.runs()]
    return told, run_id


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("401", 424, "backend_misconfigured"), ("500", 502, "backend_error"), ("error event", 502, "backend_error"),
        ("401 at opening", 424, "backend_misconfigured"), ("404 at opening", 424, "backend_misconfigured"),
        ("400", 400, "backend_refused"),
    ],
)  # fmt: skip
async def test_callers_get_a_class_and_an_id_and_the_operator_the_text(tmp_path, hidden, fault, status, code):
    async with served(tmp_path) as s:
        if at_opening := {"401 at opening": "key", "404 at opening": "served"}.get(fault):
            setattr(s.upstream, at_opening, "other")
        else:
            assert (await s.client.post("/v1/reason", json=NATIVE)).status_code == 200
            s.fail(fault)
        told, run_id = await every_route(s)
        s.check(*told)
        plain, streamed = told[:6:2], told[1:6:2]
        assert [reply.status_code for reply in plain] == [status] * 3
        assert [reply.headers.get("x-should-retry") for reply in plain] == ["false"] * 3
        assert {reply.json()["error"]["code"] for reply in plain} == {code}
        for reply in streamed:
            error = reply.json()["error"] if reply.status_code != 200 else json.loads(last_data(reply.text))
            assert code in (error.get("code"), (error.get("error") or {}).get("code"))
        messages = [reply.json()["error"]["message"] for reply in plain]
        assert all("(run 20" in message for message in messages)
        lines = hidden()
        assert {line["run_id"] for line in lines} >= {run_id, *(m.partition("(run ")[2].rstrip(")") for m in messages)}
        texts = [line["error_text"] for line in lines if line["run_id"] == run_id]
        assert any(PATH_KEY in text for text in texts), texts


def last_data(stream):
    """The last event of a stream with an error."""
    return [line[6:] for line in stream.splitlines() if line.startswith("data: ") and "code" in line][-1]


LEXICAL = {"judge": "lexical"}


JUDGED = {"verify": ["edgejury"], "verify_parameters": {"edgejury": LEXICAL}}


@pytest.mark.parametrize(
    ("strategy", "parameters", "more", "fault"),
    [
        ("self-consistency", {"n": 3}, {}, "500"),
        ("best-of-n", {"n": 3}, {}, "cut 1"),
        ("edgejury", LEXICAL, JUDGED, "401"),
        ("self-consistency", {"n": 2}, {"verify": ["davinci"], "judge_model": "hosted_vllm/small"}, "500"),
    ],
)
async def test_failed_samples_are_shown_without_the_text_of_the_models_server(
    tmp_path, hidden, strategy, parameters, more, fault
):
    """The viewer reads the same events."""
    async with served(tmp_path) as s:
        await s.client.post("/v1/reason", json=NATIVE)
        s.fail(fault, only={1, 2, 4, 5, 6, 7})
        told = await s.client.post(
            "/v1/reason", json={**NATIVE, "strategy": strategy, "parameters": parameters, **more}
        )
        shown = [await s.client.get(f"/v1/runs/{run}{tail}") for run in s.runs() for tail in ("", "/events")]
        s.check(told, *shown)
        assert all("run_id" in line for line in hidden())


# -- the errors themselves


class Refused(BackendError):
    """A backend's own class, without a code."""


class Quota(BackendError):
    """A backend's own class, with a code."""

    code = "quota_of_this_test"


SECRET_TEXT = "https://host/sk-key failed"


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (BackendTimeout(SECRET_TEXT, hint="raise timeout_s"), 504, "the model backend did not respond in time"),
        (BackendMisconfigured(SECRET_TEXT), 424, "the model backend cannot be used"),
        (Refused(SECRET_TEXT), 502, "the model backend failed"),
        (Quota(SECRET_TEXT), 502, "the model backend failed"),
        (UnknownName("model", "x", hint=SECRET_TEXT), 424, "the model backend does not serve the model"),
        (ContextTooLong(SECRET_TEXT, tokens=900, limit=512), 400, "it needs 900 tokens of 512"),
        (StoreError(SECRET_TEXT), 500, "the server's run store failed"),
        (DataError(SECRET_TEXT), 422, "a file of the server is missing or invalid"),
        (ReasonError(SECRET_TEXT), 500, "something went wrong inside the server"),
    ],
)
def test_hidden_texts_have_a_class_and_an_id(hidden, error, status, message):
    public = public_error(error, run_id="20261129-abc")
    told = str(public)
    assert public.http_status == status
    assert message in told
    assert "(run 20261129-abc)" in told
    assert not any(secret in told for secret in ("host", "timeout_s"))
    assert [(line["run_id"], line["error_text"]) for line in hidden()] == [("20261129-abc", str(error))]
    assert public_error(public, request_id="req_1") is public  # once is enough
    assert error_object(public)["message"] == told
    if not isinstance(error, DataError):  # which names what the caller named, without a run
        assert "host" not in error_object(error)["message"]
        assert "(request req_1)" in str(public_error(error, request_id="req_1"))


def test_what_an_error_carries_is_kept():
    partial = object()
    error = RateLimited(SECRET_TEXT, retry_after_s=7.0)
    error.partial = partial
    public = public_error(error, run_id="r")
    assert (type(public), public.retry_after_s, public.partial) == (RateLimited, 7.0, partial)


@pytest.mark.parametrize("error", [UserError("k is 0", param="k"), ModelNotFound("x"), UnknownName("strategy", "x")])
def test_errors_about_the_request_are_shown(error):
    assert public_error(error, run_id="r") is error


def test_a_run_hides_each_text_and_logs_it_once(hidden):
    errors = RunErrors("r")
    secret = Failure(code="backend_unavailable", message=SECRET_TEXT)
    failure = errors.failure(secret, "judge")
    assert failure == Failure(code="backend_unavailable", message="the model backend is not available (run r)")
    assert errors.failure(failure, "judge") is failure
    errors.failure(secret, "judge")
    assert str(errors.error(BackendTimeout(SECRET_TEXT), "main")) == "the model backend did not respond in time (run r)"
    assert [(line["code"], line["role"]) for line in hidden()] == [
        ("backend_unavailable", "judge"),
        ("backend_timeout", "main"),
    ]
    kept = (StoreError("x"), UserError("x"))
    assert [errors.error(error, "main") for error in kept] == list(kept)
    quota = Failure(code=Quota.code, message=SECRET_TEXT)
    assert errors.failure(quota, "main").message == "the model backend failed (run r)"
    stop = Failure(code="user_error", message="stop is too long")
    assert errors.failure(stop, "main") is stop


def test_a_stored_error_is_shown_without_its_text():
    stored = {"code": "backend_error", "message": SECRET_TEXT}
    assert public_stored_error(stored) == {**stored, "message": "the model backend failed"}
    named = {**stored, "message": "the model backend failed (run r)"}
    assert public_stored_error(named) == named
