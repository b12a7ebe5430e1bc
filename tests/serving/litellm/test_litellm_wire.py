"""The pieces between a request and the socket: events, parameters, responses that refuse."""

from __future__ import annotations

import asyncio
import json
from zipimport import ZipImportError

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import BackendError, InvalidResponse
from reason.core.messages import Prompt, Request, SamplingParams
from reason.core.settings import ProviderSettings, Settings
from reason.serving.litellm.errors import ContextExceeded, ErrorResponse, classify_error
from reason.serving.litellm.providers import Target, find_target
from reason.serving.litellm.requests import openai_body
from reason.serving.litellm.transport import EventParser, HttpClient

VALUES = st.lists(st.dictionaries(st.text(max_size=3), st.one_of(st.text(), st.integers(), st.none())), max_size=6)


@given(VALUES, st.sampled_from(["\n", "\r\n"]), st.lists(st.integers(1, 40)))
def test_events_do_not_depend_on_chunk_boundaries(values, end, cuts):
    text = f": a comment{end}{end}"
    for value in values:
        text += f"event: x{end}data: {json.dumps(value, ensure_ascii=False)}{end}{end}"
    whole = f"{text}data: [DONE]{end}{end}".encode()
    reader, found, rest = EventParser(), [], whole
    for cut in cuts:
        found += reader.feed(rest[:cut]) if rest[:cut] else []
        rest = rest[cut:]
    found += reader.feed(rest) if rest else []
    assert found + reader.end() == values
    assert reader.done


def test_an_event_of_several_lines_and_one_without_an_end():
    reader = EventParser()
    assert reader.feed(b'data: {"a":\ndata: 1}\n\ndata:{"b": 2}') == [{"a": 1}]
    assert not reader.done
    assert reader.end() == [{"b": 2}]
    assert reader.end() == []


def test_data_after_done_is_ignored_and_a_non_object_is_a_bad_response():
    assert EventParser().feed(b'data: {"a": 1}\n\ndata: [DONE]\n\ndata: {"b": 2}\n\n') == [{"a": 1}]
    with pytest.raises(InvalidResponse):
        EventParser().feed(b"data: [1]\n\n")
    with pytest.raises(ValueError, match="key must be a string"):
        EventParser().feed(b"data: {broken\n\n")


BASE = "http://127.0.0.1:9/v1"
REQUEST = Request(prompt=Prompt.user("colour?"), sampling=SamplingParams(max_tokens=20, seed=1))


def target_of(name: str, base: str | None = BASE) -> Target:
    return find_target(name, Settings(providers={name.partition("/")[0]: ProviderSettings(api_base=base)}))


@pytest.mark.parametrize(
    ("name", "base", "limit"),
    [
        ("openai/gpt-5-mini", None, "max_completion_tokens"),
        ("openai/gpt-5-mini", BASE, "max_completion_tokens"),
        ("openai/o3", BASE, "max_completion_tokens"),
        ("openai/gpt-4o", None, "max_completion_tokens"),
        ("openai/gpt-4o", BASE, "max_tokens"),
        ("openai/gpt-oss-20b", BASE, "max_tokens"),
        ("hosted_vllm/qwen3-8b", BASE, "max_tokens"),
    ],
)
def test_the_limit_of_tokens_has_the_name_that_the_server_knows(keys, name, base, limit):
    body = {"messages": [{"role": "user", "content": "?"}], "seed": 1, "top_k": 3}
    given, target = {**body, "max_tokens": 7}, target_of(name, base)
    assert openai_body(given, target) == {"model": target.served, limit: 7, **body}
    assert given["max_tokens"] == 7


async def test_pages_of_a_server_are_read_with_the_key_and_the_headers_of_its_settings(monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    monkeypatch.setenv("OPENAI_ORG_ID", "org")
    seen = []

    async def answer(reader, writer):
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        status = b"200 OK" if b"/models" in seen[-1] else b"404 Not Found"
        page = b'{"data": []}' if b"/models" in seen[-1] else b'{"error": {"message": "no such page", "code": "gone"}}'
        writer.write(b"HTTP/1.1 %s\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (status, len(page), page))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    own = ProviderSettings(api_base=base, api_key_env="MY_KEY", headers={"X-Team": "a"})
    client = HttpClient(find_target("openai/m", Settings(providers={"openai": own})))
    try:
        assert await client.get_json("/models") == {"data": []}
        with pytest.raises(ErrorResponse, match="no such page") as caught:
            await client.post_json("/other", {"a": 1})
    finally:
        await client.aclose()
        server.close()
    assert (caught.value.status_code, caught.value.body["code"]) == (404, "gone")
    for head in seen:
        assert b"Authorization: Bearer secret\r\n" in head
        assert b"OpenAI-Organization: org\r\n" in head
        assert b"X-Team: a\r\n" in head


@pytest.mark.parametrize(
    ("status", "body", "is_context"),
    [
        (400, {"code": "context_length_exceeded", "message": "Too much."}, True),
        (400, {"message": "This model's maximum context length is 8192 tokens."}, True),
        (400, {"message": "the request exceeds the available context size, try increasing it"}, True),
        (413, {"message": "Input is too long for this model."}, True),
        (400, {"message": "temperature must be at most 2"}, False),
        (500, {"message": "the context window could not be allocated"}, False),
    ],
)
def test_servers_say_in_their_words_that_a_prompt_is_too_long(status, body, is_context):
    error = ErrorResponse(body["message"], status, {}, body)
    fault = classify_error(error, target_of("openai/m"))
    assert isinstance(fault.error, ContextExceeded) == is_context


def test_an_unknown_error_of_a_library_is_one_of_the_backend_and_not_retried():
    fault = classify_error(ZipImportError("odd"), target_of("openai/m"))
    assert (type(fault.error), fault.retryable, fault.fatal) == (BackendError, False, False)
    assert "failed: odd" in str(fault.error)


async def test_a_bug_of_ours_is_raised_at_once_and_no_malformed_response(opened, monkeypatch):
    async with opened() as (server, model):
        monkeypatch.setattr("reason.serving.servers.model.server_chat_body", lambda *_: 1 + "a")
        with pytest.raises(TypeError, match="unsupported operand"):
            await model.generate([REQUEST])
        assert server.count == 0


async def test_connections_are_reused_also_after_an_error_response(opened):
    async with opened(pause_s=0.0, fault={3: "500"}.get) as (server, model):

        def kept() -> int:
            return sum(map(len, model.wire.client._sessions.get().connector._conns.values()))

        await model.generate([REQUEST])
        before = kept()  # opening the model has left some
        for _ in range(5):
            [[made]] = await model.generate([REQUEST])
            assert made.ok
        assert kept() == before > 0
        assert server.count == 7
