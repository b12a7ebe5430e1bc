"""Rows of model calls and events, as functions of a connection."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import JsonValue

from ..events import EVENT, EventFields
from ..store import StoredCall
from .group_commit import Connection, Row
from .runs import to_json

Adds = Callable[[Connection, Sequence[Row]], None]
"""Stores rows."""

_COLUMNS = "key, role, model, request, reply, cut"


def find(db: Connection, run_id: str, keys: Sequence[str], *, any_run: bool) -> dict[str, StoredCall]:
    """See `RunStore.find_calls`."""
    found: dict[str, StoredCall] = {}
    others = (
        "(calls.run_id = ? OR (cut = 0 AND EXISTS (SELECT 1 FROM runs AS mine, runs AS theirs "
        "WHERE mine.id = ? AND theirs.id = calls.run_id AND theirs.tenant = mine.tenant)))"
    )
    for start in range(0, len(keys), 500):  # databases bound the number of parameters of a statement
        some = keys[start : start + 500]
        whose, values = (others, (run_id, run_id)) if any_run else ("calls.run_id = ?", (run_id,))
        rows = db.execute(
            f"SELECT {_COLUMNS}, run_id FROM calls WHERE key IN ({','.join('?' * len(some))}) AND {whose}",  # noqa: S608
            (*some, *values),
        )
        rows.sort(key=lambda row: bool(row[6] == run_id))  # this run's own come last and win
        for row in rows:
            found[row[0]] = _call(row[:6])
    return found


def add(db: Connection, rows: Sequence[Row]) -> None:
    """Store replies that `call_rows` made."""
    db.write(
        "INSERT INTO calls (run_id, key, role, model, request, reply, cut, created, tokens, usd) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        *rows,
    )


def call_rows(run_id: str, calls: Sequence[StoredCall], *, paid: bool) -> list[Row]:
    """Replies as rows of `calls`."""
    now = time.time()
    return [
        (
            run_id,
            c.key,
            c.role,
            c.model,
            to_json(c.request),
            to_json(c.reply),
            int(c.cut),
            now,
            *(_paid_for(c.reply) if paid else (0, 0.0)),
        )
        for c in calls
    ]


def _paid_for(reply: dict[str, JsonValue]) -> tuple[int, float]:
    """Generated tokens and dollars of a reply, as far as it says so."""
    usage = reply.get("usage")
    if not isinstance(usage, dict):
        return 0, 0.0
    tokens, usd = usage.get("completion_tokens"), usage.get("cost_usd")
    return (
        tokens if isinstance(tokens, int) else 0,
        float(usd) if isinstance(usd, int | float) else 0.0,
    )


def count(db: Connection, run_id: str) -> int:
    """See `RunStore.count_calls`."""
    return int(db.execute("SELECT COUNT(*) FROM calls WHERE run_id = ?", (run_id,))[0][0])


def all_of(db: Connection, run_id: str) -> list[StoredCall]:
    """See `RunStore.calls`."""
    rows = db.execute(f"SELECT {_COLUMNS} FROM calls WHERE run_id = ? ORDER BY key", (run_id,))  # noqa: S608
    return [_call(row) for row in rows]


def keys_paid_before(db: Connection, run_id: str) -> frozenset[str]:
    """See `RunStore.keys_paid_before`."""
    sql = (
        "SELECT key FROM calls AS mine WHERE run_id = ? AND EXISTS (SELECT 1 FROM calls AS theirs "
        "WHERE theirs.key = mine.key AND theirs.run_id <> mine.run_id AND theirs.created < mine.created)"
    )
    return frozenset(row[0] for row in db.execute(sql, (run_id,)))


def event_rows(run_id: str, events: Sequence[EventFields]) -> list[Row]:
    """Events as rows of `events`."""
    return [(run_id, e.number, e.model_dump_json()) for e in events]


def add_events(db: Connection, rows: Sequence[Row]) -> None:
    """Store events that `event_rows` made."""
    db.write(
        "INSERT INTO events (run_id, number, event) VALUES (?, ?, ?) "
        "ON CONFLICT (run_id, number) DO UPDATE SET event = excluded.event",
        *rows,
    )


def events(db: Connection, run_id: str, after: int, limit: int | None) -> list[EventFields]:
    """See `RunStore.events`."""
    sql = "SELECT event FROM events WHERE run_id = ? AND number > ? ORDER BY number"
    most, values = ("", ()) if limit is None else (" LIMIT ?", (limit,))
    rows = db.execute(sql + most, (run_id, after, *values))
    return [EVENT.validate_json(row[0]) for row in rows]


def _call(row: Sequence[Any]) -> StoredCall:
    key, role, model, request, reply, cut = row
    return StoredCall(
        key=key, role=role, model=model, request=json.loads(request), reply=json.loads(reply), cut=bool(cut)
    )
