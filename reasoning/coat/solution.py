"""From the tree of thoughts to a solution: the best one, or the answer on which most of them agree."""

from __future__ import annotations

import math

from pydantic import JsonValue

from ...core.answer import Candidate, Solution, Stopped
from ...core.events import CandidateFound, VoteUpdated
from ...core.question import Question
from ...core.run import Run
from ..answer_classes import answer_classes
from ..search.monte_carlo import MonteCarlo
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
        voted = await _vote(candidates, [weight.get(node.id, 0.0) for node in nodes], question, run)
        chosen, confidence = voted or (chosen, confidence)
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


async def _vote(
    candidates: tuple[Candidate, ...], weights: list[float], question: Question, run: Run
) -> tuple[int, float] | None:
    """The heaviest candidate of the answer with the largest sum of weights, and that answer's share; or None."""
    classes = await answer_classes([candidate.answer for candidate in candidates], question)
    total = math.fsum(weights)
    if not classes or total <= 0:
        return None
    sums = [math.fsum(weights[i] for i in members) for members in classes]
    ranked = sorted(range(len(classes)), key=lambda place: -sums[place])
    votes = {str(candidates[classes[place][0]].answer): len(classes[place]) for place in ranked}
    run.emit(VoteUpdated(votes=votes, total=len(candidates)))
    chosen = max(classes[ranked[0]], key=lambda i: (weights[i], -i))
    return chosen, sums[ranked[0]] / total
