"""`/v1/runs`: runs that go on by themselves; looking at them, following, cancelling and resuming them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Response

from ...core.store import RunStatus
from ..desk import RunDesk
from ..event_content import EVENTS
from ..stored_run import goes_on
from .event_lines import EventLines
from .planning import ask_config
from .replies import RunDetail, RunPage, detail_of, summary_of
from .requests import AskBody
from .starting import ERRORS, Asks, IdempotencyKey, Reads, Starter, headers_of

runs = APIRouter(prefix="/v1/runs", tags=["runs"], responses=ERRORS)

RunId = Annotated[
    str, Path(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9._:-]+$", description="Name of the run.")
]
MAX_NUMBER = 2**53


@runs.post("", status_code=202, response_model=RunDetail, summary="Start a run")
async def start(body: AskBody, request: Request, caller: Asks, idempotency: IdempotencyKey = None) -> Response:
    """Start a run that goes on by itself, in the next process if this one ends; `Location` says where it is found."""
    starter = Starter(request, caller, idempotency)
    config = ask_config(body, request.app.state.reasoner, caller.tenant)
    run = await starter.start(config, body, background=True)
    detail = detail_of(await _desk(request).record(run.id, caller))
    return _detail(detail, 202, headers_of(run))


@runs.get("", response_model=RunPage, summary="List runs")
async def list_runs(
    request: Request,
    caller: Reads,
    limit: Annotated[int, Query(ge=1, le=100, description="Most runs.")] = 20,
    before: Annotated[
        str | None,
        Query(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9._:-]+$", description="Older than that run."),
    ] = None,
    status: Annotated[RunStatus | None, Query(description="Of that status alone.")] = None,
) -> Response:
    """The newest runs, newest first; `next` is what `before` is for those that follow."""
    found = await _desk(request).store.list_runs(limit + 1, tenant=caller.sees, before=before, status=status)
    shown = tuple(summary_of(record) for record in found[:limit])
    page = RunPage(runs=shown, next=shown[-1].id if len(found) > limit else None)
    return Response(page.model_dump_json(), media_type="application/json")


@runs.get("/{run_id}", response_model=RunDetail, summary="Show a run")
async def show(run_id: RunId, request: Request, caller: Reads) -> Response:
    """A run with its answer, as far as it is."""
    return _detail(detail_of(await _desk(request).record(run_id, caller)))


@runs.get(
    "/{run_id}/events",
    response_class=Response,
    summary="Follow a run",
    responses={
        200: {
            "description": "The run's events as server-sent events, stored ones first, until its last.",
            "content": EVENTS,
        }
    },
)
async def events(
    run_id: RunId,
    request: Request,
    caller: Reads,
    after: Annotated[int, Query(ge=0, le=MAX_NUMBER, description="Number of the last event that is known.")] = 0,
    text: Annotated[bool, Query(description="Whether to tell text as it is generated, from now on.")] = False,
    last_event_id: Annotated[
        str | None, Header(alias="Last-Event-ID", description="The same as `after`, from a client that reconnects.")
    ] = None,
) -> Response:
    """Each event once, in order, with its number as `id`. Leaving does not stop the run."""
    known = int(last_event_id) if last_event_id is not None and _is_number(last_event_id) else 0
    run = await _desk(request).attach(run_id, caller)
    return EventLines(run.events(max(after, known), text=text), request.app.state.serve.keepalive_s)


@runs.delete(
    "/{run_id}",
    response_model=RunDetail,
    summary="Cancel a run",
    responses={202: {"model": RunDetail, "description": "Another process was told to stop it"}},
)
async def cancel(run_id: RunId, request: Request, caller: Asks) -> Response:
    """Stop a run; what it has so far is saved. One that has ended stays as it is."""
    record = await _desk(request).cancel(run_id, caller)
    return _detail(detail_of(record), 202 if goes_on(record) else 200)


@runs.post("/{run_id}/resume", status_code=202, response_model=RunDetail, summary="Resume a run")
async def resume(run_id: RunId, request: Request, caller: Asks) -> Response:
    """Go on with a run that was interrupted or failed. What it has paid for is not paid again."""
    run = await _desk(request).resume(run_id, caller)
    return _detail(detail_of(await _desk(request).record(run.id, caller)), 202, headers_of(run))


def _desk(request: Request) -> RunDesk:
    desk: RunDesk = request.app.state.desk
    return desk


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(MAX_NUMBER))


def _detail(detail: RunDetail, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(detail.model_dump_json(), status, headers, media_type="application/json")
