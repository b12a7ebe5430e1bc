"""`agent_graph`: runs of a `Reasoner` as a LangGraph graph over `messages`, with the nodes of the loop (`state.py`).

Each node is a step of a run in the run store. The run's name follows from thread, path of nodes and messages, and its
samples and tool calls are stored before a checkpoint can be, so a repeated node repeats no call, in another process
too. A node that needs decisions is an interrupt, in the format of LangChain's human-in-the-loop middleware.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, TypedDict
from weakref import WeakValueDictionary

from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages, push_message
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import interrupt
from pydantic import ValidationError

from ..agents.loop.records import Decision, ToolCallStore, next_history
from ..agents.loop.state import NODES, LoopState, NodeName
from ..core.errors import RunConflict, UnknownName, UserError
from ..core.events import Event, StageStarted, TextDelta
from ..core.messages import Message, ToolCall
from ..core.run import new_run_id
from ..core.types import Answer, Candidate, PendingToolCall, Question, Solution

if TYPE_CHECKING:
    from ..agents.reasoner import Reasoner
    from ..agents.resources import ToolLike


class AgentState(TypedDict, total=False):
    """The part of the state that a graph of a user shares."""

    messages: Annotated[list[AnyMessage], add_messages]


class _Position(TypedDict):
    """Where a run is in its loop: `first` is the loop's first message, `history` the hash of all messages so far."""

    run_id: str
    state: dict[str, Any]
    first: int
    history: str
    next: str


class _State(AgentState, total=False):
    run: _Position


def agent_graph(
    reasoner: Reasoner, tools: Sequence[ToolLike] | None, options: dict[str, Any]
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """See `Reasoner.graph`."""
    locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
    variant: Reasoner | None = None

    def as_node(name: NodeName) -> Any:
        async def node(state: _State, config: RunnableConfig) -> _State:
            nonlocal variant
            if variant is None:
                variant = reasoner if tools is None else await reasoner.variant(tools=tools)
            runs = variant
            messages = _messages(state)
            position = _position(state, messages)
            if position is None or position["next"] != name:
                run_id, before = await _begin(runs, name, messages, config, options)
                first = len(messages) - len(before.messages)
            else:
                run_id, first = position["run_id"], position["first"]
                before = LoopState.model_validate({**position["state"], "messages": tuple(messages[first:])})
            answer, after = None, before
            async with locks.setdefault(run_id, asyncio.Lock()):  # equal tasks at once share a run
                pending = await _pending(runs, run_id, before)
                if not pending:
                    sinks = [_stream_to_graph(run_id, before)]
                    answer, after = await runs.run_step(run_id, before, sinks=sinks)
                    pending = () if answer is None else answer.pending
            following: str = name
            if pending:
                await _ask(runs, run_id, pending)
                answer = None
            elif answer is not None:
                following = END
            elif after.node == "model":
                following = "approve" if after.messages and after.messages[-1].tool_calls else "verify"
            else:
                following = "tools" if after.node == "approve" else "model"
            new, made = _new_messages(run_id, before, after, answer)
            kept = after.model_dump(mode="json", exclude={"messages"})
            history = next_history("", [*messages, *new])
            place = _Position(run_id=run_id, state=kept, first=first, history=history, next=following)
            return {"messages": made, "run": place}

        return node

    graph = StateGraph(_State, input_schema=AgentState, output_schema=AgentState)
    for name in NODES:
        graph.add_node(name, as_node(name))
        graph.add_conditional_edges(name, _next, [*NODES, END])
    graph.add_edge(START, "model")
    return graph.compile()


def _messages(state: AgentState) -> list[Message]:
    return [to_message(message) for message in state.get("messages", ())]


def _position(state: _State, messages: Sequence[Message]) -> _Position | None:
    """Where the run is, unless other messages were put into the thread."""
    position = state.get("run")
    return position if position is not None and position["history"] == next_history("", messages) else None


def _next(state: _State) -> str:
    messages = _messages(state)
    position = _position(state, messages)
    if position is not None:
        return position["next"]
    if messages[-1].role != "assistant":
        return "model"
    return "approve" if messages[-1].tool_calls else END


async def _begin(
    reasoner: Reasoner, name: NodeName, messages: list[Message], config: RunnableConfig, options: dict[str, Any]
) -> tuple[str, LoopState]:
    """The run that continues messages, which is created unless a killed process has begun it; and its first state."""
    asked = max((i for i, message in enumerate(messages) if message.role == "user"), default=None)
    state = LoopState()
    last = messages[-1] if messages else None
    is_turn = last is not None and name == "approve" and last.tool_calls
    if asked is None or last is None or not (is_turn or last.role in ("user", "tool")):
        what = "there are no messages" if last is None else f"the last message is of the role {last.role!r}"
        raise UserError(what, hint="end `messages` with a user message")
    if is_turn:
        messages = messages[:-1]
        turn = Candidate(text=last.content, tool_calls=last.tool_calls)
        state = LoopState(node="model", messages=(last,), solution=Solution(chosen=0, candidates=(turn,)))
    run_id = _run_id(config, [*messages, *state.messages])
    store = await reasoner.open_store()
    try:
        await store.get_run(run_id, exact=True)
    except UnknownName:
        before, after = tuple(messages[:asked]), tuple(messages[asked + 1 :])
        question = Question(text=messages[asked].content, conversation=before, continuation=after)
        plan = reasoner.plan(question, **options)
        await store.create_run(run_id, plan, tenant=plan.tenant, status="queued")
    return run_id, state


def _run_id(config: RunnableConfig, messages: Sequence[Message]) -> str:
    """The run's name, the same whenever the node is repeated, under any checkpointer.

    Only the names of nodes count in the namespace: a killed process may not have saved the IDs of its tasks.
    """
    names = config["configurable"]
    thread = names.get("thread_id")
    if thread is None:  # without a checkpointer nothing is repeated, and nothing can be asked
        return new_run_id()
    path = "|".join(part.partition(":")[0] for part in str(names.get("checkpoint_ns") or "").split("|")[:-1])
    history = next_history("", messages)
    return f"lg-{hashlib.sha256(json.dumps([thread, path, history]).encode()).hexdigest()[:24]}"


# -- decisions


async def _pending(reasoner: Reasoner, run_id: str, state: LoopState) -> tuple[PendingToolCall, ...]:
    """What a run waits for in the last turn of a state."""
    store = await reasoner.open_store()
    if (await store.get_run(run_id, exact=True)).status != "waiting":
        return ()
    rows = await ToolCallStore(store).list(run_id)
    return tuple(row.pending for row in rows if row.turn == state.num_turns - 1 and row.pending is not None)


async def _ask(reasoner: Reasoner, run_id: str, pending: Sequence[PendingToolCall]) -> None:
    """Interrupt the graph until it is resumed with decisions, and store them."""
    request: dict[str, Any] = {
        "action_requests": [
            {
                "id": call.id,
                "name": call.tool,
                "args": json.loads(call.arguments or "{}"),
                "description": "" if call.question == "approval" else "It was interrupted. Did it take effect?",
            }
            for call in pending
        ],
        "review_configs": [
            {"action_name": call.tool, "allowed_decisions": _ALLOWED[call.question]} for call in pending
        ],
    }
    decisions: dict[str, Decision] | None = None
    while decisions is None:  # a value that is no decision stays in the checkpoint: it cannot be an error
        try:
            decisions = _decisions(interrupt(request), [call.id for call in pending])
        except (UserError, ValidationError) as e:
            request["error"] = str(e)
    with suppress(RunConflict):  # decided before the process was killed, in a node that is repeated
        await ToolCallStore(await reasoner.open_store()).decide(run_id, decisions, owned=False)


def _stream_to_graph(run_id: str, state: LoopState) -> Any:
    """A sink: text to `stream_mode="messages"`, all other events to "custom"."""
    write = get_stream_writer()
    turns = state.num_turns or state.num_repairs + (state.node == "verify")

    def sink(event: Event) -> None:
        nonlocal turns
        if isinstance(event, StageStarted) and event.stage != "verify":
            turns += 1
        if not isinstance(event, TextDelta):
            write(event.model_dump(mode="json"))
        elif event.sample == 0 and event.text:
            push_message(AIMessageChunk(content=event.text, id=f"{run_id}-{turns - 1}"), state_key=None)

    return sink


_ALLOWED = {"approval": ["approve", "edit", "reject"], "outcome": ["done", "failed"]}


def _decisions(value: Any, ids: Sequence[str]) -> dict[str, Decision]:
    """The decisions in a resume value, by call: each names its call, or they are in the order of the calls."""
    given = value.get("decisions") if isinstance(value, dict) else None
    if not isinstance(given, list) or not all(isinstance(one, dict) and "type" in one for one in given):
        hint = 'resume with Command(resume={"decisions": [{"type": "approve"}, …]})'
        raise UserError("the interrupt was resumed without decisions", hint=hint)
    if len(given) != len(ids) and not all("id" in one for one in given):
        raise UserError(f"{len(given)} decisions about {len(ids)} calls", hint="give one for each call, or name calls")
    made: dict[str, Decision] = {}
    for one, place in zip(given, [*ids, *[""] * len(given)], strict=False):
        edited = one.get("edited_action")
        arguments = None if edited is None else json.dumps(edited["args"])
        made[one.get("id", place)] = Decision(
            kind=one["type"], arguments=arguments, reason=one.get("message") or "", by="interrupt"
        )
    return made


# -- messages


def _new_messages(
    run_id: str, before: LoopState, after: LoopState, answer: Answer | None
) -> tuple[list[Message], list[AnyMessage]]:
    """The messages of a node, ours and LangChain's; those of the model have the IDs of their streamed chunks.

    The last one of a run has the run's name, and is given once more if it was made before.
    """
    number, new = len(before.messages), list(after.messages[len(before.messages) :])
    if answer is not None and not after.messages:
        new = [answer.message]
    shown = [(number + i, message) for i, message in enumerate(new)]
    if answer is not None and not new:
        shown = [(number - 1, after.messages[-1])]
    made = []
    for i, message in shown:
        turn = sum(one.role == "assistant" for one in after.messages[:i]) if after.messages else after.num_repairs
        made.append(from_message(message, f"{run_id}-{turn if message.role == 'assistant' else f'message-{i}'}"))
    if answer is not None and isinstance(made[-1], AIMessage):
        made[-1].response_metadata = {"run_id": run_id, "stopped": answer.stopped}
    return new, made


def to_message(message: AnyMessage) -> Message:
    """A message of LangChain as ours; one that we made comes back unchanged."""
    kept = message.additional_kwargs.get("reason")
    if kept is not None:
        return Message.model_validate_json(kept)
    text = str(message.text)
    if isinstance(message, ToolMessage):
        return Message(role="tool", content=text, tool_call_id=message.tool_call_id, name=message.name or "")
    if isinstance(message, AIMessage):
        calls = (
            ToolCall(name=call["name"], arguments=json.dumps(call["args"]), id=call["id"] or "")
            for call in message.tool_calls
        )
        return Message(role="assistant", content=text, tool_calls=tuple(calls))
    return Message(role="system" if isinstance(message, SystemMessage) else "user", content=text)


def from_message(message: Message, name: str) -> AnyMessage:
    """Our message as one of LangChain."""
    kept = {"reason": json.dumps(message.model_dump(mode="json"))}
    if message.role == "tool":
        return ToolMessage(
            message.content, tool_call_id=message.tool_call_id, name=message.name, id=name, additional_kwargs=kept
        )
    if message.role == "user":  # findings of a verifier, or a note about repeated calls
        return HumanMessage(message.content, id=name, additional_kwargs=kept)
    calls = [
        {"name": call.name, "args": call.parsed_arguments or {}, "id": call.id or f"{name}-{i}", "type": "tool_call"}
        for i, call in enumerate(message.tool_calls)
    ]
    return AIMessage(message.content, tool_calls=calls, id=name, additional_kwargs=kept)
