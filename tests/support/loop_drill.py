"""A drill of a run with tools: its process is killed at points chosen by a seed, and the run resumed, until it ends.

Each process is a fork of the calling one, which has imported everything, so that a kill costs no import.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from reason.agents.loop.records import Decision, LoopStateStore, ToolCallStore
from reason.agents.loop.tool import ExecutableTool, ToolCallContext, schema_tool
from reason.agents.reasoner import Reasoner
from reason.core.errors import UnknownName
from reason.core.run import Run
from reason.core.settings import Settings
from reason.core.types import Answer, PendingToolCall

from support.agent_model import AgentModel, call
from support.injected_models import loaded_models

X: dict[str, Any] = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
TURNS = [
    [call(name, x=10 * turn + i) for i, name in enumerate(("read", "read", "idempotent", "write", "write"))]
    for turn in range(2)
]
NUM_CALLS = sum(map(len, TURNS))


@dataclass
class Report:
    """What happened in a drill.

    Attributes:
        repeated: Writes that were executed more than once.
        faults: Whatever else is wrong, in words.
    """

    runs: int = 0
    kills: int = 0
    asked: int = 0
    repeated: int = 0
    faults: list[str] = field(default_factory=list)


def drill(path: Path, seed: int, kills: int, work: Work | None = None, inspect: Inspect | None = None) -> Report:
    """Run agents in processes that are killed, until so many kills have happened.

    Args:
        work: Starts the run, or resumes it; by default one of reads, idempotent calls and writes.
        inspect: Compares what the run has recorded with what was executed.
    """
    work, inspect = work or _continue, inspect or _inspect
    rng, report = random.Random(seed), Report()
    warm = path / "warm"
    warm.mkdir()
    asyncio.run(work(warm, lambda: None, "done"))  # so that no fork has to import anything
    num_points = 8 * NUM_CALLS
    while report.kills < kills:
        directory = path / str(report.runs)
        directory.mkdir()
        report.runs += 1
        outcome: Literal["done", "failed"] = rng.choice(["done", "failed"])
        status = int(signal.SIGKILL)
        while status == signal.SIGKILL:
            killer = Killer(rng.randrange(num_points) if rng.random() < 0.9 else None)
            status = _in_child(killer, directory, outcome, work)
            report.kills += status == signal.SIGKILL
        if status:
            report.faults.append(f"run {report.runs - 1} of seed {seed} ended with status {status}")
        else:
            inspect(directory, report)
    return report


Work = Callable[[Path, Callable[[], None], Literal["done", "failed"]], Coroutine[Any, Any, None]]
Inspect = Callable[[Path, Report], None]


class Killer:
    """Kills this process at a point that is passed, by its number."""

    def __init__(self, point: int | None) -> None:
        self._left = sys.maxsize if point is None else point

    def __call__(self) -> None:
        """Pass a point."""
        self._left -= 1
        if self._left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, kind: type, *names: str) -> None:
        """Make the beginning and the end of methods points."""
        for name in names:
            setattr(kind, name, self._with_points(getattr(kind, name)))

    def _with_points(self, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def wrapped(*args: Any, **options: Any) -> Any:
            self()
            value = await method(*args, **options)
            self()
            return value

        return wrapped


def _in_child(killer: Killer, directory: Path, outcome: Literal["done", "failed"], work: Work) -> int:
    child = os.fork()
    if child == 0:
        try:
            killer.watch(ToolCallStore, "add", "decide", "start", "finish")
            killer.watch(LoopStateStore, "save")
            killer.watch(Run, "save_calls")
            asyncio.run(work(directory, killer, outcome))
            os._exit(0)
        except BaseException:  # noqa: BLE001
            traceback.print_exc(file=sys.__stderr__)
            os._exit(1)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)


async def _continue(directory: Path, pass_point: Callable[[], None], outcome: Literal["done", "failed"]) -> None:
    """Start the run, or resume it."""

    async def approver(pending: PendingToolCall) -> Decision:
        is_outcome = pending.question == "outcome"
        _append(directory / "asked", f"{pending.question} {pending.id}")
        return Decision(kind=outcome if is_outcome else "approve", by="drill")

    settings = Settings(model="scripted", store=directory / "runs.sqlite3", cache_dir=directory, seed=5)
    tools = [recording_tool(kind, directory, pass_point) for kind in ("read", "idempotent", "write")]
    with loaded_models({"scripted": AgentModel(TURNS)}):
        async with Reasoner(settings=settings, tools=tools, approver=approver) as reasoner:
            try:
                record = await (await reasoner.open_store()).get_run("r")
            except UnknownName:
                answer = await reasoner.aask("Work.", run_id="r")
            else:
                if record.status == "finished":
                    answer = Answer.model_validate(record.answer)
                else:
                    answer = await reasoner.aresume("r")
            replayed = await reasoner.areplay("r")
            rows = await ToolCallStore(await reasoner.open_store()).list("r")
    summary = {
        "stopped": answer.stopped,
        "messages": [[m.role, m.content] for m in answer.messages],
        "replayed": [[m.role, m.content] for m in replayed.messages],
        "rows": [[row.id, row.tool, row.status, "" if row.result is None else row.result.text] for row in rows],
    }
    (directory / "summary.json").write_text(json.dumps(summary))


def recording_tool(kind: Any, directory: Path, pass_point: Callable[[], None]) -> ExecutableTool:
    """A tool that writes each of its executions into a file, with a point before and after."""
    tool = schema_tool(kind, "", X, lambda x: "", effect=kind)

    async def execute(arguments: Mapping[str, Any], context: ToolCallContext) -> str:
        pass_point()
        _append(directory / "effects", f"{kind} {context.intent}")
        pass_point()
        return f"{kind} of {arguments['x']}"

    return ExecutableTool(declaration=tool.declaration, call=execute, effect=kind)


def _append(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(line + "\n")


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _inspect(directory: Path, report: Report) -> None:
    """Compare what the run has recorded with what was executed."""
    summary = json.loads((directory / "summary.json").read_text())
    effects, asked = Counter(_lines(directory / "effects")), _lines(directory / "asked")
    outcomes = {line.split()[1] for line in asked if line.startswith("outcome")}
    report.asked += len(outcomes)
    report.repeated += sum(count > 1 for line, count in effects.items() if line.startswith("write"))
    rows = summary["rows"]
    faults = {
        "it did not end": summary["stopped"] != "done",
        "a call has no row": len(rows) != NUM_CALLS or {line.split()[1] for line in effects} - {row[0] for row in rows},
        "a row has not ended": any(status not in ("done", "assumed") for _, _, status, _ in rows),
        "a result was lost": [row[3] for row in rows] != [text for role, text in summary["messages"] if role == "tool"],
        "a call was done and not executed": any(
            status == "done" and not effects[f"{tool} {intent}"] for intent, tool, status, _ in rows
        ),
        "an unknown outcome was not asked about": {row[0] for row in rows if row[2] == "assumed"} != outcomes,
        "the replay differs": summary["replayed"] != summary["messages"],
    }
    report.faults += [f"run {directory.name}: {fault}" for fault, is_so in faults.items() if is_so]
