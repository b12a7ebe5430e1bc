"""Logs: one JSON object a line, without secrets, and without user or model text unless enabled."""

from __future__ import annotations

import asyncio
import io
import json
import logging

import httpx
import pytest
from reason.core.errors import BackendUnavailable
from reason.sidecar.key_store import KeyStore
from reason.sidecar.logs import (
    LOGGER,
    NOISY_LOGGERS,
    configure_logging,
    log_event,
    log_fault,
    redact_secrets,
)
from support.authenticated_app import guarded_app
from support.chats import user
from support.scripted_model import ScriptedModel, replies

SAID = "zebra crossing at midnight"
SECRET = "sk-proj-0123456789abcdefghijkl"


@pytest.fixture
def lines():
    """Capture the log as parsed lines; restores the logging configuration."""
    loggers = [
        logging.getLogger(name) for name in ("", LOGGER, "uvicorn", "uvicorn.error", "uvicorn.access", *NOISY_LOGGERS)
    ]
    before = [(one, one.handlers[:], one.filters[:], one.level, one.propagate) for one in loggers]
    stream = io.StringIO()

    class Lines:
        text = property(lambda _: stream.getvalue())

        def open(self, **options):
            configure_logging(stream=stream, **options)
            return self

        def __iter__(self):
            return iter([json.loads(line) for line in stream.getvalue().splitlines()])

        def of(self, event):
            return [line for line in self if line["event"] == event]

    yield Lines()
    for one, handlers, filters, level, propagate in before:
        one.handlers[:], one.filters[:], one.propagate = handlers, filters, propagate
        one.setLevel(level)


def test_an_event_is_one_object_with_its_fields(lines):
    lines.open()
    log_event("request", status=200, key_id=None, note="two\nlines")
    log_event("hidden", logging.DEBUG)
    (line,) = lines
    assert line.pop("time").endswith("Z")
    assert line == {"level": "info", "event": "request", "status": 200, "note": "two\nlines"}


@pytest.mark.parametrize("content", [False, True])
def test_an_error_tells_where_and_only_on_request_what(lines, content):
    lines.open(content=content)
    try:
        raise ValueError(f"{SAID} {SECRET}")
    except ValueError as e:
        log_fault("fault", e, request_id="r")
    (line,) = lines
    assert (line["event"], line["error"], line["request_id"]) == ("fault", "ValueError", "r")
    assert line["frames"][-1].startswith("sidecar/test_logs.py:")
    assert (SAID in lines.text) is content
    assert SECRET not in lines.text


@pytest.mark.parametrize("name", NOISY_LOGGERS)
def test_libraries_that_talk_to_models_say_nothing(lines, name):
    logger = logging.getLogger(name)
    own = io.StringIO()
    handler = logging.StreamHandler(own)  # as litellm installs one
    logger.addHandler(handler)
    lines.open(level=logging.DEBUG)
    logger.setLevel(logging.DEBUG)
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logger.log(level, f"POST https://host/?key={SECRET} {SAID}")
        logger.log(level, "headers %s", {"Authorization": f"Bearer {SECRET}"})
    try:
        raise ValueError(SECRET)
    except ValueError:
        logger.exception("failed with %s", SAID)
    told = own.getvalue() + lines.text
    assert "withheld" in told
    assert SECRET not in told
    assert SAID not in told


def test_content_that_is_wanted_still_has_no_keys_in_it(lines):
    lines.open(content=True)
    logging.getLogger("LiteLLM").warning("asked with %s about %s", SECRET, SAID)
    logging.getLogger("some.library").warning("the url is %s", f"postgresql://user:{SECRET}@host/db")
    assert SAID in lines.text
    assert SECRET not in lines.text


def test_lines_go_to_what_standard_error_is_now(lines, monkeypatch):
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr("sys.stderr", first)
    configure_logging()
    log_event("one")
    first.close()
    monkeypatch.setattr("sys.stderr", second)
    log_event("two")
    assert json.loads(second.getvalue())["event"] == "two"


@pytest.mark.parametrize(
    "secret",
    [
        "reason-abcdefgh-" + "a2" * 26, SECRET, "hf_abcdefghijklmnopqrst", "Bearer abcdef123456", "AIza" + "x" * 35,
        "postgresql://joe:hunter2@db/x", "gsk_abcdefgh12345678",
    ],
)  # fmt: skip
def test_what_looks_like_a_key_is_hidden(secret):
    told = redact_secrets(f'{{"x": "see {secret}, please"}}')
    assert "[hidden]" in told
    assert secret not in told
    assert "hunter2" not in told
    assert told.startswith('{"x": "see ')


class Failing(ScriptedModel):
    """A model whose error message has the user's text and a key."""

    def __init__(self, name, error):
        super().__init__(replies("x"), name=name)
        self.error = error(f"cannot answer {SAID} with {SECRET}")

    async def generate(self, requests, listener=None):
        raise self.error


async def every_way(g):
    """Requests to every route and for every kind of failure, with a marker text and a marker key."""
    good = await g.key("ask", "read", "admin")
    bad = {"Authorization": f"Bearer {SECRET}"}
    spec = g.app.openapi()["paths"]
    statuses = set()
    asked = {
        "model": "reason/cot", "messages": [user(SAID)], "question": SAID, "input": SAID,
        "text": SAID, "strategy": "cot", "metadata": {"user": SAID},
    }  # fmt: skip
    chat = [user(SAID)]
    bodies = [
        asked,
        {name: asked[name] for name in ("question", "strategy")},
        {name: asked[name] for name in ("model", "messages")},
        {name: asked[name] for name in ("model", "input")},
        *({"question": SAID, name: SAID} for name in ("text", "strategy")),
        *({"question": SAID, "model": name} for name in ("broken", "faulty")),
        *({"model": f"reason/cot:{name}", "messages": chat, "stream": True} for name in ("broken", "faulty")),
        {"model": SAID, "messages": chat},
        {SAID: SAID},
    ]
    for path, methods in [*spec.items(), (f"/{SAID}", {"get": {}}), ("/v1/runs/{run_id}", {"put": {}})]:
        where = path.replace("{run_id}", SAID.replace(" ", "-")).replace("{response_id}", "zebra")
        for method in methods:
            for headers in (good, bad, {}):
                for body in bodies if method in ("post", "put") else [None]:
                    marked = {**headers, "Idempotency-Key": SAID.replace(" ", "-")} if body is bodies[2] else headers
                    # routes refuse query parameters that they do not have
                    query = None if headers is good and method == "post" else {"q": SAID, "key": SECRET}
                    reply = await g.client.request(method, where, json=body, headers=marked, params=query)
                    statuses.add(reply.status_code)
            reply = await g.client.request(
                method, where, content=f'{{"{SAID}": '.encode() * 200, headers={**good, "Content-Type": "text/plain"}
            )
            statuses.add(reply.status_code)
    big = await g.client.post("/v1/reason", content=SAID.encode() * 10_000, headers=good)
    statuses.add(big.status_code)
    runs = (await g.client.get("/v1/runs", headers=good, params={"limit": 100})).json()["data"]
    for run in runs[:5]:
        for tail in ("", "/events"):
            statuses.add((await g.client.get(f"/v1/runs/{run['id']}{tail}", headers=good)).status_code)
        statuses.add((await g.client.post(f"/v1/runs/{run['id']}/resume", headers=good)).status_code)
    return statuses


async def test_whatever_happens_no_secret_and_no_word_of_the_user_is_logged(lines, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("reason.sidecar.middleware.MAX_BODY_BYTES", 100_000)
    models = (
        ScriptedModel(replies(f"I say: {SAID}. The answer is 4.")),
        Failing("broken", BackendUnavailable),
        Failing("faulty", ZeroDivisionError),
    )
    lines.open()
    async with guarded_app(tmp_path, *models) as g:
        statuses = await every_way(g)
        await asyncio.sleep(0)
    told = lines.text + "".join(capfd.readouterr())
    assert statuses >= {200, 400, 401, 404, 405, 413, 422, 503}
    assert {line["event"] for line in lines} >= {"request", "run"}
    named = [line for line in lines.of("run") if line.get("outcome") == "done"]
    requests = {line["request_id"]: line for line in lines.of("request")}
    assert named
    assert all(requests[line["request_id"]]["key_id"] == line["key_id"] for line in named)
    assert all(line["tokens"] > 0 for line in named)
    native = [line for line in requests.values() if line["route"] == "/v1/reason" and line["status"] == 200]
    assert native
    assert {line["run_id"] for line in native} <= {line["run_id"] for line in named}
    assert {line["route"] for line in requests.values()} >= {"/v1/reason", "/v1/runs/{run_id}", "(none)"}
    hidden = lines.of("error.hidden")  # what a model's server says may repeat a request, and callers do not see it
    assert {(line["code"], line.get("error_text")) for line in hidden} == {
        ("backend_unavailable", f"cannot answer {SAID} with [hidden]")
    }
    rest = "\n".join(line for line in told.splitlines() if '"error.hidden"' not in line)
    assert "zebra crossing" not in rest
    assert SECRET not in told
    for key in await keys_of(tmp_path):
        assert key.digest not in told


async def keys_of(folder):
    from reason.core.store.sqlite import SqliteStore

    store = await SqliteStore.open(folder / "runs.sqlite3")
    try:
        return await (await KeyStore.open(store)).keys()
    finally:
        await store.aclose()


async def test_litellm_and_httpx_leak_no_key_while_a_model_is_asked(lines, tmp_path, monkeypatch, capfd):
    """A real LiteLLM call to an endpoint that rejects it, at the most verbose log level."""
    import litellm

    monkeypatch.setattr(litellm, "suppress_debug_info", False)
    lines.open(level=logging.DEBUG)
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.DEBUG)
    with pytest.raises(Exception, match="."):
        await litellm.acompletion(
            model="openai/gpt-x", api_base="http://127.0.0.1:9/v1", api_key=SECRET, max_retries=0,
            messages=[user(SAID)],
        )  # fmt: skip
    async with httpx.AsyncClient(timeout=60) as client:
        with pytest.raises(httpx.HTTPError):
            await client.get(f"http://127.0.0.1:9/?key={SECRET}&q={SAID}")
    told = lines.text + "".join(capfd.readouterr())
    assert SECRET not in told
    assert SAID not in told
