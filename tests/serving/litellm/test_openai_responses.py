"""OpenAI's Responses API: which requests go there, what is sent, and what is read of the stream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter
from reason.core.errors import (
    BackendError,
    BackendRefused,
    BackendUnavailable,
    InvalidResponse,
    RateLimited,
)
from reason.core.messages import (
    Attachment,
    Completion,
    Message,
    Prompt,
    Request,
    SamplingParams,
    Thought,
    ToolCall,
)
from reason.serving.litellm.errors import ContextExceeded, ErrorResponse, classify_error
from reason.serving.litellm.model import LiteLLMModel
from reason.serving.litellm.requests import messages_of
from reason.serving.litellm.responses import SampleCollector, split_usage, to_completion
from reason.serving.openai_responses import ChunkTranslator, responses_body
from reason.serving.openai_responses import ResponsesStream as ResponsesClientStream
from support.litellm_models import served, turns_of, with_results
from support.scripted_tools import WEATHER
from support.wires.kinds import KINDS, OTHER_KINDS, Kind
from support.wires.responses import ResponsesStream
from support.wires.script import Sample, Token
from support.wires.server import WireServer
from support.wires.stream import SHAPES, Choice, Generation, Shape

pytestmark = pytest.mark.usefixtures("keys")

BY_NAME = {kind.name: kind for kind in (*KINDS, *OTHER_KINDS)}
GPT = BY_NAME["gpt-5.6"]
CALLS = [[("weather", {"city": "Rome"}), ("weather", {"city": "Oslo"})], [("weather", {"city": "Bern"})]]
ASK = Message(role="user", content="Is it warm?")
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"


@asynccontextmanager
async def opened(kind: Kind = GPT, **options: Any) -> AsyncIterator[tuple[WireServer, LiteLLMModel]]:
    """A server of a kind, and the model in front of it."""
    server = WireServer(kind, **options)
    async with served(server, kind.model, probe=False, max_retries=0) as model:
        # what a server of one's own is not measured for, OpenAI's service has
        model._can = model._can.model_copy(update={"tools": True, "json_schema": True, "inputs": {"image", "file"}})
        yield server, model


def ask(*messages: Message, tools: bool = True, choice: str = "auto", **sampling: Any) -> Request:
    prompt = Prompt(messages=messages or (ASK,), tools=(WEATHER,) if tools else (), tool_choice=choice)
    return Request(prompt=prompt, sampling=SamplingParams(**{"max_tokens": 300, "seed": 3, **sampling}))


@pytest.mark.parametrize("name", ["gpt-5.6", "GPT-7"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
async def test_reasoning_is_carried_over_turns_of_tools(name, shape):
    async with opened(BY_NAME[name], shape=shape, calls=CALLS) as (server, model):
        turns = await turns_of(model, ask, ASK)
        assert server.refusals == []
        assert {g.path for g in server.generations} == {RESPONSES}
        assert [[(c.name, json.loads(c.arguments)) for c in made.tool_calls] for made in turns] == [*CALLS, []]
        assert turns[-1].text.endswith("The answer is 12.")
        if shape.usage not in ("missing", "constant"):
            counts = [(g.choices[0].tokens, g.choices[0].thinking, g.prompt_tokens) for g in server.generations]
            usages = [made.usage for made in turns]
            assert counts == [(u.completion_tokens, u.thinking_tokens, u.prompt_tokens) for u in usages]
        items = [item.get("type", item.get("role")) for item in server.generations[-1].body["input"]]
        first = ["user", "reasoning", "function_call", "function_call", *["function_call_output"] * 2]
        assert items == [*first, "reasoning", "function_call", "function_call_output"]


@pytest.mark.parametrize(
    ("sampling", "tools", "path"),
    [({}, True, RESPONSES), ({"effort": "none"}, True, CHAT), ({}, False, CHAT), ({"effort": "low"}, True, RESPONSES)],
    ids=["tools", "tools without thinking", "no tools", "tools with an effort"],
)
async def test_only_requests_that_chat_refuses_go_there(sampling, tools, path):
    async with opened() as (server, model):
        await model.generate([ask(tools=tools, **sampling)])
        assert ([g.path for g in server.generations], server.refusals) == ([path], [])
        if path == RESPONSES:
            assert server.generations[0].body.get("reasoning") == ({"effort": "low"} if sampling else None)


async def test_a_model_that_chat_does_not_serve():
    kind = replace(GPT, model="openai/gpt-5.6-codex")
    async with opened(kind) as (server, model):
        [made] = await model.generate([ask(tools=False, n=2)])
        assert ([g.path for g in server.generations], server.refusals) == ([RESPONSES] * 2, [])
        assert [c.usage.completion_tokens for c in made] == [g.choices[0].tokens for g in server.generations]


async def test_samples_with_tools_are_requested_one_by_one():
    async with opened(calls=CALLS) as (server, model):
        [made] = await model.generate([ask(n=3)])
        assert [c.sample_index for c in made] == [0, 1, 2]
        assert sum(c.usage.prompt_tokens for c in made) == sum(g.prompt_tokens for g in server.generations)


async def test_returned_reasoning_needs_no_tools_and_several_samples_do_without():
    async with opened(calls=CALLS[:1]) as (server, model):
        [[made]] = await model.generate([ask()])
        after = ask(*with_results([ASK], made), tools=False)
        await model.generate([after])
        assert server.generations[-1].path == RESPONSES
        await model.generate([ask(*after.prompt.messages, tools=False, n=2)])
        assert server.generations[-1].path == CHAT
        assert not any("reasoning_details" in message for message in server.generations[-1].body["messages"])


async def test_openais_own_address(monkeypatch, load):
    server = WireServer(GPT, calls=CALLS)
    async with server.run() as base:
        monkeypatch.setenv("OPENAI_BASE_URL", base)
        model = await load(GPT.model, providers={"openai": {"probe": False}})
        [[made]] = await model.generate([ask()])
        assert ([g.path for g in server.generations], len(made.tool_calls)) == ([RESPONSES], 2)


async def test_a_schema_and_an_image():
    schema = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    png = Attachment(kind="image", media_type="image/png", sha256="0" * 64, data="iVBORw0KGgo=")
    pdf = Attachment(kind="file", media_type="application/pdf", sha256="1" * 64, data="JVBERi0=", name="shop.pdf")
    async with opened() as (server, model):
        seen = ASK.model_copy(update={"attachments": (png, pdf)})
        [[made]] = await model.generate([ask(seen, json_schema=schema)])
        assert json.loads(made.text) == {"text": "The answer is 12."}
        body = server.generations[0].body
        assert body["text"]["format"] == {"type": "json_schema", "name": "reply", "schema": schema, "strict": False}
        assert body["input"][0]["content"] == [
            {"type": "input_text", "text": "Is it warm?"},
            {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "auto"},
            {"type": "input_file", "file_data": "data:application/pdf;base64,JVBERi0=", "filename": "shop.pdf"},
        ]


async def test_a_tool_call_that_the_limit_cuts():
    async with opened(calls=CALLS[1:]) as (_, model):
        [[whole]] = await model.generate([ask()])
        request = ask(max_tokens=3, thinking_tokens=whole.usage.thinking_tokens)
        [[cut]] = await model.generate([request])
        assert (cut.finish_reason, cut.usage.completion_tokens) == ("length", whole.usage.thinking_tokens + 3)
        assert [call.arguments for call in cut.tool_calls] == [whole.tool_calls[0].arguments[:6]]


async def test_a_limit_below_openais_minimum():
    async with opened() as (server, model):
        [[made]] = await model.generate([ask(max_tokens=1, thinking_tokens=1)])
        assert (server.refusals, made.finish_reason, server.tokens) == ([], "thinking", 16)


@pytest.mark.parametrize(
    ("breaks", "error"),
    [("error", BackendError), ("reset", BackendUnavailable), ("end", InvalidResponse)],
)
async def test_a_stream_that_breaks_off(breaks, error):
    async with opened(shape=Shape(breaks=breaks, after=20), calls=CALLS) as (_, model):
        with pytest.raises(error):
            await model.generate([ask()])


# -- the request


def body_of(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return responses_body({"messages": list(messages), "max_tokens": 900, **fields}, "gpt-7")


def test_items_are_in_the_order_in_which_the_model_wrote_them():
    calls = [ToolCall(name="weather", id=f"call-{i}").as_openai() for i in range(2)]
    blocks = [
        {"type": "reasoning", "summary": [], "encrypted_content": text, "index": i, "calls_before": before}
        for i, (text, before) in enumerate([("a", 0), ("b", 1), ("c", 2)])
    ]
    foreign = [{"type": "thinking", "signature": "s"}, {"type": "reasoning.encrypted", "data": "x"}]
    said = {"role": "assistant", "content": "I look.", "tool_calls": calls, "reasoning_details": [*foreign, *blocks]}
    sent = [item.get("encrypted_content") or item.get("call_id") or item["content"] for item in body_of(said)["input"]]
    assert sent == ["a", "I look.", "call-0", "b", "call-1"]  # nothing follows the last reasoning
    odd = {**said, "reasoning_details": [{"type": "reasoning", "encrypted_content": "a", "calls_before": "x"}]}
    assert body_of(odd)["input"][0] == {"type": "reasoning", "summary": [], "encrypted_content": "a"}


def test_tools_and_their_choice_are_flat():
    choice = {"type": "function", "function": {"name": "weather"}}
    body = body_of({"role": "user", "content": "?"}, tools=[WEATHER.as_openai()], tool_choice=choice, seed=3)
    assert body["tool_choice"] == {"type": "function", "name": "weather"}
    assert body["tools"] == [{"type": "function", "strict": False, **WEATHER.as_openai()["function"]}]
    assert body["store"] is False
    assert "seed" not in body
    assert body_of(tools=[], response_format={"type": "json_object"})["text"] == {"format": {"type": "json_object"}}


# -- the stream


def ended(status: str, **fields: Any) -> dict[str, Any]:
    return {"type": f"response.{status}", "response": {"status": status, **fields}}


def text(kind: str = "output_text") -> list[dict[str, Any]]:
    item = {"type": "message", "id": "m"}
    return [
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": f"response.{kind}.delta", "output_index": 0, "delta": "Hello."},
    ]


def read(*events: dict[str, Any]) -> SampleCollector:
    reading = SampleCollector([0], lambda *_: None, "here")
    reading.take(ChunkTranslator().chunks(events))
    return reading


def completed(reading: SampleCollector, model: LiteLLMModel) -> Completion:
    [usage] = split_usage(reading.usage, reading.samples, model.prices, model.target, 0.0)
    return to_completion(reading.samples[0], usage, SamplingParams(), {}, model.target)


@pytest.mark.parametrize(
    ("events", "finish", "named"),
    [
        ([*text(), ended("completed")], "stop", None),
        ([*text("refusal"), ended("completed")], "stop", "refusal"),
        ([*text(), ended("incomplete", incomplete_details={"reason": "max_output_tokens"})], "length", None),
        ([*text(), ended("incomplete", incomplete_details={"reason": "content_filter"})], "stop", "content_filter"),
    ],
    ids=["completed", "refusal", "limit", "filter"],
)
async def test_finish_reasons(events, finish, named):
    async with opened() as (_, model):
        made = completed(read(*events), model)
    assert (made.text, made.finish_reason, made.extras.get("finish_reason")) == ("Hello.", finish, named)


async def test_usage_has_what_was_read_from_the_cache_and_written_to_it():
    usage = {"input_tokens": 3000, "output_tokens": 70, "total_tokens": 3070}
    usage["input_tokens_details"] = {"cached_tokens": 1000, "cache_write_tokens": 1500}
    usage["output_tokens_details"] = {"reasoning_tokens": 64}
    async with opened() as (_, model):
        made = completed(read(*text(), ended("completed", usage=usage)), model).usage
    assert (made.prompt_tokens, made.cached_tokens, made.cache_write_tokens) == (3000, 1000, 1500)
    assert (made.completion_tokens, made.thinking_tokens) == (70, 64)


@pytest.mark.parametrize(
    ("code", "error", "retryable"),
    [
        ("server_error", BackendError, True),
        ("rate_limit_exceeded", RateLimited, True),
        ("server_is_overloaded", BackendUnavailable, True),
        (None, BackendError, True),
        ("invalid_prompt", BackendRefused, False),
        ("insufficient_quota", BackendRefused, False),
        ("context_length_exceeded", ContextExceeded, False),
    ],
)
@pytest.mark.parametrize("form", ["failed", "event", "nested event"])
async def test_errors_in_the_stream(form, code, error, retryable):
    shown = {"code": code, "message": "it failed"}
    last = {
        "failed": ended("failed", error=shown, usage={"input_tokens": 9, "output_tokens": 5}),
        "event": {"type": "error", **shown},
        "nested event": {"type": "error", "error": shown},
    }[form]
    reading = SampleCollector([0], lambda *_: None, "here")
    with pytest.raises(Exception, match="it failed") as raised:
        reading.take(ChunkTranslator().chunks([*text(), last]))
    async with opened() as (_, model):
        fault = classify_error(raised.value, model.target)
    assert (type(fault.error), fault.retryable) == (error, retryable)
    assert (reading.usage is not None) == (form == "failed")


async def test_a_comment_and_the_answer_are_paragraphs():
    async with opened() as (_, model):
        assert completed(read(*text(), *text(), ended("completed")), model).text == "Hello.\n\nHello."


async def test_reasoning_between_calls_is_returned_between_them():
    output = [
        {"type": "reasoning", "id": "rs_0", "summary": [], "encrypted_content": "a"},
        {"type": "function_call", "id": "fc_0", "call_id": "call-0", "name": "weather"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "b"},
        {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "c"},
        {"type": "function_call", "id": "fc_1", "call_id": "call-1", "name": "weather"},
    ]
    events = [
        {"type": f"response.output_item.{state}", "output_index": i, "item": item}
        for i, item in enumerate(output)
        for state in ("added", "done")
    ]
    async with opened() as (_, model):
        made = completed(read(*events, ended("completed")), model)
        request = ask(*with_results([ASK], made))
        [sent] = [
            m for m in messages_of(request.prompt, model.capabilities.profile, thinking=True) if "tool_calls" in m
        ]
    items = body_of(sent)["input"]
    assert [item.get("encrypted_content") or item["call_id"] for item in items] == ["a", "call-0", "b", "c", "call-1"]


class Open:
    """The content of a response that the server does not end."""

    def __init__(self, data: bytes) -> None:
        self.data = [data]

    def at_eof(self) -> bool:
        return False

    async def readany(self) -> bytes:
        return self.data.pop()  # fails if it is read again

    async def read(self) -> bytes:
        return b""


async def test_nothing_is_awaited_after_the_last_event():
    async with opened() as (_, model):
        stream = ResponsesClientStream(model.wire.http, {})
        data = f"data: {json.dumps(ended('completed'))}\n\n".encode()
        stream._response = SimpleNamespace(content=Open(data), close=lambda: None)
        batches = [batch async for batch in stream]
    assert [chunk["choices"][0]["finish_reason"] for batch in batches for chunk in batch] == ["stop"]


# -- the server that plays it


@pytest.mark.parametrize("finish", ["stop", "tool_calls", "length"])
def test_the_events_of_the_wire_are_openais(finish):
    tokens = [Token("Hm.", "thought"), Token("I look.", "answer"), Token("{}", "call"), Token("{}", "call", call=1)]
    body = ResponsesStream.normal({"input": "?", "include": ["reasoning.encrypted_content"]}, RESPONSES)
    sample = Sample(tokens, finish, tools=("weather", "weather"))
    stream = ResponsesStream(GPT, body, Generation(RESPONSES, body, [Choice()]), [sample], Shape())
    data = stream.begin() + stream.piece(0, tokens, is_first=True, finish=finish) + stream.broken()
    events = [json.loads(line[6:]) for line in data.decode().splitlines() if line.startswith("data: ")]
    known = TypeAdapter(ResponseStreamEvent)
    assert [known.validate_python(event).type for event in events] == [event["type"] for event in events]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


@pytest.mark.parametrize(
    ("item", "refused"),
    [
        ({"type": "function_call", "call_id": "call_r1_0", "name": "weather", "arguments": "{}"}, "required 'reason"),
        ({"type": "reasoning", "summary": [], "encrypted_content": "gAAAr1"}, "required following item"),
        ({"type": "reasoning", "encrypted_content": "gAAAr1"}, "`summary`"),
        ({"type": "reasoning", "summary": [], "encrypted_content": "x"}, "could not be verified"),
        ({"type": "message", "role": "assistant", "content": "Hi.", "id": "msg_1"}, "not persisted"),
        ({"type": "function_call_output", "call_id": "call_r1_0", "output": "24"}, "No tool call found"),
        ({"role": "user", "content": [{"type": "text", "text": "Hi."}]}, "Supported values"),
    ],
)
async def test_items_that_openai_refuses(item, refused):
    async with opened() as (server, model):
        body = {"model": "gpt-5.6", "input": [{"role": "user", "content": "?"}, item], "store": False}
        with pytest.raises(ErrorResponse):
            async with model.wire.http.stream("/responses", body):
                pass
        assert refused in server.refusals[0]


async def test_a_thought_of_another_provider_is_not_sent():
    signed = Thought(blocks=({"type": "thinking", "thinking": "Hm.", "signature": "s"},))
    said = Message(role="assistant", content="Hi.", thought=signed)
    async with opened() as (server, model):
        for tools in (True, False):
            await model.generate([ask(ASK, said, ASK, tools=tools)])
        by_responses, by_chat = (g.body for g in server.generations)
        said_only = {"role": "assistant", "content": "Hi."}
        assert (by_responses["input"][1], by_chat["messages"][1]) == (said_only, said_only)
