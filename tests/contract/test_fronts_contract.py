"""What the REST server's fronts send upstream, and how often, with OpenAI's and Anthropic's own clients."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import openai
import pytest
from support.scripted_tools import WEATHER
from support.sidecar_server import Server
from support.wire_sidecar import kind_named, sidecar
from support.wires.server import Fault, WireServer

anthropic = pytest.importorskip("anthropic")

DATA = ["iVBORw0KGgo=", "iVBORw0KGgoA"]
TEXTS = ["Before the first.", "Between the two.", "How many are they?"]
SHEEP = [TEXTS[0], DATA[0], TEXTS[1], DATA[1], TEXTS[2]]
"""Texts and images in their order."""
FRONTS = ("chat", "responses", "messages")


Opened = Callable[..., tuple[WireServer, Server]]


@pytest.fixture(scope="module")
def sidecars(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """The servers of a kind of model, which all tests share; no request has reached them in this test."""
    opened: dict[tuple[Any, ...], tuple[WireServer, Server]] = {}
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        for provider in ("OPENAI", "ANTHROPIC", "GEMINI", "DEEPSEEK"):
            patch.setenv(f"{provider}_API_KEY", "key")

        def servers_of(name: str, **provider: Any) -> tuple[WireServer, Server]:
            key = (name, *provider.items())
            if key not in opened:
                folder = tmp_path_factory.mktemp("sidecar")
                opened[key] = stack.enter_context(sidecar(kind_named(name), folder, **provider))
            upstream, server = opened[key]
            upstream.reset()
            upstream.faults = []
            return upstream, server

        yield servers_of


def ask(url: str, front: str, parts: list[str], **fields: Any) -> Any:
    """A question with the front's own client, which repeats requests as it does by default."""
    if front == "messages":
        with anthropic.Anthropic(base_url=url, api_key="k") as claude:
            blocks = [
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": part}}
                if part in DATA
                else {"type": "text", "text": part}
                for part in parts
            ]
            chat = [{"role": "user", "content": blocks}]
            return claude.messages.create(**{"model": "reason/cot", "max_tokens": 2000, "messages": chat, **fields})
    with openai.OpenAI(base_url=f"{url}/v1", api_key="k") as gpt:
        if front == "responses":
            items: list[Any] = [
                {"type": "input_image", "image_url": f"data:image/png;base64,{part}"}
                if part in DATA
                else {"type": "input_text", "text": part}
                for part in parts
            ]
            turn: Any = {"role": "user", "content": items}
            return gpt.responses.create(**{"model": "reason/cot", "input": [turn], **fields})
        content: list[Any] = [
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{part}"}}
            if part in DATA
            else {"type": "text", "text": part}
            for part in parts
        ]
        message: Any = {"role": "user", "content": content}
        return gpt.chat.completions.create(**{"model": "reason/cot", "messages": [message], **fields})


def in_order(upstream: WireServer, parts: list[str]) -> bool:
    """Whether the request that the provider got has all parts in their order."""
    (sent,) = upstream.generations
    body = json.dumps(sent.body)
    places = [body.find(f'"{part}' if part in TEXTS else f'{part}"') for part in parts]
    return -1 not in places and places == sorted(places)


@pytest.mark.parametrize("name", ["gpt-5.6", "Claude 5", "Gemini 2.5"])
def test_texts_and_images_keep_their_order(name, sidecars):
    upstream, server = sidecars(name)
    for front in FRONTS:
        upstream.reset()
        ask(server.url, front, SHEEP)
        assert upstream.refusals == []
        assert in_order(upstream, SHEEP), (front, upstream.generations[0].body)


@pytest.mark.parametrize("name", ["gpt-5.6", "Claude 5", "Gemini 2.5"])
def test_images_of_tool_results_go_upstream(name, sidecars):
    tool = {"name": WEATHER.name, "description": WEATHER.description, "input_schema": WEATHER.parameters}
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA[0]}}
    uses = [{"type": "tool_use", "id": f"toolu_{city}", "name": "weather", "input": {"city": city}} for city in "ab"]
    results = [
        {"type": "tool_result", "tool_use_id": "toolu_a", "content": [{"type": "text", "text": "See:"}, image]},
        {"type": "tool_result", "tool_use_id": "toolu_b", "content": "24 degrees"},
    ]
    chat = [
        {"role": "user", "content": TEXTS[2]},
        {"role": "assistant", "content": uses},
        {"role": "user", "content": results},
    ]
    upstream, server = sidecars(name)
    ask(server.url, "messages", [], messages=chat, tools=[tool])
    assert upstream.refusals == []
    body = json.dumps(upstream.generations[0].body)
    places = [body.find(part) for part in ("See:", "24 degrees", "Result of weather (toolu_a)", DATA[0])]
    assert -1 not in places
    assert places == sorted(places)


@pytest.mark.parametrize("name", ["Claude 4.5", "Claude 5", "Claude 6"])
def test_adaptive_thinking_and_the_limit_go_upstream(name, sidecars):
    upstream, server = sidecars(name)
    made = ask(server.url, "messages", ["How many?"], thinking={"type": "adaptive"}, max_tokens=6000)
    assert upstream.refusals == []
    (sent,) = upstream.generations
    assert upstream.kind.is_thinking(sent.body)
    assert sent.body["max_tokens"] <= 6000
    assert made.content[-1].type == "text"
    if name == "Claude 4.5":  # later ones hide the text of their thoughts
        assert made.content[0].type == "thinking"


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("name", ["gpt-5-mini", "gpt-5.6", "Claude 4.5", "Gemini 2.5", "DeepSeek V4", "SGLang"])
def test_no_request_may_write_more_than_the_client_allows(name, front, sidecars):
    field = {"chat": "max_completion_tokens", "responses": "max_output_tokens", "messages": "max_tokens"}[front]
    upstream, server = sidecars(name)
    ask(server.url, front, ["How many?"], **{field: 6000})
    (sent,) = upstream.generations
    limits = {**sent.body, **(sent.body.get("generationConfig") or {})}
    names = ("max_tokens", "max_completion_tokens", "max_output_tokens")
    assert 0 < next(limits[name] for name in names if name in limits) <= 6000


def test_a_schema_that_the_model_fails_is_requested_once(sidecars):
    pattern = {"type": "string", "pattern": "^[0-9]+$"}
    schema = {"type": "object", "properties": {"answer": pattern}, "required": ["answer"]}
    form = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}
    upstream, server = sidecars("gpt-5-mini")
    with pytest.raises(openai.UnprocessableEntityError) as failed:
        ask(server.url, "chat", ["How many?"], response_format=form)
    assert "'The answer is 12.' does not match '^[0-9]+$'" in failed.value.message
    assert len(upstream.generations) == 1 + 3  # the answer, and the attempts at its JSON
    upstream.reset()
    with pytest.raises(anthropic.UnprocessableEntityError) as refused:
        ask(server.url, "messages", ["How?"], output_config={"format": {"type": "json_schema", "schema": schema}})
    assert "does not match" in refused.value.message
    assert len(upstream.generations) == 1 + 3


HTML = "<html><body><h1>It works!</h1></body></html>"


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize(
    ("fault", "status", "calls"),
    [
        (Fault(400), 400, 1),
        (Fault(401), 424, 1),
        (Fault(403), 424, 1),
        (Fault(404), 424, 1),
        (Fault(404, page=HTML), 424, 1),
        # after the server's own retries, of which there are none here
        (Fault(500), 502, 1),
        (Fault(500, page=HTML), 502, 1),
        (Fault(200, page=HTML), 502, 1),
    ],
    ids=lambda value: str(getattr(value, "status", value)),
)
@pytest.mark.parametrize("name", ["gpt-5-mini", "Claude 5"])
def test_clients_do_not_repeat_a_permanent_error(name, fault, status, calls, front, sidecars):
    retries = 0 if status == 502 else 6
    upstream, server = sidecars(name, max_retries=retries)
    upstream.faults = [fault] * 20
    with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as failed:
        ask(server.url, front, ["How many?"])
    assert failed.value.status_code == status
    assert len(upstream.generations) == calls
