"""`reason` as a node of a LangGraph graph that knows nothing else of it: a question comes in, an answer goes out.

    python examples/langgraph_node.py

The graph has its own state and its own checkpointer. The node asks a `Reasoner` that lives as long as the application,
passes on what happens through LangGraph's custom stream, and writes three fields; an edge then sends answers that too
few chains agree on to a person. A run is durable by itself: its stages are in none of the graph's checkpoints, and its
name, which the state carries, is enough to look at it, replay it or go on with it. Cancelling the graph cancels the
run, which keeps what it has. Needs the extra `[local]`, and nothing beside it: `reason` brings LangGraph along.
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
from reason.core.events import CandidateFound, EventFields


class State(TypedDict, total=False):
    """The graph's state."""

    question: str
    answer: str | None
    confidence: float | None
    run_id: str
    reply: str


class ReasonNode:
    """A node that has the state's question answered.

    Args:
        reasoner: Answers it; opened and closed by the application.
    """

    def __init__(self, reasoner: Reasoner) -> None:
        self._reasoner = reasoner

    async def __call__(self, state: State) -> State:
        """Ask."""
        write = get_stream_writer()

        def tell(event: EventFields) -> None:
            if isinstance(event, CandidateFound):
                write({"run_id": event.run_id, "chain": event.index, "answer": event.answer})

        answer = await self._reasoner.aask(state["question"], sinks=[tell])
        return {"answer": answer.answer, "confidence": answer.confidence, "run_id": answer.run_id}


def agreed(state: State) -> Literal["reply", "ask_a_person"]:
    """Where an answer goes: out, if at least half of the chains came to it."""
    return "reply" if (state["confidence"] or 0.0) >= 0.5 else "ask_a_person"


async def reply(state: State) -> State:
    """Say it."""
    return {"reply": f"It is {state['answer']}."}


async def ask_a_person(state: State) -> State:
    """Hand it on, with the run that the person can look at."""
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
