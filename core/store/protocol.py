"""The run store's protocol and records: every run's configuration, every paid model call, every event, and API keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from typing import Annotated, Literal, Protocol

from pydantic import Field, JsonValue

from ..events import Event
from ..messages import Frozen

RunStatus = Literal["queued", "running", "finished", "interrupted", "failed"]


class RunRecord(Frozen):
    """A stored run.

    Attributes:
        created: When it was created, in seconds since the epoch.
        updated: When it was last written.
        status: "queued", "running", "finished", "interrupted" (cancelled, or its process was killed) or "failed".
        config: JSON of its `RunConfig`.
        identities: Identity and capabilities of each model by role, as JSON: enough to replay the run without a model.
        answer: JSON of its `Answer`; None before its end.
        error: Code and message of the error that ended it.
        owner: The process that works on it; None if none does.
        tenant: The tenant that owns it; empty without tenants.
        background: Whether another process continues it when its process ends.
        idempotency: The caller's key of the request that created it.
        cancel_requested: Whether its process was asked to cancel it.
        answer_requested: Whether its process was asked to answer now.
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
    answer_requested: bool = False


class StoredCall(Frozen):
    """One paid response of a model.

    Attributes:
        key: Hash of model, request, seed and sample index (`call_key`).
        request: The request, for people to read.
        truncated: Whether time or a caller that had enough ended it, not the request: then it answers no other run.
    """

    key: str
    role: str
    model: str
    request: dict[str, JsonValue]
    response: dict[str, JsonValue]
    truncated: bool = False


class StoredCheckpoint(Frozen):
    """The state of a run's pipeline after one stage, as LangGraph numbers and names it.

    Attributes:
        namespace: Of a graph inside the graph; empty for the pipeline itself.
        id: Sorts by time.
        parent: Id of the preceding checkpoint.
        kind: Format of `state`: "json".
        metadata: LangGraph's metadata, as JSON.
    """

    namespace: str
    id: str
    parent: str | None
    kind: str
    state: bytes
    metadata: bytes


class Spending(Frozen):
    """What a tenant has paid for.

    Attributes:
        tokens: Generated tokens; those answered by the store were not paid again.
        usd: US dollars, as far as prices are known.
        runs: Runs that have ended.
    """

    tokens: int = 0
    usd: float = 0.0
    runs: int = 0


class KeyLimits(Frozen):
    """Limits of one API key; None is no limit.

    Attributes:
        requests_per_minute: Counted by each process.
        concurrency: Runs in flight, counted by each process.
        tokens_per_day: Generated tokens that the key's tenant may pay for, by UTC day.
        usd_per_day: US dollars that the key's tenant may pay, by UTC day.
    """

    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    concurrency: Annotated[int, Field(ge=1)] | None = None
    tokens_per_day: Annotated[int, Field(ge=1)] | None = None
    usd_per_day: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


class ApiKey(Frozen):
    """An API key of the REST sidecar, without the key itself, which is stored nowhere.

    Attributes:
        id: The public part of the key, by which it is looked up.
        name: A name for people.
        tenant: Whose runs it reads and creates; several keys may share one.
        digest: Hash of the secret part.
        scopes: What it allows: "ask", "read", "admin".
        created: Seconds since the epoch.
        expires: When it expires; None is never.
        revoked: When it was revoked; None if it was not.
    """

    id: str
    name: str
    tenant: str
    digest: str
    scopes: frozenset[str]
    limits: KeyLimits = KeyLimits()
    created: float
    expires: float | None = None
    revoked: float | None = None

    def is_valid(self, at: float) -> bool:
        """Whether it is neither revoked nor expired at that time."""
        return self.revoked is None and (self.expires is None or self.expires > at)


class RunStore(Protocol):
    """What the rest of `reason` needs of a run store.

    All methods raise `StoreError` if the store fails. Methods that write to a run also raise it, and write nothing, if
    another process has claimed the run meanwhile.
    """

    # -- life cycle of runs

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
        """Create a run and claim it; a queued background run is left to the process that claims it first.

        Args:
            config: JSON of its `RunConfig`.
            background: Whether another process continues it when this one ends.
            idempotency: The caller's key of the request, unique within the tenant.
            digest: Hash of the request, which tells a repeated one from another with the same key.

        Raises:
            DuplicateRequest: The tenant's request with this key has created a run before; nothing is created.
            UserError: There is a run of that name.
        """

    async def find_request(self, tenant: str, idempotency: str) -> tuple[str, str] | None:
        """Name and digest of the run that a tenant's request with this key has created; None if there is none."""

    async def claim_run(self, run_id: str, *, allowed: Collection[RunStatus] = ()) -> None:
        """Claim an existing run for this process; of several that try concurrently, one succeeds.

        Args:
            allowed: Stored statuses of a run that may be claimed; empty is any. A run whose process was killed is
                stored as "running".

        Raises:
            UnknownName: There is no such run.
            UserError: Another living process works on it, or it has another status.
        """

    async def release_run(self, run_id: str, status: Literal["queued", "interrupted", "failed"] = "queued") -> None:
        """Give up a run of this process, charging nothing.

        Args:
            status: "queued" leaves it to the process that claims it next, unless its cancellation was requested: then
                it is "interrupted".
        """

    async def list_claimable_runs(self, limit: int) -> list[RunRecord]:
        """Background runs without a living owner, oldest first: queued ones, and those whose process was killed."""

    async def request_cancel(self, run_id: str) -> None:
        """Ask the owner of a run to cancel it; a run without an owner becomes interrupted at once.

        A run that has ended stays as it is.

        Raises:
            UnknownName: There is no such run.
        """

    async def cancel_requested(self, run_ids: Sequence[str]) -> frozenset[str]:
        """Those of the runs whose cancellation was requested."""

    async def request_answer(self, run_id: str) -> None:
        """Ask the owner of a run to answer now, or the process that claims it next.

        A run that has ended stays as it is.

        Raises:
            UnknownName: There is no such run.
        """

    async def answer_requested(self, run_ids: Sequence[str]) -> frozenset[str]:
        """Those of the runs whose answer was requested."""

    async def set_identities(self, run_id: str, identities: dict[str, JsonValue]) -> None:
        """Record which models a run uses."""

    async def end_run(
        self,
        run_id: str,
        status: RunStatus,
        answer: dict[str, JsonValue] | None = None,
        error: dict[str, JsonValue] | None = None,
        *,
        events: Sequence[Event] = (),
    ) -> None:
        """Record how a run ended, with its last events, charge its tenant and release it, all at once.

        The tenant is charged for what was paid since the run was claimed: the answer's tokens and dollars without those
        that the store answered; and, if the run was resumed after its process was killed, for the stored calls that
        were never charged. A run that has ended already is not charged again.
        """

    async def delete_run(self, run_id: str) -> None:
        """Delete a run with its calls, events and checkpoints; its spending stays recorded."""

    # -- queries of runs

    async def get_run(self, run_id: str, *, tenant: str | None = None, exact: bool = False) -> RunRecord:
        """A run by its name or a unique prefix of it.

        Args:
            tenant: The tenant that must own it; None is any.
            exact: Whether `run_id` is the complete name.

        Raises:
            UnknownName: There is none, or another tenant owns it.
            UserError: Several names have this prefix.
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
            before: Name of a run; only older ones are listed.

        Raises:
            UnknownName: There is no run `before`.
        """

    # -- calls, events, checkpoints

    async def find_calls(self, run_id: str, keys: Sequence[str], *, any_run: bool = False) -> dict[str, StoredCall]:
        """The stored calls among `keys`: of this run, and with `any_run` of all others of its tenant."""

    async def add_calls(self, run_id: str, calls: Sequence[StoredCall], *, paid: bool = True) -> None:
        """Store calls; an existing key stays as it is.

        Args:
            paid: Whether the run has paid for them; else they are copies of another run's.
        """

    async def count_calls(self, run_id: str) -> int:
        """Number of stored calls of a run."""

    async def list_calls(self, run_id: str) -> list[StoredCall]:
        """All stored calls of a run, by key."""

    async def copied_call_keys(self, run_id: str) -> frozenset[str]:
        """Keys of the calls that another run had stored before: this run copied them and paid nothing."""

    async def add_events(self, run_id: str, events: Sequence[Event]) -> None:
        """Store events."""

    async def list_events(self, run_id: str, *, after: int = 0, limit: int | None = None) -> list[Event]:
        """Stored events of a run with a number above `after`, in order."""

    async def put_checkpoint(self, run_id: str, checkpoint: StoredCheckpoint) -> None:
        """Store the state after a stage."""

    async def get_checkpoint(
        self, run_id: str, namespace: str = "", *, checkpoint_id: str | None = None
    ) -> StoredCheckpoint | None:
        """The last checkpoint of a run, or the one of that id; None if there is none."""

    # -- spending and keys

    async def get_spending(self, tenant: str, since: float) -> Spending:
        """What a tenant has paid for since the beginning of the UTC day of `since`, in seconds of the epoch."""

    async def add_key(self, key: ApiKey) -> None:
        """Store a new key.

        Raises:
            UserError: There is a key of that id.
        """

    async def list_keys(self) -> list[ApiKey]:
        """All keys, revoked ones included, oldest first."""

    async def find_key(self, key_id: str) -> ApiKey | None:
        """The key of that id, revoked or not; None if there is none."""

    async def revoke_key(self, key_id: str) -> ApiKey:
        """Revoke a key; a revoked one stays so.

        Returns:
            The key as it is now.

        Raises:
            UnknownName: There is no such key.
        """

    async def aclose(self) -> None:
        """Close the store; idempotent."""


def call_key(identity: str, request: JsonValue, seed: int | None, index: int) -> str:
    """Key of one response: SHA-256 of model, request, seed and sample index, in hexadecimal."""
    text = json.dumps([identity, request, seed, index], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
