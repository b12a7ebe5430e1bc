"""`POST /v1/chat/completions`: the route, the response body and the stream chunks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Request, Response
from fastapi.openapi.models import Example

from ...core.errors import ReasonError
from ...core.types import Answer, RunUsage
from ...core.version import __version__
from ..auth import Caller, authorised
from ..error_objects import error_object
from ..run_start import IdempotencyKey
from ..sse import DONE, STREAMED, Put, ServerSentEvents, data_event, encode_json, while_connected
from .outcome import LATE_NOTE, ChoiceRunner, EndedRun, Outcome, OutcomePiece, calls_json, chat_usage, total
from .requests import ChatRequest, StrictRoute
from .run_config import RunRequest, chat_run_request, check_format
from .streaming import TextPiece

ThoughtFormat = Literal["reasoning", "reasoning_content", "both"]

FINGERPRINT = f"reason-{__version__}"


def thought_fields(text: str, thoughts: ThoughtFormat) -> dict[str, str]:
    """Return the thoughts under the configured field names; no fields for an empty text."""
    names = ("reasoning", "reasoning_content") if thoughts == "both" else (thoughts,)
    return dict.fromkeys(names, text) if text else {}


def completion(run_request: RunRequest, ended: Sequence[EndedRun], thoughts: ThoughtFormat) -> dict[str, Any]:
    """Build a `chat.completion` object from the ended runs.

    At least one run must have an outcome. Failed runs have no choice and are listed in `reason.degraded`. `usage`
    and `reason.cost_usd` include them.
    """
    came = [(i, e, e.outcome) for i, e in enumerate(ended) if e.outcome is not None]
    failed = [e for e in ended if e.outcome is None]
    choices = [
        {
            "index": i,
            "message": {
                "role": "assistant",
                "content": None if outcome.calls and not outcome.content else outcome.content,
                "refusal": None,
                **thought_fields(e.thoughts, thoughts),
                **({"thinking_blocks": list(outcome.blocks)} if outcome.blocks else {}),
                **({"tool_calls": calls_json(outcome.calls)} if outcome.calls else {}),
            },
            "logprobs": _logprobs(outcome),
            "finish_reason": outcome.finish_reason,
            **({"reason": reason_report(outcome.answer)} if len(ended) > 1 else {}),
        }
        for i, e, outcome in came
    ]
    outcomes = [outcome for _, _, outcome in came]
    usages = [*(o.answer.usage for o in outcomes), *(e.spent for e in failed)]
    return {
        "id": completion_id(came[0][1].run_id),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": run_request.model,
        "choices": choices,
        "usage": chat_usage(outcomes, [e.spent for e in failed]),
        "system_fingerprint": FINGERPRINT,
        "reason": {
            **reason_report(outcomes[0].answer),
            **cost_report(total(usages)),
            "degraded": [*outcomes[0].answer.degraded, *(_failure(i, e) for i, e in enumerate(ended) if e.error)],
        },
    }


def _logprobs(outcome: Outcome) -> dict[str, Any] | None:
    return None if outcome.logprobs is None else {"content": outcome.logprobs, "refusal": None}


def completion_id(run_id: str) -> str:
    """The completion id, which contains the id of the request's first run."""
    return f"chatcmpl-{run_id}"


def reason_report(answer: Answer) -> dict[str, Any]:
    """The `reason` object: result fields that OpenAI's format does not have."""
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
        **({} if answer.stopped_by is None else {"stopped_by": answer.stopped_by}),
        **({"based_on": answer.based_on} if answer.based_on else {}),
        "degraded": list(answer.degraded),
        **cost_report(answer.usage),
    }


def cost_report(usage: RunUsage) -> dict[str, Any]:
    """Cost in US dollars and usage, in total and by role."""
    return {
        "cost_usd": usage.cost_usd,
        "usage": usage.model_dump(mode="json", exclude={"cost_usd"}),
    }


class ChunkBuilder:
    """Builds the chunks of one stream.

    Args:
        run_request: The request; its model name is repeated in each chunk.
        thoughts: Field names for thoughts.
        name: Completion id.
        with_usage: Set `usage` to null in every chunk but the last, which carries the total.
    """

    def __init__(self, run_request: RunRequest, thoughts: ThoughtFormat, name: str, *, with_usage: bool) -> None:
        self._thoughts = thoughts
        self._head = {
            "id": name,
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": run_request.model,
            "system_fingerprint": FINGERPRINT,
        }
        self._tail: dict[str, Any] = {"usage": None} if with_usage else {}
        self._begun: set[int] = set()

    def piece(self, index: int, piece: TextPiece) -> dict[str, Any]:
        """A chunk with thoughts or content."""
        delta = {"content": piece.text} if piece.kind == "content" else thought_fields(piece.text, self._thoughts)
        return self._chunk(index, delta)

    def event(self, index: int, event: Mapping[str, Any]) -> dict[str, Any]:
        """A chunk with a run event and an empty delta."""
        return {**self._chunk(index, {}), "reason": {"event": event}}

    def calls(self, index: int, outcome: Outcome) -> dict[str, Any]:
        """A chunk with the tool calls, and with the provider's thoughts that the client returns with their results."""
        blocks = {"thinking_blocks": list(outcome.blocks)} if outcome.blocks else {}
        return self._chunk(index, {**blocks, "tool_calls": calls_json(outcome.calls, numbered=True)})

    def end(self, index: int, outcome: Outcome, *, late: bool = False) -> dict[str, Any]:
        """The last chunk of a choice: the finish reason and the run's `reason` object."""
        piece = reason_report(outcome.answer)
        if late:
            piece["degraded"] = [*piece["degraded"], LATE_NOTE.format(outcome.answer.model)]
        return {**self._chunk(index, {}, outcome.finish_reason), "reason": piece}

    def logprobs(self, index: int, outcome: Outcome) -> dict[str, Any]:
        """A chunk with the log-probabilities of the complete content, and an empty delta."""
        chunk = self._chunk(index, {})
        chunk["choices"][0]["logprobs"] = _logprobs(outcome)
        return chunk

    def failed(self, index: int, error: ReasonError) -> dict[str, Any]:
        """A chunk for a failed run: the error, without a finish reason."""
        return {**self._chunk(index, {}), "reason": {"error": error_object(error)}}

    def usage(self, ended: Sequence[EndedRun]) -> dict[str, Any]:
        """The usage chunk: the total of all runs, and no choices."""
        outcomes = [e.outcome for e in ended if e.outcome is not None]
        return {**self._head, "choices": [], "usage": chat_usage(outcomes, [e.spent for e in ended if e.error])}

    def _chunk(self, index: int, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        if index not in self._begun:
            self._begun.add(index)
            delta = {"role": "assistant", "content": "", **delta}
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head, "choices": [choice], **self._tail}


def _failure(index: int, ended: EndedRun) -> str:
    assert ended.error is not None
    return f"answer {index} failed: {ended.error.message}"


chat = APIRouter(prefix="/v1", tags=["OpenAI"], route_class=StrictRoute)


EXAMPLES: dict[str, Example] = {
    "a chain of thought": {
        "value": {"model": "reason/cot", "messages": [{"role": "user", "content": "What is 17 * 23?"}]}
    },
    "a vote under a budget, as a stream": {
        "value": {
            "model": "reason/self-consistency",
            "messages": [{"role": "user", "content": "What is 17 * 23?"}],
            "temperature": 0.7,
            "stream": True,
            "stream_options": {"include_usage": True},
            "reason": {"parameters": {"n": 4}, "budget": {"tokens": 2000, "seconds": 60}},
        }
    },
}


@chat.post("/chat/completions", summary="A chat completion", responses=STREAMED)
async def chat_completions(
    request: Request,
    body: Annotated[ChatRequest, Body(openapi_examples=EXAMPLES)],
    caller: Annotated[Caller, Depends(authorised("ask"))],
    idempotency: IdempotencyKey = None,
) -> Response:
    """Answer a chat with a reasoning strategy, as one response or as a stream of chunks.

    `model` is `reason/STRATEGY`, `reason/STRATEGY:MODEL`, an alias, or a model that the server offers. When the client
    disconnects, its runs are cancelled, unless the request has an idempotency key.
    """
    app = request.app
    await asyncio.sleep(0)  # there may be 10,000 messages: others have the event loop
    await check_format(body.response_format)
    run_request = chat_run_request(body, app.state.reasoner, caller.tenant)
    runner = ChoiceRunner(request, body, caller, run_request, idempotency)
    thoughts: ThoughtFormat = app.state.serve.thoughts
    if not body.stream:
        ended = await while_connected(request.receive, runner.all())
        return Response(encode_json(completion(run_request, ended, thoughts)), media_type="application/json")
    with_usage = body.stream_options is not None and body.stream_options.include_usage

    async def make(put: Put) -> None:
        await stream_chat(runner, thoughts, put, with_usage=with_usage)

    return ServerSentEvents(
        make,
        runner.admitted,
        keepalive_s=app.state.serve.keepalive_s,
        encode=data_event,
        failure=lambda error: data_event({"error": error}),
        done=DONE,
    )


async def stream_chat(runner: ChoiceRunner, thoughts: ThoughtFormat, put: Put, *, with_usage: bool) -> None:
    """Send a chat completion as chunks. The chunks of different choices may interleave.

    Raises:
        ReasonError: All runs failed; the error of the first run.
    """
    run_request = runner.run_request
    made: list[ChunkBuilder] = []

    async def emit(piece: OutcomePiece) -> None:
        if not made:
            made.append(ChunkBuilder(run_request, thoughts, completion_id(piece.run_id), with_usage=with_usage))
        (chunks,) = made
        for part in piece.pieces:
            await put(chunks.piece(piece.index, part))
        if piece.event is not None:
            await put(chunks.event(piece.index, piece.event.model_dump(mode="json")))
        if piece.ended is not None and (outcome := piece.ended.outcome) is not None:
            if outcome.calls:
                await put(chunks.calls(piece.index, outcome))
            if outcome.logprobs is not None:
                await put(chunks.logprobs(piece.index, outcome))
            await put(chunks.end(piece.index, outcome, late=piece.ended.late))

    ended = await runner.all(emit)
    (chunks,) = made
    for i, one in enumerate(ended):
        if one.error is not None:
            await put(chunks.failed(i, one.error))
    if with_usage:
        await put(chunks.usage(ended))
