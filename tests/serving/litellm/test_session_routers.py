"""A router in front of several vLLM servers, which finds the server by the session header."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
from reason.core.messages import LogitsProcessorSpec, Prompt, Request, SamplingParams
from reason.core.settings import ProviderSettings, Settings
from reason.serving.litellm.factory import load_litellm_model
from reason.serving.litellm.model import LiteLLMModel
from support.fault_server import FaultServer
from support.scripted_model import ScriptedModel, replies
from support.session_router import SessionRouter

TEXT = "one two three four"


@asynccontextmanager
async def routed(header: str = "X-Session-ID", **changes: Any) -> AsyncIterator[tuple[list[FaultServer], LiteLLMModel]]:
    """Three servers behind a router, and a model at the router's address; an empty header is vLLM's own router."""
    async with AsyncExitStack() as stack:
        servers = [FaultServer(ScriptedModel(replies(TEXT), context_tokens=10_000)) for _ in range(3)]
        bases = [await stack.enter_async_context(server.run()) for server in servers]
        router = SessionRouter(bases, header).run() if header else vllm_router(bases)
        base = await stack.enter_async_context(router)
        settings = Settings(providers={"hosted_vllm": ProviderSettings(api_base=base, **changes)})
        model = await load_litellm_model("hosted_vllm/small", settings)
        stack.push_async_callback(model.aclose)
        for server in servers:
            server.count = 0
            server.requests.clear()
        yield servers, model


@asynccontextmanager
async def vllm_router(bases: list[str]) -> AsyncIterator[str]:
    """vLLM's own router, where it is installed."""
    program = shutil.which("vllm-router")
    if program is None:
        pytest.skip("vllm-router is not installed: pip install vllm-router, in an environment of its own")
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        port, metrics = one.getsockname()[1], other.getsockname()[1]
    workers = [base.removesuffix("/v1") for base in bases]
    ports = ("--port", str(port), "--prometheus-port", str(metrics))
    process = subprocess.Popen(
        [program, "--policy", "consistent_hash", *ports, "--worker-urls", *workers],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        async with httpx.AsyncClient(timeout=60) as client, asyncio.timeout(30):
            while True:
                with suppress(httpx.TransportError):
                    if (await client.get(f"http://127.0.0.1:{port}/health")).status_code == 200:
                        break
                await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize(
    ("header", "changes"),
    [
        ("x-session-id", {}),
        ("X-User-Id", {"session_header": "X-User-Id"}),
        ("", {}),
    ],
)
async def test_requests_of_a_tree_go_to_one_server(header, changes):
    async with routed(header, **changes) as (servers, model):
        used = []
        for number in range(30):
            before = [server.count for server in servers]
            root = Prompt.user(f"Question {number}", system="Be brief. " * 300)
            for step in range(3):
                prompt = root.with_prefix(" step" * step)
                await model.generate([Request(prompt=prompt, sampling=SamplingParams(max_tokens=20))])
            counts = [server.count - had for server, had in zip(servers, before, strict=True)]
            assert sorted(counts) == [0, 0, 3]
            used.append(counts.index(3))
        assert set(used) == {0, 1, 2}, "a long system prompt does not gather all questions on one server"


@pytest.mark.parametrize("header", ["X-Session-ID", ""])
async def test_the_report_of_a_logits_processor_is_taken_from_the_server_that_has_it(header):
    async with routed(header) as (_, model):
        assert "entropy_probe" in model.capabilities.logits_processors
        for number in range(6):
            sampling = SamplingParams(max_tokens=5, logits_processors=(LogitsProcessorSpec(name="entropy_probe"),))
            [[made]] = await model.generate([Request(prompt=Prompt.user(f"q{number}"), sampling=sampling)])
            assert made.ok, made.failure
            assert made.extras["entropy_probe"]
