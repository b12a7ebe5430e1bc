"""A FastAPI application of your own with a `Reasoner` in it, and one route that streams what happens in a run.

    uvicorn --app-dir examples fastapi_app:app
    curl --no-buffer 'http://127.0.0.1:8000/ask?question=What+is+the+capital+of+France%3F'

Models and run store are opened when the application starts and closed when it ends. The route sends a run's events as
server-sent events, text as it is generated included; the last one carries the answer. A client that goes away takes its
run along: the response is cancelled, that closes the stream, and that stops the model. What the run had by then is in
the run store. Needs the extras `[local,sidecar]`.

This is for applications with routes of their own; `reason serve` is a whole server, with keys, limits and metrics.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Annotated, TypedDict

from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import JSONResponse, StreamingResponse
from reason import Reasoner, ReasonError


class Opened(TypedDict):
    """What is open while the application runs; every request's `state` has it."""

    reasoner: Reasoner


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[Opened]:
    """Open the models before the first request comes, and close them after the last."""
    async with Reasoner(parameters={"max_tokens": 256}, budget={"seconds": 60}) as reasoner:
        await reasoner.open()
        yield {"reasoner": reasoner}


def opened(request: Request) -> Reasoner:
    """The reasoner, for routes that depend on it."""
    reasoner: Reasoner = request.state.reasoner
    return reasoner


app = FastAPI(title="An application that reasons", lifespan=lifespan)


@app.exception_handler(ReasonError)
async def refused(request: Request, error: ReasonError) -> JSONResponse:
    """An error of `reason` as a reply, with the status that belongs to its class."""
    return JSONResponse({"code": error.code, "message": str(error)}, error.http_status)


@app.get("/ask")
async def ask(
    question: Annotated[str, Query(max_length=4000)], reasoner: Annotated[Reasoner, Depends(opened)]
) -> StreamingResponse:
    """Answer a question, and tell everything that happens on the way."""
    reasoner.plan(question)  # refuses what cannot be asked, while a status can still say so

    async def lines() -> AsyncIterator[str]:
        try:
            async with aclosing(reasoner.astream(question)) as events:
                async for event in events:
                    yield f"data: {event.model_dump_json()}\n\n"
        except ReasonError as e:  # the reply has begun
            yield f"event: error\ndata: {json.dumps({'code': e.code, 'message': str(e)})}\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream")
