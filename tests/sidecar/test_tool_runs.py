"""Runs with tools over HTTP: an MCP server on standard streams, and a scripted model of an agent."""

import sys
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import support
from support.agent_model import AgentModel, call
from support.chats import user
from support.native_client import parse_events
from support.openai_server import scripted_server
from support.waiting import wait_blocking

mcp = pytest.importorskip("mcp")

SERVER = str(Path(support.__file__).with_name("mcp_tool_server.py"))
TURNS = [[call("look", x=1)], [call("change", x=2)]]


class Orders:
    """A server with tools, its client, and the log of its MCP server."""

    def __init__(self, server, http, log, model):
        self.server, self.http, self.log, self.model = server, http, log, model

    def calls(self):
        """The calls that reached the MCP server, without keys."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [" ".join(line.split()[:2]) for line in lines]

    def ask(self, path="/v1/reason", headers=None, **body):
        asked = {"question": "Change it.", "tools": ["mcp:orders"], **body}
        return self.http.post(path, json=asked, headers=headers)

    def run(self, run_id):
        return self.http.get(f"/v1/runs/{run_id}").json()


@contextmanager
def serving_tools(tmp_path, turns=TURNS, *, use=(), approve=None, check=None, keys=(), **serve):
    log, model = tmp_path / "log", AgentModel(turns)
    tools = {
        "use": use,
        "approve": approve,
        "mcp": {"orders": {"command": [sys.executable, SERVER, str(log)]}},
        **(check or {}),
    }
    options = {"tools": ("mcp:orders",), **serve}
    with (
        scripted_server(tmp_path, {"scripted": model}, serve=options, tools=tools) as server,
        httpx.Client(base_url=server.url, timeout=30) as http,
    ):
        yield Orders(server, http, log, model)


@pytest.fixture
def orders(tmp_path):
    with serving_tools(tmp_path) as orders:
        yield orders


def test_reads_are_executed_and_a_write_leaves_the_run_waiting(orders):
    response = orders.ask()
    assert response.status_code == 200
    answer = response.json()
    assert answer["stopped"] == "waiting"
    (pending,) = answer["pending"]
    assert (pending["tool"], pending["arguments"], pending["question"]) == ("change", '{"x": 2}', "approval")
    assert response.headers["location"] == f"/v1/runs/{answer['run_id']}"
    assert orders.calls() == ["look 1"]
    run = orders.run(answer["run_id"])
    assert (run["status"], run["stopped"], run["result"]) == ("waiting", "waiting", answer)
    assert orders.http.get("/readyz").json()["in_flight"] == 0


def test_without_approvals_the_run_ends(tmp_path):
    with serving_tools(tmp_path, approve="never") as orders:
        answer = orders.ask().json()
        assert (answer["stopped"], answer["text"]) == ("done", "The answer is done.")
        assert orders.calls() == ["look 1", "change 2"]
        stricter = orders.ask(approve="all").json()
        assert [one["tool"] for one in stricter["pending"]] == ["look"]


def test_a_request_can_have_changes_checked_and_none_lifts_the_check_of_the_server(tmp_path):
    policy = tmp_path / "policy.md"
    policy.write_text("Only two may be changed.")
    with serving_tools(tmp_path, approve="never") as orders:  # the model's check is no JSON
        answer = orders.ask(check_writes=True).json()
        assert orders.calls() == ["look 1"]
        assert "the check gave no verdict on it" in answer["messages"][-2]["content"]
        answer = orders.ask(policy="Two may be changed.").json()
        assert orders.run(answer["run_id"])["status"] == "finished"
        assert orders.calls() == ["look 1"] * 2
    with serving_tools(tmp_path, approve="never", check={"policy": policy}) as orders:
        orders.ask(check_writes=False)
        assert orders.calls() == ["look 1"] * 3
        refused = orders.ask(policy="All may be changed.")
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "policy")


def test_tools_of_every_question_need_not_be_named(tmp_path):
    with serving_tools(tmp_path, use=("mcp:orders",), tools=()) as orders:
        assert orders.ask(tools=None).json()["stopped"] == "waiting"
        assert orders.ask(tools=[]).json()["text"] == "concluded"


@pytest.mark.parametrize(
    "name", ["shell:/", "python", "os:system", f"mcp:{sys.executable} {SERVER}", "mcp:http://127.0.0.1:1/mcp"]
)
def test_a_caller_opens_no_tool_that_the_server_does_not_offer(orders, name):
    for path in ("/v1/reason", "/v1/runs"):
        response = orders.http.post(path, json={"question": "?", "tools": [name]})
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["param"]) == (422, "unknown_name", "tools")


def test_a_caller_skips_no_approval_that_the_server_requires(orders):
    response = orders.ask(approve="never")
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, "approve")
    assert error["message"] == "approve is 'never', and the server requires 'writes' (omit it)"
    assert not orders.calls()


def test_a_stream_ends_where_the_run_waits(orders):
    response = orders.ask(stream=True)
    *_, waiting, finished = parse_events(response.text.splitlines())
    assert (waiting.type, finished.type) == ("run.waiting", "run.finished")
    assert finished.answer.pending == waiting.pending
    again = orders.http.get(f"/v1/runs/{finished.run_id}/events")
    assert parse_events(again.text.splitlines())[-2:] == [waiting, finished]


def decide(orders, answer, kind, *, status=202, call=None, **more):
    call = call or answer["pending"][0]["id"]
    body = {"decisions": {call: {"type": kind}}, **more}
    response = orders.http.post(f"/v1/runs/{answer['run_id']}/decisions", json=body)
    assert response.status_code == status, response.text
    return response.json()


def ended(orders, run_id):
    """The run, once its events have ended."""
    events = parse_events(orders.http.get(f"/v1/runs/{run_id}/events").text.splitlines())
    return orders.run(run_id), events


def test_an_approved_call_is_executed_and_the_run_ends(orders):
    answer = orders.ask().json()
    assert orders.run(answer["run_id"])["pending"] == answer["pending"]
    assert "\nreason_runs_waiting 1.0\n" in orders.http.get("/metrics").text
    assert [run["id"] for run in orders.http.get("/v1/runs?status=waiting").json()["data"]] == [answer["run_id"]]
    assert decide(orders, answer, "approve")["pending"] == []
    run, events = ended(orders, answer["run_id"])
    assert (run["status"], run["answer"], run["pending"]) == ("finished", "done", [])
    assert orders.calls() == ["look 1", "change 2"]
    assert [e.number for e in events] == sorted({e.number for e in events})
    assert "\nreason_runs_waiting 0.0\n" in orders.http.get("/metrics").text


def test_a_background_run_waits_until_all_of_its_calls_are_decided(tmp_path):
    with serving_tools(tmp_path, [[call("change", x=1), call("change", x=2)]]) as orders:
        run_id = orders.ask("/v1/runs").json()["id"]
        run, events = ended(orders, run_id)
        assert (run["status"], run["background"], events[-1].answer.stopped) == ("waiting", True, "waiting")
        first, second = run["pending"]
        answer = {"run_id": run_id, "pending": [first]}
        assert decide(orders, answer, "reject", status=200)["pending"] == [second]
        assert orders.run(run_id)["status"] == "waiting"
        assert decide(orders, {**answer, "pending": [second]}, "approve")["status"] != "waiting"
        run, events = ended(orders, run_id)
        assert (run["status"], orders.calls()) == ("finished", ["change 2"])
        made = [event for event in events if event.type == "approval.decided"]
        assert [(e.call, e.tool, e.decision, e.by) for e in made] == [
            (first["id"], "change", "reject", "http"),
            (second["id"], "change", "approve", "http"),
        ]


def test_a_repeated_request_gets_the_waiting_run_and_then_its_answer(orders):
    key = {"Idempotency-Key": "k"}
    answer = orders.ask(headers=key).json()
    again = orders.ask(headers=key)
    assert (again.json(), again.headers["idempotent-replayed"]) == (answer, "true")
    streamed = parse_events(orders.ask(headers=key, stream=True).text.splitlines())
    assert (streamed[-1].type, streamed[-1].run_id) == ("run.finished", answer["run_id"])
    decide(orders, answer, "approve")
    final = orders.ask(headers=key).json()
    assert (final["run_id"], final["text"]) == (answer["run_id"], "The answer is done.")
    assert len(orders.http.get("/v1/runs").json()["data"]) == 1
    assert orders.calls() == ["look 1", "change 2"]


ASKED = {
    "/v1/reason": {"question": "Go."},
    "/v1/chat/completions": {"model": "reason/cot", "messages": [user("Go.")]},
    "/v1/responses": {"model": "reason/cot", "input": "Go."},
    "/v1/messages": {"model": "reason/cot", "messages": [user("Go.")], "max_tokens": 90},
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", ASKED)
def test_a_client_that_leaves_cancels_the_tool_and_loses_no_turn(tmp_path, path, stream):
    with serving_tools(tmp_path, [[call("slow")]], use=("mcp:orders",), approve="never") as orders:
        with orders.server.connect("POST", path, {**ASKED[path], "stream": stream}):
            wait_blocking(lambda: orders.calls() == ["slow"])
        wait_blocking(lambda: orders.calls() == ["slow", "cancelled"])
        wait_blocking(lambda: not orders.server.run_manager.in_flight)
        (run,) = orders.http.get("/v1/runs").json()["data"]
        assert run["status"] == "interrupted"
        result = orders.run(run["id"])["result"]
        assert (result["stopped"], result["usage"]["turns"], result["usage"]["completion_tokens"]) == (
            "cancelled",
            1,
            1,
        )
        assert [made["name"] for made in result["messages"][0]["tool_calls"]] == ["slow"]
        assert orders.http.post(f"/v1/runs/{run['id']}/resume").status_code == 202
        wait_blocking(lambda: orders.calls() == ["slow", "cancelled", "slow"])
        assert len(orders.model.prompts) == 1


def test_a_decision_is_made_once(orders):
    answer = orders.ask().json()
    assert decide(orders, answer, "approve", resume=False, status=200)["status"] == "waiting"
    assert orders.run(answer["run_id"])["pending"] == []
    assert decide(orders, answer, "reject", status=409)["error"]["code"] == "run_conflict"
    assert orders.http.post(f"/v1/runs/{answer['run_id']}/resume").status_code == 202
    run, _ = ended(orders, answer["run_id"])
    assert run["status"] == "finished"
    error = decide(orders, answer, "approve", status=409)["error"]
    assert error["code"] == "run_conflict"
    assert orders.calls() == ["look 1", "change 2"]


def test_a_decision_that_the_call_does_not_need_changes_nothing(orders):
    answer = orders.ask().json()
    error = decide(orders, answer, "done", status=400)["error"]
    assert error["param"] == f"decisions.{answer['pending'][0]['id']}"
    decide(orders, answer, "edit", status=422)
    error = decide(orders, answer, "approve", call="none", status=422)["error"]
    assert (error["code"], error["param"]) == ("unknown_name", "decisions.none")
    assert orders.run(answer["run_id"])["pending"] == answer["pending"]


def test_a_waiting_run_is_cancelled_or_deleted(orders):
    answer = orders.ask().json()
    cancelled = orders.http.post(f"/v1/runs/{answer['run_id']}/cancel").json()
    assert (cancelled["status"], cancelled["stopped"], cancelled["pending"]) == ("interrupted", "cancelled", [])
    other = orders.ask().json()
    assert orders.http.delete(f"/v1/runs/{other['run_id']}").status_code == 200
    assert orders.calls() == ["look 1", "look 1"]


def test_a_waiting_run_answers_now_without_the_call(orders):
    answer = orders.ask().json()
    assert orders.http.post(f"/v1/runs/{answer['run_id']}/answer").status_code == 202
    run, _ = ended(orders, answer["run_id"])
    assert (run["status"], run["stopped"], orders.calls()) == ("finished", "user", ["look 1"])


def test_a_waiting_run_survives_a_restart_of_the_server(tmp_path):
    with serving_tools(tmp_path) as orders:
        answer = orders.ask().json()
    with serving_tools(tmp_path) as orders:
        assert orders.run(answer["run_id"])["pending"] == answer["pending"]
        decide(orders, answer, "approve")
        run, _ = ended(orders, answer["run_id"])
        assert (run["status"], orders.calls()) == ("finished", ["look 1", "change 2"])


def test_another_tenant_decides_nothing(tmp_path):
    with serving_tools(tmp_path, auth=True) as orders:
        anne, ben = (orders.server.add_key("ask", "read", tenant=tenant) for tenant in ("anne", "ben"))
        orders.http.headers["Authorization"] = f"Bearer {anne}"
        answer = orders.ask().json()
        orders.http.headers["Authorization"] = f"Bearer {ben}"
        decide(orders, answer, "approve", status=404)
        orders.http.headers["Authorization"] = f"Bearer {anne}"
        decide(orders, answer, "approve")
        assert ended(orders, answer["run_id"])[0]["status"] == "finished"


def test_a_write_whose_server_dies_is_asked_about_and_not_repeated(tmp_path):
    with serving_tools(tmp_path, [[call("change", x=99)], [call("change", x=1)]], approve="never") as orders:
        answer = orders.ask().json()
        assert [(one["tool"], one["question"]) for one in answer["pending"]] == [("change", "outcome")]
        decide(orders, answer, "approve", status=400)
        decide(orders, answer, "done")
        run, _ = ended(orders, answer["run_id"])
        results = [one["content"] for one in run["result"]["messages"] if one["role"] == "tool"]
        assert results == ["The call was executed; its result is not known.", "change 1"]
        assert orders.calls() == ["change 99", "change 1"]


def test_a_model_that_repeats_a_rejected_call_is_stopped(tmp_path):
    with serving_tools(tmp_path, lambda messages: [call("change", x=1)]) as orders:
        run = orders.ask().json()
        run_id = run["run_id"]
        for _ in range(3):
            decide(orders, {"run_id": run_id, "pending": run["pending"]}, "reject")
            run, _ = ended(orders, run_id)
        assert (run["status"], run["stopped"], run["pending"], orders.calls()) == ("finished", "loop", [], [])


@pytest.mark.parametrize("stream", [True, False])
def test_half_a_character_of_a_model_is_replaced(tmp_path, stream):
    with serving_tools(tmp_path, ["The answer is half \ud83d."], use=("mcp:orders",)) as orders:
        for path, body in ASKED.items():
            response = orders.http.post(path, json={**body, "stream": stream})
            assert (response.status_code, "is half ?." in response.text) == (200, True)
        for run in orders.http.get("/v1/runs").json()["data"]:
            assert ended(orders, run["id"])[0]["result"]["text"] == "The answer is half ?."
            assert "is half ?." in orders.http.get(f"/v1/responses/resp_{run['id']}").text


async def test_ask_over_mcp_tells_what_the_run_waits_for(tmp_path):
    with serving_tools(tmp_path, use=("mcp:orders",), mcp=True) as orders:
        async with mcp.Client(f"{orders.server.url}/mcp") as client:
            hints = {tool.name: tool.annotations.read_only_hint for tool in (await client.list_tools()).tools}
            assert hints == {"ask": False, "verify": True}
            result = await client.call_tool("ask", {"question": "Change it."})
        told = result.structured_content
        (pending,) = told["pending"]
        assert (told["stopped"], pending["tool"], pending["question"]) == ("waiting", "change", "approval")
        waits = f'Run {told["run_id"]} waits for decisions about the tool calls {pending["id"]} (change {{"x": 2}})'
        assert result.content[0].text == waits
        decide(orders, told, "approve")
        assert ended(orders, told["run_id"])[0]["status"] == "finished"
