"""The pipeline as a LangGraph graph: route → solve → verify (→ repair → verify …) → finish.

The graph carries the coarse stages alone, with a checkpoint after each once there is a solution. A search never runs
as graph steps: a strategy is one node, and what it has paid for is in the run store call by call. Where nothing
verifies the answer, nothing comes between the solution and the end, and the stages are one step (`brief_graph`).
"""

from __future__ import annotations

from functools import cache
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from . import nodes
from .repairing import after_verification
from .state import Brief, Pipeline, State

Graph = CompiledStateGraph[State, Pipeline, State, State]
BriefGraph = CompiledStateGraph[Brief, Pipeline, Brief, Brief]
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


@cache
def brief_graph() -> BriefGraph:
    """The pipeline of runs that verify nothing: the same stages as one step, since none of them is worth a checkpoint.

    A step of LangGraph costs as much of the processor as a few model calls do; one serves all such runs.
    """
    graph = StateGraph(Brief, context_schema=Pipeline)
    graph.add_node("answer", nodes.answer_unverified)
    graph.add_edge(START, "answer")
    graph.add_edge("answer", END)
    return graph.compile()
