"""`POST /v1/responses` and `GET /v1/responses/{id}`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, FastAPI, Request, Response
from fastapi.openapi.models import Example
from fastapi.responses import JSONResponse

from ...agents.asked import read_config
from ...core.errors import UnknownName
from ...core.messages import Message
from ...core.run import RunConfig
from ...core.store import RunRecord
from ...core.tools import ALWAYS, FREE, NEVER
from ..callers import Caller, authorised
from ..connection import while_connected
from ..desk import RunDesk
from ..error_objects import shown_error
from ..native.starting import IdempotencyKey
from ..request_digest import digest_of
from .answering import Answering, Ended, Told
from .asking import Asked, planned
from .conversation import question_of
from .event_stream import STREAMED, EventStream, Put
from .fields import RESPONSES, refuse_fields
from .model_names import PREFIX
from .responses_reply import NAME, ResponseEvents, echo, items_of, response
from .responses_request import ResponsesRequest, choice_of, form_of, messages_of, tools_of
from .stored_outcome import stored_end
from .strict_route import StrictRoute
from .thoughts import split_thoughts

responses = APIRouter(prefix="/v1", tags=["OpenAI"], route_class=StrictRoute)

INSTRUCTIONS = "instructions"
"""Under which name a question's metadata keeps what its first system turn came from."""


EXAMPLES: dict[str, Example] = {
    "a chain of thought": {"value": {"model": "reason/cot", "input": "What is 17 * 23?", "max_output_tokens": 300}}
}


@responses.post("/responses", summary="A response", responses=STREAMED)
async def create_response(
    request: Request,
    body: Annotated[ResponsesRequest, Body(openapi_examples=EXAMPLES)],
    caller: Annotated[Caller, Depends(authorised("ask"))],
    idempotency: IdempotencyKey = None,
) -> Response:
    """Answer an input by a reasoning strategy, whole or as a stream of events.

    Every response is kept: its id is the run's, under which it can be fetched and gone on from.
    """
    app = request.app
    asked = await _asks(body, app, caller)
    answering = Answering(app, caller, asked, idempotency=idempotency, digest=digest_of(request.url.path, body))
    echoed = echo(body)
    if not body.stream:
        (ended,) = await while_connected(request.receive, answering.all())
        return JSONResponse(_whole(ended, echoed))
    made: list[ResponseEvents] = []

    async def make(put: Put) -> None:
        async def tell(told: Told) -> None:
            if not made:
                made.append(ResponseEvents(told.run_id, echoed))
                for event in made[0].begin():
                    await put(event)
            (events,) = made
            for piece in told.pieces:
                for event in events.piece(piece):
                    await put(event)
            if told.event is not None:
                await put(events.event(told.event.model_dump(mode="json")))
            if told.ended is not None and told.ended.outcome is not None:
                for event in events.end(told.ended.outcome):
                    await put(event)

        await answering.all(tell)

    def failure(error: dict[str, Any]) -> Mapping[str, Any]:
        return (made or [ResponseEvents("", echoed)])[0].failure(error)

    return EventStream(make, keepalive_s=app.state.serve.keepalive_s, named=True, done=False, failure=failure)


@responses.get("/responses/{response_id}", summary="A response that was made")
async def get_response(
    request: Request, response_id: str, caller: Annotated[Caller, Depends(authorised("read"))]
) -> dict[str, Any]:
    """A response by its id: as it was, but for what it repeated of its request; or how far it is."""
    desk: RunDesk = request.app.state.desk
    record = await _record(desk, caller, response_id)
    config = read_config(record)
    told = {"model": f"{PREFIX}{config.strategy}:{config.models.get('main', '')}", **_kept(config)}
    if record.status == "finished" and record.answer is not None:
        ended = await stored_end(desk.store, record, config)
        return _whole(ended, told, created=record.created, completed=record.updated)
    status = {"failed": "failed", "interrupted": "cancelled", "queued": "queued"}.get(record.status, "in_progress")
    error = None if record.error is None else shown_error(record.error)
    return response(record.id, told, created=record.created, status=status, error=error)


async def _asks(body: ResponsesRequest, app: FastAPI, caller: Caller) -> Asked:
    """What a request comes to.

    Raises:
        UserError: It asks for something that it would not get; names the field.
        ModelNotFound: The model is not offered.
        UnknownName: There is no such previous response.
    """
    refuse_fields(body.model_dump(exclude_unset=True), RESPONSES)
    desk: RunDesk = app.state.desk
    before = () if body.previous_response_id is None else await _before(desk, caller, body.previous_response_id)
    kept = {
        "metadata": body.metadata,
        "user": body.user,
        "safety_identifier": body.safety_identifier,
        INSTRUCTIONS: body.instructions or None,
    }
    question = question_of(
        messages_of(body.input),
        tools=tools_of(body.tools or ()),
        tool_choice=choice_of(body.tool_choice),
        metadata={name: value for name, value in kept.items() if value is not None},
        before=before,
        field="input",
    )
    if body.instructions:
        head = Message(role="system", content=body.instructions)
        question = question.model_copy(update={"conversation": (head, *question.conversation)})
    config = planned(
        question,
        model=body.model,
        options=body.reason,
        given={"temperature": body.temperature, "top_p": body.top_p, "max_tokens": body.max_output_tokens},
        form=form_of(body.text),
        seed=body.reason.seed,
        reasoner=app.state.reasoner,
        tenant=caller.tenant,
    )
    return Asked(
        model=body.model,
        configs=(config,),
        one_call=body.parallel_tool_calls is False,
        stream_events=body.reason.stream_events,
    )


async def _before(desk: RunDesk, caller: Caller, name: str) -> tuple[Message, ...]:
    """The conversation up to a response and with it, without its instructions."""
    record = await _record(desk, caller, name, param="previous_response_id")
    answer = record.answer
    if record.status != "finished" or answer is None:
        raise UnknownName("response", name, hint="it has no answer to go on from")
    question = read_config(record).question
    turns = question.conversation
    if INSTRUCTIONS in question.metadata and turns and turns[0].content == question.metadata[INSTRUCTIONS]:
        turns = turns[1:]
    said = Message.model_validate(
        {
            "role": "assistant",
            "content": split_thoughts(str(answer.get("text", "")))[1],
            "tool_calls": answer.get("tool_calls", ()),
        }
    )
    return (*turns, Message(role="user", content=question.text), *question.since, said)


async def _record(desk: RunDesk, caller: Caller, name: str, param: str | None = None) -> RunRecord:
    """The run of a response.

    Raises:
        UnknownName: There is none of that name among the caller's.
    """
    try:
        return await desk.record(name.removeprefix(NAME), caller)
    except UnknownName:
        unknown = UnknownName("response", name)
        unknown.param = param
        raise unknown from None


def _whole(
    ended: Ended, echoed: Mapping[str, Any], *, created: float | None = None, completed: float | None = None
) -> dict[str, Any]:
    """A response that has its outcome; without times, one that has just ended."""
    outcome = ended.outcome
    assert outcome is not None
    return response(
        ended.run_id,
        echoed,
        created=time.time() - outcome.answer.usage.wall_seconds if created is None else created,
        completed=completed,
        outcome=outcome,
        output=items_of(ended.run_id, ended.thoughts, outcome),
    )


def _kept(config: RunConfig) -> dict[str, Any]:
    """What the run itself knows of what its request had."""
    question, choice = config.question, config.question.tool_choice
    return {
        "instructions": question.metadata.get(INSTRUCTIONS),
        "metadata": question.metadata.get("metadata") or {},
        "tools": [{"type": "function", **tool.model_dump(mode="json")} for tool in question.tools],
        "tool_choice": choice if choice in (FREE, NEVER, ALWAYS) else {"type": "function", "name": choice},
        "text": {"format": {"type": "text"}},
        "parallel_tool_calls": True,
        "store": True,
    }
