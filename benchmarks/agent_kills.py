"""Agents whose process is killed: effects that happen twice, and approvals that are asked for again.

    python benchmarks/agent_kills.py --runs 30

An agent calls one tool that changes something, after an approval. Its process kills itself with SIGKILL in the tool
after the effect, or where the tool's result is saved first, and another process continues the thread until the agent
has ended. The agents are built as LangGraph's documents build them, and by `reason`. The table counts the threads whose
effect happened more than once and, in brackets, those whose approval was asked for again.

Each process is a fork of this one, which has imported everything. Nothing is random but the order in which threads of a
process run, and nothing has a deadline.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import signal
import sqlite3
import sys
import tempfile
import traceback
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, interrupt
from reason import Reasoner
from reason.agents.loop.records import Decision, LoopStateStore
from reason.agents.loop.tool import tool_of
from reason.core.errors import UnknownName
from reason.core.settings import Settings
from reason.core.store import open_store
from reason.core.types import PendingToolCall
from reason.integrations.checkpoints import RunStoreSaver
from reason.integrations.langgraph import agent_graph  # noqa: F401 (no fork has to import it)
from reporting import made_here, table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from support.agent_model import AgentModel, call
from support.injected_models import loaded_models

POINTS = ("inside the tool", "before `put_writes`", "after `put_writes`", "before `put`")
MAX_INVOCATIONS = 10
THREAD: Any = {"configurable": {"thread_id": "t"}}
QUESTION: Any = {"messages": [HumanMessage("Pay 5.", id="1")]}
ACTION = {"action_requests": [{"name": "pay", "args": {"amount": 5}, "description": ""}]}


class World:
    """What one thread changes and asks, in files; and the kill of a process of it.

    Args:
        point: Where this process is killed; empty for a process that is not.
    """

    def __init__(self, directory: Path, point: str) -> None:
        self.directory, self._point = directory, point

    def pay(self, amount: int) -> str:
        """Pay an amount."""
        self.note("effects", str(amount))
        result = f"{amount} is paid"
        self._pass(POINTS[0], result)
        return result

    def ask(self, question: str) -> str:
        """The decision of a person, who knows what happened."""
        self.note("asked", question)
        return "approve" if question == "approval" else ("done" if self.lines("effects") else "failed")

    def watch(self, saver: Any) -> Any:
        """Make points of the methods of a saver, or of a class of savers, that are given the tool's result."""
        for name in ("put", "put_writes"):
            setattr(saver, name, self._watched(name, getattr(saver, name)))
            setattr(saver, f"a{name}", self._watched_async(name, getattr(saver, f"a{name}")))
        return saver

    def watch_states(self, store: Any) -> None:
        """Make points of what stores the states of our own loop."""
        store.save = self._watched_async("put", store.save)

    def note(self, file: str, line: str) -> None:
        with (self.directory / file).open("a") as lines:
            lines.write(line + "\n")

    def lines(self, file: str) -> list[str]:
        path = self.directory / file
        return path.read_text().splitlines() if path.exists() else []

    def _pass(self, point: str, values: object) -> None:
        if point == self._point and "5 is paid" in repr(values):
            os.kill(os.getpid(), signal.SIGKILL)

    def _watched(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **options: Any) -> Any:
            self._pass(f"before `{name}`", args)
            value = method(*args, **options)
            self._pass(f"after `{name}`", args)
            return value

        return watched

    def _watched_async(self, name: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def watched(*args: Any, **options: Any) -> Any:
            self._pass(f"before `{name}`", args)
            value = await method(*args, **options)
            self._pass(f"after `{name}`", args)
            return value

        return watched


# -- agents of LangGraph


def nodes(saver: Any, world: World) -> Any:
    """A model, a node that asks for the approval, and the prebuilt node of tools."""
    return tool_graph(saver, world.pay, lambda state: interrupt(ACTION) and {})


def asking_tool(saver: Any, world: World) -> Any:
    """A model and the prebuilt node of tools; the tool asks for the approval."""

    def pay(amount: int) -> str:
        """Pay an amount."""
        interrupt(ACTION)
        return world.pay(amount)

    return tool_graph(saver, pay, lambda state: {})


def tool_graph(saver: Any, tool: Callable[[int], str], approve: Callable[[MessagesState], Any]) -> Any:
    """The graph that LangGraph's documents build."""
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [turn(state["messages"])]})
    graph.add_node("approve", approve)
    graph.add_node("tools", ToolNode([tool]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", lambda state: "approve" if state["messages"][-1].tool_calls else END)
    graph.add_edge("approve", "tools")
    graph.add_edge("tools", "model")
    return graph.compile(checkpointer=saver)


def tasks(saver: Any, world: World) -> Any:
    """The same in the functional interface: a task is saved at its end."""

    @task
    def pay(amount: int) -> str:
        return world.pay(amount)

    @entrypoint(checkpointer=saver)
    def agent(state: dict[str, Any]) -> str:
        interrupt(ACTION)
        return pay(5).result()

    return agent


def langchain_agent(saver: Any, world: World) -> Any:
    """`create_agent` with the middleware that asks for approvals."""
    middleware = [HumanInTheLoopMiddleware({"pay": True})]
    return create_agent(ScriptedChatModel(), [world.pay], middleware=middleware, checkpointer=saver)


def turn(messages: list[Any]) -> AIMessage:
    """The scripted model's turn."""
    if messages[-1].type == "tool":
        return AIMessage("It is paid.", id="3")
    return AIMessage("", tool_calls=[{"name": "pay", "args": {"amount": 5}, "id": "call_1"}], id="2")


class ScriptedChatModel(BaseChatModel):
    """The scripted model for LangChain."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        return self

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=turn(messages))])


async def langgraph_agent(world: World, build: Callable[..., Any], saver: str, durability: Any = "async") -> None:
    """Begin or continue a thread of LangGraph's, with SqliteSaver in the synchronous interface."""
    path = str(world.directory / "checkpoints.sqlite3")
    if saver == "SqliteSaver":
        with SqliteSaver.from_conn_string(path) as synchronous:
            await drive(build(world.watch(synchronous), world), world, durability, is_async=False)
    elif saver == "AsyncSqliteSaver":
        async with AsyncSqliteSaver.from_conn_string(path) as asynchronous:
            await drive(build(world.watch(asynchronous), world), world, durability)
    else:
        async with aclosing(await open_store(world.directory / "runs.sqlite3")) as store:
            await drive(build(world.watch(RunStoreSaver(store)), world), world, durability)


async def drive(graph: Any, world: World, durability: Any = "async", *, is_async: bool = True) -> None:
    """Begin or continue a thread until it has ended, with a person who answers its interrupts."""

    async def do(name: str, *args: Any, **options: Any) -> Any:
        return (
            await getattr(graph, f"a{name}")(*args, **options) if is_async else getattr(graph, name)(*args, **options)
        )

    state = await do("get_state", THREAD)
    value = None if state.values or state.next else QUESTION
    for _ in range(MAX_INVOCATIONS):  # a thread that has a checkpoint goes on without a value: nothing is asked twice
        await do("invoke", value, THREAD, durability=durability)
        value, state = None, await do("get_state", THREAD)
        if not state.next:
            return
        for asked in state.interrupts:
            reviews = asked.value.get("review_configs", [{"allowed_decisions": ["approve"]}])
            questions = ["approval" if "approve" in r["allowed_decisions"] else "outcome" for r in reviews]
            value = Command(resume={"decisions": [{"type": world.ask(question)} for question in questions]})
    raise RuntimeError(f"the thread has not ended after {MAX_INVOCATIONS} invocations")


# -- ours


async def ours(world: World, saver: str) -> None:
    """Begin or continue a run, by itself or in a graph of the user under a saver."""

    async def approver(pending: PendingToolCall) -> Decision:
        return Decision(kind=world.ask(pending.question), by="person")

    settings = Settings(
        model="scripted", store=world.directory / "runs.sqlite3", cache_dir=world.directory / "cache", seed=5
    )
    with loaded_models({"scripted": AgentModel([[call("pay", amount=5)], "It is paid."])}):
        async with AsyncExitStack() as stack:
            tools = [tool_of(world.pay, effect="write")]
            reasoner = Reasoner(settings=settings, tools=tools, approver=None if saver else approver)
            await stack.enter_async_context(reasoner)
            store = await reasoner.open_store()
            if not saver:
                world.watch_states(LoopStateStore)
                try:
                    record = await store.get_run("r")
                except UnknownName:
                    await reasoner.aask("Pay 5.", run_id="r")
                else:
                    if record.status != "finished":
                        await reasoner.aresume("r")
                return
            path = str(world.directory / "checkpoints.sqlite3")
            theirs = await stack.enter_async_context(AsyncSqliteSaver.from_conn_string(path))
            graph = StateGraph(MessagesState)
            graph.add_node("agent", reasoner.graph())
            graph.add_edge(START, "agent")
            checkpointer: Any = RunStoreSaver(store) if saver == "ours" else theirs
            await drive(graph.compile(checkpointer=world.watch(checkpointer)), world)


def langgraph_agents() -> dict[str, Callable[[World], Awaitable[None]]]:
    """By what the table calls them."""
    agents: dict[str, Callable[[World], Awaitable[None]]] = {}
    for saver in ("SqliteSaver", "AsyncSqliteSaver", "RunStoreSaver"):
        for durability in ("sync", "async", "exit"):
            agents[f'nodes, {saver}, `durability="{durability}"`'] = partial(
                langgraph_agent, build=nodes, saver=saver, durability=durability
            )
    for name, build in (
        ("tool with `interrupt`", asking_tool),
        ("`@task`", tasks),
        ("`create_agent`", langchain_agent),
    ):
        for saver in ("SqliteSaver", "AsyncSqliteSaver"):
            agents[f"{name}, {saver}"] = partial(langgraph_agent, build=build, saver=saver)
    return agents


AGENTS: dict[str, Callable[[World], Awaitable[None]]] = {
    **langgraph_agents(),
    "`Reasoner`": partial(ours, saver=""),
    "`Reasoner.graph()` as a node, AsyncSqliteSaver": partial(ours, saver="theirs"),
    "`Reasoner.graph()` as a node, RunStoreSaver": partial(ours, saver="ours"),
}


# -- the kills


@dataclass
class Cell:
    """What the threads of an agent did that were killed at one point."""

    kills: int = 0
    doubled: int = 0
    asked_again: int = 0
    outcomes_asked: int = 0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        if not self.kills:
            return "not reached"
        asked = f", {self.outcomes_asked} asked about" if self.outcomes_asked else ""
        return f"{self.doubled} ({self.asked_again}){asked}"


def measure(directory: Path, agent: Callable[[World], Awaitable[None]], point: str, runs: int) -> Cell:
    """Kill so many threads at a point; an agent that does not reach it is run once."""
    cell = Cell()
    for i in range(runs):
        world = World(directory / str(i), "")
        world.directory.mkdir(parents=True)
        status = in_child(agent, World(world.directory, point))
        if status == signal.SIGKILL:
            cell.kills += 1
            status = in_child(agent, world)
        effects, asked = world.lines("effects"), world.lines("asked")
        cell.doubled += len(effects) > 1
        cell.asked_again += asked.count("approval") > 1
        cell.outcomes_asked += "outcome" in asked
        if status or not effects:
            cell.faults.append(f"thread {i}: exit status {status}, {len(effects)} effects")
        if not cell.kills:
            break
    return cell


def in_child(agent: Callable[[World], Awaitable[None]], world: World) -> int:
    """The wait status of a process of the agent."""
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(agent(world))
            os._exit(0)
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
            os._exit(1)
    return os.waitpid(child, 0)[1]


def main() -> None:
    """Print the table; end with an error if a thread did not end."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3, help="Number of kills of each agent at each point.")
    runs = parser.parse_args().runs
    rows, faults = [], []
    with tempfile.TemporaryDirectory() as path:
        for i, (name, agent) in enumerate(AGENTS.items()):
            cells = [measure(Path(path, f"{i}-{j}"), agent, point, runs) for j, point in enumerate(POINTS)]
            rows.append([name, *map(str, cells)])
            faults += [f"{name}: {fault}" for cell in cells for fault in cell.faults]
            print(*rows[-1], sep="; ", file=sys.stderr)
    packages = ("langgraph", "langgraph-checkpoint-sqlite", "langchain")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    print(f"{runs} kills a cell; {made_here()} {versions}, Python {platform.python_version()}, SQLite "
          f"{sqlite3.sqlite_version}.\n")  # fmt: skip
    print(table(["killed", *POINTS], rows))
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
