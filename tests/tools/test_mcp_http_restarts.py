"""An MCP server over streamable HTTP that is restarted between two calls, and that is killed during one."""

import asyncio
import socket
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import pytest
from reason import Reasoner
from reason.agents.loop.tool import OutcomeUnknown, ToolCallContext
from reason.core.settings import Settings
from reason.tools.factory import ToolPool
from support.agent_model import AgentModel, call
from support.injected_models import loaded_models

pytest.importorskip("mcp")

SERVER = Path(__file__).parents[1] / "support" / "mcp_http_server.py"
CONTEXT = ToolCallContext(run_id="run", intent="i")


class HttpServer:
    """Processes of the server, one after the other, at one address that is kept while none runs."""

    def __init__(self, log, *options):
        self.log, self._options = log, options
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._process = None
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/mcp"

    async def start(self):
        self.stop()
        number = self._socket.fileno()
        self._process = subprocess.Popen(
            [sys.executable, SERVER, str(number), str(self.log), *self._options],
            pass_fds=[number],
            stdout=subprocess.PIPE,
        )
        assert await asyncio.to_thread(self._process.stdout.readline) == b"ready\n"

    def stop(self):
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()

    def close(self):
        self.stop()
        self._socket.close()


@pytest.fixture(params=[(), ("sessions",)], ids=["without sessions", "with sessions"])
async def server(request, tmp_path):
    server = HttpServer(tmp_path / "log", *request.param)
    await server.start()
    yield server
    server.close()


async def test_calls_after_a_restart_reconnect_and_are_executed_once(server):
    async with aclosing(ToolPool()) as pool:
        tools = {tool.name: tool for tool in await pool.open(f"mcp:{server.url}", Settings())}
        assert (await tools["look"].call({"x": 1}, CONTEXT)).text == "look 1"
        await server.start()
        assert (await tools["look"].call({"x": 2}, CONTEXT)).text == "look 2"
        await server.start()
        assert (await tools["change"].call({"x": 3}, CONTEXT)).text == "change 3"
        with pytest.raises(OutcomeUnknown, match="lost during the call"):
            await tools["change"].call({"x": 99}, CONTEXT)
    assert server.log.read_text().splitlines() == ["look 1", "look 2", "change 3", "change 99"]


async def test_a_run_asks_about_a_write_in_flight_and_goes_on_with_the_new_server(server, tmp_path):
    settings = Settings(model="scripted", store=tmp_path / "runs.sqlite3", cache_dir=tmp_path / "cache", seed=5)
    turns = [[call("change", x=99)], [call("look", x=1)], "Done."]
    with loaded_models({"scripted": AgentModel(turns)}):
        async with Reasoner(settings=settings, tools=[f"mcp:{server.url}"], approve="never") as reasoner:
            waiting = await reasoner.aask("Change it.")
            assert [(pending.tool, pending.question) for pending in waiting.pending] == [("change", "outcome")]
            await server.start()
            answer = await reasoner.aresume(waiting.run_id, assume="done")
    assert [message.content for message in answer.messages if message.role == "tool"] == [
        "The call was executed; its result is not known.",
        "look 1",
    ]
    assert server.log.read_text().splitlines() == ["change 99", "look 1"]
