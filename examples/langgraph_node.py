"""`reason` as a node of a LangGraph graph: a question in, an answer out.

    python examples/langgraph_node.py

The graph has its own state and checkpointer. The node calls a `Reasoner` that lives as long as the application,
forwards events through LangGraph's custom stream, and writes three fields; an edge then sends answers with too little
agreement to a person. Runs are durable without the graph's checkpoints: the run ID in the state suffices to show,
replay or resume a run. Cancelling the graph cancels the run, which keeps its progress. Needs the extra `[local]`.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from reason import Reasoner
from reason.core.events import CandidateAdded, Event


class State(TypedDict, total=False):
    """The graph's state."""

    question: str
    answer: str | None
    confidence: float | None
    run_id: str
    reply: str


class ReasonNode:
    """A node that answers the state's question.

    Args:
        reasoner: Opened and closed by the application.
    """

    def __init__(self, reasoner: Reasoner) -> None:
        self._reasoner = reasoner

    async def __call__(self, state: State) -> State:
        """Answer the question."""
        write = get_stream_writer()

        def forward(event: Event) -> None:
            if isinstance(event, CandidateAdded):
                write({"run_id": event.run_id, "chain": event.index, "answer": event.answer})

        answer = await self._reasoner.aask(state["question"], sinks=[forward])
        return {"answer": answer.answer, "confidence": answer.confidence, "run_id": answer.run_id}


def agreed(state: State) -> Literal["reply", "ask_a_person"]:
    """The next node: `reply` if at least half of the chains agree."""
    return "reply" if (state["confidence"] or 0.0) >= 0.5 else "ask_a_person"


async def reply(state: State) -> State:
    """Reply with the answer."""
    return {"reply": f"It is {state['answer']}."}


async def ask_a_person(state: State) -> State:
    """Refer to a person, with the run ID."""
    return {"reply": f"I am not sure; see `reason runs show {state['run_id']}`."}


def build(reasoner: Reasoner) -> CompiledStateGraph[State, None, State, State]:
    """The graph."""
    graph = StateGraph(State)
    graph.add_node("reason", ReasonNode(reasoner))
    graph.add_node(reply)
    graph.add_node(ask_a_person)
    graph.add_edge(START, "reason")
    graph.add_conditional_edges("reason", agreed)
    graph.add_edge("reply", END)
    graph.add_edge("ask_a_person", END)
    return graph.compile(checkpointer=InMemorySaver())


async def main() -> None:
    """Send one question through the graph."""
    thread: RunnableConfig = {"configurable": {"thread_id": "one"}}
    question: State = {"question": "What is the capital of France?"}
    async with Reasoner(strategy="self-consistency", parameters={"n": 4, "max_tokens": 48}, seed=1) as reasoner:
        part: Any
        async for kind, part in build(reasoner).astream(question, thread, stream_mode=["custom", "updates"]):
            print(f"{kind}: {part}")


if __name__ == "__main__":
    asyncio.run(main())
