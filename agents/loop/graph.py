"""The loop of a run as a LangGraph graph, with a checkpoint after each node.

Importing LangGraph takes more than a second: only this module and `saver` do, and a run with verifiers or tools imports
them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypedDict

from langchain_core.runnables.config import var_child_runnable_config
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime

from ...core.store.sql import RunStore, to_json
from .saver import LoopSaver
from .state import NODES, LoopContext, LoopState, NodeName, checkpointed, next_node, run_node

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.types import Durability


class GraphState(TypedDict, total=False):
    """The checkpointed state: the JSON text of a `LoopState`, in which MessagePack changes no character."""

    state: str


class LoopGraph:
    """The loop of a store's runs, any number of them at once; without a store it has no checkpoints."""

    def __init__(self, store: RunStore | None) -> None:
        self._graph = _build_graph(None if store is None else LoopSaver(store))

    async def last_state(self, run_id: str) -> LoopState | None:
        """The state of a run's last checkpoint; None if no node has ended."""
        with _outside_other_graphs():
            values: dict[str, Any] = (await self._graph.aget_state(_thread(run_id))).values
        state = _read(values["state"]) if values else None
        return state if state is not None and state.node else None

    async def run(self, state: LoopState | None, context: LoopContext) -> LoopState:
        """Run the nodes; a state of None continues from the last checkpoint."""
        values: Any = None if state is None else {"state": to_json(state)}
        durability: Durability | None = None if self._graph.checkpointer is None else "async"
        with _outside_other_graphs():
            last = await self._graph.ainvoke(values, _thread(context.run.id), context=context, durability=durability)
        return _read(last["state"])


def _thread(run_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": run_id}}


@contextmanager
def _outside_other_graphs() -> Iterator[None]:
    """Make the loop independent of a LangGraph graph in one of whose nodes a question is asked.

    LangGraph takes a graph that is called inside a node for a part of the node's graph: the outer checkpointer would
    get our states, its listeners our nodes, and a continued outer thread would continue the loop from an earlier
    run's state. A run is durable by itself; the outer graph needs no more than its answer.
    """
    token = var_child_runnable_config.set(None)
    try:
        yield
    finally:
        var_child_runnable_config.reset(token)


def _build_graph(
    checkpointer: LoopSaver | None,
) -> CompiledStateGraph[GraphState, LoopContext, GraphState, GraphState]:
    graph = StateGraph(GraphState, context_schema=LoopContext)
    graph.add_edge(START, "model")
    for name in NODES:
        graph.add_node(name, _as_node(name))
        graph.add_conditional_edges(name, _next, [*NODES, END])
    return graph.compile(checkpointer=checkpointer)


def _as_node(name: NodeName) -> Any:
    async def node(state: GraphState, *, runtime: Runtime[LoopContext]) -> GraphState:
        before = _read(state["state"])
        update = await run_node(name, before, runtime.context)
        await runtime.context.run.writer.flush()  # no checkpoint without the samples that it rests on
        return {"state": str(to_json(before.after(checkpointed(update, runtime.context.run))))}

    return node


def _next(state: GraphState, runtime: Runtime[LoopContext]) -> str:
    return next_node(_read(state["state"]), runtime.context.run)


def _read(state: str) -> LoopState:
    return LoopState.model_validate(json.loads(state))
