"""`RunCoordinator`: what the processes of a server request of one another about runs, through the run store."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..core.errors import RunConflict
from ..core.run import RunConfig
from ..core.store.group_commit import Connection
from ..core.store.records import RunRecord
from ..core.store.sql import MAX_PARAMETERS, RunStore, find_request

_PROBE_BYTES = 16 << 10
"""What `check_writable` writes: about as much as a small run."""
_CLAIMABLE_PAGE = 50
_PENDING = (
    "SELECT id FROM tool_calls WHERE run_id = ? "
    "AND (status = 'proposed' OR (status = 'started' AND effect = 'write')) LIMIT 1"
)


class RequestedStops(NamedTuple):
    """Runs that their process was asked to cancel, and those that it was asked to answer now."""

    cancelled: frozenset[str]
    answered: frozenset[str]


class RunCoordinator:
    """Requests to cancel a run, to answer now, and to adopt the runs of processes that have ended.

    All methods raise `StoreError` if the store fails.
    """

    def __init__(self, runs: RunStore) -> None:
        self._runs = runs

    async def find_request(self, tenant: str, idempotency: str) -> tuple[str, str] | None:
        """Name and digest of the run that a tenant's request with this key has created; None if there is none."""
        return await self._runs.commits.read(lambda db: find_request(db, tenant, idempotency))

    async def list_claimable(self, limit: int) -> list[RunRecord]:
        """Background runs without a living owner: queued ones, and those whose process was killed.

        Those that were adopted least often come first, of these the oldest.
        """
        page = max(limit, _CLAIMABLE_PAGE)

        def listed(db: Connection) -> list[RunRecord]:
            claimable: list[RunRecord] = []
            after: tuple[int, float, str] = (-1, 0.0, "")
            while len(claimable) < limit:
                records = self._runs.select(
                    db,
                    "background = 1 AND status IN ('queued', 'running') AND (adoptions, created, id) > (?, ?, ?) "
                    "ORDER BY adoptions, created, id LIMIT ?",
                    (*after, page),
                )
                # a run without a living owner is interrupted, unless it is queued and has never had one
                claimable += [r for r in records if r.owner is None or r.status == "interrupted"]
                if len(records) < page:
                    break
                after = records[-1].adoptions, records[-1].created, records[-1].id
            return claimable[:limit]

        return await self._runs.commits.read(listed)

    async def request_cancel(self, run_id: str) -> None:
        """Ask the owner of a run to cancel it; a run without an owner becomes interrupted at once.

        A run that has ended stays as it is.

        Raises:
            UnknownName: There is no such run.
        """

        def request(db: Connection) -> None:
            status, owner, liveness = self._runs.lock(db, run_id)
            if status not in ("queued", "running"):
                return
            if self._runs.ownership.is_free(owner, liveness):
                sql = "UPDATE runs SET status = 'interrupted', owner = NULL, updated = ? WHERE id = ?"
                db.write(sql, (time.time(), run_id))
                db.forget_owner(run_id)
            db.write("UPDATE runs SET cancel_requested = 1 WHERE id = ?", (run_id,))

        await self._runs.commits.write(request)

    async def request_answer(self, run_id: str) -> None:
        """Ask the owner of a run to answer now, or the process that claims it next.

        A run that has ended stays as it is.

        Raises:
            UnknownName: There is no such run.
        """

        def request(db: Connection) -> None:
            status, _, _ = self._runs.lock(db, run_id)
            if status in ("queued", "running"):
                db.write("UPDATE runs SET answer_requested = 1 WHERE id = ?", (run_id,))

        await self._runs.commits.write(request)

    async def queue_waiting(self, run_id: str, *, answer_now: bool = False) -> None:
        """Queue a waiting run for any process, unless a call needs something; one that does not wait stays as it is.

        Args:
            answer_now: Whether to ask for its answer.
        """

        def queue(db: Connection) -> None:
            status, _, _ = self._runs.lock(db, run_id)
            if status == "waiting" and not db.execute(_PENDING, (run_id,)):
                sql = (
                    "UPDATE runs SET status = 'queued', background = 1, adoptions = 0, answer_requested = ?, "
                    "updated = ? WHERE id = ?"
                )
                db.write(sql, (int(answer_now), time.time(), run_id))

        await self._runs.commits.write(queue)

    async def count_waiting(self) -> int:
        """Number of runs in the store that wait for decisions about tool calls or for their results."""
        sql = "SELECT COUNT(*) FROM runs WHERE status = 'waiting'"
        ((count,),) = await self._runs.commits.read(lambda db: db.execute(sql))
        return int(count)

    def must_follow(self, run_id: str, config: RunConfig) -> Callable[[Connection], None]:
        """An operation of a new run's transaction that removes it unless its parent is the conversation's last run.

        It raises `RunConflict` if the parent is not, or has not finished: of two questions at once, one is asked.
        """
        of_caller = config.conversation, config.tenant
        sql = (
            "SELECT id, status FROM runs WHERE conversation = ? AND tenant = ? AND id <> ? "
            "ORDER BY created DESC, id DESC LIMIT 1"
        )

        def check(db: Connection) -> None:
            is_free = True
            if self._runs.ownership.lock:  # Postgres, where other processes may be in the same transaction
                lock = "SELECT pg_try_advisory_xact_lock(hashtext(?))"
                ((is_free,),) = db.execute(lock, (":".join(of_caller),))
            last, status = [*db.execute(sql, (*of_caller, run_id)), ("", "finished")][0]
            if is_free and last == config.parent and status == "finished":
                return
            db.write("DELETE FROM runs WHERE id = ?", (run_id,))
            if status == "finished":
                raise RunConflict("another question of the conversation was faster", hint="ask again")
            hint = "wait until it has ended; decide about, resume or delete one that does not go on by itself"
            raise RunConflict(f"run {last} of the conversation is {status}", hint=hint)

        return check

    async def requested(self, run_ids: Sequence[str]) -> RequestedStops:
        """What was requested of these runs."""

        def read(db: Connection) -> RequestedStops:
            rows = []
            for start in range(0, len(run_ids), MAX_PARAMETERS):
                some = run_ids[start : start + MAX_PARAMETERS]
                rows += db.execute(
                    "SELECT id, cancel_requested, answer_requested FROM runs "  # noqa: S608
                    f"WHERE cancel_requested + answer_requested > 0 AND id IN ({','.join('?' * len(some))})",
                    some,
                )
            return RequestedStops(
                frozenset(run_id for run_id, is_cancelled, _ in rows if is_cancelled),
                frozenset(run_id for run_id, _, is_answered in rows if is_answered),
            )

        return await self._runs.commits.read(read)

    async def check_writable(self) -> None:
        """Write as much as a small run does, and overwrite it the next time.

        Raises:
            StoreError: The store cannot be written: it is unreachable or read-only, or its disk is full.
        """
        probe = secrets.token_hex(_PROBE_BYTES // 2)  # random: Postgres compresses
        sql = "INSERT INTO meta VALUES ('probe', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
        await self._runs.commits.write(lambda db: db.write(sql, (probe,)))
