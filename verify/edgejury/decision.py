"""The jury's decision: early exit, the chair's answer checked against the jurors' vote, or the vote alone.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), for the early exit; its rule, and the vote that a chair's choice is
checked against, are ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

from ...core.errors import BackendError, BudgetExceeded
from ...core.messages import Frozen
from ...core.run import Run
from ...core.types import Question
from ...reasoning.answers.extraction import extract_answer
from ...reasoning.strategy import Models
from ...reasoning.voting.answer_classes import answer_classes
from ..types import Support
from .answering import canonical, closed_kind
from .config import JuryConfig
from .labels import entailment_between, find_entailment
from .types import Opinion, Ranking, Synthesis

MIN_UNANIMOUS = 3
"""Number of equal answers that an early exit needs."""
MIN_BORDA = 0.5
"""B that a juror with the chair's choice must have for the choice to be accepted."""


class Vote(Frozen):
    """A weighted vote.

    Attributes:
        support: Share of the weight of each choice, largest first; they sum to 1.
        voters: Jurors by choice.
    """

    choice: str
    support: dict[str, float]
    voters: dict[str, tuple[int, ...]]


class Settlement(Frozen):
    """The result of checking a chair's choice.

    Attributes:
        synthesis: The chair's answer, or changed to the vote's choice.
        vote: The vote; None if no opinion has a choice.
        overruled: Whether the chair's choice was replaced.
    """

    synthesis: Synthesis
    vote: Vote | None
    overruled: bool = False


def unanimous_choice(opinions: Sequence[Opinion], *, min_opinions: int = MIN_UNANIMOUS) -> str | None:
    """The choice of all opinions if it suffices for an early exit; None otherwise.

    There must be at least three jurors, and `min_opinions` opinions that all have the same choice.

    Args:
        opinions: All opinions, including failed ones.
    """
    choices = [opinion.choice for opinion in opinions if opinion.ok]
    if len(opinions) < MIN_UNANIMOUS or len(choices) < min_opinions or len(set(choices)) != 1:
        return None
    return choices[0]


def are_equivalent(count: int, supports: Mapping[tuple[int, int], Support]) -> bool:
    """Whether each of `count` texts entails every other.

    Args:
        supports: Verdict of the first text of each pair on the second, by indices.

    Raises:
        KeyError: A pair was not judged.
    """
    return count > 1 and all(supports[pair].label == "supports" for pair in permutations(range(count), 2))


def weighted_vote(opinions: Sequence[Opinion], weights: Mapping[int, float], order: Sequence[int] = ()) -> Vote | None:
    """The choice with the largest weight.

    A juror whose model returns probabilities of the options divides its weight accordingly. Without weights this is
    plain majority voting. Ties go to the choice of more jurors, then to that of the first juror.

    Args:
        weights: Weight by juror, not negative; 1 by default. If nobody who voted has any, all have 1.
        order: Jurors, best first; by number if empty.

    Returns:
        The vote; None if no opinion has a choice.
    """
    voting = [opinion for opinion in opinions if opinion.ok and (opinion.choice is not None or opinion.probs)]
    if not voting:
        return None
    juror_weights = {opinion.juror: weights.get(opinion.juror, 1.0) for opinion in voting}
    if not any(juror_weights.values()):
        juror_weights = dict.fromkeys(juror_weights, 1.0)
    position = {juror: i for i, juror in enumerate(order)}
    shares: dict[str, list[float]] = {}
    voters: dict[str, list[int]] = {}
    for opinion in sorted(voting, key=lambda o: (position.get(o.juror, len(position)), o.juror)):
        for choice, share in _vote_shares(opinion).items():
            shares.setdefault(choice, []).append(juror_weights[opinion.juror] * share)
        if opinion.choice is not None:
            voters.setdefault(opinion.choice, []).append(opinion.juror)
    sums = {choice: math.fsum(weighted) for choice, weighted in shares.items()}
    first = {choice: i for i, choice in enumerate(shares)}
    ranked = sorted(sums, key=lambda c: (-sums[c], -len(voters.get(c, ())), first[c]))
    total = math.fsum(sums.values())
    return Vote(
        choice=ranked[0],
        support={choice: sums[choice] / total for choice in ranked},
        voters={choice: tuple(voters.get(choice, ())) for choice in ranked},
    )


def settle(
    synthesis: Synthesis, opinions: Sequence[Opinion], ranking: Ranking, weights: Mapping[int, float] | None = None
) -> Settlement:
    """Check a chair's choice against the jurors'.

    It is accepted if a juror with B of at least 1/2 made the same choice. Otherwise the vote, weighted by B, replaces
    it, with the text of the best opinion of that choice; the rationale records the change.

    Args:
        synthesis: The chair's answer, its choice in canonical form (see `canonical`).
        weights: Additional factors of the votes, such as reliability.
    """
    reliability = weights or {}
    vote_weights = {juror: b * reliability.get(juror, 1.0) for juror, b in ranking.borda.items()}
    vote = weighted_vote(opinions, vote_weights, ranking.order)
    if vote is None:
        return Settlement(synthesis=synthesis, vote=None)
    choosers = [o.juror for o in opinions if o.ok and o.choice is not None and o.choice == synthesis.choice]
    if any(ranking.borda.get(juror, 0.0) >= MIN_BORDA for juror in choosers):
        return Settlement(synthesis=synthesis, vote=vote)
    reason = (
        f"the {'chair' if synthesis.source == 'chair' else 'best ranked answer'} chose nothing"
        if synthesis.choice is None
        else f"no juror chose {synthesis.choice!r}, as the chair did"
        if not choosers
        else f"nobody well ranked chose {synthesis.choice!r}, as the chair did"
    )
    texts = {opinion.juror: opinion.text for opinion in opinions if opinion.choice == vote.choice}
    author = next((juror for juror in ranking.order if juror in texts), None)
    update = {
        "choice": vote.choice,
        "answer": synthesis.answer if author is None else texts[author],
        "rationale": (*synthesis.rationale, f"{reason}: the jurors' vote, weighted by rank, stands instead"),
    }
    return Settlement(synthesis=synthesis.model_copy(update=update), vote=vote, overruled=True)


def _vote_shares(opinion: Opinion) -> Mapping[str, float]:
    """The shares of one juror's vote."""
    total = math.fsum(opinion.probs.values())
    if total > 0:
        return {choice: p / total for choice, p in opinion.probs.items()}
    return {} if opinion.choice is None else {opinion.choice: 1.0}


@dataclass(frozen=True)
class Decision:
    """The jury's answer.

    Attributes:
        answer: The text, which states the choice if there is one.
        choice: The answer in normal form; None for an open question.
        juror: Its author; None if the chair wrote it.
        synthesis: The chair's answer or its fallback; None without a chair.
        vote: The jurors' vote; None for open questions.
        overruled: Whether the vote replaced the chair's choice.
    """

    answer: str
    choice: str | None
    juror: int | None = None
    synthesis: Synthesis | None = None
    vote: Vote | None = None
    overruled: bool = False


async def decide_by_chair(
    synthesis: Synthesis,
    opinions: Sequence[Opinion],
    ranking: Ranking,
    weights: Mapping[int, float],
    question: Question,
) -> Decision:
    """The decision after the chair.

    Args:
        synthesis: The chair's answer, or the best opinion in its place.
        weights: Additional factors of the votes.
    """
    is_fallback, is_closed = synthesis.source == "fallback", closed_kind(question) is not None
    # if the best opinion states no answer, the others vote
    if not is_closed or (is_fallback and (synthesis.choice is not None or all(o.choice is None for o in opinions))):
        juror = ranking.best if is_fallback else None
        return Decision(
            with_stated_choice(synthesis.answer, synthesis.choice, question), synthesis.choice, juror, synthesis
        )
    canonical_synthesis = synthesis.model_copy(
        update={"choice": await _canonical_choice(synthesis.choice, opinions, question)}
    )
    settlement = settle(canonical_synthesis, opinions, ranking, weights)
    final = settlement.synthesis
    text = with_stated_choice(final.answer, final.choice, question)
    stated_synthesis = final.model_copy(update={"answer": text})
    return Decision(text, final.choice, None, stated_synthesis, settlement.vote, settlement.overruled)


def decide_by_jurors(
    opinions: Sequence[Opinion], ranking: Ranking, weights: Mapping[int, float], question: Question, *, vote: bool
) -> Decision:
    """The decision without a chair.

    Args:
        weights: Weights of the votes.
        vote: Whether closed questions are decided by vote; otherwise the best opinion is used.
    """
    by_juror = {opinion.juror: opinion for opinion in opinions if opinion.ok}
    best = by_juror[ranking.best]
    result = weighted_vote(opinions, weights, ranking.order) if closed_kind(question) is not None else None
    if vote and result is not None:
        choosers = [by_juror[juror] for juror in ranking.order if by_juror[juror].choice == result.choice]
        if not choosers:  # no juror chose the letter with the largest total probability
            return Decision(with_stated_choice("", result.choice, question), result.choice, None, None, result)
        best = choosers[0]
    return Decision(with_stated_choice(best.text, best.choice, question), best.choice, best.juror, None, result)


def with_stated_choice(answer: str, choice: str | None, question: Question) -> str:
    """The text with a last line that states the choice, unless it states it already."""
    if choice is None:
        return answer
    match = extract_answer(answer, question)
    if match is not None and match.value == choice:
        return answer
    return f"{answer.rstrip()}\n\nAnswer: {choice}".lstrip()


async def _canonical_choice(choice: str | None, opinions: Sequence[Opinion], question: Question) -> str | None:
    """The chair's choice in the opinions' form."""
    answers = [*(opinion.choice for opinion in opinions), choice]
    return canonical(answers, await answer_classes(answers, question))[-1]


async def unanimous_decision(
    opinions: Sequence[Opinion], question: Question, models: Models, config: JuryConfig, run: Run
) -> Decision | None:
    """The decision of a jury that agrees after stage 1; None if it does not, or early exit is off.

    Closed questions need equal answers in normal form; open ones need mutual entailment of every pair.

    Args:
        opinions: All opinions, including failed ones.
    """
    complete = [opinion for opinion in opinions if opinion.ok]
    if config.early_exit == "never":
        return None
    if closed_kind(question) is not None:
        choice = unanimous_choice(opinions)
        if choice is None:
            return None
        first = next(opinion for opinion in complete if opinion.choice == choice)
        return Decision(with_stated_choice(first.text, choice, question), choice, first.juror)
    if config.early_exit != "always" or len(complete) < MIN_UNANIMOUS:
        return None
    judge = find_entailment(config, models)
    if judge is None:
        run.degrade(f"no early exit: the entailment {config.entailment} is not available")
        return None
    try:
        same = are_equivalent(len(complete), await entailment_between([opinion.text for opinion in complete], judge))
    except BudgetExceeded as e:
        run.record_limit(e)
        return None
    except (BackendError, KeyError):  # a pair that could not be judged does not agree
        return None
    return Decision(complete[0].text, None, complete[0].juror) if same else None
