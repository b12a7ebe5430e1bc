"""Starting runs from routes: idempotency keys, response headers, and waits that end when the client disconnects."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from pydantic import BaseModel, StringConstraints

from ..agents.conversation import Conversation
from ..agents.reasoner import Reasoner
from ..core.events import Event
from ..core.run import RunConfig
from ..core.types import Answer
from .auth import Caller, authorised
from .native.schemas import ConversationIn, ErrorBody
from .run_manager import CallAnswers, RunManager
from .runs import AnyRun
from .sse import while_connected


def _request_digest(request: Request, body: BaseModel, idempotency: str | None) -> str:
    """Return a hash of a request with an idempotency key, else an empty text; streaming options are excluded."""
    if idempotency is None:
        return ""
    content = body.model_dump_json(exclude_unset=True, exclude={"stream", "stream_options"})
    return hashlib.sha256(f"{request.url.path}\n{content}".encode()).hexdigest()


AskCaller = Annotated[Caller, Depends(authorised("ask"))]
ReadCaller = Annotated[Caller, Depends(authorised("read"))]
IdempotencyKey = Annotated[
    Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$")] | None,
    Header(
        alias="Idempotency-Key",
        description="Client-chosen key of the request. A repeated request with the same key gets the same run.",
    ),
]

ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": description}
    for status, description in {
        400: "The request is invalid",
        401: "The API key is missing or invalid",
        402: "The budget is spent, and there is no answer yet",
        403: "The API key does not permit this operation",
        404: "The run, model or other resource does not exist",
        409: "The request conflicts with the state of the run or with an earlier request",
        413: "The request body is too large",
        422: "A field is invalid, the answer is not verified, or the model wrote no JSON that satisfies the schema",
        424: "The model backend refuses the server's key, or does not serve the model",
        429: "The server is busy or a limit is reached; Retry-After has the delay in seconds",
        499: "The run was cancelled; the error has the partial answer, if there is one",
        500: "Internal error",
        502: "The model backend failed",
        503: "The server is shutting down, or the model backend is unavailable",
        504: "The model backend timed out",
    }.items()
}


class RunStarter:
    """Starts runs for one HTTP request."""

    def __init__(self, request: Request, caller: Caller, idempotency: str | None) -> None:
        self._request, self._caller, self._idempotency = request, caller, idempotency
        self._run_manager: RunManager = request.app.state.run_manager

    async def start(
        self,
        config: RunConfig,
        body: BaseModel,
        *,
        background: bool = False,
        text: bool = False,
        answers: CallAnswers | None = None,
    ) -> AnyRun:
        """Start a run, attach to the run of a repeated request, or continue a waiting run with answers."""
        if answers is not None:
            run = await self._run_manager.answer_calls(
                answers, self._caller, background=background, is_detached=self._idempotency is not None, text=text
            )
        else:
            run = await self._run_manager.start(
                config,
                self._caller,
                background=background,
                idempotency=self._idempotency,
                digest=_request_digest(self._request, body, self._idempotency),
                text=text,
            )
        self._request.state.run_id = run.id  # for the log
        if run.replayed:
            self._request.state.is_replayed = True  # for the header `Idempotent-Replayed`
        return run

    async def conversation(self, named: str | ConversationIn | None) -> Conversation | None:
        """The caller's conversation that the request names, which may have no run yet.

        None if it names none, or is a repeated request, whose run is there.
        """
        key, tenant = self._idempotency, self._caller.tenant
        if named is None or (key is not None and await self._run_manager.others.find_request(tenant, key)):
            return None
        chosen = ConversationIn(id=named) if isinstance(named, str) else named
        reasoner: Reasoner = self._request.app.state.reasoner
        async with Conversation(reasoner, chosen.id, budget=chosen.budget, tenant=tenant) as conversation:
            return conversation

    async def answer(self, config: RunConfig, body: BaseModel) -> Answer:
        """Start a run and wait for its answer; a disconnect cancels it, unless the request has an idempotency key."""

        async def held() -> Answer:
            run = await self.start(config, body)
            async with run.held():
                return await run.result()

        return await while_connected(self._request.receive, held())


def run_headers(run_id: str) -> dict[str, str]:
    """Return the header `Location`."""
    return {"Location": f"/v1/runs/{run_id}"}


async def events_and_error(run: AnyRun, *, text: bool) -> AsyncGenerator[Event, None]:
    """Yield a run's events from the first; raises the error that ended the run."""
    async with aclosing(run.events(text=text)) as events:
        async for event in events:
            yield event
    await run.result()
