"""Tools of type `mcp` in the Responses API, which the server executes, through OpenAI's client."""

from __future__ import annotations

import sys
from pathlib import Path

import httpx
import openai
import pytest
import support
from reason.core.errors import UserError
from reason.core.messages import Message
from reason.core.settings import Settings
from reason.sidecar.policy import allowed_server
from support.agent_model import AgentModel, call
from support.chats import user
from support.openai_server import scripted_server
from support.scripted_model import replies
from support.scripted_tools import ToolModel, calling

SERVER = str(Path(support.__file__).with_name("mcp_tool_server.py"))
LABEL = {"type": "mcp", "server_label": "orders"}
READS = {**LABEL, "require_approval": "never"}
TURNS = {
    "agent": [
        Message(role="assistant", content="I look.", tool_calls=(call("look", x=1), call("look", x=2))),
        Message(role="assistant", content="Now I change it.", tool_calls=(call("change", x=3),)),
        "It is changed.",
    ],
    "failing": [[call("fail")], "It failed."],
    "fast": [[call("look", x=n)] for n in range(5)],
    "mixed": [[call("look", x=1)], [call("change", x=2), call("weather", city="Rome")], "Done in Rome."],
    "dying": [[call("change", x=99)]],
}


def talking(text):
    """Writes text before its call."""
    return replies("It is there." if "look 7" in text else f"I look it up.\n{calling('look', x=7)}")(text)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("mcp") / "log"


@pytest.fixture(scope="module")
def server(tmp_path_factory, log):
    models = {name: AgentModel(turns) for name, turns in TURNS.items()}
    models["talking"] = ToolModel(talking, name="talking")
    tools = {"mcp": {"orders": {"command": [sys.executable, SERVER, str(log)]}}}
    serve = {"tools": ("mcp:orders",)}
    with scripted_server(tmp_path_factory.mktemp("store"), models, serve=serve, tools=tools) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as sdk:
        yield sdk


@pytest.fixture
def calls(log):
    """The calls that reached the MCP server since the test began, without keys."""
    before = len(log.read_text().splitlines()) if log.exists() else 0
    return lambda: [" ".join(line.split()[:2]) for line in log.read_text().splitlines()[before:]]


@pytest.fixture
def respond(client):
    def respond(items="Change it.", tool=READS, model="agent", stream=False, **fields):
        fields = {"model": f"reason/cot:{model}", "input": items, "tools": [tool], **fields}
        if not stream:
            return client.responses.create(**fields)
        with client.responses.stream(**fields) as events:
            respond.events = list(events)
            return events.get_final_response()

    return respond


def kinds(response):
    return [item.type for item in response.output]


def plain(response):
    """The output without what the client's streams add."""
    return [item.model_dump(exclude={"content": {"__all__": {"parsed"}}}) for item in response.output]


def approval(response, approve=True, **fields):
    """The answer to the approval requests of a response."""
    asked = [item for item in response.output if item.type == "mcp_approval_request"]
    return [
        {"type": "mcp_approval_response", "approval_request_id": item.id, "approve": approve, **fields}
        for item in asked
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_calls_are_items_and_an_approval_continues_the_run(respond, client, server, calls, stream):
    first = respond(stream=stream)
    assert (first.status, first.output_text) == ("completed", "I look.Now I change it.")
    listed, text, look, other, *_ = first.output
    assert kinds(first) == ["mcp_list_tools", "message", "mcp_call", "mcp_call", "message", "mcp_approval_request"]
    assert (listed.server_label, listed.error, text.content[0].text) == ("orders", None, "I look.")
    assert {tool.name: tool.annotations["read_only"] for tool in listed.tools}["look"] is True
    assert listed.tools[1].input_schema["required"] == ["x"]  # the key is not the model's
    assert (look.name, look.arguments, look.output, look.status) == ("look", '{"x": 1}', "look 1", "completed")
    assert (other.output, look.error, look.approval_request_id) == ("look 2", None, None)
    asked = first.output[-1]
    assert (asked.name, asked.arguments, asked.server_label) == ("change", '{"x": 3}', "orders")
    assert plain(client.responses.retrieve(first.id)) == plain(first)

    second = respond(approval(first), previous_response_id=first.id, stream=stream)
    assert (second.id, second.status, second.output_text) == (f"{first.id}_2", "completed", "It is changed.")
    assert kinds(second) == ["mcp_call", "message"]
    assert (second.output[0].approval_request_id, second.output[0].output) == (asked.id, "change 3")
    assert plain(client.responses.retrieve(second.id)) == plain(second)
    assert sorted(calls()) == ["change 3", "look 1", "look 2"]
    run = httpx.get(f"{server.url}/v1/runs/{first.id.removeprefix('resp_')}").json()
    assert run["status"] == "finished"
    tokens = first.usage.output_tokens + second.usage.output_tokens
    assert (tokens, run["result"]["usage"]["tool_calls"]) == (run["result"]["usage"]["completion_tokens"], 3)

    again = respond(approval(first), previous_response_id=first.id)
    assert (again.id, plain(again)) == (second.id, plain(second))
    with pytest.raises(openai.ConflictError):
        respond(approval(first, approve=False), previous_response_id=first.id)
    assert len(calls()) == 3

    third = respond("And now?", previous_response_id=second.id, tool={**READS, "allowed_tools": []})
    assert third.output_text == "concluded"


def test_a_stream_has_openais_events_in_its_order(respond):
    """As recorded in the fixtures of Vercel's AI SDK (packages/openai/src/responses/__fixtures__)."""
    first = respond(stream=True)
    types = [event.type.removeprefix("response.") for event in respond.events]
    call = ["output_item.added", "mcp_call.in_progress", "mcp_call_arguments.delta", "mcp_call_arguments.done"]
    text = [
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
    ]
    listed = ["output_item.added", "mcp_list_tools.in_progress", "mcp_list_tools.completed", "output_item.done"]
    ended = ["mcp_call.completed", "output_item.done"]
    asked = ["output_item.added", "output_item.done"]
    assert types[:6] == ["created", "in_progress", *listed]
    assert types[6:12] == text
    assert sorted(types[12:24]) == sorted([*call, *call, *ended, *ended])  # both at once
    assert types[24:] == [*text, *asked, "completed"]
    assert [event.sequence_number for event in respond.events] == list(range(len(types)))
    for event in respond.events:
        if event.type == "response.output_item.done":
            assert first.output[event.output_index].id == event.item.id

    respond(approval(first), previous_response_id=first.id, stream=True)
    types = [event.type.removeprefix("response.") for event in respond.events]
    assert types[:8] == ["created", "in_progress", *call, *ended]


def test_the_text_of_each_turn_is_streamed_as_it_is_generated(respond):
    made = respond(model="talking", stream=True)
    deltas = [(e.output_index, e.delta) for e in respond.events if e.type == "response.output_text.delta"]
    assert "".join(text for at, text in deltas if at == 1) == "I look it up."
    assert "".join(text for at, text in deltas if at == 3) == "It is there."
    assert kinds(made) == ["mcp_list_tools", "message", "mcp_call", "message"]
    assert len(deltas) > 4


def test_a_rejected_call_is_not_executed(respond, calls):
    first = respond()
    second = respond(approval(first, approve=False, reason="too late"), previous_response_id=first.id)
    failed = second.output[0]
    assert (failed.type, failed.status, failed.output) == ("mcp_call", "failed", None)
    assert failed.error.content[0]["text"] == "Error: the call was rejected: too late"
    assert "change 3" not in calls()


def test_a_client_may_send_all_items_again_instead_of_an_id(respond):
    items = [user("Change it.")]
    first = respond(items)
    items += [*first.output, *approval(first)]
    second = respond(items)
    assert second.id == f"{first.id}_2"
    third = respond([*items, *second.output, user("And now?")], tool={**READS, "allowed_tools": {"read_only": True}})
    assert third.id != second.id
    assert third.output_text == "The answer is done."


@pytest.mark.parametrize(
    ("require", "asked"),
    [
        (None, ["look", "look"]),
        ("always", ["look", "look"]),
        ("never", ["change"]),
        ({"always": {"tool_names": ["look"]}}, ["look", "look"]),
        ({"always": {"tool_names": ["fail"]}}, ["change"]),
        ({"never": {"tool_names": ["fail"]}}, ["look", "look"]),
        ({"never": {"read_only": True}}, ["change"]),
        ({"never": {"tool_names": ["look", "change"]}}, ["change"]),  # not fewer than the server requires
    ],
)
def test_approvals_are_those_of_the_request_and_of_the_server(respond, require, asked):
    made = respond(tool={**LABEL, "require_approval": require})
    assert [item.name for item in made.output if item.type == "mcp_approval_request"] == asked


def test_only_allowed_tools_are_listed_and_called(respond, calls):
    made = respond(tool={**READS, "allowed_tools": ["change"]})
    listed, *_, last = made.output
    assert [tool.name for tool in listed.tools] == ["change"]
    assert (last.type, last.name) == ("mcp_approval_request", "change")
    assert calls() == []


def test_a_call_that_fails(respond):
    made = respond(tool=READS, model="failing")
    answered = respond(approval(made), previous_response_id=made.id, stream=True)
    failed = answered.output[0]
    assert (failed.status, failed.error.type, answered.output_text) == (
        "failed",
        "mcp_tool_execution_error",
        "It failed.",
    )
    assert failed.error.content[0]["text"] == "Error: no such thing"
    assert "response.mcp_call.failed" in {event.type for event in respond.events}


def test_max_tool_calls(respond, calls):
    made = respond(model="fast", max_tool_calls=2)
    assert (made.status, made.max_tool_calls, made.reason["stopped_by"]) == ("completed", 2, "tool_calls")
    assert calls() == ["look 0", "look 1"]
    assert kinds(made).count("mcp_call") == 2


def test_outputs_and_approvals_of_one_turn_continue_it_together(respond, calls):
    weather = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": None}
    tools = {"tools": [READS, weather], "model": "mixed"}
    first = respond(**tools)
    asked, *_ = approval(first)
    (function,) = [item for item in first.output if item.type == "function_call"]
    assert function.name == "weather"
    output = {"type": "function_call_output", "call_id": function.call_id, "output": "24 degrees"}
    with pytest.raises(openai.BadRequestError, match="waits for more: result of weather"):
        respond([asked], previous_response_id=first.id, **tools)
    second = respond([output, asked], previous_response_id=first.id, **tools)
    assert (second.id, second.output_text) == (f"{first.id}_2", "Done in Rome.")
    assert calls() == ["look 1", "change 2"]


def test_in_the_background(respond, client, server):
    first = respond(background=True)
    run_id = first.id.removeprefix("resp_")
    httpx.get(f"{server.url}/v1/runs/{run_id}/events")
    first = client.responses.retrieve(first.id)
    assert kinds(first)[-1] == "mcp_approval_request"
    second = respond(approval(first), background=True)
    assert second.status in ("queued", "in_progress", "completed")
    httpx.get(f"{server.url}/v1/runs/{run_id}/events")
    assert client.responses.retrieve(second.id).output_text == "It is changed."


def test_a_call_whose_outcome_is_unknown_fails_the_response_until_it_is_decided(respond, client, server):
    first = respond(model="dying")
    failed = respond(approval(first), previous_response_id=first.id)
    assert (failed.status, failed.error.code) == ("failed", "server_error")
    assert client.responses.retrieve(failed.id).error == failed.error
    (pending,) = failed.reason["pending"]
    url = f"{server.url}/v1/runs/{first.id.removeprefix('resp_')}"
    assert f"POST {url.removeprefix(server.url)}/decisions" in failed.error.message
    httpx.post(f"{url}/decisions", json={"decisions": {pending["id"]: {"type": "done"}}}).raise_for_status()
    httpx.get(f"{url}/events")
    assert client.responses.retrieve(failed.id).output_text == "The answer is done."


@pytest.mark.parametrize(
    ("tool", "param", "message"),
    [
        (
            {"server_label": "other"},
            "tools.0.server_label",
            "'other' is no server that can be named here (those are: orders)",
        ),
        (
            {"server_label": "orders", "server_url": "http://127.0.0.1:1/mcp"},
            "tools.0.server_url",
            "(those are: orders)",
        ),
        ({"server_label": "orders", "authorization": "x"}, "tools.0.authorization", "the operator configures"),
        ({"server_label": "orders", "headers": {"a": "b"}}, "tools.0.headers", "the operator configures"),
        (
            {"server_label": "orders", "connector_id": "connector_gmail"},
            "tools.0.connector_id",
            "the operator configures",
        ),
    ],
)
def test_servers_that_cannot_be_named(respond, tool, param, message):
    with pytest.raises(openai.BadRequestError) as caught:
        respond(tool={"type": "mcp", **tool})
    assert caught.value.param == param
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("label", "url", "name"),
    [
        ("tickets", None, "mcp:tickets"),
        ("python", None, "python"),
        ("https://b.example/mcp", None, "mcp:https://b.example/mcp"),
        ("mine", "https://a.example/mcp", "mcp:tickets"),
        ("mine", "https://b.example/mcp", "mcp:https://b.example/mcp"),
    ],
)
def test_a_server_is_named_by_its_label_or_its_address(label, url, name):
    tools = {"use": ("python",), "mcp": {"tickets": {"url": "https://a.example/mcp"}, "hidden": {"url": url}}}
    settings = Settings(tools=tools, serve={"tools": ("mcp:tickets", "mcp:https://b.example/mcp")})
    assert allowed_server(settings, label, url, param="tools.0") == name


def test_the_error_lists_no_command():
    settings = Settings(serve={"tools": ("mcp:tickets", "mcp:uvx server --token x")})
    with pytest.raises(UserError, match=r"\(those are: tickets\)$"):
        allowed_server(settings, "other", None, param="tools.0")


def test_approvals_that_fit_nothing(respond):
    first, other = respond(), respond()
    for items, more, message in (
        ([{**approval(first)[0], "approval_request_id": "mcpr_1"}], {}, "is of no request"),
        (approval(first) + approval(other), {}, "of another response's"),
        (approval(first), {"previous_response_id": other.id}, "of another response"),
        (
            [{**approval(first)[0], "approval_request_id": f"{approval(first)[0]['approval_request_id']}0"}],
            {},
            "asked for no",
        ),
        ("Go on.", {"previous_response_id": first.id}, "waits for the approval of change"),
    ):
        with pytest.raises(openai.BadRequestError, match=message):
            respond(items, **more)


def test_another_tenant_approves_nothing(tmp_path, log):
    tools = {"mcp": {"orders": {"command": [sys.executable, SERVER, str(log)]}}}
    serve = {"tools": ("mcp:orders",), "auth": True}
    with scripted_server(tmp_path, {"agent": AgentModel(TURNS["agent"])}, serve=serve, tools=tools) as running:
        anne, ben = (
            openai.OpenAI(
                base_url=f"{running.url}/v1", api_key=running.add_key("ask", "read", tenant=name), max_retries=0
            )
            for name in ("anne", "ben")
        )
        first = anne.responses.create(model="reason/cot", input="Change it.", tools=[READS])
        with pytest.raises(openai.NotFoundError):
            ben.responses.create(model="reason/cot", input=approval(first), tools=[READS])
        assert anne.responses.create(model="reason/cot", input=approval(first)).output_text == "It is changed."


def test_chat_completions_report_what_their_run_waits_for(tmp_path, log):
    tools = {"use": ("mcp:orders",), "mcp": {"orders": {"command": [sys.executable, SERVER, str(log)]}}}
    models = {"agent": AgentModel(TURNS["agent"]), "talking": ToolModel(talking, name="talking")}
    with (
        scripted_server(tmp_path, models, tools=tools) as running,
        openai.OpenAI(base_url=f"{running.url}/v1", api_key="none") as sdk,
    ):
        made = sdk.chat.completions.create(model="reason/cot", messages=[user("Change it.")])
        assert (made.choices[0].message.content, made.reason["stopped"]) == ("Now I change it.", "waiting")
        assert [call["tool"] for call in made.reason["pending"]] == ["change"]
        (asked,) = [i for i in sdk.responses.create(model="reason/cot", input="Change it.").output if "mcp_a" in i.type]
        assert (asked.name, asked.server_label) == ("change", "reason")
        # text before a call of the server is no content
        chunks = sdk.chat.completions.create(model="reason/cot:talking", messages=[user("Look.")], stream=True)
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == "It is there."


@pytest.mark.parametrize("stream", [False, True])
async def test_a_hosted_tool_of_the_agents_sdk(server, calls, stream):
    agents = pytest.importorskip("agents", reason="openai-agents is not installed")
    config = {**LABEL, "require_approval": "always"}
    tool = agents.HostedMCPTool(tool_config=config, on_approval_request=lambda request: {"approve": True})
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        model = agents.OpenAIResponsesModel("reason/cot:agent", client)
        agent = agents.Agent("clerk", model=model, tools=[tool])
        options = {"run_config": agents.RunConfig(tracing_disabled=True)}
        if stream:
            running = agents.Runner.run_streamed(agent, "Change it.", **options)
            assert [event async for event in running.stream_events()]
            answer = running.final_output
        else:
            answer = (await agents.Runner.run(agent, "Change it.", **options)).final_output
    assert answer == "It is changed."
    assert sorted(calls()) == ["change 3", "look 1", "look 2"]  # reads are executed at once
