"""What tenants have spent, and their keys, as functions of a connection."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

from pydantic import JsonValue

from ..api_keys import ApiKey, KeyLimits
from ..errors import UnknownName, UserError
from ..store import RunStatus, Spent
from .group_commit import Connection
from .runs import Tenure, check_mine, to_json


def end_run(
    db: Connection,
    tenure: Tenure,
    run_id: str,
    status: RunStatus,
    answer: dict[str, JsonValue] | None,
    texts: tuple[str | None, str | None],
) -> None:
    """Note how a run ended and charge its tenant; see `RunStore.end_run`.

    Args:
        db: The connection.
        tenure: Who works on runs.
        run_id: The run.
        status: How it ended.
        answer: Its answer, of which the usage is read.
        texts: JSON of answer and error.
    """
    check_mine(db, tenure, run_id)
    tokens, usd_if_first = _paid_now(answer)
    paid = (tokens, tokens, usd_if_first, usd_if_first)
    # two statements that ask nothing back, since a database may be far away: it works out itself what they add
    db.write(
        f"INSERT INTO spending (tenant, day, tokens, usd, runs) SELECT tenant, CAST(? AS TEXT), "  # noqa: S608
        f"{_TOKENS} - charged_tokens, {_USD} - charged_usd, 1 - counted FROM runs WHERE id = ? {_ADDED}",
        (_day(time.time()), *paid, run_id),
    )
    db.write(
        f"UPDATE runs SET charged_tokens = {_TOKENS}, charged_usd = {_USD}, counted = 1, status = ?, answer = ?, "  # noqa: S608
        "error = ?, owner = NULL, cancel = 0, updated = ? WHERE id = ?",
        (*paid, status, *texts, time.time(), run_id),
    )
    db.forget_owner(run_id)


def _larger(now: str, stored: str) -> str:
    return f"(CASE WHEN {now} > {stored} THEN {now} ELSE {stored} END)"


# What was stored and never charged was paid by a process that was killed; what was charged and never stored is what had
# been generated of a sample when the run was cancelled. Each takes the amount that was paid now twice.
_TOKENS = _larger(
    "(charged_tokens + CAST(? AS BIGINT))",
    "(SELECT CAST(COALESCE(SUM(calls.tokens), 0) AS BIGINT) FROM calls WHERE calls.run_id = runs.id)",
)
# An answer tells what its tokens have cost in all: only of a run's first time is that what was paid.
_USD = _larger(
    "(charged_usd + CASE counted WHEN 0 THEN CAST(? AS DOUBLE PRECISION) ELSE 0 END)",
    "(SELECT COALESCE(SUM(calls.usd), 0) FROM calls WHERE calls.run_id = runs.id)",
)
_ADDED = (
    "ON CONFLICT (tenant, day) DO UPDATE SET tokens = spending.tokens + excluded.tokens, "
    "usd = spending.usd + excluded.usd, runs = spending.runs + excluded.runs"
)


def _paid_now(answer: dict[str, JsonValue] | None) -> tuple[int, float]:
    """Tokens that were paid since the run was taken, as its answer tells; and dollars, if it was for the first time."""
    usage = (answer or {}).get("usage")
    if not isinstance(usage, dict):
        return 0, 0.0
    tokens = _number(usage.get("completion_tokens")) - _number(usage.get("replayed_tokens"))
    replayed = usage.get("replayed_tokens") or usage.get("replayed_calls")
    return max(0, int(tokens)), 0.0 if replayed else _number(usage.get("cost_usd"))


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) else 0.0


def spent(db: Connection, tenant: str, since: float) -> Spent:
    """See `RunStore.spent`."""
    ((tokens, usd, runs),) = db.execute(
        "SELECT SUM(tokens), SUM(usd), SUM(runs) FROM spending WHERE tenant = ? AND day >= ?", (tenant, _day(since))
    )
    return Spent(tokens=int(tokens or 0), usd=float(usd or 0.0), runs=int(runs or 0))


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")


_KEY = "id, name, tenant, digest, scopes, limits, created, expires, revoked"


def add_key(db: Connection, key: ApiKey) -> None:
    """See `RunStore.add_key`."""
    made = db.execute(
        f"INSERT INTO api_keys ({_KEY}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING id",  # noqa: S608
        (
            key.id,
            key.name,
            key.tenant,
            key.digest,
            to_json(sorted(key.scopes)),
            key.limits.model_dump_json(),
            key.created,
            key.expires,
            key.revoked,
        ),
    )
    if not made:
        raise UserError(f"there is a key {key.id} already", hint="make another one")


def list_keys(db: Connection) -> list[ApiKey]:
    """See `RunStore.list_keys`."""
    return [_key(row) for row in db.execute(f"SELECT {_KEY} FROM api_keys ORDER BY created, id")]  # noqa: S608


def find_key(db: Connection, key_id: str) -> ApiKey | None:
    """See `RunStore.find_key`."""
    if "\0" in key_id:
        return None
    rows = db.execute(f"SELECT {_KEY} FROM api_keys WHERE id = ?", (key_id,))  # noqa: S608
    return _key(rows[0]) if rows else None


def revoke_key(db: Connection, key_id: str) -> ApiKey:
    """See `RunStore.revoke_key`."""
    rows = db.execute(
        f"UPDATE api_keys SET revoked = COALESCE(revoked, ?) WHERE id = ? RETURNING {_KEY}",  # noqa: S608
        (time.time(), key_id),
    )
    if not rows:
        raise UnknownName("key", key_id, hint="`reason keys list` shows those there are")
    return _key(rows[0])


def _key(row: tuple[Any, ...]) -> ApiKey:
    key_id, name, tenant, digest, scopes, limits, created, expires, revoked = row
    return ApiKey(
        id=key_id,
        name=name,
        tenant=tenant,
        digest=digest,
        scopes=frozenset(json.loads(scopes)),
        limits=KeyLimits.model_validate_json(limits),
        created=created,
        expires=expires,
        revoked=revoked,
    )
