"""Stage checkpoints in the run store's own SQLite file, as JSON."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiosqlite
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from ..core.sqlite_store import PATIENCE_S, sqlite_errors
from ..core.unbroken import to_its_end

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


class Checkpointer(AsyncSqliteSaver):
    """LangGraph's, whose writes are whole even if the run is cancelled meanwhile.

    Its write is a statement and then a commit, each awaited: a cancellation in between would leave the file locked, and
    the run could not be noted as interrupted.
    """

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint."""
        return await to_its_end(super().aput(config, checkpoint, metadata, new_versions))

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store what a stage has written."""
        await to_its_end(super().aput_writes(config, writes, task_id, task_path))


@asynccontextmanager
async def open_checkpoints(path: Path) -> AsyncIterator[Checkpointer]:
    """The checkpointer on the run store's file.

    Raises:
        StoreError: The file cannot be used.
    """
    with sqlite_errors(path):
        async with aiosqlite.connect(path, timeout=PATIENCE_S) as connection:
            await connection.execute("PRAGMA synchronous=NORMAL")
            yield Checkpointer(connection, serde=JsonSerializer())
