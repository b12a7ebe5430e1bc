"""An upstream server that cuts its stream: what clients see, how often it is asked, and what is counted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator

import httpx
import pytest
from reason.core.settings import Settings
from support.chats import user
from support.fault_server import FaultServer
from support.scripted_model import ScriptedModel, replies
from support.sidecar_server import Server, serving

SAID = "The answer is 42."


@contextlib.contextmanager
def upstream(server: FaultServer) -> Iterator[str]:
    """The address of a fault server that runs in a thread of its own."""
    address: list[str] = []
    started, stopped = threading.Event(), threading.Event()

    async def run() -> None:
        async with server.run() as base:
            address.append(base)
            started.set()
            await asyncio.to_thread(stopped.wait)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        assert started.wait(30)
        yield address[0]
    finally:
        stopped.set()
        thread.join(30)


@pytest.fixture(params=["openai", "hosted_vllm"])
def provider(request):
    """A server that continues no prefix, and one that does."""
    return request.param


@pytest.fixture
def model(provider):
    return FaultServer(ScriptedModel(replies(SAID)), vllm=provider == "hosted_vllm")


@pytest.fixture
def server(tmp_path, provider, model) -> Iterator[Server]:
    with upstream(model) as base:
        settings = Settings(
            model=f"{provider}/small",
            providers={provider: {"api_base": base}},
            store=tmp_path / "runs.sqlite3",
            cache_dir=tmp_path / "cache",
            serve={"auth": False, "drain_timeout_s": 0.0},
        )
        with serving(settings) as running:
            assert chat(running)["choices"][0]["message"]["content"] == SAID  # the model is loaded
            model.count = 0
            yield running


def cut(model: FaultServer) -> None:
    """Cut the next response after five pieces."""
    model.fault = lambda n: "cut 5" if n == 0 else None


CHAT = {"model": "reason/cot", "messages": [user("?")]}


def chat(server: Server):
    return httpx.post(f"{server.url}/v1/chat/completions", json=CHAT, timeout=60).raise_for_status().json()


def events(server: Server, path: str, **body):
    """The JSON events of a stream, which must be one."""
    with httpx.stream("POST", f"{server.url}/v1/{path}", json={**body, "stream": True}, timeout=60) as reply:
        assert reply.status_code == 200
        lines = [line.removeprefix("data: ") for line in reply.iter_lines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def test_a_chat_stream_is_continued_exactly_or_ends_with_an_error(server, provider, model):
    cut(model)
    told = events(server, "chat/completions", **CHAT, stream_options={"include_usage": True})
    content = "".join(c["delta"].get("content") or "" for chunk in told for c in chunk.get("choices", ()))
    if provider == "hosted_vllm":
        assert (content, model.count) == (SAID, 2)
        assert told[-1]["usage"]["completion_tokens"] == len(SAID) + 1
        return
    assert (SAID[:5].startswith(content), model.count) == (True, 1)
    assert content
    assert told[-1]["error"]["code"] == "backend_unavailable"
    assert all(c["finish_reason"] is None for chunk in told[:-1] for c in chunk["choices"])


def test_a_response_stream_likewise(server, provider, model):
    cut(model)
    told = events(server, "responses", model="reason/cot", input="?")
    if provider == "hosted_vllm":
        assert told[-1]["response"]["output"][-1]["content"][0]["text"] == SAID
    else:
        assert (told[-1]["type"], told[-1]["code"], model.count) == ("error", "backend_unavailable", 1)


def test_a_native_stream_likewise(server, provider, model):
    cut(model)
    told = events(server, "reason", question="?", strategy="cot", text=True)
    text = "".join(event.get("text", "") for event in told if event.get("type") == "text.delta")
    if provider == "hosted_vllm":
        assert (text, told[-1]["type"], model.count) == (SAID, "run.finished", 2)
        return
    assert (SAID.startswith(text), model.count) == (True, 1)
    assert told[-1]["error"]["code"] == "backend_unavailable"


def test_text_that_no_client_sees_may_be_generated_again_and_is_counted(server, provider, model):
    cut(model)
    made = chat(server)
    assert (made["choices"][0]["message"]["content"], model.count) == (SAID, 2)
    # a continued sample is paid once, one that is generated again with what was received before
    lost = 0 if provider == "hosted_vllm" else 5
    assert made["usage"]["completion_tokens"] == len(SAID) + 1 + lost
    assert made["usage"]["completion_tokens_details"]["reasoning_tokens"] == lost


def test_a_model_that_always_breaks_off_is_not_asked_for_long(server, model):
    model.fault = lambda n: "cut 2"
    with pytest.raises(httpx.HTTPStatusError) as failed:
        chat(server)
    assert (failed.value.response.status_code, model.count) == (503, 3)
