"""Tools through OpenAI's client: structured tool calls, and tool results as messages to the model."""

import json

import openai
import pytest
from reason.core.messages import Thought
from support.chats import assistant, user

from .conftest import BLOCKS

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "weather", "description": "What the weather is like.", "parameters": PARAMETERS}
TOOLS = [{"type": "function", "function": WEATHER}]
QUESTION = "Is it warm in Rome?"


def test_a_call_and_its_result(ask, models):
    made = ask(QUESTION, "reason/cot:caller", tools=TOOLS)
    (choice,) = made.choices
    (call,) = choice.message.tool_calls
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "I look it up.")
    assert (call.type, call.function.name) == ("function", "weather")
    assert json.loads(call.function.arguments) == {"city": "Rome"}
    chat = [
        user(QUESTION),
        choice.message.model_dump(),  # as clients send it back, with the unknown fields
        {"role": "tool", "tool_call_id": call.id, "content": "24 degrees"},
    ]
    ask(chat, "reason/cot:caller", tools=TOOLS)
    turns = models["caller"].last_request.prompt.messages
    called, told = turns[-2:]
    assert (called.role, called.tool_calls[0].id, called.content) == ("assistant", call.id, "I look it up.")
    assert (told.role, told.tool_call_id, told.name, told.content) == ("tool", call.id, "weather", "24 degrees")


@pytest.mark.parametrize("model", ["reason/cot:caller", "reason/self-consistency:caller"])
def test_a_streamed_call(ask, model):
    chunks = list(ask(QUESTION, model, tools=TOOLS, stream=True))
    content = "".join(c.choices[0].delta.content or "" for c in chunks)
    (calls,) = [c.choices[0].delta.tool_calls for c in chunks if c.choices[0].delta.tool_calls]
    assert content == "I look it up."
    assert (calls[0].index, calls[0].function.name) == (0, "weather")
    assert json.loads(calls[0].function.arguments) == {"city": "Rome"}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_no_tool_is_called_where_none_may_be(ask, models):
    ask(QUESTION, "reason/cot:caller", tools=TOOLS, tool_choice="none")
    assert models["caller"].last_request.prompt.tools == ()


NAMED = {"type": "function", "function": {"name": "weather"}}
MISNAMED = [{"type": "function", "function": {**WEATHER, "name": "wea ther"}}]


@pytest.mark.parametrize(
    ("model", "fields", "match", "error"),
    [
        ("cot:caller", {"tool_choice": NAMED}, "tool_choice=weather", {}),  # this model does not support it
        ("coat:caller", {}, "tools", {}),  # nor this strategy tools
        ("cot:plain", {}, "tools", {"code": "capability_missing"}),
        ("cot", {"tools": MISNAMED}, "", {"param": "tools.0.function.name"}),
    ],
)
def test_tools_that_are_refused(ask, model, fields, match, error):
    with pytest.raises(openai.BadRequestError, match=match) as refused:
        ask(QUESTION, f"reason/{model}", **{"tools": TOOLS, **fields})
    assert {name: getattr(refused.value, name) for name in error} == error


FLAT_TOOLS = [{"type": "function", **WEATHER, "strict": None}]


def follow_ups(made, call):
    """Two ways to give a response the result of its call."""
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "24 degrees"}
    yield {"input": [result], "previous_response_id": made.id}
    yield {"input": [user(QUESTION), *made.output, result]}


def test_responses(client, models):
    made = client.responses.create(model="reason/cot:caller", input=QUESTION, tools=FLAT_TOOLS)
    *_, call = made.output
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "weather", {"city": "Rome"})
    ids = []
    for given in follow_ups(made, call):
        client.responses.create(model="reason/cot:caller", tools=FLAT_TOOLS, **given)
        called, told = models["caller"].last_request.prompt.messages[-2:]
        ids.append((called.tool_calls[0].id, called.content, told.tool_call_id, told.content))
    assert ids == [(call.call_id, "I look it up.", call.call_id, "24 degrees")] * 2
    with client.responses.stream(model="reason/cot:caller", input=QUESTION, tools=FLAT_TOOLS) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert "response.function_call_arguments.done" in kinds
    assert final.output[-1].name == "weather"


def thoughts_of(model):
    """The thought of the assistant's last turn in the model's last prompt."""
    called, _ = model.last_request.prompt.messages[-2:]
    return called.thought


def test_signed_thoughts_are_returned_with_the_results_of_tools(ask, models):
    made = ask(QUESTION, "reason/cot:signing", tools=TOOLS).choices[0].message
    assert made.thinking_blocks == list(BLOCKS)
    result = {"role": "tool", "tool_call_id": made.tool_calls[0].id, "content": "24 degrees"}
    chat = [user(QUESTION), made.model_dump(), result]
    ask(chat, "reason/cot:signing", tools=TOOLS)
    assert thoughts_of(models["signing"]) == Thought(text=made.reasoning_content, blocks=BLOCKS)
    chunks = list(ask(QUESTION, "reason/cot:signing", tools=TOOLS, stream=True))
    (delta,) = [c.choices[0].delta for c in chunks if c.choices[0].delta.tool_calls]
    assert delta.thinking_blocks == list(BLOCKS)
    assert not hasattr(ask(QUESTION, "reason/cot:thinking").choices[0].message, "thinking_blocks")


def test_signed_thoughts_of_responses(client, models):
    made = client.responses.create(model="reason/cot:signing", input=QUESTION, tools=FLAT_TOOLS)
    assert [item.type for item in made.output] == ["reasoning", "message", "function_call"]
    for given in follow_ups(made, made.output[-1]):
        client.responses.create(model="reason/cot:signing", tools=FLAT_TOOLS, **given)
        assert thoughts_of(models["signing"]).blocks == BLOCKS
        assert thoughts_of(models["signing"]).text
    with client.responses.stream(model="reason/cot:signing", input=QUESTION, tools=FLAT_TOOLS) as stream:
        list(stream)
        output = stream.get_final_response().output
        _, given = follow_ups(stream.get_final_response(), output[-1])
    (signed,) = [item for item in output if item.type == "reasoning" and item.encrypted_content]
    assert signed.encrypted_content == made.output[0].encrypted_content
    client.responses.create(model="reason/cot:signing", tools=FLAT_TOOLS, **given)
    assert thoughts_of(models["signing"]).blocks == BLOCKS


@pytest.mark.parametrize("content", ["!", "bm8=", "WzFd"])  # no base64; "no"; [1]
def test_encrypted_thoughts_that_are_not_ours(client, content):
    item = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": content}
    chat = [user(QUESTION), item, assistant("?")]
    with pytest.raises(openai.BadRequestError, match="encrypted_content is not that of a response") as refused:
        client.responses.create(model="reason/cot:plain", input=[*chat, user(QUESTION)])
    assert refused.value.param == "input.1.encrypted_content"
