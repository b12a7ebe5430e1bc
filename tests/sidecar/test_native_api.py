"""The native API over a real socket, with a scripted model behind it."""

import asyncio
import json
import threading
from contextlib import contextmanager

import httpx
import pytest
from reason.core.errors import InvalidResponse
from reason.core.events import RunFinished, TextDelta
from reason.core.types import Answer
from support.native_client import parse_events
from support.openai_server import scripted_server
from support.scripted_model import THINKS, ScriptedModel, replies, thinking

ALIASES = {"quick": {"strategy": "self-consistency", "parameters": {"n": 3}, "budget": {"tokens": 500}}}
ASKED = {"question": "?"}


@pytest.fixture(scope="module")
def models():
    return {
        "scripted": ScriptedModel(replies("The answer is 42.")),
        "thinker": ScriptedModel(thinking("Six sevens.", "The answer is 42."), name="thinker", profile=THINKS),
        "concluding": ScriptedModel(replies("Therefore, the answer is 42."), name="concluding"),
    }


@pytest.fixture(scope="module")
def served(tmp_path_factory, models):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reason.sidecar.sse.KEEPALIVE_S", 0.05)
        patch.setattr("reason.sidecar.policy.MAX_SAMPLES", 100)
        serve = {"aliases": ALIASES, "max_seconds": 50}
        with scripted_server(tmp_path_factory.mktemp("served"), models, serve=serve, seed=5) as server:
            yield server


@contextmanager
def held(model):
    """Inside, a model is held in the middle of its reply; the function that is given waits until it is there."""
    hold, reached = threading.Event(), threading.Event()

    async def wait():
        reached.set()
        await asyncio.to_thread(hold.wait)

    model._step = wait
    try:
        yield lambda: reached.wait(20)
    finally:
        hold.set()


@pytest.fixture
def http(served):
    with httpx.Client(base_url=served.url, timeout=30) as client:
        yield client


def refused(response, status, code, param=None):
    """Assert that a response is an error object with these values; returns its message."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, param), error
    return error["message"]


def events_of(response):
    return parse_events(response.text.splitlines())


def test_a_question_is_answered_whole(http):
    response = http.post("/v1/reason", json={"question": "What is six times seven?"})
    assert response.status_code == 200
    answer = Answer.model_validate_json(response.content)
    assert (answer.answer, answer.strategy, answer.model) == ("42", "cot", "scripted")
    assert response.headers["location"] == f"/v1/runs/{answer.run_id}"
    assert "idempotent-replayed" not in response.headers
    detail = http.get(response.headers["location"]).json()
    assert (detail["status"], detail["answer"], detail["background"]) == ("finished", "42", False)
    assert detail["result"] == response.json()
    assert detail["budget"]["seconds"] == 50  # the server's limit


def test_what_a_request_says_reaches_the_run(http):
    body = {
        "question": "Which?",
        "choices": ["41", "42"],
        "documents": [{"name": "d", "text": "t"}],
        "strategy": "self-consistency",
        "parameters": {"n": 5},
        "budget": {"tokens": 400, "seconds": 1000},
        "seed": 9,
        "metadata": {"who": "me"},
    }
    answer = http.post("/v1/reason", json=body).json()
    detail = http.get(f"/v1/runs/{answer['run_id']}").json()
    assert (detail["strategy"], detail["parameters"]["n"], detail["seed"]) == ("self-consistency", 5, 9)
    assert (detail["budget"]["tokens"], detail["budget"]["seconds"]) == (400, 50)
    assert detail["metadata"] == {"who": "me"}
    assert len(answer["candidates"]) == 5
    assert (answer["answer"], answer["option"], detail["answer"]) == ("B", "42", "42 (B)")
    assert http.get("/v1/runs").json()["data"][0]["answer"] == "42 (B)"


def test_an_alias_stands_for_strategy_parameters_and_limits(http):
    answer = http.post("/v1/reason", json={**ASKED, "model": "quick", "parameters": {"max_tokens": 40}}).json()
    detail = http.get(f"/v1/runs/{answer['run_id']}").json()
    assert (detail["strategy"], detail["budget"]["tokens"]) == ("self-consistency", 500)
    assert (detail["parameters"]["n"], detail["parameters"]["max_tokens"]) == (3, 40)
    both = http.post("/v1/reason", json={**ASKED, "model": "quick", "strategy": "cot"})
    refused(both, 400, "user_error", "strategy")


REFUSED = {
    (422, "invalid_request"): [
        ({"question": ""}, "question"),
        ({"speed": 3}, "speed"),
        ({"budget": {"tokens": 0}}, "budget.tokens"),
        ({"seed": -1}, "seed"),
        ({"documents": [{"name": "a", "text": "b"}] * 65}, "documents"),
        ({"metadata": {"k" * 65: "v"}}, f"metadata.{'k' * 65}.[key]"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"metadata": dict.fromkeys(map(str, range(17)), "v")}, "metadata"),
        ({"tests": [{"name": "", "code": "f()"}]}, "tests.0.name"),
    ],
    (400, "user_error"): [
        ({"question": "  "}, None),
        ({"choices": ["a"]}, None),
        ({"parameters": {"temperature": -1}}, "temperature"),
        ({"require_verified": True}, "verify"),
        ({"strategy": "self-consistency", "parameters": {"n": 101}}, "parameters.n"),
        ({"strategy": "glimprouter", "parameters": {"router": "/etc/passwd"}}, "parameters.router"),
        (
            {"strategy": "cascade", "parameters": {"then_parameters": {"router": "x.json"}}},
            "parameters.then_parameters.router",
        ),
        (
            {"verify": ["davinci"], "verify_parameters": {"davinci": {"verdicts": "/root/f.json"}}},
            "verify_parameters.davinci.verdicts",
        ),
        ({"verify": ["execution"]}, "verify"),
        ({"strategy": "best-of-n", "parameters": {"score": "tests"}}, "parameters.score"),
    ],
    (422, "unknown_name"): [
        ({"strategy": "no-such"}, "strategy"),
        ({"parameters": {"temprature": 1}}, "parameters.temprature"),
        ({"verify": ["no-such"]}, "verify"),
        ({"verify": ["davinci"], "verify_parameters": {"davinci": {"kk": 1}}}, "verify_parameters.davinci.kk"),
    ],
    (404, "model_not_found"): [
        ({"model": "local/smollm2-135m"}, "model"),
        ({"judge_model": "gpt-5"}, "judge_model"),
        ({"strategy": "edgejury", "jurors": ["gpt-5"]}, "jurors"),
    ],
}


@pytest.mark.parametrize(
    ("fields", "param", "error"), [(*case, error) for error, cases in REFUSED.items() for case in cases]
)
def test_what_cannot_be_served_is_refused_with_the_field_at_fault(http, fields, param, error):
    for path in ("/v1/reason", "/v1/runs"):
        refused(http.post(path, json={**ASKED, **fields}), *error, param)


def test_paths_methods_and_questions_that_do_not_exist_have_the_error_object(http):
    refused(http.get("/v1/nothing"), 404, "not_found")
    refused(http.put("/v1/reason", json={}), 405, "method_not_allowed")
    refused(http.get("/v1/runs?limit=0"), 422, "invalid_request", "limit")
    for path in ("/v1/reason", "/v1/runs"):
        refused(http.post(path, json={}), 422, "invalid_request", "question")
    for method, path in (
        ("GET", "/no-such-run"), ("GET", "?after=no-such-run"), ("DELETE", "/no-such-run"),
        ("POST", "/no-such-run/cancel"), ("POST", "/no-such-run/resume"), ("POST", "/no-such-run/answer"),
    ):  # fmt: skip
        refused(http.request(method, f"/v1/runs{path}"), 404, "unknown_name")


def test_a_stream_is_the_runs_events_to_the_last(http):
    with http.stream("POST", "/v1/reason", json={**ASKED, "stream": True, "text": True}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert (response.headers["cache-control"], response.headers["x-accel-buffering"]) == ("no-cache", "no")
        body = response.read().decode()
    events = events_of(response)
    assert [e.number for e in events] == list(range(1, len(events) + 1))
    assert events[-1].answer.answer == "42"
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == "The answer is 42."
    ids = [int(line.removeprefix("id: ")) for line in body.splitlines() if line.startswith("id: ")]
    assert ids == [e.number for e in events]


def test_a_stream_of_a_run_that_fails_ends_with_the_error_object(http, models, monkeypatch):
    async def broken(requests, listener=None):
        raise InvalidResponse("nonsense came back")

    monkeypatch.setattr(models["scripted"], "generate", broken)
    refused(http.post("/v1/reason", json=ASKED), 502, "invalid_response")
    body = http.post("/v1/reason", json={**ASKED, "stream": True}).text
    last = body.rstrip().split("\n\n")[-1]
    assert last.startswith("event: error\ndata: ")
    assert json.loads(last.partition("data: ")[2])["error"]["code"] == "invalid_response"


def test_an_idempotency_key_names_one_request(http):
    headers = {"Idempotency-Key": "once"}
    assert http.post("/v1/reason", json={"question": "Once?"}, headers=headers).status_code == 200
    refused(http.post("/v1/reason", json={"question": "Twice?"}, headers=headers), 409, "duplicate_request")
    refused(http.post("/v1/runs", json={"question": "Once?"}, headers=headers), 409, "duplicate_request")
    bad = http.post("/v1/reason", json=ASKED, headers={"Idempotency-Key": "a b"})
    refused(bad, 422, "invalid_request", "Idempotency-Key")


def test_runs_are_started_listed_and_followed(http):
    started = [http.post("/v1/runs", json={"question": f"Question {i}?"}) for i in range(5)]
    assert {r.status_code for r in started} == {202}
    ids = [r.json()["id"] for r in started]
    assert [r.headers["location"] for r in started] == [f"/v1/runs/{i}" for i in ids]
    for run_id in ids:
        events = events_of(http.get(f"/v1/runs/{run_id}/events"))
        assert isinstance(events[-1], RunFinished)
    seen, after, page = [], {}, {"has_more": True}
    while page["has_more"]:
        page = http.get("/v1/runs", params={"limit": 2, "status": "finished", **after}).json()
        assert len(page["data"]) <= 2
        seen += [run["id"] for run in page["data"]]
        after = {"after": page["last_id"]}
    assert seen[:5] == ids[::-1]
    assert len(seen) == len(set(seen))


def test_events_go_on_after_the_last_that_is_known(http):
    run_id = http.post("/v1/reason", json=ASKED).json()["run_id"]

    def numbers(after=None, last=None):
        headers = {} if last is None else {"Last-Event-ID": str(last)}
        params = {} if after is None else {"after": after}
        events = events_of(http.get(f"/v1/runs/{run_id}/events", params=params, headers=headers))
        return [event.number for event in events]

    every = numbers()
    known = every[len(every) // 2]
    rest = [number for number in every if number > known]
    assert numbers(known) == numbers(last=known) == numbers(every[0], known) == rest
    assert numbers(last="rubbish") == every


def test_a_run_is_cancelled_and_resumed(http, models):
    with held(models["scripted"]) as reached:
        run_id = http.post("/v1/runs", json={"question": "Slow?"}).json()["id"]
        path = f"/v1/runs/{run_id}"
        assert reached()
        with http.stream("GET", f"{path}/events") as response:
            chunks = response.iter_text()
            while ": ping" not in next(chunks):  # keep-alive comments
                pass
        refused(http.delete(path), 409, "run_conflict")
        cancelled = http.post(f"{path}/cancel")
        told = cancelled.json()
        assert (cancelled.status_code, told["status"], told["result"]["stopped"]) == (200, "interrupted", "cancelled")
        assert http.post(f"{path}/cancel").json() == told
        assert models["scripted"].running == 0
    assert http.post(f"{path}/resume").status_code == 202
    events = events_of(http.get(f"{path}/events"))
    models["scripted"]._step = None
    assert [e.number for e in events] == sorted({e.number for e in events})
    assert [e.answer.stopped for e in events if isinstance(e, RunFinished)] == ["cancelled", "done"]
    refused(http.post(f"{path}/resume"), 409, "run_conflict")


def test_a_run_answers_now(http, models):
    def answer():
        response = http.post(f"{path}/answer")
        told = response.json()
        return (response.status_code, told["status"], told["concluding"]), told

    with held(models["concluding"]) as reached:
        path = f"/v1/runs/{http.post('/v1/runs', json={**ASKED, 'model': 'concluding'}).json()['id']}"
        assert reached()
        for _ in range(2):
            assert answer()[0] == (202, "running", True)
    last = events_of(http.get(f"{path}/events"))[-1]
    assert (last.answer.answer, last.answer.stopped) == ("42", "user")
    assert last.answer.based_on
    ended, told = answer()
    assert (ended, told["result"]["based_on"]) == ((200, "finished", False), last.answer.based_on)


def test_what_has_ended_is_neither_cancelled_nor_resumed(http):
    path = f"/v1/runs/{http.post('/v1/reason', json=ASKED).json()['run_id']}"
    record = http.get(path).json()
    for action, status in (("cancel", 200), ("answer", 200), ("resume", 409)):
        told = http.post(f"{path}/{action}")
        assert told.status_code == status, told.text
        assert status == 409 or told.json() == record


def test_a_text_is_verified_claim_by_claim(http):
    found = http.post("/v1/verify", json={"text": "2 + 2 = 4. 2 + 2 = 5.", "programs_only": True}).json()
    assert [c["verdict"] for c in found["verification"]["claims"]] == ["supported", "refuted"]
    assert len(found["reports"]) == 2
    assert found["degraded"]
    detail = http.get(f"/v1/runs/{found['run_id']}").json()
    assert (detail["strategy"], detail["text"]) == ("given", "2 + 2 = 4. 2 + 2 = 5.")
    refused(http.post("/v1/verify", json={"text": "No evidence."}), 400, "user_error")
    refused(http.post("/v1/verify", json={"text": "x", "evidence": ["/etc"]}), 422, "invalid_request", "evidence")
    entailment = {"text": "x.", "programs_only": True, "parameters": {"davinci": {"judge": "/root/m"}}}
    refused(http.post("/v1/verify", json=entailment), 400, "user_error", "parameters.davinci.judge")


def test_what_there_is_is_told_from_the_registry(http):
    found = {kind["name"]: kind for kind in http.get("/v1/strategies").json()["data"]}
    assert {"cot", "coat", "self-consistency", "edgejury"} <= set(found)
    assert "n" in found["self-consistency"]["parameters"]["properties"]
    assert found["cot"]["stability"] in ("stable", "beta", "experimental")
    assert "davinci" in {kind["name"] for kind in http.get("/v1/verifiers").json()["data"]}


def test_health_and_readiness(http):
    assert http.get("/healthz").json() == {"status": "ok"}
    told = http.get("/readyz").json()
    assert (told["ready"], told["store"], told["draining"]) == (True, "ok", False)
    assert (set(told["models"]), told["models"]["scripted"]) == ({"scripted", "thinker", "concluding"}, "open")


def test_the_description_is_whole_and_has_examples(http):
    told = http.get("/openapi.json").json()
    assert {"/v1/reason", "/v1/verify", "/v1/runs", "/v1/runs/{run_id}", "/v1/runs/{run_id}/events"} <= set(
        told["paths"]
    )
    body = told["components"]["schemas"]["ReasonBody"]
    assert body["additionalProperties"] is False
    assert any("examples" in told["components"]["schemas"][name] for name in ("ReasonBody", "AskBody"))
    for path, methods in told["paths"].items():
        for method, operation in methods.items():
            assert operation.get("summary"), (method, path)
