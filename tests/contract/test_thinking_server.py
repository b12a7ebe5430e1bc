"""The server that plays models that think: what it shows, refuses and counts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from support.thinking_server import DECOY, KINDS, QUESTION, Kind, ThinkingServer, text_of

BY_NAME: Mapping[str, Kind] = {kind.name: kind for kind in KINDS}
ASK = [{"role": "user", "content": QUESTION}]


async def post(name: str, path: str = "/chat/completions", **body: Any) -> tuple[int, Any, ThinkingServer]:
    """Status, and the joined stream by field, or the JSON."""
    server = ThinkingServer(BY_NAME[name])
    async with server.run() as base, httpx.AsyncClient(timeout=60) as client:
        fields = {"model": server.served, "stream": True, "stream_options": {"include_usage": True}, **body}
        response = await client.post(base + path, json=fields)
        if response.headers["content-type"] == "application/json":
            return response.status_code, response.json(), server
        joined: dict[str, Any] = {}
        for line in response.text.splitlines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            joined["usage"] = event.get("usage") or joined.get("usage")
            for choice in event.get("choices") or ():
                for key, text in (choice.get("delta") or {"text": choice.get("text", "")}).items():
                    joined[key] = joined.get(key, "") + text
                joined["finish"] = choice["finish_reason"]
                joined.setdefault("ids", []).extend(choice.get("token_ids") or ())
        return response.status_code, joined, server


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("gpt-5-mini", {"temperature": 0.7}),
        ("gpt-5-mini", {"top_p": 1.0}),
        ("gpt-5-mini", {"logprobs": True}),
        ("gpt-5-mini", {"stop": ["\n"]}),
        ("gpt-5-mini", {"max_tokens": 10}),
        ("gpt-5-mini", {"reasoning_effort": "none"}),
        ("gpt-5.6", {"temperature": 0.0}),
        ("gpt-5.6", {"reasoning_effort": "minimal"}),
        ("gpt-oss, parser", {"reasoning_effort": "minimal"}),
        ("DeepSeek R1", {"logprobs": True}),
        ("DeepSeek V4", {"logprobs": True}),
        ("DeepSeek V4", {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}),
    ],
)
async def test_refuses_what_the_provider_refuses(name: str, fields: dict[str, Any]) -> None:
    status, error, server = await post(name, messages=ASK, **fields)
    assert status == 400
    assert error["error"]["message"] == server.refusals[0]
    assert server.tokens == 0


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("Claude 4.5", {"temperature": 0.5, "top_p": 0.9}),
        ("Claude 4.5", {"temperature": 0.5, "thinking": {"type": "enabled", "budget_tokens": 1024}}),
        ("Claude 4.5", {"thinking": {"type": "enabled", "budget_tokens": 1000}}),
        ("Claude 4.5", {"thinking": {"type": "enabled", "budget_tokens": 4096}}),
        ("Claude 5", {"temperature": 0.5}),
        ("Claude 5", {"thinking": {"type": "enabled", "budget_tokens": 1024}}),
        ("Claude 5.5, always", {"thinking": {"type": "disabled"}}),
    ],
)
async def test_refuses_what_anthropic_refuses(name: str, fields: dict[str, Any]) -> None:
    status, _, server = await post(name, "/messages", messages=ASK, max_tokens=2048, **fields)
    assert status == 400
    assert len(server.refusals) == 1


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("gpt-5-mini", {"reasoning_effort": "minimal", "max_completion_tokens": 900, "temperature": 1}),
        ("gpt-5.6", {"reasoning_effort": "none", "temperature": 0.7, "logprobs": True}),
        ("DeepSeek R1", {"temperature": 0.7}),
        ("DeepSeek V4", {"thinking": {"type": "disabled"}, "logprobs": True}),
    ],
)
async def test_takes_what_the_provider_takes(name: str, fields: dict[str, Any]) -> None:
    status, reply, _ = await post(name, messages=ASK, **fields)
    assert status == 200
    assert reply["content"].endswith("The answer is 12.")
    assert DECOY not in reply["content"]


@pytest.mark.parametrize(
    ("name", "field", "begins"),
    [
        ("Qwen3, parser", "reasoning", "\nLet me think."),
        ("DeepSeek R1", "reasoning_content", "Let me think."),
        ("Qwen3, raw", "content", "<think>\nLet me think."),
        ("R1 distill, template opens", "content", "Let me think."),
        ("gpt-oss, raw harmony", "content", "<|channel|>analysis<|message|>"),
        ("Magistral", "content", "[THINK]"),
    ],
)
async def test_shows_thoughts_where_the_model_does(name: str, field: str, begins: str) -> None:
    _, reply, _ = await post(name, messages=ASK)
    assert reply[field].startswith(begins.strip())
    assert DECOY in reply[field]


async def test_a_thought_that_reaches_the_cap_leaves_no_answer() -> None:
    _, reply, server = await post("Qwen3, parser", messages=ASK, max_tokens=20)
    assert reply["finish"] == "length"
    assert "content" not in reply
    assert (server.tokens, server.thinking_tokens) == (20, 20)
    assert reply["usage"]["completion_tokens"] == 20


async def test_a_stop_string_ends_the_thought_as_on_vllm() -> None:
    _, reply, _ = await post("Qwen3, parser", messages=ASK, stop=["\n\n"])
    assert reply["finish"] == "stop"
    assert "content" not in reply


async def test_token_prompts_continue_an_open_thought() -> None:
    server = ThinkingServer(BY_NAME["Qwen3, parser"])
    async with server.run() as base, httpx.AsyncClient(timeout=60) as client:
        root = base.removesuffix("/v1")
        page = await client.post(f"{root}/tokenize", json={"messages": ASK, "add_generation_prompt": True})
        given = await client.post(f"{root}/tokenize", json={"prompt": "<think>\nFirst.\n\n"})
        ids = page.json()["tokens"] + given.json()["tokens"]
        fields = {"model": server.served, "prompt": ids, "stream": True, "return_token_ids": True, "max_tokens": 500}
        response = await client.post(f"{base}/completions", json=fields)
    events = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    choices = [c for event in events for c in event["choices"]]
    text = "".join(c["text"] for c in choices)
    assert text.startswith(f"That is {DECOY}.")
    assert "</think>" in text
    assert text.endswith("The answer is 12.")
    assert text_of([i for c in choices for i in c["token_ids"]]).startswith(text)
