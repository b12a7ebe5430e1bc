"""The server that plays providers' models: what it shows, refuses and counts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from support.wires.kinds import KINDS, Kind
from support.wires.rules import refusal
from support.wires.script import DECOY, QUESTION, text_of
from support.wires.server import WireServer

BY_NAME: Mapping[str, Kind] = {kind.name: kind for kind in KINDS}
ASK = [{"role": "user", "content": QUESTION}]
SCHEMA = {"type": "json_schema", "json_schema": {"schema": {}}}


async def post(name: str, path: str = "/chat/completions", **body: Any) -> tuple[int, Any, WireServer]:
    """Status, and the joined stream by field, or the JSON."""
    server = WireServer(BY_NAME[name])
    async with server.run() as base, httpx.AsyncClient(timeout=60) as client:
        fields = {"model": server.kind.served, "stream": True, "stream_options": {"include_usage": True}, **body}
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
    ("name", "fields", "refused"),
    [
        ("gpt-5-mini", {"temperature": 0.7}, True),
        ("gpt-5-mini", {"top_p": 1.0}, True),
        ("gpt-5-mini", {"logprobs": True}, True),
        ("gpt-5-mini", {"stop": ["\n"]}, True),
        ("gpt-5-mini", {"max_tokens": 10}, True),
        ("gpt-5-mini", {"reasoning_effort": "none"}, True),
        ("gpt-5-mini", {"reasoning_effort": "minimal", "max_completion_tokens": 900, "temperature": 1}, False),
        ("gpt-5.6", {"temperature": 0.0}, True),
        ("gpt-5.6", {"reasoning_effort": "minimal"}, True),
        ("gpt-5.6", {"reasoning_effort": "none", "temperature": 0.7, "logprobs": True}, False),
        ("gpt-oss, parser", {"reasoning_effort": "minimal"}, True),
        ("DeepSeek R1", {"logprobs": True}, True),
        ("DeepSeek R1", {"temperature": 0.7}, False),
        ("DeepSeek V4", {"logprobs": True}, True),
        ("DeepSeek V4", {"response_format": SCHEMA}, True),
        ("DeepSeek V4", {"messages": [*ASK, {"role": "assistant", "content": "The"}]}, True),
        ("DeepSeek V4", {"thinking": {"type": "disabled"}, "logprobs": True}, False),
        ("Claude 4.5", {"temperature": 0.5, "top_p": 0.9}, True),
        ("Claude 4.5", {"temperature": 0.5, "thinking": {"type": "enabled", "budget_tokens": 1024}}, True),
        ("Claude 4.5", {"thinking": {"type": "enabled", "budget_tokens": 1000}}, True),
        ("Claude 4.5", {"thinking": {"type": "enabled", "budget_tokens": 4096}}, True),
        ("Claude 4.5", {"thinking": {"type": "enabled", "budget_tokens": 1024}}, False),
        ("Claude 5", {"temperature": 0.5}, True),
        ("Claude 5", {"thinking": {"type": "enabled", "budget_tokens": 1024}}, True),
        ("Claude 5.5, always", {"thinking": {"type": "disabled"}}, True),
    ],
)
def test_refuses_what_the_provider_refuses(name: str, fields: dict[str, Any], refused: bool) -> None:
    kind = BY_NAME[name]
    path, caps = ("/v1/messages", {"max_tokens": 2048}) if kind.wire == "messages" else ("/v1/chat/completions", {})
    body = {"messages": ASK, **caps, **fields}
    assert (refusal(kind.model, {**body, "path": path, "thinks": kind.is_thinking(body)}) is not None) == refused


async def test_a_refused_request_generates_nothing() -> None:
    status, error, server = await post("gpt-5-mini", messages=ASK, temperature=0.7)
    assert (status, error["error"]["message"], server.tokens) == (400, server.refusals[0], 0)


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


@pytest.mark.parametrize(
    ("fields", "finish", "counted"),
    [({"max_tokens": 20}, "length", (20, 20)), ({"stop": ["\n\n"]}, "stop", None)],
    ids=["cap", "stop string"],
)
async def test_a_thought_that_is_ended_leaves_no_answer(
    fields: dict[str, Any], finish: str, counted: tuple[int, int] | None
) -> None:
    _, reply, server = await post("Qwen3, parser", messages=ASK, **fields)
    assert reply["finish"] == finish
    assert "content" not in reply
    assert reply["usage"]["completion_tokens"] == server.tokens
    assert counted in (None, (server.tokens, server.thinking_tokens))


async def test_token_prompts_continue_an_open_thought() -> None:
    server = WireServer(BY_NAME["Qwen3, parser"])
    async with server.run() as base, httpx.AsyncClient(timeout=60) as client:
        root = base.removesuffix("/v1")
        page = await client.post(f"{root}/tokenize", json={"messages": ASK, "add_generation_prompt": True})
        given = await client.post(f"{root}/tokenize", json={"prompt": "<think>\nFirst.\n\n"})
        ids = page.json()["tokens"] + given.json()["tokens"]
        fields = {"model": server.kind.served, "prompt": ids, "stream": True, "return_token_ids": True}
        response = await client.post(f"{base}/completions", json={**fields, "max_tokens": 500})
    events = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    choices = [c for event in events for c in event["choices"]]
    text = "".join(c["text"] for c in choices)
    assert text.startswith(f"That is {DECOY}.")
    assert "</think>" in text
    assert text.endswith("The answer is 12.")
    assert text_of([i for c in choices for i in c["token_ids"]]).startswith(text)
