"""A tool of an MCP server as a source: a real server as a program and over a socket, and servers that break."""

import asyncio
import contextlib
import shlex
import sys
from pathlib import Path

import pytest
from reason.core.errors import BackendError, BackendTimeout, BackendUnavailable, UnknownName, UserError
from reason.core.settings import Settings
from reason.reasoning.knowledge import KnowledgeSource
from reason.reasoning.retrieval.sources.client import KnowledgeClient
from reason.reasoning.retrieval.sources.factory import create_knowledge_source
from reason.reasoning.retrieval.sources.mcp import CONNECT_TIMEOUT_S, McpSource, QueryTool, select_tool
from support.waiting import wait_until

pytest.importorskip("mcp")

TESTS = Path(__file__).parents[2]
MOON = ["The Moon is far.", "The Moon is round."]


def command(*arguments):
    """A small server written out, which starts at once."""
    return [sys.executable, "-S", str(TESTS / "support" / "mcp_raw_server.py"), *map(str, arguments)]


def real():
    """A server of the SDK's."""
    return [sys.executable, str(TESTS / "support" / "mcp_sdk_server.py")]


@contextlib.asynccontextmanager
async def opened(server=None, **how):
    source = await McpSource.connect(server or command(), **how)
    try:
        yield source
    finally:
        await source.aclose()


def texts(found):
    return [s.text for s in found]


@contextlib.asynccontextmanager
async def over_a_socket():
    """The same server over streamable HTTP; gives its address."""
    import uvicorn
    from support.mcp_sdk_server import facts_server

    app = facts_server().streamable_http_app()
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    task = asyncio.create_task(server.serve())
    await wait_until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/mcp"
    finally:
        server.should_exit = server.force_exit = True
        await task


async def test_a_program_is_started_its_one_tool_found_and_asked():
    async with opened(real()) as source:
        assert isinstance(source, KnowledgeSource)
        assert (source.kind, source.tool) == ("mcp", QueryTool("lookup", "query", "limit"))
        found = await source.query("the moon and the sun", 2)
        assert texts(found) == MOON
        assert found[0].source_id == f"{source.name}#lookup"
        many = await asyncio.gather(*(source.query(q, 5) for q in ("sun", "moon", "nothing") * 5))
        assert [texts(f) for f in many] == [["The Sun is hot."], MOON, []] * 5
        with pytest.raises(BackendError, match="'lookup' of .* failed: Error executing tool lookup") as raised:
            await source.query("fail", 3)
        assert type(raised.value) is BackendError
        assert "\n" not in raised.value.message
        assert texts(await source.query("moon", 1)) == MOON[:1]
    await source.aclose()
    with pytest.raises(BackendUnavailable, match="closed"):
        await source.query("moon", 1)


async def test_over_a_socket_with_a_named_tool_and_sources():
    async with over_a_socket() as url:
        async with opened(url, tool="structured") as source:
            assert source.tool == QueryTool("structured", "topic", "", "context")
            (found,) = await source.query("A", 3, "B")
            assert (found.text, found.source_id, found.score) == ("A in B", "book, page 5", 0.5)
        async with opened(url) as source:
            assert texts(await source.query("moon", 1)) == MOON[:1]


async def test_text_that_is_json_is_read_and_other_text_is_a_snippet():
    async with over_a_socket() as url, opened(url, tool="plain") as source:
        (found,) = await source.query("json", 3)
        assert (found.text, found.source_id) == ("from JSON", "j")
        (found,) = await source.query("member", 3)
        assert (found.text, found.source_id) == ("a member", "m")
        assert texts(await source.query("odd", 3)) == ["[1, 2"]
        (found,) = await source.query("as it is", 3)
        assert (found.text, found.source_id) == ("as it is", f"{source.name}#plain")
        assert await source.query(" ", 3) == []


async def test_a_server_that_dies_in_the_midst_is_started_again_by_the_next_query(tmp_path):
    async with opened(command("dies", tmp_path / "died")) as source:
        with pytest.raises(BackendUnavailable, match="was lost"):
            await source.query("moon", 3)
        assert texts(await source.query("moon", 3)) == MOON


async def test_one_that_cannot_be_started_again_is_unavailable_each_time(tmp_path):
    async with opened(command("dies", tmp_path / "died")) as source:
        with pytest.raises(BackendUnavailable):
            await source.query("moon", 3)
        source._server._server = command("crash")
        for _ in range(2):
            with pytest.raises(BackendUnavailable, match="cannot be used as an MCP server"):
                await source.query("moon", 3)


async def test_a_hanging_tool_is_left_and_the_session_goes_on(runs):
    async with opened() as source:
        client = KnowledgeClient([source], await runs.run(), timeout_s=0.2)
        assert await client.query(["hang"], 3) == [[]]
        assert client.timeouts == 1
        assert texts(await source.query("moon", 3)) == MOON


@pytest.mark.parametrize(
    ("server", "error", "says"),
    [
        (["/no/such/program"], BackendUnavailable, "cannot be used"),
        (["a\0b"], BackendUnavailable, "cannot be used"),
        (command("crash"), BackendUnavailable, "cannot be used as an MCP server"),
        (command("mute"), BackendTimeout, "did not respond"),
        (command("garbage"), (BackendTimeout, BackendUnavailable), "mcp_raw_server"),
        ("http://127.0.0.1:9/mcp", BackendUnavailable, "is it running"),
    ],
)
async def test_what_is_no_server_is_told(server, error, says, monkeypatch):
    if server[-1] in ("mute", "garbage"):  # they never answer
        monkeypatch.setattr("reason.reasoning.retrieval.sources.mcp.CONNECT_TIMEOUT_S", 0.1)
    with pytest.raises(error, match=says):
        await McpSource.connect(server)
    assert [t for t in asyncio.all_tasks() if t is not asyncio.current_task()] == []


async def test_opening_can_be_cancelled(clock):
    task = asyncio.create_task(McpSource.connect(command("mute")))
    await clock.timer(CONNECT_TIMEOUT_S)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [t for t in asyncio.all_tasks() if t is not asyncio.current_task()] == []


async def test_identities():
    async with opened() as one, opened(tool="shout") as two, opened(name="other") as three:
        assert one.identity == three.identity != two.identity


# -- which tool


def form(required=(), **types):
    return {"properties": {name: {"type": kind} for name, kind in types.items()}, "required": list(required)}


def test_the_tool_is_the_one_that_takes_a_text_under_a_usual_name():
    forms = {
        "add": form(a="integer", b="integer"),
        "write": form(["path", "text"], path="string", text="string"),
        "find": form(["question"], question="string", top_k="integer", context="string"),
    }
    assert select_tool("s", forms, None) == QueryTool("find", "question", "top_k", "context")
    with pytest.raises(UserError, match="takes no text, or has other"):
        select_tool("s", forms, "write")
    with pytest.raises(UnknownName, match=r"did you mean 'find'.*s has add, find, write"):
        select_tool("s", forms, "fin")


def test_several_or_none_must_be_named():
    several = {"a": form(query="string"), "b": form(q="string")}
    with pytest.raises(UserError, match=r"2 tools of s take a text: a, b .*s#TOOL"):
        select_tool("s", several, None)
    assert select_tool("s", several, "b") == QueryTool("b", "q")
    with pytest.raises(UserError, match="no tool of s takes a text: c"):
        select_tool("s", {"c": form(x="string")}, None)
    with pytest.raises(UserError, match="none"):
        select_tool("s", {}, None)


# -- by a string


async def test_strings_of_servers(tmp_path):
    settings = Settings(store=tmp_path / "runs.sqlite3")
    name = f"mcp:{shlex.join(command())}"
    for string, tool in ((name, "lookup"), (f"{name}#shout", "shout")):
        source = await create_knowledge_source(string, settings)
        assert (source.name, source.tool.name) == (string, tool)
        await source.aclose()
    async with over_a_socket() as url:
        source = await create_knowledge_source(f"mcp:{url}#plain", settings)
        assert texts(await source.query("word", 1)) == ["word"]
        await source.aclose()
    with pytest.raises(UnknownName, match="'lockup'.*did you mean 'lookup'"):
        await create_knowledge_source(f"{name}#lockup", settings)
    with pytest.raises(UserError, match="cannot be parsed"):
        await create_knowledge_source("mcp:python 'server", settings)
