"""Anthropic's Messages API through its client: messages, streams, thoughts, tools, JSON, counts and errors."""

from __future__ import annotations

import itertools
import json

import httpx
import pytest
from pydantic import BaseModel
from reason.core.messages import Thought
from reason.sidecar.anthropic import signature_of
from support.chats import assistant, text_part, user

from ..openai.conftest import BLOCKS, SAID, THOUGHTS

anthropic = pytest.importorskip("anthropic")

TOOLS = [
    {
        "name": "weather",
        "description": "What the weather is like.",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }
]
QUESTION = "Is it warm in Rome?"
ADAPTIVE = {"type": "adaptive"}
BUDGET = {"type": "enabled", "budget_tokens": 1024}
IMAGE = {"type": "image"}


CHAT = [user("What is 6 * 7?")]


@pytest.fixture
def stream(client):
    """The events of a stream as the client parses them, and its final message."""

    def call(model="reason/cot", **fields):
        with client.messages.stream(model=model, messages=CHAT, **{"max_tokens": 300, **fields}) as stream:
            events = [event for event in stream if event.type.startswith(("message_", "content_block_", "reason."))]
            return events, stream.get_final_message()

    return call


def result_of(call_id, content="24 degrees"):
    return {"type": "tool_result", "tool_use_id": call_id, "content": content}


def outline(events):
    """Types of the events, deltas by their own types, repetitions once."""
    kinds = [event.delta.type if event.type == "content_block_delta" else event.type for event in events]
    return " ".join(kind for kind, _ in itertools.groupby(kinds))


def test_a_message(ask):
    made = ask(system="Be brief.")
    (block,) = made.content
    assert (made.type, made.role, made.model) == ("message", "assistant", "reason/cot")
    assert (block.type, block.text) == ("text", SAID)
    assert (made.stop_reason, made.stop_sequence) == ("end_turn", None)
    assert made.id == f"msg_{made.reason['run_id']}"
    assert made.usage.input_tokens > made.usage.output_tokens > 0
    assert made._request_id.startswith("req_")


def test_a_stream_has_the_events_of_the_api(stream):
    events, final = stream()
    assert outline(events) == (
        "message_start content_block_start text_delta content_block_stop message_delta message_stop"
    )
    assert (final.content[0].text, final.stop_reason) == (SAID, "end_turn")
    assert final.usage.input_tokens > final.usage.output_tokens > 0
    assert events[-2].reason["strategy"] == "cot"


def test_events_are_named_and_data_has_no_end_mark(server):
    body = {"model": "reason/cot", "max_tokens": 9, "stream": True, "messages": [user("?")]}
    made = httpx.post(f"{server.url}/v1/messages", json=body, timeout=60)
    assert made.headers["content-type"].startswith("text/event-stream")
    assert made.headers["request-id"] == made.headers["x-request-id"]
    for event in made.text.strip().split("\n\n"):
        name, data = event.split("\n")
        assert name == f"event: {json.loads(data.removeprefix('data: '))['type']}"


@pytest.mark.parametrize("thinking", [ADAPTIVE, BUDGET])
def test_thoughts_are_signed_blocks_before_the_text(stream, ask, models, thinking):
    made = ask(model="reason/cot:thinking", thinking=thinking, max_tokens=2000)
    thought, text = made.content
    assert (thought.type, thought.thinking, thought.signature) == ("thinking", THOUGHTS, signature_of(()))
    assert text.text == SAID
    assert 0 < made.usage.output_tokens_details.thinking_tokens < made.usage.output_tokens
    events, final = stream("reason/cot:thinking", thinking=thinking, max_tokens=2000)
    assert outline(events).startswith(
        "message_start content_block_start thinking_delta signature_delta content_block_stop"
        " content_block_start text_delta content_block_stop"
    )
    assert [block.to_dict() for block in final.content] == [block.to_dict() for block in made.content]
    sampling = models["thinking"].last_request.sampling
    if thinking == ADAPTIVE:
        assert (sampling.effort, sampling.thinking_tokens, sampling.max_tokens) == (None, 1000, 1000)
    else:
        assert (sampling.effort, sampling.thinking_tokens, sampling.max_tokens) == ("low", 1024, 976)


@pytest.mark.parametrize("thinking", [None, {**ADAPTIVE, "display": "omitted"}])
def test_thoughts_that_are_not_asked_for_are_not_sent(stream, ask, thinking):
    fields = {} if thinking is None else {"thinking": thinking}
    (block,) = ask(model="reason/cot:thinking", **fields).content
    assert block.text == SAID
    events, final = stream("reason/cot:thinking", **fields)
    assert "thinking_delta" not in outline(events)
    assert [block.text for block in final.content] == [SAID]


def test_efforts(ask, models):
    for fields, effort in (
        ({"thinking": {"type": "disabled"}}, "none"),
        ({"output_config": {"effort": "medium"}}, "medium"),
        ({"thinking": {**BUDGET, "budget_tokens": 8192}, "max_tokens": 9000}, "medium"),
        ({"thinking": {**BUDGET, "budget_tokens": 8193}, "max_tokens": 9000}, "high"),
        ({"thinking": ADAPTIVE, "output_config": {"effort": "low"}}, "low"),
    ):
        ask(model="reason/cot:thinking", **fields)
        assert models["thinking"].last_request.sampling.effort == effort


def test_adaptive_thinking_asks_a_model_that_thinks_only_if_it_is_asked(ask, models):
    ask(model="reason/cot:asked", thinking=ADAPTIVE, max_tokens=6000)
    sampling = models["asked"].last_request.sampling
    assert (sampling.effort, sampling.total_tokens) == ("medium", 6000)
    ask(model="reason/cot:asked", max_tokens=6000)
    sampling = models["asked"].last_request.sampling
    assert (sampling.effort, sampling.total_tokens) == (None, 6000)
    assert ask(thinking=ADAPTIVE).content[-1].text == SAID  # a model that never thinks


def test_a_stop_sequence(stream, ask):
    stops = {"stop_sequences": ["nothing", "is 4", "is"]}
    for made in (ask(**stops), stream(**stops)[1]):
        assert (made.content[0].text, made.stop_reason, made.stop_sequence) == ("The answer", "stop_sequence", "is")


def test_the_limit_of_tokens(ask):
    made = ask(max_tokens=10)
    assert (made.content[0].text, made.stop_reason) == (SAID[:10].strip(), "max_tokens")


def test_sampling_parameters(ask, models):
    ask(extra_body={"temperature": 0.5, "top_p": 0.9, "top_k": 7})
    sampling = models["plain"].last_request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.5, 0.9, 7)
    with pytest.raises(anthropic.BadRequestError, match="'edgejury' has no parameter top_k"):
        ask(model="reason/edgejury", extra_body={"top_k": 7})


def test_a_conversation(ask, models):
    chat = [
        user("Hello."),
        assistant([text_part("Hello!")]),
        user("What is"),
        user([{"type": "text", "text": "6 * 7?", "cache_control": {"type": "ephemeral"}}]),
    ]
    system = [text_part("Be brief."), text_part("Be right.")]
    ask(chat, system=system)
    turns = models["plain"].last_request.prompt.messages
    assert [turn.role for turn in turns] == ["system", "user", "assistant", "user"]
    assert turns[0].content == "Be brief.\nBe right."
    assert turns[-1].content.startswith("What is\n6 * 7?")


def test_a_tool_and_its_result(ask, models):
    made = ask(QUESTION, "reason/cot:caller", tools=TOOLS, tool_choice={"type": "auto"})
    text, call = made.content
    assert (made.stop_reason, text.text, call.type) == ("tool_use", "I look it up.", "tool_use")
    assert (call.name, call.input) == ("weather", {"city": "Rome"})
    result = result_of(call.id, [text_part("24 degrees")])
    chat = [
        user(QUESTION),
        assistant(made.content),
        user([result, text_part("In short, please.")]),
    ]
    ask(chat, "reason/cot:caller", tools=TOOLS)
    *_, called, told, last = models["caller"].last_request.prompt.messages
    assert (called.role, called.content, called.tool_calls[0].id) == ("assistant", "I look it up.", call.id)
    assert (told.role, told.tool_call_id, told.name, told.content) == ("tool", call.id, "weather", "24 degrees")
    assert (last.role, last.content.partition("\n")[0]) == ("user", "In short, please.")
    ask(QUESTION, "reason/cot:caller", tools=TOOLS, tool_choice={"type": "none"})
    assert models["caller"].last_request.prompt.tools == ()


@pytest.mark.parametrize("strategy", ["cot", "self-consistency"])
def test_a_streamed_tool_call(stream, strategy):
    events, final = stream(f"reason/{strategy}:caller", tools=TOOLS)
    assert outline(events).endswith(
        "content_block_start input_json_delta content_block_stop message_delta message_stop"
    )
    assert (final.stop_reason, final.content[-1].input) == ("tool_use", {"city": "Rome"})


@pytest.mark.parametrize("fields", [{}, {"thinking": ADAPTIVE}])
@pytest.mark.parametrize("streamed", [False, True])
def test_signed_thoughts_are_returned_with_the_results_of_tools(stream, ask, models, fields, streamed):
    if streamed:
        _, made = stream("reason/cot:signing", tools=TOOLS, **fields)
    else:
        made = ask(QUESTION, "reason/cot:signing", tools=TOOLS, **fields)
    assert "tool_use" in [block.type for block in made.content]
    chat = [
        user(QUESTION),
        assistant([block.to_dict() for block in made.content]),
        user([result_of(made.content[-1].id)]),
    ]
    ask(chat, "reason/cot:signing", tools=TOOLS)
    called, _ = models["signing"].last_request.prompt.messages[-2:]
    assert called.thought.blocks == BLOCKS
    # a stream that asks for thoughts has them as they were generated, and this model generates none
    assert ("I look it up." in called.thought.text) == (not streamed or not fields)


def test_blocks_that_a_provider_signed_are_passed_on(ask, models):
    blocks = (
        {"type": "thinking", "thinking": "Hm.", "signature": "EqQBCg=="},
        {"type": "redacted_thinking", "data": "EmwKAh"},
    )
    use = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}}
    ask([user(QUESTION), assistant([*blocks, use]), user([result_of("toolu_1")])], "reason/cot:caller", tools=TOOLS)
    called, _ = models["caller"].last_request.prompt.messages[-2:]
    assert called.thought == Thought(text="Hm.", blocks=blocks)


class Number(BaseModel):
    """What is asked for."""

    answer: int


@pytest.mark.parametrize("model", ["reason/cot:formed", "reason/self-consistency:correcting"])
def test_structured_output(client, model):
    fields = {"model": model, "max_tokens": 300, "messages": CHAT, "output_format": Number}
    assert client.messages.parse(**fields).parsed_output == Number(answer=42)
    with client.messages.stream(**fields) as stream:
        assert stream.get_final_message().parsed_output == Number(answer=42)


def test_the_beta_interface_of_the_client(client):
    fields = {"model": "reason/cot", "max_tokens": 300, "messages": CHAT, "betas": ["context-management-2025-06-27"]}
    edits = {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}
    assert client.beta.messages.create(**fields, context_management=edits).content[0].text == SAID


def test_the_models_of_the_server(client):
    assert {"reason/cot", "reason/cot:thinking", "plain"} <= {model.id for model in client.models.list()}


def test_token_counts(client):
    chat = [user("12345")]
    count = client.messages.count_tokens(model="reason/cot", messages=chat).input_tokens
    assert count == len("user: 12345\nassistant: ")
    longer = client.messages.count_tokens(model="reason/cot", system="Brief.", messages=chat).input_tokens
    assert longer == count + len("system: Brief.\n")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [user([text_part("?"), IMAGE])]}, "messages.0.content.1"),
        ({"messages": [user([{"type": "document", "source": {}}])]}, "messages.0.content.0"),
        ({"messages": [user("a"), user([IMAGE])]}, "messages.1.content.0"),
        ({"messages": [user("a"), assistant("b")]}, "messages"),
        ({"system": "s", "messages": [assistant("b"), user(" ")]}, "messages.1"),
        ({"messages": [user([{"type": "tool_result", "tool_use_id": "x"}])]}, "messages.0"),
        (
            {"messages": [assistant([{"type": "thinking", "signature": "reason:?"}]), user("?")]},
            "messages.0.content.0.signature",
        ),
        ({"system": [IMAGE]}, "system.0"),
        ({"tools": [{"type": "web_search_20260318", "name": "web_search"}]}, "tools.0.type"),
        ({"tools": [{**TOOLS[0], "name": "wea ther"}]}, "tools.0.name"),
        *(({"tool_choice": {"type": kind}}, "tool_choice") for kind in ("any", "tool")),
        ({"thinking": {"type": "enabled"}}, "thinking"),
        ({"thinking": {**BUDGET, "budget_tokens": 1023}}, "thinking.budget_tokens"),
        ({"thinking": BUDGET}, "thinking.budget_tokens"),
        ({"thinking": BUDGET, "max_tokens": 2000}, "thinking"),
        ({"output_config": {"effort": "low"}}, "output_config.effort"),
        ({"extra_body": {"reason": {"effort": "low"}}}, "reason.effort"),
        ({"extra_body": {"temperature": 1.5}}, "temperature"),
        *(({"extra_body": {name: "x"}}, name) for name in ("container", "speed", "max_token")),
        ({"extra_body": {"reason": {"parameters": {"nn": 5}}}}, "reason.parameters.nn"),
    ],
)
def test_what_is_refused_names_the_field(ask, fields, param):
    with pytest.raises(anthropic.BadRequestError) as refused:
        ask(**fields)
    error = refused.value.body["error"]
    assert (refused.value.type, error["param"]) == ("invalid_request_error", param), error
    assert refused.value.request_id == refused.value.body["request_id"]
    assert refused.value.error_code == error["code"]


def test_errors_have_the_format_of_the_api(server, ask):
    with pytest.raises(anthropic.NotFoundError) as unknown:
        ask(model="reason/cott")
    assert unknown.value.body["type"] == "error"
    assert (unknown.value.type, unknown.value.error_code) == ("not_found_error", "model_not_found")
    url = f"{server.url}/v1/messages"
    for answer, status, kind in (
        *((httpx.post(url, content=body, timeout=60), 400, "invalid_request_error") for body in (b"{", b"[" * 200)),
        (httpx.post(url, content=b" " * (5 << 20), timeout=60), 413, "request_too_large"),
        (httpx.get(url, timeout=60), 405, "invalid_request_error"),
    ):
        body = answer.json()
        assert (answer.status_code, body["type"], body["error"]["type"]) == (status, "error", kind)
        assert body["request_id"] == answer.headers["request-id"]
    assert "type" not in httpx.post(f"{server.url}/v1/chat/completions", content=b"{", timeout=60).json()


def test_a_failure_of_the_model(stream, ask, server):
    for call in (ask, stream):
        with pytest.raises(anthropic.APIStatusError) as failed:
            call(model="reason/cot:gone")
        assert (failed.value.status_code, failed.value.type) == (503, "overloaded_error")
    with pytest.raises(anthropic.APIStatusError) as failed:  # after the first text the status is sent
        stream("reason/cot:breaking")
    assert (failed.value.status_code, failed.value.type) == (200, "api_error")
    assert failed.value.body["request_id"] == failed.value.request_id


def test_pings_keep_an_idle_stream_open(server, models):
    models["silent"].left = 0
    body = {"model": "reason/cot:silent", "max_tokens": 9, "stream": True}
    body["messages"] = [user("?")]
    with httpx.stream("POST", f"{server.url}/v1/messages", json=body, timeout=30) as stream:
        lines = stream.iter_lines()
        assert [next(lines) for _ in range(3)] == ["event: ping", 'data: {"type":"ping"}', ""]


def test_a_request_that_is_sent_again_is_the_same_run(ask):
    key = {"extra_headers": {"Idempotency-Key": "message-1"}}
    assert ask(**key).id == ask(**key).id
    with pytest.raises(anthropic.ConflictError):
        ask("What else?", **key)
