"""A `Reasoner` in a FastAPI application, with one route that streams the events of a run.

    uvicorn --app-dir examples fastapi_app:app
    curl --no-buffer 'http://127.0.0.1:8000/ask?question=What+is+the+capital+of+France%3F'

Models and run store are opened at the start of the application and closed at its end. The route sends the events of the
run, including text deltas, as server-sent events; the last one carries the answer. When a client disconnects, the
response is cancelled, which closes the stream and stops the model; the run so far is in the run store. Needs the extras
`[local,sidecar]`.

This is for applications with their own routes; `reason serve` is a complete server with API keys, limits and metrics.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Annotated, TypedDict

from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import JSONResponse, StreamingResponse
from reason import Reasoner, ReasonError


class AppState(TypedDict):
    """State of the application, available as `state` of every request."""

    reasoner: Reasoner


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[AppState]:
    """Load the models before the first request and close them after the last one."""
    async with Reasoner(parameters={"max_tokens": 256}, budget={"seconds": 60}) as reasoner:
        await reasoner.load()
        yield {"reasoner": reasoner}


def get_reasoner(request: Request) -> Reasoner:
    """The reasoner, as a dependency of routes."""
    reasoner: Reasoner = request.state.reasoner
    return reasoner


app = FastAPI(title="An application that reasons", lifespan=lifespan)


@app.exception_handler(ReasonError)
async def handle_error(request: Request, error: ReasonError) -> JSONResponse:
    """An error of `reason` as a response with the HTTP status of its class."""
    return JSONResponse({"code": error.code, "message": str(error)}, error.http_status)


@app.get("/ask")
async def ask(
    question: Annotated[str, Query(max_length=4000)], reasoner: Annotated[Reasoner, Depends(get_reasoner)]
) -> StreamingResponse:
    """Answer a question and stream the events of the run."""
    reasoner.plan(question)  # refuses invalid questions before the response starts

    async def lines() -> AsyncIterator[str]:
        try:
            async with aclosing(reasoner.astream(question)) as events:
                async for event in events:
                    yield f"data: {event.model_dump_json()}\n\n"
        except ReasonError as e:  # the response has started
            yield f"event: error\ndata: {json.dumps({'code': e.code, 'message': str(e)})}\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream")
