"""Approvals at the terminal, and how tool calls are shown."""

import asyncio
import os
import sys

import pytest
from reason.agents.loop.records import StoredToolCall
from reason.cli.approvals import TerminalApprover
from reason.cli.interrupts import LineReader
from reason.cli.render.tool_calls import ToolLines, call_text
from reason.core.events import RunStarted, ToolFinished, ToolStarted
from reason.core.types import Question


class Typed:
    """A terminal at which these lines are typed; None is Ctrl-D."""

    def __init__(self, *lines):
        self.lines = list(lines)

    async def read(self):
        return self.lines.pop(0)


def pending(tool="delete", arguments='{"path": "a.txt"}', **values):
    call = StoredToolCall(id="c" * 32, turn=0, position=0, tool=tool, effect="write", arguments=arguments, **values)
    return call.pending


async def decided(approver, *lines, **call):
    typed = Typed(*lines)
    approver.attach(typed, approver._paused)
    decision = await approver(pending(**call))
    assert typed.lines == []
    return None if decision is None else (decision.kind, decision.arguments, decision.reason, decision.by)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["y"], ("approve", None, "", "terminal")),
        (["what?", " YES "], ("approve", None, "", "terminal")),
        (["n", "It is needed."], ("reject", None, "It is needed.", "terminal")),
        (["n", None], ("reject", None, "", "terminal")),
        (["e", '{"path": "b.txt"}'], ("edit", '{"path": "b.txt"}', "", "terminal")),
        (["e", "{", "e", "[1]", "w"], None),
        ([None], None),
    ],
)
async def test_a_call_is_approved_edited_rejected_or_left_waiting(lines, expected, capsys):
    assert await decided(TerminalApprover(), *lines) == expected
    shown = capsys.readouterr().err
    assert shown.startswith('delete changes something (write):\n  {\n    "path": "a.txt"\n  }\nApprove? [y]es')


async def test_always_holds_for_the_tool_only(capsys):
    approver = TerminalApprover()
    assert (await decided(approver, "a"))[0] == "approve"
    capsys.readouterr()
    assert (await decided(approver))[0] == "approve"
    assert capsys.readouterr().err == ""
    assert await decided(approver, "w", tool="buy") is None
    assert (await decided(approver, "y", status="started"))[0] == "done"


@pytest.mark.parametrize(("line", "kind"), [("y", "done"), ("no", "failed")])
async def test_the_outcome_of_an_interrupted_call_is_asked_about(line, kind, capsys):
    assert (await decided(TerminalApprover(), line, status="started"))[0] == kind
    assert "was interrupted, and may have taken effect" in capsys.readouterr().err


async def test_a_line_is_read_from_the_terminal_and_a_cancelled_one_is_left(monkeypatch):
    master, slave = os.openpty()
    with os.fdopen(slave) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        order = []
        reader = LineReader(lambda: order.append("suspend"), lambda: order.append("resume"))
        cancelled = asyncio.ensure_future(reader.read())
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        os.write(master, b"yes\n")
        assert await reader.read() == "yes"
        os.write(master, b"\x04")
        assert await reader.read() is None
        assert order == ["suspend", "resume"] * 3
    os.close(master)


def test_calls_and_results_are_lines_on_standard_error(capsys):
    lines = ToolLines()
    lines(ToolStarted(call="c", tool="search", arguments='{"query": "moon", "k": 3}', effect="read", turn=0))
    lines(ToolFinished(call="c", tool="search", text="\nThe Moon\nis far.\x1b[2J", seconds=0.25))
    lines(ToolFinished(call="c", tool="search", text="Error: no moon", is_error=True, is_replayed=True))
    assert capsys.readouterr().err.splitlines() == [
        '→ search(query="moon", k=3)',
        "← search: The Moon (21 characters, 0.2 s)",
        "← search: Error: no moon (14 characters, recorded)",
    ]


def test_the_lines_of_several_trajectories_have_their_number(capsys):
    lines = ToolLines()
    lines(RunStarted(run_id="r", question=Question(text="?"), strategy="cot", models={}, seed=1, trajectories=5))
    lines(ToolStarted(call="c", tool="look", arguments="{}", effect="read", turn=0, trajectory=2))
    lines(ToolFinished(call="c", tool="look", text="found", seconds=0.25, trajectory=2))
    assert capsys.readouterr().err.splitlines() == ["[2/5] → look()", "[2/5] ← look: found (5 characters, 0.2 s)"]


def test_a_call_is_one_short_line():
    assert call_text("f", "no JSON\n") == "f(no JSON )"
    assert call_text("f", '{"x": "' + "y" * 500 + '"}').endswith("…")
