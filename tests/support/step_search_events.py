"""A search as its events tell it: best-first over the steps of an invented arithmetic problem."""

from __future__ import annotations

from reason.core.events import (
    CallFinished,
    CallStarted,
    Event,
    NodesSearched,
    RunFinished,
    RunStarted,
    SearchEnded,
    SearchNode,
    StageFinished,
    StageStarted,
)
from reason.core.types import Answer, Question, RoleUsage, RunUsage, Verification

QUESTION = (
    "A ferry has room for 18 cars. It crosses 7 times before noon and 5 times after noon, always full, except that 4 "
    "places stay empty on the last crossing. Each car pays 6 euros. How many euros does the ferry take that day?"
)
EXPANSIONS = """
node 0, 0 discarded
27 0.93 First, count the crossings: 7 before noon and 5 after noon make 7 + 5 = 12 crossings.|
16 0.88 Before noon the ferry carries 7 * 18 = 126 cars.|
15 0.07 The ferry makes 7 * 5 = 35 crossings that day.|
26 0.04 Let me find how many cars fit on the ferry on one day: 18 + 7 + 5 = 30 cars.|
node 1, 1 discarded
22 0.91 With 18 cars each time, that would be 12 * 18 = 216 cars.|
19 0.22 On 12 crossings the ferry carries 12 * 18 = 206 cars.|
22 0.87 The last crossing carries 18 - 4 = 14 cars, the other 11 are full.|
node 5, 0 discarded
23 0.12 On the last crossing 4 places stay empty, so 216 + 4 = 220 cars pay.|
22 0.41 Each car pays 6 euros, so the ferry takes 216 * 6 = 1296 euros.|
23 0.86 The last crossing has 4 empty places, so 216 - 4 = 212 cars pay.|
23 0.09 Now subtract the empty places of every crossing: 216 - 12 * 4 = 168 cars.|
node 2, 1 discarded
30 0.84 After noon it carries 5 * 18 = 90 cars, but 4 fewer at the end: 90 - 4 = 86 cars.|
15 0.15 After noon it carries 5 * 18 = 80 cars.|
16 0.71 So it takes 126 * 6 = 756 euros before noon.|
node 7, 1 discarded
29 0.83 11 * 18 = 198 cars on the full crossings, and 198 + 14 = 212 cars in all.|
18 0.18 11 * 18 + 14 = 198 + 14 = 202 cars.|
15 0.03 So 11 + 14 = 25 cars are carried that day.|
node 12, 1 discarded
33 0.80 That makes 126 + 86 = 212 cars, which pay 212 * 6 = 1272 euros.|The answer is 1272.
9 0.13 126 + 86 = 202 cars.|
17 0.19 126 + 86 = 212, and 212 - 4 = 208 cars pay.|
node 10, 1 discarded
25 0.95 212 cars at 6 euros make 212 * 6 = 1272 euros.|The answer is 1272.
17 0.16 212 * 6 = 1262.|The answer is 1262.
18 0.05 Each car pays 6 euros: 212 / 6 is about 35 euros.|
"""
"""Expanded nodes; below each its kept continuations: tokens, score, text, with | for a blank line."""


def read_expansions() -> list[tuple[int, int, list[tuple[str, int, float]]]]:
    """(node, continuations discarded, (text, tokens, score) of those kept); a text with an answer is complete."""
    expansions: list[tuple[int, int, list[tuple[str, int, float]]]] = []
    for line in EXPANSIONS.strip().splitlines():
        first, second, text = line.split(" ", 2)
        if first == "node":
            expansions.append((int(second.rstrip(",")), int(text.split()[0]), []))
        else:
            expansions[-1][2].append((text.replace("|", "\n\n"), int(first), float(second)))
    return expansions


def search_events(name: str = "best-first", *, ended: bool = True) -> list[Event]:
    """The search alone, as a strategy would tell it, batch by batch."""
    nodes = [SearchNode(id=0, parent=None, depth=0)]
    events: list[Event] = []
    for parent, discarded, steps in read_expansions():
        told = [] if events else [nodes[0]]
        for text, tokens, score in steps:
            above = nodes[parent]
            h = 1 - score
            g = above.values.get("g", 0.0) + (max(0.0, h - above.values["h"]) if above.depth else 0.0)
            nodes.append(
                SearchNode(
                    id=len(nodes),
                    parent=parent,
                    depth=above.depth + 1,
                    text=text,
                    tokens=tokens,
                    score=score,
                    terminal="answer is" in text,
                    values={"f": g + h, "g": g, "h": h},
                )
            )
            told.append(nodes[-1])
        events.append(NodesSearched(search=name, expanded=(parent,), nodes=tuple(told), discarded=discarded))
    if ended:
        cost = {"gen_tokens": sum(node.tokens for node in nodes) + 141, "prm_passes": len(nodes) - 1, "unscored": 0}
        events.append(SearchEnded(search=name, chosen=21, stopped="done", cost=cost))
    return events


def ferry_run() -> list[Event]:
    """A whole run around the search, numbered and under its stage."""
    model = "local/qwen2.5-1.5b"
    usage = RunUsage(
        completion_tokens=690,
        wall_seconds=41.8,
        by_role={
            f"main:{model}": RoleUsage(model=model, completion_tokens=690, prompt_tokens=2110),
            "reward:prm": RoleUsage(model="prm/local/skywork-1.5b", prompt_tokens=4821),
        },
    )
    answer = Answer(
        answer="1272",
        text="The answer is 1272.",
        strategy="astar",
        model=model,
        confidence=0.95,
        stopped="done",
        candidates=(),
        verification=Verification(verdict="unchecked"),
        usage=usage,
        run_id="20261125-101500-ferry1",
        seed=7,
    )
    inner: list[Event] = []
    for event in search_events():
        if isinstance(event, NodesSearched):
            n = len(event.nodes)
            call = CallStarted(role="main", model=model, operation="generate", requests=1, samples=n, replayed=0)
            tokens = sum(node.tokens for node in event.nodes)
            inner += [call, CallFinished(role="main", model=model, seconds=2.1, tokens=tokens)]
        inner.append(event)
    models = {"main": model, "reward": "prm/local/skywork-1.5b"}
    events: list[Event] = [
        RunStarted(question=Question(text=QUESTION), strategy="astar", models=models, seed=7),
        StageStarted(stage="solve"),
        *inner,
        StageFinished(stage="solve", seconds=41.6),
        RunFinished(answer=answer),
    ]
    numbered: list[Event] = []
    for number, event in enumerate(events, 1):
        parent = None if number <= 2 or isinstance(event, RunFinished) else 2
        if isinstance(event, CallFinished):
            parent = number - 1
        stamp = {"number": number, "parent": parent, "run_id": answer.run_id, "at_s": 0.8 * number}
        numbered.append(event.model_copy(update=stamp))
    return numbered
