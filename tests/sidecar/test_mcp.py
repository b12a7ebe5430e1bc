"""The MCP server with the client of the official SDK, over standard streams and streamable HTTP."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from reason.core.store import open_store
from support.held_model import Held
from support.openai_server import scripted_server
from support.scripted_model import ScriptedModel, replies
from support.waiting import wait_until

mcp = pytest.importorskip("mcp")
httpx2 = pytest.importorskip("httpx2")

TESTS = Path(__file__).parents[1]
SAID = "The answer is 42."
MODES = ["legacy", "auto"]
"""The protocol with a handshake, and the one without, which came after it."""


@pytest.fixture(scope="module")
def models():
    return {
        "plain": ScriptedModel(replies(SAID), name="plain"),
        "torn": ScriptedModel(replies(SAID, "The answer is 43.", weights=[2, 1]), name="torn"),
        "held": Held(replies(SAID), name="held"),
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory, models):
    with scripted_server(tmp_path_factory.mktemp("mcp"), models, serve={"mcp": True}) as running:
        yield running


@pytest.fixture(params=MODES)
def over_http(request, server):
    return lambda: mcp.Client(f"{server.url}/mcp", mode=request.param)


@pytest.fixture(params=MODES)
def over_stdio(request, tmp_path):
    """A client of `reason mcp` in a process of its own."""
    env = {**os.environ, "PYTHONPATH": str(TESTS), "REASON_SERVE__MODELS": '["held"]', "HOME": str(tmp_path)}
    store = str(tmp_path / "runs.sqlite3")
    started = mcp.StdioServerParameters(
        command=sys.executable, args=["-m", "support.scripted_mcp", store], env=env, cwd=str(tmp_path)
    )
    return lambda: mcp.Client(mcp.stdio_client(started), mode=request.param)


def texts(result):
    return [part.text for part in result.content]


async def test_the_tools_are_described(over_http):
    async with over_http() as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert set(tools) == {"ask", "verify"}
    ask = tools["ask"]
    assert ask.input_schema["required"] == ["question"]
    assert {"strategy", "model", "parameters", "budget", "effort", "verify"} <= set(ask.input_schema["properties"])
    assert {"text", "confidence", "run_id", "usage"} <= set(ask.output_schema["properties"])
    assert "question: The question." in ask.description


async def test_ask(over_http):
    progress = []

    async def note(done, total, message):
        progress.append((done, message))

    async with over_http() as client:
        arguments = {"question": "What is 6 * 7?", "strategy": "self-consistency", "parameters": {"n": 3}}
        result = await client.call_tool("ask", arguments, progress_callback=note)
    assert not result.is_error
    assert texts(result) == [SAID]
    answer = result.structured_content
    assert (answer["answer"], answer["confidence"], answer["strategy"]) == ("42", 1.0, "self-consistency")
    assert answer["usage"]["model_calls"] == 1
    assert "Votes: 42 (3)." in [message for _, message in progress]
    assert [done for done, _ in progress] == sorted({done for done, _ in progress})


async def test_verify(over_http):
    async with over_http() as client:
        result = await client.call_tool("verify", {"text": "2 + 2 = 5.", "programs_only": True})
    assert not result.is_error, result
    assert result.structured_content["verification"]["verdict"] == "refuted"
    assert "2 + 2 = 5" in texts(result)[0]


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("ask", {}, "argument question"),
        ("ask", {"question": "?", "strateg": "cot"}, "strateg"),
        ("ask", {"question": "?", "strategy": "cott"}, "did you mean 'cot'"),
        ("ask", {"question": "?", "model": "gpt-5"}, "gpt-5"),
        ("ask", {"question": "?", "parameters": {"temperature": -1}}, "temperature"),
        ("ask", {"question": "?", "strategy": "beam", "parameters": {"width": 4096, "k": 4096}}, "samples"),
        ("verify", {"text": "2 + 2 = 4", "verifiers": ["none"]}, "none"),
    ],
)
async def test_errors_are_results(server, tool, arguments, message):
    async with mcp.Client(f"{server.url}/mcp") as client:
        result = await client.call_tool(tool, arguments)
        assert result.is_error
        assert message in texts(result)[0]
        with pytest.raises(mcp.MCPError, match="unknown tool 'asks'"):
            await client.call_tool("asks", {})


async def stop_while(call, running):
    """Cancel a call when it runs, and wait until nothing does."""

    async def idle():
        return not await running()

    task = asyncio.ensure_future(call)
    await wait_until(running)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await wait_until(idle)


async def test_a_cancelled_request_cancels_its_run(over_http, models):
    async def running():
        return models["held"].running

    async with over_http() as client:
        models["held"].left = 5
        await stop_while(client.call_tool("ask", {"question": "?", "model": "reason/cot:held"}), running)
        assert not (await client.call_tool("ask", {"question": "?"})).is_error


@pytest.mark.nightly
async def test_ask_over_standard_streams(over_stdio):
    progress = []

    async def note(done, total, message):
        progress.append(message)

    async with over_stdio() as client:
        result = await client.call_tool("ask", {"question": "What is 6 * 7?"}, progress_callback=note)
        assert (texts(result), result.structured_content["answer"]) == ([SAID], "42")
        assert progress == ["A sample is finished."]
        refused = await client.call_tool("ask", {"question": "?", "model": "other"})
        assert (refused.is_error, "[model_not_found]" in texts(refused)[0]) == (True, True)


@pytest.mark.nightly
async def test_cancellation_over_standard_streams(over_stdio, tmp_path):
    @asynccontextmanager
    async def opened():
        store = await open_store(tmp_path / "runs.sqlite3")
        try:
            yield store
        finally:
            await store.aclose()

    async def running():
        if not (tmp_path / "runs.sqlite3").exists():
            return False
        async with opened() as store:
            runs = await store.list_runs(1)
        return bool(runs) and runs[0].status == "running"

    async with over_stdio() as client:
        await stop_while(client.call_tool("ask", {"question": "?", "model": "reason/cot:held"}), running)
        assert not (await client.call_tool("ask", {"question": "?"})).is_error
    async with opened() as store:
        assert [run.status for run in await store.list_runs(5)] == ["finished", "interrupted"]


async def test_keys(tmp_path, models):
    serve = {"mcp": True, "auth": True}
    with scripted_server(tmp_path, models, serve=serve) as running:

        async def ask(scope):
            key = running.add_key(scope, tenant=scope)
            async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}) as http:
                streams = mcp.client.streamable_http.streamable_http_client(f"{running.url}/mcp", http_client=http)
                async with mcp.Client(streams) as client:
                    return await client.call_tool("ask", {"question": "?"})

        asked = await ask("ask")
        assert not asked.is_error
        record = running.call(running.run_manager.store.get_run(asked.structured_content["run_id"]))
        assert record.tenant == "ask"
        refused = await ask("read")
        assert (refused.is_error, "[permission_denied]" in texts(refused)[0]) == (True, True)
        async with httpx2.AsyncClient() as http:
            assert (await http.post(f"{running.url}/mcp", json={})).status_code == 401
            assert (await http.get(f"{running.url}/mcp")).status_code == 401
