"""The pipeline as a LangGraph graph: route → solve → verify (→ repair → verify …) → finish.

The graph carries the coarse stages alone, with a checkpoint after each once there is a solution. A search never runs
as graph steps: a strategy is one node, and what it has paid for is in the run store call by call. Where nothing
verifies the answer, nothing comes between the solution and the end: there is nothing to order and nothing to keep, and
the stages follow one another without the graph (`nodes.answer_unverified`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from langchain_core.runnables.config import var_child_runnable_config
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from . import nodes
from .repairing import after_verification
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
        graph.add_node(name, nodes.as_node(name, getattr(nodes, name)))
    for before, after in ((START, "route"), ("route", "solve"), ("solve", "verify"), ("finish", END)):
        graph.add_edge(before, after)
    graph.add_conditional_edges("verify", after_verification, ["repair", "finish"])
    graph.add_edge("repair", "verify")
    return graph.compile(checkpointer=checkpointer)


@contextmanager
def on_its_own() -> Iterator[None]:
    """The pipeline within belongs to no other graph, whoever has asked.

    LangGraph takes a graph that is called inside a node for a part of the node's graph: where a question is asked in
    somebody else's graph, their checkpointer would be handed our states, their listeners would hear of our stages, and
    their thread, gone on with, would have the pipeline go on with what an earlier run had left there. A run is durable
    by itself; all that their graph needs to know of it is its answer.
    """
    token = var_child_runnable_config.set(None)
    try:
        yield
    finally:
        var_child_runnable_config.reset(token)
