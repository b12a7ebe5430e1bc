"""The durable run store's interface: what was asked, every model call that was paid for, and every event."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from typing import Literal, Protocol

from pydantic import JsonValue

from .api_keys import ApiKey
from .events import EventFields
from .messages import Frozen

RunStatus = Literal["queued", "running", "finished", "interrupted", "failed"]


class RunRecord(Frozen):
    """A run as the store has it.

    Attributes:
        id: Its name.
        created: When it began, seconds since the epoch.
        updated: When it was last written.
        status: "queued", "running", "finished", "interrupted" (cancelled, or its process was killed) or "failed".
        config: JSON of its `RunConfig`.
        identities: Identity and capabilities of each model by role, as JSON: enough to show the run without a model.
        answer: JSON of its `Answer`; None before the end.
        error: Code and message of what ended it.
        owner: Process that works on it; None if none does.
        tenant: Whose it is; empty where there are no tenants.
        background: Whether it goes on in another process when the one that works on it ends.
        idempotency: The caller's name for the request that made it.
        cancel_requested: Whether somebody has asked the process that works on it to stop it.
    """

    id: str
    created: float
    updated: float
    status: RunStatus
    config: dict[str, JsonValue]
    identities: dict[str, JsonValue]
    answer: dict[str, JsonValue] | None = None
    error: dict[str, JsonValue] | None = None
    owner: str | None = None
    tenant: str = ""
    background: bool = False
    idempotency: str | None = None
    cancel_requested: bool = False


class Spent(Frozen):
    """What a tenant has paid for.

    Attributes:
        tokens: Generated tokens; those answered by the store were not paid again.
        usd: US dollars, as far as prices are known.
        runs: Runs that have ended.
    """

    tokens: int = 0
    usd: float = 0.0
    runs: int = 0


class StoredCheckpoint(Frozen):
    """The state of a run's pipeline after one stage, as LangGraph numbers and names it.

    Attributes:
        namespace: Of a graph inside the graph; empty for the pipeline itself.
        id: Sorts by time.
        parent: The one before.
        kind: How `state` is written: "json".
        state: The checkpoint.
        metadata: What LangGraph says of it, JSON.
    """

    namespace: str
    id: str
    parent: str | None
    kind: str
    state: bytes
    metadata: bytes


class StoredCall(Frozen):
    """One paid reply.

    Attributes:
        key: Hash of model, request, seed and sample index.
        request: What was asked, for people to read.
        reply: What came back.
        cut: Whether time or a caller that had enough, not the request, ended it: then it answers no other run.
    """

    key: str
    role: str
    model: str
    request: dict[str, JsonValue]
    reply: dict[str, JsonValue]
    cut: bool = False


class RunStore(Protocol):
    """What the rest of `reason` needs of a store.

    All methods raise `StoreError` if the store fails. Those that write to a run raise it as well where another process
    has taken the run meanwhile: what they would have written is not.
    """

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
        """Note a new run and take it; a queued background run is left to whoever takes it first.

        Args:
            run_id: Its name.
            config: JSON of its `RunConfig`.
            tenant: Whose it is.
            background: Whether it goes on in another process when this one ends.
            status: Whether it begins now.
            idempotency: The caller's name for the request; each tenant has its own.
            digest: Hash of the request, to tell a repeated one from another under the same name.

        Raises:
            DuplicateRequest: The tenant's request of that name has made a run before; nothing is noted.
            UserError: There is a run of that name.
        """

    async def find_request(self, tenant: str, idempotency: str) -> tuple[str, str] | None:
        """Name and digest of the run that a tenant's request of that name has made; None if it has made none."""

    async def take_run(self, run_id: str, *, only: Collection[RunStatus] = ()) -> None:
        """Take an existing run for this process; of several that try at the same time, one succeeds.

        Args:
            run_id: Its name.
            only: What it must be noted as; empty is anything. One whose process is gone is noted as "running".

        Raises:
            UnknownName: There is no such run.
            UserError: Another living process works on it, or it is noted as something else.
        """

    async def release_run(self, run_id: str, status: Literal["queued", "interrupted", "failed"] = "queued") -> None:
        """Give a run of this process up as it is, charging nothing.

        Args:
            run_id: The run.
            status: "queued" leaves it to whoever takes it next; where it was to stop, it is "interrupted" instead.
        """

    async def adoptable(self, limit: int) -> list[RunRecord]:
        """Background runs that nobody works on, oldest first: queued ones, and those whose process is gone."""

    async def request_cancel(self, run_id: str) -> None:
        """Ask whoever works on a run to stop it; one that nobody works on is noted as interrupted at once.

        A run that has ended stays as it is.

        Raises:
            UnknownName: There is no such run.
        """

    async def cancel_requested(self, run_ids: Sequence[str]) -> frozenset[str]:
        """Those of the runs that somebody has asked to stop."""

    async def set_identities(self, run_id: str, identities: dict[str, JsonValue]) -> None:
        """Note which models the run uses."""

    async def end_run(
        self,
        run_id: str,
        status: RunStatus,
        answer: dict[str, JsonValue] | None = None,
        error: dict[str, JsonValue] | None = None,
        *,
        events: Sequence[EventFields] = (),
    ) -> None:
        """Note how the run ended, with its last events, charge its tenant and give it up, all at once.

        The tenant is charged for what was paid since the run was taken: the answer's tokens and dollars without those
        that the store answered; and, of a run that goes on after its process was killed, for the stored replies that
        were never charged. A run that has ended already is not charged again.
        """

    async def get_run(self, run_id: str, *, tenant: str | None = None, exact: bool = False) -> RunRecord:
        """The run of that name, or of the one name that begins so.

        Args:
            run_id: The name.
            tenant: Whose it must be; None is anybody's.
            exact: Whether the whole name is given.

        Raises:
            UnknownName: There is none, or it is another tenant's.
            UserError: Several names begin so.
        """

    async def list_runs(
        self,
        limit: int = 50,
        *,
        tenant: str | None = None,
        before: str | None = None,
        status: RunStatus | None = None,
    ) -> list[RunRecord]:
        """The newest runs, newest first.

        Args:
            limit: Most runs.
            tenant: Whose; None is everybody's.
            before: Name of a run; those older than it are listed.
            status: Those of one status alone.

        Raises:
            UnknownName: There is no run `before`.
        """

    async def delete_run(self, run_id: str) -> None:
        """Remove a run with its calls, events and checkpoints; what was spent stays noted."""

    async def find_calls(self, run_id: str, keys: Sequence[str], *, any_run: bool = False) -> dict[str, StoredCall]:
        """The stored replies among `keys`: of this run, and with `any_run` of all others of its tenant too."""

    async def add_calls(self, run_id: str, calls: Sequence[StoredCall], *, paid: bool = True) -> None:
        """Store replies; a key that is there already stays as it is.

        Args:
            run_id: Whose.
            calls: The replies.
            paid: Whether the run has paid for them; else they are copies of another run's.
        """

    async def count_calls(self, run_id: str) -> int:
        """Number of stored replies of a run."""

    async def calls(self, run_id: str) -> list[StoredCall]:
        """All stored replies of a run, by key."""

    async def keys_paid_before(self, run_id: str) -> frozenset[str]:
        """Keys of those replies of a run that another run had stored before: this one copied them and paid nothing."""

    async def add_events(self, run_id: str, events: Sequence[EventFields]) -> None:
        """Store events."""

    async def events(self, run_id: str, *, after: int = 0, limit: int | None = None) -> list[EventFields]:
        """Stored events of a run, in order.

        Args:
            run_id: Whose.
            after: Those with a higher number alone.
            limit: Most events; None is all.
        """

    async def spent(self, tenant: str, since: float) -> Spent:
        """What a tenant has paid for since the beginning of the UTC day that `since` (seconds of the epoch) lies in."""

    async def add_key(self, key: ApiKey) -> None:
        """Note a new key.

        Raises:
            UserError: There is a key of that id.
        """

    async def list_keys(self) -> list[ApiKey]:
        """All keys, revoked ones too, oldest first."""

    async def find_key(self, key_id: str) -> ApiKey | None:
        """The key of that id, revoked or not; None if there is none."""

    async def revoke_key(self, key_id: str) -> ApiKey:
        """Refuse a key from now on; one that is revoked stays so.

        Returns:
            The key as it is now.

        Raises:
            UnknownName: There is no such key.
        """

    async def put_checkpoint(self, run_id: str, checkpoint: StoredCheckpoint) -> None:
        """Store the state after a stage."""

    async def checkpoint(self, run_id: str, namespace: str = "", *, only: str | None = None) -> StoredCheckpoint | None:
        """The last checkpoint of a run; None if there is none.

        Args:
            run_id: Whose.
            namespace: See `StoredCheckpoint`.
            only: The one of that id instead.
        """

    async def aclose(self) -> None:
        """Close; idempotent."""


def call_key(identity: str, request: JsonValue, seed: int | None, index: int) -> str:
    """Key of one reply: SHA-256 of model, request, seed and sample index, in hexadecimal."""
    text = json.dumps([identity, request, seed, index], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
