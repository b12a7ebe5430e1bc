"""The pipeline as a LangGraph graph, with a checkpoint after each stage once there is a solution.

The graph carries the coarse stages only. A search never runs as graph steps: a strategy is one node, and what it has
paid for is in the run store call by call.

Importing LangGraph takes most of a second: only this module does, and a run with verifiers imports it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypedDict, cast

from langchain_core.runnables.config import var_child_runnable_config
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_metadata,
)
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime

from ..core.store.records import StoredCheckpoint
from ..core.store.sql import RunStore
from .loop.state import NODES, LoopContext, LoopState, NodeName, checkpointed, next_node, run_node

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.types import Durability


class GraphState(TypedDict, total=False):
    """The checkpointed JSON of a `LoopState`."""

    state: dict[str, Any]


class PipelineGraph:
    """The loop of a store's runs, any number of them at once; without a store it has no checkpoints."""

    def __init__(self, store: RunStore | None) -> None:
        self._graph = _build_graph(None if store is None else RunStoreSaver(store))

    async def last_state(self, run_id: str) -> LoopState | None:
        """The state of a run's last checkpoint; None if it has none."""
        with _outside_other_graphs():
            values: dict[str, Any] = (await self._graph.aget_state(_thread(run_id))).values
        return LoopState.model_validate(values["state"]) if values else None

    async def run(self, state: LoopState | None, context: LoopContext) -> LoopState:
        """Run the nodes; a state of None continues from the last checkpoint."""
        values: Any = None if state is None else {"state": state.model_dump(mode="json")}
        durability: Durability | None = None if self._graph.checkpointer is None else "async"
        with _outside_other_graphs():
            last = await self._graph.ainvoke(values, _thread(context.run.id), context=context, durability=durability)
        return LoopState.model_validate(last["state"])


def _thread(run_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": run_id}}


@contextmanager
def _outside_other_graphs() -> Iterator[None]:
    """Make the pipeline independent of a LangGraph graph in one of whose nodes a question is asked.

    LangGraph takes a graph that is called inside a node for a part of the node's graph: the outer checkpointer would
    get our states, its listeners our stages, and a continued outer thread would continue the pipeline from an earlier
    run's state. A run is durable by itself; the outer graph needs no more than its answer.
    """
    token = var_child_runnable_config.set(None)
    try:
        yield
    finally:
        var_child_runnable_config.reset(token)


def _build_graph(
    checkpointer: BaseCheckpointSaver[Any] | None,
) -> CompiledStateGraph[GraphState, LoopContext, GraphState, GraphState]:
    graph = StateGraph(GraphState, context_schema=LoopContext)
    graph.add_edge(START, "model")
    for name in NODES:
        graph.add_node(name, _as_node(name))
        graph.add_conditional_edges(name, _next, [*NODES, END])
    return graph.compile(checkpointer=checkpointer)


def _as_node(name: NodeName) -> Any:
    async def node(state: GraphState, *, runtime: Runtime[LoopContext]) -> GraphState:
        before = LoopState.model_validate(state["state"])
        update = await run_node(name, before, runtime.context)
        after = before.after(checkpointed(update, runtime.context.run))
        return {"state": after.model_dump(mode="json")}

    return node


def _next(state: GraphState, runtime: Runtime[LoopContext]) -> str:
    return next_node(LoopState.model_validate(state["state"]), runtime.context.run)


# -- checkpoints


class JsonSerializer:
    """Serializes checkpoints as JSON; LangGraph's own serializer may fall back to other formats."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """JSON of a checkpoint or of one written value; an error raised by a stage is written as its text."""
        return "json", json.dumps(obj, ensure_ascii=False, default=_plain).encode("utf-8", "surrogatepass")

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """The checkpoint or value."""
        return json.loads(data[1].decode("utf-8", "surrogatepass"))


def _plain(value: Any) -> Any:
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    raise TypeError(f"the pipeline's state holds a {type(value).__name__}, which has no JSON form")


class RunStoreSaver(BaseCheckpointSaver[int]):
    """Keeps checkpoints in the run store; a thread is a run.

    LangGraph's own savers for SQLite and Postgres write through connections of their own: one transaction a write, in
    addition to the store's, also from a process that has lost the run to another one. Here a stage's state joins the
    store's next transaction, and is refused if another process has claimed the run.
    """

    def __init__(self, store: RunStore) -> None:
        super().__init__(serde=JsonSerializer())
        self._store = store

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The named checkpoint, or the last one."""
        run_id, namespace, checkpoint_id = _names(config)
        stored = await self._store.get_checkpoint(run_id, namespace, checkpoint_id=checkpoint_id)
        if stored is None:
            return None
        return CheckpointTuple(
            _config(run_id, stored.namespace, stored.id),
            self.serde.loads_typed((stored.kind, stored.state)),
            cast(CheckpointMetadata, json.loads(stored.metadata.decode("utf-8", "surrogatepass"))),
            _config(run_id, stored.namespace, stored.parent) if stored.parent else None,
            [],
        )

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint that holds a solution.

        Up to its first solution a run resumes from its beginning, since all its responses are in the store call by
        call.
        """
        run_id, namespace, parent = _names(config)
        if not checkpoint["channel_values"].get("state", {}).get("node"):
            return _config(run_id, namespace, checkpoint["id"])
        kind, state = self.serde.dumps_typed(checkpoint)
        await self._store.put_checkpoint(
            run_id,
            StoredCheckpoint(
                namespace=namespace,
                id=checkpoint["id"],
                parent=parent,
                kind=kind,
                state=state,
                metadata=json.dumps(get_checkpoint_metadata(config, metadata), ensure_ascii=False).encode(
                    "utf-8", "surrogatepass"
                ),
            ),
        )
        return _config(run_id, namespace, checkpoint["id"])

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store nothing: one stage runs at a time, and the checkpoint with its result follows at once."""


def _names(config: RunnableConfig) -> tuple[str, str, str | None]:
    """Run, namespace and checkpoint id of a configuration."""
    names = config["configurable"]
    return str(names["thread_id"]), names.get("checkpoint_ns", ""), names.get("checkpoint_id")


def _config(run_id: str, namespace: str, checkpoint: str) -> RunnableConfig:
    return {"configurable": {"thread_id": run_id, "checkpoint_ns": namespace, "checkpoint_id": checkpoint}}
