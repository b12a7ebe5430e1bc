"""The native API over a real socket, with a scripted model behind it."""

import asyncio
import json
import threading

import httpx
import pytest
import reason.agents.reasoner as reasoner_module
from reason.core.errors import InvalidResponse
from reason.core.events import RunFinished, TextDelta
from reason.core.types import Answer
from support.native_client import parse_events
from support.scripted_model import THINKS, ScriptedModel, replies, thinking
from support.sidecar_server import serving, settings_for

ALIASES = {
    "quick": {"strategy": "self-consistency", "parameters": {"n": 3}, "budget": {"tokens": 500}},
}


class Models:
    """The scripted models behind the server, by name."""

    def __init__(self):
        thinker = ScriptedModel(thinking("Six sevens.", "The answer is 42."), name="thinker", profile=THINKS)
        self.by_name = {
            "scripted": ScriptedModel(replies("The answer is 42.")),
            "thinker": thinker,
            "concluding": ScriptedModel(replies("Therefore, the answer is 42."), name="concluding"),
        }

    async def open(self, name, settings, *_):
        return self.by_name[name]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    models = Models()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reasoner_module, "load_model", models.open)
        patch.setattr("reason.sidecar.sse.KEEPALIVE_S", 0.05)
        patch.setattr("reason.sidecar.policy.MAX_SAMPLES", 100)
        folder = tmp_path_factory.mktemp("served")
        with serving(
            settings_for(
                folder,
                aliases=ALIASES,
                models=("thinker", "concluding"),
                max_seconds=50,
            )
        ) as server:
            server.models = models.by_name
            yield server


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


def events_of(text):
    return parse_events(text.splitlines())


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
    answer = http.post("/v1/reason", json={"question": "?", "model": "quick", "parameters": {"max_tokens": 40}}).json()
    detail = http.get(f"/v1/runs/{answer['run_id']}").json()
    assert (detail["strategy"], detail["parameters"]["n"], detail["parameters"]["max_tokens"]) == (
        "self-consistency",
        3,
        40,
    )
    assert detail["budget"]["tokens"] == 500
    refused(
        http.post("/v1/reason", json={"question": "?", "model": "quick", "strategy": "cot"}),
        400,
        "user_error",
        "strategy",
    )


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({}, 422, "invalid_request", "question"),
        ({"question": ""}, 422, "invalid_request", "question"),
        ({"question": "  "}, 400, "user_error", None),
        ({"question": "?", "speed": 3}, 422, "invalid_request", "speed"),
        ({"question": "?", "budget": {"tokens": 0}}, 422, "invalid_request", "budget.tokens"),
        ({"question": "?", "seed": -1}, 422, "invalid_request", "seed"),
        ({"question": "?", "documents": [{"name": "a", "text": "b"}] * 65}, 422, "invalid_request", "documents"),
        ({"question": "?", "choices": ["a"]}, 400, "user_error", None),
        ({"question": "?", "strategy": "no-such"}, 422, "unknown_name", "strategy"),
        ({"question": "?", "parameters": {"temprature": 1}}, 422, "unknown_name", "parameters.temprature"),
        ({"question": "?", "parameters": {"temperature": -1}}, 400, "user_error", "temperature"),
        ({"question": "?", "model": "local/smollm2-135m"}, 404, "model_not_found", "model"),
        ({"question": "?", "judge_model": "gpt-5"}, 404, "model_not_found", "judge_model"),
        ({"question": "?", "strategy": "edgejury", "jurors": ["gpt-5"]}, 404, "model_not_found", "jurors"),
        ({"question": "?", "require_verified": True}, 400, "user_error", "verify"),
        ({"question": "?", "verify": ["no-such"]}, 422, "unknown_name", "verify"),
        (
            {"question": "?", "verify": ["davinci"], "verify_parameters": {"davinci": {"kk": 1}}},
            422,
            "unknown_name",
            "verify_parameters.davinci.kk",
        ),
        (
            {"question": "?", "strategy": "self-consistency", "parameters": {"n": 101}},
            400,
            "user_error",
            "parameters.n",
        ),
        ({"question": "?", "metadata": {"k" * 65: "v"}}, 422, "invalid_request", f"metadata.{'k' * 65}.[key]"),
        ({"question": "?", "metadata": {"k": "v" * 513}}, 422, "invalid_request", "metadata.k"),
        ({"question": "?", "metadata": {str(i): "v" for i in range(17)}}, 422, "invalid_request", "metadata"),
        (
            {"question": "?", "strategy": "glimprouter", "parameters": {"router": "/etc/passwd"}},
            400,
            "user_error",
            "parameters.router",
        ),
        (
            {"question": "?", "strategy": "cascade", "parameters": {"then_parameters": {"router": "x.json"}}},
            400,
            "user_error",
            "parameters.then_parameters.router",
        ),
        (
            {"question": "?", "verify": ["davinci"], "verify_parameters": {"davinci": {"verdicts": "/root/f.json"}}},
            400,
            "user_error",
            "verify_parameters.davinci.verdicts",
        ),
        ({"question": "?", "verify": ["execution"]}, 400, "user_error", "verify"),
        (
            {"question": "?", "strategy": "best-of-n", "parameters": {"score": "tests"}},
            400,
            "user_error",
            "parameters.score",
        ),
        ({"question": "?", "tests": [{"name": "", "code": "f()"}]}, 422, "invalid_request", "tests.0.name"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_field_at_fault(http, body, status, code, param):
    for path in ("/v1/reason", "/v1/runs"):
        refused(http.post(path, json=body), status, code, param)


def test_paths_and_methods_that_do_not_exist_have_the_error_object(http):
    refused(http.get("/v1/nothing"), 404, "not_found")
    refused(http.put("/v1/reason", json={}), 405, "method_not_allowed")
    refused(http.get("/v1/runs/no-such-run"), 404, "unknown_name")
    refused(http.get("/v1/runs?limit=0"), 422, "invalid_request", "limit")
    refused(http.get("/v1/runs?after=no-such-run"), 404, "unknown_name")
    refused(http.delete("/v1/runs/no-such-run"), 404, "unknown_name")
    refused(http.post("/v1/runs/no-such-run/cancel"), 404, "unknown_name")
    refused(http.post("/v1/runs/no-such-run/resume"), 404, "unknown_name")


def test_a_stream_is_the_runs_events_to_the_last(http):
    with http.stream("POST", "/v1/reason", json={"question": "?", "stream": True, "text": True}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert (response.headers["cache-control"], response.headers["x-accel-buffering"]) == ("no-cache", "no")
        body = response.read().decode()
    events = events_of(body)
    assert [e.number for e in events] == list(range(1, len(events) + 1))
    assert isinstance(events[-1], RunFinished)
    assert events[-1].answer.answer == "42"
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == "The answer is 42."
    ids = [int(line.removeprefix("id: ")) for line in body.splitlines() if line.startswith("id: ")]
    assert ids == [e.number for e in events]


def test_a_stream_of_a_run_that_fails_ends_with_the_error_object(http, served):
    class Broken(ScriptedModel):
        async def generate(self, requests, listener=None):

            raise InvalidResponse("nonsense came back")

    kept = served.models["scripted"].generate
    served.models["scripted"].generate = Broken(replies("x"), name="scripted").generate
    try:
        refused(http.post("/v1/reason", json={"question": "?"}), 502, "invalid_response")
        body = http.post("/v1/reason", json={"question": "?", "stream": True}).text
    finally:
        served.models["scripted"].generate = kept
    last = body.rstrip().split("\n\n")[-1]
    assert last.startswith("event: error\ndata: ")
    assert json.loads(last.partition("data: ")[2])["error"]["code"] == "invalid_response"


def test_an_idempotency_key_names_one_request(http):
    headers = {"Idempotency-Key": "once"}
    assert http.post("/v1/reason", json={"question": "Once?"}, headers=headers).status_code == 200
    refused(http.post("/v1/reason", json={"question": "Twice?"}, headers=headers), 409, "duplicate_request")
    refused(http.post("/v1/runs", json={"question": "Once?"}, headers=headers), 409, "duplicate_request")
    bad = http.post("/v1/reason", json={"question": "?"}, headers={"Idempotency-Key": "a b"})
    refused(bad, 422, "invalid_request", "Idempotency-Key")


def test_runs_are_started_listed_and_followed(http):
    started = [http.post("/v1/runs", json={"question": f"Question {i}?"}) for i in range(5)]
    assert {r.status_code for r in started} == {202}
    ids = [r.json()["id"] for r in started]
    assert [r.headers["location"] for r in started] == [f"/v1/runs/{i}" for i in ids]
    for run_id in ids:
        events = events_of(http.get(f"/v1/runs/{run_id}/events").text)
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
    run_id = http.post("/v1/reason", json={"question": "?"}).json()["run_id"]
    path = f"/v1/runs/{run_id}/events"
    whole = [e.number for e in events_of(http.get(path).text)]
    known = whole[len(whole) // 2]
    rest = [n for n in whole if n > known]
    assert [e.number for e in events_of(http.get(path, params={"after": known}).text)] == rest
    assert [e.number for e in events_of(http.get(path, headers={"Last-Event-ID": str(known)}).text)] == rest
    both = http.get(path, params={"after": whole[0]}, headers={"Last-Event-ID": str(known)})
    assert [e.number for e in events_of(both.text)] == rest
    assert events_of(http.get(path, headers={"Last-Event-ID": "rubbish"}).text)[0].number == whole[0]


def test_a_run_is_cancelled_and_resumed(http, served):
    hold, reached = threading.Event(), threading.Event()

    async def wait():
        reached.set()
        await asyncio.to_thread(hold.wait)

    served.models["scripted"]._step = wait
    try:
        run_id = http.post("/v1/runs", json={"question": "Slow?"}).json()["id"]
        assert reached.wait(20)
        with httpx.stream("GET", f"{served.url}/v1/runs/{run_id}/events", timeout=30) as response:
            chunks = response.iter_text()
            while ": ping" not in next(chunks):  # keep-alive comments
                pass
        refused(http.delete(f"/v1/runs/{run_id}"), 409, "run_conflict")
        cancelled = http.post(f"/v1/runs/{run_id}/cancel")
        assert (cancelled.status_code, cancelled.json()["status"]) == (200, "interrupted")
        assert cancelled.json()["result"]["stopped"] == "cancelled"
        assert http.post(f"/v1/runs/{run_id}/cancel").json() == cancelled.json()
        assert served.models["scripted"].running == 0
    finally:
        hold.set()
    resumed = http.post(f"/v1/runs/{run_id}/resume")
    assert resumed.status_code == 202
    events = events_of(http.get(f"/v1/runs/{run_id}/events").text)
    served.models["scripted"]._step = None
    assert [e.number for e in events] == sorted({e.number for e in events})
    assert [e.answer.stopped for e in events if isinstance(e, RunFinished)] == ["cancelled", "done"]
    refused(http.post(f"/v1/runs/{run_id}/resume"), 409, "run_conflict")


def test_a_run_answers_now(http, served):
    hold, reached = threading.Event(), threading.Event()

    async def wait():
        reached.set()
        await asyncio.to_thread(hold.wait)

    served.models["concluding"]._step = wait
    body = {"question": "Slow?", "model": "concluding"}
    try:
        run_id = http.post("/v1/runs", json=body).json()["id"]
        assert reached.wait(20)
        told = http.post(f"/v1/runs/{run_id}/answer")
        assert (told.status_code, told.json()["status"], told.json()["concluding"]) == (202, "running", True)
        assert http.post(f"/v1/runs/{run_id}/answer").status_code == 202
    finally:
        hold.set()
    last = events_of(http.get(f"/v1/runs/{run_id}/events").text)[-1]
    assert isinstance(last, RunFinished)
    assert (last.answer.answer, last.answer.stopped) == ("42", "user")
    assert last.answer.based_on
    ended = http.post(f"/v1/runs/{run_id}/answer")
    assert (ended.status_code, ended.json()["status"], ended.json()["concluding"]) == (200, "finished", False)
    assert ended.json()["result"]["based_on"] == last.answer.based_on
    refused(http.post("/v1/runs/none/answer"), 404, "unknown_name")


def test_what_has_ended_is_neither_cancelled_nor_resumed(http):
    path = f"/v1/runs/{http.post('/v1/reason', json={'question': '?'}).json()['run_id']}"
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


def test_health_and_readiness(http, served):
    assert http.get("/healthz").json() == {"status": "ok"}
    told = http.get("/readyz").json()
    assert (told["ready"], told["store"], told["draining"]) == (True, "ok", False)
    assert set(told["models"]) == {"scripted", "thinker", "concluding"}
    assert told["models"]["scripted"] == "open"


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
