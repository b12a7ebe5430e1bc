"""Kills of a run whose trajectories work in forks: the chosen one's changes are applied once and completely."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from reason.agents.loop.records import Decision
from reason.agents.reasoner import Reasoner
from reason.core.errors import SandboxUnavailable, UnknownName
from reason.core.settings import Settings
from reason.core.types import Answer
from reason.reasoning.execution.sandbox import require_sandbox
from reason.worlds.directory import DirectoryWorld
from support.agent_model import call
from support.injected_models import loaded_models
from support.loop_drill import drill
from support.trajectory_model import TrajectoryModel

NUM = 3
SCRIPTS = [
    [
        [call("shell", command=f"echo {i}a >> log; cp log copy{i}")],
        [call("shell", command=f"echo {i}b >> log; rm old; wc -l log")],
        f"The answer is {i}.",
    ]
    for i in range(NUM)
]


def with_points(method: Callable[..., Awaitable[object]], pass_point: Callable[[], None]):
    async def wrapped(*arguments, **options):
        pass_point()
        value = await method(*arguments, **options)
        pass_point()
        return value

    return wrapped


async def work(directory, pass_point, outcome):
    """Start the run, or resume it, and replay it."""
    for name in ("fork", "commit", "close"):  # of this process, which ends with it
        setattr(DirectoryWorld, name, with_points(getattr(DirectoryWorld, name), pass_point))
    origin = directory / "work"
    if not origin.exists():
        origin.mkdir()
        (origin / "old").write_text("old")

    async def approver(pending):
        return Decision(kind="approve", by="drill")

    settings = Settings(model="scripted", store=directory / "runs.sqlite3", cache_dir=directory, seed=5)
    options = {"tools": [f"shell:{origin}"], "approver": approver, "trajectories": NUM, "select": "race"}
    with loaded_models({"scripted": TrajectoryModel(SCRIPTS)}):
        async with Reasoner(settings=settings, **options) as reasoner:
            try:
                record = await (await reasoner.open_store()).get_run("r")
            except UnknownName:
                answer = await reasoner.aask("Work.", run_id="r")
            else:
                is_finished = record.status == "finished"
                answer = Answer.model_validate(record.answer) if is_finished else await reasoner.aresume("r")
            replayed = await reasoner.areplay("r")
    summary = {"stopped": answer.stopped, "answer": answer.answer, "replayed": replayed.answer}
    (directory / "summary.json").write_text(json.dumps(summary))


def inspect(directory, report):
    """Compare the directory with the answer."""
    summary = json.loads((directory / "summary.json").read_text())
    chosen = summary["answer"]
    made = {path.name: path.read_text() for path in (directory / "work").iterdir()}
    expected = {"log": f"{chosen}a\n{chosen}b\n", f"copy{chosen}": f"{chosen}a\n"}
    faults = {
        "it did not end": summary["stopped"] != "done",
        f"the directory holds {made}": made != expected,
        "the replay differs": summary["replayed"] != chosen,
        "forks are left": any((directory / "forks").iterdir()),
    }
    report.faults += [f"run {directory.name}: {fault} {summary}" for fault, is_so in faults.items() if is_so]


@pytest.mark.timeout(1800)  # kills are many processes, which a busy machine starts slowly
@pytest.mark.parametrize("kills", [20, pytest.param(500, marks=pytest.mark.nightly)])
def test_kills_apply_the_chosen_changes_once_and_leave_no_fork(tmp_path, kills):
    try:
        asyncio.run(require_sandbox())
    except SandboxUnavailable as e:
        pytest.skip(str(e))
    report = drill(tmp_path, kills, kills, work, inspect)
    assert report.faults == []
