"""The pipeline as a LangGraph graph: route → solve → verify (→ repair → verify …) → finish.

The graph carries the coarse stages alone, with a checkpoint after each once there is a solution. A search never runs
as graph steps: a strategy is one node, and what it has paid for is in the run store call by call. Where nothing
verifies the answer, nothing comes between the solution and the end: there is nothing to order and nothing to keep, and
the stages follow one another without the graph (`nodes.answer_unverified`).

Importing LangGraph takes most of a second. So this module is imported where a run first needs the graph, and no other
one of this package imports LangGraph but `checkpoints`, which is imported with it.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Literal, Protocol

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime

from . import nodes
from .repairing import worth_another_attempt
from .state import Pipeline, State

Graph = CompiledStateGraph[State, Pipeline, State, State]
STAGES = ("route", "solve", "verify", "repair", "finish")


def build_graph(checkpointer: BaseCheckpointSaver[Any] | None) -> Graph:
    """The pipeline; one serves any number of runs, also at the same time.

    Args:
        checkpointer: Where the state is kept after each stage; None keeps it nowhere.
    """
    graph = StateGraph(State, context_schema=Pipeline)
    for name in STAGES:
        graph.add_node(name, as_node(name, getattr(nodes, name)))
    for before, after in ((START, "route"), ("route", "solve"), ("solve", "verify"), ("finish", END)):
        graph.add_edge(before, after)
    graph.add_conditional_edges("verify", after_verification, ["repair", "finish"])
    graph.add_edge("repair", "verify")
    return graph.compile(checkpointer=checkpointer)


class Node(Protocol):
    """A stage in the form that LangGraph calls."""

    def __call__(self, state: State, *, runtime: Runtime[Pipeline]) -> Awaitable[State]:
        """Run the stage."""


def as_node(name: str, stage: nodes.Stage) -> Node:
    """A stage as a LangGraph node: told in the trace, its cost checkpointed with its result."""

    async def node(state: State, *, runtime: Runtime[Pipeline]) -> State:
        run = runtime.context.run
        async with nodes.told(run, name):
            added = await stage(state, runtime.context)
        return {**added, "usage": run.ledger.usage().model_dump(mode="json"), "degraded": list(run.degraded)}

    return node


def after_verification(state: State, runtime: Runtime[Pipeline]) -> Literal["repair", "finish"]:
    """Where a verified answer goes."""
    return "repair" if worth_another_attempt(state, runtime.context.run) else "finish"
