"""The pipeline as a LangGraph graph: route → solve → verify (→ repair → verify …) → finish.

The graph carries the coarse stages alone, with a checkpoint after each. A search never runs as graph steps: a strategy
is one node, and what it has paid for is in the run store call by call.
"""

from __future__ import annotations

from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from . import nodes
from .repairing import after_verification
from .state import Pipeline, State

STAGES = ("route", "solve", "verify", "repair", "finish")


def build_graph(checkpointer: BaseCheckpointSaver[Any] | None) -> CompiledStateGraph[State, Pipeline, State, State]:
    """The pipeline.

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
