"""Where opinions stand after stage 2: what others are shown of them, whose reviews count for what, and the ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...core.jury_events import OpinionsRanked
from ...core.question import Question
from ...core.run import Run
from ...serving.metered import MeteredModel
from .anonymity import Scrubber
from .concordance import concordance
from .config import PanelConfig
from .cross_review import Shown
from .opinions import Opinion, Ranking, Review
from .ranking import pair_agreement, rank, rank_by_agreement
from .seats import Seat, roster_of

LEAST_REVIEWS = 2
"""Reviews that a ranking by reviews needs."""


def shown_opinions(
    seats: Sequence[Seat], given: Sequence[Opinion], question: Question, chair: MeteredModel, *, blind: bool
) -> Shown:
    """The opinions as others see them: without what tells whose they are, or with it where that is wanted.

    Args:
        seats: The jurors.
        given: Their opinions, those that are ok.
        question: What they answer.
        chair: The chair, whose name tells of an answer too.
        blind: Whether nothing is to tell whose they are.
    """
    choices = {opinion.juror: opinion.choice for opinion in given}
    if blind:
        scrub = Scrubber(roster_of(seats, [chair]), question).scrub
        return Shown({opinion.juror: scrub(opinion.text) for opinion in given}, choices)
    roles = {seat.juror: seat.role_name.replace("-", " ") for seat in seats}
    names = {o.juror: f"{o.model} as {roles[o.juror]}" if roles[o.juror] else o.model for o in given}
    return Shown({opinion.juror: opinion.text for opinion in given}, choices, names)


def ranked_by_reviews(
    reviews: Sequence[Review],
    candidates: Sequence[int],
    weights: Mapping[int, float],
    config: PanelConfig,
    run: Run,
    *,
    exclude_self: bool,
) -> Ranking:
    """The ranking by reviews, each counting for its reviewer's reliability and for how far others agree with it.

    Args:
        reviews: The reviews.
        candidates: What is ranked.
        weights: Reliability by reviewer; 1 for one that is not named.
        config: Parameters.
        run: The run, whose trace is told.
        exclude_self: Whether what a reviewer says of the candidate of its number is left out.
    """
    trusted = {review.reviewer: weights.get(review.reviewer, 1.0) for review in reviews if review.ok}
    if config.concordance and config.aggregate != "points":  # the published sums count every review alike
        agreed = concordance(reviews, criteria=config.weights, exclude_self=exclude_self)
        trusted = {reviewer: weight * agreed[reviewer] for reviewer, weight in trusted.items()}
    ranking = rank(
        reviews,
        candidates,
        aggregate=config.aggregate,
        criteria=config.weights,
        weights=trusted,
        exclude_self=exclude_self,
    )
    run.emit(OpinionsRanked(report=ranking.model_dump(mode="json")))
    return ranking


def ranked(
    reviews: Sequence[Review], given: Sequence[Opinion], weights: Mapping[int, float], config: PanelConfig, run: Run
) -> Ranking:
    """The ranking of opinions: by their reviews, or where fewer than two can be read by how far they agree.

    Args:
        reviews: The reviews; empty where there were none.
        given: The opinions, those that are ok.
        weights: Reliability by juror; 1 for one that is not named.
        config: Parameters.
        run: The run.
    """
    read = sum(review.ok for review in reviews)
    if read >= LEAST_REVIEWS:
        jurors = [opinion.juror for opinion in given]
        return ranked_by_reviews(reviews, jurors, weights, config, run, exclude_self=config.exclude_self)
    if reviews:
        run.degrade(f"{read} of {len(reviews)} reviews could be read: opinions are ranked by how far they agree")
    ranking = rank_by_agreement(given, pair_agreement(given))
    run.emit(OpinionsRanked(report=ranking.model_dump(mode="json")))
    return ranking
