"""Questions with one short answer: reading it, leaving early where all agree, and voting by weight.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), for leaving early; the rule when to, and the vote that a chair's
choice has to stand against, are our own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import permutations

from ...core.messages import Frozen
from ...core.question import Question
from ...reasoning.answer_kind import ResolvedKind, answer_kind
from ...reasoning.answers import extract
from ...reasoning.candidates import whole_sentences
from ..support import Support
from .opinions import Opinion, Ranking, Synthesis
from .option_orders import OptionOrder

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


def closed_kind(question: Question) -> ResolvedKind | None:
    """What the question's one short answer is; None if it is open, so that its answers are texts."""
    kind = answer_kind(question)
    return None if kind == "text" else kind


def read_opinion(
    text: str, question: Question, order: OptionOrder | None = None, *, finished: bool = True
) -> tuple[str, str | None]:
    """A juror's reply in the question's terms.

    Args:
        text: The reply.
        question: The question in its own order.
        order: The order of the options in which the juror saw them; None if they were shown as they are.
        finished: Whether the reply came to its end; of one cut short the last whole sentence is the end.

    Returns:
        The text with the question's letters, and the answer in normal form; None if there is none or the question is
        open. Answers that are equal may still be written differently (see `canonical`).
    """
    kind = closed_kind(question)
    whole = text if finished else whole_sentences(text)
    if order is None or not question.choices:
        found = extract(whole, question) if kind is not None else None
        return text, None if found is None else found.value
    found = extract(whole, order.shown(question)) if kind is not None else None
    if found is None or kind != "choice":
        return order.retell(text, question), None if found is None else found.value
    known = (found.start,) if text[found.start : found.end].upper() == found.value else ()
    return order.retell(text, question, known), order.to_question(found.value)


def canonical(answers: Sequence[str | None], classes: Sequence[Sequence[int]]) -> list[str | None]:
    """Answers with equal ones written alike: as the first of them is.

    Args:
        answers: The answers.
        classes: Positions of equal ones (see `reasoning.answer_classes`).
    """
    written = list(answers)
    for members in classes:
        for i in members:
            written[i] = answers[members[0]]
    return written


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
