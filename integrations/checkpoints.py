"""`RunStoreSaver`: LangGraph's checkpoints in the run store, with history, pending writes, copies and pruning.

Each method submits one operation to the store's queue before it awaits anything, and LangGraph starts its coroutines in
order. So the writes of a task are committed with the checkpoint that follows them, or before it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
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
    get_checkpoint_id,
    get_checkpoint_metadata,
    writes_sort_key,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from ..core.store.group_commit import Connection, Row
from ..core.store.sql import RunStore
from ..core.sync_bridge import SyncBridge

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


PAGE: Final = 50
"""Checkpoints that `list` reads at once."""
_KEY: Final = ("thread_id", "checkpoint_ns", "checkpoint_id")


class RunStoreSaver(BaseCheckpointSaver[int]):
    """Keeps the checkpoints of graphs in the run store: those of our runs, and those of any other graph.

    Writes join the store's next transaction, and those to a thread that is a run of another process are refused.
    The synchronous methods work in any thread, also in one with a running event loop.

    Args:
        store: The run store; it must stay open as long as the saver is used.
        serde: Serializes values. The default is MessagePack of LangGraph's and LangChain's types and never pickle;
            classes of your own need `JsonPlusSerializer(allowed_msgpack_modules=[…])`.
    """

    def __init__(self, store: RunStore, *, serde: SerializerProtocol | None = None) -> None:
        super().__init__(serde=serde or JsonPlusSerializer(allowed_msgpack_modules=None))
        self._store = store
        self._bridge = SyncBridge()

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

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 (LangGraph's name)
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Checkpoints, newest first.

        Args:
            config: Their thread, and their namespace and ID if it names them; None is all threads.
        """
        names = {} if config is None else config["configurable"]
        named = [column for column in _KEY if names.get(column) is not None]
        where = ["1 = 1", *(f"{column} = ?" for column in named)]
        values = [str(names[column]) for column in named]
        if before is not None:
            where.append("checkpoint_id < ?")
            values.append(str(get_checkpoint_id(before)))
        last: Sequence[str] = ()
        while limit is None or limit > 0:
            page = [*where, "(checkpoint_id, thread_id, checkpoint_ns) < (?, ?, ?)"] if last else where
            condition, bound = " AND ".join(page), [*values, *last]
            found = await self._store.commits.read(
                partial(select_checkpoints, where=condition, values=bound, limit=PAGE)
            )
            for row, writes in found:
                metadata = json.loads(bytes(row[6]))
                if all(metadata.get(key) == value for key, value in (filter or {}).items()):
                    yield self._tuple(row, writes)
                    limit = None if limit is None else limit - 1
                    if limit == 0:
                        return
            if len(found) < PAGE:
                return
            thread, namespace, checkpoint = found[-1][0][:3]
            last = checkpoint, thread, namespace

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete all checkpoints and writes of a thread. A run of that name keeps its calls and events."""

        def delete(db: Connection) -> None:
            for table in COLUMNS:
                db.write(f"DELETE FROM {table} WHERE thread_id = ?", (thread_id,))  # noqa: S608

        await self._write(thread_id, delete)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints and writes of LangGraph's runs, by the `run_id` of their metadata."""

        def delete(db: Connection) -> None:
            for row in db.execute("SELECT thread_id, checkpoint_ns, checkpoint_id, metadata FROM checkpoints"):
                if json.loads(bytes(row[3])).get("run_id") in run_ids:
                    _delete(db, row[:3])

        if run_ids:
            await self._store.commits.write(delete)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all checkpoints and writes of a thread to another one."""

        def copy(db: Connection) -> None:
            for table, columns in COLUMNS.items():
                db.write(
                    f"INSERT INTO {table} (thread_id, {columns}) SELECT CAST(? AS TEXT), {columns} FROM {table} "  # noqa: S608
                    "WHERE thread_id = ? ON CONFLICT DO NOTHING",
                    (target_thread_id, source_thread_id),
                )

        await self._write(target_thread_id, copy)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete checkpoints of threads: all ("delete"), or all but the last of each namespace ("keep_latest").

        Ancestors from which the last checkpoint reads a delta channel are kept.
        """
        for thread in thread_ids:
            if strategy == "delete":
                await self.adelete_thread(thread)
            else:
                await self._write(thread, partial(_keep_latest, thread=thread))

    # -- for synchronous callers

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return self._bridge.call(lambda: self.aget_tuple(config))

    def list(self, config: RunnableConfig | None, **options: Any) -> Iterator[CheckpointTuple]:
        async def read() -> list[CheckpointTuple]:
            return [found async for found in self.alist(config, **options)]

        yield from self._bridge.call(read)

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        return self._bridge.call(lambda: self.aput(config, checkpoint, metadata, new_versions))

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        self._bridge.call(lambda: self.aput_writes(config, writes, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        self._bridge.call(lambda: self.adelete_thread(thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        self._bridge.call(lambda: self.adelete_for_runs(run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        self._bridge.call(lambda: self.acopy_thread(source_thread_id, target_thread_id))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        self._bridge.call(lambda: self.aprune(thread_ids, strategy=strategy))


def _delete(db: Connection, key: Sequence[str]) -> None:
    for table in COLUMNS:
        db.write(f"DELETE FROM {table} WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?", key)  # noqa: S608


def _keep_latest(db: Connection, thread: str) -> None:
    parents: dict[tuple[str, str], str | None] = {}
    """The ancestor that a checkpoint needs, by namespace and ID."""
    rows = db.execute(
        "SELECT checkpoint_ns, checkpoint_id, parent_checkpoint_id, metadata FROM checkpoints WHERE thread_id = ? "
        "ORDER BY checkpoint_id DESC",
        (thread,),
    )
    for namespace, checkpoint, parent, metadata in rows:
        has_deltas = json.loads(bytes(metadata)).get("counters_since_delta_snapshot")
        parents[namespace, checkpoint] = parent if has_deltas else None
    latest: dict[str, str | None] = {}
    for namespace, checkpoint in parents:
        needed = latest.setdefault(namespace, checkpoint)
        if checkpoint == needed:
            latest[namespace] = parents[namespace, checkpoint]
        else:
            _delete(db, (thread, namespace, checkpoint))
