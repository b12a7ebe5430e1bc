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
from pydantic import BaseModel

from ..core.store.records import StoredCheckpoint
from ..core.store.sql import RunStore
from .pipeline import STAGES, PipelineContext, PipelineState, run_stage, should_repair

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.types import Durability


class GraphState(TypedDict, total=False):
    """The checkpointed JSON: the fields of `PipelineState`, with the run's cost up to the end of the last stage."""

    question: dict[str, Any]
    solution: dict[str, Any]
    verification: dict[str, Any]
    num_repairs: int
    previous: dict[str, Any]
    usage: dict[str, Any]
    degraded: list[str]


class PipelineGraph:
    """The pipeline of a store's runs, any number of them at once; without a store it has no checkpoints."""

    def __init__(self, store: RunStore | None) -> None:
        self._graph = _build_graph(None if store is None else RunStoreSaver(store))

    async def last_values(self, run_id: str) -> dict[str, Any]:
        """The values of a run's last checkpoint; empty if it has none."""
        with _outside_other_graphs():
            values: dict[str, Any] = (await self._graph.aget_state(_thread(run_id))).values
        return values

    async def run(self, state: PipelineState | None, context: PipelineContext) -> PipelineState:
        """Run the stages; a state of None continues from the last checkpoint."""
        values: Any = None if state is None else {"question": state.question.model_dump(mode="json")}
        durability: Durability | None = None if self._graph.checkpointer is None else "async"
        with _outside_other_graphs():
            last = await self._graph.ainvoke(values, _thread(context.run.id), context=context, durability=durability)
        return PipelineState.of(last)


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
) -> CompiledStateGraph[GraphState, PipelineContext, GraphState, GraphState]:
    graph = StateGraph(GraphState, context_schema=PipelineContext)
    for stage in STAGES:
        graph.add_node(stage, _as_node(stage))
    graph.add_edge(START, "solve")
    graph.add_edge("solve", "verify")
    graph.add_conditional_edges("verify", _after_verify, ["repair", END])
    graph.add_edge("repair", "verify")
    return graph.compile(checkpointer=checkpointer)


def _as_node(stage: str) -> Any:
    """A stage as a LangGraph node; its cost is checkpointed with its result."""

    async def node(state: GraphState, *, runtime: Runtime[PipelineContext]) -> GraphState:
        run = runtime.context.run
        update = await run_stage(stage, PipelineState.of(state), runtime.context)
        values: dict[str, Any] = {name: _json(value) for name, value in update.items()}
        values |= {"usage": run.ledger.usage().model_dump(mode="json"), "degraded": list(run.degraded)}
        return cast(GraphState, values)

    return node


def _after_verify(state: GraphState, runtime: Runtime[PipelineContext]) -> str:
    return "repair" if should_repair(PipelineState.of(state), runtime.context.run) else END


def _json(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


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
        if "solution" not in checkpoint["channel_values"]:
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
