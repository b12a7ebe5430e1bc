"""The Python client against a real server, and against servers that break connections."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import reason.agents.reasoner as reasoner_module
from reason.core.errors import (
    BackendError,
    BackendTimeout,
    BackendUnavailable,
    BudgetExceeded,
    Cancelled,
    DuplicateRequest,
    InvalidResponse,
    ModelNotFound,
    NotVerified,
    RateLimited,
    ReasonError,
    RunConflict,
    ServerBusy,
    ShuttingDown,
    UnknownName,
    UserError,
)
from reason.core.events import RunFinished, StageStarted, TextDelta
from reason.core.types import Answer, Document
from reason.sidecar.client import (
    FIRST_DELAY_S,
    LONGEST_DELAY_S,
    EventCursor,
    SidecarClient,
    SSEParser,
    raise_for_status,
    readiness,
)
from reason.sidecar.error_objects import error_from, error_object
from support.answers import plain_answer
from support.scripted_model import ScriptedModel, replies
from support.sidecar_server import serving, settings_for


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    model = ScriptedModel(replies("The answer is 42."))

    async def load_model(name, settings, *_):
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reasoner_module, "load_model", load_model)
        with serving(settings_for(tmp_path_factory.mktemp("served"))) as server:
            server.model = model
            yield server


@pytest.fixture
def client(served):
    with SidecarClient(served.url) as client:
        yield client


def test_it_asks_and_verifies(client):
    answer = client.ask("?", documents=[Document(name="a", text="b")], strategy="cot", budget={"tokens": 200}, seed=3)
    assert isinstance(answer, Answer)
    assert (answer.answer, answer.seed) == ("42", 3)
    found = client.verify("2 + 2 = 4.", programs_only=True)
    assert found.verification.verdict == "supported"
    assert found.reports[0].claim.text == "2 + 2 = 4."


def test_it_starts_lists_waits_for_and_reads_runs(client):
    run = client.start("Behind?", metadata={"a": "b"})
    assert (run.status in ("queued", "running"), run.background, run.metadata) == (True, True, {"a": "b"})
    answer = client.wait(run.id, timeout_s=30)
    assert answer.answer == "42"
    detail = client.get(run.id)
    assert (detail.status, detail.result) == ("finished", answer)
    assert client.list(1).data[0].id == run.id
    assert run.id in {r.id for r in client.list(50, status="finished").data}
    events = list(client.events(run.id))
    assert isinstance(events[-1], RunFinished)
    assert events[-1].answer == answer
    assert list(client.events(run.id, after=events[2].number)) == events[3:]
    assert client.cancel(run.id) == client.conclude(run.id) == detail


def test_a_stream_tells_everything_and_ends_with_the_answer(client):
    events = list(client.stream("?", text=True))
    assert isinstance(events[-1], RunFinished)
    assert events[-1].answer.answer == "42"
    assert all(not isinstance(e, TextDelta) or e.text in "The answer is 42." for e in events)


def test_leaving_a_stream_early_cancels_the_run(client, served):
    stream = client.stream("?")
    run_id = next(stream).run_id
    stream.close()
    assert client.get(run_id).status in ("interrupted", "finished")
    assert served.run_manager.in_flight == 0


def test_errors_are_of_the_class_that_they_are_in_the_server(client):
    with pytest.raises(ModelNotFound, match="no-such"):
        client.ask("?", model="no-such/model")
    with pytest.raises(UnknownName, match="strategy"):
        client.ask("?", strategy="no-such")
    with pytest.raises(UserError, match="temperature") as caught:
        client.ask("?", parameters={"temperature": -1})
    assert caught.value.param == "temperature"
    with pytest.raises(UnknownName):
        client.get("no-such-run")
    with pytest.raises(RunConflict):
        client.resume(client.ask("?").run_id)
    client.ask("One?", idempotency_key="client")
    with pytest.raises(DuplicateRequest):
        client.ask("Two?", idempotency_key="client")


def test_what_can_be_seen_to_be_wrong_is_not_sent(client):
    with pytest.raises(UnknownName, match="strateggy"):
        client.ask("?", strateggy="cot")
    with pytest.raises(UserError, match="seed"):
        client.ask("?", seed=-1)
    with pytest.raises(UserError, match="address"):
        SidecarClient("localhost:8080")


def test_what_there_is(client):
    assert "cot" in {kind.name for kind in client.strategies()}
    assert "davinci" in {kind.name for kind in client.verifiers()}
    assert client.ready().ready


def test_many_runs_at_once(served):
    with SidecarClient(served.url) as client, ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(client.ask, (f"Q{i}?" for i in range(30))))
    assert {a.answer for a in answers} == {"42"}
    assert len({a.run_id for a in answers}) == 30


def line_of(number, kind="stage.started", **more):
    event = StageStarted(number=number, stage="s") if kind == "stage.started" else more["event"]
    return f"id: {number}\ndata: {event.model_dump_json()}\n\n"


def finished(number):
    return line_of(number, "run.finished", event=RunFinished(number=number, answer=plain_answer("42", text="")))


class Breaking:
    """An event server that closes its connections where the test specifies."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def __call__(self, request):
        self.asked.append(request.headers.get("last-event-id"))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, int):
            error = {
                "message": "no",
                "type": "t",
                "param": None,
                "code": {503: "shutting_down", 404: "unknown_name"}[answer],
            }
            return httpx.Response(answer, json={"error": error}, headers={"Retry-After": "0"})
        return httpx.Response(200, text=answer, headers={"Content-Type": "text/event-stream"})


@pytest.fixture
def breaking(monkeypatch):
    monkeypatch.setattr("reason.sidecar.client.FIRST_DELAY_S", 0.0)

    def make(*answers, reconnects=3):
        server = Breaking(*answers)
        return server, SidecarClient("http://x", transport=httpx.MockTransport(server), reconnects=reconnects)

    return make


def test_a_stream_that_breaks_goes_on_after_the_last_event(breaking):
    server, client = breaking(
        line_of(1) + line_of(2),
        httpx.ReadError("broken"),
        503,
        line_of(3) + 'id: 4\ndata: {"numb',  # closed within an event
        line_of(4) + finished(5),
    )
    assert [e.number for e in client.events("r")] == [1, 2, 3, 4, 5]
    assert server.asked == ["0", "2", "2", "2", "3"]


def test_trying_again_is_bounded_and_begins_anew_with_each_event(breaking):
    server, client = breaking(httpx.ConnectError("nobody"))
    with pytest.raises(BackendUnavailable, match="nobody"):
        list(client.events("r"))
    assert len(server.asked) == 4
    server, client = breaking(line_of(1), line_of(2), line_of(3), line_of(4), line_of(5), finished(6), reconnects=1)
    assert len(list(client.events("r"))) == 6
    server, client = breaking("")
    with pytest.raises(BackendUnavailable, match="break off"):
        list(client.events("r"))


def test_what_is_hopeless_is_not_tried_again(breaking):
    server, client = breaking(404)
    with pytest.raises(UnknownName):
        list(client.events("r"))
    assert len(server.asked) == 1


def test_replies_that_are_none_of_this_api_are_told_as_such():
    def client(response):
        return SidecarClient("http://x", transport=httpx.MockTransport(lambda _: response))

    with pytest.raises(InvalidResponse):
        client(httpx.Response(200, json={"hello": 1})).ask("?")
    with pytest.raises(BackendError, match="502"):
        client(httpx.Response(502, text="<html>")).ask("?")

    def slow(_):
        raise httpx.ReadTimeout("slow")

    with pytest.raises(BackendTimeout):
        SidecarClient("http://x", transport=httpx.MockTransport(slow)).ask("?")


def test_a_key_is_sent_as_a_bearer(monkeypatch):
    seen = []

    def answer(request):
        seen.append(request.headers.get("authorization"))
        return httpx.Response(200, json={"data": [], "has_more": False})

    for key in (None, "rk-1"):
        SidecarClient("http://x", api_key=key, transport=httpx.MockTransport(answer)).list()
    monkeypatch.setenv("REASON_API_KEY", "rk-2")
    SidecarClient("http://x", transport=httpx.MockTransport(answer)).list()
    assert seen == [None, "Bearer rk-1", "Bearer rk-2"]


@pytest.mark.parametrize(
    "error",
    [
        UserError("a", hint="b", param="c"),
        UnknownName("run", "x", ("y",)),
        ModelNotFound("m"),
        NotVerified("no"),
        BudgetExceeded("tokens", 3, 2),
        RateLimited("the rate limit of the model backend is reached", retry_after_s=2),
        ServerBusy("busy", retry_after_s=1),
        ShuttingDown(),
        Cancelled(),
        ReasonError("something went wrong inside the server"),
    ],
)
def test_errors_go_to_objects_and_back(error):
    back = error_from(error_object(error), error.http_status)
    assert type(back) is type(error)
    assert (str(back), back.http_status, back.code) == (str(error), error.http_status, error.code)
    assert getattr(back, "param", None) == getattr(error, "param", None)


def test_events_are_read_from_their_lines():
    reader = SSEParser()
    lines = [": ping", "", *line_of(7).splitlines(), 'data: {"type": "of.tomorrow", "number": 8}', ""]
    assert [e.number for e in map(reader.take, lines) if e is not None] == [7]
    with pytest.raises(InvalidResponse):
        [reader.take(line) for line in ('data: {"type": "stage.started"}', "")]
    with pytest.raises(ServerBusy):
        told = '{"error": {"message": "m", "type": "t", "param": null, "code": "server_busy"}}'
        [reader.take(line) for line in ("event: error", f"data: {told}", "")]


@pytest.mark.parametrize("told", ["<html>", '{"error": "Bad Gateway"}', '{"message": "m"}', "[1]", '{"error":' * 3000])
def test_an_error_that_no_server_of_ours_wrote_is_one_of_ours(told):
    reader = SSEParser()
    with pytest.raises(InvalidResponse, match="breaks off with an error that cannot be read"):
        [reader.take(line) for line in ("event: error", f"data: {told}", "")]
    proxy = httpx.Response(
        502, text=told, headers=[(b"Retry-After", b"\xb2")], request=httpx.Request("GET", "http://x/y")
    )
    with pytest.raises(BackendError, match="/y was answered with status 502"):
        raise_for_status(proxy)
    ready = httpx.Response(503, text='{"ready": ' + told, request=httpx.Request("GET", "http://x/readyz"))
    with pytest.raises(InvalidResponse, match="the reply to /readyz is not one of this API"):
        readiness(ready)


@pytest.mark.parametrize(("told", "wait"), [(3, 3.0), (-1, 0.0), (1e9, LONGEST_DELAY_S), ("soon", None), (None, None)])
def test_it_waits_as_long_as_an_error_says_in_seconds(told, wait):
    error = error_from({"code": "rate_limited", "message": "m", "retry_after_s": told})
    assert EventCursor(0, reconnects=1).delay_after(error) == (FIRST_DELAY_S if wait is None else wait)


def test_the_client_needs_nothing_of_the_server():
    script = (
        "import sys\nimport reason.sidecar.client\n"
        "print({m.partition('.')[0] for m in sys.modules} & {'fastapi', 'starlette', 'uvicorn', 'torch', 'vllm'})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
