"""Trajectories whose shell works in forks of a directory, of which the chosen one's changes are applied."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from reason.agents.loop.records import Decision, ToolCallStore
from reason.agents.reasoner import Reasoner
from reason.core.errors import SandboxUnavailable
from reason.core.events import MemorySink
from reason.reasoning.execution.sandbox import require_sandbox
from support.agent_model import call
from support.injected_models import loaded_models
from support.trajectory_model import TrajectoryModel
from support.write_judge import WriteJudge, reply, verdict

DONE = "The answer is 5."


def sh(command):
    return [call("shell", command=command)]


@pytest.fixture
async def work(tmp_path, settings):
    """The directory of the shell."""
    try:
        await require_sandbox()
    except SandboxUnavailable as e:
        pytest.skip(str(e))
    directory = tmp_path / "work"
    directory.mkdir()
    (directory / "old").write_text("old")
    return directory


@pytest.fixture
def agent(settings, work):
    """Makes a reasoner over a model that makes the given turns in each trajectory, with a shell."""

    @asynccontextmanager
    async def make(scripts, *, gates=None, judge=None, **options):
        models = {"scripted": TrajectoryModel(scripts, gates=gates)}
        given = settings
        if judge is not None:
            models["judge"] = judge
            given = settings.model_copy(update={"judge_model": "judge"})
        options = {"tools": [f"shell:{work}"], "trajectories": len(scripts), **options}
        with loaded_models(models):
            async with Reasoner(settings=given, **options) as reasoner:
                yield reasoner

    return make


def files(work):
    return {path.name: path.read_text() for path in work.iterdir()}


def forks(settings):
    return list((settings.data_dir / "forks").iterdir())


SCRIPTS = [
    [sh("echo a > a; ls"), sh("cat a"), DONE],
    [sh("rm old; echo b > b"), "The answer is 7."],
    [sh("echo c > c"), sh("echo d > d"), DONE],
]


async def test_the_chosen_changes_are_applied_once_they_are_approved_and_no_others(agent, work, settings):
    async with agent(SCRIPTS, approve="writes") as reasoner:
        waiting = await reasoner.aask("Work.", run_id="r")
        assert (waiting.stopped, files(work)) == ("waiting", {"old": "old"})
        (pending,) = waiting.pending
        assert pending.tool == "apply_changes"
        assert json.loads(pending.arguments) == {"changes": ["added b", "removed old"]}
        assert pending.note.splitlines()[:3] == ["b: 0 -> 2 bytes", "@@ -0,0 +1 @@", "+b"]
        answer = await reasoner.aresume("r", decisions={pending.id: Decision(kind="approve")})
        replayed = await reasoner.areplay("r")
        rows = await ToolCallStore(await reasoner.open_store()).list("r")
    assert files(work) == {"b": "b\n"}
    assert (answer.answer, answer.stopped) == ("7", "done")
    assert (replayed.text, replayed.messages, replayed.usage.tool_calls) == (answer.text, answer.messages, 5)
    assert forks(settings) == []
    assert [row.tool for row in rows].count("shell") == answer.usage.tool_calls == 5


async def test_a_link_out_of_the_directory_needs_a_person(agent, work):
    script = [[sh("ln -s /etc/passwd link"), DONE], [sh("ln -s /etc/passwd link"), DONE]]
    async with agent(script, approve="never", trajectories=2) as reasoner:
        answer = await reasoner.aask("Work.", run_id="r")
    assert "leads out of" in answer.text
    assert files(work) == {"old": "old"}


async def test_rejected_changes_are_not_applied_and_the_answer_says_so(agent, work, settings):
    async with agent(SCRIPTS, approve="writes") as reasoner:
        (pending,) = (await reasoner.aask("Work.", run_id="r")).pending
        answer = await reasoner.aresume("r", decisions={pending.id: Decision(kind="reject", reason="keep old")})
        replayed = await reasoner.areplay("r")
    assert (files(work), forks(settings)) == ({"old": "old"}, [])
    assert answer.text == "The changes of the chosen attempt were not applied. Error: the call was rejected: keep old"
    assert (answer.stopped, replayed.text) == ("abstained", answer.text)


async def test_changes_that_somebody_else_would_lose_are_not_applied(agent, work):
    async with agent(SCRIPTS, approve="writes") as reasoner:
        (pending,) = (await reasoner.aask("Work.", run_id="r")).pending
        (work / "old").write_text("new")
        answer = await reasoner.aresume("r", decisions={pending.id: Decision(kind="approve")})
    assert files(work) == {"old": "new"}
    assert "was changed since it was copied: old" in answer.text


async def test_changes_whose_fork_was_removed_are_not_applied(agent, work, settings):
    async with agent(SCRIPTS, approve="writes") as reasoner:
        (pending,) = (await reasoner.aask("Work.", run_id="r")).pending
        for fork in forks(settings):
            (fork / "base.json").unlink()
        answer = await reasoner.aresume("r", decisions={pending.id: Decision(kind="approve")})
    assert files(work) == {"old": "old"}
    assert "they are gone" in answer.text


async def test_the_changes_are_checked_and_not_each_command(agent, work):
    judge = WriteJudge(reply(verdict("Remove old")), reply(verdict(requested=False)))
    async with agent(SCRIPTS, approve="never", check_writes=True, judge=judge) as reasoner:
        answer = await reasoner.aask("Remove old and add b.")
        replayed = await reasoner.areplay(answer.run_id)
        assert (answer.answer, files(work)) == ("7", {"b": "b\n"})
        assert len(judge.prompts) == 1
        (work / "old").write_text("old")
        refused = await reasoner.aask("Look.")
    assert (replayed.text, files(work)) == (answer.text, {"b": "b\n", "old": "old"})
    assert "The changes of the chosen attempt were not applied. Error: the call was rejected" in refused.text


async def test_a_race_kills_the_commands_of_the_others_and_applies_the_winner(agent, work, settings):
    seconds = 10_000 + os.getpid()  # of no other test's
    losing = [sh(f"echo lost > lost; exec sleep {seconds}"), DONE]
    scripts = [[sh("echo won > won"), DONE], *[losing] * 4]
    sink = MemorySink()
    started = asyncio.Event()

    def count(event):
        if sum(e.tool == "shell" for e in sink.of_type("tool.started")) == 5:
            started.set()

    async with agent(scripts, approve="never", select="race", gates={(0, 1): started}) as reasoner:
        answer = await reasoner.aask("Race.", sinks=[sink, count])
        replayed = await reasoner.areplay(answer.run_id)
    assert (answer.answer, files(work), forks(settings)) == ("5", {"old": "old", "won": "won\n"}, [])
    assert answer.usage.tool_calls == 5
    charged = sum(e.tokens for e in sink.of_type("budget.charged"))
    assert answer.usage.completion_tokens == replayed.usage.completion_tokens == charged
    assert f"sleep\0{seconds}".encode() not in b"".join(command_lines())


def command_lines():
    """The commands of all processes."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield file.read_bytes()
