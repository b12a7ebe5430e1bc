"""Runs with tools over HTTP: an MCP server on standard streams, and a scripted model of an agent."""

import sys
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import support
from support.agent_model import AgentModel, call
from support.native_client import parse_events
from support.openai_server import scripted_server

SERVER = str(Path(support.__file__).with_name("mcp_tool_server.py"))
TURNS = [[call("look", x=1)], [call("change", x=2)]]


class Orders:
    """A server with tools, its client, and the log of its MCP server."""

    def __init__(self, server, http, log):
        self.server, self.http, self.log = server, http, log

    def calls(self):
        """The calls that reached the MCP server, without keys."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [" ".join(line.split()[:2]) for line in lines]

    def ask(self, **body):
        return self.http.post("/v1/reason", json={"question": "Change it.", "tools": ["mcp:orders"], **body})

    def run(self, run_id):
        return self.http.get(f"/v1/runs/{run_id}").json()


@contextmanager
def serving_tools(tmp_path, turns=TURNS, *, use=(), approve=None, keys=(), **serve):
    log = tmp_path / "log"
    tools = {"use": use, "approve": approve, "mcp": {"orders": {"command": [sys.executable, SERVER, str(log)]}}}
    options = {"tools": ("mcp:orders",), **serve}
    with (
        scripted_server(tmp_path, {"scripted": AgentModel(turns)}, serve=options, tools=tools) as server,
        httpx.Client(base_url=server.url, timeout=30) as http,
    ):
        yield Orders(server, http, log)


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
