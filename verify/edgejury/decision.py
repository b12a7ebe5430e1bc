"""Which answer stands: the chair's, held against the jurors' vote, or without a chair the vote or the best opinion.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850); the vote that a chair's choice has to stand against is our own (see
`closed.settle`).

Questions with one short answer: reading it, leaving early where all agree, and voting by weight.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), for leaving early; the rule when to, and the vote that a chair's
choice has to stand against, are our own.

`agreed_on`: the answer on which all jurors agree, where that is enough to leave out review and chair.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), for leaving early; the rules are our own. Of closed questions the
answers in normal form have to be the same; open ones have to entail each other, each pair both ways.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

from ...core.errors import BackendError, LimitExceeded
from ...core.messages import Frozen
from ...core.run import Run
from ...core.types import Question
from ...reasoning.answers.extraction import extract_answer
from ...reasoning.strategy import Models
from ...reasoning.voting.answer_classes import answer_classes
from ..types import Support
from .answering import canonical, closed_kind
from .config import JuryConfig
from .labels import entailment_of, supports_between
from .types import Opinion, Ranking, Synthesis

EXIT_LEAST = 3
"""Equal answers that an early exit needs."""
LEAST_BORDA = 0.5
"""B that somebody who chose as the chair did must have, for the chair's choice to stand."""


class Vote(Frozen):
    """A vote by weight.

    Attributes:
        choice: What won.
        support: Each choice's share of the weight, the most first; they sum to 1.
        voters: Who chose each.
    """

    choice: str
    support: dict[str, float]
    voters: dict[str, tuple[int, ...]]


class Settled(Frozen):
    """What became of a chair's choice.

    Attributes:
        synthesis: The final answer; the chair's own, or changed to what the vote says.
        vote: The vote; None if no opinion has a choice.
        overruled: Whether the chair's choice did not stand.
    """

    synthesis: Synthesis
    vote: Vote | None
    overruled: bool = False


def unanimous(opinions: Sequence[Opinion], *, least: int = EXIT_LEAST) -> str | None:
    """What all opinions choose, if that is enough to leave out review and chair; None if it is not.

    There must be at least three jurors, `least` of them with an opinion, and every opinion must choose the same.

    Args:
        opinions: All of them, failed ones too.
        least: Fewest opinions.
    """
    given = [opinion.choice for opinion in opinions if opinion.ok]
    if len(opinions) < EXIT_LEAST or len(given) < least or len(set(given)) != 1:
        return None
    return given[0]


def mutually_entailed(count: int, supports: Mapping[tuple[int, int], Support]) -> bool:
    """Whether each of some texts entails every other, so that they say the same.

    Args:
        count: How many texts.
        supports: What the first of two says of the second, by their positions.

    Raises:
        KeyError: A pair was not judged.
    """
    return count > 1 and all(supports[pair].label == "supports" for pair in permutations(range(count), 2))


def weighted_vote(opinions: Sequence[Opinion], weights: Mapping[int, float], order: Sequence[int] = ()) -> Vote | None:
    """The choice with the most weight behind it.

    A juror whose model shows how sure it is of each option divides its weight accordingly. Without weights this is
    plain majority voting. Of equal choices that wins which more jurors chose, then that of the juror who is first.

    Args:
        opinions: The opinions.
        weights: Weight by juror, not negative; 1 for one that is not named. If nobody who chose has any, all have 1.
        order: Jurors, the best first; by number if empty.

    Returns:
        The vote; None if no opinion has a choice.
    """
    voting = [opinion for opinion in opinions if opinion.ok and (opinion.choice is not None or opinion.probs)]
    if not voting:
        return None
    heavy = {opinion.juror: weights.get(opinion.juror, 1.0) for opinion in voting}
    if not any(heavy.values()):
        heavy = dict.fromkeys(heavy, 1.0)
    rank = {juror: place for place, juror in enumerate(order)}
    parts: dict[str, list[float]] = {}
    voters: dict[str, list[int]] = {}
    for opinion in sorted(voting, key=lambda o: (rank.get(o.juror, len(rank)), o.juror)):
        for choice, share in _ballot(opinion).items():
            parts.setdefault(choice, []).append(heavy[opinion.juror] * share)
        if opinion.choice is not None:
            voters.setdefault(opinion.choice, []).append(opinion.juror)
    sums = {choice: math.fsum(weighed) for choice, weighed in parts.items()}
    first = {choice: place for place, choice in enumerate(parts)}
    ranked = sorted(sums, key=lambda c: (-sums[c], -len(voters.get(c, ())), first[c]))
    total = math.fsum(sums.values())
    return Vote(
        choice=ranked[0],
        support={choice: sums[choice] / total for choice in ranked},
        voters={choice: tuple(voters.get(choice, ())) for choice in ranked},
    )


def settle(
    synthesis: Synthesis, opinions: Sequence[Opinion], ranking: Ranking, weights: Mapping[int, float] | None = None
) -> Settled:
    """Hold a chair's choice against the jurors'.

    It stands if a juror chose the same whose B is at least 1/2. Otherwise the vote, weighted by B, takes its place, and
    with it the answer of the best opinion that chose so; the rationale says that it happened.

    Args:
        synthesis: The chair's answer; its choice written as the opinions' are (see `canonical`).
        opinions: The opinions.
        ranking: Their ranking.
        weights: What else a juror's vote counts for, its reliability for example.
    """
    factors = weights or {}
    heavy = {juror: b * factors.get(juror, 1.0) for juror, b in ranking.borda.items()}
    vote = weighted_vote(opinions, heavy, ranking.order)
    if vote is None:
        return Settled(synthesis=synthesis, vote=None)
    choosers = [o.juror for o in opinions if o.ok and o.choice is not None and o.choice == synthesis.choice]
    if any(ranking.borda.get(juror, 0.0) >= LEAST_BORDA for juror in choosers):
        return Settled(synthesis=synthesis, vote=vote)
    why = (
        f"the {'chair' if synthesis.source == 'chair' else 'best ranked answer'} chose nothing"
        if synthesis.choice is None
        else f"no juror chose {synthesis.choice!r}, as the chair did"
        if not choosers
        else f"nobody well ranked chose {synthesis.choice!r}, as the chair did"
    )
    texts = {opinion.juror: opinion.text for opinion in opinions if opinion.choice == vote.choice}
    speaker = next((juror for juror in ranking.order if juror in texts), None)
    changed = {
        "choice": vote.choice,
        "answer": synthesis.answer if speaker is None else texts[speaker],
        "rationale": (*synthesis.rationale, f"{why}: the jurors' vote, weighted by rank, stands instead"),
    }
    return Settled(synthesis=synthesis.model_copy(update=changed), vote=vote, overruled=True)


def _ballot(opinion: Opinion) -> Mapping[str, float]:
    """How one juror's vote divides among the choices."""
    total = math.fsum(opinion.probs.values())
    if total > 0:
        return {choice: p / total for choice, p in opinion.probs.items()}
    return {} if opinion.choice is None else {opinion.choice: 1.0}


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
    found = extract_answer(answer, question)
    if found is not None and found.value == choice:
        return answer
    return f"{answer.rstrip()}\n\nAnswer: {choice}".lstrip()


async def _alike(choice: str | None, opinions: Sequence[Opinion], question: Question) -> str | None:
    """The chair's choice, written as the opinions write it."""
    answers = [*(opinion.choice for opinion in opinions), choice]
    return canonical(answers, await answer_classes(answers, question))[-1]


async def agreed_on(
    opinions: Sequence[Opinion], question: Question, models: Models, config: JuryConfig, run: Run
) -> Final | None:
    """The answer of a jury that agrees; None if it does not, or is not to end early.

    Args:
        opinions: All opinions, failed ones too.
        question: What they answer.
        models: The run's models: what compares open answers.
        config: Parameters.
        run: The run.
    """
    given = [opinion for opinion in opinions if opinion.ok]
    if config.early_exit == "never":
        return None
    if closed_kind(question) is not None:
        choice = unanimous(opinions, least=config.exit_min)
        if choice is None:
            return None
        first = next(opinion for opinion in given if opinion.choice == choice)
        return Final(stated(first.text, choice, question), choice, first.juror)
    if config.early_exit != "always" or len(given) < max(EXIT_LEAST, config.exit_min):
        return None
    judge = entailment_of(config, models)
    if judge is None:
        run.degrade(f"no early exit: {config.entailment} cannot be had here")
        return None
    try:
        same = mutually_entailed(len(given), await supports_between([opinion.text for opinion in given], judge))
    except LimitExceeded as e:
        run.note_limit(e)
        return None
    except (BackendError, KeyError):  # a pair that could not be judged is no agreement
        return None
    return Final(given[0].text, None, given[0].juror) if same else None
