"""Kills of a run with trajectories: one write is executed for each choice, once, and none of another trajectory."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter

import pytest
from reason.agents.loop.records import Decision
from reason.agents.loop.tool import ExecutableTool, schema_tool
from reason.agents.reasoner import Reasoner
from reason.core.errors import UnknownName
from reason.core.settings import Settings
from reason.core.types import Answer
from support.agent_model import call
from support.injected_models import loaded_models
from support.loop_drill import X, drill
from support.trajectory_model import TrajectoryModel

NUM = 3
SCRIPTS = [
    [[call("read", x=1)], [call("write", x=10 + i)], [call("read", x=1)], [call("write", x=20 + i)], "The answer is 5."]
    for i in range(NUM)
]


class UnsteadyModel(TrajectoryModel):
    """Its trajectories end in another order in each process."""

    async def generate(self, requests, listener=None):
        for _ in range(self._rng.randrange(40)):
            await asyncio.sleep(0)
        return await super().generate(requests, listener)

    @property
    def _rng(self):
        return random.Random(f"{os.getpid()} {len(self.prompts)} {self.requests}")


async def work(directory, pass_point, outcome):
    """Start the run, or resume it, and replay it."""

    def tool(kind):
        async def execute(arguments, context):
            pass_point()
            with (directory / "effects").open("a") as file:
                file.write(f"{kind} {arguments['x']}\n")
            pass_point()
            return f"{kind} of {arguments['x']}"

        declaration = schema_tool(kind, "", X, lambda x: "").declaration
        return ExecutableTool(declaration=declaration, call=execute, effect=kind)

    async def approver(pending):
        if pending.question == "outcome":
            with (directory / "asked").open("a") as file:
                file.write(f"{outcome}\n")
        return Decision(kind=outcome if pending.question == "outcome" else "approve", by="drill")

    settings = Settings(model="scripted", store=directory / "runs.sqlite3", cache_dir=directory, seed=5)
    options = {"tools": [tool("read"), tool("write")], "approver": approver, "trajectories": NUM, "select": "race"}
    with loaded_models({"scripted": UnsteadyModel(SCRIPTS)}):
        async with Reasoner(settings=settings, **options) as reasoner:
            try:
                record = await (await reasoner.open_store()).get_run("r")
            except UnknownName:
                answer = await reasoner.aask("Work.", run_id="r")
            else:
                is_finished = record.status == "finished"
                answer = Answer.model_validate(record.answer) if is_finished else await reasoner.aresume("r")
            replayed = await reasoner.areplay("r")
    summary = {
        "stopped": answer.stopped,
        "calls": [c.text for m in answer.messages for c in m.tool_calls],
        "messages": [m.model_dump(mode="json") for m in answer.messages],
        "replayed": [m.model_dump(mode="json") for m in replayed.messages],
    }
    (directory / "summary.json").write_text(json.dumps(summary))


def inspect(directory, report):
    """Compare what was executed with the messages of the run."""
    summary = json.loads((directory / "summary.json").read_text())
    effects = Counter((directory / "effects").read_text().splitlines())
    asked = (directory / "asked").read_text().splitlines() if (directory / "asked").exists() else []
    writes = {line: count for line, count in effects.items() if line.startswith("write")}
    chosen = {c.replace("(x=", " ").rstrip(")") for c in summary["calls"] if c.startswith("write")}
    report.asked += len(asked)
    report.repeated += sum(count > 1 for count in writes.values())
    faults = {
        "it did not end": summary["stopped"] != "done",
        "another trajectory's write was executed": not set(writes) <= chosen,
        "a chosen write is missing": len(chosen) != 2 or (not asked and set(writes) != chosen),
        "the replay differs": summary["replayed"] != summary["messages"],
    }
    report.faults += [f"run {directory.name}: {fault} {summary}" for fault, is_so in faults.items() if is_so]


@pytest.mark.timeout(1800)  # kills are hundreds of processes, which a busy machine starts slowly
@pytest.mark.parametrize("kills", [60, pytest.param(1000, marks=pytest.mark.nightly)])
def test_kills_execute_the_chosen_writes_once_and_no_others(tmp_path, kills):
    report = drill(tmp_path, kills, kills, work, inspect)
    assert (report.repeated, report.faults) == (0, [])
    assert report.asked > 0
