"""Counts of prompts: by tokenizer, by Anthropic, by an estimate."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from reason.core.messages import Attachment, Message, Prompt, ToolCall
from reason.core.settings import Settings
from reason.serving.factory import load_model
from reason.serving.token_counts import ATTACHMENT_TOKENS, TokenCounter, estimated_tokens
from support.scripted_model import ScriptedModel, echoing
from support.scripted_tools import WEATHER
from support.wire_sidecar import kind_named, sidecar
from support.wires.server import COUNT_PAGE, Fault, WireServer

CALL = ToolCall(name="weather", arguments='{"city": "Rome"}', id="toolu_1")
CHAT = Prompt(
    messages=(
        Message(role="system", content="Be brief."),
        Message(role="user", content="Where is it warm?"),
        Message(role="assistant", tool_calls=(CALL,)),
        Message(role="tool", content="24", tool_call_id="toolu_1", name="weather"),
    ),
    tools=(WEATHER,),
)


@asynccontextmanager
async def loaded(name: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[WireServer, object]]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    kind = kind_named(name)
    server = WireServer(kind)
    async with server.run() as address:
        own = {"api_base": kind.api_base(address), "max_retries": 0}
        model = await load_model(kind.model, Settings(model=kind.model, providers={kind.model: own}))
        server.reset()
        try:
            yield server, model
        finally:
            await model.aclose()


def pages(server: WireServer, path: str) -> int:
    return sum(one == path for one, _ in server.requests)


async def test_claude_is_counted_by_anthropic_once(monkeypatch):
    async with loaded("Claude 4.5", monkeypatch) as (server, model):
        counter = TokenCounter()
        count = await counter.count(model, CHAT)
        assert (count.method, count.error) == ("provider", "")
        assert await counter.count(model, CHAT) == count
        assert pages(server, COUNT_PAGE) == 1
        longer = CHAT.model_copy(update={"messages": (*CHAT.messages, Message(role="user", content="And then?"))})
        assert (await counter.count(model, longer)).tokens > count.tokens
        assert pages(server, COUNT_PAGE) == 2
        assert server.generations == []


async def test_an_error_of_anthropic_leaves_an_estimate_that_is_not_kept(monkeypatch):
    async with loaded("Claude 4.5", monkeypatch) as (server, model):
        server.faults = [Fault(500)]
        counter = TokenCounter()
        count = await counter.count(model, CHAT)
        assert (count.tokens, count.method) == (estimated_tokens(CHAT), "estimate")
        assert "counted no tokens" in count.error
        assert pages(server, COUNT_PAGE) == 1
        assert (await counter.count(model, CHAT)).method == "provider"


async def test_a_vllm_server_counts_by_its_tokenizer(monkeypatch):
    async with loaded("Qwen3, parser", monkeypatch) as (server, model):
        prompt = Prompt.user("Where is it warm?")
        count = await TokenCounter().count(model, prompt)
        assert count.method == "tokenizer"
        assert pages(server, "/tokenize") == 1
        assert count.tokens == len(await model.ids_of(prompt))


async def test_other_providers_are_estimated_without_a_request(monkeypatch):
    async with loaded("gpt-5-mini", monkeypatch) as (server, model):
        assert await TokenCounter().count(model, CHAT) == (estimated_tokens(CHAT), "estimate", "")
        assert server.requests == []


async def test_a_model_in_this_process_counts_itself():
    model = ScriptedModel(echoing("hello"))
    prompt = Prompt.user("Where?")
    assert await TokenCounter().count(model, prompt) == (model.count_tokens(prompt), "tokenizer", "")


def test_an_estimate_counts_images_and_calls_and_not_their_encoding():
    image = Attachment.of(b"\x89PNG\r\n\x1a\n" + bytes(100_000))
    plain = Prompt.user("What is this?")
    seen = Prompt(messages=(Message(role="user", content="What is this?", attachments=(image,)),))
    assert estimated_tokens(seen) == estimated_tokens(plain) + ATTACHMENT_TOKENS
    without = CHAT.model_copy(update={"messages": CHAT.messages[:2]})
    assert estimated_tokens(CHAT) > estimated_tokens(without)


@pytest.fixture
def claude(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[WireServer, str]]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
    with sidecar(kind_named("Claude 4.5"), tmp_path) as (upstream, server):
        yield upstream, server.url


def test_the_messages_front_says_how_it_counted(claude):
    anthropic = pytest.importorskip("anthropic")
    upstream, url = claude
    with anthropic.Anthropic(base_url=url, api_key="k", max_retries=0) as sdk:
        chat = {"model": "reason/cot", "messages": [{"role": "user", "content": "Where is it warm?"}]}
        count = sdk.messages.count_tokens(**chat)
        assert count.reason == {"method": "provider", "error": ""}
        made = upstream.requests[-1]
        assert made[0] == COUNT_PAGE
        upstream.faults = [Fault(529)]
        count = sdk.messages.count_tokens(**chat, system="Be brief.")
        assert count.input_tokens > 0
        assert count.reason == {"method": "estimate", "error": "the model backend counted no tokens"}
