"""`RequestRunner` executes the run of one request and maps it to OpenAI's format.

An `Outcome` has content, tool calls, a finish reason and token counts. Usage includes every call of the run, including
discarded branches and verifiers.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from fastapi import Request
from pydantic import BaseModel, JsonValue

from ...core.errors import UnknownName, UserError
from ...core.events import RunFinished, RunStarted
from ...core.messages import ToolCall
from ...core.run import RunConfig
from ...core.store.records import RunRecord
from ...core.store.sql import RunStore
from ...core.types import Answer, RoleUsage, RunUsage
from ..auth import Caller
from ..run_manager import RunManager
from ..run_start import RunStarter
from ..runs import AnyRun, ClientTurn, LiveRun, StoredRun, client_turns, waits_for_client
from ..sse import Put
from .run_config import RunRequest
from .server_tools import ServerTools
from .streaming import AnswerText, EventTranslator, Piece, in_pieces, join_text, until_stop

FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True)
class Outcome:
    """The result of one run in OpenAI's terms.

    Attributes:
        answer: The run's answer.
        content: Text of the chosen candidate up to the first stop string.
        calls: Tool calls for the client to execute.
        finish_reason: "tool_calls", "length" if a limit ended the text or the run, else "stop"; also "length" for JSON
            that a stop string cut, or that is missing, so that what ends with "stop" is complete.
        content_tokens: Number of the run's completion tokens that belong to `content` and `calls`.
    """

    answer: Answer
    content: str
    calls: tuple[ToolCall, ...]
    finish_reason: FinishReason
    content_tokens: int

    @property
    def blocks(self) -> tuple[dict[str, JsonValue], ...]:
        """The provider's form of the thought, which the client returns with the results of the tools."""
        return self.answer.thought_blocks


def outcome_of(answer: Answer, run_request: RunRequest, translator: EventTranslator) -> Outcome:
    """Map an answer to an outcome. The translator must have processed the run's events."""
    waits = answer.stopped == "waiting" and answer.messages
    text = (answer.messages[-1].content if waits else answer.text).strip()
    content = until_stop(text, run_request.stop)
    offered = {tool.name for tool in run_request.config.question.offered_tools}
    calls = tuple(call for call in answer.tool_calls if not run_request.config.tools or call.name in offered)
    tokens, ended = _chosen(answer, translator)
    is_json = run_request.config.question.answer_schema is not None
    if content != text:  # the content is the beginning of the text: its share is estimated
        tokens = round(tokens * len(content) / len(text))
    return Outcome(
        answer=answer,
        content=content,
        calls=calls,
        finish_reason=_finish_reason(answer, calls, ended, stopped=content != text, is_json=is_json),
        content_tokens=min(tokens, answer.usage.completion_tokens),
    )


def _chosen(answer: Answer, translator: EventTranslator) -> tuple[int, str]:
    """Tokens of the chosen candidate without those of its thought, and its finish reason."""
    for found in translator.solutions:
        if found.text == answer.text and found.tool_calls == answer.tool_calls:
            return found.tokens - found.thinking_tokens, found.finish_reason
    for shown in answer.candidates:
        if shown.text == answer.text:
            return shown.tokens - shown.thinking_tokens, "stop"
    return 0, "stop"


def _finish_reason(
    answer: Answer, calls: tuple[ToolCall, ...], ended: str, *, stopped: bool, is_json: bool
) -> FinishReason:
    if calls:
        return "tool_calls"
    if is_json and (stopped or answer.answer is None):
        return "length"
    if stopped:
        return "stop"
    return "length" if answer.stopped == "budget" or ended in ("length", "thinking", "budget") else "stop"


def calls_json(calls: tuple[ToolCall, ...], *, numbered: bool = False) -> list[Mapping[str, object]]:
    """Tool calls in OpenAI's format; `numbered` adds the index that streams need."""
    return [{**({"index": i} if numbered else {}), **call.as_openai()} for i, call in enumerate(calls)]


LATE_NOTE = "thoughts were sent as content: the chat template of {} opens them; set opened_by_template in its profile"


@dataclass(frozen=True)
class EndedRun:
    """The end of a run.

    Attributes:
        run_id: Run id, with the number of the turn of a client's loop that is not the first.
        outcome: Result.
        pieces: Thoughts of the run that were not streamed, and what is between them if its tools are shown.
        late: Whether thoughts were sent as content.
        tools: The tools that the run executes, if they are shown.
    """

    run_id: str
    outcome: Outcome
    pieces: tuple[Piece, ...] = ()
    late: bool = False
    tools: ServerTools | None = None

    @property
    def thoughts(self) -> str:
        """Thoughts of the run that were not streamed."""
        return join_text(self.pieces)

    @property
    def approvals(self) -> list[dict[str, Any]]:
        """Output items of the Responses API for the approvals that the run waits for."""
        return [] if self.tools is None else self.tools.approvals(self.outcome.answer)


class EventWriter(Protocol):
    """Writes what happens in one run as the events of an interface's stream."""

    def begin(self) -> list[dict[str, Any]]:
        """The first events."""

    def piece(self, piece: Piece) -> list[dict[str, Any]]:
        """Events for a piece of thoughts or text, or for tools if they are shown."""

    def end(self, ended: EndedRun) -> list[dict[str, Any]]:
        """The last events."""


class RequestRunner:
    """Executes the run of one request.

    Args:
        request: HTTP request; the state of its application has the run manager.
        body: Its body.
        caller: Authenticated caller.
        run_request: Request to execute.
        idempotency: Idempotency key of the request.
        shows_tools: Whether the tools that the run executes are shown.

    Attributes:
        admitted: Set when the run is admitted.
    """

    def __init__(
        self,
        request: Request,
        body: BaseModel,
        caller: Caller,
        run_request: RunRequest,
        idempotency: str | None,
        *,
        shows_tools: bool = False,
    ) -> None:
        self.run_request, self._body = run_request, body
        self._run_manager: RunManager = request.app.state.run_manager
        self._caller, self._shows_tools = caller, shows_tools
        self._starter = RunStarter(request, caller, idempotency)
        self.admitted = asyncio.Event()

    async def execute(self) -> EndedRun:
        """Execute the run and return its end, with its thoughts.

        Raises:
            ReasonError: The run failed.
        """
        return await self._execute(None)

    async def stream(self, create: Callable[[str], EventWriter], put: Put) -> None:
        """Execute the run and write it as events; nothing is written before the first thought or text.

        Args:
            create: Creates the writer of a run, given its id.
            put: Sends an event.

        Raises:
            ReasonError: The run failed.
        """
        await self._execute(_Stream(create, put))

    async def _execute(self, stream: _Stream | None) -> EndedRun:
        try:
            request = self.run_request
            run = await self._starter.start(
                request.config, self._body, text=stream is not None, answers=request.answers
            )
            self.admitted.set()
            async with run.held():
                return await self._follow(run, stream)
        except UserError as e:
            e.param = self.run_request.field_names.get(e.param or "", e.param)
            raise

    async def _follow(self, run: AnyRun, stream: _Stream | None) -> EndedRun:
        answer_text = AnswerText(self.run_request.stop)
        # a run that another request started has emitted text before this subscription
        after = 0 if isinstance(run, LiveRun) else math.inf
        translator = EventTranslator(run.config, answer_text, after=after)
        kept: list[Piece] = []
        shows_tools = self._shows_tools and run.config.tools
        name, waiting = run.turn.name(run.id), None
        async with aclosing(run.batches(run.turn.after, text=stream is not None)) as batches:
            async for batch in batches:
                if waiting is not None and isinstance(run, StoredRun):
                    break  # its client has gone on
                for event in batch:
                    if isinstance(event, RunFinished) and waits_for_client(event.answer):
                        waiting = event.answer
                    pieces = translator.take(event)
                    if shows_tools and isinstance(event, RunStarted) and translator.tools is None:
                        record = await self._run_manager.record(run.id, self._caller)
                        pieces = translator.show_tools(ServerTools(record, run.config, run.turn))
                    if stream is None:
                        kept += pieces
                        continue
                    if pieces:
                        await stream.write(name, pieces)
        answer = await run.result() if waiting is None or not isinstance(run, StoredRun) else waiting
        answer = of_turn(answer, run.turn)
        last = translator.finish()
        outcome = outcome_of(answer, self.run_request, translator)
        ended = EndedRun(name, outcome, (*kept, *last), late=translator.late, tools=translator.tools)
        if stream is not None:
            left = in_pieces(answer_text.finish(outcome.content, late=translator.late))
            await stream.write(name, [*last, *(Piece("content", text) for text in left)], ended=ended)
        return ended


class _Stream:
    """A run's events as its writer encodes them."""

    def __init__(self, create: Callable[[str], EventWriter], put: Put) -> None:
        self._create, self._put = create, put
        self._writer: EventWriter | None = None

    async def write(self, run_id: str, pieces: Sequence[Piece], ended: EndedRun | None = None) -> None:
        events: list[dict[str, Any]] = []
        if self._writer is None:
            self._writer = self._create(run_id)
            events += self._writer.begin()
        for piece in pieces:
            events += self._writer.piece(piece)
        if ended is not None:
            events += self._writer.end(ended)
        for one in events:
            await self._put(one)


async def stored_outcome(store: RunStore, record: RunRecord, config: RunConfig, number: int) -> EndedRun | None:
    """Rebuild the end of a turn, including its thoughts and tools, from the run store; None if it has not ended.

    Raises:
        UnknownName: There is no such turn.
    """
    events = await store.list_events(record.id)
    turns, ends = client_turns(events)
    waits = record.status == "waiting" and waits_for_client(Answer.model_validate(record.answer))
    if not 1 <= number <= len(turns) - waits:  # the turn after the last calls has not begun
        raise UnknownName("response", turns[-1].name(record.id))
    turn, end = turns[number - 1], None if number > len(ends) else ends[number - 1]
    if end is None and (record.status not in ("finished", "waiting") or record.answer is None):
        return None
    answer = Answer.model_validate(record.answer) if end is None else end.answer
    translator = EventTranslator(config, AnswerText(), after=math.inf)
    tools = ServerTools(record, config, turn) if config.tools else None
    pieces: list[Piece] = [] if tools is None else translator.show_tools(tools)
    for event in events:
        if turn.after < event.number and (end is None or event.number < end.number):
            pieces += translator.take(event)
    pieces += translator.finish()
    outcome = outcome_of(of_turn(answer, turn), RunRequest(model=config.strategy, config=config), translator)
    return EndedRun(turn.name(record.id), outcome, tuple(pieces), tools=tools)


def of_turn(answer: Answer, turn: ClientTurn) -> Answer:
    """An answer with the usage of its own turn."""
    now, before = answer.usage, turn.spent
    if turn.number == 1:
        return answer
    rows = {name: _less(row, before.by_role.get(name)) for name, row in now.by_role.items()}
    return answer.model_copy(update={"usage": _less(now, before).model_copy(update={"by_role": rows})})


def _less(now: UsageT, before: UsageT | None) -> UsageT:
    """Usage of a turn; what was spent before counts as replayed in `now`."""
    if before is None:
        return now
    earlier = before.model_copy(
        update={"replayed_calls": before.model_calls, "replayed_tokens": before.completion_tokens}
    )
    amounts = {
        name: None if None in (value, old := getattr(earlier, name)) else max(0, value - old)
        for name, value in now
        if isinstance(value, int | float | None)
    }
    return now.model_copy(update=amounts)


UsageT = TypeVar("UsageT", RoleUsage, RunUsage)


def chat_usage(outcome: Outcome) -> dict[str, Any]:
    """The `usage` of a chat completion.

    `completion_tokens` counts all generated tokens. `reasoning_tokens` counts those that are not in the returned
    content: the thoughts of the returned sample, and all of other candidates, judges and verifiers. How many of them
    the models thought is `reason.usage.thinking_tokens`.
    """
    spent = outcome.answer.usage
    return {
        "prompt_tokens": spent.prompt_tokens,
        "completion_tokens": spent.completion_tokens,
        "total_tokens": spent.prompt_tokens + spent.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": spent.cached_tokens, "cache_write_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": spent.completion_tokens - outcome.content_tokens,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
            "audio_tokens": 0,
        },
    }


def reason_report(answer: Answer) -> dict[str, Any]:
    """The `reason` object: result fields that the other formats do not have."""
    verification = answer.verification
    return {
        "run_id": answer.run_id,
        "strategy": answer.strategy,
        "selected_strategy": answer.selected_strategy,
        "model": answer.model,
        "seed": answer.seed,
        "answer": answer.answer,
        **({} if answer.option is None else {"option": answer.option}),
        "confidence": answer.confidence,
        "calibrated_confidence": answer.calibrated_confidence,
        "calibration": answer.calibration,
        "verification": None if verification is None else verification.model_dump(mode="json"),
        "citations": [c.model_dump(mode="json") for c in answer.citations],
        "stopped": answer.stopped,
        **({"pending": [call.model_dump(mode="json") for call in answer.pending]} if answer.pending else {}),
        **({} if answer.stopped_by is None else {"stopped_by": answer.stopped_by}),
        **({"based_on": answer.based_on} if answer.based_on else {}),
        "degraded": list(answer.degraded),
        "cost_usd": answer.usage.cost_usd,
        "usage": answer.usage.model_dump(mode="json", exclude={"cost_usd"}),
    }
