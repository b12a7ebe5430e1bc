"""Kills of a graph of a user around a run with tools, under our saver and LangGraph's: no write is repeated."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command
from reason.agents.loop.records import ToolCallStore
from reason.agents.reasoner import Reasoner
from reason.core.settings import Settings
from reason.integrations.checkpoints import RunStoreSaver
from reason.integrations.langgraph import agent_graph  # noqa: F401 (no fork has to import it)
from support.agent_model import AgentModel, call
from support.injected_models import loaded_models
from support.loop_drill import Killer, recording_tool

THREAD: Any = {"configurable": {"thread_id": "t"}}
TURNS = [[call("read", x=1), call("write", x=2)], [call("write", x=3)]]


async def work(directory: Path, killer: Killer, saver: str, durability: Any) -> None:
    """Begin or continue the thread, and approve what is asked."""
    settings = Settings(model="scripted", store=directory / "runs.sqlite3", cache_dir=directory, seed=5)
    tools = [recording_tool(kind, directory, killer) for kind in ("read", "write")]
    with loaded_models({"scripted": AgentModel(TURNS)}):
        async with (
            Reasoner(settings=settings, tools=tools) as reasoner,
            AsyncSqliteSaver.from_conn_string(str(directory / "theirs.sqlite3")) as theirs,
        ):
            ours = RunStoreSaver(await reasoner.open_store())
            outer = StateGraph(MessagesState)
            outer.add_node("agent", reasoner.graph())
            outer.add_node("after", lambda _: {"messages": [AIMessage("after")]})
            outer.add_edge(START, "agent")
            outer.add_edge("agent", "after")
            graph = outer.compile(checkpointer=ours if saver == "ours" else theirs)
            state = await graph.aget_state(THREAD)
            value: Any = None if state.values or state.next else {"messages": [HumanMessage("Work.", id="1")]}
            while True:
                for interrupt in (await graph.aget_state(THREAD)).interrupts:
                    asked = zip(interrupt.value["action_requests"], interrupt.value["review_configs"], strict=True)
                    decisions = [{"type": how["allowed_decisions"][0], "id": what["id"]} for what, how in asked]
                    value = Command(resume={"decisions": decisions})
                done = await graph.ainvoke(value, THREAD, durability=durability)
                killer()
                value = None
                if "__interrupt__" not in done:
                    break
    (directory / "answer").write_text(done["messages"][-1].content)


def in_child(directory: Path, killer: Killer, saver: str, durability: str) -> int:
    child = os.fork()
    if child == 0:
        try:
            killer.watch(ToolCallStore, "add", "decide", "start", "finish")
            killer.watch(RunStoreSaver if saver == "ours" else AsyncSqliteSaver, "aput", "aput_writes")
            asyncio.run(work(directory, killer, saver, durability))
            os._exit(0)
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
            os._exit(1)
    return os.waitpid(child, 0)[1]


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("saver", ["ours", "theirs"])
@pytest.mark.parametrize("kills", [5, pytest.param(100, marks=pytest.mark.nightly)])
def test_kills_inside_a_graph_repeat_no_write(tmp_path: Path, kills: int, saver: str, durability: str) -> None:
    rng = random.Random(f"{saver} {durability}")
    num_runs = num_kills = 0
    while num_kills < kills:
        directory = tmp_path / str(num_runs)
        directory.mkdir()
        num_runs += 1
        status: int = signal.SIGKILL
        while status == signal.SIGKILL:
            killer = Killer(rng.randrange(40) if rng.random() < 0.8 else None)
            status = in_child(directory, killer, saver, durability)
            num_kills += status == signal.SIGKILL
        assert status == 0
        effects = Counter((directory / "effects").read_text().splitlines())
        assert all(count == 1 for line, count in effects.items() if line.startswith("write"))
        assert (directory / "answer").read_text() == "after"
