"""`POST /v1/chat/completions`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Request, Response
from fastapi.openapi.models import Example
from fastapi.responses import JSONResponse

from ..callers import Caller, authorised
from ..connection import while_connected
from ..native.starting import IdempotencyKey
from ..request_digest import digest_of
from .answering import Answering, Told
from .asking import chat_asks
from .chat_reply import Chunks, Thoughts, completion, completion_id
from .chat_request import ChatRequest
from .event_stream import STREAMED, EventStream, Put
from .strict_route import StrictRoute

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
    """Answer a chat by a reasoning strategy, whole or as a stream of chunks.

    `model` is `reason/STRATEGY`, `reason/STRATEGY:MODEL`, an alias, or a model that the server offers. A client that
    goes away cancels its runs, unless it has sent an idempotency key.
    """
    app = request.app
    asked = chat_asks(body, app.state.reasoner, caller.tenant)
    answering = Answering(app, caller, asked, idempotency=idempotency, digest=digest_of(request.url.path, body))
    thoughts: Thoughts = app.state.serve.thoughts
    if not body.stream:
        ended = await while_connected(request.receive, answering.all())
        return JSONResponse(completion(asked, ended, thoughts))
    with_usage = body.stream_options is not None and body.stream_options.include_usage

    async def make(put: Put) -> None:
        await stream_chat(answering, thoughts, put, with_usage=with_usage)

    return EventStream(make, keepalive_s=app.state.serve.keepalive_s)


async def stream_chat(answering: Answering, thoughts: Thoughts, put: Put, *, with_usage: bool) -> None:
    """Send a chat completion as chunks; the choices' come in any order among one another.

    Raises:
        ReasonError: None of the runs came to anything; what failed the first.
    """
    asked = answering.asked
    made: list[Chunks] = []

    async def tell(told: Told) -> None:
        if not made:
            made.append(Chunks(asked, thoughts, completion_id(told.run_id), with_usage=with_usage))
        (chunks,) = made
        for piece in told.pieces:
            await put(chunks.piece(told.index, piece))
        if told.event is not None:
            await put(chunks.event(told.index, told.event.model_dump(mode="json")))
        if told.ended is not None and (outcome := told.ended.outcome) is not None:
            if outcome.calls:
                await put(chunks.calls(told.index, outcome))
            await put(chunks.end(told.index, outcome, late=told.ended.late))

    ended = await answering.all(tell)
    (chunks,) = made
    for i, one in enumerate(ended):
        if one.error is not None:
            await put(chunks.failed(i, one.error))
    if with_usage:
        await put(chunks.usage(ended))
