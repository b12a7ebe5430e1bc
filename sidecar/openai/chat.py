"""`POST /v1/chat/completions`: the route, the response body and the stream chunks."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Request, Response
from fastapi.openapi.models import Example

from ...core.version import __version__
from ..auth import Caller, authorised
from ..run_start import IdempotencyKey
from ..sse import DONE, STREAMED, ServerSentEvents, data_event, json_response, while_connected
from .outcome import LATE_NOTE, EndedRun, Outcome, RequestRunner, calls_json, chat_usage, reason_report
from .requests import ChatRequest, StrictRoute
from .run_config import chat_run_request, check_format
from .streaming import Piece

FINGERPRINT = f"reason-{__version__}"


def thought_fields(text: str) -> dict[str, str]:
    """The thoughts, under the two names that clients read; no fields for an empty text."""
    return {"reasoning": text, "reasoning_content": text} if text else {}


def completion(model: str, ended: EndedRun) -> dict[str, Any]:
    """Build a `chat.completion` object."""
    outcome = ended.outcome
    message = {
        "role": "assistant",
        "content": None if outcome.calls and not outcome.content else outcome.content,
        "refusal": None,
        **thought_fields(ended.thoughts),
        **_returned_thoughts(outcome),
        **({"tool_calls": calls_json(outcome.calls)} if outcome.calls else {}),
    }
    return {
        "id": completion_id(ended.run_id),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": outcome.finish_reason}],
        "usage": chat_usage(outcome),
        "system_fingerprint": FINGERPRINT,
        "reason": reason_report(outcome.answer),
    }


def completion_id(run_id: str) -> str:
    """The completion id, which contains the run id."""
    return f"chatcmpl-{run_id}"


def _returned_thoughts(outcome: Outcome) -> dict[str, Any]:
    """The provider's thoughts that the client returns with the results of the tools."""
    return {"thinking_blocks": list(outcome.blocks)} if outcome.blocks else {}


class ChunkWriter:
    """Builds the chunks of one stream.

    Args:
        run_id: Run id.
        model: Model name in the request.
        with_usage: Set `usage` to null in every chunk but the last, which carries it.
    """

    def __init__(self, run_id: str, model: str, *, with_usage: bool) -> None:
        self._head = {
            "id": completion_id(run_id),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": FINGERPRINT,
        }
        self._with_usage, self._has_begun = with_usage, False

    def begin(self) -> list[dict[str, Any]]:
        """No chunk: the first one has the role."""
        return []

    def piece(self, piece: Piece) -> list[dict[str, Any]]:
        """A chunk with thoughts or content."""
        return [self._chunk({"content": piece.text} if piece.kind == "content" else thought_fields(piece.text))]

    def end(self, ended: EndedRun) -> list[dict[str, Any]]:
        """The tool calls, then the finish reason with the run's `reason` object, then the usage."""
        outcome = ended.outcome
        report = reason_report(outcome.answer)
        if ended.late:
            report["degraded"].append(LATE_NOTE.format(outcome.answer.model))
        chunks = [{**self._chunk({}, outcome.finish_reason), "reason": report}]
        if outcome.calls:
            calls = {**_returned_thoughts(outcome), "tool_calls": calls_json(outcome.calls, numbered=True)}
            chunks.insert(0, self._chunk(calls))
        if self._with_usage:
            chunks.append({**self._head, "choices": [], "usage": chat_usage(outcome)})
        return chunks

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        if not self._has_begun:
            self._has_begun = True
            delta = {"role": "assistant", "content": "", **delta}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head, "choices": [choice], **({"usage": None} if self._with_usage else {})}


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
    disconnects, its run is cancelled, unless the request has an idempotency key.
    """
    app = request.app
    await asyncio.sleep(0)  # there may be 10,000 messages: others have the event loop
    await check_format(body.response_format)
    run_request = chat_run_request(body, app.state.reasoner, caller.tenant)
    runner = RequestRunner(request, body, caller, run_request, idempotency)
    if not body.stream:
        ended = await while_connected(request.receive, runner.execute())
        return json_response(completion(body.model, ended))
    with_usage = body.stream_options is not None and body.stream_options.include_usage
    return ServerSentEvents(
        partial(runner.stream, partial(ChunkWriter, model=body.model, with_usage=with_usage)),
        runner.admitted,
        encode=data_event,
        failure=lambda error: data_event({"error": error}),
        done=DONE,
    )
