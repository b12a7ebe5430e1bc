"""`ToolExecutor`: executes the calls of model turns; the intent is stored before a call, its result after it.

The intent of a call joins the transaction of the sample that made the call (`RunWriter.execute`), so that neither can
be in the store without the other.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal

from ...core.concurrency import gather
from ...core.errors import StoreError, UserError
from ...core.events import ApprovalDecided, ApprovalRequested, ToolFinished, ToolProgress, ToolStarted
from ...core.messages import ApprovalMode, Message, Tool, ToolCall, parse_json
from ...core.run import Run
from ...core.types import PendingToolCall, Question
from ...reasoning.strategy import RESOURCES
from ...verify.verifier import ToolUse
from ..repairs import FINDINGS
from .records import ENDED, Decision, StoredToolCall, ToolCallStore, intent_ids
from .tool import (
    MAX_STORED_CHARS,
    READ_RESULT,
    ExecutableTool,
    InvalidArguments,
    OutcomeUnknown,
    ToolCallContext,
    ToolResult,
    cut,
    error_result,
    result_of,
    valid_text,
)

MAX_AT_ONCE: Final = 8
"""Maximum number of calls of one turn at once."""
WRITE_GRACE_S: Final = 10.0
"""Seconds that a write in flight has left when the budget is spent or the user wants the answer."""
MAX_ERROR_CHARS: Final = 2_000
"""Maximum length in the prompt of the result of a tool that does not exist."""
NOT_EXECUTED: Final = "not executed: "
"""Beginning of the result of a call that was not started because the run ends."""
OVER_BUDGET: Final = "not executed: the budget is spent"


class Waiting(Exception):
    """The turn needs decisions or results that are not there; the run ends as "waiting" until they are."""

    def __init__(self, pending: Sequence[PendingToolCall]) -> None:
        super().__init__(f"{len(pending)} tool calls wait for a decision or a result")
        self.pending = tuple(pending)


REPEATED: Final = "You have made the same tool calls with the same results"
"""Beginning of what a model that repeats itself is told."""


def user_texts(question: Question) -> tuple[str, ...]:
    """The user's own words, in order: findings of verifiers quote results, and are messages of the user too."""
    asked = Message(role="user", content=question.text)
    messages = (*question.conversation, asked, *question.continuation)
    texts = (message.content for message in messages if message.role == "user")
    return tuple(text for text in texts if not text.startswith((FINDINGS, REPEATED)))


def client_uses(question: Question, tools: Mapping[str, Tool] = MappingProxyType({})) -> tuple[ToolUse, ...]:
    """The calls of a question's messages that have a result: its client executed them, or an earlier run."""
    messages = (*question.conversation, *question.continuation)
    declared = {**{tool.name: tool for tool in question.tools}, **tools}
    calls = {call.id: call for message in messages for call in message.tool_calls}
    return tuple(
        _use(
            f"{call.name}:{call.id}",
            declared.get(call.name),
            call.name,
            call.arguments,
            ToolResult(text=message.content),
        )
        for message in messages
        if message.role == "tool" and (call := calls.get(message.tool_call_id)) is not None
    )


_ERROR: Final = re.compile(
    r"\s*(?:error\b(?! ?(?:s|-free|count|rate))|an error occurred|traceback \(most recent|tool execution failed"
    r"|\{\s*\"(?:error|is_?error)\"\s*:\s*(?!null|false|\"\"|\[\]|0))",
    re.IGNORECASE,
)
"""Beginnings of results by which clients' frameworks tell a model that a call failed: their formats have no flag."""


def _use(source: str, tool: Tool | None, name: str, arguments: str, result: ToolResult) -> ToolUse:
    effect = None if tool is None else tool.effect
    return ToolUse(
        source=source,
        tool=name,
        description="" if tool is None else tool.description,
        arguments=arguments,
        effect=effect or "write",
        ok=not (result.is_error or _ERROR.match(result.text)),
        result=result.text,
    )


Approver = Callable[[PendingToolCall], Awaitable[Decision | None]]
"""Asks a person about a call; None leaves it pending."""


class ToolExecutor:
    """Executes the tool calls of one run.

    Args:
        approver: Asks for decisions; None leaves calls pending.
        assume: Outcome to assume for writes whose outcome is unknown; None asks.
    """

    def __init__(
        self,
        run: Run,
        tools: Mapping[str, ExecutableTool],
        *,
        approve: ApprovalMode = "writes",
        approver: Approver | None = None,
        assume: Literal["done", "failed"] | None = None,
    ) -> None:
        self._run, self.tools = run, tools
        self._store = ToolCallStore(run.store, run.writer)
        self._approve, self.approver, self._assume = approve, approver, assume
        self._client_tools = frozenset(tool.name for tool in run.question.offered_tools) - tools.keys()
        self._rows: dict[str, StoredToolCall] | None = None
        self._slots = {name: asyncio.Semaphore(tool.concurrency) for name, tool in tools.items()}
        self._at_once = asyncio.Semaphore(MAX_AT_ONCE)

    async def load(self) -> dict[str, StoredToolCall]:
        """Read the run's calls from the store; needed again after a decision that was not made here."""
        self._rows = {row.id: row for row in await self._store.list(self._run.id)}
        return self._rows

    async def prepare(self, turn: int, history: str, calls: Sequence[ToolCall]) -> list[StoredToolCall]:
        """Get the decisions that the calls of a turn need, before any of them is executed.

        Raises:
            Waiting: Some are missing.
        """
        planned = await self.planned(turn, history, calls)
        new = [i for i, row in enumerate(planned) if row.executor == "client" and row.id not in (self._rows or {})]
        if len(new) > self._run.ledger.remaining("tool_calls"):
            for i in new:
                planned[i] = _failed(planned[i], OVER_BUDGET)
        await self._settle(planned)
        return planned

    async def execute(self, turn: int, history: str, calls: Sequence[ToolCall]) -> list[Message]:
        """Execute the calls of a turn; returns their messages, in the order of the calls.

        Reads between two writes run at once; writes keep their order.

        Raises:
            Waiting: Decisions are missing, and nothing was executed; or a write in flight did not end.
        """
        planned = await self.prepare(turn, history, calls)
        results: list[ToolResult] = [ToolResult(text="")] * len(planned)
        reads: list[int] = []
        for i, row in enumerate(planned):
            if row.status in ENDED:
                self._count(row)
                results[i] = await self._result(row)
            elif not self._count(row):
                results[i] = await self._refuse(row, OVER_BUDGET)
            elif row.effect == "read":
                reads.append(i)
            else:
                await self._execute_reads(planned, reads, results)
                results[i] = await self._result(row)
        await self._execute_reads(planned, reads, results)
        return [self._message(row, call, result) for row, call, result in zip(planned, calls, results, strict=True)]

    # -- what the calls need

    async def planned(self, turn: int, history: str, calls: Sequence[ToolCall]) -> list[StoredToolCall]:
        """The calls of a turn as they are stored, or would be."""
        if self._rows is None:
            await self.load()
        ids = intent_ids(history, calls)
        return [self._planned(turn, i, ids[i], call) for i, call in enumerate(calls)]

    def _planned(self, turn: int, position: int, intent: str, call: ToolCall) -> StoredToolCall:
        """The stored call; or a new one, which has failed already if it cannot be executed."""
        assert self._rows is not None
        stored = self._rows.get(intent)
        if stored is not None:
            return stored
        tool = self.tools.get(call.name)
        is_client = call.name in self._client_tools or not self.tools
        row = StoredToolCall(
            id=intent,
            turn=turn,
            position=position,
            tool=call.name,
            effect="write" if tool is None else tool.effect,
            executor="client" if is_client else "run",
            call_id=call.id,
            arguments=call.arguments,
        )
        if is_client:
            return row
        if tool is None:
            known = ", ".join(sorted(self.tools.keys() - {READ_RESULT})) or "none"
            return _failed(row, f"there is no tool {call.name!r}; available tools: {known}")
        if fault := tool.fault(call.arguments):
            return _failed(row, f"invalid arguments: {fault}")
        if reason := self._run_end():
            return _failed(row, NOT_EXECUTED + reason)
        note = self._approval(turn, call, tool)
        return row.model_copy(update={"status": "approved"} if note is None else {"note": note})

    def _approval(self, turn: int, call: ToolCall, tool: ExecutableTool) -> str | None:
        """Why a call needs an approval, empty if that is clear; None if it needs none."""
        is_write = tool.effect != "read"
        if tool.asks or self._approve == "all" or (self._approve == "writes" and is_write):
            return ""
        if self._approve == "never" or not is_write:
            return None
        question = self._run.question
        if not (turn or any(message.role == "tool" for message in (*question.conversation, *question.continuation))):
            return None
        return RESOURCES.load("guard").why_held(call.name, call.parsed_arguments or {}, user_texts(question)) or None

    def _run_end(self) -> str:
        """Why no call may begin any more; empty if one may."""
        ledger = self._run.ledger
        if ledger.is_closed:
            return "the user wants the answer now"
        if ledger.remaining_seconds() == 0.0:
            self._run.record_limit(ledger.exceeded("seconds"))
            return "the time limit is reached"
        return ""

    def _count(self, row: StoredToolCall) -> bool:
        """Charge a call that is or was executed; returns whether the budget allows it.

        Stored calls count too, so that a resumed run and a replay stop at the same call.
        """
        ledger, is_stored = self._run.ledger, row.status in ENDED
        was_refused = row.result is not None and row.result.text == error_result(OVER_BUDGET).text
        if was_refused or (not is_stored and ledger.remaining("tool_calls") < 1):
            self._run.record_limit(ledger.exceeded("tool_calls"))
        elif row.attempts or row.executor == "client" or not is_stored:
            ledger.count("tool_calls")
            return True
        return is_stored

    async def _settle(self, planned: list[StoredToolCall]) -> None:
        """Get what is missing for a turn: approvals, outcomes, the client's results. All are asked for together."""
        rows = self._rows or {}
        new = [row for row in planned if row.status in ("proposed", "failed") and row.id not in rows]
        if new and self._run.recording:
            await self._store.add(self._run.id, new)
            rows.update((row.id, row) for row in new)
        pending: list[PendingToolCall] = []
        decisions: dict[str, Decision] = {}
        for i, row in enumerate(planned):
            if (one := row.pending) is None:
                continue
            if one.question == "outcome" and await self._looked_up(row):
                planned[i] = (self._rows or {})[row.id]
                continue
            decision = await self._decision(one)
            if decision is None:
                pending.append(one)
            else:
                decisions[row.id] = decision
        if decisions:
            await self._store.decide(self._run.id, decisions)
            rows = await self.load()
            planned[:] = [rows.get(row.id, row) for row in planned]
        if pending:
            raise Waiting(pending)

    async def _decision(self, call: PendingToolCall) -> Decision | None:
        run = self._run
        if call.question == "result" or not run.recording:
            return None
        if call.question == "outcome" and self._assume is not None:
            return Decision(kind=self._assume, by="assume")
        run.emit(ApprovalRequested(call=call.id, tool=call.tool, arguments=call.arguments, question=call.question))
        if self.approver is None:
            return None
        with run.ledger.paused():  # a person's time is not the run's
            decision = await self.approver(call)
        if decision is not None:
            allowed = ("done", "failed") if call.question == "outcome" else ("approve", "edit", "reject")
            if decision.kind not in allowed:
                raise UserError(
                    f"the approver decided {decision.kind!r} about the {call.question} of {call.tool}",
                    hint=f"return one of {', '.join(allowed)}, or None",
                )
            run.emit(ApprovalDecided(call=call.id, tool=call.tool, decision=decision.kind, by=decision.by))
        return decision

    async def _looked_up(self, row: StoredToolCall) -> bool:
        """Ask the tool for the outcome of an interrupted write; returns whether it is known now."""
        tool = self.tools.get(row.tool)
        if tool is None or tool.status is None or not self._run.recording:
            return False
        try:
            async with asyncio.timeout(tool.seconds):
                value = await tool.status(ToolCallContext(self._run.id, row.id, row.attempts))
        except Exception as e:  # noqa: BLE001 - a tool may raise anything; a person is asked instead
            self._run.degrade(f"the outcome of a call of {row.tool} could not be looked up: {error_result(e).text}")
            return False
        if value is None:
            await self._store.release(self._run.id, row.id)
        else:
            await self._store.finish(self._run.id, row.id, result_of(value))
        await self.load()
        return True

    # -- execution

    async def _execute_reads(self, planned: list[StoredToolCall], reads: list[int], results: list[ToolResult]) -> None:
        for i, result in zip(reads, await gather(self._result(planned[i]) for i in reads), strict=True):
            results[i] = result
        reads.clear()

    async def _result(self, row: StoredToolCall) -> ToolResult:
        """The stored result of a call, or that of its execution.

        Raises:
            Waiting: It is a write that did not end in time, so its outcome is unknown.
        """
        run = self._run
        started = ToolStarted(
            call=row.id, tool=row.tool, arguments=row.used_arguments, effect=row.effect, turn=row.turn
        )
        if row.result is not None:
            number = run.emit(started)
            run.emit(self._finished(row, row.result, is_replayed=row.attempts > 0), parent=number)
            return row.result
        if not run.recording:
            raise StoreError(f"run {run.id} has no result of its call of {row.tool}", hint="resume it instead")
        tool = self.tools[row.tool]
        if tool.effect != "read" and run.config.check_writes is not None and row.write_check is None:
            return await self._refuse(row, NOT_EXECUTED + "it was not checked")
        result: ToolResult | None = None
        async with self._at_once, self._slots[row.tool]:
            if reason := self._run_end():
                return await self._refuse(row, NOT_EXECUTED + reason)
            if fault := tool.fault(row.used_arguments):  # a decision may have edited them
                return await self._refuse(row, f"invalid arguments: {fault}")
            number = run.emit(started)
            began_s = run.ledger.elapsed_s
            attempt = await self._store.start(run.id, row)
            try:
                result = await self._call(tool, row, attempt, number)
            except (TimeoutError, OutcomeUnknown) as e:
                if tool.effect != "write":
                    result = error_result(str(e) if isinstance(e, OutcomeUnknown) else self._timeout_reason(tool))
            if result is not None:
                await self._store.finish(run.id, row.id, result)
                seconds = max(0.0, run.ledger.elapsed_s - began_s)
                run.emit(self._finished(row, result, seconds=seconds), parent=number)
        if result is not None:
            return result
        unknown = [(await self.load())[row.id]]
        await self._settle(unknown)
        return await self._result(unknown[0])

    def _timeout_reason(self, tool: ExecutableTool) -> str:
        reason = self._run_end()
        return f"cancelled: {reason}" if reason else f"no result within {tool.seconds:g} seconds"

    async def _refuse(self, row: StoredToolCall, reason: str) -> ToolResult:
        """The error result of a call that is not executed after all."""
        result = error_result(reason)
        if self._run.recording:
            await self._store.refuse(self._run.id, row, result)
        self._run.emit(self._finished(row, result))
        return result

    async def _call(self, tool: ExecutableTool, row: StoredToolCall, attempt: int, number: int) -> ToolResult:
        """The result of an execution.

        Raises:
            TimeoutError: It had none in time.
            OutcomeUnknown: The tool cannot tell.
        """
        arguments = parse_json(row.used_arguments or "{}")
        assert isinstance(arguments, dict)
        run, loop = self._run, asyncio.get_running_loop()
        task = asyncio.current_task()
        cancelling = task.cancelling() if task is not None else 0
        grace_s = WRITE_GRACE_S if tool.effect == "write" else 0.0
        left = run.ledger.remaining_seconds()
        seconds = tool.seconds if left is None else min(tool.seconds, left + grace_s)

        def progress(text: str) -> None:  # also from the thread of a synchronous tool
            event = ToolProgress(call=row.id, tool=row.tool, text=valid_text(text))
            loop.call_soon_threadsafe(lambda: run.emit(event, number))

        try:
            async with asyncio.timeout(seconds) as limit:

                def shorten() -> None:
                    limit.reschedule(min(limit.when() or loop.time(), loop.time() + grace_s))

                try:
                    with run.on_conclude(shorten):
                        context = ToolCallContext(run.id, row.id, attempt, progress, self._stored_result)
                        return result_of(await tool.call(arguments, context))
                except asyncio.CancelledError as e:
                    if limit.expired() or (task is not None and task.cancelling() > cancelling):
                        if tool.is_thread:
                            run.degrade(f"a call of {row.tool} was given up, and its thread goes on until it ends")
                        raise
                    return error_result(e)  # the tool raised it; the call was not cancelled
        except TimeoutError as e:
            if limit.expired():
                raise
            return error_result(e)
        except OutcomeUnknown:
            raise
        except InvalidArguments as e:
            return error_result(f"invalid arguments: {e}")
        except SystemExit as e:  # which would end the event loop
            return error_result(f"the tool exited with {e.code!r}")
        except Exception as e:  # noqa: BLE001 - a tool may raise anything, and the model is told
            return error_result(e)

    async def uses(self, without: Container[str] = ()) -> tuple[ToolUse, ...]:
        """The ended calls of messages before the run, and of the run, as evidence; `without` are IDs of some."""
        declared = {
            name: tool.declaration.model_copy(update={"effect": tool.effect}) for name, tool in self.tools.items()
        }
        uses = list(client_uses(self._run.question, declared))
        for row in await self._store.list(self._run.id):
            if row.result is not None and row.id not in without:
                source = f"{row.tool}:{row.id[:8]}"
                uses.append(_use(source, declared.get(row.tool), row.tool, row.used_arguments, row.result))
        return tuple(uses)

    async def _stored_result(self, call: str) -> str | None:
        rows = [row for row in await self._store.list(self._run.id) if row.id.startswith(call)]
        return rows[0].result.text if len(rows) == 1 and rows[0].result is not None else None

    def _finished(
        self, row: StoredToolCall, result: ToolResult, *, seconds: float = 0.0, is_replayed: bool = False
    ) -> ToolFinished:
        return ToolFinished(
            call=row.id,
            tool=row.tool,
            text=cut(result.text, self._limit(row)),
            is_error=result.is_error,
            seconds=seconds,
            is_replayed=is_replayed,
        )

    def _limit(self, row: StoredToolCall) -> int:
        tool = self.tools.get(row.tool)
        if tool is None:
            return MAX_ERROR_CHARS if row.executor == "run" else MAX_STORED_CHARS
        return tool.result_chars

    def _message(self, row: StoredToolCall, call: ToolCall, result: ToolResult) -> Message:
        text = cut(result.text, self._limit(row), call=row.id[:8] if READ_RESULT in self.tools else "")
        return Message(role="tool", content=text, tool_call_id=call.id, name=call.name)


def _failed(row: StoredToolCall, reason: str) -> StoredToolCall:
    return row.model_copy(update={"status": "failed", "result": error_result(reason)})
