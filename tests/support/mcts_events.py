"""A search over thoughts as its events tell it: leaves selected, notes associated, statistics told anew.

0 start
├─ 1  the castle's town          2 notes
│  ├─ 3  a complete solution
│  └─ 4  a thought
└─ 2  a dead end
"""

from __future__ import annotations

from reason.core.events import (
    AssociatedItem,
    Event,
    LeafSelected,
    MemoryAssociated,
    NodesSearched,
    RunFinished,
    RunStarted,
    SearchEnded,
    SearchNode,
    StageStarted,
)
from reason.core.types import Answer, AnswerCandidate, Evidence, Question, RunUsage

QUESTION = "When was the castle above the town where the painter Ida Holm was born built?"
TEXTS = (
    "",
    "Ida Holm was born in Ekeby.",
    "Ida Holm was a painter.",
    "The castle above Ekeby was built in 1412 [1]. The answer is 1412.",
    "Ekeby lies on a lake.",
)
NOTES = (
    AssociatedItem(
        text="Ekeby castle was built in 1412.", source_id="docs/ekeby.md:0-31", source_kind="folder", score=0.9
    ),
    AssociatedItem(text="Ida Holm painted lakes.", score=0.5),
)
SOURCES = (Evidence(source="docs/ekeby.md:0-31", text="Ekeby castle was built in 1412."),)


def thought(node_id: int, parent: int | None, v: float, n: float, **more: float) -> SearchNode:
    """A node with its statistics."""
    depth = 0 if parent is None else 1 if parent == 0 else 2
    score = more.pop("score", None)
    return SearchNode(
        id=node_id,
        parent=parent,
        depth=depth,
        text=TEXTS[node_id],
        tokens=9 if depth else 0,
        score=score,
        terminal=node_id == 3,
        values={"V": v, "N": n, **more},
    )


def noted_events(
    name: str = "mcts", notes: tuple[AssociatedItem, ...] = NOTES, query: str = "Ida Holm's town"
) -> list[Event]:
    """The search alone, as a strategy would tell it."""
    return [
        LeafSelected(search=name, path=(0,)),
        MemoryAssociated(search=name, node=1, query=query, snippets=3, items=notes, dropped={"duplicate": 1}),
        MemoryAssociated(search=name, node=2, query=query, dropped={"too_long": 2}),
        NodesSearched(
            search=name,
            expanded=(0,),
            nodes=(
                thought(0, None, 0.55, 2),
                thought(1, 0, 0.8, 1, score=0.8, step=0.75, notes=1.0),
                thought(2, 0, 0.3, 1, score=0.3, step=0.3),
            ),
            discarded=1,
        ),
        LeafSelected(search=name, path=(0, 1), attractions=(1.63,)),
        NodesSearched(
            search=name,
            expanded=(1,),
            nodes=(
                thought(0, None, 0.625, 4),
                thought(1, 0, 0.733, 3, score=0.8, step=0.75, notes=1.0),
                thought(3, 1, 0.9, 1, score=0.9, step=0.9),
                thought(4, 1, 0.5, 1, score=0.5, step=0.5),
            ),
        ),
        SearchEnded(search=name, chosen=3, stopped="expansions", cost={"expansions": 2}),
    ]


def noted_answer(citations: tuple[Evidence, ...] = SOURCES) -> Answer:
    """What the search's run ended with."""
    return Answer(
        answer="1412",
        text="Ida Holm was born in Ekeby.\n\nThe castle above Ekeby was built in 1412 [1]. The answer is 1412.",
        strategy="coat",
        model="local/tiny",
        confidence=0.9,
        stopped="done",
        candidates=(AnswerCandidate(text=TEXTS[3], answer="1412", score=0.9, logprob=None, tokens=18),),
        verification=None,
        usage=RunUsage(completion_tokens=120, wall_seconds=3.5),
        run_id="20261125-101500-noted1",
        seed=7,
        citations=citations,
    )


def noted_run(citations: tuple[Evidence, ...] = SOURCES, **search: object) -> list[Event]:
    """A whole run around the search, numbered and under its stage; `search` goes to `noted_events`."""
    answer = noted_answer(citations)
    events: list[Event] = [
        RunStarted(question=Question(text=QUESTION), strategy="coat", models={"main": answer.model}, seed=answer.seed),
        StageStarted(stage="solve"),
        *noted_events(**search),
        RunFinished(answer=answer),
    ]
    last = len(events)
    return [
        event.model_copy(
            update={
                "number": number,
                "parent": None if number in (1, 2, last) else 2,
                "run_id": answer.run_id,
                "at_s": 0.4 * number,
            }
        )
        for number, event in enumerate(events, 1)
    ]
