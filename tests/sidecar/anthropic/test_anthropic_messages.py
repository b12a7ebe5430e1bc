"""Anthropic's Messages API through its client: messages, streams, thoughts, tools, JSON, counts and errors."""

from __future__ import annotations

import json

import httpx
import pytest
from pydantic import BaseModel
from reason.core.messages import Thought
from reason.sidecar.anthropic import signature_of

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


def stream_events(client, model, **fields):
    """The events of a stream as the client parses them, and its final message."""
    chat = [{"role": "user", "content": "What is 6 * 7?"}]
    with client.messages.stream(**{"model": model, "max_tokens": 300, "messages": chat, **fields}) as stream:
        events = [event for event in stream if event.type.startswith(("message_", "content_block_", "reason."))]
        return events, stream.get_final_message()


def outline(events):
    """Types of the events, deltas by their own types, repetitions once."""
    kinds = [event.delta.type if event.type == "content_block_delta" else event.type for event in events]
    return [kind for i, kind in enumerate(kinds) if i == 0 or kinds[i - 1] != kind]


def test_a_message(ask):
    made = ask(system="Be brief.")
    (block,) = made.content
    assert (made.type, made.role, made.model) == ("message", "assistant", "reason/cot")
    assert (block.type, block.text) == ("text", SAID)
    assert (made.stop_reason, made.stop_sequence) == ("end_turn", None)
    assert made.id == f"msg_{made.reason['run_id']}"
    assert made.usage.input_tokens > made.usage.output_tokens > 0
    assert made._request_id.startswith("req_")


def test_a_stream_has_the_events_of_the_api(client):
    events, final = stream_events(client, "reason/cot")
    assert outline(events) == [
        "message_start",
        "content_block_start",
        "text_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert (final.content[0].text, final.stop_reason) == (SAID, "end_turn")
    assert final.usage.input_tokens > final.usage.output_tokens > 0
    assert events[-2].reason["strategy"] == "cot"


def test_events_are_named_and_data_has_no_end_mark(server):
    body = {"model": "reason/cot", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "?"}]}
    made = httpx.post(f"{server.url}/v1/messages", json=body, timeout=60)
    assert made.headers["content-type"].startswith("text/event-stream")
    assert made.headers["request-id"] == made.headers["x-request-id"]
    for event in made.text.strip().split("\n\n"):
        name, data = event.split("\n")
        assert name == f"event: {json.loads(data.removeprefix('data: '))['type']}"


@pytest.mark.parametrize("thinking", [ADAPTIVE, {"type": "enabled", "budget_tokens": 1024}])
def test_thoughts_are_signed_blocks_before_the_text(client, ask, models, thinking):
    made = ask(model="reason/cot:thinking", thinking=thinking, max_tokens=2000)
    thought, text = made.content
    assert (thought.type, thought.thinking, thought.signature) == ("thinking", THOUGHTS, signature_of(()))
    assert text.text == SAID
    assert 0 < made.usage.output_tokens_details.thinking_tokens < made.usage.output_tokens
    events, final = stream_events(client, "reason/cot:thinking", thinking=thinking, max_tokens=2000)
    assert outline(events)[1:8] == [
        "content_block_start",
        "thinking_delta",
        "signature_delta",
        "content_block_stop",
        "content_block_start",
        "text_delta",
        "content_block_stop",
    ]
    assert [block.to_dict() for block in final.content] == [block.to_dict() for block in made.content]
    sampling = models["thinking"].generate_calls[-1][0].sampling
    if thinking == ADAPTIVE:
        assert (sampling.effort, sampling.max_tokens) == (None, 2000)
    else:
        assert (sampling.effort, sampling.thinking_tokens, sampling.max_tokens) == ("low", 1024, 976)


@pytest.mark.parametrize("thinking", [None, {"type": "adaptive", "display": "omitted"}])
def test_thoughts_that_are_not_asked_for_are_not_sent(client, ask, thinking):
    fields = {} if thinking is None else {"thinking": thinking}
    (block,) = ask(model="reason/cot:thinking", **fields).content
    assert block.text == SAID
    events, final = stream_events(client, "reason/cot:thinking", **fields)
    assert "thinking_delta" not in outline(events)
    assert [block.text for block in final.content] == [SAID]


def test_efforts(ask, models):
    for fields, effort in (
        ({"thinking": {"type": "disabled"}}, "none"),
        ({"output_config": {"effort": "medium"}}, "medium"),
        ({"thinking": {"type": "enabled", "budget_tokens": 8192}, "max_tokens": 9000}, "medium"),
        ({"thinking": {"type": "enabled", "budget_tokens": 8193}, "max_tokens": 9000}, "high"),
        ({"thinking": ADAPTIVE, "output_config": {"effort": "low"}}, "low"),
    ):
        ask(model="reason/cot:thinking", **fields)
        assert models["thinking"].generate_calls[-1][0].sampling.effort == effort


def test_a_stop_sequence(client, ask):
    made = ask(stop_sequences=["nothing", "is 4", "is"])
    assert (made.content[0].text, made.stop_reason, made.stop_sequence) == ("The answer", "stop_sequence", "is")
    _, final = stream_events(client, "reason/cot", stop_sequences=["nothing", "is 4", "is"])
    assert (final.content[0].text, final.stop_reason, final.stop_sequence) == ("The answer", "stop_sequence", "is")


def test_the_limit_of_tokens(client, ask):
    made = ask(max_tokens=10)
    assert (made.content[0].text, made.stop_reason) == (SAID[:10].strip(), "max_tokens")


def test_sampling_parameters(ask, models):
    ask(extra_body={"temperature": 0.5, "top_p": 0.9, "top_k": 7})
    sampling = models["plain"].generate_calls[-1][0].sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.5, 0.9, 7)
    with pytest.raises(anthropic.BadRequestError, match="'edgejury' has no parameter top_k"):
        ask(model="reason/edgejury", extra_body={"top_k": 7})


def test_a_conversation(client, models):
    chat = [
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": [{"type": "text", "text": "Hello!"}]},
        {"role": "user", "content": "What is"},
        {"role": "user", "content": [{"type": "text", "text": "6 * 7?", "cache_control": {"type": "ephemeral"}}]},
    ]
    system = [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be right."}]
    client.messages.create(model="reason/cot", max_tokens=300, system=system, messages=chat)
    turns = models["plain"].generate_calls[-1][0].prompt.messages
    assert [turn.role for turn in turns] == ["system", "user", "assistant", "user"]
    assert turns[0].content == "Be brief.\nBe right."
    assert turns[-1].content.startswith("What is\n6 * 7?")


def test_a_tool_and_its_result(client, ask, models):
    made = ask(QUESTION, "reason/cot:caller", tools=TOOLS, tool_choice={"type": "auto"})
    text, call = made.content
    assert (made.stop_reason, text.text, call.type) == ("tool_use", "I look it up.", "tool_use")
    assert (call.name, call.input) == ("weather", {"city": "Rome"})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "24 degrees"}]}
    chat = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": made.content},
        {"role": "user", "content": [result, {"type": "text", "text": "In short, please."}]},
    ]
    client.messages.create(model="reason/cot:caller", max_tokens=300, messages=chat, tools=TOOLS)
    *_, called, told, last = models["caller"].generate_calls[-1][0].prompt.messages
    assert (called.role, called.content, called.tool_calls[0].id) == ("assistant", "I look it up.", call.id)
    assert (told.role, told.tool_call_id, told.name, told.content) == ("tool", call.id, "weather", "24 degrees")
    assert (last.role, last.content.partition("\n")[0]) == ("user", "In short, please.")
    ask(QUESTION, "reason/cot:caller", tools=TOOLS, tool_choice={"type": "none"})
    assert models["caller"].generate_calls[-1][0].prompt.tools == ()


@pytest.mark.parametrize("strategy", ["cot", "self-consistency"])
def test_a_streamed_tool_call(client, strategy):
    events, final = stream_events(client, f"reason/{strategy}:caller", tools=TOOLS)
    assert outline(events)[-5:] == [
        "content_block_start",
        "input_json_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert (final.stop_reason, final.content[-1].input) == ("tool_use", {"city": "Rome"})


@pytest.mark.parametrize("fields", [{}, {"thinking": {"type": "adaptive"}}])
@pytest.mark.parametrize("streamed", [False, True])
def test_signed_thoughts_are_returned_with_the_results_of_tools(client, ask, models, fields, streamed):
    if streamed:
        _, made = stream_events(client, "reason/cot:signing", tools=TOOLS, **fields)
    else:
        made = ask(QUESTION, "reason/cot:signing", tools=TOOLS, **fields)
    assert "tool_use" in [block.type for block in made.content]
    result = {"type": "tool_result", "tool_use_id": made.content[-1].id, "content": "24 degrees"}
    chat = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": [block.to_dict() for block in made.content]},
        {"role": "user", "content": [result]},
    ]
    client.messages.create(model="reason/cot:signing", max_tokens=300, messages=chat, tools=TOOLS)
    called, _ = models["signing"].generate_calls[-1][0].prompt.messages[-2:]
    assert called.thought.blocks == BLOCKS
    # a stream that asks for thoughts has them as they were generated, and this model generates none
    assert ("I look it up." in called.thought.text) == (not streamed or not fields)


def test_blocks_that_a_provider_signed_are_passed_on(client, models):
    chat = [
        {"role": "user", "content": QUESTION},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "EqQBCg=="},
                {"type": "redacted_thinking", "data": "EmwKAh"},
                {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "24 degrees"}]},
    ]
    client.messages.create(model="reason/cot:caller", max_tokens=300, messages=chat, tools=TOOLS)
    called, _ = models["caller"].generate_calls[-1][0].prompt.messages[-2:]
    blocks = (
        {"type": "thinking", "thinking": "Hm.", "signature": "EqQBCg=="},
        {"type": "redacted_thinking", "data": "EmwKAh"},
    )
    assert called.thought == Thought(text="Hm.", blocks=blocks)


class Number(BaseModel):
    """What is asked for."""

    answer: int


@pytest.mark.parametrize("model", ["reason/cot:formed", "reason/self-consistency:correcting"])
def test_structured_output(client, model):
    chat = [{"role": "user", "content": "What is 6 * 7?"}]
    fields = {"model": model, "max_tokens": 300, "messages": chat, "output_format": Number}
    assert client.messages.parse(**fields).parsed_output == Number(answer=42)
    with client.messages.stream(**fields) as stream:
        assert stream.get_final_message().parsed_output == Number(answer=42)


def test_the_beta_interface_of_the_client(client):
    chat = [{"role": "user", "content": "What is 6 * 7?"}]
    fields = {"model": "reason/cot", "max_tokens": 300, "messages": chat, "betas": ["context-management-2025-06-27"]}
    edits = {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}
    assert client.beta.messages.create(**fields, context_management=edits).content[0].text == SAID


def test_the_models_of_the_server(client):
    assert {"reason/cot", "reason/cot:thinking", "plain"} <= {model.id for model in client.models.list()}


def test_token_counts(client):
    chat = [{"role": "user", "content": "12345"}]
    count = client.messages.count_tokens(model="reason/cot", messages=chat).input_tokens
    assert count == len("user: 12345\nassistant: ")
    longer = client.messages.count_tokens(model="reason/cot", system="Brief.", messages=chat).input_tokens
    assert longer == count + len("system: Brief.\n")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "?"}, {"type": "image"}]}]},
            "messages.0.content.1",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "document", "source": {}}]}]}, "messages.0.content.0"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": [{"type": "image"}]}]},
            "messages.1.content.0",
        ),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "messages"),
        (
            {"system": "s", "messages": [{"role": "assistant", "content": "b"}, {"role": "user", "content": " "}]},
            "messages.1",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x"}]}]}, "messages.0"),
        (
            {
                "messages": [
                    {"role": "assistant", "content": [{"type": "thinking", "signature": "reason:?"}]},
                    {"role": "user", "content": "?"},
                ]
            },
            "messages.0.content.0.signature",
        ),
        ({"system": [{"type": "image"}]}, "system.0"),
        ({"tools": [{"type": "web_search_20260318", "name": "web_search"}]}, "tools.0.type"),
        ({"tools": [{**TOOLS[0], "name": "wea ther"}]}, "tools.0.name"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice"),
        ({"thinking": {"type": "enabled"}}, "thinking"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1023}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2000}, "thinking"),
        ({"output_config": {"effort": "low"}}, "output_config.effort"),
        ({"extra_body": {"reason": {"effort": "low"}}}, "reason.effort"),
        ({"extra_body": {"temperature": 1.5}}, "temperature"),
        ({"extra_body": {"container": "c"}}, "container"),
        ({"extra_body": {"speed": "fast"}}, "speed"),
        ({"extra_body": {"max_token": 5}}, "max_token"),
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


def test_errors_have_the_format_of_the_api(server, client, ask):
    with pytest.raises(anthropic.NotFoundError) as unknown:
        ask(model="reason/cott")
    assert unknown.value.body["type"] == "error"
    assert (unknown.value.type, unknown.value.error_code) == ("not_found_error", "model_not_found")
    for answer, status, kind in (
        (httpx.post(f"{server.url}/v1/messages", content=b"{", timeout=60), 400, "invalid_request_error"),
        (httpx.post(f"{server.url}/v1/messages", content=b"[" * 200, timeout=60), 400, "invalid_request_error"),
        (httpx.post(f"{server.url}/v1/messages", content=b" " * (5 << 20), timeout=60), 413, "request_too_large"),
        (httpx.get(f"{server.url}/v1/messages", timeout=60), 405, "invalid_request_error"),
    ):
        body = answer.json()
        assert (answer.status_code, body["type"], body["error"]["type"]) == (status, "error", kind)
        assert body["request_id"] == answer.headers["request-id"]
    assert "type" not in httpx.post(f"{server.url}/v1/chat/completions", content=b"{", timeout=60).json()


def test_a_failure_of_the_model(client, ask, server):
    with pytest.raises(anthropic.APIStatusError) as failed:
        ask(model="reason/cot:gone")
    assert (failed.value.status_code, failed.value.type) == (503, "overloaded_error")
    with pytest.raises(anthropic.APIStatusError) as failed:
        stream_events(client, "reason/cot:gone")
    assert failed.value.status_code == 503
    with pytest.raises(anthropic.APIStatusError) as failed:  # after the first text the status is sent
        stream_events(client, "reason/cot:breaking")
    assert (failed.value.status_code, failed.value.type) == (200, "api_error")
    assert failed.value.body["request_id"] == failed.value.request_id


def test_pings_keep_an_idle_stream_open(server, models):
    models["silent"].left = 0
    body = {"model": "reason/cot:silent", "max_tokens": 9, "stream": True}
    body["messages"] = [{"role": "user", "content": "?"}]
    with httpx.stream("POST", f"{server.url}/v1/messages", json=body, timeout=30) as stream:
        lines = stream.iter_lines()
        assert [next(lines) for _ in range(3)] == ["event: ping", 'data: {"type":"ping"}', ""]


def test_a_request_that_is_sent_again_is_the_same_run(ask):
    key = {"extra_headers": {"Idempotency-Key": "message-1"}}
    assert ask(**key).id == ask(**key).id
    with pytest.raises(anthropic.ConflictError):
        ask("What else?", **key)
