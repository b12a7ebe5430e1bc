"""LangGraph's checkpoints in the run store, as far as the loop needs them; `integrations/checkpoints.py` has the rest.

Each method submits one operation to the store's queue before it awaits anything, and LangGraph starts its coroutines in
order. So the writes of a task are committed with the checkpoint that follows them, or before it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_metadata,
    writes_sort_key,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from ...core.store.group_commit import Connection, Row
from ...core.store.sql import RunStore


class LoopSaver(BaseCheckpointSaver[int]):
    """Keeps checkpoints and their writes; those to a thread that is a run of another process are refused."""

    def __init__(self, store: RunStore, *, serde: SerializerProtocol | None = None) -> None:
        super().__init__(serde=serde or JsonPlusSerializer(allowed_msgpack_modules=None))
        self._store = store

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The named checkpoint, or the last one of its namespace, with its pending writes."""
        thread, namespace, checkpoint = _names(config)
        where, values = "thread_id = ? AND checkpoint_ns = ?", [thread, namespace]
        if checkpoint:
            where, values = f"{where} AND checkpoint_id = ?", [*values, checkpoint]
        found = await self._store.commits.read(partial(select_checkpoints, where=where, values=values, limit=1))
        return self._tuple(*found[0]) if found else None

    def _tuple(self, row: Row, writes: Sequence[Row]) -> CheckpointTuple:
        thread, namespace, checkpoint, parent, kind, state, metadata = row
        ordered = sorted(writes, key=lambda write: writes_sort_key(write[4], write[0], write[5]))
        return CheckpointTuple(
            _config(thread, namespace, checkpoint),
            self.serde.loads_typed((kind, bytes(state))),
            cast(CheckpointMetadata, json.loads(bytes(metadata))),
            _config(thread, namespace, parent) if parent else None,
            [
                (task, channel, self.serde.loads_typed((kind, bytes(value))))
                for task, channel, kind, value, *_ in ordered
            ],
        )

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        thread, namespace, parent = _names(config)
        kind, state = self.serde.dumps_typed(checkpoint)
        described = json.dumps(get_checkpoint_metadata(config, metadata)).encode()
        row = (thread, namespace, checkpoint["id"], parent, kind, state, described)
        await self._write(thread, lambda db: db.write(_PUT, row))
        return _config(thread, namespace, checkpoint["id"])

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store the writes of a task. Errors, interrupts and resume values replace those stored before."""
        key = (*_names(config), task_id)
        replaces = all(channel in WRITES_IDX_MAP for channel, _ in writes)
        rows = [
            (*key, WRITES_IDX_MAP.get(channel, i), task_path, channel, *self.serde.dumps_typed(value))
            for i, (channel, value) in enumerate(writes)
        ]
        await self._write(key[0], lambda db: db.write(_REPLACE_WRITE if replaces else _ADD_WRITE, *rows))

    async def _write(self, thread: str, operation: Callable[[Connection], None]) -> None:
        """Commit an operation, unless the thread is a run that this process does not own."""

        def write(db: Connection) -> None:
            if db.owner_of(thread):
                self._store.ownership.check(db, thread)
            operation(db)

        await self._store.commits.write(write, thread)


COLUMNS: Final = {
    "checkpoints": "checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata",
    "checkpoint_writes": "checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, value",
}
"""The tables, and their columns after `thread_id`."""
_PUT: Final = (
    f"INSERT INTO checkpoints (thread_id, {COLUMNS['checkpoints']}) VALUES (?, ?, ?, ?, ?, ?, ?) "  # noqa: S608
    "ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id) DO UPDATE SET "
    "type = excluded.type, checkpoint = excluded.checkpoint, metadata = excluded.metadata"
)
_ADD_WRITE: Final = (
    f"INSERT INTO checkpoint_writes (thread_id, {COLUMNS['checkpoint_writes']}) "  # noqa: S608
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_REPLACE_WRITE: Final = _ADD_WRITE.replace(
    "ON CONFLICT DO NOTHING",
    "ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id, task_id, idx) DO UPDATE SET "
    "task_path = excluded.task_path, channel = excluded.channel, type = excluded.type, value = excluded.value",
)


def select_checkpoints(db: Connection, where: str, values: Sequence[str], limit: int) -> list[tuple[Row, list[Row]]]:
    """Checkpoints with their writes, newest first."""
    order = "checkpoint_id DESC, thread_id DESC, checkpoint_ns DESC"
    chosen = f"FROM checkpoints WHERE {where} ORDER BY {order} LIMIT {limit}"
    rows = db.execute(f"SELECT thread_id, {COLUMNS['checkpoints']} {chosen}", values)
    writes: dict[Row, list[Row]] = {tuple(row[:3]): [] for row in rows}
    sql = (
        "SELECT task_id, channel, type, value, task_path, idx, thread_id, checkpoint_ns, checkpoint_id "  # noqa: S608
        "FROM checkpoint_writes WHERE (thread_id, checkpoint_ns, checkpoint_id) IN "
        f"(SELECT thread_id, checkpoint_ns, checkpoint_id {chosen})"
    )
    for write in db.execute(sql, values):
        writes[tuple(write[6:])].append(write)
    return [(row, writes[tuple(row[:3])]) for row in rows]


def _names(config: RunnableConfig) -> tuple[str, str, str | None]:
    """Thread, namespace and checkpoint ID."""
    names = config["configurable"]
    return str(names["thread_id"]), names.get("checkpoint_ns") or "", names.get("checkpoint_id")


def _config(thread: str, namespace: str, checkpoint: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread, "checkpoint_ns": namespace, "checkpoint_id": checkpoint}}
