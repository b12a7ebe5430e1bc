"""`POST /v1/messages` and `/v1/messages/count_tokens`: the routes, the message and the stream events."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Request, Response
from fastapi.openapi.models import Example
from fastapi.responses import JSONResponse

from ...core.errors import CapabilityMissing
from ...core.messages import ToolCall
from ...reasoning.prompts import question_prompt
from ..auth import Caller, authorised
from ..error_objects import error_body
from ..native.schemas import ErrorObject, ResponseBody
from ..openai.models import resolve_model
from ..openai.outcome import EndedRun, Outcome, RequestRunner, chat_usage, reason_report
from ..openai.requests import StrictRoute
from ..openai.run_config import check_format
from ..openai.streaming import Kind, TextPiece, stop_at
from ..run_start import ERROR_RESPONSES, IdempotencyKey
from ..sse import STREAMED, ServerSentEvents, named_event, while_connected
from .requests import (
    Conversation,
    MessagesRequest,
    messages_run_request,
    question_of_messages,
    response_format,
    shows_thoughts,
    signature_of,
)

Event = dict[str, Any]

PING = b'event: ping\ndata: {"type":"ping"}\n\n'


class MessageError(ResponseBody):
    """The body of an error response in Anthropic's format."""

    type: Literal["error"]
    error: ErrorObject
    request_id: str | None = None


class TokenCount(ResponseBody):
    """The number of tokens of a conversation."""

    input_tokens: int


def content_blocks(outcome: Outcome, thoughts: str, *, shows: bool) -> list[dict[str, Any]]:
    """The content of a message that was not streamed: thoughts, text, tool calls."""
    blocks: list[dict[str, Any]] = []
    thought = thoughts if shows else _returned_thought(outcome)
    if thought or outcome.blocks:
        blocks.append(_thinking_block(thought, signature_of(outcome.blocks)))
    if outcome.content or not outcome.calls:
        blocks.append({"type": "text", "text": outcome.content})
    return [*blocks, *(_call_block(call, call.parsed_arguments or {}) for call in outcome.calls)]


def _returned_thought(outcome: Outcome) -> str:
    """The thought of a turn with tool calls, which the client returns with their results; empty if there is none."""
    return outcome.thought.text if outcome.calls and outcome.thought is not None else ""


def _thinking_block(text: str, signature: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": text, "signature": signature}


def _call_block(call: ToolCall, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}


def usage(outcome: Outcome) -> dict[str, Any]:
    """The usage of a message: the numbers of `chat_usage`, with input tokens that no cache has to do with."""
    chat = chat_usage(outcome)
    cache = chat["prompt_tokens_details"]
    read, written = cache["cached_tokens"], cache["cache_write_tokens"]
    return {
        "input_tokens": chat["prompt_tokens"] - read - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": chat["completion_tokens"],
        "output_tokens_details": {"thinking_tokens": chat["completion_tokens_details"]["reasoning_tokens"]},
    }


def stop_fields(outcome: Outcome, stop: Sequence[str]) -> dict[str, Any]:
    """Why a message ended, and at which stop sequence."""
    if outcome.finish_reason != "stop":
        return {
            "stop_reason": "tool_use" if outcome.finish_reason == "tool_calls" else "max_tokens",
            "stop_sequence": None,
        }
    text = outcome.answer.text.strip()
    at = stop_at(text, stop)
    matched = None if at is None else min((s for s in stop if text.startswith(s, at)), key=len)
    return {"stop_reason": "end_turn" if matched is None else "stop_sequence", "stop_sequence": matched}


def message(
    run_id: str, model: str, content: list[dict[str, Any]], stopped: dict[str, Any], used: dict[str, Any]
) -> dict[str, Any]:
    """A message object."""
    return {
        "id": f"msg_{run_id}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        **stopped,
        "usage": used,
    }


class MessageEvents:
    """Builds the events of one stream.

    Thoughts and text are separate blocks, one open at a time. Text is never split: thoughts that arrive after its first
    piece become a block after it.

    Args:
        run_id: Run id.
        model: Model name in the request.
        stop: Stop sequences of the request.
        shows: Whether thoughts are sent.
    """

    def __init__(self, run_id: str, model: str, stop: Sequence[str], *, shows: bool) -> None:
        self._run_id, self._model, self._stop, self._shows = run_id, model, stop, shows
        self._index = -1
        self._open: Kind | None = None
        self._has_text = False
        self._later = ""

    def begin(self) -> list[Event]:
        """The first event; the usage is not known before the end."""
        none_yet = {"stop_reason": None, "stop_sequence": None}
        used = {"input_tokens": 0, "output_tokens": 0}
        return [{"type": "message_start", "message": message(self._run_id, self._model, [], none_yet, used)}]

    def piece(self, piece: TextPiece) -> list[Event]:
        """Events for a piece of thoughts or text."""
        if not piece.text or (piece.kind == "reasoning" and not self._shows):
            return []
        if piece.kind == "reasoning" and self._open == "content":
            self._later += piece.text
            return []
        events = [] if self._open == piece.kind else [*self._close(), *self._begin(piece.kind)]
        return [*events, self._delta(piece)]

    def event(self, event: Mapping[str, Any]) -> Event:
        """A `reason.event` with a run event."""
        return {"type": "reason.event", "event": event}

    def end(self, ended: EndedRun) -> list[Event]:
        """Events that end the message."""
        events: list[Event] = []
        outcome = ended.outcome
        if not self._has_text and not outcome.calls:  # an empty answer also has a text block
            events += [*self._close(), *self._begin("content")]
        if self._open == "content":
            events += self._close()
        later = self._later if self._shows else _returned_thought(outcome)
        if later or (outcome.blocks and self._open is None):
            events += self._begin("reasoning")
            events += [self._delta(TextPiece("reasoning", later))] if later else []
        events += self._close(signature_of(outcome.blocks))
        for call in outcome.calls:
            events += self._call(call)
        delta = {
            "type": "message_delta",
            "delta": stop_fields(outcome, self._stop),
            "usage": usage(outcome),
            "reason": reason_report(outcome.answer),
        }
        return [*events, delta, {"type": "message_stop"}]

    def _begin(self, kind: Kind) -> list[Event]:
        """Open a block."""
        self._open = kind
        self._has_text |= kind == "content"
        return [self._start(_thinking_block("", "") if kind == "reasoning" else {"type": "text", "text": ""})]

    def _start(self, block: dict[str, Any]) -> Event:
        self._index += 1
        return {"type": "content_block_start", "index": self._index, "content_block": block}

    def _delta(self, piece: TextPiece) -> Event:
        name = "thinking" if piece.kind == "reasoning" else "text"
        return self._change({"type": f"{name}_delta", name: piece.text})

    def _change(self, delta: dict[str, Any]) -> Event:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}

    def _close(self, signature: str = "") -> list[Event]:
        """Close the open block, if any; one with thoughts is signed."""
        kind, self._open = self._open, None
        if kind is None:
            return []
        signed = {"type": "signature_delta", "signature": signature or signature_of(())}
        return [*([self._change(signed)] if kind == "reasoning" else []), self._stopped()]

    def _stopped(self) -> Event:
        return {"type": "content_block_stop", "index": self._index}

    def _call(self, call: ToolCall) -> list[Event]:
        arguments = call.arguments if call.parsed_arguments is not None else "{}"
        return [
            self._start(_call_block(call, {})),
            self._change({"type": "input_json_delta", "partial_json": arguments}),
            self._stopped(),
        ]


messages = APIRouter(
    prefix="/v1/messages",
    tags=["Anthropic"],
    route_class=StrictRoute,
    responses={status: {**described, "model": MessageError} for status, described in ERROR_RESPONSES.items()},
)

EXAMPLES: dict[str, Example] = {
    "a chain of thought": {
        "value": {
            "model": "reason/cot",
            "max_tokens": 1000,
            "messages": [{"role": "user", "content": "What is 17 * 23?"}],
        }
    }
}


@messages.post("", summary="Create a message", responses=STREAMED)
async def create_message(
    request: Request,
    body: Annotated[MessagesRequest, Body(openapi_examples=EXAMPLES)],
    caller: Annotated[Caller, Depends(authorised("ask"))],
    idempotency: IdempotencyKey = None,
) -> Response:
    """Answer a conversation with a reasoning strategy, as one message or as a stream of events.

    `model` is `reason/STRATEGY`, `reason/STRATEGY:MODEL`, an alias, or a model that the server offers. When the client
    disconnects, its run is cancelled, unless the request has an idempotency key.
    """
    app = request.app
    await asyncio.sleep(0)  # there may be 10,000 messages: others have the event loop
    await check_format(response_format(body))
    run_request = messages_run_request(body, app.state.reasoner, caller.tenant)
    runner = RequestRunner(request, body, caller, run_request, idempotency)
    shows = shows_thoughts(body)
    if not body.stream:
        ended = await while_connected(request.receive, runner.execute())
        return JSONResponse(_message_body(ended, body, shows=shows))

    def failure(error: dict[str, Any]) -> bytes:
        return named_event(error_body(error, path=request.url.path, request_id=caller.request_id))

    return ServerSentEvents(
        partial(runner.stream, partial(MessageEvents, model=body.model, stop=run_request.stop, shows=shows)),
        runner.admitted,
        encode=named_event,
        failure=failure,
        ping=PING,
    )


def _message_body(ended: EndedRun, body: MessagesRequest, *, shows: bool) -> dict[str, Any]:
    outcome = ended.outcome
    content = content_blocks(outcome, ended.thoughts, shows=shows)
    made = message(ended.run_id, body.model, content, stop_fields(outcome, body.stop_sequences or ()), usage(outcome))
    return {**made, "reason": reason_report(outcome.answer)}


@messages.post("/count_tokens", summary="Count the tokens of a message", response_model=TokenCount)
async def count_tokens(
    request: Request, body: Conversation, caller: Annotated[Caller, Depends(authorised("ask"))]
) -> TokenCount:
    """Count the tokens of a conversation in the chat template of its model, without what a strategy adds.

    A model behind an API does not tell them before a call, and is refused.
    """
    app = request.app
    question = question_of_messages(body)
    model = resolve_model(body.model, app.state.settings).model
    counted = await app.state.reasoner.count_tokens(question_prompt(question), model)
    if counted is None:
        raise CapabilityMissing("count_tokens", model)
    return TokenCount(input_tokens=counted)
