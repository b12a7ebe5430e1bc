"""`shell`: commands that can change one directory."""

import asyncio
import os

import pytest
from reason.agents.loop.tool import ToolCallContext
from reason.core.errors import SandboxUnavailable, UserError
from reason.worlds import directory
from reason.worlds.directory import shell_world

CONTEXT = ToolCallContext(run_id="run", intent="i")


@pytest.fixture
async def run(tmp_path):
    (tmp_path / "work").mkdir()
    try:
        world = await shell_world(str(tmp_path / "work"), tmp_path / "data")
    except SandboxUnavailable as e:
        pytest.skip(str(e))
    tool = world.tools["shell"]
    assert (tool.effect, tool.concurrency) == ("write", 1)

    async def run(command):
        return await tool.call({"command": command}, CONTEXT)

    return run


async def test_a_command_changes_its_directory_and_nothing_else(run, tmp_path):
    result = await run(
        "echo hi > a.txt; ls; pwd; ls /root /home; cat /etc/passwd; touch /usr/a; touch /tmp/b && ls /tmp/b"
    )
    assert (tmp_path / "work" / "a.txt").read_text() == "hi\n"
    assert result.text.startswith(f"a.txt\n{tmp_path}/work\n")
    assert "cannot access '/root'" in result.text
    assert "/etc/passwd: No such file" in result.text
    assert "'/usr/a': Read-only file system" in result.text
    assert result.text.endswith("/tmp/b\n[exit status 0]")
    assert not result.is_error


async def test_the_exit_status_and_what_is_left_in_the_background(run):
    result = await run("sleep 1000 & echo started; exit 3")
    assert (result.text, result.is_error) == ("started\n[exit status 3]", True)


async def test_too_much_output_and_too_much_time_end_it(run, monkeypatch):
    assert (await run("cat /dev/zero")).text.endswith("[killed after it printed 16,777,216 bytes]")
    monkeypatch.setattr(directory, "SHELL_LIMITS", directory.SHELL_LIMITS.model_copy(update={"wall_seconds": 0.1}))
    assert (await run("echo a; sleep 1000")).text == "a\n[killed after 0.1 seconds]"


async def test_cancelling_kills_everything_that_was_started(run, tmp_path):
    os.mkfifo(tmp_path / "work" / "fifo")
    task = asyncio.ensure_future(run("(echo ready; exec sleep 1000) > fifo & wait"))
    fifo = await asyncio.to_thread(os.open, tmp_path / "work" / "fifo", os.O_RDONLY)
    assert await asyncio.to_thread(os.read, fifo, 10) == b"ready\n"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(os.read, fifo, 10) == b""  # its last writer has ended
    os.close(fifo)


@pytest.mark.parametrize("directory", ["/", "~", "/no/such"])
async def test_directories_that_it_may_not_change_are_refused(directory, tmp_path):
    with pytest.raises(UserError, match="shell may not change all of|is not a directory"):
        await shell_world(directory, tmp_path)
