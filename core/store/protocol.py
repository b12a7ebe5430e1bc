"""The run store's protocol and records: every run's configuration, every paid model call, every event, and API keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, Protocol

from pydantic import BaseModel, Field, JsonValue

from ..budget import Budget
from ..events import Event
from ..messages import Completion, Frozen
from ..types import Answer

RunStatus = Literal["queued", "running", "finished", "interrupted", "failed"]
RunSort = Literal["created", "cost", "tokens", "seconds"]
"""What a list of runs is sorted by."""

MAX_SEARCHED_RUNS = 10_000
"""Runs that a list with a filter, or in another order than that of creation, looks at."""


class ListedRun(Frozen):
    """A stored run as lists show it, without its configuration and its answer.

    Attributes:
        created: When it was created, in seconds since the epoch.
        updated: When it was last written.
        status: "queued", "running", "finished", "interrupted" (cancelled, or its process was killed) or "failed".
        owner: The process that works on it; None if none does.
        tenant: The tenant that owns it; empty without tenants.
        background: Whether another process continues it when its process ends.
        cancel_requested: Whether its process was asked to cancel it.
        answer_requested: Whether its process was asked to answer now.
        adoptions: How often a process took it over from one that had died, since a caller last started or resumed it.
        error: Code and message of the error that ended it.
        models: Model string by role.
        question: The question, cut to 200 characters.
        metadata: The pairs of text of the question's metadata.
        answer_text: The extracted answer, of a multiple-choice question the option and its letter, cut likewise; None
            before its end, and if there is none.
        stopped: Why its answer was final; None before its end.
        tokens: Generated tokens, those of thoughts included; None before its end.
        thinking_tokens: Part of them that are thoughts.
        cost_usd: US dollars; None also if a price is unknown.
        seconds: Wall-clock time.
    """

    id: str
    created: float
    updated: float
    status: RunStatus
    owner: str | None = None
    tenant: str = ""
    background: bool = False
    cancel_requested: bool = False
    answer_requested: bool = False
    adoptions: int = 0
    error: dict[str, JsonValue] | None = None
    strategy: str = ""
    models: dict[str, str] = Field(default_factory=dict)
    question: str = ""
    metadata: dict[str, str] = Field(default_factory=dict)
    answer_text: str | None = None
    stopped: str | None = None
    tokens: int | None = None
    thinking_tokens: int | None = None
    cost_usd: float | None = None
    seconds: float | None = None


class RunRecord(ListedRun):
    """A stored run.

    Attributes:
        config: JSON of its `RunConfig`.
        identities: Identity and capabilities of each model by role, as JSON: enough to replay the run without a model.
        answer: JSON of its `Answer`; None before its end.
        idempotency: The caller's key of the request that created it.
    """

    config: dict[str, JsonValue]
    identities: dict[str, JsonValue]
    answer: dict[str, JsonValue] | None = None
    idempotency: str | None = None


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


class JsonText(str):
    """JSON of a value, in place of the value."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class NewCall:
    """A `StoredCall` that is being written, and need not be JSON yet.

    Attributes:
        request: Its value "request", if it is long, is stored once for all calls of the run that have the same.
    """

    key: str
    role: str
    model: str
    request: Mapping[str, JsonValue]
    response: Completion | Mapping[str, JsonValue]
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run that is being created; see `RunStore.create_run` for the fields.

    Attributes:
        config: Its `RunConfig`, or the JSON of one.
    """

    config: BaseModel | Mapping[str, JsonValue]
    tenant: str = ""
    background: bool = False
    status: Literal["queued", "running"] = "running"
    idempotency: str | None = None
    digest: str = ""


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run ended; see `RunStore.end_run` for the fields."""

    status: RunStatus
    answer: Answer | Mapping[str, JsonValue] | None = None
    error: Mapping[str, JsonValue] | None = None


@dataclass(slots=True)
class RunWrites:
    """What is written of a run in one transaction.

    Attributes:
        creation: The run, if it is not in the store yet; nothing else was written of it then.
        identities: Which models it uses.
        calls: Calls that it has paid for.
        copies: Calls of other runs that answered it.
        end: How it ended; nothing else is written of it then.
    """

    creation: NewRun | None = None
    identities: JsonText | Mapping[str, JsonValue] | None = None
    calls: list[NewCall | StoredCall] = field(default_factory=list)
    copies: list[StoredCall] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    end: RunEnd | None = None

    def __bool__(self) -> bool:
        return bool(self.creation or self.identities or self.calls or self.copies or self.events or self.end)


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


class StoredBatch(Frozen):
    """A batch of requests that was submitted to a provider, or is about to be.

    Attributes:
        name: A name of ours, given before it is submitted.
        scope: What it belongs to: an evaluation and a model.
        created: When it was named, in seconds since the epoch.
        provider_id: Its id at the provider; empty until that is known.
        status: "submitting", "submitted", "ended", or "cancelled" by its user.
        lines: Keys of the samples (`call_key`) of each request, by the request's id in the batch.
    """

    name: str
    scope: str
    created: float
    provider_id: str = ""
    status: Literal["submitting", "submitted", "ended", "cancelled"] = "submitting"
    lines: dict[str, tuple[str, ...]]


class BatchStore(Protocol):
    """Where batches are remembered, so that a killed process submits none of them twice."""

    async def add_batch(self, batch: StoredBatch) -> None:
        """Store a batch before it is submitted."""

    async def update_batch(self, batch: StoredBatch) -> None:
        """Store a batch's id and status."""

    async def delete_batch(self, name: str) -> None:
        """Forget a batch that was never submitted."""

    async def list_batches(self, scope: str) -> list[StoredBatch]:
        """The batches of a scope and of those that begin with it, oldest first."""


class Spending(Frozen):
    """What a tenant has paid for.

    Attributes:
        tokens: Generated tokens; those answered by the store were not paid again.
        usd: US dollars, as far as prices are known.
        runs: Runs that have ended.
        reserved_tokens: What runs in flight may still spend (`RunStore.reserve_spending`), in any process.
        reserved_usd: The same in dollars.
    """

    tokens: int = 0
    usd: float = 0.0
    runs: int = 0
    reserved_tokens: int = 0
    reserved_usd: float = 0.0


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

    def left_for(self, budget: Budget, spending: Spending) -> Budget | None:
        """A run's budget, capped by what the daily limits leave; None if one of them leaves nothing."""
        tokens, usd = budget.tokens, budget.usd
        if self.tokens_per_day is not None:
            left = self.tokens_per_day - spending.tokens - spending.reserved_tokens
            tokens = left if tokens is None else min(tokens, left)
        if self.usd_per_day is not None:
            left_usd = self.usd_per_day - spending.usd - spending.reserved_usd
            usd = left_usd if usd is None else min(usd, left_usd)
        if (tokens is not None and tokens < 1) or (usd is not None and usd <= 0):
            return None
        return budget.model_copy(update={"tokens": tokens, "usd": usd})


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
    another process has claimed the run meanwhile. Those that are no coroutines begin to write when they are called, and
    are done when their result is awaited; a write is completed even if its awaiter is cancelled.
    """

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
    ) -> Awaitable[None]:
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

    async def find_request(self, tenant: str, idempotency: str) -> tuple[str, str] | None:
        """Name and digest of the run that a tenant's request with this key has created; None if there is none."""

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

    async def release_run(self, run_id: str, status: Literal["queued", "interrupted", "failed"] = "queued") -> None:
        """Give up a run of this process, charging nothing.

        Args:
            status: "queued" leaves it to the process that claims it next, unless its cancellation was requested: then
                it is "interrupted".
        """

    async def list_claimable_runs(self, limit: int) -> list[RunRecord]:
        """Background runs without a living owner: queued ones, and those whose process was killed.

        Those that were adopted least often come first, of these the oldest.
        """

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

    def set_identities(self, run_id: str, identities: Mapping[str, JsonValue]) -> Awaitable[None]:
        """Record which models a run uses."""

    def end_run(
        self,
        run_id: str,
        status: RunStatus,
        answer: Answer | Mapping[str, JsonValue] | None = None,
        error: Mapping[str, JsonValue] | None = None,
        *,
        events: Sequence[Event] = (),
    ) -> Awaitable[None]:
        """Record how a run ended, with its last events, charge its tenant and release it, all at once.

        The tenant is charged for what was paid since the run was claimed: the answer's tokens and dollars without those
        that the store answered; and, if the run was resumed after its process was killed, for the stored calls that
        were never charged. A run that has ended already is not charged again.
        """

    def save(self, run_id: str, writes: RunWrites) -> Awaitable[None]:
        """Write all of it in one transaction, as the methods for its parts do.

        The writes belong to the store from then on.
        """

    async def delete_run(self, run_id: str, *, only_ended: bool = False) -> None:
        """Delete a run with its calls, events and checkpoints; its spending stays recorded.

        Args:
            only_ended: Whether to refuse a run that a process executes, or a background run that one will continue.

        Raises:
            UnknownName: With `only_ended`, there is no such run.
            RunConflict: With `only_ended`, it has not ended.
        """

    async def prune_runs(self, *, before: float) -> int:
        """Delete some of the oldest runs that have ended; call it again until it deletes none.

        Args:
            before: Runs that were last written before this time are deleted, in seconds since the epoch.

        Returns:
            Number of runs deleted, in one short transaction.
        """

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
        after: str | None = None,
        status: RunStatus | None = None,
        strategy: str | None = None,
        model: str | None = None,
        search: str = "",
        tag: tuple[str, str] | None = None,
        sort: RunSort = "created",
        ascending: bool = False,
    ) -> list[ListedRun]:
        """A page of runs, the newest first unless requested otherwise.

        With a filter or another order, it looks at `MAX_SEARCHED_RUNS` runs of the tenant: the newest, or in the order
        of creation those from `after` on.

        Args:
            after: Name of the last run of the preceding page, in the same order.
            model: The main model.
            search: A text that name, question (its first 2,000 characters) or metadata contain, ignoring case.
            tag: Key and value of a metadata pair.
            sort: Runs without a value come last.

        Raises:
            UnknownName: There is no run `after`.
        """

    # -- calls, events, checkpoints

    async def find_calls(self, run_id: str, keys: Sequence[str], *, any_run: bool = False) -> dict[str, StoredCall]:
        """The stored calls among `keys`: of this run, and with `any_run` of all others of its tenant."""

    def add_calls(self, run_id: str, calls: Sequence[NewCall | StoredCall]) -> Awaitable[None]:
        """Store calls that the run has paid for; an existing key stays as it is."""

    async def count_calls(self, run_id: str) -> int:
        """Number of stored calls of a run."""

    async def list_calls(self, run_id: str) -> list[StoredCall]:
        """All stored calls of a run, by key."""

    async def copied_call_keys(self, run_id: str) -> frozenset[str]:
        """Keys of the calls that another run had stored before: this run copied them and paid nothing."""

    def add_events(self, run_id: str, events: Sequence[Event]) -> Awaitable[None]:
        """Store events; one that is stored already is not stored twice."""

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
        """What a tenant has paid for since the beginning of a UTC day, and what its runs in flight reserve.

        Args:
            since: A time of that day, in seconds since the epoch.
        """

    async def reserve_spending(
        self, name: str, tenant: str, budget: Budget, limits: KeyLimits, at: float, *, held: Spending
    ) -> tuple[Budget | None, Spending]:
        """Reserve a run's budget out of what daily limits leave its tenant, atomically among all processes.

        The reservation counts until it is released, or its process has died.

        Args:
            name: A new name, for `release_spending`.
            at: A time of the UTC day, in seconds since the epoch.
            held: Further reservations of the tenant, which are not in the store.

        Returns:
            The budget, capped by what was left (`KeyLimits.left_for`), None if nothing was left and so nothing is
            reserved; and what had been spent and reserved before, `held` included.
        """

    async def release_spending(self, name: str) -> None:
        """Give back a reservation; its run has been charged for what it spent."""

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

    async def check_writable(self) -> None:
        """Write as much as a small run does, and overwrite it the next time.

        Raises:
            StoreError: The store cannot be written: it is unreachable or read-only, or its disk is full.
        """

    async def aclose(self) -> None:
        """Close the store; idempotent."""


def call_key(identity: str, request: JsonValue, seed: int | None, index: int) -> str:
    """Key of one response: SHA-256 of model, request, seed and sample index, in hexadecimal."""
    return call_keys(identity, request, seed, (index,))[0]


def canonical_json(value: JsonText | JsonValue) -> JsonText:
    """The JSON of a value that equal values have."""
    if isinstance(value, JsonText):
        return value
    return JsonText(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False))


def call_keys(identity: str, request: JsonText | JsonValue, seed: int | None, indices: Sequence[int]) -> list[str]:
    """Keys of the samples of one request, which is hashed once; `request` may be its `canonical_json`."""
    text = f"[{canonical_json(identity)},{canonical_json(request)},{canonical_json(seed)}]"
    shared = hashlib.sha256(text[:-1].encode("utf-8", "surrogatepass"))
    keys = []
    for index in indices:
        own = shared.copy()
        own.update(f",{index}]".encode())
        keys.append(own.hexdigest())
    return keys
