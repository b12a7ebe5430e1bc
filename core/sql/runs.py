"""Rows of runs, as functions of a connection: making, taking, ending, finding."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import JsonValue

from ..errors import DuplicateRequest, StoreError, UnknownName, UserError
from ..store import RunRecord, RunStatus
from .group_commit import Connection

LAST = "\U0010ffff"
"""Sorts after every character that a name has."""
_SHOW_THEM = "`reason runs list` shows those there are"


@dataclass(frozen=True)
class Tenure:
    """How a store knows who works on a run.

    Attributes:
        owner: This store's name as an owner: host, process and what tells it from others, with colons between them.
        flag: SQL expression on a row of `runs`: whatever the database knows of the owner's being alive.
        lives: Whether the owner is alive, from its name and the flag.
        lock: What a SELECT ends with that keeps a row from others until the transaction ends.
    """

    owner: str
    flag: str
    lives: Callable[[str, Any], bool]
    lock: str

    def holds(self, owner: str, flag: Any) -> bool:
        """Whether a living process other than this one works on a run."""
        return owner != self.owner and self.lives(owner, flag)

    def free(self, owner: str | None, flag: Any) -> bool:
        """Whether nobody works on a run, this process included."""
        return owner is None or (owner != self.owner and not self.lives(owner, flag))


def _shown(owner: str) -> str:
    """An owner as it is shown to people."""
    host, pid, _ = owner.rsplit(":", 2)
    return f"process {pid} on {host}"


def to_json(value: Any) -> str | None:
    """JSON that every database takes; None stays None."""
    if value is None:
        return None
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # half a character, which JSON can write and UTF-8 cannot
            return json.dumps(value, separators=(",", ":"))
    return text


def create(
    db: Connection,
    tenure: Tenure,
    run_id: str,
    config: str | None,
    *,
    tenant: str,
    background: bool,
    status: Literal["queued", "running"],
    idempotency: str | None,
    digest: str,
) -> None:
    """See `RunStore.create_run`."""
    now = time.time()
    owner = None if background and status == "queued" else tenure.owner
    made = db.execute(
        "INSERT INTO runs (id, created, updated, status, config, owner, tenant, background, idempotency, digest) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING id",
        (run_id, now, now, status, config, owner, tenant, int(background), idempotency, digest),
    )
    if made:
        db.forget_owner(run_id)
        return
    known = None if idempotency is None else find_request(db, tenant, idempotency)
    if known is not None:
        raise DuplicateRequest(known[0], known[1] == digest)
    raise UserError(f"there is a run {run_id} already", hint="choose another name")


def find_request(db: Connection, tenant: str, idempotency: str) -> tuple[str, str] | None:
    """See `RunStore.find_request`."""
    rows = db.execute("SELECT id, digest FROM runs WHERE tenant = ? AND idempotency = ?", (tenant, idempotency))
    return (rows[0][0], rows[0][1]) if rows else None


def take(db: Connection, tenure: Tenure, run_id: str, only: Collection[RunStatus] = ()) -> None:
    """See `RunStore.take_run`."""
    status, owner, flag = _locked(db, tenure, run_id)
    if only and status not in only:
        raise UserError(f"run {run_id} is {status}", hint="look at it again: it has changed meanwhile")
    if owner is not None and tenure.holds(owner, flag):
        raise UserError(f"run {run_id} is being worked on by {_shown(owner)}", hint="wait until it ends, or stop it")
    db.write(
        "UPDATE runs SET owner = ?, status = 'running', cancel = 0, updated = ? WHERE id = ?",
        (tenure.owner, time.time(), run_id),
    )
    db.forget_owner(run_id)


def _locked(db: Connection, tenure: Tenure, run_id: str) -> tuple[str, str | None, Any]:
    """Status, owner and owner's flag of a run, which nobody else changes until the transaction ends.

    Two statements: one that had to wait for another transaction would know the new owner, and not yet that it lives.
    """
    if not db.execute(f"SELECT id FROM runs WHERE id = ?{tenure.lock}", (run_id,)):  # noqa: S608
        raise UnknownName("run", run_id, hint=_SHOW_THEM)
    ((status, owner, flag),) = db.execute(f"SELECT status, owner, {tenure.flag} FROM runs WHERE id = ?", (run_id,))  # noqa: S608
    return status, owner, flag


def check_mine(db: Connection, tenure: Tenure, run_id: str) -> None:
    """Refuse to write to a run that is not this process's (any more).

    Raises:
        StoreError: Another process has taken it, it has ended, or it is gone.
    """
    found = db.owner_of(run_id)
    if not found:
        raise StoreError(f"run {run_id} is not in the run store", hint="it was removed meanwhile, or never made")
    (owner,) = found
    if owner is None:
        raise StoreError(f"run {run_id} is nobody's: it has ended or was given up", hint="resume it")
    if owner != tenure.owner:
        raise StoreError(
            f"run {run_id} was taken over by {_shown(owner)}",
            hint="this process was believed dead; the other one goes on with the run",
        )


def release(db: Connection, tenure: Tenure, run_id: str, status: RunStatus) -> None:
    """See `RunStore.release_run`."""
    check_mine(db, tenure, run_id)
    stopped = "interrupted" if status == "queued" else status
    db.write(
        "UPDATE runs SET status = CASE cancel WHEN 0 THEN ? ELSE ? END, owner = NULL, updated = ? WHERE id = ?",
        (status, stopped, time.time(), run_id),
    )
    db.forget_owner(run_id)


def adoptable(db: Connection, tenure: Tenure, limit: int) -> list[RunRecord]:
    """See `RunStore.adoptable`."""
    sql = f"SELECT {_columns(tenure)} FROM runs WHERE background = 1 AND status IN ('queued', 'running') "  # noqa: S608
    found: list[RunRecord] = []
    after: tuple[float, str] = (0.0, "")
    while len(found) < limit:
        rows = db.execute(sql + "AND (created, id) > (?, ?) ORDER BY created, id LIMIT ?", (*after, max(limit, 50)))
        found += [record(row, tenure) for row in rows if tenure.free(row[_OWNER], row[-1])]
        if len(rows) < max(limit, 50):
            break
        after = rows[-1][1], rows[-1][0]
    return found[:limit]


def request_cancel(db: Connection, tenure: Tenure, run_id: str) -> None:
    """See `RunStore.request_cancel`."""
    status, owner, flag = _locked(db, tenure, run_id)
    if status not in ("queued", "running"):
        return
    if tenure.free(owner, flag):
        db.write(
            "UPDATE runs SET status = 'interrupted', owner = NULL, cancel = 1, updated = ? WHERE id = ?",
            (time.time(), run_id),
        )
        db.forget_owner(run_id)
    else:
        db.write("UPDATE runs SET cancel = 1 WHERE id = ?", (run_id,))


def cancel_requested(db: Connection, run_ids: Sequence[str]) -> frozenset[str]:
    """See `RunStore.cancel_requested`."""
    found: set[str] = set()
    for start in range(0, len(run_ids), 500):
        some = run_ids[start : start + 500]
        marks = ",".join("?" * len(some))
        found |= {row[0] for row in db.execute(f"SELECT id FROM runs WHERE cancel = 1 AND id IN ({marks})", some)}  # noqa: S608
    return frozenset(found)


def get(db: Connection, tenure: Tenure, run_id: str, *, tenant: str | None, exact: bool) -> RunRecord:
    """See `RunStore.get_run`."""
    whose, values = ("", ()) if tenant is None else (" AND tenant = ?", (tenant,))
    select = f"SELECT {_columns(tenure)} FROM runs WHERE "  # noqa: S608
    rows = []
    if run_id and "\0" not in run_id:
        rows = db.execute(f"{select}id = ?{whose}", (run_id, *values))
        if not rows and not exact:
            rows = db.execute(
                f"{select}id >= ? AND id < ?{whose} ORDER BY id LIMIT 2", (run_id, run_id + LAST, *values)
            )
    if not rows:
        raise UnknownName("run", run_id, hint=_SHOW_THEM)
    if len(rows) > 1:
        raise UserError(f"several runs begin with {run_id!r}", hint="give more of the name")
    return record(rows[0], tenure)


def newest(
    db: Connection, tenure: Tenure, limit: int, *, tenant: str | None, before: str | None, status: RunStatus | None
) -> list[RunRecord]:
    """See `RunStore.list_runs`."""
    wheres: list[str] = []
    values: list[Any] = []
    if tenant is not None:
        wheres.append("tenant = ?")
        values.append(tenant)
    place: tuple[float, str] | None = None
    if before is not None:
        rows = db.execute(
            f"SELECT created, id FROM runs WHERE {' AND '.join([*wheres, 'id = ?'])}",  # noqa: S608
            (*values, before),
        )
        if not rows:
            raise UnknownName("run", before, hint=_SHOW_THEM)
        place = rows[0]
    if status is not None:
        # one that is noted as going on may be found interrupted: its process is gone
        kept = ("queued", "running", "interrupted") if status == "interrupted" else (status,)
        wheres.append(f"status IN ({','.join('?' * len(kept))})")
        values += kept
    found: list[RunRecord] = []
    while len(found) < limit:
        here = [*wheres, *(["(created, id) < (?, ?)"] if place else [])]
        where = f"WHERE {' AND '.join(here)} " if here else ""
        rows = db.execute(
            f"SELECT {_columns(tenure)} FROM runs {where}ORDER BY created DESC, id DESC LIMIT ?",  # noqa: S608
            (*values, *(place or ()), limit),
        )
        records = [record(row, tenure) for row in rows]
        found += [r for r in records if status is None or r.status == status]
        if len(rows) < limit:
            break
        place = rows[-1][1], rows[-1][0]
    return found[:limit]


def delete(db: Connection, run_id: str) -> None:
    """See `RunStore.delete_run`."""
    db.write("DELETE FROM checkpoints WHERE thread_id = ?", (run_id,))
    db.write("DELETE FROM runs WHERE id = ?", (run_id,))
    db.forget_owner(run_id)


def set_identities(db: Connection, tenure: Tenure, run_id: str, identities: dict[str, JsonValue]) -> None:
    """See `RunStore.set_identities`."""
    check_mine(db, tenure, run_id)
    db.write("UPDATE runs SET identities = ? WHERE id = ?", (to_json(identities), run_id))


_KEPT = (
    "id, created, updated, status, config, identities, answer, error, owner, tenant, background, idempotency, cancel"
)
_OWNER = 8


def _columns(tenure: Tenure) -> str:
    return f"{_KEPT}, {tenure.flag}"


def record(row: Sequence[Any], tenure: Tenure) -> RunRecord:
    """A row of `runs` with the owner's flag as its last column."""
    run_id, created, updated, status, config, identities, answer, error, owner = row[:9]
    tenant, background, idempotency, cancel, flag = row[9:]
    going_on = status == "running" or (status == "queued" and owner is not None)
    if going_on and not (owner and tenure.lives(owner, flag)):
        status = "interrupted"  # killed before it could say so
    return RunRecord(
        id=run_id,
        created=created,
        updated=updated,
        status=status,
        config=json.loads(config),
        identities=json.loads(identities),
        answer=json.loads(answer) if answer else None,
        error=json.loads(error) if error else None,
        owner=owner,
        tenant=tenant,
        background=bool(background),
        idempotency=idempotency,
        cancel_requested=bool(cancel),
    )
