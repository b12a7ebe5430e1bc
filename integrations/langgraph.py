"""`agent_graph`: runs of a `Reasoner` as a LangGraph graph over `messages`, for graphs of users.

    agent ──► end
      ▲ │
      │ ▼
    approve          an interrupt in the format of LangChain's human-in-the-loop middleware

The node `agent` is a whole run. Its name follows from thread, path of nodes and messages, and its steps are in the run
store, so a repeated node continues the run, in another process too, and never repeats a call that changes something.
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
from ..core.errors import RunConflict, UnknownName, UserError
from ..core.events import Event, StageStarted, TextDelta
from ..core.messages import Message, ToolCall
from ..core.run import new_run_id
from ..core.types import Answer, Question

if TYPE_CHECKING:
    from ..agents.reasoner import Reasoner


class AgentState(TypedDict, total=False):
    """The part of the state that a graph of a user shares."""

    messages: Annotated[list[AnyMessage], add_messages]


def agent_graph(reasoner: Reasoner, options: dict[str, Any]) -> CompiledStateGraph[Any, Any, Any, Any]:
    """See `Reasoner.graph`."""
    locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def agent(state: AgentState, config: RunnableConfig) -> AgentState:
        messages = [to_message(message) for message in state.get("messages", ())]
        if not messages or messages[-1].role != "user":
            what = f"the last message is of the role {messages[-1].role!r}" if messages else "there are no messages"
            raise UserError(what, hint="end `messages` with a user message")
        run_id = _run_id(config, state)
        async with locks.setdefault(run_id, asyncio.Lock()):  # equal tasks at once share a run
            answer = await _answer(reasoner, run_id, messages, options)
        return {} if answer.pending else {"messages": _new_messages(run_id, answer)}

    async def approve(state: AgentState, config: RunnableConfig) -> AgentState:
        run_id = _run_id(config, state)
        store = await reasoner.open_store()
        pending = _stored_answer(await store.get_run(run_id, exact=True)).pending
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
            await ToolCallStore(store).decide(run_id, decisions, owned=False)
        return {}

    graph = StateGraph(AgentState)
    graph.add_node("agent", agent)
    graph.add_node("approve", approve)
    graph.add_edge(START, "agent")
    graph.add_conditional_edges("agent", _after_agent, ["approve", END])
    graph.add_edge("approve", "agent")
    return graph.compile()


def _after_agent(state: AgentState) -> str:
    return "approve" if isinstance(state["messages"][-1], HumanMessage) else END


async def _answer(reasoner: Reasoner, run_id: str, messages: Sequence[Message], options: Any) -> Answer:
    """The answer of a new run, of one that is continued, or of one that has ended."""
    store = await reasoner.open_store()
    try:
        record = await store.get_run(run_id, exact=True)
    except UnknownName:
        question = Question(text=messages[-1].content, conversation=tuple(messages[:-1]))
        sinks = [_stream_to_graph(run_id, 0)]
        return await reasoner.aask(question, run_id=run_id, sinks=sinks, stream_text=True, **options)
    if record.status == "finished":
        return _stored_answer(record)
    turns = 0 if record.answer is None else len(_turns(_stored_answer(record)))
    return await reasoner.aresume(run_id, sinks=[_stream_to_graph(run_id, turns)], stream_text=True)


def _stored_answer(record: Any) -> Answer:
    return Answer.model_validate(record.answer)


def _run_id(config: RunnableConfig, state: AgentState) -> str:
    """The run's name, the same whenever the node is repeated, under any checkpointer.

    Only the names of nodes count in the namespace: a killed process may not have saved the IDs of its tasks.
    """
    names = config["configurable"]
    thread = names.get("thread_id")
    if thread is None:  # without a checkpointer nothing is repeated, and nothing can be asked
        return new_run_id()
    path = "|".join(part.partition(":")[0] for part in str(names.get("checkpoint_ns") or "").split("|")[:-1])
    history = next_history("", [to_message(message) for message in state["messages"]])
    return f"lg-{hashlib.sha256(json.dumps([thread, path, history]).encode()).hexdigest()[:24]}"


def _stream_to_graph(run_id: str, turns: int) -> Any:
    """A sink: text to `stream_mode="messages"`, all other events to "custom"."""
    write = get_stream_writer()

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


def _turns(answer: Answer) -> list[Message]:
    return [message for message in answer.messages if message.role == "assistant"]


def _new_messages(run_id: str, answer: Answer) -> list[AnyMessage]:
    """The messages of a run; those of the model have the IDs of their streamed chunks."""
    turn, made = 0, []
    for i, message in enumerate(answer.messages or (answer.message,)):
        is_turn = message.role == "assistant"
        made.append(from_message(message, f"{run_id}-{turn}" if is_turn else f"{run_id}-message-{i}"))
        turn += is_turn
    if isinstance(made[-1], AIMessage):
        made[-1].response_metadata = {"run_id": run_id, "stopped": answer.stopped}
    return made


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
