"""`reason tools`: what there is, and one call without a model."""

import json
import shlex
import sys
from pathlib import Path

import pytest

SERVER = Path(__file__).parents[1] / "support" / "mcp_tool_server.py"
MODULE = '''
def add(a: int, b: int = 2) -> int:
    """Add two numbers."""
    return a + b

def boom():
    """Fail."""
    raise ValueError("no luck")

def raw() -> bytes:
    return b"1234"

async def hang():
    import asyncio
    await asyncio.Event().wait()
'''


@pytest.fixture
def module(home, monkeypatch):
    (home / "work" / "cli_tools.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("cli_tools", None)


@pytest.fixture
def server(tmp_path):
    pytest.importorskip("mcp")
    (tmp_path / "log").touch()
    return shlex.join([sys.executable, "-S", str(SERVER), str(tmp_path / "log")])


def test_list_shows_named_tools_with_effects_and_limits(cli, module, server):
    status, out, _ = cli("tools", "list", "--tool", "cli_tools:add", "--mcp", server)
    assert status == 0
    rows = [line.split()[:4] for line in out.splitlines()[1:]]
    assert rows[:3] == [
        ["add", "write", "60", "20,000"],
        ["look", "read", "60", "20,000"],
        ["change", "write", "60", "20,000"],
    ]
    status, out, _ = cli("tools", "list", "--tool", "cli_tools:add", "--json")
    (row,) = json.loads(out)
    assert row["parameters"]["required"] == ["a"]
    assert row["source"] == "python:cli_tools:add"


def test_list_has_our_own_tools_and_those_of_the_settings(cli, module, server):
    Path("reason.toml").write_text(
        f"[tools]\nuse = ['cli_tools:add']\n[tools.mcp.drill]\ncommand = {json.dumps(server)}\nallow = ['look']\n"
        "[tools.mcp.gone]\ncommand = '/no/such/program'\n"
    )
    status, out, err = cli("tools")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()[1:]][0] == "documents"
    assert [line.split()[0] for line in out.splitlines()[1:]][-2:] == ["add", "look"]
    assert "note: mcp:gone: mcp:gone cannot be used as an MCP server" in err


def test_call_prints_the_result(cli, module, server):
    assert cli("tools", "call", "cli_tools:add", '{"a": 3}')[:2] == (0, "5\n")
    assert cli("tools", "call", "look", '{"x": 1}', "--mcp", server)[:2] == (0, "look 1\n")
    _, out, _ = cli("tools", "call", "cli_tools:add", '{"a": 3}', "--json")
    assert json.loads(out) == {"tool": "cli_tools:add", "text": "5", "is_error": False}


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["cli_tools:add", '{"a": "x"}'], 2, "invalid arguments of add: ['a']: 'x' is not of type 'integer'"),
        (["cli_tools:add", "{"], 2, "invalid arguments of add: it is no JSON"),
        (["cli_tools:add"], 2, "invalid arguments of add: 'a' is a required property"),
        (["ad"], 2, "unknown tool 'ad'"),
        (["cli_tools:boom"], 3, "Error: no luck\n"),
        (["cli_tools:raw"], 3, "Error: the tool returned 4 bytes, not text\n"),
    ],
)
def test_a_call_that_fails_says_why(cli, module, arguments, status, text):
    result = cli("tools", "call", *arguments)
    assert result[0] == status
    assert text in (result[1] if status == 3 else result[2])


def test_a_call_of_a_server_has_its_errors_and_its_time_limit(cli, server):
    assert cli("tools", "call", "fail", "--mcp", server)[:2] == (3, "Error: no such thing\n")
    assert cli("tools", "call", "change", '{"x": 99}', "--mcp", server)[:2] == (
        3,
        f"Error: the connection to mcp:{server} was lost during the call\n",
    )
    Path("reason.toml").write_text(f"[tools.mcp.drill]\ncommand = {json.dumps(server)}\nseconds = 0.05\n")
    status, out, _ = cli("tools", "call", "slow")
    assert (status, out) == (3, "Error: no result within 0.05 seconds\n")
    assert "unknown tool 'lok' (did you mean 'look'" in cli("tools", "call", "lok")[2]
