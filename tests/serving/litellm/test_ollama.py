"""Ollama's models are called at its `/v1` by our client, by the rules of its interface in OpenAI's format."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from reason.core.errors import CapabilityMissing, InvalidResponse, UserError
from reason.core.messages import Prompt, Request, SamplingParams, Tool
from reason.core.settings import ProviderSettings, Settings
from reason.serving.litellm.factory import load_litellm_model
from reason.serving.litellm.providers import find_target
from reason.serving.ollama import ollama_address
from support.wires.kinds import OTHER_KINDS
from support.wires.server import WireServer
from support.wires.stream import Shape

OLLAMA = next(kind for kind in OTHER_KINDS if kind.name == "Ollama")
PLAIN = replace(OLLAMA, model="ollama/llama3.2:latest", thinks="never", shows="never")
LOOKUP = Tool(name="lookup", parameters={"type": "object", "properties": {"name": {"type": "string"}}})


def ask(prompt=None, **sampling) -> Request:
    prompt = prompt or Prompt.user("How many kinds?")
    return Request(prompt=prompt, sampling=SamplingParams(**{"max_tokens": 300, "seed": 3, **sampling}))


@asynccontextmanager
async def opened(server, name=None):
    async with server.run() as address:
        named = f"{name or server.kind.model}@{address}"
        model = await load_litellm_model(named, Settings())
        server.reset()
        try:
            yield model
        finally:
            await model.aclose()


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("", "http://127.0.0.1:11434/v1"),
        ("0.0.0.0", "http://127.0.0.1:11434/v1"),
        (":5000", "http://127.0.0.1:5000/v1"),
        ("box", "http://box:11434/v1"),
        ("box:5000", "http://box:5000/v1"),
        ("box:port", "http://box:11434/v1"),
        ("[::]:5000", "http://[::1]:5000/v1"),
        ("https://ollama.com", "https://ollama.com/v1"),
        ("http://box/ollama/", "http://box/ollama/v1"),
    ],
)
def test_the_address_is_that_of_ollamas_own_variable(monkeypatch, host, address):
    monkeypatch.setenv("OLLAMA_HOST", host)
    assert ollama_address(None) == address
    for name in ("ollama/llama3", "ollama_chat/llama3"):
        target = find_target(name, Settings())
        assert (target.api_base, target.served, target.is_own_server) == (address, "llama3", True)


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_an_address_that_is_named_has_precedence(monkeypatch, suffix):
    monkeypatch.setenv("OLLAMA_HOST", "other")
    monkeypatch.setenv("OLLAMA_API_BASE", f"http://lite{suffix}")
    assert find_target("ollama_chat/llama3", Settings()).api_base == "http://lite/v1"
    own = Settings(providers={"ollama_chat": ProviderSettings(api_base=f"http://set{suffix}")})
    assert find_target("ollama_chat/llama3", own).api_base == "http://set/v1"
    assert find_target(f"ollama/llama3:8b@http://here{suffix}", own).api_base == "http://here/v1"


@pytest.mark.parametrize("name", ["ollama/qwen3:8b", "ollama_chat/qwen3:8b"])
async def test_efforts_reach_it_without_litellm(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "litellm", None)
    server = WireServer(OLLAMA)
    async with opened(server, name) as model:
        for effort, sent in ((None, None), ("none", "none"), ("minimal", "low"), ("medium", "medium"), ("max", "high")):
            [[completion]] = await model.generate([ask(effort=effort)])
            path, body = server.requests[-1]
            assert (path, body.get("reasoning_effort")) == ("/v1/chat/completions", sent)
            assert (completion.thought is None) == (effort == "none")
            thinking = completion.usage.thinking_tokens
            assert abs(thinking - server.generations[-1].choices[0].thinking) <= 4, "the tags are not shown"
            assert completion.usage.completion_tokens == server.generations[-1].choices[0].tokens
    assert server.refusals == []


async def test_a_model_that_does_not_think_is_measured_so():
    server = WireServer(PLAIN)
    async with opened(server) as model:
        assert not model.capabilities.profile.can_think
        assert any("does not support thinking" in (g.refused or "") for g in server.generations) is False
        with pytest.raises(UserError, match="does not think"):
            await model.generate([ask(effort="low")])
        [[completion]] = await model.generate([ask()])
        assert completion.ok


async def test_a_name_without_a_tag_is_the_latest():
    async with opened(WireServer(PLAIN), "ollama/llama3.2") as model:
        assert model.target.served == "llama3.2"


async def test_a_forced_tool_is_refused_since_it_would_be_ignored():
    async with opened(WireServer(OLLAMA, calls=[[("lookup", {"name": "a"})]])) as model:
        prompt = Prompt.user("Look it up.").model_copy(update={"tools": (LOOKUP,)})
        [[completion]] = await model.generate([ask(prompt)])
        assert [(c.name, c.arguments) for c in completion.tool_calls] == [("lookup", '{"name": "a"}')]
        with pytest.raises(CapabilityMissing, match="tool_choice"):
            await model.generate([ask(prompt.model_copy(update={"tool_choice": "required"}))])


async def test_a_thought_before_a_schemas_answer_is_counted_though_the_usage_lacks_it():
    server = WireServer(OLLAMA)
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
    async with opened(server) as model:
        assert model.capabilities.json_schema
        [[completion]] = await model.generate([ask(json_schema=schema)])
        [choice] = server.generations[-1].choices
        assert completion.text == '{"answer": "The answer is 12."}'
        assert choice.thinking > 20
        assert abs(completion.usage.completion_tokens - choice.tokens) <= 4
        assert abs(completion.usage.thinking_tokens - choice.thinking) <= 4


async def test_an_error_in_its_stream_is_a_response_that_breaks_off():
    server = WireServer(OLLAMA)
    async with opened(server) as model:
        server.shape = Shape(breaks="error", after=3)
        with pytest.raises(InvalidResponse, match="broke off"):
            await model.generate([ask(effort="none")])
