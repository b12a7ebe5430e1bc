"""`RunStore`: the run store over any SQL database, as JSON and never pickle."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, JsonValue

from ..errors import DuplicateRequest, RunConflict, StoreError, UnknownName, UserError
from ..events import EVENTS_ADAPTER, Event
from ..messages import Completion, EncodedOnce
from ..types import Answer
from .group_commit import Connection, GroupCommit, Row
from .records import (
    JsonText,
    ListedRun,
    NewCall,
    NewRun,
    RunEnd,
    RunRecord,
    RunStatus,
    RunWrites,
    StoredCall,
)
from .run_list import ANSWER_COLUMNS, LISTED_COLUMNS, QUESTION_COLUMNS, answer_columns, question_columns

SCHEMA_VERSION = 10
"""Version of the tables."""
# the JSON is last in a row: what precedes it is read without it
SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE runs (
    id {name} PRIMARY KEY,
    created DOUBLE PRECISION NOT NULL,
    updated DOUBLE PRECISION NOT NULL,
    status TEXT NOT NULL,
    owner TEXT,
    tenant TEXT NOT NULL DEFAULT '',
    background INTEGER NOT NULL DEFAULT 0,
    idempotency TEXT,
    digest TEXT NOT NULL DEFAULT '',
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    answer_requested INTEGER NOT NULL DEFAULT 0,
    adoptions INTEGER NOT NULL DEFAULT 0,
    counted INTEGER NOT NULL DEFAULT 0,
    charged_tokens BIGINT NOT NULL DEFAULT 0,
    charged_usd DOUBLE PRECISION NOT NULL DEFAULT 0,
    error TEXT,
    strategy TEXT NOT NULL DEFAULT '',
    model TEXT NOT NULL DEFAULT '',
    models TEXT NOT NULL DEFAULT '{{}}',
    question TEXT NOT NULL DEFAULT '',
    metadata TEXT NOT NULL DEFAULT '{{}}',
    search TEXT NOT NULL DEFAULT '',
    conversation TEXT NOT NULL DEFAULT '',
    answer_text TEXT,
    stopped TEXT,
    tokens BIGINT,
    thinking_tokens BIGINT,
    cost_usd DOUBLE PRECISION,
    seconds DOUBLE PRECISION,
    config TEXT NOT NULL,
    identities TEXT NOT NULL DEFAULT '{{}}',
    answer TEXT
);
CREATE INDEX runs_created ON runs (created, id);
CREATE UNIQUE INDEX runs_idempotency ON runs (tenant, idempotency) WHERE idempotency IS NOT NULL;
CREATE INDEX runs_of_tenant ON runs (tenant, created, id);
CREATE INDEX runs_of_conversation ON runs (conversation, created) WHERE conversation <> '';
CREATE INDEX runs_claimable ON runs (adoptions, created, id) WHERE background = 1 AND status IN ('queued', 'running');
CREATE INDEX runs_waiting ON runs (id) WHERE status = 'waiting';
CREATE TABLE calls (
    run_id {name} NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    key {name} NOT NULL,
    role TEXT NOT NULL,
    model TEXT NOT NULL,
    request TEXT NOT NULL,
    request_digest TEXT,
    response TEXT NOT NULL,
    truncated INTEGER NOT NULL DEFAULT 0,
    created DOUBLE PRECISION NOT NULL,
    tokens BIGINT NOT NULL DEFAULT 0,
    usd DOUBLE PRECISION NOT NULL DEFAULT 0,
    PRIMARY KEY (run_id, key)
){end};
CREATE TABLE requests (
    run_id {name} NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    digest {name} NOT NULL,
    request TEXT NOT NULL,
    PRIMARY KEY (run_id, digest)
){end};
CREATE TABLE events (
    run_id {name} NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    events TEXT NOT NULL,
    PRIMARY KEY (run_id, number)
){end};
CREATE TABLE loop_states (
    run_id {name} NOT NULL PRIMARY KEY REFERENCES runs (id) ON DELETE CASCADE,
    state TEXT NOT NULL
){end};
CREATE TABLE checkpoints (
    thread_id {name} NOT NULL,
    checkpoint_ns {name} NOT NULL DEFAULT '',
    checkpoint_id {name} NOT NULL,
    parent_checkpoint_id TEXT,
    type TEXT NOT NULL,
    checkpoint {bytes} NOT NULL,
    metadata {bytes} NOT NULL,
    PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id)
){end};
CREATE TABLE checkpoint_writes (
    thread_id {name} NOT NULL,
    checkpoint_ns {name} NOT NULL,
    checkpoint_id {name} NOT NULL,
    task_id {name} NOT NULL,
    idx INTEGER NOT NULL,
    task_path TEXT NOT NULL DEFAULT '',
    channel TEXT NOT NULL,
    type TEXT NOT NULL,
    value {bytes} NOT NULL,
    PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id, task_id, idx)
){end};
CREATE TABLE tool_calls (
    run_id {name} NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    id {name} NOT NULL,
    turn INTEGER NOT NULL,
    position INTEGER NOT NULL,
    tool TEXT NOT NULL,
    effect TEXT NOT NULL,
    executor TEXT NOT NULL,
    call_id TEXT NOT NULL DEFAULT '',
    arguments TEXT NOT NULL,
    status TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    note TEXT NOT NULL DEFAULT '',
    write_check TEXT,
    decision TEXT,
    created DOUBLE PRECISION NOT NULL,
    started DOUBLE PRECISION,
    ended DOUBLE PRECISION,
    result TEXT,
    PRIMARY KEY (run_id, id)
){end};
CREATE INDEX tool_calls_of_clients ON tool_calls (id) WHERE executor = 'client';
CREATE TABLE spending (
    tenant TEXT NOT NULL,
    day {name} NOT NULL,
    tokens BIGINT NOT NULL,
    usd DOUBLE PRECISION NOT NULL,
    runs BIGINT NOT NULL,
    PRIMARY KEY (tenant, day)
){end}"""
"""The tables; see `Connection.create_tables`."""
MAX_PARAMETERS = 500
"""Parameters of one statement; databases bound their number."""
LAST = "\U0010ffff"
"""Sorts after every character of a run's name."""
PRUNE_PAGE = 50
"""Runs that one call of `prune_runs` deletes at most: other writers wait for its transaction."""
MAX_EVENTS = 64
"""Maximum number of events in a row."""
MAX_EVENT_ROWS = 16
"""Rows that are read together."""
MIN_SHARED_CHARS = 1000
"""Length of a request's JSON from which on it is stored once for all of its samples."""
_LIST_HINT = "`reason runs list` shows all runs"


@dataclass(frozen=True)
class Ownership:
    """How a database knows which process works on a run.

    Attributes:
        owner: This store's name as an owner: host, process and a distinguishing part, separated by colons.
        liveness: SQL condition on a row of `runs`: whether the database knows that its owner is alive.
        is_alive: Whether an owner is alive, from its name and the value of `liveness`.
        lock: End of a SELECT that locks the row until the transaction ends.
    """

    owner: str
    liveness: str
    is_alive: Callable[[str, Any], bool]
    lock: str

    def is_free(self, owner: str | None, liveness: Any) -> bool:
        """Whether no living process works on a run, this one included."""
        return owner is None or (owner != self.owner and not self.is_alive(owner, liveness))

    def check(self, db: Connection, run_id: str) -> None:
        """Refuse to write to a run that this process does not own (any more)."""
        row = db.owner_of(run_id)
        if not row:
            raise StoreError(f"run {run_id} is not in the run store", hint="it was deleted or never created")
        (owner,) = row
        if owner is None:
            raise StoreError(f"run {run_id} has no owner: it has ended or was released", hint="resume it")
        if owner != self.owner:
            raise StoreError(
                f"run {run_id} was claimed by {_described(owner)}",
                hint="this process was believed dead; the other one continues the run",
            )


class RunStore:
    """The run store over any SQL database; open it with `open_store`.

    All methods raise `StoreError` if the store fails. Methods that write to a run also raise it, and write nothing, if
    another process has claimed the run in the meantime. Methods that are not coroutines begin to write when they are
    called, and are done when their result is awaited; a write is completed even if its awaiter is cancelled.

    Each operation is one function on the store's thread, and writes of several runs are one transaction (see
    `GroupCommit`). Calls and events, of which there may be many, become JSON there too.
    """

    def __init__(self, commits: GroupCommit, ownership: Ownership) -> None:
        self.commits = commits
        self.ownership = ownership
        self._has_key_index = False

    # -- life cycle of runs

    def create_run(
        self,
        run_id: str,
        config: BaseModel | Mapping[str, JsonValue],
        *,
        tenant: str = "",
        background: bool = False,
        status: Literal["queued", "running"] = "running",
        idempotency: str | None = None,
        digest: str = "",
    ) -> asyncio.Future[None]:
        """Create a run and claim it; a queued background run is left to the process that claims it first.

        Args:
            config: Its `RunConfig`, or the JSON of one.
            background: Whether another process continues it when this one ends.
            idempotency: The caller's key of the request, unique within the tenant.
            digest: Hash of the request, which tells a repeated one from another with the same key.

        Raises:
            DuplicateRequest: The tenant's request with this key has created a run before; nothing is created.
            UserError: There is a run of that name.
        """
        return self.save(run_id, RunWrites(NewRun(config, tenant, background, status, idempotency, digest)))

    async def claim_run(self, run_id: str, *, allowed: Collection[RunStatus] = (), adopting: bool = False) -> None:
        """Claim an existing run for this process; of several that try concurrently, one succeeds.

        Args:
            allowed: Stored statuses of a run that may be claimed; empty is any. A run whose process was killed is
                stored as "running".
            adopting: Whether the process takes it over by itself, which is counted if another one died with it
                (`RunRecord.adoptions`); at a caller's request the count begins again.

        Raises:
            UnknownName: There is no such run.
            RunConflict: Another living process works on it.
            UserError: It has another status.
        """

        def claim(db: Connection) -> None:
            status, owner, liveness = self.lock(db, run_id)
            if allowed and status not in allowed:
                raise UserError(f"run {run_id} is {status}", hint="check its status and retry")
            other = None if owner == self.ownership.owner else owner
            if other is not None and not self.ownership.is_free(other, liveness):
                raise RunConflict(
                    f"run {run_id} is in use by {_described(other)}", hint="wait until it ends, or cancel it"
                )
            db.write(
                # a process that adopts a background run does what its killed one was asked to do: answer now
                "UPDATE runs SET owner = ?, status = 'running', cancel_requested = 0, "
                "answer_requested = answer_requested * background, adoptions = adoptions * ? + ?, updated = ? "
                "WHERE id = ?",
                (self.ownership.owner, int(adopting), int(adopting and other is not None), time.time(), run_id),
            )
            db.forget_owner(run_id)

        await self.commits.write(claim)

    async def release_run(
        self, run_id: str, status: Literal["queued", "waiting", "interrupted", "failed"] = "queued"
    ) -> None:
        """Give up a run of this process, charging nothing.

        Args:
            status: "queued" leaves it to the process that claims it next, unless its cancellation was requested: then
                it is "interrupted".
        """

        def release(db: Connection) -> None:
            self.ownership.check(db, run_id)
            if_cancelled = "interrupted" if status == "queued" else status
            db.write(
                "UPDATE runs SET status = CASE cancel_requested WHEN 0 THEN ? ELSE ? END, owner = NULL, "
                "answer_requested = answer_requested * ?, updated = ? WHERE id = ?",
                (status, if_cancelled, int(status == "queued"), time.time(), run_id),
            )
            db.forget_owner(run_id)

        await self.commits.write(release, run_id)

    def end_run(
        self,
        run_id: str,
        status: RunStatus,
        answer: Answer | Mapping[str, JsonValue] | None = None,
        error: Mapping[str, JsonValue] | None = None,
        *,
        events: Sequence[Event] = (),
    ) -> asyncio.Future[None]:
        """Record how a run ended, with its last events, charge its tenant and release it, all at once.

        The tenant is charged for what was paid since the run was claimed: the answer's tokens and dollars without those
        that the store answered; and, if the run was resumed after its process was killed, for the stored calls that
        were never charged. A run that has ended already is not charged again.
        """
        return self.save(run_id, RunWrites(events=list(events), end=RunEnd(status, answer, error)))

    def save(self, run_id: str, writes: RunWrites) -> asyncio.Future[None]:
        """Write all of it in one transaction, as the methods for its parts do.

        The writes belong to the store from then on.
        """

        def write(db: Connection) -> None:
            now = time.time()
            if writes.creation is None:
                self.ownership.check(db, run_id)
                if writes.identities is not None:
                    db.write("UPDATE runs SET identities = ? WHERE id = ?", (to_json(writes.identities), run_id))
            else:
                self._create(db, run_id, writes, now)
            if writes.calls or writes.copies:
                _add_calls(db, run_id, writes.calls, writes.copies, now)
            if writes.events:
                db.write(_ADD_EVENTS, *_event_rows(run_id, writes.events))
            for operation in writes.operations:
                operation(db)
            if writes.end is not None and writes.creation is None:
                _end(db, run_id, writes.end, now)

        return self.commits.write(write, run_id if writes.creation is None else None, durable=writes.durable)

    def _create(self, db: Connection, run_id: str, writes: RunWrites, now: float) -> None:
        """Add the row of a run, as it is after all writes."""
        new, end = writes.creation, writes.end
        assert new is not None
        owner = None if end is not None or (new.background and new.status == "queued") else self.ownership.owner
        status: RunStatus = new.status
        tokens, usd, error, answer = 0, 0.0, None, None
        if end is not None:
            status, error, answer = end.status, to_json(end.error), to_json(end.answer)
            tokens, usd = _paid_now(end.answer)
            stored = [_cost_of(call.response) for call in writes.calls]
            tokens, usd = max(tokens, sum(t for t, _ in stored)), max(usd, math.fsum(u for _, u in stored))
        created = db.execute(
            _CREATE,
            (
                run_id,
                now,
                now,
                status,
                owner,
                new.tenant,
                int(new.background),
                new.idempotency,
                new.digest,
                int(end is not None),
                tokens,
                usd,
                error,
                *question_columns(run_id, new.config),
                *answer_columns(None if end is None else end.answer),
                to_json(new.config),
                "{}" if writes.identities is None else to_json(writes.identities),
                answer,
            ),
        )
        if not created:
            existing = None if new.idempotency is None else find_request(db, new.tenant, new.idempotency)
            if existing is not None:
                raise DuplicateRequest(existing[0], existing[1] == new.digest)
            raise UserError(f"there is a run {run_id} already", hint="choose another name")
        db.forget_owner(run_id)
        if end is not None:
            db.write(_SPEND, (new.tenant, spending_day(now), tokens, usd, 1))

    async def delete_run(self, run_id: str, *, only_ended: bool = False) -> None:
        """Delete a run with its calls, events and checkpoints; its spending stays recorded.

        Args:
            only_ended: Whether to refuse a run that a process executes, or a background run that one will continue.

        Raises:
            UnknownName: With `only_ended`, there is no such run.
            RunConflict: With `only_ended`, it has not ended.
        """

        def delete(db: Connection) -> None:
            if only_ended and not self._has_ended(db, run_id):
                raise RunConflict(f"run {run_id} has not ended", hint="cancel it first")
            _delete_run(db, run_id)

        await self.commits.write(delete)

    async def prune_runs(self, *, before: float) -> int:
        """Delete some of the oldest runs that have ended or wait; call it again until it deletes none.

        Args:
            before: Runs that were last written before this time are deleted, in seconds since the epoch.

        Returns:
            Number of runs deleted, in one short transaction.
        """

        def prune(db: Connection) -> int:
            position: Row = (-1.0, "")
            while True:
                rows = db.execute(
                    "SELECT created, id FROM runs WHERE (created, id) > (?, ?) AND created < ? AND updated < ? "  # noqa: S608
                    "AND (status NOT IN ('queued', 'running') "
                    f"OR (background = 0 AND (owner IS NULL OR (owner <> ? AND NOT ({self.ownership.liveness}))))) "
                    "ORDER BY created, id LIMIT ?",
                    (*position, before, before, self.ownership.owner, PRUNE_PAGE),
                )
                ended = [run_id for _, run_id in rows if self._has_ended(db, run_id)]
                for run_id in ended:
                    _delete_run(db, run_id)
                if ended or len(rows) < PRUNE_PAGE:
                    return len(ended)
                position = rows[-1]  # a run whose owner is assumed alive must not block the pruning of later ones

        return await self.commits.write(prune)

    def _has_ended(self, db: Connection, run_id: str) -> bool:
        """Whether no process executes a run, and none will continue it; locks it until the transaction ends."""
        status, owner, liveness = self.lock(db, run_id)
        if status not in ("queued", "running"):
            return True
        ((background,),) = db.execute("SELECT background FROM runs WHERE id = ?", (run_id,))
        return not background and self.ownership.is_free(owner, liveness)

    # -- queries of runs

    async def get_run(self, run_id: str, *, tenant: str | None = None, exact: bool = False) -> RunRecord:
        """A run by its name or a unique prefix of it.

        Args:
            tenant: The tenant that must own it; None is any.

        Raises:
            UnknownName: There is none, or another tenant owns it.
            UserError: Several names have this prefix.
        """
        return await self.commits.read(lambda db: self._get(db, run_id, tenant, exact))

    def _get(self, db: Connection, run_id: str, tenant: str | None, exact: bool) -> RunRecord:
        condition, values = ("", ()) if tenant is None else (" AND tenant = ?", (tenant,))
        runs: list[RunRecord] = []
        if run_id and "\0" not in run_id:
            runs = self.select(db, f"id = ?{condition}", (run_id, *values))
            if not runs and not exact:
                prefixed = f"id >= ? AND id < ?{condition} ORDER BY id LIMIT 2"
                runs = self.select(db, prefixed, (run_id, run_id + LAST, *values))
        if not runs:
            raise UnknownName("run", run_id, hint=_LIST_HINT)
        if len(runs) > 1:
            raise UserError(f"several runs begin with {run_id!r}", hint="give more of the name")
        return runs[0]

    def select(self, db: Connection, condition: str, values: Sequence[Any]) -> list[RunRecord]:
        """The runs of a condition in SQL; what this store wrote is not validated again."""
        sql = f"SELECT {self.listed_columns}, idempotency, config, identities, answer FROM runs WHERE {condition}"  # noqa: S608
        return [
            RunRecord.model_construct(
                **self._listed(row),
                idempotency=idempotency,
                config=json.loads(config),
                identities=json.loads(identities),
                answer=json.loads(answer) if answer else None,
            )
            for row in db.execute(sql, values)
            for idempotency, config, identities, answer in [row[-4:]]
        ]

    async def list_runs(self, limit: int = 50) -> list[ListedRun]:
        """The newest runs."""
        sql = f"SELECT {self.listed_columns} FROM runs ORDER BY created DESC, id DESC LIMIT ?"  # noqa: S608
        rows = await self.commits.read(lambda db: db.execute(sql, (limit,)))
        return [self.listed(row) for row in rows]

    @property
    def listed_columns(self) -> str:
        """What `listed` reads of a row."""
        return f"{LISTED_COLUMNS}, {self.ownership.liveness} AS liveness"

    def listed(self, row: Sequence[Any]) -> ListedRun:
        """A run from a row that begins with `listed_columns`; what this store wrote is not validated again."""
        return ListedRun.model_construct(**self._listed(row))

    # -- calls and events

    async def find_calls(self, run_id: str, keys: Sequence[str], *, any_run: bool = False) -> dict[str, StoredCall]:
        """The stored calls among `keys`: of this run, and with `any_run` of all others of its tenant."""
        if not keys:
            return {}

        if any_run:
            await self._index_keys()

        def find(db: Connection) -> dict[str, StoredCall]:
            calls: dict[str, StoredCall] = {}
            condition, values = (_OF_TENANT, (run_id, run_id)) if any_run else ("calls.run_id = ?", (run_id,))
            for start in range(0, len(keys), MAX_PARAMETERS):
                some = keys[start : start + MAX_PARAMETERS]
                marks = ",".join("?" * len(some))
                rows = db.execute(
                    f"SELECT {_CALL}, calls.run_id FROM {_CALLS} WHERE key IN ({marks}) AND {condition}",  # noqa: S608
                    (*some, *values),
                )
                rows.sort(key=lambda row: bool(row[-1] == run_id))  # this run's own come last and win
                calls |= {row[0]: _call(row[:-1]) for row in rows}
            return calls

        return await self.commits.read(find)

    async def list_calls(self, run_id: str) -> list[StoredCall]:
        """All stored calls of a run, by key."""
        rows = await self.commits.read(
            lambda db: db.execute(
                f"SELECT {_CALL} FROM {_CALLS} WHERE calls.run_id = ? ORDER BY key",  # noqa: S608
                (run_id,),
            )
        )
        return [_call(row) for row in rows]

    async def copied_call_keys(self, run_id: str) -> frozenset[str]:
        """Keys of the calls that another run had stored before: this run copied them and paid nothing."""
        sql = (
            "SELECT key FROM calls AS mine WHERE run_id = ? AND EXISTS (SELECT 1 FROM calls AS theirs "
            "WHERE theirs.key = mine.key AND theirs.run_id <> mine.run_id AND theirs.created < mine.created)"
        )
        await self._index_keys()
        return frozenset(row[0] for row in await self.commits.read(lambda db: db.execute(sql, (run_id,))))

    async def _index_keys(self) -> None:
        """Index the calls of all runs by key before the first query across runs.

        In a file, storing a call takes several times as long with the index, since keys are random; most need none.
        """
        if not self._has_key_index:
            await self.commits.write(lambda db: db.write("CREATE INDEX IF NOT EXISTS calls_key ON calls (key)", ()))
            self._has_key_index = True

    async def list_events(self, run_id: str, *, after: int = 0, limit: int | None = None) -> list[Event]:
        """Stored events of a run with a number above `after`, in order."""
        # parsed on the store's thread, so that a long trace does not block the event loop
        return await self.commits.read(lambda db: _read_events(db, run_id, after, limit))

    async def aclose(self) -> None:
        """Close the store; idempotent."""
        await self.commits.aclose()

    # -- rows of runs

    def _listed(self, row: Sequence[Any]) -> dict[str, Any]:
        """The fields of a `ListedRun` from a row that begins with `LISTED_COLUMNS` and the owner's liveness."""
        fields = dict(zip(ListedRun.model_fields, row, strict=False))
        owner, liveness = fields["owner"], row[_LIVENESS]
        is_active = fields["status"] == "running" or (fields["status"] == "queued" and owner is not None)
        if is_active and not (owner and self.ownership.is_alive(owner, liveness)):
            fields["status"] = "interrupted"  # its process was killed before it could record that
        for name in ("background", "cancel_requested", "answer_requested"):
            fields[name] = bool(fields[name])
        for name in ("error", "models", "metadata"):
            fields[name] = json.loads(fields[name]) if fields[name] else None
        return fields

    def lock(self, db: Connection, run_id: str) -> tuple[str, str | None, Any]:
        """Status, owner and liveness of a run, locked until the transaction ends.

        Two statements: one that had to wait for another transaction would see the new owner, but not yet its liveness.
        """
        if not db.execute(f"SELECT id FROM runs WHERE id = ?{self.ownership.lock}", (run_id,)):  # noqa: S608
            raise UnknownName("run", run_id, hint=_LIST_HINT)
        ((status, owner, liveness),) = db.execute(
            f"SELECT status, owner, {self.ownership.liveness} FROM runs WHERE id = ?",  # noqa: S608
            (run_id,),
        )
        return status, owner, liveness


def to_json(value: Any) -> str | None:
    """JSON that every database takes; None stays None."""
    if value is None:
        return None
    if isinstance(value, EncodedOnce):
        return value.encoded().decode()
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    text = value if isinstance(value, JsonText) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # a lone surrogate, which JSON can escape and UTF-8 cannot encode
            return json.dumps(json.loads(text), separators=(",", ":"))
    return text


_LIVENESS = len(ListedRun.model_fields)
"""Index of the owner's liveness in a row of runs."""
_CALLS = "calls LEFT JOIN requests ON requests.run_id = calls.run_id AND requests.digest = calls.request_digest"
_CALL = "calls.key, calls.role, calls.model, calls.request, calls.response, calls.truncated, requests.request AS shared"
_ADD_REQUESTS = "INSERT INTO requests (run_id, digest, request) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_ADD_CALLS = (
    "INSERT INTO calls (run_id, key, role, model, request, request_digest, response, truncated, created, tokens, usd) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
# a batch that is written again may have grown
_ADD_EVENTS = (
    "INSERT INTO events (run_id, number, events) VALUES (?, ?, ?) ON CONFLICT (run_id, number) "
    "DO UPDATE SET events = excluded.events WHERE LENGTH(excluded.events) > LENGTH(events.events)"
)
_EVENTS = "SELECT events FROM events WHERE run_id = ? AND number > ? ORDER BY number LIMIT ?"
_OF_TENANT = (
    "(calls.run_id = ? OR (truncated = 0 AND EXISTS (SELECT 1 FROM runs AS mine, runs AS theirs "
    "WHERE mine.id = ? AND theirs.id = calls.run_id AND theirs.tenant = mine.tenant)))"
)


def _larger(now: str, stored: str) -> str:
    return f"(CASE WHEN {now} > {stored} THEN {now} ELSE {stored} END)"


# Stored and never charged: paid by a process that was killed. Charged and never stored: the generated part of a sample
# that was cancelled with the run. Each expression takes the amount paid now twice.
_TOKENS = _larger(
    "(charged_tokens + CAST(? AS BIGINT))",
    "(SELECT CAST(COALESCE(SUM(calls.tokens), 0) AS BIGINT) FROM calls WHERE calls.run_id = runs.id)",
)
# An answer has the cost of all its tokens: only the first time that a run ends was all of it paid now.
_USD = _larger(
    "(charged_usd + CASE counted WHEN 0 THEN CAST(? AS DOUBLE PRECISION) ELSE 0 END)",
    "(SELECT COALESCE(SUM(calls.usd), 0) FROM calls WHERE calls.run_id = runs.id)",
)
_SPEND = (
    "INSERT INTO spending (tenant, day, tokens, usd, runs) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (tenant, day) DO UPDATE SET tokens = spending.tokens + excluded.tokens, "
    "usd = spending.usd + excluded.usd, runs = spending.runs + excluded.runs"
)
# the database computes itself what is added
_SPEND_MORE = _SPEND.replace(
    "VALUES (?, ?, ?, ?, ?)",
    f"SELECT tenant, CAST(? AS TEXT), {_TOKENS} - charged_tokens, {_USD} - charged_usd, 1 - counted FROM runs "  # noqa: S608
    "WHERE id = ?",
)
_END = (
    f"UPDATE runs SET charged_tokens = {_TOKENS}, charged_usd = {_USD}, counted = 1, status = ?, answer = ?, "  # noqa: S608
    f"error = ?, {', '.join(f'{column} = ?' for column in ANSWER_COLUMNS.split(', '))}, owner = NULL, "
    "cancel_requested = 0, answer_requested = 0, updated = ? WHERE id = ?"
)
_CREATE = (
    "INSERT INTO runs (id, created, updated, status, owner, tenant, background, idempotency, digest, counted, "  # noqa: S608
    f"charged_tokens, charged_usd, error, {QUESTION_COLUMNS}, {ANSWER_COLUMNS}, config, identities, answer) "
    f"VALUES ({', '.join('?' * 29)}) ON CONFLICT DO NOTHING RETURNING id"
)


def _paid_now(answer: Answer | Mapping[str, JsonValue] | None) -> tuple[int, float]:
    """Tokens paid since the run was claimed, by its answer; and dollars, if nothing of it was replayed."""
    if isinstance(answer, Answer):
        used = answer.usage
        is_replayed = used.replayed_tokens or used.replayed_calls
        return max(0, used.completion_tokens - used.replayed_tokens), 0.0 if is_replayed else used.cost_usd or 0.0
    usage = (answer or {}).get("usage")
    if not isinstance(usage, dict):
        return 0, 0.0
    tokens = _number(usage.get("completion_tokens")) - _number(usage.get("replayed_tokens"))
    replayed = usage.get("replayed_tokens") or usage.get("replayed_calls")
    return max(0, int(tokens)), 0.0 if replayed else _number(usage.get("cost_usd"))


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) else 0.0


def spending_day(at: float) -> str:
    """The UTC day of a time, as the table `spending` names it."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")


def _described(owner: str) -> str:
    host, pid, _ = owner.rsplit(":", 2)
    return f"process {pid} on {host}"


def _delete_run(db: Connection, run_id: str) -> None:
    for table in ("checkpoints", "checkpoint_writes"):
        db.write(f"DELETE FROM {table} WHERE thread_id = ?", (run_id,))  # noqa: S608
    db.write("DELETE FROM runs WHERE id = ?", (run_id,))
    db.forget_owner(run_id)


def find_request(db: Connection, tenant: str, idempotency: str) -> tuple[str, str] | None:
    """Name and digest of the run that a tenant's request with this key has created; None if there is none."""
    rows = db.execute("SELECT id, digest FROM runs WHERE tenant = ? AND idempotency = ?", (tenant, idempotency))
    return (rows[0][0], rows[0][1]) if rows else None


def _add_calls(
    db: Connection, run_id: str, calls: Sequence[NewCall | StoredCall], copies: Sequence[StoredCall], now: float
) -> None:
    requests: dict[int, tuple[str, str | None]] = {}
    """JSON and digest of requests, by identity: the samples of a request have one object."""
    rows, long = [], {}
    for call, paid in (*((call, True) for call in calls), *((call, False) for call in copies)):
        own, digest = dict(call.request), None
        shared = own.pop("request", None)
        if shared is None:
            text = to_json(call.request)
        else:
            if id(shared) not in requests:
                requests[id(shared)] = _shared_request(shared)
            text, digest = requests[id(shared)]
            if digest is None:
                text = f'{{"request":{text}{"," if own else ""}{str(to_json(own))[1:]}'
            else:
                long[digest], text = text, to_json(own)
        cost = _cost_of(call.response) if paid else (0, 0.0)
        response = to_json(call.response)
        rows.append((run_id, call.key, call.role, call.model, text, digest, response, int(call.truncated), now, *cost))
    if long:
        db.write(_ADD_REQUESTS, *((run_id, digest, text) for digest, text in long.items()))
    db.write(_ADD_CALLS, *rows)


def _shared_request(request: JsonText | JsonValue) -> tuple[str, str | None]:
    """JSON of a request; and its digest if it is long, and so stored once."""
    text = str(to_json(request))
    is_long = len(text) >= MIN_SHARED_CHARS
    return text, hashlib.sha256(text.encode()).hexdigest() if is_long else None


def _call(row: Sequence[Any]) -> StoredCall:
    key, role, model, request, response, truncated, shared = row
    described = json.loads(request)
    if shared is not None:
        described = {"request": json.loads(shared), **described}
    return StoredCall.model_construct(
        key=key,
        role=role,
        model=model,
        request=described,
        response=json.loads(response),
        truncated=bool(truncated),
    )


def _cost_of(response: Completion | Mapping[str, JsonValue]) -> tuple[int, float]:
    """Generated tokens and dollars of a response; 0 where it has none."""
    if isinstance(response, Completion):
        return response.usage.completion_tokens, response.usage.cost_usd or 0.0
    usage = response.get("usage")
    if not isinstance(usage, dict):
        return 0, 0.0
    tokens, usd = usage.get("completion_tokens"), usage.get("cost_usd")
    return (
        tokens if isinstance(tokens, int) else 0,
        float(usd) if isinstance(usd, int | float) else 0.0,
    )


def append_events(db: Connection, run_id: str, events: Sequence[Event]) -> None:
    """Add events after the last one of a run that no process executes, whose row is locked."""
    ((last,),) = db.execute("SELECT COALESCE(MAX(number), 0) FROM events WHERE run_id = ?", (run_id,))
    numbered = [
        event.stamped(number=last + i, parent=None, run_id=run_id, at_s=0.0) for i, event in enumerate(events, 1)
    ]
    db.write(_ADD_EVENTS, *_event_rows(run_id, numbered))


def _event_rows(run_id: str, events: Sequence[Event]) -> list[Row]:
    """Rows of several events each, which have the number of their last event."""
    events = sorted(events, key=lambda event: event.number)
    batches = [events[start : start + MAX_EVENTS] for start in range(0, len(events), MAX_EVENTS)]
    return [(run_id, batch[-1].number, f"[{b','.join(e.encoded() for e in batch).decode()}]") for batch in batches]


def _read_events(db: Connection, run_id: str, after: int, limit: int | None) -> list[Event]:
    events: list[Event] = []
    while limit is None or len(events) < limit:
        rows = db.execute(_EVENTS, (run_id, after, MAX_EVENT_ROWS))
        for (text,) in rows:
            for event in _parsed_events(text):
                if event.number > after:  # a batch whose write was repeated may have events of the previous one
                    after = event.number
                    events.append(event)
        if len(rows) < MAX_EVENT_ROWS:
            break
    return events[:limit]


def _parsed_events(text: str) -> list[Event]:
    try:
        return EVENTS_ADAPTER.validate_json(text)
    except ValueError:  # an escaped lone surrogate
        return EVENTS_ADAPTER.validate_python(json.loads(text))


def _end(db: Connection, run_id: str, end: RunEnd, now: float) -> None:
    """Charge a run and set its end: two statements that return nothing, since a database may be far away."""
    tokens, usd_if_first = _paid_now(end.answer)
    paid = (tokens, tokens, usd_if_first, usd_if_first)
    db.write(_SPEND_MORE, (spending_day(now), *paid, run_id))
    error, answer = to_json(end.error), to_json(end.answer)
    db.write(_END, (*paid, end.status, answer, error, *answer_columns(end.answer), now, run_id))
    db.forget_owner(run_id)
