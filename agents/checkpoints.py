"""`Checkpoints`: stage states in the run store, as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_metadata,
)

from ..core.store import RunStore, StoredCheckpoint

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig


class JsonSerializer:
    """Writes checkpoints as JSON. LangGraph's own can fall back to other forms; the pipeline's state needs none."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """JSON of a checkpoint or of one written value; an error that a stage raised is written as its text."""
        return "json", json.dumps(obj, ensure_ascii=False, default=_plain).encode("utf-8", "surrogatepass")

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """What was written."""
        return json.loads(data[1].decode("utf-8", "surrogatepass"))


def _plain(value: Any) -> Any:
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    raise TypeError(f"the pipeline's state holds a {type(value).__name__}, which has no JSON form")


class Checkpoints(BaseCheckpointSaver[int]):
    """A LangGraph checkpointer whose rows are the run store's; a thread is a run.

    LangGraph's own for SQLite and Postgres write through connections of their own: a transaction each write, beside the
    store's, and by a process that has lost the run to another one just as well. Here a stage's state goes into the
    store's next transaction, and is refused where the run was taken over. Rows are as LangGraph's own for SQLite writes
    them, so runs that it has kept go on.

    Args:
        store: The run store.
    """

    def __init__(self, store: RunStore) -> None:
        super().__init__(serde=JsonSerializer())
        self._store = store

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that is named, or else the last one."""
        run_id, namespace, only = _names(config)
        found = await self._store.checkpoint(run_id, namespace, only=only)
        return None if found is None else self._whole(run_id, found)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint that is worth it: one that holds a solution, or what verifiers said of it.

        Up to its first solution a run goes on from its beginning, since all that it has got is in the store call by
        call. A stage that had nothing to verify is done again at no cost, and what follows an answer is the end.
        """
        run_id, namespace, parent = _names(config)
        reached = checkpoint["channel_values"]
        nothing_verified = "verification" in reached and reached["verification"] is None and not reached.get("repairs")
        if "solution" not in reached or "answer" in reached or nothing_verified:
            return _config(run_id, namespace, checkpoint["id"])
        kind, state = self.serde.dumps_typed(checkpoint)
        about = json.dumps(get_checkpoint_metadata(config, metadata), ensure_ascii=False)
        await self._store.put_checkpoint(
            run_id,
            StoredCheckpoint(
                namespace=namespace,
                id=checkpoint["id"],
                parent=parent,
                kind=kind,
                state=state,
                metadata=about.encode("utf-8", "surrogatepass"),
            ),
        )
        return _config(run_id, namespace, checkpoint["id"])

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Nothing: one stage runs at a time, and the checkpoint that holds what it has written follows at once."""

    def _whole(self, run_id: str, found: StoredCheckpoint) -> CheckpointTuple:
        checkpoint = self.serde.loads_typed((found.kind, found.state))
        for versions in (checkpoint["channel_versions"], *checkpoint["versions_seen"].values()):
            versions.update({channel: _number(version) for channel, version in versions.items()})
        return CheckpointTuple(
            _config(run_id, found.namespace, found.id),
            checkpoint,
            cast(CheckpointMetadata, json.loads(found.metadata.decode("utf-8", "surrogatepass"))),
            _config(run_id, found.namespace, found.parent) if found.parent else None,
            [],
        )


def _number(version: int | str) -> int:
    """A version as a number: LangGraph's own for SQLite writes that number, a point and a random one."""
    return int(version.partition(".")[0]) if isinstance(version, str) else version


def _names(config: RunnableConfig) -> tuple[str, str, str | None]:
    """Run, namespace and checkpoint that a configuration names."""
    named = config["configurable"]
    return str(named["thread_id"]), named.get("checkpoint_ns", ""), named.get("checkpoint_id")


def _config(run_id: str, namespace: str, checkpoint: str) -> RunnableConfig:
    return {"configurable": {"thread_id": run_id, "checkpoint_ns": namespace, "checkpoint_id": checkpoint}}
