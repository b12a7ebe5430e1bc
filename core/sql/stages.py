"""Rows of stage checkpoints, as functions of a connection."""

from __future__ import annotations

from typing import Any

from ..store import StoredCheckpoint
from .group_commit import Connection


def put_checkpoint(db: Connection, run_id: str, checkpoint: StoredCheckpoint) -> None:
    """See `RunStore.put_checkpoint`."""
    db.write(
        "INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, "
        "metadata) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id) DO UPDATE SET "
        "type = excluded.type, checkpoint = excluded.checkpoint, metadata = excluded.metadata",
        (
            run_id,
            checkpoint.namespace,
            checkpoint.id,
            checkpoint.parent,
            checkpoint.kind,
            checkpoint.state,
            checkpoint.metadata,
        ),
    )


def checkpoint(db: Connection, run_id: str, namespace: str, checkpoint_id: str | None) -> StoredCheckpoint | None:
    """See `RunStore.checkpoint`."""
    where, values = "thread_id = ? AND checkpoint_ns = ?", [run_id, namespace]
    if checkpoint_id is not None:
        where += " AND checkpoint_id = ?"
        values.append(checkpoint_id)
    rows = db.execute(
        "SELECT checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata FROM checkpoints "  # noqa: S608
        f"WHERE {where} ORDER BY checkpoint_id DESC LIMIT 1",
        values,
    )
    if not rows:
        return None
    ((found, parent, kind, state, metadata),) = rows
    return StoredCheckpoint(
        namespace=namespace, id=found, parent=parent, kind=kind, state=_bytes(state), metadata=_bytes(metadata)
    )


def _bytes(value: Any) -> bytes:
    """What a database gives for bytes; LangGraph's checkpointer of old wrote metadata as text."""
    return value.encode() if isinstance(value, str) else bytes(value or b"{}")
