"""How routes start runs: idempotency keys, headers of a started run, and waiting while the client is connected."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from pydantic import BaseModel, StringConstraints

from ..core.events import Event
from ..core.run import RunConfig
from ..core.types import Answer
from .auth import Caller, authorised
from .native.schemas import ErrorBody
from .run_manager import RunManager
from .runs import AnyRun
from .sse import while_connected


def digest_of(path: str, body: BaseModel) -> str:
    """A hash of what was requested; whether it is streamed makes no difference."""
    content = body.model_dump_json(exclude_unset=True, exclude={"stream", "stream_options"})
    return hashlib.sha256(f"{path}\n{content}".encode()).hexdigest()


AskCaller = Annotated[Caller, Depends(authorised("ask"))]
ReadCaller = Annotated[Caller, Depends(authorised("read"))]
IdempotencyKey = Annotated[
    Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$")] | None,
    Header(
        alias="Idempotency-Key",
        description="A name of the request. Sent again, it gets the same run: nothing is paid twice.",
    ),
]

ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": description}
    for status, description in {
        400: "The request cannot be served as it is",
        401: "No good key",
        403: "The key does not allow that",
        404: "There is no such thing",
        409: "It does not fit what was there before",
        413: "The body is too large",
        422: "A field is not as it should be, or the answer is not verified",
        429: "Too much at once; Retry-After says when to try again",
        499: "The run was cancelled; the error has the partial answer",
        500: "A fault of the server",
        502: "The model failed",
        503: "The server is shutting down, or the model is not there",
        504: "The model did not answer in time",
    }.items()
}


class RunStarter:
    """Starts the runs of one request.

    Args:
        request: The request.
        caller: Who sent it.
        idempotency: Its idempotency key.
    """

    def __init__(self, request: Request, caller: Caller, idempotency: str | None) -> None:
        self._request, self._caller, self._idempotency = request, caller, idempotency
        self._run_manager: RunManager = request.app.state.run_manager

    async def start(
        self, config: RunConfig, body: BaseModel, *, background: bool = False, text: bool = False
    ) -> AnyRun:
        """Start a run, or attach to that of the same request before; the client's leaving stops the wait."""
        starting = self._run_manager.start(
            config,
            self._caller,
            background=background,
            idempotency=self._idempotency,
            digest=digest_of(self._request.url.path, body),
            text=text,
        )
        run = await while_connected(self._request.receive, starting)
        self._request.state.run_id = run.id  # for the log
        return run

    async def answer(self, run: AnyRun) -> Answer:
        """Wait for a run's answer; the client's leaving cancels it, unless it has an idempotency key."""

        async def held() -> Answer:
            async with run.held():
                return await run.result()

        return await while_connected(self._request.receive, held())


def run_headers(run: AnyRun) -> dict[str, str]:
    """Where the run of a response is found, and whether the request had been made before."""
    content = {"Location": f"/v1/runs/{run.id}"}
    if run.replayed:
        content["Idempotent-Replayed"] = "true"
    return content


async def events_and_error(run: AnyRun, *, text: bool) -> AsyncGenerator[Event, None]:
    """A run's events from its beginning, and the error that ended it."""
    async with aclosing(run.events(text=text)) as events:
        async for event in events:
            yield event
    await run.result()
