"""`SqlStore`: the run store over any SQL database, as JSON and never pickle."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from pydantic import JsonValue

from ..api_keys import ApiKey
from ..events import EventFields
from ..store import RunRecord, RunStatus, Spent, StoredCall, StoredCheckpoint
from . import accounts, replies, runs, stages
from .group_commit import Connection, GroupCommit, Row


class SqlStore:
    """The run store's operations; where they are done is the part of those that inherit.

    Each operation is one function on the store's thread, and writes of several runs are one transaction (see
    `GroupCommit`). Values are made JSON before, on the caller's side.

    Args:
        commits: The database's thread.
        tenure: How the database knows who works on a run.
    """

    def __init__(self, commits: GroupCommit, tenure: runs.Tenure) -> None:
        self._commits = commits
        self._tenure = tenure

    @property
    def transactions(self) -> int:
        """How many transactions this store has committed."""
        return self._commits.transactions

    # -- runs

    async def create_run(
        self,
        run_id: str,
        config: dict[str, JsonValue],
        *,
        tenant: str = "",
        background: bool = False,
        status: Literal["queued", "running"] = "running",
        idempotency: str | None = None,
        digest: str = "",
    ) -> None:
        """See `RunStore`."""
        text = runs.to_json(config)

        def create(db: Connection) -> None:
            runs.create(
                db,
                self._tenure,
                run_id,
                text,
                tenant=tenant,
                background=background,
                status=status,
                idempotency=idempotency,
                digest=digest,
            )

        await self._commits.write(create)

    async def find_request(self, tenant: str, idempotency: str) -> tuple[str, str] | None:
        """See `RunStore`."""
        return await self._commits.read(lambda db: runs.find_request(db, tenant, idempotency))

    async def take_run(self, run_id: str, *, only: Collection[RunStatus] = ()) -> None:
        """See `RunStore`."""
        await self._commits.write(lambda db: runs.take(db, self._tenure, run_id, only))

    async def release_run(self, run_id: str, status: Literal["queued", "interrupted", "failed"] = "queued") -> None:
        """See `RunStore`."""
        await self._commits.write(lambda db: runs.release(db, self._tenure, run_id, status), run_id)

    async def adoptable(self, limit: int) -> list[RunRecord]:
        """See `RunStore`."""
        return await self._commits.read(lambda db: runs.adoptable(db, self._tenure, limit))

    async def request_cancel(self, run_id: str) -> None:
        """See `RunStore`."""
        await self._commits.write(lambda db: runs.request_cancel(db, self._tenure, run_id))

    async def cancel_requested(self, run_ids: Sequence[str]) -> frozenset[str]:
        """See `RunStore`."""
        if not run_ids:
            return frozenset()
        return await self._commits.read(lambda db: runs.cancel_requested(db, run_ids))

    async def set_identities(self, run_id: str, identities: dict[str, JsonValue]) -> None:
        """See `RunStore`."""
        await self._commits.write(lambda db: runs.set_identities(db, self._tenure, run_id, identities), run_id)

    async def end_run(
        self,
        run_id: str,
        status: RunStatus,
        answer: dict[str, JsonValue] | None = None,
        error: dict[str, JsonValue] | None = None,
        *,
        events: Sequence[EventFields] = (),
    ) -> None:
        """See `RunStore`."""
        texts = runs.to_json(answer), runs.to_json(error)
        rows = replies.event_rows(run_id, events)

        def end(db: Connection) -> None:
            accounts.end_run(db, self._tenure, run_id, status, answer, texts)
            if rows:
                replies.add_events(db, rows)

        await self._commits.write(end, run_id)

    async def get_run(self, run_id: str, *, tenant: str | None = None, exact: bool = False) -> RunRecord:
        """See `RunStore`."""
        return await self._commits.read(lambda db: runs.get(db, self._tenure, run_id, tenant=tenant, exact=exact))

    async def list_runs(
        self,
        limit: int = 50,
        *,
        tenant: str | None = None,
        before: str | None = None,
        status: RunStatus | None = None,
    ) -> list[RunRecord]:
        """See `RunStore`."""
        return await self._commits.read(
            lambda db: runs.newest(db, self._tenure, limit, tenant=tenant, before=before, status=status)
        )

    async def delete_run(self, run_id: str) -> None:
        """See `RunStore`."""
        await self._commits.write(lambda db: runs.delete(db, run_id))

    # -- calls and events

    async def find_calls(self, run_id: str, keys: Sequence[str], *, any_run: bool = False) -> dict[str, StoredCall]:
        """See `RunStore`."""
        if not keys:
            return {}
        return await self._commits.read(lambda db: replies.find(db, run_id, keys, any_run=any_run))

    async def add_calls(self, run_id: str, calls: Sequence[StoredCall], *, paid: bool = True) -> None:
        """See `RunStore`."""
        await self._add(run_id, replies.call_rows(run_id, calls, paid=paid), replies.add)

    async def count_calls(self, run_id: str) -> int:
        """See `RunStore`."""
        return await self._commits.read(lambda db: replies.count(db, run_id))

    async def calls(self, run_id: str) -> list[StoredCall]:
        """See `RunStore`."""
        return await self._commits.read(lambda db: replies.all_of(db, run_id))

    async def keys_paid_before(self, run_id: str) -> frozenset[str]:
        """See `RunStore`."""
        return await self._commits.read(lambda db: replies.keys_paid_before(db, run_id))

    async def add_events(self, run_id: str, events: Sequence[EventFields]) -> None:
        """See `RunStore`."""
        await self._add(run_id, replies.event_rows(run_id, events), replies.add_events)

    async def events(self, run_id: str, *, after: int = 0, limit: int | None = None) -> list[EventFields]:
        """See `RunStore`."""
        return await self._commits.read(lambda db: replies.events(db, run_id, after, limit))

    async def _add(self, run_id: str, rows: list[Row], add: replies.Adds) -> None:
        if not rows:
            return

        def checked(db: Connection) -> None:
            runs.check_mine(db, self._tenure, run_id)
            add(db, rows)

        await self._commits.write(checked, run_id)

    # -- spending and keys

    async def spent(self, tenant: str, since: float) -> Spent:
        """See `RunStore`."""
        return await self._commits.read(lambda db: accounts.spent(db, tenant, since))

    async def add_key(self, key: ApiKey) -> None:
        """See `RunStore`."""
        await self._commits.write(lambda db: accounts.add_key(db, key))

    async def list_keys(self) -> list[ApiKey]:
        """See `RunStore`."""
        return await self._commits.read(accounts.list_keys)

    async def find_key(self, key_id: str) -> ApiKey | None:
        """See `RunStore`."""
        return await self._commits.read(lambda db: accounts.find_key(db, key_id))

    async def revoke_key(self, key_id: str) -> ApiKey:
        """See `RunStore`."""
        return await self._commits.write(lambda db: accounts.revoke_key(db, key_id))

    # -- stage checkpoints

    async def put_checkpoint(self, run_id: str, checkpoint: StoredCheckpoint) -> None:
        """See `RunStore`."""

        def put(db: Connection) -> None:
            runs.check_mine(db, self._tenure, run_id)
            stages.put_checkpoint(db, run_id, checkpoint)

        await self._commits.write(put, run_id)

    async def checkpoint(self, run_id: str, namespace: str = "", *, only: str | None = None) -> StoredCheckpoint | None:
        """See `RunStore`."""
        return await self._commits.read(lambda db: stages.checkpoint(db, run_id, namespace, only))

    # -- the end

    async def aclose(self) -> None:
        """See `RunStore`."""
        await self._commits.aclose()
