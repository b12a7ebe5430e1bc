"""Records of the run store: runs, paid model calls and their keys, checkpoints; and what is written of a run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, Field, JsonValue

from ..events import Event
from ..messages import Completion, Frozen
from ..types import Answer
from .group_commit import Connection

RunStatus = Literal["queued", "running", "waiting", "finished", "interrupted", "failed"]


class ListedRun(Frozen):
    """A stored run as lists show it, without its configuration and its answer.

    Attributes:
        created: When it was created, in seconds since the epoch.
        updated: When it was last written.
        status: "queued", "running", "waiting" (for decisions about tool calls, or for their results), "finished",
            "interrupted" (cancelled, or its process was killed) or "failed".
        owner: The process that works on it; None if none does.
        tenant: The tenant that owns it; empty without tenants.
        background: Whether another process continues it when its process ends.
        cancel_requested: Whether its process was asked to cancel it.
        answer_requested: Whether its process was asked to answer now.
        adoptions: How often a process took it over from one that had died, since a caller last started or resumed it.
        error: Code and message of the error that ended it.
        question: The question, cut to 200 characters.
        metadata: The pairs of text of the question's metadata.
        answer_text: The extracted answer, of a multiple-choice question the option and its letter, cut likewise; None
            before its end, and if there is none.
        stopped: Why its answer was final; None before its end.
        tokens: Generated tokens, those of thoughts included; None before its end.
        thinking_tokens: Part of them that are thoughts.
        cost_usd: US dollars; None also if a price is unknown.
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
        operations: Further operations on the run, in order.
        end: How it ended; nothing else is written of it then.
        durable: Whether the commit must survive a power cut.
    """

    creation: NewRun | None = None
    identities: JsonText | Mapping[str, JsonValue] | None = None
    calls: list[NewCall | StoredCall] = field(default_factory=list)
    copies: list[StoredCall] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    operations: list[Callable[[Connection], None]] = field(default_factory=list)
    end: RunEnd | None = None
    durable: bool = False

    def __bool__(self) -> bool:
        return bool(
            self.creation or self.identities or self.calls or self.copies or self.events or self.operations or self.end
        )


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
