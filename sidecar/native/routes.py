"""The native API: `/v1/reason`, `/v1/verify`, `/v1/runs`, `/v1/strategies`, `/v1/verifiers`, `/healthz`, `/readyz`."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response

from ...agents.conversation import Conversation, conversation_runs
from ...agents.loop.records import Decision
from ...agents.reasoner import Reasoner
from ...agents.verification import ClaimReportSink, TextVerification, plan_verification, text_verification_of
from ...core.budget import Budget
from ...core.errors import ModelNotFound, ReasonError, UnknownName, UserError
from ...core.events import Event
from ...core.registry import Registry
from ...core.run import RunConfig, read_config
from ...core.settings import Settings
from ...core.store.records import RunRecord, RunStatus
from ...core.store.run_list import MAX_KEY_CHARS, MAX_VALUE_CHARS
from ...core.types import Answer, CodeTest, Document, Question
from ...reasoning.strategy import STRATEGIES, Strategy
from ...verify.verifier import VERIFIERS, Verifier
from ..errors import public_event
from ..openai.models import chosen_strategy, resolve_model
from ..policy import (
    allowed_approval,
    allowed_model,
    allowed_tools,
    apply_ceilings,
    check_code_execution,
    check_samples,
    offered_models,
    reject_paths,
)
from ..run_list import RunSort, find_runs
from ..run_manager import RunManager, decided_by
from ..run_start import (
    ERROR_RESPONSES,
    AskCaller,
    IdempotencyKey,
    ReadCaller,
    RunStarter,
    events_and_error,
    run_headers,
)
from ..sse import EVENT_STREAM_CONTENT, Put, ServerSentEvents, model_json, on_one_line, while_connected
from .schemas import (
    ID_PATTERN,
    AskBody,
    CodeTestIn,
    ConversationDetail,
    ConversationId,
    DecisionsBody,
    DeletedRun,
    DocumentIn,
    HealthStatus,
    Readiness,
    ReasonBody,
    RegisteredKind,
    RegisteredKinds,
    RunDetail,
    RunPage,
    VerifyBody,
    detail_of,
    is_active,
    summary_of,
    turn_of,
)

lists = APIRouter(
    prefix="/v1",
    tags=["catalog"],
    responses={k: ERROR_RESPONSES[k] for k in (401, 403, 422, 429, 500)},
)


@lists.get("/strategies", response_model=RegisteredKinds, summary="List the strategies")
async def strategies(_caller: ReadCaller) -> Response:
    """Return the reasoning strategies, each with a JSON schema of its parameters."""
    return _reply(await asyncio.to_thread(_describe, STRATEGIES))


@lists.get("/verifiers", response_model=RegisteredKinds, summary="List the verifiers")
async def verifiers(_caller: ReadCaller) -> Response:
    """Return the verifiers, each with a JSON schema of its parameters."""
    return _reply(await asyncio.to_thread(_describe, VERIFIERS))


def _describe(registry: Registry[type[Strategy]] | Registry[type[Verifier]]) -> RegisteredKinds:
    records: list[RegisteredKind] = []
    for name in registry.names():
        try:
            kind = registry.load(name)
        except ReasonError:  # a package that cannot be loaded is omitted; `reason doctor` reports it
            continue
        roles = getattr(kind, "roles", ())
        records.append(
            RegisteredKind(
                name=kind.name,
                summary=kind.summary,
                stability=kind.stability,
                paper=kind.paper,
                confidence=str(getattr(kind, "confidence", "")),
                roles=roles if isinstance(roles, tuple) else (),
                parameters=kind.Config.model_json_schema(),
            )
        )
    return RegisteredKinds(data=tuple(records))


def _reply(kinds: RegisteredKinds) -> Response:
    return Response(kinds.model_dump_json(), media_type="application/json")


STORE_TIMEOUT_S = 2.0
"""Timeout of the store in a readiness probe and for metrics, in seconds."""

health = APIRouter(tags=["health"])


@health.get("/healthz", response_model=HealthStatus, summary="Liveness probe")
async def alive() -> HealthStatus:
    """Respond if the process is alive."""
    return HealthStatus()


@health.get(
    "/readyz",
    response_model=Readiness,
    summary="Readiness probe",
    responses={
        503: {"model": Readiness, "description": "Not ready: the store is unreachable, or the server is shutting down"}
    },
)
async def ready(request: Request) -> Response:
    """Report whether the process accepts runs, with the state of the store and the models."""
    run_manager: RunManager = request.app.state.run_manager
    reachable = await run_manager.reaches_store(STORE_TIMEOUT_S)
    opened = request.app.state.reasoner.loaded_models()
    readiness = Readiness(
        ready=reachable and not run_manager.leaving,
        draining=run_manager.leaving,
        store="ok" if reachable else "unreachable",
        models={
            name: "open" if name in opened else "at first use" for name in offered_models(request.app.state.settings)
        },
        in_flight=run_manager.in_flight,
    )
    return Response(readiness.model_dump_json(), 200 if readiness.ready else 503, media_type="application/json")


DEFAULT_VERIFIER = "davinci"


class UnknownInBody(UserError):
    """A name in a body is unknown: 404 is for paths and models."""

    code = UnknownName.code
    http_status = 422


def _in_body(
    error: UnknownName, verifiers: str, parameters: str, by_verifier: Mapping[str, Mapping[str, Any]]
) -> UserError:
    """The error for an unknown name in a body.

    Args:
        verifiers: The field that names verifiers.
        parameters: The field that has their parameters.
        by_verifier: Its value.
    """
    owner, is_parameter, _ = error.kind.partition(" parameter")
    param = {"strategy": "strategy", "verifier": verifiers}.get(error.kind, error.param)
    if is_parameter:
        param = f"parameters.{error.name}"
        if error.name in by_verifier.get(owner, {}):
            param = f"{parameters}.{owner}.{error.name}"
    return UnknownInBody(error.message, hint=error.hint, param=param)


def ask_config(body: AskBody, reasoner: Reasoner, tenant: str, conversation: Conversation | None = None) -> RunConfig:
    """Build the configuration of a question's run.

    Raises:
        ModelNotFound: The server does not offer a requested model.
        UserError: A field is invalid or not permitted; `param` has its name.
    """
    try:
        config = _ask_config(body, reasoner, tenant, conversation)
    except ModelNotFound:
        raise
    except UnknownName as e:
        raise _in_body(e, "verify", "verify_parameters", body.verify_parameters) from e
    check_samples(config)
    check_code_execution(config, reasoner.settings.serve)
    return config


def _ask_config(body: AskBody, reasoner: Reasoner, tenant: str, conversation: Conversation | None) -> RunConfig:
    settings = reasoner.settings
    name = resolve_model(body.model, settings) if body.model is not None else None
    strategy = chosen_strategy(name, body.strategy, settings, field="strategy")
    verify = body.verify if body.verify is not None else (name.verify if name is not None and name.verify else None)
    for verifier, documents in body.verify_parameters.items():
        own = settings.verifiers.get(verifier)
        reject_paths(documents, own, param=f"verify_parameters.{verifier}")
    reject_paths(body.parameters, settings.strategies.get(strategy))

    def offered(field: str, model: str | None) -> str | None:
        return None if model is None else _allowed_models(settings, field, model)

    jurors = None if body.jurors is None else tuple(_allowed_models(settings, "jurors", juror) for juror in body.jurors)
    question = Question(
        text=body.question,
        choices=body.choices,
        documents=_documents(body.documents),
        kind=body.kind,
        tests=_tests(body.tests),
        metadata=dict(body.metadata),
        conversation=() if conversation is None else conversation.messages,
    )
    limits = (settings.budget,) if name is None else (settings.budget, name.budget)
    tools, before = body.tools, None
    if conversation is not None:
        limits = (*limits, conversation.left() or Budget())
        before = conversation.last
        if before is not None and tools is None:
            tools = before.tools
    config = reasoner.plan(
        question,
        strategy=strategy,
        model=None if name is None else name.model,
        parameters={**(name.parameters if name is not None else {}), **body.parameters},
        verify=verify,
        verify_parameters=body.verify_parameters,
        repairs=body.repairs,
        require_verified=body.require_verified,
        budget=apply_ceilings(body.budget, settings.serve, *limits),
        effort=body.effort,
        thinking_tokens=body.thinking_tokens,
        seed=body.seed,
        small_model=offered("small_model", body.small_model),
        judge_model=offered("judge_model", body.judge_model),
        jurors=jurors,
        tenant=tenant,
        tools=allowed_tools(settings, tools),
        approve=allowed_approval(settings, body.approve, before=None if before is None else before.approve),
        check_writes=_check_writes(body, settings, before),
        trajectories=body.trajectories,
        select=body.select,
    )
    if before is not None and body.tools is None:
        config = config.model_copy(update={"tool_rules": before.tool_rules})
    return config if conversation is None else conversation.joined(config)


def _check_writes(body: AskBody, settings: Settings, before: RunConfig | None) -> str | None:
    """The check of a run: None is the server's setting; of a conversation, it stays as it was unless another is set."""
    if settings.tools.policy is not None:
        if body.policy is not None:
            raise UserError("the server has a policy of its own", hint="omit policy", param="policy")
        return None
    if body.policy is not None:
        return body.policy
    if before is not None and before.check_writes is not None:
        return before.check_writes
    return "" if body.check_writes else None


def verify_config(body: VerifyBody, reasoner: Reasoner, tenant: str) -> tuple[RunConfig, tuple[str, ...]]:
    """Build the configuration of a verification run.

    Returns:
        The configuration, and notes on degraded operation to add to the run's own.

    Raises:
        ModelNotFound: The server does not offer a requested model.
        UserError: A field is invalid or not permitted; `param` has its name.
    """
    try:
        config, notes = _verify_config(body, reasoner.settings, tenant)
    except ModelNotFound:
        raise
    except UnknownName as e:
        raise _in_body(e, "verifiers", "parameters", body.parameters) from e
    check_code_execution(config, reasoner.settings.serve)
    return config, notes


def _verify_config(body: VerifyBody, settings: Settings, tenant: str) -> tuple[RunConfig, tuple[str, ...]]:
    verifiers = body.verifiers or settings.verify or (DEFAULT_VERIFIER,)
    for verifier, documents in body.parameters.items():
        reject_paths(documents, settings.verifiers.get(verifier), param=f"parameters.{verifier}")
    changed: dict[str, object] = {"budget": apply_ceilings(body.budget, settings.serve, settings.budget)}
    if body.jurors is not None:
        changed["jurors"] = tuple(_allowed_models(settings, "jurors", juror) for juror in body.jurors)
    return plan_verification(
        body.text,
        settings=settings.model_copy(update=changed),
        question=body.question,
        documents=_documents(body.documents),
        verifiers=verifiers,
        parameters=body.parameters,
        model=None if body.model is None else allowed_model(settings, body.model),
        programs_only=body.programs_only,
        tests=_tests(body.tests),
        tenant=tenant,
    )


def _allowed_models(settings: Settings, field: str, model: str) -> str:
    try:
        return allowed_model(settings, model)
    except ModelNotFound as e:
        e.param = field
        raise


def _tests(tests: tuple[CodeTestIn, ...]) -> tuple[CodeTest, ...]:
    return tuple(CodeTest(name=one.name, code=one.code) for one in tests)


def _documents(documents: tuple[DocumentIn, ...]) -> tuple[Document, ...]:
    return tuple(Document(name=one.name, text=one.text) for one in documents)


class EventStreamResponse(ServerSentEvents):
    """Streams events as server-sent events, each with its number as `id`, with comments as keepalives.

    An error is sent as a final event of type "error" with the error object. When the client disconnects, the generator
    is closed at once.

    Args:
        events: The events.
        headers: Additional headers.
        held: See `ServerSentEvents`; a generator that was never started would not run its cleanup.
    """

    def __init__(
        self,
        events: AsyncGenerator[Event, None],
        headers: Mapping[str, str] | None = None,
        held: AbstractAsyncContextManager[object] | None = None,
    ) -> None:
        async def make(put: Put) -> None:
            async with aclosing(events):
                async for event in events:
                    await put(public_event(event))

        super().__init__(make, None, encode=event_line, failure=error_line, headers=headers, held=held)


def event_line(event: Event) -> bytes:
    """Encode an event as a server-sent event; its JSON has no line breaks."""
    name = f"id: {event.number}\n" if event.number else ""
    data = on_one_line(model_json(event))
    return b"%bdata: %b\n\n" % (name.encode(), data)


def error_line(error: dict[str, Any]) -> bytes:
    """Encode an error object as the final server-sent event of a stream."""
    return f"event: error\ndata: {json.dumps({'error': error}, ensure_ascii=True, allow_nan=False)}\n\n".encode()


runs = APIRouter(prefix="/v1/runs", tags=["runs"], responses=ERROR_RESPONSES)
conversations = APIRouter(prefix="/v1/conversations", tags=["runs"], responses=ERROR_RESPONSES)

RunId = Annotated[str, Path(min_length=1, max_length=200, pattern=ID_PATTERN, description="ID of the run.")]
MAX_NUMBER = 2**53


@runs.post("", status_code=202, response_model=RunDetail, summary="Start a run")
async def start(body: AskBody, request: Request, caller: AskCaller, idempotency: IdempotencyKey = None) -> Response:
    """Start a background run. Another process continues it if this one ends. `Location` has the run's path."""
    starter = RunStarter(request, caller, idempotency)
    conversation = await starter.conversation(body.conversation)
    config = ask_config(body, request.app.state.reasoner, caller.tenant, conversation)
    run = await starter.start(config, body, background=True)
    detail = detail_of(await _run_manager(request).record(run.id, caller))
    return _detail(detail, 202, run_headers(run.id))


@runs.get("", response_model=RunPage, summary="List runs")
async def list_runs(
    request: Request,
    caller: ReadCaller,
    limit: Annotated[int, Query(ge=1, le=100, description="Maximum number of runs.")] = 20,
    after: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=200,
            pattern=ID_PATTERN,
            description="ID of the last run of the previous page, in the same order.",
        ),
    ] = None,
    status: Annotated[RunStatus | None, Query(description="Only runs with this status.")] = None,
    strategy: Annotated[str | None, Query(max_length=200, description="Only runs of this strategy.")] = None,
    model: Annotated[str | None, Query(max_length=500, description="Only runs with this main model.")] = None,
    search: Annotated[
        str,
        Query(
            max_length=200,
            description="Only runs whose ID, question (its first 2,000 characters) or metadata contain this text.",
        ),
    ] = "",
    tag: Annotated[
        str | None,
        Query(
            max_length=MAX_KEY_CHARS + 1 + MAX_VALUE_CHARS,
            pattern="^[^:]+:",
            description="Only runs with this metadata pair, as `KEY:VALUE`.",
        ),
    ] = None,
    sort: Annotated[RunSort, Query(description="Runs without a value, such as running ones, come last.")] = "created",
    order: Annotated[Literal["asc", "desc"], Query(description="Ascending or descending.")] = "desc",
) -> Response:
    """List runs, newest first unless requested otherwise.

    With a filter or another order, the newest 10,000 runs are looked at; in the order of creation, those from `after`
    on.
    """
    key, _, value = (tag or "").partition(":")
    listed = await find_runs(
        _run_manager(request).store,
        limit + 1,
        tenant=caller.sees,
        after=after,
        status=status,
        strategy=strategy,
        model=model,
        search=search,
        tag=None if tag is None else (key, value),
        sort=sort,
        ascending=order == "asc",
    )
    data = tuple(summary_of(run) for run in listed[:limit])
    page = RunPage(data=data, has_more=len(listed) > limit, last_id=data[-1].id if data else None)
    return Response(page.model_dump_json(), media_type="application/json")


@runs.get("/{run_id}", response_model=RunDetail, summary="Show a run")
async def show(run_id: RunId, request: Request, caller: ReadCaller) -> Response:
    """Return a run, with its answer once there is one."""
    return await _shown(request, await _run_manager(request).record(run_id, caller))


@runs.get(
    "/{run_id}/events",
    response_class=Response,
    summary="Follow a run",
    responses={
        200: {
            "description": "The run's events as server-sent events, from the first stored event to the last.",
            "content": EVENT_STREAM_CONTENT,
        }
    },
)
async def events(
    run_id: RunId,
    request: Request,
    caller: ReadCaller,
    after: Annotated[int, Query(ge=0, le=MAX_NUMBER, description="Number of the last event received; 0 for none.")] = 0,
    text: Annotated[bool, Query(description="Whether to include text generated from now on.")] = False,
    last_event_id: Annotated[
        str | None, Header(alias="Last-Event-ID", description="Same as `after`, sent by reconnecting clients.")
    ] = None,
) -> Response:
    """Stream a run's events, each once and in order, with its number as `id`. A disconnect does not stop the run."""
    known = int(last_event_id) if last_event_id is not None and _is_number(last_event_id) else 0
    run = await _run_manager(request).attach(run_id, caller)
    return EventStreamResponse(run.events(max(after, known), text=text))


@runs.post(
    "/{run_id}/cancel",
    response_model=RunDetail,
    summary="Cancel a run",
    responses={
        202: {"model": RunDetail, "description": "Cancellation was requested from the process that executes the run"}
    },
)
async def cancel(run_id: RunId, request: Request, caller: AskCaller) -> Response:
    """Cancel a run and save its partial answer. No effect on a run that has ended."""
    record = await _run_manager(request).cancel(run_id, caller)
    return _detail(detail_of(record), 202 if is_active(record) else 200)


@runs.delete("/{run_id}", response_model=DeletedRun, summary="Delete a run")
async def delete(run_id: RunId, request: Request, caller: AskCaller) -> Response:
    """Delete a run that has ended, with its events and model calls. Its spending still counts.

    A run that is queued or running is not deleted (409): cancel it first.
    """
    await _run_manager(request).delete(run_id, caller)
    return Response(DeletedRun(id=run_id).model_dump_json(), media_type="application/json")


@runs.post(
    "/{run_id}/answer",
    response_model=RunDetail,
    summary="Answer now",
    responses={202: {"model": RunDetail, "description": "The answer was requested from the process of the run"}},
)
async def answer_now(run_id: RunId, request: Request, caller: AskCaller) -> Response:
    """End a run with an answer from what it has: `stopped` is "user", and `based_on` states what the answer rests on.

    The answer takes one short model call at most; `GET /v1/runs/{run_id}/events` ends with it. No effect on a run that
    has ended.
    """
    record = await _run_manager(request).conclude(run_id, caller)
    return _detail(detail_of(record), 202 if is_active(record) else 200)


@runs.post(
    "/{run_id}/decisions",
    response_model=RunDetail,
    summary="Decide about tool calls",
    responses={202: {"model": RunDetail, "description": "All is decided, and the run continues"}},
)
async def decisions(body: DecisionsBody, run_id: RunId, request: Request, caller: AskCaller) -> Response:
    """Decide about the tool calls that a run waits for. It continues in the background once it needs no more decisions.

    A call that was decided already is refused (409), as is a run that does not wait.
    """
    made = {
        call: Decision(
            kind=one.type,
            arguments=None if one.arguments is None else json.dumps(one.arguments, ensure_ascii=False),
            reason=one.reason,
            by=decided_by(caller),
            at=time.time(),
        )
        for call, one in body.decisions.items()
    }
    try:
        record = await _run_manager(request).decide(run_id, caller, made, resume=body.resume)
    except UnknownName as e:
        if e.kind == "run":
            raise
        raise UnknownInBody(e.message, hint=e.hint, param=f"decisions.{e.name}") from e
    return await _shown(request, record, 200 if record.status == "waiting" else 202)


@runs.post("/{run_id}/resume", status_code=202, response_model=RunDetail, summary="Resume a run")
async def resume(run_id: RunId, request: Request, caller: AskCaller) -> Response:
    """Resume a run that was interrupted or failed, or waits. Completed model calls are not repeated."""
    run = await _run_manager(request).resume(run_id, caller)
    return _detail(detail_of(await _run_manager(request).record(run.id, caller)), 202, run_headers(run.id))


@conversations.get("/{conversation_id}", response_model=ConversationDetail, summary="Show a conversation")
async def show_conversation(
    conversation_id: Annotated[ConversationId, Path(description="ID of the conversation.")],
    request: Request,
    caller: ReadCaller,
) -> Response:
    """Return the questions of a conversation with their answers and costs."""
    records = await conversation_runs(_run_manager(request).store, conversation_id, caller.sees)
    if not records:
        raise UnknownName("conversation", conversation_id)
    budget = read_config(records[-1]).conversation_budget
    detail = ConversationDetail(id=conversation_id, budget=budget, data=tuple(map(turn_of, records)))
    return Response(detail.model_dump_json(), media_type="application/json")


def _run_manager(request: Request) -> RunManager:
    run_manager: RunManager = request.app.state.run_manager
    return run_manager


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(MAX_NUMBER))


async def _shown(request: Request, record: RunRecord, status: int = 200) -> Response:
    """The response with a run and what it waits for."""
    pending = await _run_manager(request).pending(record.id) if record.status == "waiting" else ()
    return _detail(detail_of(record, pending), status)


def _detail(detail: RunDetail, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(model_json(detail), status, headers, media_type="application/json")


reasoning = APIRouter(prefix="/v1", tags=["reasoning"], responses=ERROR_RESPONSES)


@reasoning.post(
    "/reason",
    response_model=Answer,
    summary="Answer a question",
    responses={
        200: {
            "description": "The answer or, with `stream`, the run's events as server-sent events. The last event is "
            "`run.finished` with the answer, `run.failed`, or an event of type `error` with the error object.",
            "content": EVENT_STREAM_CONTENT,
        }
    },
)
async def reason(body: ReasonBody, request: Request, caller: AskCaller, idempotency: IdempotencyKey = None) -> Response:
    """Answer a question. If the budget runs out, the response is the best answer so far, with `stopped` "budget".

    If the client disconnects, the run is cancelled, unless the request has an `Idempotency-Key`.
    """
    starter = RunStarter(request, caller, idempotency)
    conversation = await starter.conversation(body.conversation)
    config = ask_config(body, request.app.state.reasoner, caller.tenant, conversation)
    if not body.stream:
        answer = await starter.answer(config, body)
        return _json(answer, run_headers(answer.run_id))
    run = await while_connected(request.receive, starter.start(config, body, text=body.text))
    return EventStreamResponse(events_and_error(run, text=body.text), run_headers(run.id), held=run.held())


@reasoning.post("/verify", response_model=TextVerification, summary="Verify a text claim by claim")
async def verify(body: VerifyBody, request: Request, caller: AskCaller, idempotency: IdempotencyKey = None) -> Response:
    """Verify a text from any source. If the budget runs out, the remaining claims are "unchecked"."""
    starter = RunStarter(request, caller, idempotency)
    config, warned = verify_config(body, request.app.state.reasoner, caller.tenant)
    answer = await starter.answer(config, body)
    reports = ClaimReportSink()
    if len(config.verify) == 1:  # several verifiers number their claims independently
        for event in await request.app.state.run_manager.store.list_events(answer.run_id):
            reports(event)
    return _json(text_verification_of(answer, config, reports, warned), run_headers(answer.run_id))


def _json(reply: Answer | TextVerification, headers: dict[str, str]) -> Response:
    """A JSON response; infinities and NaN are encoded as strings."""
    return Response(model_json(reply), media_type="application/json", headers=headers)
