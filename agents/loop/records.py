"""`ToolCallStore`: the intents and results of tool calls in the run store; a write is started once and never again.

    proposed ──► approved ──► started ──► done | failed
        │           ▲            │
        └► denied   └────────────┴► assumed (a write whose outcome is unknown, decided by a person)

Each transition is one conditional UPDATE, so of two processes that both believe they own a run, one changes the row.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any, Final, Literal, TypeVar

from ...core.errors import RunConflict, StoreError, UnknownName, UserError
from ...core.events import ApprovalDecided
from ...core.messages import Effect, Frozen, Message, ToolCall, canonical_calls
from ...core.store.group_commit import Connection
from ...core.store.records import canonical_json
from ...core.store.run_writer import RunWriter
from ...core.store.sql import RunStore, append_events, to_json
from ...core.types import PendingToolCall, Question, WriteCheck
from .tool import ToolResult

ToolCallStatus = Literal["proposed", "approved", "denied", "started", "done", "failed", "assumed"]
ENDED: Final[frozenset[ToolCallStatus]] = frozenset({"denied", "done", "failed", "assumed"})
REJECTED: Final = "Error: the call was rejected"
"""Beginning of the result of a call that a person has rejected."""
MAX_CLIENT_RUNS: Final = 8
"""Maximum number of runs with equal calls among which that of a client is looked for."""
T = TypeVar("T")


class Decision(Frozen):
    """A decision about a call.

    Attributes:
        kind: "approve", "edit" (with other arguments) or "reject"; for a write whose outcome is unknown, "done" or
            "failed".
        arguments: With "edit", the new arguments as JSON.
        reason: Shown to the model with a rejection.
        by: Origin: "terminal", "callback", "http:KEY" ("http" without keys), "check" or "assume".
        at: Seconds since the epoch.
    """

    kind: Literal["approve", "edit", "reject", "done", "failed"]
    arguments: str | None = None
    reason: str = ""
    by: str = ""
    at: float = 0.0


class StoredToolCall(Frozen):
    """A tool call of a run.

    Attributes:
        id: ID of its intent (`intent_ids`).
        executor: "run", or "client": the caller executes it and sends the result.
        call_id: The ID by which the model and a client name it.
        note: What a person who decides about it sees beside its arguments.
    """

    id: str
    turn: int
    position: int
    tool: str
    effect: Effect
    executor: Literal["run", "client"] = "run"
    call_id: str = ""
    arguments: str
    status: ToolCallStatus = "proposed"
    attempts: int = 0
    note: str = ""
    write_check: WriteCheck | None = None
    decision: Decision | None = None
    result: ToolResult | None = None

    @property
    def used_arguments(self) -> str:
        """The arguments to execute, which a decision may have edited."""
        edited = None if self.decision is None else self.decision.arguments
        return self.arguments if edited is None else edited

    @property
    def pending(self) -> PendingToolCall | None:
        """The call as one that its run waits for; None if it needs nothing."""
        question: Literal["approval", "outcome", "result"]
        if self.status == "proposed":
            question = "result" if self.executor == "client" else "approval"
        elif self.status == "started" and self.effect == "write":
            question = "outcome"
        else:
            return None
        shared = self.model_dump(include={"id", "tool", "effect", "note", "write_check"})
        return PendingToolCall(arguments=self.used_arguments, question=question, **shared)


class UnknownOutcome(StoreError):
    """A write was started before, and no result is stored."""


def intent_ids(history: str, calls: Sequence[ToolCall]) -> list[str]:
    """IDs of a turn's calls: a hash of the history, the turn's calls, and the position.

    The same calls after the same messages have the same IDs in a resumed process, a replay and a forked thread. The
    IDs that providers give to calls do not count: they are not unique (gpt-4o repeats them within a conversation).
    """
    turn = _digest([history, canonical_calls(calls)])
    return [hashlib.sha256(f"{turn}:{i}".encode()).hexdigest()[:32] for i in range(len(calls))]


def next_history(history: str, messages: Sequence[Message]) -> str:
    """The hash of a history with further messages; the history of a run begins with the hash of its question."""
    for message in messages:
        shown = [attachment.sha256 for attachment in message.attachments]
        # clients return texts without the white space around them
        content = message.content.strip()
        history = _digest([history, message.role, content, shown, canonical_calls(message.tool_calls)])
    return history


def question_history(question: Question, messages: Sequence[Message]) -> str:
    """The hash of a question, of the conversation before it, and of messages after it."""
    asked = Message(role="user", content=question.text, attachments=question.attachments)
    before = (*question.conversation, asked, *messages)
    return next_history("", [message for message in before if message.role != "system"])


def client_results(question: Question) -> tuple[str, dict[str, ToolResult]]:
    """The results that a question ends with, by the intents of their calls; and the ID of the first call.

    There are none unless each call of the last turn has one text.
    """
    results = list(takewhile(lambda message: message.role == "tool", reversed(question.continuation)))
    before = question.continuation[: len(question.continuation) - len(results)]
    by_call = {message.tool_call_id: message.content for message in results if not message.attachments}
    calls = before[-1].tool_calls if before else ()
    if not len(by_call) == len(results) == len(calls) > 0 or by_call.keys() != {call.id for call in calls}:
        return "", {}
    intents = intent_ids(question_history(question, before[:-1]), calls)
    texts = [by_call[call.id] for call in calls]
    return calls[0].id, {intent: ToolResult(text=text) for intent, text in zip(intents, texts, strict=True)}


def _digest(value: list[Any]) -> str:
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


class LoopStateStore:
    """The states of runs' loops after their last nodes, as JSON."""

    def __init__(self, store: RunStore, writer: RunWriter) -> None:
        self._store, self._writer = store, writer

    async def save(self, run_id: str, state: str) -> None:
        """Store a state, in one transaction with the samples that it rests on."""
        await self._writer.execute(lambda db: db.write(_PUT_STATE, (run_id, state)))

    async def last(self, run_id: str) -> str | None:
        """The state of a run; None if no node has ended."""
        rows = await self._store.commits.read(
            lambda db: db.execute("SELECT state FROM loop_states WHERE run_id = ?", (run_id,))
        )
        return str(rows[0][0]) if rows else None


_PUT_STATE = (
    "INSERT INTO loop_states (run_id, state) VALUES (?, ?) ON CONFLICT (run_id) DO UPDATE SET state = excluded.state"
)


class ToolCallStore:
    """The tool calls of runs. Methods raise `StoreError` if another process has the run.

    Args:
        writer: The writer of the one run that is executed: its samples, which made the calls, join the transactions.
    """

    def __init__(self, store: RunStore, writer: RunWriter | None = None) -> None:
        self._store, self._writer = store, writer

    def _write(self, operation: Callable[[Connection], T], run_id: str, *, durable: bool = False) -> asyncio.Future[T]:
        if self._writer is not None:  # which checks the ownership
            return self._writer.execute(operation, durable=durable)

        def owned(db: Connection) -> T:
            self._store.ownership.check(db, run_id)
            return operation(db)

        return self._store.commits.write(owned, run_id, durable=durable)

    async def list(self, run_id: str) -> list[StoredToolCall]:
        """All calls of a run, in order."""
        rows = await self._store.commits.read(
            lambda db: db.execute(
                f"SELECT {_COLUMNS} FROM tool_calls WHERE run_id = ? ORDER BY turn, position",  # noqa: S608
                (run_id,),
            )
        )
        return [_read(row) for row in rows]

    async def add(self, run_id: str, calls: Sequence[StoredToolCall]) -> None:
        """Store calls that await a decision or a client, or that cannot be executed; stored calls stay unchanged."""
        await self._write(lambda db: db.write(_ADD, *(_row(run_id, call) for call in calls)), run_id)

    async def decide(self, run_id: str, decisions: Mapping[str, Decision], *, owned: bool = True) -> frozenset[str]:
        """Record decisions about several calls in one transaction; returns the calls whose first decision this is.

        Those about a run that is not being executed become events of it; an executor emits its own.

        Args:
            decisions: By intent ID.
            owned: Whether this process must own the run; a decision over HTTP may reach any process, while the run
                waits.

        Raises:
            RunConflict: Nobody must own the run, and it does not wait.
        """

        def write(db: Connection) -> frozenset[str]:
            first: dict[str, ApprovalDecided] = {}
            for intent, decision in decisions.items():
                status, needed = _AFTER[decision.kind]
                result = _result_of(decision)
                ended = None if result is None else time.time()
                rows = db.execute(
                    "UPDATE tool_calls SET status = ?, decision = ?, result = ?, ended = ? "
                    "WHERE run_id = ? AND id = ? AND status = ? RETURNING tool",
                    (status, to_json(decision), to_json(result), ended, run_id, intent, needed),
                )
                for (tool,) in rows:
                    first[intent] = ApprovalDecided(call=intent, tool=tool, decision=decision.kind, by=decision.by)
            if first and self._writer is None:
                append_events(db, run_id, list(first.values()))
            return frozenset(first)

        def while_waiting(db: Connection) -> frozenset[str]:
            status, _, _ = self._store.lock(db, run_id)
            if status != "waiting":
                raise RunConflict(f"run {run_id} is {status}: it waits for no decision", hint="read it again")
            return write(db)

        return await (self._write(write, run_id) if owned else self._store.commits.write(while_waiting))

    async def start(self, run_id: str, call: StoredToolCall) -> int:
        """Record that a call is about to be executed; returns the number of this attempt.

        The row is committed when this returns, of a write so that it survives a power cut. Reads and idempotent calls
        can be started again, writes cannot.

        Raises:
            UnknownOutcome: It is a write that was started before.
            StoreError: It has ended or is not approved.
        """

        def write(db: Connection) -> int:
            db.write(_ADD, _row(run_id, call))
            repeatable = "" if call.effect == "write" else ", 'started'"
            rows = db.execute(
                "UPDATE tool_calls SET status = 'started', attempts = attempts + 1, started = ? "  # noqa: S608
                f"WHERE run_id = ? AND id = ? AND status IN ('approved'{repeatable}) RETURNING attempts",
                (time.time(), run_id, call.id),
            )
            if rows:
                return int(rows[0][0])
            ((status,),) = db.execute("SELECT status FROM tool_calls WHERE run_id = ? AND id = ?", (run_id, call.id))
            return -1 if status == "started" else -2

        attempt = await self._write(write, run_id, durable=call.effect == "write")
        if attempt == -1:
            raise UnknownOutcome(f"whether {call.tool} was executed is unknown", hint="resume the run with --assume")
        if attempt == -2:
            raise StoreError(f"the call of {call.tool} cannot be started: it has ended or was not approved")
        return attempt

    async def finish(self, run_id: str, intent: str, result: ToolResult) -> None:
        """Store a result; it is committed when this returns."""
        row = ("failed" if result.is_error else "done", to_json(result), time.time(), run_id, intent)
        await self._write(lambda db: db.write(_END.format("'started'"), row), run_id)

    async def refuse(self, run_id: str, call: StoredToolCall, result: ToolResult) -> None:
        """Store the error result of a call that is not started any more."""
        row = ("failed", to_json(result), time.time(), run_id, call.id)

        def write(db: Connection) -> None:
            db.write(_ADD, _row(run_id, call))
            db.write(_END.format("'proposed', 'approved'"), row)

        await self._write(write, run_id)

    async def client_runs(self, intent: str, call_id: str, tenant: str) -> Sequence[str]:
        """Names of a tenant's runs in which a client was given a call, the newest first."""
        sql = (
            "SELECT runs.id FROM tool_calls JOIN runs ON runs.id = run_id WHERE tool_calls.id = ? AND call_id = ? "
            "AND tenant = ? AND executor = 'client' ORDER BY runs.created DESC LIMIT ?"
        )
        values = (intent, call_id, tenant, MAX_CLIENT_RUNS)
        rows = await self._store.commits.read(lambda db: db.execute(sql, values))
        return [row[0] for row in rows]

    async def return_results(
        self, run_id: str, results: Mapping[str, ToolResult]
    ) -> Literal["recorded", "repeated", "other"]:
        """Record the results of a turn's calls that a client has executed, by intent, whoever has the run.

        Returns:
            "repeated" if the same were recorded before, "other" if others were.
        """

        def write(db: Connection) -> Literal["recorded", "repeated", "other"]:
            now, first, repeated = time.time(), 0, 0
            for intent, result in results.items():
                values = (to_json(result), now, run_id, intent)
                first += len(db.execute(f"{_END.format(repr('proposed'))} RETURNING id", ("done", *values)))
                stored = db.execute("SELECT result FROM tool_calls WHERE run_id = ? AND id = ?", (run_id, intent))
                repeated += stored[0][0] == values[0]
            if first:
                return "recorded"
            return "repeated" if repeated == len(results) else "other"

        return await self._store.commits.write(write)

    async def release(self, run_id: str, intent: str) -> None:
        """Allow a call that is known to have had no effect to be started again."""
        sql = "UPDATE tool_calls SET status = 'approved' WHERE run_id = ? AND id = ? AND status = 'started'"
        await self._write(lambda db: db.write(sql, (run_id, intent)), run_id)


async def decide(store: ToolCallStore, run_id: str, decisions: Mapping[str, Decision], *, owned: bool = True) -> None:
    """Record a person's decisions about pending calls of a run.

    Args:
        decisions: By the calls' ids, or beginnings of them that no other pending call has.

    Raises:
        UnknownName: A decision fits no pending call.
        UserError: It is not one that its call needs.
        RunConflict: A call has been decided already, or the run does not wait.
    """
    rows = await store.list(run_id)
    pending = {row.id: row for row in rows if row.pending is not None}
    by_id: dict[str, Decision] = {}
    for name, decision in decisions.items():
        named = [row for row in pending.values() if row.id.startswith(name)]
        if len(named) != 1:
            if any(row.id == name for row in rows):
                raise RunConflict(f"the call {name} needs no decision any more", hint="read the run again")
            known = ", ".join(row.id[:8] for row in pending.values()) or "none"
            raise UnknownName("pending call", name, hint=f"pending calls are: {known}")
        needed = _AFTER[decision.kind][1]
        if named[0].status != needed:
            kinds = [kind for kind, (_, status) in _AFTER.items() if status == named[0].status]
            raise UserError(
                f"{decision.kind!r} is no decision about the call {name} of {named[0].tool}",
                hint=f"decide one of {', '.join(kinds)}",
                param=f"decisions.{name}",
            )
        by_id[named[0].id] = decision
    if late := by_id.keys() - await store.decide(run_id, by_id, owned=owned):
        raise RunConflict(f"another decision was made about {', '.join(sorted(late))}", hint="read the run again")


def _result_of(decision: Decision) -> ToolResult | None:
    """The result for the model; None if the call is to be executed."""
    if decision.kind == "reject":
        reason = f": {decision.reason}" if decision.reason else ""
        return ToolResult(text=f"{REJECTED}{reason}", is_error=True)
    if decision.kind == "done":
        return ToolResult(text="The call was executed; its result is not known.")
    if decision.kind == "failed":
        return ToolResult(
            text="Error: the call had no effect: it was interrupted before it was executed", is_error=True
        )
    return None


_ADDED = "id, turn, position, tool, effect, executor, call_id, arguments, status, note"
_JSON = ("write_check", "decision", "result")
_COLUMNS = f"{_ADDED}, attempts, {', '.join(_JSON)}"
_ADD = (
    f"INSERT INTO tool_calls (run_id, {_ADDED}, {', '.join(_JSON)}, created) "  # noqa: S608
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_END = "UPDATE tool_calls SET status = ?, result = ?, ended = ? WHERE run_id = ? AND id = ? AND status IN ({})"
_AFTER: dict[str, tuple[ToolCallStatus, ToolCallStatus]] = {
    "approve": ("approved", "proposed"),
    "edit": ("approved", "proposed"),
    "reject": ("denied", "proposed"),
    "done": ("assumed", "started"),
    "failed": ("assumed", "started"),
}
"""Status after a decision, and the status before it."""


def _row(run_id: str, call: StoredToolCall) -> tuple[object, ...]:
    values = (getattr(call, name) for name in _ADDED.split(", "))
    return run_id, *values, *(to_json(getattr(call, name)) for name in _JSON), time.time()


def _read(row: Sequence[Any]) -> StoredToolCall:
    values = dict(zip(_COLUMNS.split(", "), row, strict=True))
    for name in _JSON:
        values[name] = values[name] and json.loads(values[name])
    return StoredToolCall.model_validate(values)
