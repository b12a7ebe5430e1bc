"""From the tree of thoughts to a solution: the best one, or the answer on which most of them agree."""

from __future__ import annotations

from pydantic import JsonValue

from ...core.answer import Solution, Stopped
from ...core.events import CandidateFound
from ...core.question import Question
from ...core.run import Run
from ..search.monte_carlo import MonteCarlo
from ..weighed_vote import weighed_vote
from .desk import ThoughtDesk
from .parameters import ThoughtParameters


async def solution_of(
    desk: ThoughtDesk, search: MonteCarlo, config: ThoughtParameters, question: Question, run: Run
) -> Solution:
    """The solution that a search over thoughts has found.

    The best is the complete solution of the highest reward, without a reward model that of the highest score; its
    confidence is that number. In a vote every complete solution weighs what its score is, and the confidence is the
    answer's share.

    Args:
        desk: The search's desk.
        search: The search, over.
        config: Its parameters.
        question: The question.
        run: The run.
    """
    found = search.outcome()
    nodes = sorted((*found.terminals,), key=lambda node: node.id)
    if found.chosen is not None and found.chosen not in nodes:
        nodes.append(found.chosen)
    candidates = tuple(desk.candidate(node) for node in nodes)
    for i, candidate in enumerate(candidates):
        run.emit(CandidateFound(index=i, answer=candidate.answer, score=candidate.score))
    chosen = None if found.chosen is None else nodes.index(found.chosen)
    confidence = None if found.chosen is None else found.chosen.reward or found.chosen.score
    if config.select == "vote":
        weight = {node.id: value for node, value in zip(found.terminals, found.weights, strict=True)}
        voted = await weighed_vote(candidates, [weight.get(node.id, 0.0) for node in nodes], question, run)
        if voted is not None:
            chosen, confidence = voted.chosen, voted.share
    stopped: Stopped = "budget" if desk.spent else "done"
    cost: dict[str, JsonValue] = {
        "expansions": len(search.selected),
        "nodes": len(search.tree) - 1,
        "depth": max(node.depth for node in search.tree),
        "duplicates": found.ledger.duplicates,
        **desk.association_cost(),
    }
    return Solution(
        chosen=chosen,
        candidates=candidates,
        confidence=None if confidence is None else min(1.0, confidence),
        stopped=stopped,
        notes={"search": cost, "ended": found.stopped},
    )
