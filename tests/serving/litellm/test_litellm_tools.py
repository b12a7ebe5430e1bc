"""Tools through LiteLLM, over our own connection and over its: what is sent, and calls out of what is streamed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from reason.core.errors import CapabilityMissing, UserError
from reason.core.messages import Message, Prompt, Request, SamplingParams, Tool, ToolCall
from reason.core.settings import Settings
from reason.serving.litellm.model import LiteLLMModel
from reason.serving.litellm.providers import find_target
from reason.serving.servers.requests import salt_fields
from support.litellm_models import served
from support.scripted_model import ScriptedModel, replies
from support.scripted_tools import WEATHER
from support.tool_server import SAID, ToolServer

pytestmark = pytest.mark.usefixtures("keys")
SALT = "acme"
ASKED = Prompt.user("Is it warm in Rome?").model_copy(update={"tools": (WEATHER,)})


@asynccontextmanager
async def opened(
    provider: str = "hosted_vllm", own: dict[str, str] | None = None, **options: Any
) -> AsyncIterator[tuple[ToolServer, LiteLLMModel]]:
    """A tool server and ours in front of it."""
    server = ToolServer(ScriptedModel(replies("Warm.")), vllm=provider == "hosted_vllm", **options)
    async with served(server, f"{provider}/small", **{"retry_s": 0.0, **(own or {})}) as model:
        server.requests.clear()
        yield server, model


def ask(prompt: Prompt = ASKED, **sampling: Any) -> Request:
    return Request(prompt=prompt, sampling=SamplingParams(max_tokens=20, seed=3, logprobs=False, **sampling))


@pytest.mark.parametrize("provider", ["hosted_vllm", "deepseek"])
async def test_calls_are_assembled_from_deltas(provider):
    async with opened(provider) as (server, model):
        assert model.capabilities.tools
        heard = []
        [made] = await model.generate([ask(n=2)], heard.append)
        for completion in made:
            assert (completion.text, completion.finish_reason) == (SAID, "stop")
            assert completion.tool_calls == (
                ToolCall(name="weather", arguments='{"city": "Rome"}', id="call-0"),
                ToolCall(name="weather", arguments="{}", id="call-1"),
            )
            own = [c for c in heard if c.sample_index == completion.sample_index]
            assert "".join(c.text for c in own) == SAID
            assert [c.completion for c in own if c.completion is not None] == [completion]
        assert sum(c.usage.completion_tokens for c in made) == 8 * len(server.requests)
        path, body = server.requests[0]
        assert path == "/v1/chat/completions"
        assert body["tools"] == [WEATHER.as_openai()]
        assert body["tool_choice"] == "auto"


@pytest.mark.parametrize("provider", ["hosted_vllm", "deepseek"])
async def test_turns_of_tools_are_sent_as_they_are(provider):
    call = ToolCall(name="weather", arguments='{"city": "Rome"}', id="call-0")
    said = Message(role="assistant", tool_calls=(call,))
    gave = Message(role="tool", content="24 degrees", tool_call_id="call-0")
    tools = (WEATHER, Tool(name="look_up", strict=True))
    prompt = Prompt(messages=(*ASKED.messages, said, gave), tools=tools, tool_choice="look_up")
    async with opened(provider) as (server, model):
        [[made]] = await model.generate([ask(prompt)])
        assert (made.text, made.tool_calls) == ("Warm.", ())
        [(_, body)] = server.requests
        asked, called, result = body["messages"]
        assert asked == {"role": "user", "content": "Is it warm in Rome?"}
        assert (called["role"], called.get("content") or None) == ("assistant", None)
        assert [{k: c[k] for k in ("id", "type", "function")} for c in called["tool_calls"]] == [call.as_openai()]
        assert (result["role"], result["content"], result["tool_call_id"]) == ("tool", "24 degrees", "call-0")
        assert body["tool_choice"] == {"type": "function", "function": {"name": "look_up"}}
        assert [t["function"]["name"] for t in body["tools"]] == ["weather", "look_up"]


async def test_calls_without_ids_get_stable_ids():
    async with opened(names_calls=False) as (_, model):
        [[made]] = await model.generate([ask()])
        [[again]] = await model.generate([ask()])
        ids = [c.id for c in made.tool_calls]
        assert [c.id for c in again.tool_calls] == ids
        assert len(set(ids)) == 2
        assert all(i.startswith("call_") for i in ids)


@pytest.mark.parametrize("how", [{"blind": True}, {"refuses": True}])
async def test_missing_tool_support_is_detected(how):
    async with opened(**how) as (server, model):
        assert not model.capabilities.tools
        with pytest.raises(CapabilityMissing, match="tools"):
            await model.generate([ask()])
        assert server.requests == []


async def test_tools_cannot_be_sent_as_tokens():
    async with opened() as (_, model):
        with pytest.raises(CapabilityMissing, match="tools with raw tokens"):
            await model.generate([ask(ASKED.with_prefix((87,)))])
        assert len(await model.ids_of(ASKED)) > len(await model.ids_of(Prompt.user("Is it warm in Rome?")))


async def test_run_salt_is_sent_to_vllm_servers_only_and_combined():
    salted = Prompt.user("Is it warm?").with_cache_salt(SALT)
    async with opened() as (server, model):
        await model.generate([ask(salted), ask(salted.with_prefix((87,)))])
        await model.score(salted, ["Warm"])
        await model.generate([ask(Prompt.user("Is it warm?"))])
        sent = [b for path, b in server.requests if path in ("/v1/chat/completions", "/v1/completions")]
        assert [b.get("cache_salt") for b in sent] == [SALT, SALT, SALT, None]
    async with opened(own={"cache_salt": "house"}) as (server, model):
        await model.generate([ask(salted)])
        await model.generate([ask(Prompt.user("Is it warm?"))])
        both, own = (b["cache_salt"] for _, b in server.requests)
        assert own == "house"
        assert both not in ("house", SALT, "")
        assert [salt_fields(model.target, salt)["cache_salt"] == both for salt in (SALT, "other")] == [True, False]
    async with opened("openai") as (server, model):
        await model.generate([ask(salted)])
        assert all("cache_salt" not in json.dumps(body) for _, body in server.requests)


def test_salt_setting_is_rejected_for_other_providers():
    own = Settings(providers={"openai": {"api_base": "http://127.0.0.1:9/v1", "cache_salt": "x"}})
    with pytest.raises(UserError, match="cache_salt"):
        find_target("openai/small", own)
