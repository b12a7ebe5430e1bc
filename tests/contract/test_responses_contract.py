"""Three turns of tools with models whose tools only OpenAI's Responses API takes, by the SDK and the REST server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import openai
import pytest
from reason.agents.reasoner import Reasoner
from reason.core.messages import Message
from reason.core.types import Answer, Question
from support.scripted_tools import WEATHER
from support.thinking_cells import CALLS
from support.wire_sidecar import kind_named, played, sidecar
from support.wires.kinds import Kind
from support.wires.server import WireServer

NAMES = ("gpt-5.6", "GPT-7")
CITIES = ["Rome", "Oslo", "Bern"]
QUESTION = "Where is it warm?"
LIMITS = {"max_tokens": 400}
IMAGE = "data:image/png;base64,iVBORw0KGgo="


@pytest.fixture(params=NAMES)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kind:
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    return kind_named(request.param)


def check(server: WireServer, usages: Sequence[tuple[int, int]]) -> None:
    """Nothing was refused, all went to the Responses API, and the tokens are the server's."""
    assert server.refusals == []
    assert {g.path for g in server.generations} == {"/v1/responses"}
    assert list(usages) == [(g.prompt_tokens, g.choices[0].tokens) for g in server.generations]


def turn_of(answer: Answer) -> tuple[Message, ...]:
    results = (Message(role="tool", content="24", tool_call_id=call.id) for call in answer.tool_calls)
    return answer.message, *results


async def test_a_resumed_run_returns_its_reasoning(kind, tmp_path):
    with played(kind, tmp_path, calls=CALLS) as (server, settings):
        async with Reasoner(settings=settings, parameters=LIMITS) as reasoner:
            first = await reasoner.aask(Question(text=QUESTION, tools=(WEATHER,)))
            server.cuts = [10]
            question = Question(text=QUESTION, tools=(WEATHER,), continuation=turn_of(first))
            with pytest.raises(Exception, match="broke off"):
                await reasoner.aask(question, run_id="broken")
        async with Reasoner(settings=settings) as reasoner:
            resumed = await reasoner.aresume("broken")
        assert [json.loads(c.arguments)["city"] for c in resumed.tool_calls] == CITIES[2:]
        assert server.refusals == []
        assert [item["type"] for item in server.generations[-1].body["input"] if "type" in item][0] == "reasoning"


# -- the REST server


def streamed(stream: Any) -> tuple[dict[str, Any], tuple[int, int]]:
    """The message that the chunks of a stream make, and its usage."""
    message: dict[str, Any] = {"role": "assistant", "content": ""}
    usage = (0, 0)
    for chunk in stream:
        if chunk.usage is not None:
            usage = chunk.usage.prompt_tokens, chunk.usage.completion_tokens
        for choice in chunk.choices:
            delta = choice.delta.model_dump(exclude_none=True)
            message["content"] += delta.get("content", "")
            for name in ("tool_calls", "thinking_blocks"):
                message.setdefault(name, []).extend(delta.get(name, ()))
    return {name: value for name, value in message.items() if value}, usage


@pytest.mark.parametrize("stream", [False, True], ids=["complete", "streamed"])
def test_openais_chat(kind, tmp_path, stream):
    with (
        sidecar(kind, tmp_path, calls=CALLS) as (upstream, server),
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="k") as sdk,
    ):
        parts = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": IMAGE}}]
        messages = [{"role": "user", "content": parts if kind.name == "gpt-5.6" else QUESTION}]
        usages, cities = [], []
        while not usages or messages[-1]["role"] == "tool":
            fields = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
            made = sdk.chat.completions.create(
                model="reason/cot",
                messages=messages,
                tools=[WEATHER.as_openai()],
                max_tokens=400,
                **fields,
            )
            if stream:
                message, usage = streamed(made)
            else:
                message = made.choices[0].message.model_dump(exclude_none=True)
                usage = made.usage.prompt_tokens, made.usage.completion_tokens
            usages.append(usage)
            messages.append(message)
            for call in message.get("tool_calls", ()):
                cities.append(json.loads(call["function"]["arguments"])["city"])
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": "24"})
        assert cities == CITIES
        assert messages[-1]["content"].endswith("The answer is 12.")
        check(upstream, usages)


def test_openais_responses(kind, tmp_path):
    with (
        sidecar(kind, tmp_path, calls=CALLS) as (upstream, server),
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="k") as sdk,
    ):
        tool = {"type": "function", "strict": None, **WEATHER.as_openai()["function"]}
        items = [{"role": "user", "content": QUESTION}]
        usages = []
        while not usages or items[-1].get("type") == "function_call_output":
            made = sdk.responses.create(model="reason/cot", input=items, tools=[tool], max_output_tokens=400)
            assert made.usage is not None
            usages.append((made.usage.input_tokens, made.usage.output_tokens))
            items += [item.model_dump(exclude_none=True) for item in made.output]
            calls = [item for item in made.output if item.type == "function_call"]
            items += [{"type": "function_call_output", "call_id": call.call_id, "output": "24"} for call in calls]
        assert made.output_text.endswith("The answer is 12.")
        check(upstream, usages)


def test_anthropics_messages(kind, tmp_path):
    anthropic = pytest.importorskip("anthropic")
    tool = {"name": WEATHER.name, "description": WEATHER.description, "input_schema": WEATHER.parameters}
    with (
        sidecar(kind, tmp_path, calls=CALLS) as (upstream, server),
        anthropic.Anthropic(base_url=server.url, api_key="k") as sdk,
    ):
        messages = [{"role": "user", "content": QUESTION}]
        usages = []
        while len(messages) % 2:
            made = sdk.messages.create(model="reason/cot", messages=messages, tools=[tool], max_tokens=400)
            usages.append((made.usage.input_tokens, made.usage.output_tokens))
            messages.append({"role": "assistant", "content": [block.to_dict() for block in made.content]})
            uses = [block for block in made.content if block.type == "tool_use"]
            if uses:
                results = [{"type": "tool_result", "tool_use_id": use.id, "content": "24"} for use in uses]
                messages.append({"role": "user", "content": results})
        assert made.content[-1].text.endswith("The answer is 12.")
        check(upstream, usages)


@pytest.mark.parametrize("kind", ["gpt-5.6"], indirect=True)  # of an unknown model nobody knows that it has schemas
def test_a_schema_after_tools(kind, tmp_path):
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
    form = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}
    with (
        sidecar(kind, tmp_path, calls=CALLS) as (upstream, server),
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="k") as sdk,
    ):
        upstream.calls = ()
        made = sdk.chat.completions.create(
            model="reason/cot",
            messages=[{"role": "user", "content": QUESTION}],
            tools=[WEATHER.as_openai()],
            response_format=form,
            max_tokens=400,
        )
        assert json.loads(made.choices[0].message.content or "")["answer"]
        assert upstream.refusals == []
        assert made.usage is not None
        assert made.usage.completion_tokens == upstream.tokens
