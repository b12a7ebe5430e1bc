"""The pipeline as a LangGraph graph, with a checkpoint after each stage once there is a solution.

The graph carries the coarse stages only. A search never runs as graph steps: a strategy is one node, and what it has
paid for is in the run store call by call.

Importing LangGraph takes most of a second. So `pipeline.LazyGraph` imports this module when a run first needs the
graph, and only this module and `checkpoints` import LangGraph.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Protocol, TypedDict, cast

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from pydantic import BaseModel

from .pipeline import STAGES, SUCCESSORS, PipelineContext, PipelineState, next_stage, run_stage


class GraphState(TypedDict, total=False):
    """The checkpointed JSON: the fields of `PipelineState`, with the run's cost up to the end of the last stage."""

    question: dict[str, Any]
    strategy: str
    solution: dict[str, Any]
    verification: dict[str, Any] | None
    num_repairs: int
    previous: dict[str, Any]
    answer: dict[str, Any]
    usage: dict[str, Any]
    degraded: list[str]


Graph = CompiledStateGraph[GraphState, PipelineContext, GraphState, GraphState]


def build_graph(checkpointer: BaseCheckpointSaver[Any] | None) -> Graph:
    """The pipeline's graph; one serves any number of concurrent runs."""
    graph = StateGraph(GraphState, context_schema=PipelineContext)
    graph.add_edge(START, next(iter(STAGES)))
    for stage, following in SUCCESSORS.items():
        graph.add_node(stage, as_node(stage))
        if len(following) > 1:
            graph.add_conditional_edges(stage, _chooser(stage), list(following))
        else:
            graph.add_edge(stage, following[0] if following else END)
    return graph.compile(checkpointer=checkpointer)


class Node(Protocol):
    """A stage in the form that LangGraph calls."""

    def __call__(self, state: GraphState, *, runtime: Runtime[PipelineContext]) -> Awaitable[GraphState]:
        """Run the stage."""


def as_node(stage: str) -> Node:
    """A stage as a LangGraph node; its cost is checkpointed with its result."""

    async def node(state: GraphState, *, runtime: Runtime[PipelineContext]) -> GraphState:
        run = runtime.context.run
        update = await run_stage(stage, _parsed(state), runtime.context)
        values: dict[str, Any] = {name: _json(value) for name, value in update.items()}
        values |= {"usage": run.ledger.usage().model_dump(mode="json"), "degraded": list(run.degraded)}
        return cast(GraphState, values)

    return node


class Chooser(Protocol):
    """An edge's condition in the form that LangGraph calls."""

    def __call__(self, state: GraphState, runtime: Runtime[PipelineContext]) -> str:
        """The next stage."""


def _chooser(stage: str) -> Chooser:
    def choose(state: GraphState, runtime: Runtime[PipelineContext]) -> str:
        return next_stage(stage, _parsed(state), runtime.context.run) or END

    return choose


def _parsed(state: GraphState) -> PipelineState:
    return PipelineState.model_validate({k: v for k, v in state.items() if k in PipelineState.model_fields})


def _json(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value
