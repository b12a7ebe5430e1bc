"""`ChoiceRunner` executes the runs of one request and maps each to OpenAI's format.

An `Outcome` has content, tool calls, a finish reason and token counts. Usage includes every call of every run,
including discarded branches and verifiers.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from fastapi import Request
from pydantic import BaseModel, JsonValue

from ...core.concurrency import gather
from ...core.errors import ReasonError, UserError
from ...core.events import BudgetCharged, CallFinished, Event, TextDelta
from ...core.messages import Completion, Thought, ToolCall
from ...core.run import RunConfig
from ...core.store.protocol import RunRecord
from ...core.store.sql import RunStore
from ...core.types import Answer, RoleUsage, RunUsage
from ..auth import Caller
from ..error_objects import event_json
from ..run_manager import RunManager
from ..run_start import note_run, request_digest
from ..runs import AnyRun, LiveRun
from ..sse import Put
from .run_config import RunRequest
from .streaming import (
    AnswerText,
    EventTranslator,
    TextPiece,
    in_pieces,
    join_thoughts,
    until_stop,
)

FinishReason = Literal["stop", "length", "tool_calls"]
MIN_LOGPROB = -9999.0
"""OpenAI's log-probability of a token that is next to impossible: JSON has no infinity."""


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
        thought: Thought of the chosen sample; None if it has none.
        logprobs: Log-probabilities of the content's tokens in OpenAI's format; None if they were not requested, or if
            the content is not that of one sample.
    """

    answer: Answer
    content: str
    calls: tuple[ToolCall, ...]
    finish_reason: FinishReason
    content_tokens: int
    thought: Thought | None = None
    logprobs: list[dict[str, Any]] | None = None

    @property
    def blocks(self) -> tuple[dict[str, JsonValue], ...]:
        """The provider's form of the thought, which the client returns with the results of the tools."""
        return () if self.thought is None or not self.calls else self.thought.blocks


def outcome_of(answer: Answer, run_request: RunRequest, translator: EventTranslator) -> Outcome:
    """Map an answer to an outcome. The translator must have processed the run's events."""
    text = answer.text.strip()
    content = until_stop(text, run_request.stop)
    calls = answer.tool_calls[:1] if run_request.one_call else answer.tool_calls
    tokens, ended = _chosen(answer, translator)
    is_json = run_request.configs[0].question.answer_schema is not None
    if content != text:  # the content is the beginning of the text: its share is estimated
        tokens = round(tokens * len(content) / len(text))
    return Outcome(
        answer=answer,
        content=content,
        calls=calls,
        finish_reason=_finish_reason(answer, calls, ended, stopped=content != text, is_json=is_json),
        content_tokens=min(tokens, answer.usage.completion_tokens),
        thought=translator.thoughts.get((text, answer.tool_calls)),
        logprobs=None
        if run_request.top_logprobs is None or (sample := translator.samples.get((text, answer.tool_calls))) is None
        else token_logprobs(sample, content, run_request.top_logprobs),
    )


def token_logprobs(sample: Completion, content: str, num_alternatives: int) -> list[dict[str, Any]]:
    """Log-probabilities of the tokens of a sample that make up the content, in OpenAI's format.

    Tokens of the thought, of white space around the content and of the end of text are left out.
    """
    first = sample.answer_from
    texts, logprobs = sample.token_texts[first:], (sample.logprobs or ())[first:]
    start = max(0, "".join(texts).find(content))
    entries: list[dict[str, Any]] = []
    end = 0
    for text, logprob, alternatives in zip(texts, logprobs, sample.answer_top_logprobs, strict=False):
        begin, end = end, end + len(text)
        if end <= start or begin >= start + len(content):
            continue
        top = [_token_json(one.token, one.logprob) for one in alternatives[:num_alternatives]]
        entries.append({**_token_json(text, logprob), "top_logprobs": top})
    return entries


def _token_json(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": max(logprob, MIN_LOGPROB), "bytes": list(text.encode(errors="surrogatepass"))}


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
class OutcomePiece:
    """An update from one of the runs.

    Attributes:
        index: Choice index of the run.
        run_id: Run id.
        pieces: New thoughts and content.
        event: The run event that produced them, if the request streams events.
        ended: The end of the run; set in its last update.
    """

    index: int
    run_id: str
    pieces: tuple[TextPiece, ...] = ()
    event: Event | None = None
    ended: EndedRun | None = None


@dataclass(frozen=True)
class EndedRun:
    """The end of one run: an outcome or an error.

    Attributes:
        run_id: Run id; empty if the run manager did not accept the run.
        outcome: Result; None if the run failed.
        error: Error that ended the run.
        thoughts: Thoughts of the run that were not streamed.
        spent: Usage of a failed run.
        late: Whether thoughts were sent as content.
    """

    run_id: str
    outcome: Outcome | None = None
    error: ReasonError | None = None
    thoughts: str = ""
    spent: RunUsage = field(default_factory=RunUsage)
    late: bool = False


PieceSink = Callable[[OutcomePiece], Awaitable[None]]


class ChoiceRunner:
    """Executes the runs of one request, one for each choice.

    Args:
        request: HTTP request; the state of its application has the run manager.
        body: Its body.
        caller: Authenticated caller.
        run_request: Request to execute.
        idempotency: Idempotency key of the request.

    Attributes:
        admitted: Set when the first of the runs is admitted.
    """

    def __init__(
        self,
        request: Request,
        body: BaseModel,
        caller: Caller,
        run_request: RunRequest,
        idempotency: str | None,
    ) -> None:
        self.run_request = run_request
        self._request = request
        self._run_manager: RunManager = request.app.state.run_manager
        self._caller = caller
        self._idempotency, self._digest = idempotency, request_digest(request, body, idempotency)
        self.admitted = asyncio.Event()

    async def all(self, emit: PieceSink | None = None) -> list[EndedRun]:
        """Execute all runs concurrently and return their ends in the order of the choices.

        Args:
            emit: Receives updates and the end of each run. None collects thoughts without streaming.

        Raises:
            ReasonError: All runs failed; the error of the first run.
        """
        runs = [self._one(i, emit) for i in range(len(self.run_request.configs))]
        ended = [await runs[0]] if len(runs) == 1 else await gather(runs)
        if (error := ended[0].error) is not None and all(e.outcome is None for e in ended):
            raise error
        return ended

    async def _one(self, index: int, emit: PieceSink | None) -> EndedRun:
        """Execute one run. An error is returned, not raised, so that the other runs continue."""
        run_id = ""
        try:
            run = await self._start(index, text=emit is not None)
            run_id = run.id
            self.admitted.set()
            async with run.held():
                ended = await self._follow(index, run, emit)
        except ReasonError as e:
            if isinstance(e, UserError):
                e.param = self.run_request.field_names.get(e.param or "", e.param)
            return EndedRun(run_id, error=e, spent=await self._spent(run_id))
        if emit is not None:
            await emit(OutcomePiece(index, run_id, ended=ended))
        return ended

    async def _start(self, index: int, *, text: bool) -> AnyRun:
        key = self._idempotency
        run = await self._run_manager.start(
            self.run_request.configs[index],
            self._caller,
            idempotency=key if key is None or index == 0 else f"{key}\x1f{index}",  # not valid in a header
            digest=self._digest,
            text=text,
        )
        note_run(self._request, run)
        return run

    async def _follow(self, index: int, run: AnyRun, emit: PieceSink | None) -> EndedRun:
        config, answer_text = run.config, AnswerText(self.run_request.stop)
        # a run that another request started has emitted text before this subscription
        after = 0 if isinstance(run, LiveRun) else math.inf
        translator = EventTranslator(config, answer_text, after=after)
        piece: list[TextPiece] = []
        async with aclosing(run.batches(text=emit is not None)) as batches:
            async for batch in batches:
                for event in batch:
                    pieces = translator.take(event)
                    if emit is None:
                        piece += pieces
                        continue
                    # text deltas are sent as pieces, not as events
                    is_streamed = self.run_request.stream_events and not isinstance(event, TextDelta)
                    shown = event_json(event) if is_streamed else None
                    if pieces or shown is not None:
                        await emit(OutcomePiece(index, run.id, tuple(pieces), shown))
        answer = await run.result()
        last = translator.finish()
        outcome = outcome_of(answer, self.run_request, translator)
        if emit is not None:
            left = answer_text.finish(outcome.content, late=translator.late)
            if last:
                await emit(OutcomePiece(index, run.id, tuple(last)))
            for text in in_pieces(left):
                await emit(OutcomePiece(index, run.id, (TextPiece("content", text),)))
        return EndedRun(run.id, outcome, thoughts=join_thoughts([*piece, *last]), late=translator.late)

    async def _spent(self, run_id: str) -> RunUsage:
        """Usage of a failed run."""
        if not run_id:
            return RunUsage()
        try:
            record = await self._run_manager.record(run_id, self._caller)
            events = [] if record.answer is not None else await self._run_manager.store.list_events(run_id)
        except ReasonError:  # the store itself may have failed
            return RunUsage()
        return charged(events) if record.answer is None else RunUsage.model_validate(record.answer["usage"])


def charged(events: Iterable[Event]) -> RunUsage:
    """What a run without an answer was charged, by its events."""
    usage = RunUsage()
    for event in events:
        match event:
            case CallFinished():
                usage = usage.model_copy(
                    update={
                        "prompt_tokens": usage.prompt_tokens + event.prompt_tokens,
                        "cached_tokens": usage.cached_tokens + event.cached_tokens,
                    }
                )
            case BudgetCharged():
                usage = usage.model_copy(
                    update={
                        "completion_tokens": event.total_tokens,
                        "thinking_tokens": event.total_thinking_tokens,
                        "model_calls": event.total_calls,
                        "reward_calls": event.total_reward_calls,
                        "cost_usd": event.total_usd,
                    }
                )
    return usage


class EventWriter(Protocol):
    """Writes what happens in one run as the events of an interface's stream."""

    def begin(self) -> list[dict[str, Any]]:
        """The first events."""

    def piece(self, piece: TextPiece) -> list[dict[str, Any]]:
        """Events for a piece of thoughts or text."""

    def event(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """An event with a run event."""

    def end(self, outcome: Outcome) -> list[dict[str, Any]]:
        """The last events."""


async def write_events(runner: ChoiceRunner, create: Callable[[str], EventWriter], put: Put) -> None:
    """Execute a request's only run and write it as events.

    Args:
        create: Creates the writer of a run, given its id.

    Raises:
        ReasonError: The run failed.
    """
    made: list[EventWriter] = []

    async def emit(piece: OutcomePiece) -> None:
        events: list[dict[str, Any]] = []
        if not made:
            made.append(create(piece.run_id))
            events += made[0].begin()
        (writer,) = made
        for part in piece.pieces:
            events += writer.piece(part)
        if piece.event is not None:
            events.append(writer.event(piece.event.model_dump(mode="json")))
        if piece.ended is not None and piece.ended.outcome is not None:
            events += writer.end(piece.ended.outcome)
        for event in events:
            await put(event)

    await runner.all(emit)


async def stored_outcome(store: RunStore, record: RunRecord, config: RunConfig) -> EndedRun:
    """Rebuild the end of a finished run, including its thoughts, from the run store."""
    answer = Answer.model_validate(record.answer)
    translator = EventTranslator(config, AnswerText(), after=math.inf)
    pieces: list[TextPiece] = []
    for event in await store.list_events(record.id):
        pieces += translator.take(event)
    pieces += translator.finish()
    run_request = RunRequest(model=config.strategy, configs=(config,))
    return EndedRun(record.id, outcome_of(answer, run_request, translator), thoughts=join_thoughts(pieces))


def total(usages: Iterable[RunUsage]) -> RunUsage:
    """Sum the usage of concurrent runs; `wall_seconds` is the maximum."""
    known = list(usages)
    by_role: dict[str, RoleUsage] = {}
    for usage in known:
        for name, row in usage.by_role.items():
            by_role[name] = row if name not in by_role else _plus(by_role[name], row)
    return RunUsage(
        prompt_tokens=sum(u.prompt_tokens for u in known),
        cached_tokens=sum(u.cached_tokens for u in known),
        cache_write_tokens=sum(u.cache_write_tokens for u in known),
        completion_tokens=sum(u.completion_tokens for u in known),
        thinking_tokens=sum(u.thinking_tokens for u in known),
        model_calls=sum(u.model_calls for u in known),
        reward_calls=sum(u.reward_calls for u in known),
        replayed_calls=sum(u.replayed_calls for u in known),
        replayed_tokens=sum(u.replayed_tokens for u in known),
        cost_usd=_sum([u.cost_usd for u in known]),
        wall_seconds=max((u.wall_seconds for u in known), default=0.0),
        by_role=by_role,
    )


def chat_usage(outcomes: Sequence[Outcome], failed: Sequence[RunUsage] = ()) -> dict[str, Any]:
    """The `usage` of a chat completion, including the usage of failed runs.

    `completion_tokens` counts all generated tokens. `reasoning_tokens` counts those that are not in the returned
    content: the thoughts of the returned sample, and all of other candidates, judges and verifiers. How many of them
    the models thought is `reason.usage.thinking_tokens`.
    """
    spent = total([*(o.answer.usage for o in outcomes), *failed])
    answer_text = sum(o.content_tokens for o in outcomes)
    return {
        "prompt_tokens": spent.prompt_tokens,
        "completion_tokens": spent.completion_tokens,
        "total_tokens": spent.prompt_tokens + spent.completion_tokens,
        "prompt_tokens_details": {
            "cached_tokens": spent.cached_tokens,
            "cache_write_tokens": 0,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": spent.completion_tokens - answer_text,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
            "audio_tokens": 0,
        },
    }


def response_usage(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The `usage` of a response: the numbers of `chat_usage` under the names of the Responses API."""
    chat = chat_usage(outcomes)
    return {
        "input_tokens": chat["prompt_tokens"],
        "input_tokens_details": {
            "cached_tokens": chat["prompt_tokens_details"]["cached_tokens"],
            "cache_write_tokens": 0,
        },
        "output_tokens": chat["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": chat["completion_tokens_details"]["reasoning_tokens"]},
        "total_tokens": chat["total_tokens"],
    }


def _plus(a: RoleUsage, b: RoleUsage) -> RoleUsage:
    return RoleUsage(
        model=a.model,
        prompt_tokens=a.prompt_tokens + b.prompt_tokens,
        cached_tokens=a.cached_tokens + b.cached_tokens,
        cache_write_tokens=a.cache_write_tokens + b.cache_write_tokens,
        completion_tokens=a.completion_tokens + b.completion_tokens,
        thinking_tokens=a.thinking_tokens + b.thinking_tokens,
        model_calls=a.model_calls + b.model_calls,
        reward_calls=a.reward_calls + b.reward_calls,
        replayed_calls=a.replayed_calls + b.replayed_calls,
        replayed_tokens=a.replayed_tokens + b.replayed_tokens,
        cost_usd=_sum([a.cost_usd, b.cost_usd]),
        working_s=a.working_s + b.working_s,
        waited_s=a.waited_s + b.waited_s,
    )


def _sum(costs: Sequence[float | None]) -> float | None:
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None
