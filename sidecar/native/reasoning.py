"""`POST /v1/reason` and `POST /v1/verify`: one question or one text, and its answer."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from ...agents.verify_text import Reports, TextVerification, found_of
from ...core.answer import Answer
from ..event_content import EVENTS
from .event_lines import EventLines
from .planning import ask_config, verify_config
from .requests import ReasonBody, VerifyBody
from .starting import ERRORS, Asks, IdempotencyKey, Starter, headers_of, told

reasoning = APIRouter(prefix="/v1", tags=["reasoning"], responses=ERRORS)


@reasoning.post(
    "/reason",
    response_model=Answer,
    summary="Answer a question",
    responses={
        200: {
            "description": "The answer; or with `stream`, the run's events as server-sent events. The last one is "
            "`run.finished` with the answer, or `run.failed`, or an event of type `error` with the error object.",
            "content": EVENTS,
        }
    },
)
async def reason(body: ReasonBody, request: Request, caller: Asks, idempotency: IdempotencyKey = None) -> Response:
    """Answer a question. A spent budget is no error: the best answer so far comes back, with `stopped` "budget".

    When the client leaves, the run is cancelled, unless the request has an `Idempotency-Key`.
    """
    starter = Starter(request, caller, idempotency)
    config = ask_config(body, request.app.state.reasoner, caller.tenant)
    run = await starter.start(config, body, text=body.stream and body.text)
    if body.stream:
        events, keepalive_s = told(run, text=body.text), request.app.state.serve.keepalive_s
        return EventLines(events, keepalive_s, headers_of(run), held=run.held())
    return _json(await starter.answer(run), headers_of(run))


@reasoning.post("/verify", response_model=TextVerification, summary="Check a text claim by claim")
async def verify(body: VerifyBody, request: Request, caller: Asks, idempotency: IdempotencyKey = None) -> Response:
    """Check a text that something else wrote. What a spent budget did not reach is "unchecked"."""
    starter = Starter(request, caller, idempotency)
    config, warned = verify_config(body, request.app.state.reasoner, caller.tenant)
    run = await starter.start(config, body)
    answer = await starter.answer(run)
    reports = Reports()
    if len(config.verify) == 1:  # of several, claims of one number are different claims
        for event in await request.app.state.desk.store.events(run.id):
            reports(event)
    return _json(found_of(answer, config, reports, warned), headers_of(run))


def _json(reply: Answer | TextVerification, headers: dict[str, str]) -> Response:
    """A reply in its own JSON, which has no NaN and keeps infinities as text."""
    return Response(reply.model_dump_json(), media_type="application/json", headers=headers)
