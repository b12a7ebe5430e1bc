"""`weighed_vote`: the answer with the largest sum of weights, among solutions that each weigh something."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..core.answer import Candidate
from ..core.events import VoteUpdated
from ..core.question import Question
from ..core.run import Run
from .answer_classes import answer_classes


@dataclass(frozen=True, slots=True)
class WeighedVote:
    """What a vote came to.

    Attributes:
        chosen: Position of the winning answer's heaviest solution, of equals the first.
        share: The winning answer's share of all weights.
        sums: Sum of weights of each answer, the largest first.
    """

    chosen: int
    share: float
    sums: dict[str, float]


async def weighed_vote(
    candidates: Sequence[Candidate], weights: Sequence[float], question: Question, run: Run
) -> WeighedVote | None:
    """Let solutions vote, and tell of it.

    Args:
        candidates: The solutions; those without an answer do not vote.
        weights: Weight of each, at least 0.
        question: The question.
        run: The run.

    Returns:
        The vote; None without any answer or any weight.
    """
    classes = await answer_classes([candidate.answer for candidate in candidates], question)
    total = math.fsum(weights)
    if not classes or total <= 0:
        return None
    sums = [math.fsum(weights[i] for i in members) for members in classes]
    ranked = sorted(range(len(classes)), key=lambda place: -sums[place])  # stable: of equals the one found first
    names = {place: str(candidates[classes[place][0]].answer) for place in ranked}
    votes = {names[place]: len(classes[place]) for place in ranked}
    run.emit(VoteUpdated(votes=votes, total=len(candidates)))
    chosen = max(classes[ranked[0]], key=lambda i: (weights[i], -i))
    return WeighedVote(chosen, sums[ranked[0]] / total, {names[place]: sums[place] for place in ranked})
