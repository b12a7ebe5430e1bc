"""The durable run store's interface: what was asked, every model call that was paid for, and every event."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Literal, Protocol

from pydantic import JsonValue

from .events import EventFields
from .messages import Frozen

RunStatus = Literal["running", "finished", "interrupted", "failed"]


class RunRecord(Frozen):
    """A run as the store has it.

    Attributes:
        id: Its name.
        created: When it began, seconds since the epoch.
        updated: When it was last written.
        status: "running", "finished", "interrupted" (cancelled, or its process was killed) or "failed".
        config: JSON of its `RunConfig`.
        identities: Identity and capabilities of each model by role, as JSON: enough to show the run without a model.
        answer: JSON of its `Answer`; None before the end.
        error: Code and message of what ended it.
        owner: Process that works on it; None if none does.
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
    """What the rest of `reason` needs of a store. All methods raise `StoreError` if the store fails."""

    async def create_run(self, run_id: str, config: dict[str, JsonValue]) -> None:
        """Note a new run and take it."""

    async def take_run(self, run_id: str) -> None:
        """Take an existing run for this process.

        Raises:
            UserError: Another living process works on it.
        """

    async def set_identities(self, run_id: str, identities: dict[str, JsonValue]) -> None:
        """Note which models the run uses."""

    async def end_run(
        self,
        run_id: str,
        status: RunStatus,
        answer: dict[str, JsonValue] | None = None,
        error: dict[str, JsonValue] | None = None,
    ) -> None:
        """Note how the run ended, and give it up."""

    async def get_run(self, run_id: str) -> RunRecord:
        """The run of that name, or of the one name that begins so.

        Raises:
            UnknownName: There is none.
            UserError: Several names begin so.
        """

    async def list_runs(self, limit: int = 50) -> list[RunRecord]:
        """The newest runs, newest first."""

    async def delete_run(self, run_id: str) -> None:
        """Remove a run with its calls and events."""

    async def find_calls(self, run_id: str, keys: Sequence[str], *, any_run: bool = False) -> dict[str, StoredCall]:
        """The stored replies among `keys`: of this run, and with `any_run` of all others too."""

    async def add_calls(self, run_id: str, calls: Sequence[StoredCall]) -> None:
        """Store replies; a key that is there already stays as it is."""

    async def count_calls(self, run_id: str) -> int:
        """Number of stored replies of a run."""

    async def calls(self, run_id: str) -> list[StoredCall]:
        """All stored replies of a run, by key."""

    async def keys_paid_before(self, run_id: str) -> frozenset[str]:
        """Keys of those replies of a run that another run had stored before: this one copied them and paid nothing."""

    async def add_events(self, run_id: str, events: Sequence[EventFields]) -> None:
        """Store events."""

    async def events(self, run_id: str) -> list[EventFields]:
        """All stored events of a run, in order."""

    async def aclose(self) -> None:
        """Close; idempotent."""


def call_key(identity: str, request: JsonValue, seed: int | None, index: int) -> str:
    """Key of one reply: SHA-256 of model, request, seed and sample index, in hexadecimal."""
    text = json.dumps([identity, request, seed, index], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
