"""Servers of others, from PyPI and npm: their hints give effects, their tools are called, one is killed."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
from reason.agents.loop.tool import ToolCallContext
from reason.core.settings import Settings
from reason.tools.factory import ToolPool

pytest.importorskip("mcp")
pytestmark = pytest.mark.nightly

CONTEXT = ToolCallContext(run_id="run", intent="i")
TIME_PACKAGES = ("mcp-server-time", "tzlocal")
FILES_PACKAGE = "@modelcontextprotocol/server-filesystem"


def installed(command, directory):
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=240)
    if done.returncode:
        pytest.skip(f"{shlex.join(map(str, command))}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")


@pytest.fixture(scope="module")
def time_server(tmp_path_factory):
    site = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps"]  # `mcp` is that of this environment
    installed([*pip, "--target", site, *TIME_PACKAGES], site)
    start = f"import sys; sys.path.append({str(site)!r}); from mcp_server_time import main; main()"
    return {"command": [sys.executable, "-c", start]}


@pytest.fixture(scope="module")
def files_server(tmp_path_factory):
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    packages = tmp_path_factory.mktemp("packages")
    installed(["npm", "install", "--silent", FILES_PACKAGE], packages)
    return str(packages / "node_modules" / ".bin" / "mcp-server-filesystem")


async def opened(pool, server):
    return {t.name: t for t in await pool.open("mcp:real", Settings(tools={"mcp": {"real": server}}))}


async def test_the_time_server_reads(time_server):
    pool = ToolPool()
    try:
        tools = await opened(pool, time_server)
        assert {n: t.effect for n, t in tools.items()} == {"get_current_time": "read", "convert_time": "read"}
        arguments = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}
        assert tools["convert_time"].fault(json.dumps(arguments)) == ""
        result = await tools["convert_time"].call(arguments, CONTEXT)
        assert json.loads(result.text)["target"]["datetime"].endswith("T21:00:00+09:00")
        assert (await tools["convert_time"].call({**arguments, "time": "noon"}, CONTEXT)).is_error
    finally:
        await pool.aclose()


async def test_the_file_server_reads_and_writes_in_its_directory_and_is_started_again(files_server, tmp_path):
    pool = ToolPool()
    try:
        tools = await opened(pool, {"command": [files_server, str(tmp_path)]})
        effects = [tools[name].effect for name in ("read_text_file", "write_file", "edit_file", "move_file")]
        assert effects == ["read", "idempotent", "write", "write"]
        path = str(tmp_path / "a.txt")
        await tools["write_file"].call({"path": path, "content": "hello"}, CONTEXT)
        assert (tmp_path / "a.txt").read_text() == "hello"
        assert (await tools["read_text_file"].call({"path": path}, CONTEXT)).text == "hello"
        refused = await tools["read_text_file"].call({"path": "/etc/passwd"}, CONTEXT)
        assert refused.is_error
        assert "Access denied" in refused.text
        processes = subprocess.run(["pgrep", "-f", f"{files_server} {tmp_path}"], capture_output=True, text=True)
        for process in processes.stdout.split():
            os.kill(int(process), signal.SIGKILL)
        assert (await tools["read_text_file"].call({"path": path}, CONTEXT)).text == "hello"
    finally:
        await pool.aclose()
