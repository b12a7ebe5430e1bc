"""`/v1/responses`: the routes (create, get, cancel, delete), the response object and the stream events."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, FastAPI, Request, Response
from fastapi.openapi.models import Example
from pydantic import JsonValue

from ...agents.conversation import Conversation
from ...core.budget import Budget
from ...core.errors import UnknownName, UserError
from ...core.json_schema import OBJECT_SCHEMA
from ...core.messages import TOOL_CHOICE_AUTO, TOOL_CHOICE_NONE, TOOL_CHOICE_REQUIRED, Message, ToolCall
from ...core.run import RunConfig, read_config
from ...core.store.records import RunRecord
from ...core.types import Answer, Question
from ..auth import Caller, authorised
from ..errors import public_stored_error
from ..run_manager import CallAnswers, RunManager
from ..run_start import IdempotencyKey, RunStarter
from ..runs import ClientTurn
from ..sse import STREAMED, ServerSentEvents, json_response, named_event, while_connected
from .models import PREFIX
from .outcome import EndedRun, Outcome, RequestRunner, chat_usage, reason_report, stored_outcome
from .requests import (
    RESPONSES_REFUSED,
    FunctionChoice,
    ResponsesRequest,
    ServerTool,
    StrictRoute,
    encrypted_thought,
    input_format,
    input_messages,
)
from .run_config import RunRequest, check_format, choice_of, effort_of, field_names, plan_run, question_of, tool_of
from .server_tools import SERVERS, call_answers, outputs_of, servers_of
from .streaming import Kind, Piece, join_text

Event = dict[str, Any]
OutputItem = dict[str, Any]

NAME = "resp_"


def _response_id(run_id: str) -> str:
    """The response id, which contains the run id."""
    return f"{NAME}{run_id}"


def echoed_fields(request: ResponsesRequest, config: RunConfig) -> dict[str, Any]:
    """The request fields that a response repeats."""
    kept = ("model", "previous_response_id", "max_output_tokens", "max_tool_calls", "temperature", "top_p", "user")
    return {
        **stored_fields(config),
        **{name: getattr(request, name) for name in kept},
        "truncation": "disabled",
        "background": False,
    }


def response(
    run_id: str,
    echoed: Mapping[str, Any],
    *,
    created: float,
    completed: float | None = None,
    status: str = "in_progress",
    outcome: Outcome | None = None,
    output: list[OutputItem] | None = None,
    error: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Build a response object, complete or in progress.

    Args:
        run_id: Run id.
        echoed: Request fields to repeat.
        created: Start time, in seconds since the epoch.
        completed: End time, in seconds since the epoch; None means now. Used only with an outcome.
        status: Status of a response without an outcome; with one, "completed" or "incomplete".
        outcome: Result of the run.
        output: Output items so far.
        error: Error that ended the run.
    """
    short = False
    if outcome is not None:  # one without further calls is complete
        short = outcome.finish_reason == "length" and outcome.answer.stopped_by != "tool_calls"
        error = error or _unknown_outcome(outcome.answer)
    ended = "failed" if error else "incomplete" if short else "completed"
    body = {
        "id": _response_id(run_id),
        "object": "response",
        "created_at": int(created),
        "status": status if outcome is None else ended,
        "completed_at": None if outcome is None else int(time.time() if completed is None else completed),
        "error": error,
        "incomplete_details": {"reason": "max_output_tokens"} if short else None,
        **echoed,
        "output": output or [],
        "usage": None if outcome is None else response_usage(outcome),
    }
    return body if outcome is None else {**body, "reason": reason_report(outcome.answer)}


def _unknown_outcome(answer: Answer) -> dict[str, Any] | None:
    """The error of a response whose run waits for the outcome of a call, which the format cannot ask for."""
    for call in answer.pending:
        if call.question == "outcome":
            message = (
                f"whether {call.tool}({call.arguments}) took effect is not known: decide about call {call.id} with "
                f"POST /v1/runs/{answer.run_id}/decisions"
            )
            return {"code": "server_error", "message": message}
    return None


def response_usage(outcome: Outcome) -> dict[str, Any]:
    """The `usage` of a response: the numbers of `chat_usage` under the names of the Responses API."""
    chat = chat_usage(outcome)
    return {
        "input_tokens": chat["prompt_tokens"],
        "input_tokens_details": {
            "cached_tokens": chat["prompt_tokens_details"]["cached_tokens"],
            "cache_write_tokens": 0,
        },
        "output_tokens": chat["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": chat["completion_tokens_details"]["reasoning_tokens"]},
        "total_tokens": chat["total_tokens"],
    }


def items_of(ended: EndedRun) -> list[OutputItem]:
    """The output items of a response that was not streamed: of each turn thoughts, text and tool calls."""
    run_id, outcome = ended.run_id, ended.outcome
    items: list[OutputItem] = []
    turn: list[Piece] = []

    def add(text: str, blocks: Sequence[Mapping[str, JsonValue]] = ()) -> None:
        thoughts = join_text(turn)
        if thoughts or blocks:
            items.append(reasoning_item(_item_id(run_id, "reasoning", items), thoughts, blocks))
        if text:
            items.append(message_item(_item_id(run_id, "message", items), text))

    for piece in ended.pieces:
        if piece.kind in ("reasoning", "content"):
            turn.append(piece)
        else:
            add(join_text(turn, "content"))
            place(piece, items)
            turn.clear()
    add(outcome.content, outcome.blocks)
    calls = [*(call_item(run_id, i, call) for i, call in enumerate(outcome.calls)), *ended.approvals]
    if not calls and not any(item["type"] == "message" for item in items):  # an empty answer also has a message item
        items.append(message_item(f"msg_{run_id}", ""))
    return [*items, *calls]


def place(piece: Piece, output: list[OutputItem]) -> int | None:
    """Add the item of a tool to the output, or to its item what a call led to; returns its index, None without one."""
    at = next((i for i, item in enumerate(output) if item["id"] == piece.item["id"]), None)
    if piece.kind == "result":
        if at is not None:  # it was executed
            output[at] = {**output[at], **piece.item}
        return at
    if at is not None:  # of a run that another process has resumed
        return None
    output.append(dict(piece.item))
    return len(output) - 1


def _item_id(run_id: str, kind: Literal["reasoning", "message"], output: Sequence[OutputItem]) -> str:
    """The ID of the next item of a kind."""
    before = sum(item["type"] == kind for item in output)
    return f"{'rs' if kind == 'reasoning' else 'msg'}_{run_id}" + (f"_{before}" if before else "")


def reasoning_item(name: str, text: str, blocks: Sequence[Mapping[str, JsonValue]] = ()) -> OutputItem:
    """An output item with thoughts, and with a provider's signed blocks, which the client returns in the next turn."""
    summary = [{"type": "summary_text", "text": text}] if text else []
    item: OutputItem = {"type": "reasoning", "id": name, "summary": summary}
    return {**item, "encrypted_content": encrypted_thought(blocks)} if blocks else item


def message_item(name: str, text: str, status: str = "completed") -> OutputItem:
    """An output item with the answer text."""
    return {"type": "message", "id": name, "role": "assistant", "status": status, "content": [text_part(text)]}


def text_part(text: str) -> dict[str, Any]:
    """A text part of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def call_item(run_id: str, index: int, call: ToolCall, *, arguments: str | None = None) -> OutputItem:
    """An output item with a tool call; `arguments` makes it in progress, with the arguments so far."""
    return {
        "type": "function_call",
        "id": f"fc_{run_id}_{index}",
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments if arguments is None else arguments,
        "status": "completed" if arguments is None else "in_progress",
    }


class ResponseEvents:
    """Builds the events of one stream.

    Thoughts and text are separate items. Text is never split: thoughts that arrive after its first piece become an
    item after it.

    Args:
        run_id: Run id.
        echoed: Request fields that the response repeats.
    """

    def __init__(self, run_id: str, echoed: Mapping[str, Any]) -> None:
        self._run_id, self._echoed = run_id, echoed
        self._created = time.time()
        self._numbers = itertools.count()
        self._output: list[OutputItem] = []
        self._open: Kind | None = None
        self._text = ""
        self._later = ""

    def begin(self) -> list[Event]:
        """Events that start the response."""
        under_way = response(self._run_id, self._echoed, created=self._created)
        return [
            self._event("response.created", response=under_way),
            self._event("response.in_progress", response=under_way),
        ]

    def piece(self, piece: Piece) -> list[Event]:
        """Events for a piece of thoughts or text, or for a tool."""
        if piece.kind not in ("reasoning", "content"):
            return [*self._end_text(), *self._tool(piece)]
        if not piece.text:
            return []
        if piece.kind == "reasoning" and self._open == "content":
            self._later += piece.text
            return []
        events = [] if self._open == piece.kind else [*self._close(), *self._begin(piece.kind)]
        self._text += piece.text
        return [*events, self._delta(piece)]

    def end(self, ended: EndedRun) -> list[Event]:
        """Events that end the response."""
        events: list[Event] = []
        outcome = ended.outcome
        written = self._open == "content" or any(item["type"] == "message" for item in self._output)
        if not (written or outcome.calls or ended.approvals):  # an empty answer also has a message item
            events += [*self._close(), *self._begin("content")]
        events += self._end_text()
        if outcome.blocks:
            item_id = _item_id(self._run_id, "reasoning", self._output)  # they come with the end of the run
            events += self._whole(reasoning_item(item_id, "", outcome.blocks))
        for i, call in enumerate(outcome.calls):
            events += self._call(i, call)
        for item in ended.approvals:
            events += self._whole(item)
        completed_body = response(
            self._run_id, self._echoed, created=self._created, outcome=outcome, output=list(self._output)
        )
        return [*events, self._event(f"response.{completed_body['status']}", response=completed_body)]

    def failure(self, error: Mapping[str, Any]) -> Event:
        """The event that ends a failed stream."""
        return self._event("error", code=error["code"], message=error["message"], param=error["param"])

    def _end_text(self) -> list[Event]:
        """Close the open item, and add the thoughts that came after its text."""
        events, later, self._later = self._close(), self._later, ""
        if later:
            events += self._begin("reasoning")
            self._text = later
            events += [self._delta(Piece("reasoning", later)), *self._close()]
        return events

    def _begin(self, kind: Kind) -> list[Event]:
        """Open an output item."""
        self._open, self._text = kind, ""
        location = self._place()
        if kind == "reasoning":
            item = {**reasoning_item(location["item_id"], ""), "summary": []}
            part = {"type": "summary_text", "text": ""}
            opened = ("response.reasoning_summary_part.added", {**location, "summary_index": 0, "part": part})
        else:
            item = {**message_item(location["item_id"], "", "in_progress"), "content": []}
            opened = ("response.content_part.added", {**location, "content_index": 0, "part": text_part("")})
        return [
            self._event("response.output_item.added", output_index=location["output_index"], item=item),
            self._event(opened[0], **opened[1]),
        ]

    def _delta(self, piece: Piece) -> Event:
        if piece.kind == "reasoning":
            return self._event(
                "response.reasoning_summary_text.delta", **self._place(), summary_index=0, delta=piece.text
            )
        return self._event(
            "response.output_text.delta", **self._place(), content_index=0, delta=piece.text, logprobs=[]
        )

    def _close(self) -> list[Event]:
        """Close the open item, if any, and add it to the output."""
        kind, text, location = self._open, self._text, self._place()
        self._open = None
        if kind is None:
            return []
        if kind == "reasoning":
            at = {**location, "summary_index": 0}
            item = reasoning_item(location["item_id"], text)
            events = [
                self._event("response.reasoning_summary_text.done", **at, text=text),
                self._event("response.reasoning_summary_part.done", **at, part=item["summary"][0]),
            ]
        else:
            at = {**location, "content_index": 0}
            item = message_item(location["item_id"], text)
            events = [
                self._event("response.output_text.done", **at, text=text, logprobs=[]),
                self._event("response.content_part.done", **at, part=text_part(text)),
            ]
        self._output.append(item)
        return [*events, self._done(location["output_index"])]

    def _whole(self, item: OutputItem) -> list[Event]:
        """Add an item that is complete."""
        at = len(self._output)
        self._output.append(item)
        return [self._event("response.output_item.added", output_index=at, item=item), self._done(at)]

    def _done(self, at: int) -> Event:
        return self._event("response.output_item.done", output_index=at, item=self._output[at])

    def _tool(self, piece: Piece) -> list[Event]:
        """Events for the tools of a server, or for a call of one."""
        at = place(piece, self._output)
        if at is None:
            return []
        item = self._output[at]
        location = {"item_id": item["id"], "output_index": at}
        if piece.kind == "result":
            return [self._event(f"response.mcp_call.{item['status']}", **location), self._done(at)]
        begun: OutputItem = {"tools": []} if piece.kind == "tools" else {"arguments": ""}
        events = [
            self._event("response.output_item.added", output_index=at, item={**item, **begun}),
            self._event(f"response.{item['type']}.in_progress", **location),
        ]
        if piece.kind == "tools":
            return [*events, self._event("response.mcp_list_tools.completed", **location), self._done(at)]
        arguments = item["arguments"]
        return [
            *events,
            self._event("response.mcp_call_arguments.delta", **location, delta=arguments),
            self._event("response.mcp_call_arguments.done", **location, arguments=arguments),
        ]

    def _call(self, index: int, call: ToolCall) -> list[Event]:
        at = len(self._output)
        begun, item = call_item(self._run_id, index, call, arguments=""), call_item(self._run_id, index, call)
        self._output.append(item)
        location = {"item_id": item["id"], "output_index": at}
        return [
            self._event("response.output_item.added", output_index=at, item=begun),
            self._event("response.function_call_arguments.delta", **location, delta=call.arguments),
            self._event("response.function_call_arguments.done", **location, name=call.name, arguments=call.arguments),
            self._done(at),
        ]

    def _place(self) -> dict[str, Any]:
        """Id and output index of the open item."""
        item_id = _item_id(self._run_id, "reasoning" if self._open == "reasoning" else "message", self._output)
        return {"item_id": item_id, "output_index": len(self._output)}

    def _event(self, kind: str, **fields: Any) -> Event:
        return {"type": kind, "sequence_number": next(self._numbers), **fields}


responses = APIRouter(prefix="/v1", tags=["OpenAI"], route_class=StrictRoute)

LOGPROBS = "message.output_text.logprobs"
"""Value of `include` that asks for log-probabilities."""
INSTRUCTIONS = "instructions"
"""Key of the question's metadata that stores the request's `instructions`."""


EXAMPLES: dict[str, Example] = {
    "a chain of thought": {"value": {"model": "reason/cot", "input": "What is 17 * 23?", "max_output_tokens": 300}}
}


@responses.post("/responses", summary="Create a response", responses=STREAMED)
async def create_response(
    request: Request,
    body: Annotated[ResponsesRequest, Body(openapi_examples=EXAMPLES)],
    caller: Annotated[Caller, Depends(authorised("ask"))],
    idempotency: IdempotencyKey = None,
) -> Response:
    """Answer an input with a reasoning strategy, as one response or as a stream of events.

    Every response is stored. A client can fetch it by its id, or continue it with `previous_response_id`. One in the
    background is returned as it begins; it needs no connection, and goes on after a restart of the server.
    """
    app = request.app
    conversation = await RunStarter(request, caller, idempotency).conversation(body.conversation)
    run_request = await _run_request(body, app, caller, conversation)
    if body.background:  # it is queued or in progress
        starter = RunStarter(request, caller, idempotency)
        run = await starter.start(run_request.config, body, background=True, answers=run_request.answers)
        run_manager: RunManager = app.state.run_manager
        record = await run_manager.record(run.id, caller)
        return await _stored_response(run_manager, record, run.turn.number)
    runner = RequestRunner(request, body, caller, run_request, idempotency, shows_tools=True)
    echoed = echoed_fields(body, run_request.config)
    if not body.stream:
        return json_response(_response_body(await while_connected(request.receive, runner.execute()), echoed))
    writer = ResponseEvents("", echoed)

    def create(run_id: str) -> ResponseEvents:
        nonlocal writer
        writer = ResponseEvents(run_id, echoed)
        return writer

    return ServerSentEvents(
        partial(runner.stream, create),
        runner.admitted,
        encode=named_event,
        failure=lambda error: named_event(writer.failure(error)),
    )


@responses.get("/responses/{response_id}", response_model=dict[str, Any], summary="Get a response")
async def get_response(
    request: Request, response_id: str, caller: Annotated[Caller, Depends(authorised("read"))]
) -> Response:
    """Return a stored response by its id, or its status if the run has not finished.

    Request fields that the run does not store, such as `temperature`, are omitted.
    """
    run_manager: RunManager = request.app.state.run_manager
    return await _stored_response(run_manager, *await _record(run_manager, caller, response_id))


@responses.post("/responses/{response_id}/cancel", response_model=dict[str, Any], summary="Cancel a response")
async def cancel_response(
    request: Request, response_id: str, caller: Annotated[Caller, Depends(authorised("ask"))]
) -> Response:
    """Stop a response that is in progress and return it; one that has ended is returned unchanged.

    A client that streams it gets an error event with the code `cancelled`.
    """
    run_manager: RunManager = request.app.state.run_manager
    record, turn = await _record(run_manager, caller, response_id)
    return await _stored_response(run_manager, await run_manager.cancel(record.id, caller), turn)


@responses.delete("/responses/{response_id}", summary="Delete a response")
async def delete_response(
    request: Request, response_id: str, caller: Annotated[Caller, Depends(authorised("ask"))]
) -> dict[str, Any]:
    """Delete a response that has ended, with its run. One that is in progress must be cancelled first (409).

    All responses of a client's loop are one run.
    """
    run_manager: RunManager = request.app.state.run_manager
    record, _ = await _record(run_manager, caller, response_id)
    await run_manager.delete(record.id, caller)
    return {"id": response_id, "object": "response", "deleted": True}


async def _stored_response(run_manager: RunManager, record: RunRecord, turn: int) -> Response:
    """The response with the object of a turn of a run, as far as it is stored."""
    config = read_config(record)
    body = {
        "model": f"{PREFIX}{config.strategy}:{config.models.get('main', '')}",
        **stored_fields(config),
        "background": record.background,
    }
    ended = await stored_outcome(run_manager.store, record, config, turn)
    if ended is not None:
        return json_response(_response_body(ended, body, created=record.created, completed=record.updated))
    status = {"failed": "failed", "interrupted": "cancelled", "queued": "queued"}.get(record.status, "in_progress")
    error = None if record.error is None else public_stored_error(record.error)
    name = ClientTurn(turn).name(record.id)
    return json_response(response(name, body, created=record.created, status=status, error=error))


async def _run_request(
    body: ResponsesRequest, app: FastAPI, caller: Caller, conversation: Conversation | None
) -> RunRequest:
    """Convert a responses request to a run configuration."""
    if body.background and body.stream:
        raise UserError(
            "a background response is not streamed",
            hint="fetch it with GET /v1/responses/ID, or leave background out",
            param="background",
        )
    if LOGPROBS in (body.include or ()):
        refusal = RESPONSES_REFUSED["top_logprobs"]
        raise UserError(f"{LOGPROBS} is not supported: {refusal.why}", hint=refusal.instead, param="include")
    effort = None if body.reasoning is None else body.reasoning.effort
    run_manager: RunManager = app.state.run_manager
    answers = await _call_answers(body, run_manager, caller, conversation)
    if answers is not None:
        config = read_config(await run_manager.record(answers.run_id, caller))
        return RunRequest(model=body.model, config=config, answers=answers)
    before: tuple[Message, ...] = ()
    limits = [Budget(tool_calls=body.max_tool_calls)]
    if body.previous_response_id is not None:
        before = await _previous_turns(run_manager, caller, body.previous_response_id)
    if conversation is not None:
        limits.append(conversation.left() or Budget())
        before = conversation.messages
        if conversation.last is not None:
            before = _without_instructions(before, conversation.last.question)
    kept: dict[str, Any] = {
        "metadata": body.metadata,
        "user": body.user,
        "safety_identifier": body.safety_identifier,
        INSTRUCTIONS: body.instructions or None,
    }
    settings = app.state.settings
    tools = list(enumerate(body.tools or ()))
    servers = [(f"tools.{i}", tool) for i, tool in tools if isinstance(tool, ServerTool)]
    rules, kept[SERVERS] = servers_of(servers, settings) if servers else ({}, None)
    messages = input_messages(body.input)
    await asyncio.sleep(0)  # there may be 10,000: others have the event loop
    question = question_of(
        messages,
        tools=[tool_of(tool.type, tool, f"tools.{i}") for i, tool in tools if not isinstance(tool, ServerTool)],
        tool_choice=body.tool_choice
        if not isinstance(body.tool_choice, FunctionChoice)
        else choice_of(body.tool_choice.type, body.tool_choice),
        metadata={name: value for name, value in kept.items() if value is not None},
        before=before,
        field="input",
    )
    if body.instructions:
        head = Message(role="system", content=body.instructions)
        question = question.model_copy(update={"conversation": (head, *question.conversation)})
    form = input_format(body.text)
    await check_format(form)
    config = plan_run(
        question,
        model=body.model,
        options=body.reason,
        given={"temperature": body.temperature, "top_p": body.top_p, "max_tokens": body.max_output_tokens},
        form=form,
        effort=effort_of(effort, body.reason, "reasoning.effort"),
        seed=body.reason.seed,
        reasoner=app.state.reasoner,
        tenant=caller.tenant,
        one_call=body.parallel_tool_calls is False,
        tool_rules=rules,
        limits=limits,
    )
    if conversation is not None:
        config = conversation.joined(config)
    return RunRequest(
        model=body.model,
        config=config,
        field_names=field_names(effort, "reasoning.effort"),
    )


async def _call_answers(
    body: ResponsesRequest, run_manager: RunManager, caller: Caller, conversation: Conversation | None
) -> CallAnswers | None:
    """What a request answers to a waiting run of a conversation, or that executes tools; None for one that asks."""
    items = () if isinstance(body.input, str) else body.input
    answers = call_answers(items, caller)
    outputs = {} if any(item.type != "function_call_output" for item in items) else outputs_of(items)
    if body.previous_response_id is None:
        run_id = "" if conversation is None else conversation.unfinished or "".join(conversation.runs[-1:])
        return answers or (CallAnswers(run_id, {}, outputs) if run_id and outputs else None)
    record, turn = await _record(run_manager, caller, body.previous_response_id, param="previous_response_id")
    if answers is None:
        if not outputs or not record.config.get("tools"):
            return None
        answers = CallAnswers(record.id, {}, outputs)
    elif answers.run_id != record.id:
        hint = "leave previous_response_id out, or name the response with the approval request"
        raise UserError("the approval is of another response", hint=hint, param="previous_response_id")
    return replace(answers, turn=turn + 1)


async def _previous_turns(run_manager: RunManager, caller: Caller, name: str) -> tuple[Message, ...]:
    """The conversation up to and including a response, without its instructions."""
    record, turn = await _record(run_manager, caller, name, param="previous_response_id")
    config = read_config(record)
    ended = await stored_outcome(run_manager.store, record, config, turn)
    if ended is None:
        raise UnknownName("response", name, hint="it has no answer to continue from")
    outcome = ended.outcome
    if needed := [f"{call.question} of {call.tool}" for call in outcome.answer.pending if call.question != "result"]:
        raise UserError(
            f"response {name} waits for the {', '.join(needed)}",
            hint="send mcp_approval_response items first",
            param="previous_response_id",
        )
    *before, last = outcome.answer.messages or (outcome.answer.message,)
    return (*_turns(config.question), *before, last.model_copy(update={"content": outcome.content}))


def _without_instructions(messages: tuple[Message, ...], question: Question) -> tuple[Message, ...]:
    """The messages of a question's conversation without its instructions, which are not the next one's."""
    instructions = question.metadata.get(INSTRUCTIONS)
    return messages[1:] if instructions and messages and messages[0].content == instructions else messages


def _turns(question: Question) -> tuple[Message, ...]:
    """The conversation with the question, without the instructions."""
    turns = _without_instructions(question.conversation, question)
    asked = Message(role="user", content=question.text, attachments=question.attachments)
    return (*turns, asked, *question.continuation)


async def _record(
    run_manager: RunManager, caller: Caller, name: str, param: str | None = None
) -> tuple[RunRecord, int]:
    """The run record of a response, and the number of its turn."""
    run_id, _, turn = name.removeprefix(NAME).partition("_")
    try:
        if turn and not (turn.isascii() and turn.isdigit()):
            raise UnknownName("response", name)
        return await run_manager.record(run_id, caller), int(turn or 1)
    except UnknownName:
        unknown = UnknownName("response", name)
        unknown.param = param
        raise unknown from None


def _response_body(
    ended: EndedRun, echoed: Mapping[str, Any], *, created: float | None = None, completed: float | None = None
) -> dict[str, Any]:
    """The body of a finished response; without times, it ends now."""
    outcome = ended.outcome
    return response(
        ended.run_id,
        echoed,
        created=time.time() - outcome.answer.usage.wall_seconds if created is None else created,
        completed=completed,
        outcome=outcome,
        output=items_of(ended),
    )


def stored_fields(config: RunConfig) -> dict[str, Any]:
    """The request fields that the run stores."""
    question, choice = config.question, config.question.tool_choice
    servers = question.metadata.get(SERVERS)
    return {
        "instructions": question.metadata.get(INSTRUCTIONS),
        "metadata": question.metadata.get("metadata") or {},
        "tools": [
            *({"type": "function", **tool.model_dump(mode="json")} for tool in question.tools),
            *(servers.values() if isinstance(servers, dict) else ()),
        ],
        "tool_choice": choice
        if choice in (TOOL_CHOICE_AUTO, TOOL_CHOICE_NONE, TOOL_CHOICE_REQUIRED)
        else {"type": "function", "name": choice},
        "reasoning": {"effort": config.effort, "summary": None},
        "text": {"format": _text_format(question.answer_schema)},
        "parallel_tool_calls": not config.one_call,
        **({"conversation": {"id": config.conversation}} if config.conversation else {}),
        "store": True,
    }


def _text_format(schema: dict[str, JsonValue] | None) -> dict[str, Any]:
    if schema is None:
        return {"type": "text"}
    if schema == OBJECT_SCHEMA:
        return {"type": "json_object"}
    return {"type": "json_schema", "name": "answer", "schema": schema, "strict": None}
