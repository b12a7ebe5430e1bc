"""`reason ask` with tools: calls and results on standard error, approvals, runs that wait and are continued."""

import contextlib
import json
import os
import pty
import re
import shlex
import sys
from pathlib import Path

import pytest
from reason.cli import approvals, interrupts
from support.agent_model import AgentModel, call

SERVER = Path(__file__).parents[1] / "support" / "mcp_tool_server.py"
MODULE = '''
from pathlib import Path

def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b

add.effect = "read"

def note(text: str) -> str:
    """Write a note."""
    with Path("notes").open("a") as file:
        file.write(text + "\\n")
    return "written"
'''


@pytest.fixture
def module(home, monkeypatch):
    (home / "work" / "agent_tools.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("agent_tools", None)


@pytest.fixture
def turns(monkeypatch, module):
    """Makes the model take these turns."""

    def install(*made):
        async def load_model(*_):
            return AgentModel(list(made))

        monkeypatch.setattr("reason.agents.reasoner.load_model", load_model)

    return install


def notes():
    return Path("notes").read_text().split() if Path("notes").exists() else []


def test_the_answer_is_on_standard_output_and_calls_on_standard_error(cli, turns):
    turns([call("add", a=2, b=3)], "The answer is 5.")
    status, out, err = cli("ask", "What is 2 + 3?", "--tool", "agent_tools:add")
    assert (status, out) == (0, "5\n")
    assert "→ add(a=2, b=3)\n← add: 5 (1 characters, " in err
    status, out, _ = cli("ask", "What is 2 + 3?", "--tool", "agent_tools:add", "--json")
    assert [m["role"] for m in json.loads(out)["messages"]] == ["assistant", "tool", "assistant"]


def test_a_run_that_waits_is_continued_by_the_command_that_it_prints(cli, turns):
    turns([call("note", text="a")], [call("note", text="b")], "The answer is done.")
    status, out, err = cli("ask", "Write it down.", "--tool", "agent_tools:note", "--approve", "writes")
    assert (status, out, notes()) == (7, "", [])
    assert 'waiting: note(text="a") (write) needs an approval' in err
    command = re.search(r"to continue: reason (.*=approve)", err)[1]
    status, _, err = cli(*shlex.split(command))
    assert (status, notes()) == (7, ["a"])
    rejected = re.search(r"to continue: reason (.*)=approve", err)[1] + "=reject"
    status, out, err = cli(*shlex.split(rejected))
    assert (status, out.strip(), notes()) == (0, "The answer is done.", ["a"])
    assert "← note: Error: the call was rejected" in err


@pytest.mark.parametrize(
    ("options", "status", "text"),
    [
        (["--decide", "x"], 2, "--decide 'x' is no decision"),
        (["--decide", "x=approve"], 2, "unknown pending call 'x'"),
        (["--assume", "perhaps"], 2, "must be done or failed, got perhaps"),
    ],
)
def test_bad_decisions_are_refused(cli, turns, options, status, text):
    turns([call("note", text="a")])
    err = cli("ask", "Write it down.", "--tool", "agent_tools:note", "--approve", "writes")[2]
    run = re.search(r"runs resume (\S+)", err)[1]
    result = cli("runs", "resume", run, *options)
    assert result[0] == status
    assert text in result[2]


def test_calls_are_approved_at_the_terminal(cli, turns, monkeypatch):
    typed = ["e", '{"text": "edited"}', "a"]

    async def read(_):
        return typed.pop(0)

    monkeypatch.setattr(approvals, "can_ask", lambda: True)
    monkeypatch.setattr(interrupts.LineReader, "read", read)
    turns([call("note", text="a")], [call("note", text="b")], [call("note", text="c")], "The answer is done.")
    status, _, err = cli("ask", "Write it down.", "--tool", "agent_tools:note")
    assert (status, notes(), typed) == (0, ["edited", "b", "c"], [])
    assert 'note changes something (write):\n  {\n    "text": "a"\n  }\nApprove?' in err


def test_limits_end_the_loop_with_the_best_answer(cli, turns):
    turns(*[[call("add", a=n, b=1)] for n in range(5)])
    status, _, err = cli("ask", "Count.", "--tool", "agent_tools:add", "--budget", "tool_calls=2")
    assert status == 4
    assert err.count("→ add(") == 2


def test_tools_of_a_server_and_of_the_settings(cli, turns, tmp_path):
    pytest.importorskip("mcp")
    (tmp_path / "log").touch()
    server = shlex.join([sys.executable, "-S", str(SERVER), str(tmp_path / "log")])
    turns([call("look", x=1)], [call("change", x=99)], "The answer is done.")
    status, _, err = cli("ask", "Look.", "--mcp", server, "--approve", "never")
    assert status == 7  # the server died during the write, so nobody knows whether it took effect
    assert "← look: look 1 " in err
    assert "change(x=99) was interrupted, and may have taken effect" in err
    command = re.search(r"to continue: reason (.*) \(or failed\)", err)[1]
    assert command.endswith("--assume done")
    assert cli(*shlex.split(command))[0] == 0
    assert (tmp_path / "log").read_text().count("change 99") == 1
    Path("reason.toml").write_text("[tools]\nuse = ['agent_tools:add']\n")
    turns([call("add", a=2, b=3)], "The answer is 5.")
    assert cli("ask", "What is 2 + 3?")[:2] == (0, "5\n")


PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
import reason.agents.reasoner
from reason.cli.main import main
from support.agent_model import AgentModel, call

async def load_model(*_):
    return AgentModel([[call("note", text="a")], "The answer is done."])

reason.agents.reasoner.load_model = load_model
sys.exit(main(["ask", "Write it down.", "--tool", "agent_tools:note"]))
"""


@pytest.mark.parametrize("no_color", ["", pytest.param("1", marks=pytest.mark.nightly)])
def test_a_line_is_typed_at_a_real_terminal(module, no_color):
    """With and without colour: keys are read only with it, and a typed line must be neither lost nor taken for keys."""
    program = PROGRAM.format(tests=str(Path(__file__).parents[1]))
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ |= {"NO_COLOR": no_color, "TERM": "xterm", "OMP_NUM_THREADS": "1"}
        os.execv(sys.executable, [sys.executable, "-c", program])
    shown = b""
    with contextlib.suppress(OSError):  # the terminal is gone
        while data := os.read(terminal, 1 << 16):
            if b"Approve?" not in shown and b"Approve?" in shown + data:
                os.write(terminal, b"y\n")
            shown += data
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, shown.decode()
    assert notes() == ["a"]
    assert "done" in shown.decode()
