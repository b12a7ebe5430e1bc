"""Candidates by the answer they reach: classes of equal answers, and the one that most of them reach.

`weighed_vote`: the answer with the largest sum of weights, among solutions that each weigh something.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...core.answer import Candidate
from ...core.events import VoteUpdated
from ...core.question import Question
from ...core.run import Run
from ...core.tools import is_canonical_calls
from ..answers.equivalence import Equivalence
from ..answers.kinds import answer_kind


async def answer_classes(answers: Sequence[str | None], question: Question) -> list[list[int]]:
    """Positions of equal answers, by first member; those without an answer are in no class.

    Where tools are offered, an answer that is a call is equal to the same call alone, character by character.
    """
    async with Equivalence() as equivalence:
        if not question.needs_tools:
            return await equivalence.group(answers, answer_kind(question))
        stated = [None if a is not None and is_canonical_calls(a) else a for a in answers]
        classes = await equivalence.group(stated, answer_kind(question))
    calls: dict[str, list[int]] = {}
    for i, (answer, told) in enumerate(zip(answers, stated, strict=True)):
        if answer is not None and told is None:
            calls.setdefault(answer, []).append(i)
    return sorted([*classes, *calls.values()])


class AnswerLabels:
    """Numbers answers from 0 as they come, equal ones alike.

    Args:
        question: What they answer; its kind says when two are equal.
    """

    def __init__(self, question: Question) -> None:
        self._kind = answer_kind(question)
        self._tools = question.needs_tools
        self._firsts: list[str] = []

    async def label(self, answer: str | None, equivalence: Equivalence) -> int | None:
        """The number of an answer, which is that of the first one equal to it; None where there is no answer."""
        if answer is None:
            return None
        called = self._tools and is_canonical_calls(answer)
        for label, first in enumerate(self._firsts):
            if first == answer:
                return label
            if called or (self._tools and is_canonical_calls(first)):
                continue
            if await equivalence.same(first, answer, self._kind):
                return label
        self._firsts.append(answer)
        return len(self._firsts) - 1


async def most_reached(candidates: Sequence[Candidate], question: Question) -> tuple[int, float] | None:
    """The first candidate of the largest class of answers, of equals the one reached first; and its share of all.

    Returns:
        Its position and share; None if no candidate has an answer.
    """
    classes = await answer_classes([candidate.answer for candidate in candidates], question)
    if not classes:
        return None
    largest = max(classes, key=len)
    return largest[0], len(largest) / len(candidates)


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
