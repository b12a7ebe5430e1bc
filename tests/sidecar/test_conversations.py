"""Conversations over HTTP: the questions of one conversation, in the native API and through OpenAI's client."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest
import support
from reason.core.errors import RunConflict
from reason.core.store.records import NewRun, RunWrites
from reason.sidecar.coordination import RunCoordinator
from support.agent_model import AgentModel, call
from support.chats import user
from support.native_client import parse_events
from support.openai_server import scripted_server
from support.stored_runs import run_config

SERVER = str(Path(support.__file__).with_name("mcp_tool_server.py"))
TURNS = [[call("look", x=1)], "It is there.", [call("change", x=2)], "It is changed."]


@pytest.fixture
def models():
    return {"agent": AgentModel(TURNS)}


@pytest.fixture
def server(tmp_path, models):
    tools = {"mcp": {"orders": {"command": [sys.executable, SERVER, str(tmp_path / "log")]}}}
    with scripted_server(tmp_path, models, serve={"tools": ("mcp:orders",)}, tools=tools) as running:
        yield running


@pytest.fixture
def http(server):
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


@pytest.fixture
def ask(http):
    def ask(question, status=202, headers=None, **body):
        body = {"question": question, "conversation": "trip", **body}
        response = http.post("/v1/runs", json=body, headers=headers)
        assert response.status_code == status, response.text
        made = response.json()
        if status == 202:
            parse_events(http.get(f"/v1/runs/{made['id']}/events").text.splitlines())
            made = http.get(f"/v1/runs/{made['id']}").json()
        return made

    return ask


def test_questions_have_the_messages_and_tools_of_those_before(ask, http, models):
    first = ask("Is it there?", tools=["mcp:orders"], conversation={"id": "trip", "budget": {"tool_calls": 5}})
    second = ask("Change it.")
    assert (first["conversation"], second["conversation"], second["status"]) == ("trip", "trip", "waiting")
    shown = [(m.role, m.content) for m in models["agent"].prompts[-1]]
    assert [role for role, _ in shown] == ["user", "assistant", "tool", "assistant", "user"]
    assert [shown[0][1], shown[3][1], shown[4][1]] == ["Is it there?", "It is there.", "Change it."]
    assert second["budget"]["tool_calls"] == 4

    assert ask("And?", 409)["error"]["code"] == "run_conflict"
    decision = {"decisions": {second["pending"][0]["id"]: {"type": "approve"}}}
    http.post(f"/v1/runs/{second['id']}/decisions", json=decision).raise_for_status()
    parse_events(http.get(f"/v1/runs/{second['id']}/events").text.splitlines())

    shown = http.get("/v1/conversations/trip").json()
    assert (shown["id"], shown["budget"]["tool_calls"]) == ("trip", 5)
    assert [turn["id"] for turn in shown["data"]] == [first["id"], second["id"]]
    assert [(turn["question"], turn["text"]) for turn in shown["data"]] == [
        ("Is it there?", "It is there."),
        ("Change it.", "It is changed."),
    ]
    assert [turn["tokens"] for turn in shown["data"]] == [
        http.get(f"/v1/runs/{one['id']}").json()["tokens"] for one in (first, second)
    ]


def test_a_spent_budget_ends_it(ask):
    ask("Is it there?", tools=["mcp:orders"], conversation={"id": "trip", "budget": {"tool_calls": 1}})
    error = ask("Change it.", 402)["error"]
    assert error["message"].startswith("the budget of 1 tool_calls is spent")
    assert ask("Change it.", conversation={"id": "trip", "budget": {"tool_calls": 2}})["status"] == "waiting"


def test_a_repeated_request_is_no_other_question(ask):
    request = {"headers": {"Idempotency-Key": "1"}, "conversation": {"id": "trip", "budget": {"calls": 1}}}
    assert ask("Is it there?", **request) == ask("Is it there?", **request)


def test_of_two_questions_at_once_one_is_asked(server, http):
    def send(_):
        body = {"question": "Is it there?", "conversation": "trip", "tools": []}
        return http.post("/v1/reason", json=body).status_code

    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(send, range(8)))
    assert set(statuses) <= {200, 409}
    assert len(http.get("/v1/conversations/trip").json()["data"]) == statuses.count(200)


async def test_a_question_that_another_process_has_overtaken_is_refused(any_store):
    must_follow = RunCoordinator(any_store).must_follow

    async def add(name, parent=""):
        run = run_config(conversation="trip", parent=parent)
        await any_store.save(name, RunWrites(NewRun(run), operations=[must_follow(name, run)]))

    await add("run-1")
    with pytest.raises(RunConflict, match="run run-1 of the conversation is running"):
        await add("run-2", "run-1")
    await any_store.end_run("run-1", "finished", None)
    with pytest.raises(RunConflict, match="another question of the conversation was faster"):
        await add("run-2")
    await add("run-2", "run-1")
    assert [run.id for run in await any_store.list_runs(10)] == ["run-2", "run-1"]


def test_a_conversation_is_its_tenants(tmp_path, models):
    with (
        scripted_server(tmp_path, models, serve={"auth": True}) as server,
        httpx.Client(base_url=server.url, timeout=30) as http,
    ):
        anne, ben = (
            {"Authorization": f"Bearer {server.add_key('ask', 'read', tenant=name)}"} for name in ("anne", "ben")
        )
        body = {"question": "Is it there?", "conversation": "trip"}
        assert http.post("/v1/reason", json=body, headers=anne).status_code == 200
        assert http.get("/v1/conversations/trip", headers=ben).status_code == 404
        assert http.post("/v1/reason", json=body, headers=ben).status_code == 200
        assert [m.role for m in models["agent"].prompts[-1]] == ["user"]
        assert len(http.get("/v1/conversations/trip", headers=ben).json()["data"]) == 1


def test_responses_join_a_conversation(server, http, models):
    weather = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": None}
    fields = {"model": "reason/cot", "tools": [weather]}
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        first = client.responses.create(input="Is it there?", conversation="trip", instructions="Be brief.", **fields)
        assert (first.conversation.id, client.responses.retrieve(first.id).conversation.id) == ("trip", "trip")
        (made,) = [item for item in first.output if item.type == "function_call"]
        with pytest.raises(openai.ConflictError, match="is waiting"):
            client.responses.create(input="Well?", conversation="trip", **fields)
        output = {"type": "function_call_output", "call_id": made.call_id, "output": "Yes."}
        for _ in range(2):  # a repeated request gets the same turn
            done = client.responses.create(input=[output], conversation={"id": "trip"}, **fields)
            assert (done.id, done.output_text) == (f"{first.id}_2", "It is there.")
        asked = {"input": [user("And now?")], "instructions": "Be kind."}
        next_one = client.responses.create(model="reason/cot", conversation="trip", **asked)
        assert next_one.output_text == "concluded"
        with pytest.raises(openai.BadRequestError, match="set only one"):
            client.responses.create(model="reason/cot", input="?", conversation="trip", previous_response_id=first.id)
    contents = [m.content for m in models["agent"].prompts[-1]]
    assert contents[:-1] == ["Be kind.", "Is it there?", "", "Yes.", "It is there."]
    turns = http.get("/v1/conversations/trip").json()["data"]
    assert [turn["text"] for turn in turns] == ["It is there.", "concluded"]
