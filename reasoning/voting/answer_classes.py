"""Candidates grouped by equivalent answers: classes, the majority, and a vote by weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...core.events import VoteUpdated
from ...core.messages import is_canonical_calls
from ...core.run import Run
from ...core.types import Candidate, Question
from ..answers.equivalence import Equivalence
from ..answers.kinds import answer_kind


async def answer_classes(answers: Sequence[str | None], question: Question, run: Run) -> list[list[int]]:
    """Positions of equal answers, by first member; those without an answer are in no class.

    With tools, an answer that is a tool call equals only the same call, character by character.
    """
    async with Equivalence.for_run(run) as equivalence:
        if not question.needs_tools:
            return await equivalence.group(answers, answer_kind(question))
        texts = [None if a is not None and is_canonical_calls(a) else a for a in answers]
        classes = await equivalence.group(texts, answer_kind(question))
    calls: dict[str, list[int]] = {}
    for i, (answer, text) in enumerate(zip(answers, texts, strict=True)):
        if answer is not None and text is None:
            calls.setdefault(answer, []).append(i)
    return sorted([*classes, *calls.values()])


class AnswerLabels:
    """Numbers answers from 0 as they arrive, equal ones alike.

    Args:
        question: The question; its kind decides when two answers are equal.
    """

    def __init__(self, question: Question) -> None:
        self._kind = answer_kind(question)
        self._has_tools = question.needs_tools
        self._firsts: list[str] = []
        self._known: dict[str, int] = {}

    async def label(self, answer: str | None, equivalence: Equivalence) -> int | None:
        """The number of an answer, that of the first one equal to it; None without an answer."""
        if answer is None:
            return None
        if answer not in self._known:
            self._known[answer] = await self._label(answer, equivalence)
        return self._known[answer]

    async def _label(self, answer: str, equivalence: Equivalence) -> int:
        is_call = self._has_tools and is_canonical_calls(answer)
        for label, first in enumerate(self._firsts):
            if is_call or equivalence.is_exhausted:
                break
            if self._has_tools and is_canonical_calls(first):
                continue
            if await equivalence.same(first, answer, self._kind):
                return label
        self._firsts.append(answer)
        return len(self._firsts) - 1


async def majority_answer(candidates: Sequence[Candidate], question: Question, run: Run) -> tuple[int, float] | None:
    """The first candidate of the largest class of answers, of equals the one reached first; and its share of all.

    Returns:
        Its position and share; None if no candidate has an answer.
    """
    classes = await answer_classes([candidate.answer for candidate in candidates], question, run)
    if not classes:
        return None
    largest = max(classes, key=len)
    return largest[0], len(largest) / len(candidates)


@dataclass(frozen=True, slots=True)
class WeightedVoteResult:
    """The result of a vote by weight.

    Attributes:
        chosen: Position of the winning answer's heaviest candidate, of equals the first.
        share: The winning answer's share of all weights.
        sums: Sum of weights of each answer, the largest first.
    """

    chosen: int
    share: float
    sums: dict[str, float]


async def weighted_vote(
    candidates: Sequence[Candidate], weights: Sequence[float], question: Question, run: Run
) -> WeightedVoteResult | None:
    """Let candidates vote by weight, and emit the votes.

    Args:
        candidates: The candidates; those without an answer do not vote.
        weights: Weight of each, at least 0.

    Returns:
        The result; None without any answer or any weight.
    """
    classes = await answer_classes([candidate.answer for candidate in candidates], question, run)
    total = math.fsum(weights)
    if not classes or total <= 0:
        return None
    sums = [math.fsum(weights[i] for i in members) for members in classes]
    ranking = sorted(range(len(classes)), key=lambda k: -sums[k])  # stable: of equals the first
    names = {k: str(candidates[classes[k][0]].answer) for k in ranking}
    run.emit(VoteUpdated(votes={names[k]: len(classes[k]) for k in ranking}, total=len(candidates)))
    chosen = max(classes[ranking[0]], key=lambda i: (weights[i], -i))
    return WeightedVoteResult(chosen, sums[ranking[0]] / total, {names[k]: sums[k] for k in ranking})
