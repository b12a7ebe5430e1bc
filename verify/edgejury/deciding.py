"""Which answer stands: the chair's, held against the jurors' vote, or without a chair the vote or the best opinion.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850); the vote that a chair's choice has to stand against is our own (see
`closed.settle`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...core.question import Question
from ...reasoning.answer_classes import answer_classes
from ...reasoning.answers import extract
from .closed import Vote, canonical, closed_kind, settle, weighted_vote
from .opinions import Opinion, Ranking, Synthesis


@dataclass(frozen=True)
class Final:
    """The answer that stands.

    Attributes:
        answer: The text, which states the choice where there is one.
        choice: The same in normal form; None if the question is open.
        juror: Whose opinion it is; None if the chair wrote it.
        synthesis: What the chair made, or what stands in for it; None where there was no chair.
        vote: The jurors' vote; None on open questions.
        overruled: Whether the vote took the place of what the chair chose.
    """

    answer: str
    choice: str | None
    juror: int | None = None
    synthesis: Synthesis | None = None
    vote: Vote | None = None
    overruled: bool = False


async def by_chair(
    synthesis: Synthesis,
    opinions: Sequence[Opinion],
    ranking: Ranking,
    weights: Mapping[int, float],
    question: Question,
) -> Final:
    """What stands where a chair was asked.

    Args:
        synthesis: What it made, or the best opinion in its place.
        opinions: The opinions.
        ranking: Their ranking.
        weights: What jurors' voices count for beside that.
        question: The question.
    """
    fallback, closed = synthesis.source == "fallback", closed_kind(question) is not None
    # where the best opinion states no answer, those that do are voted on
    if not closed or (fallback and (synthesis.choice is not None or all(o.choice is None for o in opinions))):
        juror = ranking.best if fallback else None
        return Final(stated(synthesis.answer, synthesis.choice, question), synthesis.choice, juror, synthesis)
    written = synthesis.model_copy(update={"choice": await _alike(synthesis.choice, opinions, question)})
    settled = settle(written, opinions, ranking, weights)
    stands = settled.synthesis
    text = stated(stands.answer, stands.choice, question)
    told = stands.model_copy(update={"answer": text})
    return Final(text, stands.choice, None, told, settled.vote, settled.overruled)


def by_opinions(
    opinions: Sequence[Opinion], ranking: Ranking, weights: Mapping[int, float], question: Question, *, vote: bool
) -> Final:
    """What stands where there was no chair.

    Args:
        opinions: The opinions.
        ranking: Their ranking.
        weights: What each juror's vote counts for.
        question: The question.
        vote: Whether closed questions are voted on; otherwise the best opinion stands.
    """
    given = {opinion.juror: opinion for opinion in opinions if opinion.ok}
    best = given[ranking.best]
    counted = weighted_vote(opinions, weights, ranking.order) if closed_kind(question) is not None else None
    if vote and counted is not None:
        choosers = [given[juror] for juror in ranking.order if given[juror].choice == counted.choice]
        if not choosers:  # every letter has only shares of it
            return Final(stated("", counted.choice, question), counted.choice, None, None, counted)
        best = choosers[0]
    return Final(stated(best.text, best.choice, question), best.choice, best.juror, None, counted)


def stated(answer: str, choice: str | None, question: Question) -> str:
    """A text that states its choice: with a last line that does, where it states none or another."""
    if choice is None:
        return answer
    found = extract(answer, question)
    if found is not None and found.value == choice:
        return answer
    return f"{answer.rstrip()}\n\nAnswer: {choice}".lstrip()


async def _alike(choice: str | None, opinions: Sequence[Opinion], question: Question) -> str | None:
    """The chair's choice, written as the opinions write it."""
    answers = [*(opinion.choice for opinion in opinions), choice]
    return canonical(answers, await answer_classes(answers, question))[-1]
