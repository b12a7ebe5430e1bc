"""MCP servers as sources of tools: effects, keys, progress, cancellation, large results, servers that die."""

import asyncio
import shlex
import sys
from pathlib import Path

import pytest
from reason.agents.loop.tool import OutcomeUnknown, ToolCallContext, cut, result_of
from reason.core.errors import BackendUnavailable, UnknownName, UserError
from reason.core.settings import Settings
from reason.tools.factory import ToolPool

pytest.importorskip("mcp")

SERVER = Path(__file__).parents[1] / "support" / "mcp_tool_server.py"
CONTEXT = ToolCallContext(run_id="run", intent="i")


@pytest.fixture
async def pool():
    pool = ToolPool()
    yield pool
    await pool.aclose()


@pytest.fixture
def log(tmp_path):
    log = tmp_path / "log"
    log.touch()
    return log


def command(log):
    return shlex.join([sys.executable, "-S", str(SERVER), str(log)])


async def opened(pool, log, **settings):
    servers = {"drill": {"command": command(log), **settings}}
    return {t.name: t for t in await pool.open("mcp:drill", Settings(tools={"mcp": servers}))}


async def test_hints_give_effects_and_the_key_is_not_in_the_schema(pool, log):
    tools = await opened(pool, log)
    assert {n: t.effect for n, t in tools.items()} == {
        "look": "read",
        "change": "write",
        "slow": "idempotent",
        "picture": "read",
        "large": "read",
        "fail": "write",
    }
    assert tools["look"].source == "mcp:drill"
    assert tools["change"].declaration.parameters["properties"] == {"x": {"type": "integer"}}
    assert tools["change"].declaration.parameters["required"] == ["x"]
    result = await tools["change"].call({"x": 1}, CONTEXT)
    assert (result.text, log.read_text()) == ("change 1", "change 1 run:i\n")


async def test_settings_decide_about_effects_limits_and_which_tools_there_are(pool, log):
    settings = {"trust_hints": False, "effects": {"slow": "read"}, "allow": ["look", "slow"], "seconds": 5}
    tools = await opened(pool, log, **settings, prefix="drill_")
    assert {n: t.effect for n, t in tools.items()} == {"drill_look": "write", "drill_slow": "read"}
    assert {t.seconds for t in tools.values()} == {5}
    assert (await tools["drill_look"].call({"x": 1}, CONTEXT)).text == "look 1"


@pytest.mark.parametrize("names", [{"allow": ["lok"]}, {"effects": {"lok": "read"}}])
async def test_a_tool_that_the_server_lacks_is_refused(pool, log, names):
    with pytest.raises(UnknownName, match="unknown tool 'lok'.*did you mean 'look'.*mcp:drill has look"):
        await opened(pool, log, **names)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give either command or url"),
        ({"command": "a", "url": "http://b"}, "give either command or url"),
        ({"comand": "a"}, "unknown .*comand"),
        ({"command": "a", "effects": {"b": "reed"}}, "effects.b = 'reed'"),
        ({"url": "http://127.0.0.1:9", "token_env": "NO_SUCH_TOKEN"}, "NO_SUCH_TOKEN.*is not set"),
        ({"url": "http://user:secret@host"}, "contains a password"),
        ({"command": "a 'b"}, "cannot be parsed"),
    ],
)
async def test_bad_settings_are_refused(pool, settings, message):
    with pytest.raises(UserError, match=message):
        await pool.open("mcp:bad", Settings(tools={"mcp": {"bad": settings}}))


async def test_a_server_that_cannot_be_started_is_named(pool):
    with pytest.raises(BackendUnavailable, match="mcp:/no/such/program cannot be used as an MCP server"):
        await pool.open("mcp:/no/such/program", Settings())


async def test_a_dead_server_is_started_again_for_a_read_and_the_outcome_of_a_write_is_unknown(pool, log):
    tools = await opened(pool, log)
    assert (await tools["look"].call({"x": 99}, CONTEXT)).text == "look 99"
    with pytest.raises(OutcomeUnknown, match="lost during the call"):
        await tools["change"].call({"x": 99}, CONTEXT)
    assert (await tools["look"].call({"x": 1}, CONTEXT)).text == "look 1"
    assert log.read_text().splitlines() == ["look 99", "look 99", "change 99 run:i", "look 1"]


async def test_a_write_after_the_death_of_an_idle_server_is_executed_once(pool, log):
    tools = await opened(pool, log)
    with pytest.raises(OutcomeUnknown):
        await tools["change"].call({"x": 99}, CONTEXT)
    assert (await tools["change"].call({"x": 2}, CONTEXT)).text == "change 2"
    assert log.read_text().count("change 2") == 1


async def test_progress_is_reported_and_cancellation_reaches_the_server(pool, log):
    tools = await opened(pool, log)
    reported = asyncio.Queue()
    context = ToolCallContext(run_id="run", intent="i", progress=reported.put_nowait)
    task = asyncio.ensure_future(tools["slow"].call({}, context))
    assert await reported.get() == "1 of 2"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await tools["look"].call({"x": 3}, CONTEXT)).text == "look 3"
    assert log.read_text().splitlines() == ["slow", "cancelled", "look 3"]


async def test_errors_images_and_a_megabyte_have_clear_results(pool, log):
    tools = await opened(pool, log)
    failed = await tools["fail"].call({}, CONTEXT)
    assert (failed.text, failed.is_error) == ("Error: no such thing", True)
    assert (await tools["picture"].call({}, CONTEXT)).text == "see\n[image/png, not shown]"
    large = result_of(await tools["large"].call({}, CONTEXT))
    assert "980,000 of 1,000,000 characters left out" in cut(large.text, tools["large"].result_chars)


async def test_one_server_is_started_for_all_runs(pool, log):
    first, second = await opened(pool, log), await opened(pool, log)
    await first["look"].call({"x": 1}, CONTEXT)
    await second["look"].call({"x": 2}, CONTEXT)
    assert len(pool._servers.get()) == 1
