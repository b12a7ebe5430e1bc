"""Thoughts that are returned to the model with the results of its tool calls, on every wire that has such."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from reason.core.messages import Message, Prompt, Request, SamplingParams, ToolCall
from reason.serving.litellm.model import LiteLLMModel
from support.litellm_models import served, turns_of
from support.scripted_tools import WEATHER
from support.wires.kinds import KINDS, OTHER_KINDS, Kind
from support.wires.server import WireServer
from support.wires.stream import SHAPES

pytestmark = pytest.mark.usefixtures("keys")

BY_NAME = {kind.name: kind for kind in (*KINDS, *OTHER_KINDS)}
CALLS = [[("weather", {"city": "Rome"})], [("weather", {"city": "Bern"})]]
ASK = Message(role="user", content="Is it warm?")

Body = Mapping[str, Any]
RETURNED: Mapping[str, tuple[dict[str, Any], Callable[[Body], list[Any]]]] = {
    "Claude 4.5": (
        {"effort": "low"},
        lambda body: [m["content"][0]["thinking"] for m in body["messages"] if m["role"] == "assistant"],
    ),
    "Claude 5": ({}, lambda body: [m["content"][0]["signature"] for m in body["messages"] if m["role"] == "assistant"]),
    "DeepSeek V4": (
        {},
        lambda body: [m["reasoning_content"] for m in body["messages"] if m["role"] == "assistant"],
    ),
    "Gemini 3": (
        {},
        lambda body: [p["thoughtSignature"] for c in body["contents"] for p in c["parts"] if "function_call" in p],
    ),
    "OpenRouter, Claude": (
        {"effort": "low"},
        lambda body: [m["reasoning_details"][0]["text"] for m in body["messages"] if m["role"] == "assistant"],
    ),
    "OpenRouter, Gemini": (
        {},
        lambda body: [m["reasoning_details"][-1]["data"] for m in body["messages"] if m["role"] == "assistant"],
    ),
    "Mistral": (
        {"effort": "high"},
        lambda body: [m["content"][0]["thinking"][0]["text"] for m in body["messages"] if m["role"] == "assistant"],
    ),
}
"""How the model is asked to think, and what of its thoughts is in a later request."""


@asynccontextmanager
async def opened(kind: Kind, **options: Any) -> AsyncIterator[tuple[WireServer, LiteLLMModel]]:
    """A server of a kind, and the model in front of it."""
    server = WireServer(kind, **options)
    async with served(server, kind.model, max_retries=0, probe=False) as model:
        yield server, model


def ask(*messages: Message, **sampling: Any) -> Request:
    prompt = Prompt(messages=messages, tools=(WEATHER,))
    return Request(prompt=prompt, sampling=SamplingParams(**{"max_tokens": 300, "seed": 3, **sampling}))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        pytest.param(name, shape, id=f"{name}-{shape.name}", marks=() if (i + j) % 4 == 0 else pytest.mark.nightly)
        for i, name in enumerate(RETURNED)
        for j, shape in enumerate(SHAPES)
    ],
)
async def test_a_thought_is_returned_with_the_results_of_tools(name, shape):
    sampling, returned = RETURNED[name]
    async with opened(BY_NAME[name], shape=shape, calls=CALLS) as (server, model):
        turns = await turns_of(model, partial(ask, **sampling), ASK)
        assert server.refusals == []
        assert [[(c.name, json.loads(c.arguments)) for c in made.tool_calls] for made in turns] == [*CALLS, []]
        assert turns[-1].text.endswith("The answer is 12.")
        kept = returned(server.generations[-1].body)
        assert len(kept) == len(CALLS)
        assert all(kept)
        if shape.usage not in ("missing", "constant"):
            counts = [(g.choices[0].tokens, g.prompt_tokens) for g in server.generations]
            assert counts == [(made.usage.completion_tokens, made.usage.prompt_tokens) for made in turns]


async def test_deepseek_gets_a_thought_of_a_turn_that_has_none():
    call = ToolCall(name="weather", arguments="{}", id="call_1")
    called = Message(role="assistant", content="", tool_calls=(call,))
    async with opened(BY_NAME["DeepSeek V4"]) as (server, model):
        result = Message(role="tool", content="24", tool_call_id=call.id)
        await model.generate([ask(ASK, called, result)])
        await model.generate([ask(ASK, called, result, effort="none")])
        assert server.refusals == []
        assert [g.body["messages"][1].get("reasoning_content") for g in server.generations] == [" ", None]


async def test_ids_of_another_models_calls_are_put_in_mistrals_form():
    call = ToolCall(name="weather", arguments="{}", id="call_of_another_model")
    called = Message(role="assistant", content="", tool_calls=(call,))
    async with opened(BY_NAME["Mistral"]) as (server, model):
        await model.generate([ask(ASK, called, Message(role="tool", content="24", tool_call_id=call.id))])
        assert server.refusals == []
        _, asked, result = server.generations[0].body["messages"]
        assert asked["tool_calls"][0]["id"] == result["tool_call_id"]
